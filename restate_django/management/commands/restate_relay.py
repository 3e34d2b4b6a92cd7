"""``manage.py restate_relay``: delivers, polls and prunes without Celery."""

from __future__ import annotations

import signal
import threading
import time
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseTrouble
from django.db import close_old_connections

from restate_django import jobs
from restate_django.conf import ConnectionDoesNotExist, get_settings
from restate_django.logs import get_logger, trouble

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections import Counter
    from collections.abc import Callable
    from types import FrameType

logger = get_logger("restate_django.relay")


class Command(BaseCommand):
    """A loop over the three verbs that Celery beat would start."""

    help = (
        "Delivers recorded invocations to Restate, polls for their outcomes and prunes old rows: what the Celery beat "
        "jobs do, for projects without Celery. Any number of them may run at once. Ends after the work in hand on "
        "SIGTERM or Ctrl-C."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the intervals."""
        parser.add_argument("--once", action="store_true", help="Do what is due now, print what was done, and end.")
        parser.add_argument(
            "--deliver", type=seconds, default=1.0, metavar="SECONDS", help="Pause between deliveries (default: 1)."
        )
        parser.add_argument(
            "--poll", type=seconds, default=1.0, metavar="SECONDS", help="Pause between polls (default: 1)."
        )
        parser.add_argument(
            "--prune", type=seconds, default=3600.0, metavar="SECONDS", help="Pause between clean-ups (default: 3600)."
        )
        parser.add_argument(
            "--connection",
            action="append",
            metavar="ALIAS",
            help="Deliver and poll the rows of this connection alone; may be repeated. By default those of all.",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Run once, or until a signal asks for the end."""
        connections: list[str] | None = options["connection"]
        try:
            for alias in connections or ():
                get_settings(alias)
        except ConnectionDoesNotExist as error:
            raise CommandError(str(error)) from None
        if options["once"]:
            self._report("delivered", jobs.deliver(connections=connections))
            self._report("polled", jobs.poll(connections=connections))
            self._report("pruned", jobs.prune())
            return
        stop = threading.Event()

        def end(_signal: int, _frame: FrameType | None) -> None:
            stop.set()

        before = {name: signal.signal(name, end) for name in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop(stop, options)
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _loop(self, stop: threading.Event, options: dict[str, Any]) -> None:
        connections: list[str] | None = options["connection"]
        work: list[tuple[str, Callable[[], Counter[str]], float]] = [
            ("delivered", lambda: jobs.deliver(budget=30, connections=connections), options["deliver"]),
            ("polled", lambda: jobs.poll(budget=30, connections=connections), options["poll"]),
            ("pruned", jobs.prune, options["prune"]),
        ]
        due = dict.fromkeys((name for name, _job, _pause in work), time.monotonic())
        self.stdout.write("restate_relay runs. Ctrl-C ends it.")
        while not stop.is_set():
            for name, job, pause in work:
                if stop.is_set() or time.monotonic() < due[name]:
                    continue
                close_old_connections()
                try:
                    self._report(name, job(), quiet=options["verbosity"] < 2)  # noqa: PLR2004 - -v 2 is "verbose"
                except DatabaseTrouble as error:
                    # The database may be gone for a moment; the rows are where they were.
                    logger.error("The relay could not work, and goes on: %s", trouble(error))
                due[name] = time.monotonic() + pause
            stop.wait(max(0.0, min(due.values()) - time.monotonic()))
        self.stdout.write("restate_relay ended.")

    def _report(self, verb: str, done: Counter[str], *, quiet: bool = False) -> None:
        if quiet and not done.total():
            return
        if quiet and set(done) <= {"unchanged", "retry"}:
            return
        text = ", ".join(f"{count} {status}" for status, count in sorted(done.items())) or "nothing"
        self.stdout.write(f"{verb}: {text}")


def seconds(text: str) -> float:
    """Read a pause from the command line."""
    try:
        pause = float(text)
    except ValueError:
        pause = 0.0
    if not 0 < pause < float("inf"):
        raise ArgumentTypeError(f"A pause is a positive number of seconds, not {text!r}.")
    return pause
