"""Retention: rows that are settled and old are deleted, in batches, and never one whose key should still bind.

Imports the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from django.db import connections as databases
from django.db.models import Count, Q
from django.utils import timezone

from restate_django.conf import DEFAULT_ALIAS, all_settings, get_settings, swept_databases
from restate_django.exceptions import InvalidRequest
from restate_django.lifecycle import FINISHED, Status
from restate_django.models import Invocation
from restate_django.querysets import unless_deadlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from restate_django.querysets import InvocationQuerySet

#: What may be pruned: settled rows, and those about which a person was to decide, when they are asked for by name.
PRUNABLE: Final = FINISHED | {Status.UNDELIVERABLE}


def prune(
    *,
    older_than: dt.timedelta | None = None,
    statuses: Iterable[str] | None = None,
    batch_size: int = 1000,
    dry_run: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    using: str | None = None,
) -> Counter[str]:
    """Delete rows that finished long ago.

    Args:
        older_than: How long ago a row must have finished; each connection's ``RETENTION`` by default (None there
            keeps its rows). A row whose idempotency key still binds in Restate is kept whatever this says.
        statuses: Which statuses; all finished ones by default. ``undeliverable`` rows go only when named.
        batch_size: Rows per DELETE.
        dry_run: Count, and delete nothing.
        progress: Called after each batch with the number so far and the total (None: it is not counted first).
        using: One database alias; all that the connections name by default.

    Returns:
        How many rows of each status were deleted, or would be.

    Raises:
        InvalidRequest: A status that can't be pruned, or an age or batch size that makes no sense.
    """
    if isinstance(statuses, str):
        raise InvalidRequest(f"statuses must be a list of them, not the string {statuses!r}.")
    wanted = FINISHED if statuses is None else {_status(name) for name in statuses}
    if using is not None and using not in databases:
        raise InvalidRequest(f"There is no database {using!r}: DATABASES has {sorted(databases)}.")
    if batch_size < 1:
        raise InvalidRequest(f"batch_size must be at least 1, not {batch_size!r}.")
    if older_than is not None and (not isinstance(older_than, dt.timedelta) or older_than < dt.timedelta(0)):
        raise InvalidRequest(f"older_than must be a timedelta that is not negative: {older_than!r}.")
    done: Counter[str] = Counter()
    for alias in [using] if using else swept_databases():
        for connection in all_settings():
            rows = Invocation.objects.using(alias).filter(connection=connection)
            _prune(rows, connection, older_than, wanted, batch_size, done, progress, dry_run=dry_run)
        # Rows of a connection that has left the settings are kept for as long as the default one's.
        left = Invocation.objects.using(alias).exclude(connection__in=list(all_settings()))
        _prune(left, DEFAULT_ALIAS, older_than, wanted, batch_size, done, progress, dry_run=dry_run)
    return done


def _prune(
    mine: InvocationQuerySet,
    connection: str,
    older_than: dt.timedelta | None,
    statuses: Iterable[Status],
    batch_size: int,
    done: Counter[str],
    progress: Callable[[int, int | None], None] | None,
    *,
    dry_run: bool,
) -> None:
    settings = get_settings(connection)
    age = settings.retention if older_than is None else older_than
    if age is None:
        return
    now = timezone.now()
    rows = mine.filter(status__in=sorted(statuses))
    # A key binds for as long as its row is there: never less long than Restate remembers it.
    binds = Q(dedupe_digest__isnull=False) & (
        Q(result_expires_at__gt=now) | Q(recorded_at__gt=now - settings.idempotency_retention)
    )
    old = rows.filter(recorded_at__lte=now - age).exclude(binds).order_by("recorded_at", "pk")
    if Status.UNDELIVERABLE in statuses:
        # These have not finished: their age counts from when they were recorded.
        undecided = rows.filter(status=Status.UNDELIVERABLE).recorded_between(None, now - age).order_by("pk")
        _delete(undecided, batch_size, done, progress, dry_run=dry_run)
    _delete(old, batch_size, done, progress, dry_run=dry_run)


def _delete(
    rows: InvocationQuerySet,
    batch_size: int,
    done: Counter[str],
    progress: Callable[[int, int | None], None] | None,
    *,
    dry_run: bool,
) -> None:
    if dry_run:
        counts = rows.order_by().values("status").annotate(rows=Count("pk"))
        done.update({entry["status"]: entry["rows"] for entry in counts})
        return
    while batch := list(rows.values_list("pk", "status")[:batch_size]):
        # The conditions once more: somebody may have sent one of them again since it was read.
        old = rows.filter(pk__in=sorted(pk for pk, _status in batch)).order_by().without_bodies()
        unless_deadlocked(partial(_delete_now, old), rows.db)
        done.update(status for _pk, status in batch)
        if progress is not None:
            progress(done.total(), None)


def _delete_now(rows: InvocationQuerySet) -> int:
    return rows.delete()[0]


def _status(name: str) -> Status:
    try:
        status = Status(name)
    except ValueError:
        raise InvalidRequest(f"There is no status {name!r}. Known are: {', '.join(sorted(Status))}.") from None
    if status not in PRUNABLE:
        raise InvalidRequest(f"Rows that are {name!r} are open: they are never pruned.")
    return status
