"""What happened to an invocation, in order, with the times between. Imports the records and ``wording``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django.admin import wording
from restate_django.lifecycle import FINISHED, OPEN, Status

if TYPE_CHECKING:
    import datetime as dt

    from django.utils.safestring import SafeString

    from restate_django.models import Invocation


@dataclass(frozen=True)
class Event:
    """A moment in an invocation's life.

    Attributes:
        moment: When.
        title: What.
        note: More about it.
        tone: How it looks.
        ahead: It has not come yet.
        offset: How long after the recording, in words.
    """

    moment: dt.datetime
    title: str
    note: str = ""
    tone: str = "plain"
    ahead: bool = False
    offset: str = ""

    @property
    def clock(self) -> SafeString | str:
        """The moment in full."""
        return wording.time_tag(self.moment, wording.clock(self.moment))


def events(row: Invocation) -> list[Event]:
    """Return what happened to a row and what is to come, in order."""
    now = timezone.now()
    found = [event for event in [*_delivery(row), *_execution(row), *_end(row)] if event[0] is not None]
    # A stable sort: what the clocks of two machines put at one moment stays in the order of a life.
    found.sort(key=lambda event: event[0])
    return [
        Event(moment, title, note, tone, moment > now, _offset(row.created_at, moment))
        for moment, title, note, tone in found
    ]


def _delivery(row: Invocation) -> list[tuple[Any, str, str, str]]:
    attempts = ngettext("after %(count)d attempt", "after %(count)d attempts", row.attempts) % {"count": row.attempts}
    unsent = row.status == Status.UNSENT
    error = wording.recorded_reason(row.delivery_error)
    return [
        (row.created_at, _("Recorded"), _("in the caller's transaction") if row.transaction_id else "", "start"),
        (row.unknown_since, _("First attempt of unknown outcome"), _("Restate may have it since then"), "warning"),
        (row.unregistered_since, _("Handler unknown to Restate"), _("one may be about to register"), "warning"),
        (row.next_attempt_at if unsent else None, _("Next attempt"), error, "plain"),
        (row.accepted_at, _("Acceptance received"), attempts if row.attempts else "", "plain"),
    ]  # fmt: skip


def _execution(row: Invocation) -> list[tuple[Any, str, str, str]]:
    scheduled = row.execution_at or row.run_at
    is_open = row.status in OPEN
    return [
        (scheduled, _("Scheduled for"), "", "plain"),
        (row.started_at, _("Started"), "", "plain"),
        (row.cancel_requested_at, _("Cancellation requested"), "", "warning"),
        (row.cancel_sent_at, _("Cancellation taken by Restate"), _("the handler sees it at its next await"), "warning"),
        (row.missing_since, _("Restate said that it does not know it"), _("it is asked again to be sure"), "warning"),
        (row.polled_at if is_open else None, _("Restate last asked"), row.get_status_display(), "plain"),
        (row.next_poll_at if is_open else None, _("Restate is asked next"), "", "plain"),
    ]  # fmt: skip


def _end(row: Invocation) -> list[tuple[Any, str, str, str]]:
    if row.status not in FINISHED:
        return []
    tone = {Status.SUCCEEDED: "good", Status.FAILED: "bad", Status.KILLED: "bad", Status.REJECTED: "bad"}
    ended = row.finished_at or row.recorded_at
    learned = row.recorded_at if row.finished_at is not None and row.recorded_at is not None else None
    return [
        (ended, _("Finished"), row.get_status_display(), tone.get(Status(row.status), "plain")),
        (learned, _("End recorded here"), "", "plain"),
        (row.result_expires_at, _("Restate may forget the result"), "", "plain"),
    ]


def _offset(start: dt.datetime, moment: dt.datetime) -> str:
    if moment == start:
        return ""
    sign = "+" if moment > start else "\N{MINUS SIGN}"
    return f"{sign}{wording.span(moment - start)}"
