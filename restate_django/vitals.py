"""How a database of invocations is: what is open, what waits longest, which jobs ran when, and what is wrong with that.

The one home of the questions that the health view, ``restate doctor``, the admin's overview and the metrics ask, and of
what they call a fault. Each question reads a bounded part of an index, however large the table is. Asks no server.
Imports the records and the settings.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django.conf import all_settings
from restate_django.lifecycle import OPEN, Status
from restate_django.models import Invocation, JobRun
from restate_django.querysets import backing_off_for_long
from restate_django.ranges import counts_up_to
from restate_django.spans import span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from restate_django.querysets import InvocationQuerySet

#: Where a count stops. More than that is "many" to a reader, and the database needs not find out how many.
COUNTED: Final = 1000
#: What the count of those that have been backing off for long is called, among those of the statuses.
BACKING_OFF_FOR_LONG: Final = "backing-off-for-long"
# Rows that wait longest, among which the reason is looked for.
_OLDEST: Final = 20


def counts_by_status(rows: InvocationQuerySet, limit: int = COUNTED) -> dict[str, int]:
    """Count the rows of each status, and those that have been backing off for long. One query.

    Args:
        rows: The rows.
        limit: Where each count stops.

    Returns:
        The counts, by status and by ``BACKING_OFF_FOR_LONG``.
    """
    ranges = {status.value: Q(status=status) for status in Status} | {BACKING_OFF_FOR_LONG: backing_off_for_long()}
    return counts_up_to(rows, limit, ranges)


def longest_unsent(rows: InvocationQuerySet, limit: int = 1) -> list[Invocation]:
    """Return the rows that wait longest for Restate to take them, by when they were recorded. One query.

    Args:
        rows: The rows.
        limit: How many at most.
    """
    return list(rows.filter(status=Status.UNSENT).order_by("pk").without_bodies()[:limit])


def poll_due_since(rows: InvocationQuerySet) -> dt.datetime | None:
    """Return since when the row that waits longest to be asked about has been due; None: none is. One query.

    Args:
        rows: The rows.
    """
    due = rows.filter(next_poll_at__lte=timezone.now()).order_by("next_poll_at")
    return due.values_list("next_poll_at", flat=True).first()


def last_runs(using: str) -> dict[str, JobRun]:
    """Return what each job last did on a database, by its name. One query; a job that never ran is missing."""
    return {run.job: run for run in JobRun.objects.using(using)}


def alert_after(using: str) -> dt.timedelta:
    """Return ``ALERT_AFTER`` for a database: the shortest of the connections whose rows it has."""
    every = all_settings().values()
    mine = [settings.alert_after for settings in every if using in settings.databases]
    return min(mine or [settings.alert_after for settings in every])


@dataclass(frozen=True)
class Vitals:
    """How a database was at one moment.

    Attributes:
        using: The database.
        at: When it was asked.
        counts: Rows by status, each counted to a limit, as of :func:`counts_by_status`.
        oldest_unsent: The row that waits longest to be sent, without its payload. None: none does.
        poll_due_since: Since when the row that waits longest to be asked about has been due. None: none is.
        delivery_error: What the last attempt to send one of those that wait longest came to; empty for nothing.
        runs: What each job last did.
    """

    using: str
    at: dt.datetime
    counts: Mapping[str, int]
    oldest_unsent: Invocation | None
    poll_due_since: dt.datetime | None
    delivery_error: str
    runs: Mapping[str, JobRun]

    @property
    def open(self) -> dict[str, int]:
        """The counts of those statuses of which more will be heard without a person."""
        return {status: count for status, count in self.counts.items() if status in OPEN}

    @property
    def unsent_for(self) -> dt.timedelta:
        """For how long the oldest unsent row has been waiting, by our clock; nothing where there is none.

        It counts from when the row was recorded, also for one that a person sent again.
        """
        row = self.oldest_unsent
        return dt.timedelta(0) if row is None else max(self.at - row.created_at, dt.timedelta(0))

    @property
    def poll_overdue_for(self) -> dt.timedelta:
        """For how long a row has been due to be asked about; nothing where none is."""
        since = self.poll_due_since
        return dt.timedelta(0) if since is None else max(self.at - since, dt.timedelta(0))

    def since_run(self, job: str) -> dt.timedelta | None:
        """Return for how long a job has not run to a good end; None: it never has.

        Args:
            job: One of ``JobRun.Job``.
        """
        run = self.runs.get(job)
        return None if run is None or run.succeeded_at is None else max(self.at - run.succeeded_at, dt.timedelta(0))


def look(using: str, rows: InvocationQuerySet | None = None, limit: int = COUNTED) -> Vitals:
    """Ask a database how it is. Four queries, each of which reads a bounded part of an index.

    Args:
        using: The database.
        rows: Some of its rows; all of them by default.
        limit: Where each count stops.
    """
    rows = Invocation.objects.using(using) if rows is None else rows
    waiting = longest_unsent(rows, _OLDEST)
    return Vitals(
        using=using,
        counts=counts_by_status(rows, limit),
        oldest_unsent=waiting[0] if waiting else None,
        poll_due_since=poll_due_since(rows),
        delivery_error=next((row.delivery_error for row in waiting if row.delivery_error), ""),
        runs=last_runs(using),
        at=timezone.now(),
    )


# ---------------------------------------------------------------- what is wrong with it


class Trouble(StrEnum):
    """What can be wrong with a database of invocations; each has an alert rule of its name."""

    UNSENT = "unsent"
    NO_DELIVERY = "no-delivery"
    NO_POLL = "no-poll"
    JOB_FAILING = "job-failing"
    PAUSED = "paused"
    UNDELIVERABLE = "undeliverable"


#: What waits for a decision about single invocations. The others are of the machinery, and concern all of them.
FOR_A_PERSON: Final = frozenset({Trouble.PAUSED, Trouble.UNDELIVERABLE})


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        trouble: What it is.
        text: A sentence for whoever runs the site, in the language that is active when it is made.
        remedy: What to do about it.
        detail: What the machine said about it, which may name hosts; empty for nothing.
    """

    trouble: Trouble
    text: str
    remedy: str
    detail: str = ""

    @property
    def is_for_a_person(self) -> bool:
        """It is about single invocations, which wait for somebody's decision."""
        return self.trouble in FOR_A_PERSON


def faults(vitals: Vitals, after: dt.timedelta | None = None) -> list[Fault]:
    """Return what is wrong with a database, the worst first.

    Args:
        vitals: How it is.
        after: How long a row may wait to be sent, and a job may not have run; ``ALERT_AFTER`` by default.
    """
    after = alert_after(vitals.using) if after is None else after
    found: list[Fault] = []
    if vitals.unsent_for > after:
        waits = _("An invocation has been waiting for %(span)s to be sent.") % {"span": span(vitals.unsent_for)}
        remedy = _("See whether the delivery job runs, and whether the server answers.")
        found.append(Fault(Trouble.UNSENT, waits, remedy, vitals.delivery_error))
    found += _of_job(vitals, JobRun.Job.DELIVER, Trouble.NO_DELIVERY, after)
    stale = _of_job(vitals, JobRun.Job.POLL, Trouble.NO_POLL, after)
    if not stale and vitals.poll_overdue_for > after:
        # The job runs, and does not come to this row: there is too much for it, or nobody has this row's connection.
        waits = _("An invocation has been waiting for %(span)s to be asked about.")
        remedy = _("See whether a worker polls its connection, and whether there are enough of them.")
        stale = [Fault(Trouble.NO_POLL, waits % {"span": span(vitals.poll_overdue_for)}, remedy)]
    found += stale
    found += [
        Fault(
            Trouble.JOB_FAILING,
            _("The job %(job)s ends in an error.") % {"job": run.get_job_display()},
            _("Look into the worker's log."),
            run.error,
        )
        for run in vitals.runs.values()
        if run.is_failing
    ]
    if count := vitals.counts.get(Status.UNDELIVERABLE, 0):
        text = ngettext(
            "%(count)s invocation is undeliverable: nobody knows whether it ran.",
            "%(count)s invocations are undeliverable: nobody knows whether they ran.",
            count,
        )
        remedy = _("Find out what ran, then send again or let be.")
        found.append(Fault(Trouble.UNDELIVERABLE, text % {"count": _many(count)}, remedy))
    if count := vitals.counts.get(Status.PAUSED, 0):
        text = ngettext(
            "%(count)s invocation is paused: its handler failed too often.",
            "%(count)s invocations are paused: their handlers failed too often.",
            count,
        )
        found.append(
            Fault(Trouble.PAUSED, text % {"count": _many(count)}, _("Mend the handler, then resume, cancel or kill."))
        )
    return found


def _of_job(vitals: Vitals, job: JobRun.Job, trouble: Trouble, after: dt.timedelta) -> list[Fault]:
    since = vitals.since_run(job)
    remedy = _("Start Celery beat and a worker, or restate_relay.")
    if since is None:
        return [Fault(trouble, _("The job %(job)s has never run.") % {"job": job.label}, remedy)]
    if since <= after:
        return []
    text = _("The job %(job)s last ran %(span)s ago.") % {"job": job.label, "span": span(since)}
    return [Fault(trouble, text, remedy)]


def _many(count: int) -> str:
    return f"{COUNTED}+" if count >= COUNTED else str(count)
