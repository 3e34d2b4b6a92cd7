"""What Restate answered, as columns of a row: the one place that turns answers into what is stored.

Pure functions: each returns the changes for ``Invocation.objects.write_back`` and writes nothing itself. Whatever a
handler answers, something storable comes out, so no answer can leave a row open for ever. Imports ``lifecycle``,
``storable`` and the floors below.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone

from restate_django.client import OutputState, final_status, is_json
from restate_django.lifecycle import Status
from restate_django.storable import is_storable_json, json_to_store, storable_text

if TYPE_CHECKING:
    from restate_django.client import InvocationRow, Output, SendReceipt
    from restate_django.conf import ConnectionSettings
    from restate_django.models import Invocation

#: Characters kept of a message of Restate's or a handler's.
MAX_MESSAGE: Final = 10_000
_MAX_CODE: Final = 2**63 - 1

#: "Restate does not know it" is believed when it was said twice, this far apart.
CONFIRM_AFTER: Final = dt.timedelta(seconds=5)

#: Nobody holds the row and nothing is due.
SETTLED: Final[dict[str, Any]] = {
    "lease_until": None,
    "lease_token": None,
    "next_attempt_at": None,
    "next_poll_at": None,
}
#: Nothing ran under the row's key, or Restate forgot it: the key is free for another row.
_KEY_FREED: Final[dict[str, Any]] = {"dedupe_digest": None}


def accepted(
    row: Invocation,
    *,
    invocation_id: str,
    settings: ConnectionSettings,
    execution_time: dt.datetime | None = None,
    previously_accepted: bool = False,
) -> dict[str, Any]:
    """Restate has it: it is polled from now on.

    Args:
        row: An unsent row.
        invocation_id: Restate's id for it.
        settings: The row's connection.
        execution_time: When Restate will run a delayed one.
        previously_accepted: Somebody else's invocation has the key; this row's payload was not used.
    """
    now = timezone.now()
    # A cancellation that waited for this moment is sent by the next poll.
    first_poll = now if row.cancel_requested_at else now + settings.poll_min_interval
    return {
        **SETTLED,
        "status": Status.ACCEPTED,
        "invocation_id": invocation_id,
        "accepted_at": now,
        "execution_at": execution_time,
        "previously_accepted": previously_accepted,
        "next_poll_at": first_poll,
        "unknown_since": None,
        "unregistered_since": None,
        "missing_since": None,
        "delivery_error": "",
    }


def accepted_as(row: Invocation, receipt: SendReceipt, settings: ConnectionSettings, *, ours: bool) -> dict[str, Any]:
    """Restate answered 202.

    Args:
        row: An unsent row.
        receipt: The answer.
        settings: The row's connection.
        ours: An earlier attempt of this row may have been accepted, so ``PreviouslyAccepted`` is our own send.
    """
    return accepted(
        row,
        invocation_id=receipt.invocation_id,
        settings=settings,
        execution_time=receipt.execution_time,
        # The client itself sends a keyed one again when a kept-alive connection was dead.
        previously_accepted=receipt.previously_accepted and not ours and not receipt.resent,
    )


def rejected(reason: str) -> dict[str, Any]:
    """Nothing ran, for certain, and sending it again as it is would change nothing."""
    return {
        **SETTLED,
        **_KEY_FREED,
        "status": Status.REJECTED,
        "unknown_since": None,
        "delivery_error": storable_text(reason, limit=MAX_MESSAGE),
        "finished_at": timezone.now(),
    }


def undeliverable(reason: str) -> dict[str, Any]:
    """It may have run, and repeating it is not safe any more: a person decides."""
    return {**SETTLED, "status": Status.UNDELIVERABLE, "delivery_error": storable_text(reason, limit=MAX_MESSAGE)}


def cancelled_before_start() -> dict[str, Any]:
    """It was cancelled before anything of it ran."""
    return {
        **SETTLED,
        **_KEY_FREED,
        "status": Status.CANCELLED,
        "unknown_since": None,
        "missing_since": None,
        "failure_code": 409,
        "failure_message": "cancelled",
        "finished_at": timezone.now(),
    }


def killed(remembered: dt.timedelta) -> dict[str, Any]:
    """Restate answered that it is killed. Its key binds: it may have run, though no poll saw it.

    Args:
        remembered: How long Restate remembers its key from now on.
    """
    return {
        "result_expires_at": timezone.now() + remembered,
        **SETTLED,
        "status": Status.KILLED,
        "missing_since": None,
        "failure_code": 409,
        "failure_message": "killed",
        "finished_at": timezone.now(),
    }


def gone() -> dict[str, Any]:
    """Restate does not know it any more."""
    return {**SETTLED, **_KEY_FREED, "status": Status.GONE, "finished_at": timezone.now()}


def ended(
    row: Invocation, output: Output, settings: ConnectionSettings, seen: InvocationRow | None = None
) -> dict[str, Any]:
    """It ended, and this is its output or its failure.

    Args:
        row: The row.
        output: An output in the state READY or FAILED.
        settings: The row's connection (for the size limit).
        seen: What the Admin API said of it, with the times.
    """
    changes: dict[str, Any] = {
        **SETTLED,
        **times(row, seen),
        "missing_since": None,
        "unknown_since": None,
        "finished_at": (seen.completed_at if seen else None) or timezone.now(),
        "result_expires_at": output.expires_at,
    }
    if output.state is OutputState.FAILED and output.failure is not None:
        failure = output.failure
        # A code such as 204 leaves no room for a message in an answer; SQL has it.
        message = failure.message or (seen.failure[1] if seen and seen.failure else "")
        return changes | failed(row, failure.code, message, failure.metadata)
    if seen is not None and seen.failure is not None:
        # A failure of code 200, from a server that names no source (before 1.7.4): SQL alone tells it from an output.
        return changes | failed(row, *seen.failure, None)
    return changes | {
        "status": Status.SUCCEEDED,
        **output_columns(output.body, output.content_type, settings.max_output_size),
    }


def ended_unread(row: Invocation, seen: InvocationRow, remembered: dt.timedelta) -> dict[str, Any]:
    """It ended, as the Admin API says, and its output can't be read any more.

    Args:
        row: The row.
        seen: What the Admin API said of it.
        remembered: How long Restate remembers its key, from its end on.
    """
    finished_at = seen.completed_at or timezone.now()
    changes = {
        **SETTLED,
        **times(row, seen),
        "missing_since": None,
        "finished_at": finished_at,
        "result_expires_at": finished_at + remembered,
    }
    if seen.completion_result == "failure":
        code, message = seen.failure or (None, "")
        return changes | failed(row, code, message, None)
    return changes | {"status": Status.SUCCEEDED, "has_output": False}


def ended_too_large(
    row: Invocation, size: int, remembered: dt.timedelta, seen: InvocationRow | None = None
) -> dict[str, Any]:
    """It succeeded, with more output than the client reads: that stays in Restate.

    Args:
        row: The row.
        size: Bytes of the output, as far as is known.
        remembered: How long Restate remembers its key, from its end on.
        seen: What the Admin API said of it, with the times.
    """
    finished_at = (seen.completed_at if seen else None) or timezone.now()
    return {
        **SETTLED,
        **times(row, seen),
        "missing_since": None,
        "unknown_since": None,
        "finished_at": finished_at,
        "result_expires_at": finished_at + remembered,
        "status": Status.SUCCEEDED,
        "has_output": True,
        "output_size": size,
    }


def failed(row: Invocation, code: int | None, message: str, metadata: Any) -> dict[str, Any]:
    """The status and columns of a failure: the handler's own, or a cancellation's or a kill's."""
    status = final_status(code, message, cancel_requested=row.cancel_requested_at is not None)
    storable = not metadata or is_storable_json(metadata)
    return {
        "status": Status(status),
        "failure_code": code if code is None or abs(code) <= _MAX_CODE else None,
        "failure_message": storable_text(message, limit=MAX_MESSAGE),
        "failure_metadata": (metadata or None) if storable else {"unreadable": storable_text(ascii(metadata))},
    }


def output_columns(body: bytes, content_type: str, limit: int) -> dict[str, Any]:
    """The columns of an output.

    Args:
        body: The bytes that Restate gave.
        content_type: Their type.
        limit: Bytes from which on an output stays in Restate, and is fetched when somebody asks for it.
    """
    columns: dict[str, Any] = {
        "has_output": bool(body),
        "output": None,
        "output_bytes": None,
        "output_content_type": storable_text(content_type, limit=255),
        "output_size": len(body),
    }
    if not body or len(body) > limit:
        return columns
    storable, value = json_to_store(body) if is_json(content_type) else (False, None)
    if storable and value is not None:
        columns["output"] = value
    else:
        # A JSON null too: in a JSON column it could not be told from "nothing here".
        columns["output_bytes"] = body
    return columns


def times(row: Invocation, seen: InvocationRow | None) -> dict[str, Any]:
    """What the Admin API says of the way to here: start, retries, last failure."""
    if seen is None:
        return {}
    # Restate leaves these out when an invocation pauses or ends: what was seen last is still true then. Its retry_count
    # counts the attempts: one that runs for the first time has 1 (measured on 1.7.12).
    attempts, failure = seen.retry_count, seen.last_failure
    return {
        "started_at": row.started_at or seen.running_at,
        "retry_count": row.retry_count if attempts is None else max(0, attempts - 1),
        "last_failure": storable_text(failure, limit=MAX_MESSAGE) if failure else row.last_failure,
    }


def payload_copy(body: bytes | None, content_type: str) -> Any:
    """The searchable copy of a payload: a JSON value, or None where the database could not keep it."""
    if body is None or not is_json(content_type):
        return None
    return json_to_store(body)[1]
