"""How long each handler takes: percentiles of the newest rows that ended in a span.

A sample of a bounded size is read by the index on ``recorded_at`` and reckoned here: the three databases have no
function for percentiles in common. Imports the records alone.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.db.models.functions import Coalesce

from restate_django.lifecycle import Status

if TYPE_CHECKING:
    import uuid

    from restate_django.querysets import InvocationQuerySet

#: Ended rows that are looked at: the newest.
SAMPLE: Final = 5000
#: Handlers that are told of: those with the slowest 95th percentile.
LISTED: Final = 25

#: Ended by what the handler did: how long a cancelled or killed one took says nothing about its handler.
_RAN: Final = frozenset({Status.SUCCEEDED, Status.FAILED})


@dataclass(frozen=True)
class HandlerDurations:
    """How long a handler took.

    Attributes:
        service: Its service.
        handler: Its name.
        count: Rows in the sample.
        failed: How many of them failed.
        median: Half of them took this long or less.
        p95: 95 of a hundred did.
        p99: 99 of a hundred did.
        slowest: The longest of them.
        slowest_pk: That one's row.
    """

    service: str
    handler: str
    count: int
    failed: int
    median: dt.timedelta
    p95: dt.timedelta
    p99: dt.timedelta
    slowest: dt.timedelta
    slowest_pk: uuid.UUID


@dataclass(frozen=True)
class Durations:
    """How long the handlers took.

    Attributes:
        handlers: Those with the slowest 95th percentile, slowest first.
        left_out: How many handlers there are besides.
        is_cut: More rows ended than were looked at.
    """

    handlers: list[HandlerDurations]
    left_out: int
    is_cut: bool


def durations(rows: InvocationQuerySet, start: dt.datetime) -> Durations:
    """Reckon how long each handler took, as ``Invocation.duration`` does. One query.

    Args:
        rows: The rows.
        start: Rows whose end was recorded from then on.
    """
    # Nothing is filtered here by status: the range would have to be read to its end where few rows match.
    newest = rows.filter(recorded_at__gte=start).order_by("-recorded_at", "-pk")
    began = Coalesce("started_at", "accepted_at")
    # Plain values: to make thousands of instances takes longer than to read them.
    sample = list(newest.values_list("pk", "service", "handler", "status", began, "finished_at")[: SAMPLE + 1])
    by_handler: dict[tuple[str, str], list[tuple[dt.timedelta, uuid.UUID]]] = defaultdict(list)
    failed: Counter[tuple[str, str]] = Counter()
    for pk, service, handler, status, began_at, end in sample[:SAMPLE]:
        if status in _RAN and began_at is not None and end is not None:
            # Two machines' clocks may put the end first.
            by_handler[service, handler].append((max(end - began_at, dt.timedelta(0)), pk))
            failed[service, handler] += status == Status.FAILED
    found = [_reckon(target, sorted(times), failed[target]) for target, times in by_handler.items()]
    found.sort(key=lambda item: (-item.p95, item.service, item.handler))
    return Durations(found[:LISTED], max(0, len(found) - LISTED), is_cut=len(sample) > SAMPLE)


def _reckon(target: tuple[str, str], times: list[tuple[dt.timedelta, uuid.UUID]], failed: int) -> HandlerDurations:
    def percentile(number: int) -> dt.timedelta:
        """The nearest rank: a duration that one of them had."""
        return times[math.ceil(number * len(times) / 100) - 1][0]

    slowest, slowest_pk = times[-1]
    return HandlerDurations(
        *target, len(times), failed, percentile(50), percentile(95), percentile(99), slowest, slowest_pk
    )
