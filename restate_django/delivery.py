"""Delivery: from a committed row to an invocation that Restate has accepted, once, whatever crashes.

Each round claims rows (a short write), talks to Restate without a transaction, and writes back what it learned, fenced
by the lease. What an answer means is decided by the client alone; what follows from it for a row, by ``settling``.
Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from restate_django import attempts, measuring, recording, settling
from restate_django.conf import ConnectionDoesNotExist, get_settings
from restate_django.connections import connections
from restate_django.exceptions import (
    Misconfigured,
    NotSupported,
    RestateError,
    Unavailable,
    UnknownTarget,
)
from restate_django.logs import get_logger
from restate_django.measuring import Kind
from restate_django.models import Invocation
from restate_django.outbox import bind_workflow_key
from restate_django.patience import JobsPatience, Patience, VisitorsPatience
from restate_django.sweeping import job_lease, sweep
from restate_django.workers import refuse_inside_transaction

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection, Iterable, Sequence

    from restate_django.connections import Connection
    from restate_django.querysets import InvocationQuerySet
    from restate_django.sweeping import Part

logger = get_logger("restate_django.delivery")

#: Rows that one claim takes. A lease must outlast the work on them; what it does not outlast is given back unsent.
BATCH: Final = 500
# Outcomes that are written together. A process that dies loses so many answers at most, which are then asked for again.
_WRITE_BATCH: Final = 250


# ---------------------------------------------------------------- the verb, for every edge


def deliver_due(
    limit: int | None = None, budget: float | None = None, *, connections: Iterable[str] | None = None
) -> Counter[str]:
    """Send what is due, on every database that the connections name.

    Safe to run in many processes at once: rows are shared by their leases.

    Args:
        limit: Rows at most; all that are due by default.
        budget: Seconds at most. What is in hand is finished.
        connections: Send the rows of these connections alone; of all by default.

    Returns:
        How many rows took each status, and under ``"retry"`` how many are to be tried again.

    Raises:
        RuntimeError: A transaction is open.
        ConnectionDoesNotExist: ``RESTATE`` has no connection of that name.
    """

    def batch(part: Part, size: int) -> tuple[int, Callable[[], Counter[str]]]:
        rows = _rows(part.using).claim_for_delivery(limit=size, lease=part.lease, connection=part.connection)
        return len(rows), lambda: _deliver(rows, part.using)

    return sweep("deliver_due()", batch, size=BATCH, limit=limit, budget=budget, connections=connections)


def deliver_now(pks: Collection[uuid.UUID], using: str) -> Counter[str]:
    """Send these rows now, if they are unsent and no other worker holds them: a Celery task's part.

    Args:
        pks: Primary keys.
        using: Their database alias.
    """
    refuse_inside_transaction("deliver_now()", using)
    rows = _rows(using).claim_for_delivery(limit=len(pks), lease=job_lease(), pks=pks)
    return _deliver(rows, using)


def deliver_leased(rows: Sequence[Invocation], using: str) -> Counter[str]:
    """Send rows that were recorded with a lease for this process: what runs after the caller's commit.

    Args:
        rows: Rows of one connection, as recorded. They carry the outcome afterwards.
        using: Their database alias.
    """
    if not rows:
        return Counter()
    settings = get_settings(rows[0].connection)
    token = rows[0].lease_token
    assert token is not None  # noqa: S101 - dispatch records these rows with a lease, or does not come here
    done: Counter[str] = Counter()
    for start in range(0, len(rows), BATCH):
        batch = list(rows[start : start + BATCH])
        # The transaction may have outlived the lease, or an earlier batch has used it up.
        if batch[0].lease_left < attempts.least_lease(settings):
            ours = _rows(using).renew_lease(batch, token=token, lease=settings.lease)
            batch = [row for row in batch if row.pk in ours]
        for row in batch:
            row.claimed_at = row.unknown_since
        done += _deliver(batch, using, in_a_view=True)
    return done


# ---------------------------------------------------------------- one round


def _deliver(rows: Iterable[Invocation], using: str, *, in_a_view: bool = False) -> Counter[str]:
    done: Counter[str] = Counter()
    by_connection: dict[str, list[Invocation]] = {}
    for row in rows:
        by_connection.setdefault(row.connection, []).append(row)
    for alias, group in by_connection.items():
        try:
            connection = connections[alias]
        except (ConnectionDoesNotExist, ImproperlyConfigured) as error:
            # A setting that is missing now may come back: the rows wait for it.
            logger.error("Rows wait for connection %r: %s", alias, error, connection=alias)
            done += _write([(row, settling.retry(row, str(error), ran_nothing=True)) for row in group], using)
            continue
        work = [row for row in group if not _is_cancelled_unsent(row)]
        local = [row for row in group if _is_cancelled_unsent(row)]
        done += _write([(row, recording.cancelled_before_start()) for row in local], using)
        patience = VisitorsPatience(connection) if in_a_view else JobsPatience(connection)
        # A row alone is told of by its own attempt.
        batch = measuring.work(Kind.DELIVER, alias, work, size=len(work)) if len(work) > 1 else contextlib.nullcontext()
        with batch:
            done += _deliver_to(connection, work, using, patience)
    return done


def _deliver_to(connection: Connection, rows: list[Invocation], using: str, patience: Patience) -> Counter[str]:
    """Send rows of one connection, and write down what came of it."""
    done: Counter[str] = Counter()
    settled: list[tuple[Invocation, dict[str, Any]]] = []
    workflows: list[Invocation] = []
    waiting = _Waiting(connection.alias)
    for row, answer in attempts.answers_for(connection, rows, patience):
        waiting.heard(answer.error)
        settled.append((row, settling.settle(row, answer, connection.settings)))
        if answer.is_workflow_main:
            workflows.append(row)
        if len(settled) >= _WRITE_BATCH:
            done += _write(settled, using)
            settled = []
    done += _write(settled, using)
    waiting.tell()
    for row in workflows:
        if row.status == Invocation.Status.ACCEPTED:
            bind_workflow_key(row, using)
    return done


def _is_cancelled_unsent(row: Invocation) -> bool:
    """Its cancellation was asked for, and no attempt can have reached Restate."""
    return row.cancel_requested_at is not None and row.unknown_since is None


# ---------------------------------------------------------------- what is told and written


class _Waiting:
    """Says in the log why rows of a connection wait: once for all of them, however many there are."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.misconfigured: list[RestateError | ImproperlyConfigured] = []
        self.unavailable: list[RestateError | ImproperlyConfigured] = []

    def heard(self, error: RestateError | ImproperlyConfigured | None) -> None:
        """Take note of what came instead of an answer."""
        if isinstance(error, UnknownTarget):
            # A deployment that is about to be registered: that row is told about when it is given up.
            return
        if isinstance(error, Misconfigured | NotSupported):
            self.misconfigured.append(error)
        elif isinstance(error, Unavailable):
            self.unavailable.append(error)

    def tell(self) -> None:
        """Say it, with the first error for an example."""
        if errors := self.misconfigured:
            logger.error(
                "Connection %r looks misconfigured, its rows wait (%d in this round): %s",
                self.alias,
                len(errors),
                errors[0],
                connection=self.alias,
            )
        if errors := self.unavailable:
            logger.info(
                "Restate is unavailable on connection %r, its rows wait (%d in this round): %s",
                self.alias,
                len(errors),
                errors[0],
                connection=self.alias,
            )


def _write(settled: list[tuple[Invocation, dict[str, Any]]], using: str) -> Counter[str]:
    """Write outcomes for the rows whose leases are still ours."""
    done: Counter[str] = Counter()
    if not settled:
        return done
    for (row, changes), won in zip(settled, _rows(using).write_back_many(settled), strict=True):
        done[(str(row.status) if "status" in changes else "retry") if won else "unchanged"] += 1
        if won and row.status == Invocation.Status.REJECTED:
            logger.warning("Invocation %s of %s is rejected: %s", row.pk, row.target, row.delivery_error, row=row)
        elif won and row.status == Invocation.Status.UNDELIVERABLE:
            logger.error("Invocation %s of %s is undeliverable: %s", row.pk, row.target, row.delivery_error, row=row)
    return done


def leave_to_jobs(row: Invocation, using: str, reason: str) -> None:
    """Give up the lease on a call's row of which nobody knows whether it ran: the jobs find out by reading."""
    _write([(row, settling.retry(row, reason, wait=recording.CONFIRM_AFTER.total_seconds()))], using)


def _rows(using: str) -> InvocationQuerySet:
    return Invocation.objects.using(using)
