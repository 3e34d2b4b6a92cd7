"""Sending a cancellation to Restate, once.

A second cancellation would cancel the compensation that the first one started. So a worker claims the right to send it,
and where an earlier attempt's outcome is unknown (it died, or no answer came) the invocation's journal is asked first:
a cancellation that arrived stands there as a signal. Imports the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Final

from django.utils import timezone

from restate_django import recording
from restate_django.conf import get_settings
from restate_django.exceptions import AdminRefused, NotFound, RestateError
from restate_django.models import Invocation
from restate_django.querysets import ANY_LEASE

if TYPE_CHECKING:
    from restate_django.client import AdminClient
    from restate_django.querysets import Due

#: How old a claim must be before another worker takes it over, at least: longer than a request takes.
LEASE: Final = dt.timedelta(seconds=60)


class Sent(enum.Enum):
    """What came of sending a cancellation."""

    TAKEN = "taken"  # Restate will carry it out when the handler awaits next
    DONE = "done"  # it had not started, and is cancelled now
    ENDED = "ended"  # there was nothing to cancel any more
    NOT_SENT = "not-sent"  # it did not reach Restate
    UNKNOWN = "unknown"  # nobody knows; the journal tells later


def is_wanted(row: Invocation | Due) -> bool:
    """Tell whether a row's cancellation was asked for and has not been sent."""
    return row.cancel_requested_at is not None and not row.cancel_is_sent


def claim(row: Invocation, using: str) -> bool:
    """Take it upon this worker to send a row's cancellation. Tells whether it may.

    Args:
        row: A row that Restate has. ``doubtful`` is set on it when an earlier attempt's outcome is unknown.
        using: Its database alias.
    """
    row.cancel_is_doubtful = row.cancel_claimed_at is not None
    lease = max(LEASE, 2 * dt.timedelta(seconds=get_settings(row.connection).timeout))
    return Invocation.objects.using(using).claim_cancel(row, lease=lease)


def send(admin: AdminClient, row: Invocation) -> tuple[Sent, RestateError | None]:
    """Send a claimed row's cancellation. Runs in a thread: no ORM.

    Args:
        admin: The client of the row's connection.
        row: The row.

    Returns:
        What came of it, and the error where there was one.
    """
    try:
        if row.cancel_is_doubtful and admin.has_cancel_signal(row.invocation_id):
            return Sent.TAKEN, None
        return (Sent.DONE if admin.cancel_invocation(row.invocation_id).done else Sent.TAKEN), None
    except (AdminRefused, NotFound) as error:
        return Sent.ENDED, error
    except RestateError as error:
        return (Sent.UNKNOWN if error.may_have_run else Sent.NOT_SENT), error


def settle(row: Invocation, sent: Sent, using: str) -> None:
    """Write down what came of a cancellation, whatever the row's status has become meanwhile.

    Args:
        row: The claimed row. It is up to date afterwards where it ended.
        sent: What came of it.
        using: Its database alias.
    """
    rows = Invocation.objects.using(using)
    now = timezone.now()
    if sent is Sent.TAKEN or sent is Sent.DONE:
        rows.filter(pk=row.pk).update(cancel_sent_at=now)
        row.cancel_sent_at = now
    elif sent is not Sent.UNKNOWN:
        rows.filter(pk=row.pk).update(cancel_claimed_at=None)
        row.cancel_claimed_at = None
    if sent is Sent.DONE:
        # Nothing of it is left to be read, so this is the only time to learn of it.
        while row.is_in_restate and not rows.write_back(row, lease=ANY_LEASE, **recording.cancelled_before_start()):
            row.refresh_from_db(using=using)
