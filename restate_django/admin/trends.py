"""What the overview shows over time: the chart of what was sent and ended, its table, and how long handlers take.

Imports the modules beside it and the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.utils import formats, timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from restate_django.admin import activity, durations, wording
from restate_django.admin.chart import Chart, Part, draw

if TYPE_CHECKING:
    import datetime as dt

    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from restate_django.admin.activity import Bucket
    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.querysets import InvocationQuerySet

#: What the address line names the span by.
PARAMETER: Final = "span"

#: A bucket's numbers, as the legend and the table name them.
SERIES: Final = {
    "sent": gettext_lazy("sent"),
    "succeeded": gettext_lazy("succeeded"),
    "failed": gettext_lazy("failed"),
    "others": gettext_lazy("ended otherwise"),
}
#: What the ended ones are stacked of, from the line up: failures stand on it, so that they can be compared.
_STACK: Final = ("failed", "others", "succeeded")


@dataclass(frozen=True)
class Choice:
    """A span to choose."""

    label: Any
    url: str
    is_chosen: bool


@dataclass(frozen=True)
class Sum:
    """A line of the legend."""

    name: str
    label: Any
    number: str
    url: str


@dataclass(frozen=True)
class Tick:
    """A time below the chart."""

    x: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bucket in the chart, and what it says where one points at it."""

    x: float
    width: float
    parts: list[Part]
    title: str


@dataclass(frozen=True)
class Row:
    """A bucket in the table."""

    time: SafeString | str
    numbers: list[str]
    url: str


@dataclass(frozen=True)
class Handler:
    """A handler's line in the table of durations."""

    name: durations.HandlerDurations
    url: str
    slowest_url: str
    count: str
    failed: str
    times: list[str]
    slowest: str


class Trends:
    """What the template shows. Three queries.

    Args:
        model_admin: The admin whose list the links lead to.
        rows: The rows that the user may see.
        request: Its address line chooses the span.
    """

    def __init__(self, model_admin: InvocationAdmin, rows: InvocationQuerySet, request: HttpRequest) -> None:
        self._admin = model_admin
        self._rows = rows
        chosen = request.GET.get(PARAMETER, "")
        self.span = activity.SPANS.get(chosen, activity.SPANS[activity.DEFAULT])
        self._activity = activity.Activity(rows, self.span, timezone.now())

    @property
    def choices(self) -> list[Choice]:
        """The spans to choose from."""
        return [
            Choice(span.label, f"?{urlencode({PARAMETER: name})}#restate-activity", span is self.span)
            for name, span in activity.SPANS.items()
        ]

    # ------------------------------------------------------------------ what was sent, what ended

    @property
    def is_empty(self) -> bool:
        """Nothing was sent, and nothing ended."""
        return not any(self._activity.total(name) for name in SERIES)

    @property
    def cut(self) -> str:
        """How many were counted at most, where there are more."""
        return number_format(activity.LIMIT, force_grouping=True) if self._activity.is_cut else ""

    @property
    def sums(self) -> list[Sum]:
        """The legend, with the sum of each."""
        is_cut = {"sent": any(bucket.sent_is_cut for bucket in self._buckets)}
        ended_is_cut = any(bucket.ended_is_cut for bucket in self._buckets)
        queries = {
            "sent": {"recorded_from": _typed(self._activity.start)},
            "succeeded": {"status": "succeeded"},
            "failed": {"status": "failed"},
        }
        return [
            Sum(
                name,
                label,
                _number(self._activity.total(name), is_cut=is_cut.get(name, ended_is_cut)),
                self._list(queries[name]) if name in queries else "",
            )
            for name, label in SERIES.items()
        ]

    @cached_property
    def chart(self) -> Chart:
        """The places of the chart's parts."""
        return draw(
            [
                [[("sent", bucket.sent or 0)], [(name, getattr(bucket, name) or 0) for name in _STACK]]
                for bucket in self._buckets
            ]
        )

    @property
    def scale(self) -> list[tuple[float, str]]:
        """The numbers beside the chart, and how far down each stands."""
        return [(mark.place, number_format(mark.value, force_grouping=True)) for mark in self.chart.scale]

    @property
    def bars(self) -> list[Bar]:
        """The buckets of the chart."""
        return [
            Bar(column.x, column.width, column.parts, self._words(bucket))
            for bucket, column in zip(self._buckets, self.chart.columns, strict=True)
        ]

    @property
    def ticks(self) -> list[Tick]:
        """The times below the chart."""
        found = []
        for bucket, column in zip(self._buckets, self.chart.columns, strict=True):
            local = timezone.localtime(bucket.start)
            if self.span.name == "1h":
                text = f"{local:%H:%M}" if local.minute % 10 == 0 else ""
            elif self.span.name == "24h":
                text = f"{local:%H:%M}" if local.hour % 4 == 0 else ""
            else:
                text = formats.date_format(local, "D") if local.hour == 0 else ""
            if text:
                found.append(Tick(column.x, text))
        return found

    @property
    def unknown_width(self) -> float:
        """How much of the chart, in percent, shows buckets whose numbers are not known or not whole."""
        cut = [
            column.x + column.width
            for bucket, column in zip(self._buckets, self.chart.columns, strict=True)
            if bucket.sent_is_cut or bucket.ended_is_cut
        ]
        return max(cut, default=0)

    @property
    def table(self) -> list[Row]:
        """The same numbers in words."""
        return [
            Row(
                wording.time_tag(bucket.start, self._time(bucket.start)),
                _numbers(bucket),
                self._list({"recorded_from": _typed(bucket.start), "recorded_until": _typed(bucket.end)}),
            )
            for bucket in self._buckets
        ]

    # ------------------------------------------------------------------ how long it takes

    @cached_property
    def durations(self) -> durations.Durations:
        """How long each handler takes."""
        return durations.durations(self._rows, self._activity.start)

    @property
    def handlers(self) -> list[Handler]:
        """The handlers, the slowest first."""
        return [
            Handler(
                name=found,
                url=self._list({"service": found.service, "handler": found.handler}),
                slowest_url=self._admin.url("change", found.slowest_pk),
                count=number_format(found.count, force_grouping=True),
                failed=number_format(found.failed, force_grouping=True),
                times=[wording.span(took) for took in (found.median, found.p95, found.p99)],
                slowest=wording.span(found.slowest),
            )
            for found in self.durations.handlers
        ]

    @property
    def sampled(self) -> str:
        """How many ended rows were looked at, where there are more."""
        return number_format(durations.SAMPLE, force_grouping=True) if self.durations.is_cut else ""

    # ------------------------------------------------------------------ words

    @property
    def _buckets(self) -> list[Bucket]:
        return self._activity.buckets

    def _time(self, moment: dt.datetime) -> str:
        local = timezone.localtime(moment)
        if self.span.name == "7d":
            return f"{formats.date_format(local, 'D j')}, {local:%H:%M}"
        return f"{local:%H:%M}"

    def _words(self, bucket: Bucket) -> str:
        numbers = ", ".join(
            f"{label}: {number}" for label, number in zip(SERIES.values(), _numbers(bucket), strict=True)
        )
        times = {"start": self._time(bucket.start), "end": self._time(bucket.end)}
        title = _("%(start)s to %(end)s") % times
        return f"{title}\n{numbers}"

    def _list(self, query: dict[str, str]) -> str:
        return f"{self._admin.url('changelist')}?{urlencode(query)}"


def _numbers(bucket: Bucket) -> list[str]:
    return [
        _number(getattr(bucket, name), is_cut=bucket.sent_is_cut if name == "sent" else bucket.ended_is_cut)
        for name in SERIES
    ]


def _number(number: int | None, *, is_cut: bool) -> str:
    if number is None:
        return wording.NOTHING
    words = number_format(number, force_grouping=True)
    return f"{words}+" if is_cut else words


def _typed(moment: dt.datetime) -> str:
    """Return a moment as the list's two fields take it; with its offset where the clock shows that time twice."""
    local = timezone.localtime(moment)
    naive = local.replace(tzinfo=None, fold=0)
    # Compared as numbers: aware moments of a doubled hour are equal to none of another zone (PEP 495).
    is_plain = timezone.make_aware(naive).timestamp() == moment.timestamp()
    return (naive if is_plain else local).isoformat(timespec="minutes")
