"""The filters beside the list. Each is a range or a point of an index, and none counts.

Imports the records, ``conf`` for the aliases, and ``distinct``.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from restate_django import conf
from restate_django.admin.badges import LOOKS, icon
from restate_django.admin.distinct import distinct_values
from restate_django.admin.periods import Period
from restate_django.lifecycle import FINISHED, NEEDS_ATTENTION, OPEN, Status
from restate_django.models import Invocation
from restate_django.querysets import backing_off_for_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.contrib.admin.views.main import ChangeList
    from django.http import HttpRequest


#: A service's newest rows, of which the handlers are offered.
_LOOKED_AT: Final = 1000

#: The group of those that a person should look at.
ATTENTION: Final = "attention"
#: The groups of statuses, as the address line names them.
GROUPS: Final[dict[str, tuple[Any, frozenset[Status]]]] = {
    ATTENTION: (_("Needs attention"), NEEDS_ATTENTION),
    "open": (pgettext_lazy("invocations", "Open"), OPEN),
    "finished": (_("Finished"), FINISHED),
}


def ranges_of_group(value: str | None) -> list[Q]:
    """Return the ranges of (status, id) that a value of the status filter stands for, where it names a group."""
    if value not in GROUPS:
        return []
    ranges = ranges_of(GROUPS[value][1])
    return [*ranges, backing_off_for_long()] if value == ATTENTION else ranges


def ranges_of(statuses: Iterable[Status]) -> list[Q]:
    """Return a range of (status, id) for each status."""
    return [Q(status=status) for status in sorted(statuses)]


class StatusFilter(admin.SimpleListFilter):
    """By group of statuses, and by each status."""

    title = _("status")
    parameter_name = "status"
    template = "admin/restate_django/invocation/status_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:  # noqa: ARG002 - Django's signature
        """Return the groups, then the statuses in the order of a life."""
        groups = [(name, label) for name, (label, _statuses) in GROUPS.items()]
        return groups + [(status.value, status.label) for status in Status]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Give each status its shape, and tell the template where the groups end."""
        names = [None, *(name for name, _label in self.lookup_choices)]
        for name, choice in zip(names, super().choices(changelist), strict=True):
            status = Status(name) if name is not None and name not in GROUPS else None
            look = LOOKS[status] if status else None
            yield {
                **choice,
                "icon": icon(look.shape) if look else "",
                "tone": look.tone if look else "",
                "ends_groups": name == list(GROUPS)[-1],
            }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002 - as above
        """Narrow the list."""
        value = self.value()
        if value == ATTENTION:
            return queryset.needs_attention()
        if value in GROUPS:
            return queryset.filter(status__in=sorted(GROUPS[value][1]))
        return queryset.filter(status=value) if value else queryset


class RecordedFilter(admin.SimpleListFilter):
    """By when it was recorded: a range of primary keys, which are ordered by time."""

    title = _("recorded")
    parameter_name = "recorded"

    SPANS: Final[dict[str, tuple[Any, dt.timedelta]]] = {
        "15m": (_("in the last 15 minutes"), dt.timedelta(minutes=15)),
        "1h": (_("in the last hour"), dt.timedelta(hours=1)),
        "24h": (_("in the last 24 hours"), dt.timedelta(hours=24)),
        "7d": (_("in the last 7 days"), dt.timedelta(days=7)),
        "30d": (_("in the last 30 days"), dt.timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:  # noqa: ARG002 - Django's signature
        """Return the spans."""
        return [(name, label) for name, (label, _span) in self.SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002 - as above
        """Narrow the list."""
        value = self.value()
        if value not in self.SPANS:
            return queryset
        return queryset.recorded_between(timezone.now() - self.SPANS[value][1], None)


class BetweenFilter(admin.ListFilter):
    """By two moments between which it was recorded: a range of primary keys, typed into two fields."""

    title = _("time of recording")
    template = "admin/restate_django/invocation/between_filter.html"
    parameter_names: Final = ("recorded_from", "recorded_until")

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.parameter_names:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    def has_output(self) -> bool:
        """It is always there."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Return the names of its fields."""
        return list(self.parameter_names)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Give the template the two fields, and what else the address line holds."""
        others = [
            (name, value)
            for name, values in changelist.get_filters_params(dict(changelist.filter_params)).items()
            if name not in self.parameter_names
            for value in (values if isinstance(values, list) else [values])
        ]
        if changelist.query:
            others.append((SEARCH_VAR, changelist.query))
        start, end = (str(self.used_parameters.get(name, "")) for name in self.parameter_names)
        yield {
            "start": start,
            "end": end,
            "others": others,
            "clear": changelist.get_query_string(remove=list(self.parameter_names)) if start or end else "",
        }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002 - Django's signature
        """Narrow the list. What is no moment is left out of account."""
        start, end = (_moment(self.used_parameters.get(name)) for name in self.parameter_names)
        return queryset.recorded_between(start, end)


def moments_of(params: Mapping[str, Any]) -> Iterator[tuple[dt.datetime | None, dt.datetime | None]]:
    """Yield the spans of time that an address line narrows the list to, as the filters above do.

    Args:
        params: What the address line names, each with its values.
    """

    def value(name: str) -> str:
        found = params.get(name, "")
        return str(found[-1] if isinstance(found, list) else found)

    if span := RecordedFilter.SPANS.get(value(RecordedFilter.parameter_name)):
        yield timezone.now() - span[1], None
    start, end = (_moment(value(name)) for name in BetweenFilter.parameter_names)
    if start or end:
        yield start, end
    if period := Period.read(value(DayFilter.parameter_name)):
        yield period.bounds


class _ColumnFilter(admin.SimpleListFilter):
    """By the values that an indexed column has, and by one from the address line that the list does not show."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - Django's signature
        """Return the values."""
        values = list(self.values())
        chosen = self.value()
        if chosen and chosen not in values:
            values.append(chosen)
        return [(value, value) for value in values]

    def values(self) -> Iterable[str]:
        """Return the values to choose from."""
        return distinct_values(self.column)

    @property
    def column(self) -> str:
        """The column's name."""
        return str(self.parameter_name)

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002 - as above
        """Narrow the list."""
        value = self.value()
        return queryset.filter(**{self.column: value}) if value else queryset


class ServiceFilter(_ColumnFilter):
    """By service."""

    title = _("service")
    parameter_name = "service"


class HandlerFilter(_ColumnFilter):
    """By handler: those of the service that is chosen, else all."""

    title = _("handler")
    parameter_name = "handler"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the handlers that the service's newest rows name."""
        self._service = request.GET.get(str(ServiceFilter.parameter_name))
        return super().lookups(request, model_admin)

    def values(self) -> Iterable[str]:
        """Return the handlers to choose from."""
        if not self._service:
            return super().values()
        newest = Invocation.objects.filter(service=self._service).order_by("-pk")
        return sorted(set(newest.values_list("handler", flat=True)[:_LOOKED_AT]))


class ScopeFilter(_ColumnFilter):
    """By scope; hidden where no row has one."""

    title = _("scope")
    parameter_name = "scope"


class ConnectionFilter(_ColumnFilter):
    """By connection; hidden where there is one."""

    title = _("connection")
    parameter_name = "connection"

    def values(self) -> Iterable[str]:
        """Return the aliases of the settings, and those that only rows still name."""
        return dict.fromkeys([*conf.aliases(), *distinct_values(self.column)])

    def has_output(self) -> bool:
        """Tell whether there is anything to choose."""
        return len(self.lookup_choices) > 1


class DayFilter(admin.ListFilter):
    """By the year, month or day of recording: a range of primary keys. It stands above the list, as Django's does.

    Django's own date hierarchy reads the whole table for its years, and the whole month for its days. Here each step
    that may have rows is probed by one look-up of the primary key.
    """

    title = _("day of recording")
    template = "admin/restate_django/invocation/day_filter.html"
    parameter_name = "on"

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        if self.parameter_name in params:
            self.used_parameters[self.parameter_name] = params.pop(self.parameter_name)[-1]
        self.period = Period.read(str(self.used_parameters.get(self.parameter_name, "")))

    def has_output(self) -> bool:
        """It is always there: a filter that is not does not narrow the list."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Return its parameter's name."""
        return [self.parameter_name]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:  # noqa: ARG002 - Django's signature
        """There is nothing to choose beside the list."""
        yield from ()

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002 - Django's signature
        """Narrow the list. What is no day, month or year is left out of account."""
        return queryset if self.period is None else queryset.recorded_between(*self.period.bounds)


def _moment(text: Any) -> dt.datetime | None:
    """Read what a date and time field sends, in the user's time zone; None for what is no moment."""
    try:
        moment = parse_datetime(str(text or ""))
        return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
    except (ValueError, OverflowError):
        return None
