"""What the databases of invocations are measured by, read when somebody looks: for the metrics of every kind.

The questions are those of ``vitals``, a few for each database, each of which reads a bounded part of an index. Imports
the records and the settings.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError
from django.db import connections as databases

from restate_django import vitals
from restate_django.conf import swept_databases
from restate_django.lifecycle import NEEDS_ATTENTION, OPEN, Status
from restate_django.logs import get_logger, trouble
from restate_django.measuring import Instrument, Shape
from restate_django.models import JobRun

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = get_logger("restate_django.measuring")

#: Statuses that are counted: what is open, and what waits for a person. Those that ended are counted as they end.
COUNTED: Final = tuple(status for status in Status if status in OPEN | NEEDS_ATTENTION)

INVOCATIONS: Final = Instrument(
    "invocations",
    Shape.GAUGE,
    "{invocation}",
    f"Invocations of each status that is open or waits for a person, counted up to {vitals.COUNTED}.",
    ("database", "status"),
)
OLDEST_UNSENT: Final = Instrument(
    "unsent.oldest",
    Shape.GAUGE,
    "s",
    "For how long the invocation that waits longest to be sent has been waiting; 0 where none does.",
    ("database",),
)
OVERDUE_POLL: Final = Instrument(
    "poll.overdue",
    Shape.GAUGE,
    "s",
    "For how long the invocation that waits longest to be asked about has been due; 0 where none is.",
    ("database",),
)
LAST_RUN: Final = Instrument(
    "job.last_success.timestamp",
    Shape.GAUGE,
    "s",
    "When a periodic job last ran to a good end; 0 where it never has.",
    ("database", "job_name"),
)
FAILING: Final = Instrument(
    "job.failing",
    Shape.GAUGE,
    "1",
    "1 while the last run of a job ended in an error.",
    ("database", "job_name"),
)
READABLE: Final = Instrument(
    "database.up", Shape.GAUGE, "1", "1 where the database answers these questions, 0 where it does not.", ("database",)
)

GAUGES: Final = (INVOCATIONS, OLDEST_UNSENT, OVERDUE_POLL, LAST_RUN, FAILING, READABLE)

# Seconds for which a reading may serve again: one export asks for each gauge by itself.
_FRESH_FOR: Final = 1.0


class Reading(NamedTuple):
    """A value of a gauge."""

    gauge: Instrument
    labels: dict[str, str]
    value: float


def read() -> Iterator[Reading]:
    """Ask each swept database. One that does not answer says so by ``database.up`` alone, and its reason is logged."""
    try:
        swept = swept_databases()
    except ImproperlyConfigured as error:
        logger.error("The databases can't be measured: %s", error)
        return
    for using in swept:
        try:
            readings = list(_of(using))
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The database %r can't be measured: %s", using, trouble(error))
            readings = []
        yield from readings
        yield Reading(READABLE, {"database": using}, float(bool(readings)))


def _of(using: str) -> Iterator[Reading]:
    seen = vitals.look(using)
    for status in COUNTED:
        yield Reading(INVOCATIONS, {"database": using, "status": status.value}, seen.counts.get(status, 0))
    yield Reading(OLDEST_UNSENT, {"database": using}, seen.unsent_for.total_seconds())
    yield Reading(OVERDUE_POLL, {"database": using}, seen.poll_overdue_for.total_seconds())
    for job in JobRun.Job:
        run = seen.runs.get(job)
        labels = {"database": using, "job_name": job.value}
        ended = 0.0 if run is None or run.succeeded_at is None else run.succeeded_at.timestamp()
        yield Reading(LAST_RUN, labels, ended)
        yield Reading(FAILING, labels, float(run is not None and run.is_failing))


class _Lately:
    """The last reading, for an exporter that asks for each gauge by itself, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._readings: list[Reading] = []

    def readings(self) -> list[Reading]:
        with self._lock:
            if time.monotonic() >= self._until:
                # An exporter's thread ends no request that would close what is opened for this.
                closed = [database for database in databases.all() if database.connection is None]
                try:
                    self._readings = list(read())
                finally:
                    for database in closed:
                        database.close()
                self._until = time.monotonic() + _FRESH_FOR
            return self._readings


_lately = _Lately()


def lately() -> list[Reading]:
    """Return what :func:`read` does, of the last second, and leave open no connection that it opened."""
    return _lately.readings()


def _start_anew() -> None:
    """In a forked child: whoever held the lock does not exist there."""
    global _lately  # noqa: PLW0603 - the one state of this module
    _lately = _Lately()


if hasattr(os, "register_at_fork"):  # not on Windows, which can't fork
    os.register_at_fork(after_in_child=_start_anew)
