"""What a status looks like: a word, a shape and a tone, so that nobody has to tell red from green.

Imports the lifecycle alone. Tones are classes of the app's style sheet, which knows Django's light and dark theme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from restate_django.lifecycle import Status

if TYPE_CHECKING:
    from django.utils.safestring import SafeString


class Look(NamedTuple):
    """A status' tone and shape, and what it means to a reader who meets it for the first time."""

    tone: str
    #: The path of a 16 by 16 icon, drawn as an outline.
    shape: str
    meaning: Any


_CIRCLE = "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5z"

LOOKS: Final[dict[Status, Look]] = {
    Status.UNSENT: Look(
        "waiting", "M8 13.5v-9M4.5 7.5 8 4l3.5 3.5M3 1.75h10", _("recorded here, not yet taken by Restate")
    ),
    Status.ACCEPTED: Look("waiting", f"{_CIRCLE}M8 5v3.2M8 11h.01", _("taken by Restate; nothing more is known yet")),
    Status.SCHEDULED: Look("waiting", f"{_CIRCLE}M8 4.5V8l2.5 1.75", _("Restate starts it when its time comes")),
    Status.PENDING: Look(
        "waiting", "M4 2h8M4 14h8M5 2c0 4 6 4.5 6 6s-6 2-6 6M11 2c0 4-6 4.5-6 6s6 2 6 6", _("waits for its turn")
    ),
    Status.READY: Look("waiting", "M2.5 8h10M9 4.5 12.5 8 9 11.5", _("about to run")),
    Status.RUNNING: Look("active", "M5 3v10l8-5z", _("its handler runs now")),
    Status.BACKING_OFF: Look(
        "warning",
        "M13.25 8A5.25 5.25 0 1 1 11.5 4.1M11.75 1.5v3h-3",
        _("its last try failed; Restate tries again by itself"),
    ),
    Status.SUSPENDED: Look(
        "active", "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z", _("sleeps until what it waits for is there")
    ),
    Status.PAUSED: Look("alert", "M5.25 3v10M10.75 3v10", _("held; it waits for a person to resume it")),
    Status.SUCCEEDED: Look("good", f"{_CIRCLE}M5 8.25l2.25 2.25L11 6", _("ended well")),
    Status.FAILED: Look(
        "bad", f"{_CIRCLE}M5.75 5.75l4.5 4.5M10.25 5.75l-4.5 4.5", _("its handler gave up with an error")
    ),
    Status.CANCELLED: Look(
        "ended", f"{_CIRCLE}M3.75 3.75l8.5 8.5", _("ended by a cancellation, after its compensation")
    ),
    Status.KILLED: Look("bad", "M4 4h8v8H4z", _("ended at once; no compensation ran")),
    Status.GONE: Look(
        "ended", "M6 6a2 2 0 1 1 2.75 1.85C8.25 8.1 8 8.5 8 9.25M8 12h.01", _("Restate no longer knows it")
    ),
    Status.REJECTED: Look("alert", f"{_CIRCLE}M4.75 8h6.5", _("refused for good; nothing ran")),
    Status.UNDELIVERABLE: Look(
        "alert",
        "M8 2 14.5 13.5h-13zM8 6.5v3M8 11.5h.01",
        _("nobody knows whether Restate took it; a person decides"),
    ),
}


def icon(shape: str) -> SafeString:
    """Draw a shape. It says nothing to a screen reader: the word next to it does."""
    return format_html(
        '<svg class="restate-icon" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" focusable="false">'
        '<path d="{}"/></svg>',
        shape,
    )


def status_badge(status: str) -> SafeString:
    """Return the badge of a status."""
    known = Status(status)
    look = LOOKS[known]
    return format_html(
        '<span class="restate-badge restate-tone-{}" title="{}">{}{}</span>',
        look.tone,
        look.meaning,
        icon(look.shape),
        known.label,
    )


def chip(text: Any, *, title: str = "", tone: str = "warning") -> SafeString:
    """Return a smaller note that stands next to a badge."""
    return format_html('<span class="restate-chip restate-tone-{}" title="{}">{}</span>', tone, title, text)
