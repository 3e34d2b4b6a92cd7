"""How things stand: what needs a person, what is open, what waited longest, and what happened over the last hours.

The first page of somebody who is paged.

Reads the database alone, with the same work on any table; the servers' health comes from ``servers``, on a request of
its own. Imports the modules beside it and the records.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import django
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from restate_django import vitals
from restate_django.admin import wording
from restate_django.admin.badges import LOOKS, icon, status_badge
from restate_django.admin.filters import ATTENTION, GROUPS, ranges_of_group
from restate_django.admin.trends import Trends
from restate_django.conf import swept_databases
from restate_django.lifecycle import Status
from restate_django.models import JobRun
from restate_django.ranges import newest_keys
from restate_django.vitals import Trouble

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.models import Invocation
    from restate_django.querysets import InvocationQuerySet
    from restate_django.vitals import Fault, Vitals

#: Where a count stops.
COUNTED: Final = vitals.COUNTED
_LISTED: Final = 10


@dataclass(frozen=True)
class Count:
    """A number on the page, and where its rows are listed."""

    label: Any
    number: str
    url: str
    tone: str
    icon: SafeString | str = ""
    is_zero: bool = False


@dataclass(frozen=True)
class Line:
    """A row that the page names."""

    url: str
    target: str
    badge: SafeString
    age: SafeString | str
    failure: str


@dataclass(frozen=True)
class Alert:
    """Something that is wrong, what to do about it, and where it is listed."""

    text: str
    remedy: str
    detail: str
    tone: str
    url: str


@dataclass(frozen=True)
class JobLine:
    """A job, and what it last did."""

    label: str
    ran: SafeString | str
    took: str


class Overview:
    """What the template shows."""

    def __init__(self, model_admin: InvocationAdmin, request: HttpRequest) -> None:
        self._admin = model_admin
        self._rows: InvocationQuerySet = model_admin.get_queryset(request)
        self.trends = Trends(model_admin, self._rows, request)
        self._vitals = vitals.look(self._rows.db, self._rows, COUNTED + 1)
        self._counts = self._vitals.counts

    @cached_property
    def _databases(self) -> list[Vitals]:
        """The database whose rows are shown, and the others that the jobs sweep."""
        try:
            swept = swept_databases()
        except ImproperlyConfigured:
            return []
        # Rows that come from a replica are those of a swept database, which need not be asked as well.
        others = [using for using in swept if using != self._vitals.using] if self._vitals.using in swept else []
        return [self._vitals, *(vitals.look(using) for using in others)]

    @property
    def alerts(self) -> list[Alert]:
        """What is wrong, the worst first."""
        return [
            Alert(
                fault.text if seen is self._vitals else f"{seen.using}: {fault.text}",
                fault.remedy,
                wording.first_line(wording.recorded_reason(fault.detail), 300),
                "warning" if fault.is_for_a_person else "bad",
                self._alert_url(fault) if seen is self._vitals else "",
            )
            for seen in self._databases
            for fault in vitals.faults(seen)
        ]

    def _alert_url(self, fault: Fault) -> str:
        """Return where the rows are that a fault is about."""
        if fault.is_for_a_person:
            return self._url(str(fault.trouble))
        row = self._vitals.oldest_unsent
        return self._admin.url("change", row.pk) if fault.trouble is Trouble.UNSENT and row else ""

    @property
    def jobs(self) -> list[JobLine]:
        """When each job last ran."""
        several = len(self._databases) > 1
        return [
            JobLine(
                f"{job.label} ({seen.using})" if several else str(job.label),
                wording.time_tag(run.ended_at) if run else _("never"),
                wording.span(dt.timedelta(seconds=run.seconds)) if run else "",
            )
            for seen in self._databases
            for job in JobRun.Job
            for run in [seen.runs.get(job)]
        ]

    @property
    def groups(self) -> list[Count]:
        """The groups of statuses."""
        tones = {ATTENTION: "alert", "open": "active", "finished": "ended"}
        found = []
        for name, (label, statuses) in GROUPS.items():
            more = [vitals.BACKING_OFF_FOR_LONG] if name == ATTENTION else []
            parts = [self._counts[part] for part in (*statuses, *more)]
            capped = any(part > COUNTED for part in parts)
            number = sum(min(part, COUNTED) for part in parts)
            tone = tones[name] if number or name != ATTENTION else "good"
            found.append(Count(label, _number(number, capped=capped), self._url(name), tone, is_zero=not number))
        return found

    @property
    def statuses(self) -> list[Count]:
        """Each status that rows have."""
        return [
            Count(
                status.label,
                _number(min(self._counts[status], COUNTED), capped=self._counts[status] > COUNTED),
                self._url(status.value),
                LOOKS[status].tone,
                icon(LOOKS[status].shape),
            )
            for status in Status
            if self._counts[status]
        ]

    @property
    def oldest_unsent(self) -> Line | None:
        """The row that waits longest for Restate to take it."""
        row = self._vitals.oldest_unsent
        return self._line(row) if row else None

    @property
    def attention(self) -> list[Line]:
        """The newest rows that a person should look at."""
        keys = newest_keys(self._rows, _LISTED, ranges_of_group(ATTENTION))
        return [self._line(row) for row in self._rows.filter(pk__in=keys).order_by("-pk")]

    @property
    def attention_url(self) -> str:
        """All rows that wait for a person."""
        return self._url(ATTENTION)

    @property
    def own_url(self) -> str:
        """The page of how things stand."""
        return self._admin.url("overview")

    @property
    def servers_url(self) -> str:
        """The page of the servers."""
        return self._admin.url("servers")

    def _line(self, row: Invocation) -> Line:
        failure = wording.recorded_reason(row.delivery_error) or row.last_failure or row.failure_message
        return Line(
            self._admin.url("change", row.pk),
            row.target,
            status_badge(row.status),
            wording.time_tag(row.created_at),
            wording.first_line(failure, 300),
        )

    def _url(self, status: str) -> str:
        return f"{self._admin.url('changelist')}?status={status}"


def view(model_admin: InvocationAdmin, request: HttpRequest) -> HttpResponse:
    """Show how things stand."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    request.current_app = model_admin.admin_site.name
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "title": _("Restate: how things stand"),
        "crumbs_are_list": django.VERSION >= (6, 1),
        "overview": Overview(model_admin, request),
    }
    return TemplateResponse(request, "admin/restate_django/overview.html", context)


def _number(number: int, *, capped: bool) -> str:
    words = number_format(number, force_grouping=True)
    return f"{words}+" if capped else words
