"""What a row is in ``--json`` and on a page of text. The keys are the columns' names, and stay.

Imports the records alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restate_django.client import NO_PAYLOAD

if TYPE_CHECKING:
    from restate_django.models import Invocation

_COLUMNS = (
    "status",
    "connection",
    "scope",
    "limit_key",
    "service",
    "key",
    "handler",
    "verb",
    "idempotency_key",
    "invocation_id",
    "run_at",
    "created_at",
    "accepted_at",
    "started_at",
    "finished_at",
    "polled_at",
    "cancel_requested_at",
    "attempts",
    "retry_count",
    "delivery_error",
    "last_failure",
    "failure_code",
    "failure_message",
    "related_id",
)


def of_row(row: Invocation, *, bodies: bool = False) -> dict[str, Any]:
    """Return a row as a JSON object. What it has not is null.

    Args:
        row: The row.
        bodies: With payload, headers, output and the failure's metadata.
    """
    document: dict[str, Any] = {"id": str(row.pk), "target": row.target}
    for name in _COLUMNS:
        value = getattr(row, name)
        document[name] = None if value == "" else value
    document["requested_by"] = row.requested_by_id
    document["restarted_from"] = row.restarted_from_id
    if bodies:
        payload = row.payload_value
        document["payload"] = None if payload is NO_PAYLOAD else payload
        document["headers"] = row.headers
        document["has_output"] = row.has_output
        document["output"] = row.output_value
        document["output_size"] = row.output_size
        document["failure_metadata"] = row.failure_metadata
    return document


def line_of(row: Invocation) -> list[str]:
    """Return a row as the cells of a line: id, recorded at, target, status."""
    return [str(row.pk), f"{row.created_at:%Y-%m-%d %H:%M:%S}", row.target, str(row.status)]


def page_of(row: Invocation) -> str:
    """Return a row as lines of text: what it has, and nothing that it has not."""
    document = of_row(row, bodies=True)
    kept = {name: value for name, value in document.items() if value not in (None, "", {}, 0) or name == "output"}
    if not row.has_output:
        kept.pop("output", None)
    kept.pop("has_output", None)
    width = max(len(name) for name in kept)
    return "\n".join(f"{name.ljust(width)}  {_words(value)}" for name, value in kept.items())


def _words(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    return value if isinstance(value, str) else repr(value)
