"""What was sent and what ended over the last hour, day or week, counted in the database.

Two ranges of an index are read, newest first, and each to a limit: the primary keys (they are ordered by time) for
what was sent, and ``recorded_at`` for what ended. What lies behind the limit is not known, and is told so. Imports the
records alone.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.db.models import Case, IntegerField, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from restate_django.ids import uuid7_floor
from restate_django.lifecycle import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from restate_django.querysets import InvocationQuerySet

#: Rows that are counted at most, of those that were sent and of those that ended: the newest.
LIMIT: Final = 50_000

_HOUR: Final = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Span:
    """A stretch of time up to now, and the buckets it is counted in.

    Attributes:
        name: As the address line and the list's filter name it.
        label: In words.
        by: What a bucket is, in words.
        step: A bucket's length.
        count: Buckets, the one that has only begun among them.
    """

    name: str
    label: Any
    by: Any
    step: dt.timedelta
    count: int

    def bounds(self, now: dt.datetime) -> list[dt.datetime]:
        """Return where each bucket begins, on round times of the current time zone, and the last one's end."""
        local = timezone.localtime(now).replace(second=0, microsecond=0)
        if self.step < _HOUR:
            last = local
        elif self.step == _HOUR:
            last = local.replace(minute=0)
        else:
            hours = int(self.step / _HOUR)
            # By the clock on the wall: where the clocks change, one bucket is an hour longer or shorter.
            wall = local.replace(hour=local.hour // hours * hours, minute=0, tzinfo=None, fold=0)
            return [timezone.make_aware(wall + self.step * (n + 1 - self.count)) for n in range(self.count + 1)]
        last = last.astimezone(dt.UTC)
        return [last + self.step * (n + 1 - self.count) for n in range(self.count + 1)]


SPANS: Final = {
    span.name: span
    for span in (
        Span("1h", _("last hour"), _("by minute"), dt.timedelta(minutes=1), 60),
        Span("24h", _("last day"), _("by hour"), _HOUR, 24),
        Span("7d", _("last week"), _("by six hours"), 6 * _HOUR, 28),
    )
}
DEFAULT: Final = "24h"


@dataclass
class Bucket:
    """What happened between two moments. None is a number that is not known.

    Attributes:
        start: From when on.
        end: Up to when; the end of the last bucket lies ahead.
        sent: Rows that were recorded.
        succeeded: Rows that ended well.
        failed: Rows that failed.
        others: Rows that ended in another way: cancelled, killed, gone, rejected.
        sent_is_cut: There are more that were sent.
        ended_is_cut: There are more that ended.
    """

    start: dt.datetime
    end: dt.datetime
    sent: int | None = 0
    succeeded: int | None = 0
    failed: int | None = 0
    others: int | None = 0
    sent_is_cut: bool = False
    ended_is_cut: bool = False

    @property
    def ended(self) -> int | None:
        """Rows that ended in whatever way."""
        if self.succeeded is None or self.failed is None or self.others is None:
            return None
        return self.succeeded + self.failed + self.others


class Activity:
    """What was sent and what ended in a span. Two queries.

    Args:
        rows: The rows.
        span: Over which time.
        now: Up to when.
    """

    def __init__(self, rows: InvocationQuerySet, span: Span, now: dt.datetime) -> None:
        self.span = span
        self._rows = rows
        self._bounds = span.bounds(now)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The buckets, from the oldest to the newest."""
        found = [Bucket(start, end) for start, end in pairwise(self._bounds)]
        self._count_sent(found)
        self._count_ended(found)
        return found

    @property
    def start(self) -> dt.datetime:
        """Where the first bucket begins."""
        return self._bounds[0]

    @property
    def is_cut(self) -> bool:
        """Not all were counted."""
        return any(bucket.sent_is_cut or bucket.ended_is_cut for bucket in self.buckets)

    def total(self, name: str) -> int:
        """Return the sum over all buckets of ``sent``, ``succeeded``, ``failed`` or ``others``."""
        return sum(getattr(bucket, name) or 0 for bucket in self.buckets)

    def _count_sent(self, buckets: list[Bucket]) -> None:
        starts = [uuid7_floor(bucket.start) for bucket in buckets]
        rows = self._rows.filter(pk__gte=starts[0]).order_by("-pk")
        counted = _grouped(rows.annotate(bucket=_bucket("pk", starts)), "bucket")
        for index, count in counted:
            buckets[index].sent = count
        # As many as are counted at most: there may be more.
        if sum(count for _index, count in counted) >= LIMIT:
            cut = min(index for index, _count in counted)
            buckets[cut].sent_is_cut = True
            for bucket in buckets[:cut]:
                bucket.sent, bucket.sent_is_cut = None, True

    def _count_ended(self, buckets: list[Bucket]) -> None:
        starts = [bucket.start for bucket in buckets]
        # By our clock, which has the index: an end is recorded here after it came. Where an end belongs, Restate's
        # clock says: jobs that stood still for an hour learn of all that ended in it at once.
        rows = self._rows.filter(recorded_at__gte=starts[0]).order_by("-recorded_at", "-pk")
        rows = rows.annotate(
            ended=Coalesce("finished_at", "recorded_at"),
            bucket=_bucket("ended", starts),
            learned=_bucket("recorded_at", starts),
        )
        counted = _grouped(rows, "bucket", "status", "learned")
        names = {Status.SUCCEEDED.value: "succeeded", Status.FAILED.value: "failed"}
        for index, status, _learned, count in counted:
            if index >= 0:
                name = names.get(status, "others")
                setattr(buckets[index], name, getattr(buckets[index], name) + count)
        if sum(count for *_group, count in counted) >= LIMIT:
            cut = min(learned for _index, _status, learned, _count in counted)
            for bucket in buckets[: cut + 1]:
                bucket.ended_is_cut = True
            for bucket in buckets[:cut]:
                bucket.succeeded = bucket.failed = bucket.others = None


def _bucket(column: str, starts: Sequence[Any], first: int = 0) -> Case | Value:
    """Return the number of the bucket that a column's value lies in, -1 before the first: six comparisons for sixty."""
    if not starts:
        return Value(first - 1, output_field=IntegerField())
    middle = len(starts) // 2
    later = _bucket(column, starts[middle + 1 :], first + middle + 1)
    return Case(
        When(**{f"{column}__gte": starts[middle]}, then=later),
        default=_bucket(column, starts[:middle], first),
        output_field=IntegerField(),
    )


def _grouped(rows: InvocationQuerySet, *columns: str) -> list[tuple[Any, ...]]:
    """Count rows by columns, the first ``LIMIT`` of them. One query, in the form that all databases take."""
    query = rows.defer(None).select_related(None).values(*columns)[:LIMIT].query
    sql, params = query.get_compiler(using=rows.db).as_sql()
    quote = connections[rows.db].ops.quote_name
    names = ", ".join(quote(column) for column in columns)
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"SELECT {names}, COUNT(*) FROM ({sql}) counted GROUP BY {names}", params)  # noqa: S608 - the ORM's SQL and our own names
        return list(cursor.fetchall())
