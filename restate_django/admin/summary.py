"""An invocation in words: what an operator who opens its page should know first.

Imports the records and ``wording``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django.admin import wording
from restate_django.lifecycle import OPEN, Status

if TYPE_CHECKING:
    from restate_django.admin.relations import Reference
    from restate_django.models import Invocation


def sentences(row: Invocation, requested_by: Reference | None, related_to: Reference | None) -> list[str]:
    """Return the summary, a sentence each.

    Args:
        row: The invocation.
        requested_by: Who asked.
        related_to: What it belongs to.
    """
    found = [_asked(row, requested_by, related_to), _state(row)]
    if row.retry_count and row.status in OPEN:
        retries = ngettext("Retried %(count)d time so far.", "Retried %(count)d times so far.", row.retry_count)
        found.append(retries % {"count": row.retry_count})
    if row.cancel_requested_at and row.status in OPEN:
        found.append(
            _("Its cancellation was requested %(when)s and is not confirmed yet.")
            % {"when": wording.distance(row.cancel_requested_at)}
        )
    return [sentence for sentence in found if sentence]


def _asked(row: Invocation, requested_by: Reference | None, related_to: Reference | None) -> str:
    values = {
        "when": wording.distance(row.created_at),
        "who": requested_by.text if requested_by else "",
        "what": related_to.text if related_to else "",
    }
    if requested_by and related_to:
        return _("Recorded %(when)s by %(who)s for %(what)s.") % values
    if requested_by:
        return _("Recorded %(when)s by %(who)s.") % values
    if related_to:
        return _("Recorded %(when)s for %(what)s.") % values
    return _("Recorded %(when)s.") % values


def _state(row: Invocation) -> str:
    if row.status == Status.UNSENT:
        return _unsent(row)
    took = wording.span(row.duration) if row.duration is not None else ""
    ended = wording.distance(row.finished_at) if row.finished_at else ""
    starts = row.execution_at or row.run_at
    values = {
        "took": took,
        "ended": ended,
        "code": row.failure_code,
        "starts": wording.distance(starts) if starts else "",
    }
    texts = {
        Status.ACCEPTED: _("Restate has it; nothing more is known yet."),
        Status.SCHEDULED: _("Restate starts it %(starts)s.") if starts else _("Restate starts it when its time comes."),
        Status.PENDING: _("It waits for its turn: another one holds the same key, or the limit is reached."),
        Status.READY: _("It is about to run."),
        Status.RUNNING: _("It has been running for %(took)s.") if took else _("It is running."),
        Status.BACKING_OFF: _("Its last try failed, and Restate tries again by itself."),
        Status.SUSPENDED: _("It sleeps until what it waits for is there: a timer, a call, or a person."),
        Status.PAUSED: _("It is paused: it waits for a person to resume, cancel or kill it."),
        Status.SUCCEEDED: _("It succeeded %(ended)s, in %(took)s.") if took else _("It succeeded %(ended)s."),
        Status.FAILED: _("It failed %(ended)s, after %(took)s.") if took else _("It failed %(ended)s."),
        Status.CANCELLED: _("It was cancelled %(ended)s."),
        Status.KILLED: _("It was killed %(ended)s; no compensation ran."),
        Status.GONE: _("Restate no longer knows it: it was purged, or its result was not read before it expired."),
        Status.REJECTED: _("It was refused for good, and nothing ran."),
        Status.UNDELIVERABLE: _(
            "Nobody knows whether Restate took it, and repeating it is not safe any more: a person decides."
        ),
    }
    return texts[Status(row.status)] % values


def _unsent(row: Invocation) -> str:
    if not row.attempts:
        if row.next_attempt_at is None:
            return _("It was not sent yet.")
        return _("It was not sent yet; it is due %(when)s.") % {"when": wording.distance(row.next_attempt_at)}
    text = ngettext(
        "Restate has not taken it in %(count)d attempt.",
        "Restate has not taken it in %(count)d attempts.",
        row.attempts,
    ) % {"count": row.attempts}
    if row.unknown_since is not None:
        text += " " + _("One of them may have reached it; it is repeated with the same key, so it runs once.")
    return text
