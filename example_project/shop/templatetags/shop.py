"""What the shop's templates need to say: prices, and an invocation's status as a badge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template

if TYPE_CHECKING:
    from restate_django.models import Invocation

register = template.Library()

# Tone for the eye, sign and word for those who can't tell the colours apart.
_BADGES = {
    "unsent": ("waiting", "○", "waiting to be sent"),
    "accepted": ("waiting", "○", "accepted"),
    "scheduled": ("waiting", "◷", "scheduled"),
    "pending": ("busy", "◐", "waiting for its turn"),
    "ready": ("busy", "◐", "about to run"),
    "running": ("busy", "◐", "running"),
    "suspended": ("busy", "◐", "running (waiting)"),
    "backing-off": ("warn", "↻", "failed, trying again"),
    "paused": ("warn", "‖", "paused"),
    "succeeded": ("good", "✓", "succeeded"),
    "failed": ("bad", "✕", "failed"),
    "cancelled": ("off", "⊘", "cancelled"),
    "killed": ("off", "⊘", "killed"),
    "gone": ("off", "?", "gone"),
    "rejected": ("bad", "✕", "rejected"),
    "undeliverable": ("bad", "✕", "undeliverable"),
}


@register.filter
def money(cents: int) -> str:
    """Write an amount in cents as a price."""
    return f"€ {cents / 100:.2f}"


@register.filter
def first_line(text: str) -> str:
    """Cut a failure to what a visitor can use of it: Restate adds the handler's traceback."""
    return text.strip().partition("\n")[0][:200]


@register.inclusion_tag("shop/status.html", takes_context=True)
def status(context: dict[str, Any], invocation: Invocation | None) -> dict[str, Any]:
    """Show what became of an invocation: its status, why it failed or waits, and the way to the admin for staff."""
    value = str(invocation.status) if invocation else ""
    tone, sign, words = _BADGES.get(value, ("off", "?", value or "not sent"))
    return {"invocation": invocation, "tone": tone, "sign": sign, "words": words, "user": context.get("user")}
