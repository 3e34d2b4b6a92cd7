"""The periodic jobs, as Celery beat and ``restate_relay`` run them: a verb, and a note that it ran.

The note is one row for each job on each swept database (``JobRun``). It tells the health view, ``restate doctor``, the
admin and the metrics that deliveries and polls still happen. Writing it harms nobody: it is one UPDATE by primary key,
made at most every few seconds by a process, in nobody's transaction, and one that fails is a line in the log.
Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseTrouble
from django.db import transaction
from django.utils import timezone

from restate_django import delivery, measuring, polling, retention
from restate_django.conf import swept_databases
from restate_django.exceptions import InvalidRequest
from restate_django.logs import get_logger, trouble
from restate_django.models import JobRun
from restate_django.storable import storable_text
from restate_django.workers import is_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = get_logger("restate_django.jobs")

#: Seconds for which a process that has noted a run notes no other of the same job, as long as nothing changes.
NOTED_EVERY: Final = 5.0
# What is kept of an error's message.
_LONGEST_ERROR: Final = 500


def deliver(*, budget: float | None = None, connections: Iterable[str] | None = None) -> Counter[str]:
    """Send the rows that are due (``delivery.deliver_due``), and note that it was done.

    Args:
        budget: Seconds at most.
        connections: Of these connections alone; of all by default. The note is the same.
    """
    return noted(JobRun.Job.DELIVER, lambda: delivery.deliver_due(budget=budget, connections=connections))


def poll(*, budget: float | None = None, connections: Iterable[str] | None = None) -> Counter[str]:
    """Ask about the rows that are due (``polling.poll_due``), and note that it was done.

    Args:
        budget: Seconds at most.
        connections: Of these connections alone; of all by default. The note is the same.
    """
    return noted(JobRun.Job.POLL, lambda: polling.poll_due(budget=budget, connections=connections))


def prune() -> Counter[str]:
    """Delete old finished rows (``retention.prune``), and note that it was done."""
    return noted(JobRun.Job.PRUNE, retention.prune)


def noted(job: JobRun.Job, work: Callable[[], Counter[str]]) -> Counter[str]:
    """Do a job's work, and note how it ended on every swept database.

    Args:
        job: Which one it is.
        work: What it does. Its errors are noted and go on to the caller.

    Returns:
        What the work returned.
    """
    start = time.monotonic()
    try:
        done = work()
    except InvalidRequest:
        # A wrong argument of the caller's: the job did not run.
        raise
    except Exception as error:
        seconds = time.monotonic() - start
        _notes.take(job, seconds, error=error)
        measuring.add(measuring.JOB, seconds, job_name=job.value, result="error")
        raise
    seconds = time.monotonic() - start
    _notes.take(job, seconds, counts=done)
    measuring.add(measuring.JOB, seconds, job_name=job.value, result="ok")
    return done


class _Notes:
    """What this process has noted of each job, and what it has kept to itself since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._failing: dict[str, bool] = {}
        self._counts: dict[str, Counter[str]] = {}

    def take(
        self, job: str, seconds: float, *, counts: Counter[str] | None = None, error: Exception | None = None
    ) -> None:
        """Write a run down, or keep what it did until the next one is."""
        now = time.monotonic()
        with self._lock:
            seen = self._counts.setdefault(job, Counter())
            seen.update(counts or {})
            # News is told at once: that it fails, and that it does not any more.
            is_news = (error is not None) != self._failing.get(job, False)
            if now < self._due.get(job, now) and not is_news:
                return
            self._due[job] = now + NOTED_EVERY
            self._failing[job] = error is not None
            self._counts[job] = Counter()
        ended = timezone.now()
        changes: dict[str, Any] = {"seconds": seconds}
        if error is None:
            changes |= {"succeeded_at": ended, "counts": dict(seen)}
        else:
            changes |= {"failed_at": ended, "error": _told(error)}
        _write(job, changes)


_notes = _Notes()


def _start_anew() -> None:
    """In a forked child: it has noted nothing yet, and whoever held the lock does not exist there."""
    global _notes  # noqa: PLW0603 - the one state of this module
    _notes = _Notes()


if hasattr(os, "register_at_fork"):  # not on Windows, which can't fork
    os.register_at_fork(after_in_child=_start_anew)


def _write(job: str, changes: dict[str, Any]) -> None:
    """Write a note on every swept database. Never raises: the job must not end because of it."""
    try:
        databases = swept_databases()
    except ImproperlyConfigured:
        # The job has said so itself.
        return
    for using in databases:
        try:
            if not is_inside_transaction(using):
                _write_on(using, job, changes)
        except Exception as error:  # noqa: BLE001 - what went wrong with the database, the job has met as well
            logger.warning("That the job %s ran can't be noted in the database %r: %s", job, using, _told(error))


def _write_on(using: str, job: str, changes: dict[str, Any]) -> None:
    # The transaction that a TestCase wraps around a test must not be broken by an error here.
    guard = transaction.atomic(using=using) if transaction.get_connection(using).in_atomic_block else None
    with guard or contextlib.nullcontext():
        rows = JobRun.objects.using(using)
        if not rows.filter(pk=job).update(**changes):
            # Another worker may be the first as well.
            rows.bulk_create([JobRun(pk=job, **changes)], ignore_conflicts=True)


def _told(error: Exception) -> str:
    """Return an error for a reader of the row. What a database says of a value may hold a payload, and is left out."""
    text = trouble(error) if isinstance(error, DatabaseTrouble) else f"{type(error).__name__}: {error}"
    return storable_text(text.strip().partition("\n")[0], limit=_LONGEST_ERROR)
