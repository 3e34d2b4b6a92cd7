"""What the answer to an attempt means for its row, as changes to write: nothing is written here.

Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone
from django.utils.translation import gettext_noop

from restate_django import recording
from restate_django.attempts import is_decided, is_first_attempt, only_reads
from restate_django.exceptions import (
    InvalidRequest,
    Misconfigured,
    NotSupported,
    OutcomeUnknown,
    Refused,
    Unavailable,
    UnknownTarget,
)
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from restate_django.attempts import Answer
    from restate_django.conf import ConnectionSettings

logger = get_logger("restate_django.delivery")

#: Full jitter: a random wait up to twice as long after each attempt, to this many seconds at most.
MAX_BACK_OFF: Final = 60.0
#: What a person has decided on is tried again after so many seconds at most.
_DECIDED_WAIT: Final = 30.0
#: Seconds that a row waits at most because an answer asks for it (``Retry-After``).
MOST_PATIENCE: Final = 600.0
#: A row that was given back unsent waits so long: the server or the worker was too slow for it.
_GIVEN_BACK_FOR: Final = dt.timedelta(seconds=1)


def settle(row: Invocation, answer: Answer, settings: ConnectionSettings) -> dict[str, Any]:
    """Return what an answer means, as changes to the row."""
    if answer.given_back:
        return _give_back(row, answer.given_back)
    if answer.receipt is not None:
        return recording.accepted_as(row, answer.receipt, settings, ours=not is_first_attempt(row))
    if answer.output is not None:
        return _settle_by_reading(row, answer, settings)
    return _with_patience(_settle_error(row, answer, settings), answer.error)


def _with_patience(changes: dict[str, Any], error: Exception | None) -> dict[str, Any]:
    """Let a row that is tried again wait for as long as the answer asks, within reason."""
    asked: float = getattr(error, "retry_after", None) or 0.0
    if "status" not in changes:
        # On top of its own wait: rows that were sent away together don't come back together.
        changes["next_attempt_at"] += dt.timedelta(seconds=min(MOST_PATIENCE, asked))
    return changes


def _settle_error(row: Invocation, answer: Answer, settings: ConnectionSettings) -> dict[str, Any]:
    error = answer.error
    reason = str(error)
    first = is_first_attempt(row)
    if isinstance(error, InvalidRequest) and first:
        # What was recorded can't be sent: a limit was lowered since, say.
        return recording.rejected(reason)
    if isinstance(error, Refused):
        if first:
            return recording.rejected(reason)
        return retry(row, reason)
    if isinstance(error, UnknownTarget):
        now = timezone.now()
        since = row.unregistered_since or now
        if answer.confirmed and first and now - since >= settings.registration_grace:
            return recording.rejected(reason)
        return retry(row, reason, ran_nothing=True, unregistered_since=since)
    if isinstance(error, NotSupported) and not answer.window_is_open:
        # The old paths can't even ask about such a key, and sending it again is not safe any more.
        return recording.undeliverable(reason)
    if isinstance(error, Misconfigured | NotSupported):
        # NotSupported: a scope with the old paths, say. Another server or setting may take it.
        return retry(row, reason, ran_nothing=True)
    if isinstance(error, Unavailable):
        return retry(row, reason, ran_nothing=True)
    if not isinstance(error, OutcomeUnknown):
        logger.error("Invocation %s could not be sent: %s", row.pk, reason, row=row)
    return retry(row, reason)


def _settle_by_reading(row: Invocation, answer: Answer, settings: ConnectionSettings) -> dict[str, Any]:
    """Settle a row that is not sent again by what Restate knows of it."""
    if answer.invocation_id:
        return recording.accepted(row, invocation_id=answer.invocation_id, settings=settings)
    now = timezone.now()
    if answer.window_is_open and not only_reads(row) and answer.error is None:
        # It would be sent again, if only it were known for how long its key is remembered.
        return retry(
            row, gettext_noop("It may have run, and the Admin API does not tell for how long its key is remembered.")
        )
    if row.missing_since is None or now - row.missing_since < recording.CONFIRM_AFTER:
        # An earlier request may still be on its way: believed only twice.
        return retry(
            row,
            str(answer.error or row.delivery_error),
            wait=recording.CONFIRM_AFTER.total_seconds(),
            missing_since=row.missing_since or now,
        )
    if row.cancel_requested_at is not None and answer.window_is_open:
        return recording.cancelled_before_start()
    if row.verb == Invocation.Verb.CALL and answer.window_is_open:
        return recording.rejected(gettext_noop("The call never reached Restate. Nothing ran."))
    reason = (
        str(answer.error)
        if answer.error
        else gettext_noop(
            "The outcome of an attempt is unknown, Restate does not know the invocation now, and it no longer surely "
            "remembers its key: it may have run and been forgotten. Decide whether to send it again."
        )
    )
    return recording.undeliverable(reason)


def retry(
    row: Invocation, reason: str, *, ran_nothing: bool = False, wait: float | None = None, **changes: Any
) -> dict[str, Any]:
    """Return the changes that let a row be tried again later.

    Args:
        row: The row.
        reason: Why, for people.
        ran_nothing: This attempt's answer proves that nothing ran: it does not start the clock of the window.
        wait: Seconds until then; by default a random time up to twice as long after each attempt.
        changes: Further columns.
    """
    if ran_nothing and is_decided(row):
        # What the person decided on is still to be done.
        changes["attempts"] = 0
        wait = random.uniform(0.1, _DECIDED_WAIT)  # noqa: S311 - spreads retries, guards no secret
    if wait is None:
        ceiling = min(MAX_BACK_OFF, 2.0 ** min(row.attempts, 16))
        wait = random.uniform(0.1, ceiling)  # noqa: S311 - spreads retries, guards no secret
    if ran_nothing and is_first_attempt(row):
        changes["unknown_since"] = None
    return {
        "next_attempt_at": timezone.now() + dt.timedelta(seconds=wait),
        "lease_until": None,
        "lease_token": None,
        "unregistered_since": None,
        "delivery_error": storable_text(reason, limit=recording.MAX_MESSAGE),
        **changes,
    }


def _give_back(row: Invocation, reason: str) -> dict[str, Any]:
    """Return the changes that give back a row that was not sent, for another worker to take at once."""
    decided = {"attempts": 0} if is_decided(row) else {}
    return {
        **decided,
        "next_attempt_at": timezone.now() + _GIVEN_BACK_FOR,
        "lease_until": None,
        "lease_token": None,
        "unknown_since": None if is_first_attempt(row) else row.unknown_since,
        "delivery_error": reason,
    }
