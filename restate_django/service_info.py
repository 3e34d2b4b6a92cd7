"""What the Admin API says about the server and its services, kept for some minutes.

Imports the client alone. Promises that a server which does not answer is left alone for ten seconds, and not asked for
each row, that "not known" is told apart from "no", and that what is kept has a bound.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from restate_django.exceptions import NotFound, RestateError
from restate_django.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from restate_django.client import AdminClient, ServiceInfo

T = TypeVar("T")

logger = get_logger("restate_django.connections")

#: Seconds for which an answer is taken as it is. A deployment that changes a service is noticed after that.
KEPT_FOR: Final = 300.0
#: Seconds for which "there is no such service" is taken as it is: a deployment may be about to register.
ABSENT_FOR: Final = 10.0
#: Seconds that it may take: a view may wait for it, once in some minutes.
ANSWER_TIMEOUT: Final = 2.0
#: Seconds for which an Admin API that failed is left alone.
LEFT_ALONE_FOR: Final = 10.0
#: The most answers that are kept for a connection.
MOST_KEPT: Final = 1000

_WORKFLOW: Final = "Workflow"


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, and until when (on the monotonic clock) it is fresh. ``None`` is the answer "no such thing"."""

    value: Any
    fresh_until: float


class AdminAnswers:
    """The answers of one connection's Admin API, shared by the threads of a process.

    One question is asked at a time: threads that want the same answer wait for it together.

    Args:
        alias: The connection's name, for the log.
        admin: The client, None where the connection has no Admin API: every answer is then "not known".
    """

    def __init__(self, alias: str, admin: AdminClient | None) -> None:
        self._alias = alias
        self._admin = admin
        self._answers: dict[str, _Answer] = {}
        self._failed_until = float("-inf")
        self._lock = threading.Lock()

    def get(self, key: str, question: Callable[[AdminClient], T], *, network: bool = True) -> T | None:
        """Return the answer to a question, from memory where it is fresh.

        Args:
            key: The question's name.
            question: Asks the server. ``NotFound`` is the answer "no such thing".
            network: False: only look into memory.

        Returns:
            The answer; None where there is no such thing, or where it is not known. Nothing is raised for a server
            that can't be reached or refuses to answer.
        """
        value: T | None
        fresh, value = self._fresh(key)
        if fresh or not network or self._admin is None:
            return value
        with self._lock:
            fresh, value = self._fresh(key)
            if fresh or monotonic() < self._failed_until:
                return value
            try:
                value = question(self._admin)
            except NotFound:
                self._keep(key, None, ABSENT_FOR)
            except RestateError as error:
                self._failed_until = monotonic() + LEFT_ALONE_FOR
                logger.warning(
                    "The Admin API of the Restate connection %r did not tell %s, and is left alone for %g seconds: %s",
                    self._alias,
                    key,
                    LEFT_ALONE_FOR,
                    error,
                    connection=self._alias,
                )
            else:
                self._keep(key, value, KEPT_FOR)
            return value

    @property
    def can_be_asked(self) -> bool:
        """Whether the connection has an Admin API."""
        return self._admin is not None

    def has_told(self, key: str) -> bool:
        """Tell whether there has been an answer to a question, be it "no such thing"."""
        return key in self._answers

    def last(self, key: str) -> Any:
        """Return the last answer to a question, however old; None where there was none."""
        answer = self._answers.get(key)
        return answer.value if answer else None

    def forget(self, key: str) -> None:
        """Ask the question anew the next time."""
        self._answers.pop(key, None)

    def age(self, key: str, seconds: float) -> None:
        """Ask the question anew the next time, if its answer is older than some seconds. The answer stays the last."""
        answer = self._answers.get(key)
        if answer is not None and answer.fresh_until - KEPT_FOR + seconds <= monotonic():
            self._answers[key] = _Answer(answer.value, float("-inf"))

    def renew_lock(self) -> None:
        """Take a new lock, in a forked child: a thread that held the old one does not exist here."""
        self._lock = threading.Lock()

    def _fresh(self, key: str) -> tuple[bool, Any]:
        """Return whether memory has a fresh answer, and the answer."""
        answer = self._answers.get(key)
        if answer is None or answer.fresh_until <= monotonic():
            return False, None
        return True, answer.value

    def _keep(self, key: str, value: object, seconds: float) -> None:
        """Keep an answer. The oldest one goes when there are too many."""
        # Taken out first, so that the order of the dict is the order of age.
        self._answers.pop(key, None)
        while len(self._answers) >= MOST_KEPT:
            self._answers.pop(next(iter(self._answers)))
        self._answers[key] = _Answer(value, monotonic() + seconds)


class ServiceDirectory:
    """What a connection knows of Restate's services: by its Admin API, or by what the ingress taught it.

    Args:
        answers: The answers of the connection's Admin API.
        default_retention: The setting ``IDEMPOTENCY_RETENTION``: what holds where the server can't be asked.
    """

    def __init__(self, answers: AdminAnswers, default_retention: timedelta) -> None:
        self._answers = answers
        self._default_retention = default_retention
        self._learned: dict[tuple[str, str], tuple[bool, float]] = {}
        self._lock = threading.Lock()

    def get(self, service: str, *, network: bool = True) -> ServiceInfo | None:
        """Return what the server says about a service, at most five minutes old.

        Args:
            service: The service's name.
            network: False: only look into memory (inside a transaction, say).

        Returns:
            None for a service that the server does not know (at most ten seconds old), and where nothing is known:
            there is no Admin API, or it does not answer.
        """
        return self._answers.get(
            _key(service), lambda admin: admin.get_service(service, timeout=ANSWER_TIMEOUT), network=network
        )

    def renewed(self, service: str) -> ServiceInfo | None:
        """Return what the server says about a service, at most ten seconds old.

        Args:
            service: The service's name.

        Returns:
            None as for :meth:`get`.
        """
        self._answers.age(_key(service), ABSENT_FOR)
        return self.get(service)

    def forget(self, service: str) -> None:
        """Ask about a service anew the next time: its deployments have just changed.

        Args:
            service: The service's name.
        """
        self._answers.forget(_key(service))
        with self._lock:
            for known in [target for target in self._learned if target[0] == service]:
                del self._learned[known]

    def is_workflow_main(self, service: str, handler: str, *, network: bool = True) -> bool | None:
        """Return whether a handler is a workflow's main handler, which must not be sent an idempotency key.

        Args:
            service: The service's name.
            handler: The handler's name.
            network: False: only look into memory.

        Returns:
            None where it is not known. The request then carries the key: the ingress refuses it (400, nothing ran)
            where that was wrong, and ``remember_workflow_main`` keeps what was learned.
        """
        learned, until = self._learned.get((service, handler), (False, float("-inf")))
        if until > monotonic():
            return learned
        info = self.get(service, network=network)
        if info is None:
            return None
        if info.ty != _WORKFLOW:
            return False
        found = info.handler(handler)
        return None if found is None else found.ty == _WORKFLOW

    def remember_workflow_main(self, service: str, handler: str) -> None:
        """Keep for five minutes that the ingress refused an idempotency key for this handler.

        It wins over what the Admin API said before. It is not kept for good, since another deployment may make
        something else of the name, and a request without a key could then run twice.
        """
        self._learn(service, handler, is_workflow_main=True)
        self._answers.forget(_key(service))

    def remember_keyed(self, service: str, handler: str) -> None:
        """Keep for five minutes that the ingress took an idempotency key for this handler: no workflow's main one."""
        self._learn(service, handler, is_workflow_main=False)

    def _learn(self, service: str, handler: str, *, is_workflow_main: bool) -> None:
        with self._lock:
            self._learned.pop((service, handler), None)
            while len(self._learned) >= MOST_KEPT:
                self._learned.pop(next(iter(self._learned)))
            self._learned[service, handler] = (is_workflow_main, monotonic() + KEPT_FOR)

    def idempotency_retention(self, service: str, handler: str, *, network: bool = True) -> timedelta:
        """Return how long Restate remembers a send to this handler, counted from the invocation's end.

        It is the handler's own, else its service's; a workflow's main handler has its completion retention. Where the
        server can't be asked it is the setting's, or what the server said last if that is shorter.

        Args:
            service: The service's name.
            handler: The handler's name.
            network: False: only look into memory.

        Returns:
            Zero where Restate remembers nothing: a send of unknown outcome must never be repeated then.
        """
        info = self.get(service, network=network)
        if info is not None:
            told = info.retention_of(handler)
            return self._default_retention if told is None else told
        last: ServiceInfo | None = self._answers.last(_key(service))
        told = last.retention_of(handler) if last is not None else None
        return self._default_retention if told is None else min(told, self._default_retention)

    def knows_retention(self, service: str) -> bool:
        """Tell whether ``idempotency_retention`` is what the server said, or what stands in for a server not asked.

        False where there is an Admin API and it has never told: the service may remember nothing at all.

        Args:
            service: The service's name.
        """
        return not self._answers.can_be_asked or self.get(service) is not None or self._answers.has_told(_key(service))

    def renew_lock(self) -> None:
        """Take a new lock, in a forked child: a thread that held the old one does not exist here."""
        self._lock = threading.Lock()


def _key(service: str) -> str:
    """Return the name of the question about a service."""
    return f"the service {service!r}"
