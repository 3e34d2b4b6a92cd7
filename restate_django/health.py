"""Whether the app works, for load balancers, orchestrators and monitors: a few questions, for a few seconds at most.

Each server and each database is asked in a thread of its own, so one that hangs holds neither the others nor whoever
waits. One that is still being asked is not asked again: a database that hangs costs one thread, not one for each probe.
Imports the connections, the records and ``vitals``.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections as databases

from restate_django import vitals
from restate_django.conf import all_settings, swept_databases
from restate_django.connections import connections
from restate_django.vitals import Trouble

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection

    from restate_django.vitals import Vitals

#: Seconds that a question may take.
TIMEOUT: Final = 3.0


class Check(StrEnum):
    """What can be asked, by the names that ``?only=`` takes."""

    #: Each swept database answers, and has the app's tables.
    DATABASE = "database"
    #: Each connection's ingress answers.
    INGRESS = "ingress"
    #: So does each Admin API.
    ADMIN = "admin"
    #: The delivery job runs, and no row has been waiting to be sent for long.
    DELIVERY = "delivery"
    #: The polling job runs.
    POLLING = "polling"
    #: No invocation waits for a person: none is paused or undeliverable. One that is, is a warning.
    ATTENTION = "attention"


class State(StrEnum):
    """What came of it. A warning is something for a person that keeps nothing else from working."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        check: What was asked.
        alias: About which database, or connection of ``RESTATE``.
        state: What came of it.
        message: What is wrong, in a sentence. Names no host.
        detail: What a server, a client or a driver said. May name hosts: it is for people of the house.
        seconds: How long it took.
    """

    check: Check
    alias: str
    state: State = State.OK
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


_OF_SERVERS: Final = frozenset({Check.INGRESS, Check.ADMIN})
_TROUBLES: Final[dict[Check, frozenset[Trouble]]] = {
    Check.DATABASE: frozenset(),
    Check.DELIVERY: frozenset({Trouble.UNSENT, Trouble.NO_DELIVERY}),
    Check.POLLING: frozenset({Trouble.NO_POLL}),
    Check.ATTENTION: vitals.FOR_A_PERSON,
}
_SAYINGS: Final = {
    Check.DATABASE: "The database does not answer.",
    Check.INGRESS: "The ingress does not answer.",
    Check.ADMIN: "The Admin API does not answer.",
    # Of these it is not known: they are asked of the database.
    Check.DELIVERY: "Whether invocations are delivered is not known.",
    Check.POLLING: "Whether outcomes are read is not known.",
    Check.ATTENTION: "Whether invocations wait for a person is not known.",
}


def ask(check: Check, alias: str, *, timeout: float = TIMEOUT, after: dt.timedelta | None = None) -> Finding:
    """Ask one question.

    Args:
        check: Which one.
        alias: The database, or the connection of ``RESTATE``.
        timeout: Seconds that the answer may take.
        after: How long a row may wait to be sent and a job may not have run; ``ALERT_AFTER`` by default.

    Returns:
        What was found. Never raises.
    """
    key = _asks(check, alias)
    return _found(check, alias, _Asked(key, _question(*key, timeout)), time.monotonic() + timeout, after)


def judge(check: Check, alias: str, seen: Vitals | None, after: dt.timedelta | None = None) -> Finding:
    """Answer a question of which it is known that whom it is about has answered.

    Args:
        check: Which one.
        alias: As for :func:`ask`.
        seen: How the database is; None for a server, which answers or does not.
        after: As for :func:`ask`.
    """
    faults = [] if seen is None else [each for each in vitals.faults(seen, after) if each.trouble in _TROUBLES[check]]
    if not faults:
        return Finding(check, alias)
    state = State.WARNING if all(fault.is_for_a_person for fault in faults) else State.FAULT
    message = " ".join(fault.text for fault in faults)
    return Finding(check, alias, state, message, " ".join(fault.detail for fault in faults if fault.detail))


def examine(only: Collection[str] = (), *, timeout: float = TIMEOUT) -> list[Finding]:
    """Ask the questions, all at once.

    Args:
        only: Names of checks; all of them by default.
        timeout: Seconds for all of them together: what has not been answered then is a fault.

    Returns:
        What was found, in the order of ``Check`` and of the settings. Never raises.
    """
    wanted = [check for check in Check if not only or check in only]
    try:
        pairs = [(check, alias) for check in wanted for alias in _subjects(check)]
    except ImproperlyConfigured as error:
        return [_broken(check, "", error) for check in wanted]
    end = time.monotonic() + timeout
    keys = {pair: _asks(*pair) for pair in pairs}
    asked = {key: _Asked(key, _question(*key, timeout)) for key in dict.fromkeys(keys.values())}
    return [_found(check, alias, asked[key], end) for (check, alias), key in keys.items()]


def _asks(check: Check, alias: str) -> tuple[Check, str]:
    """Return what is asked to answer a question: all of those about a database are answered by one look at it."""
    return (check if check in _OF_SERVERS else Check.DATABASE), alias


def _found(check: Check, alias: str, asked: _Asked, end: float, after: dt.timedelta | None = None) -> Finding:
    try:
        found = judge(check, alias, asked.answer(end), after)
    except NotDone:
        found = _broken(check, alias, "There was no answer in time.")
    except Exception as error:  # noqa: BLE001 - whatever a client or a driver raises: it does not work
        found = _broken(check, alias, error)
    return dataclasses.replace(found, seconds=asked.seconds)


def _question(check: Check, alias: str, timeout: float) -> Callable[[], Vitals | None]:
    """Return what asks the server or the database that a check is about."""
    if check in _OF_SERVERS:
        return partial(_reach, check, alias, timeout)
    return partial(vitals.look, alias)


def _broken(check: Check, alias: str, why: Exception | str) -> Finding:
    detail = why if isinstance(why, str) else f"{type(why).__name__}: {why}".strip()
    return Finding(check, alias, State.FAULT, _SAYINGS[check], detail)


def _subjects(check: Check) -> list[str]:
    """Return the databases or connections that a check is about."""
    if check not in _OF_SERVERS:
        return swept_databases()
    return [alias for alias, each in all_settings().items() if check is Check.INGRESS or each.admin_url is not None]


def _reach(check: Check, alias: str, timeout: float) -> Vitals | None:
    connection = connections[alias]
    if check is Check.INGRESS:
        connection.ingress.health(timeout=timeout)
    else:
        connection.require_admin("health").version(timeout=timeout)
    return None


# ---------------------------------------------------------------- a thread for each


class _UnderWay:
    """What this process is asking now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.futures: dict[tuple[Check, str], Future[Vitals | None]] = {}


_under_way = _UnderWay()


def _start_anew() -> None:
    """In a forked child: none of the threads exist there."""
    global _under_way  # noqa: PLW0603 - the one state of this module
    _under_way = _UnderWay()


if hasattr(os, "register_at_fork"):  # not on Windows, which can't fork
    os.register_at_fork(after_in_child=_start_anew)


class _Asked:
    """A server or a database that is being asked, by a thread of its own or by one that asks the same already.

    Args:
        key: What is asked.
        question: Asks it.
    """

    def __init__(self, key: tuple[Check, str], question: Callable[[], Vitals | None]) -> None:
        self._start = time.monotonic()
        self.seconds = 0.0
        kind, alias = key
        self._future: Future[Vitals | None] = Future()
        if kind == Check.DATABASE and alias in databases and databases[alias].in_atomic_block:
            # A TestCase's transaction: what it has written is seen by this thread's connection alone.
            self._work(question, close=False)
            return
        with _under_way.lock:
            running = _under_way.futures.get(key)
            if running is not None and not running.done():
                self._future = running
                return
            _under_way.futures[key] = self._future
        threading.Thread(target=self._work, args=(question,), name=f"restate-django-health-{kind}", daemon=True).start()

    def answer(self, end: float) -> Vitals | None:
        """Wait for the answer until a moment of the monotonic clock, and return it, or raise what was raised."""
        try:
            return self._future.result(max(0.0, end - time.monotonic()))
        finally:
            self.seconds = self.seconds or time.monotonic() - self._start

    def _work(self, question: Callable[[], Vitals | None], *, close: bool = True) -> None:
        try:
            answer = question()
        except BaseException as error:  # noqa: BLE001 - goes to whoever waits
            self._future.set_exception(error)
        else:
            self._future.set_result(answer)
        finally:
            if close:
                # The thread's own ones.
                databases.close_all()
