"""Let the jobs run until nothing is due, without waiting for the back-off: the rows' clock is put forward instead."""

from __future__ import annotations

import datetime as dt
import time
from typing import Final

from django.db.models import F, Min
from django.utils import timezone

from restate_django import delivery, polling
from restate_django.models import Invocation

#: Every column that is compared with the time.
CLOCK_COLUMNS: Final = (
    "next_attempt_at", "next_poll_at", "lease_until", "unknown_since", "unregistered_since", "missing_since",
)  # fmt: skip


def settle(seconds: float, rounds: int = 0) -> None:
    """Deliver and poll until every row is settled, or nothing is due any more, or the time is over.

    Args:
        seconds: How long at most, in real time. What is open then is counted as left open.
        rounds: So many rounds are done however long they take: what becomes of a row in them is not a matter of speed.
    """
    # Whoever held a lease is dead. Rows that are asked about again and again would let its end come a second at a time.
    outlive_leases()
    end = time.monotonic() + seconds
    done = 0
    while done < rounds or time.monotonic() < end:
        done += 1
        delivery.deliver_due()
        polling.poll_due()
        open_rows = Invocation.objects.open()
        due = open_rows.aggregate(attempt=Min("next_attempt_at"), poll=Min("next_poll_at"))
        moments = [moment for moment in due.values() if moment is not None]
        if not moments:
            return
        # "It is not there" is believed when it was said twice: in between, the server really gets a moment.
        time.sleep(0.3 if open_rows.filter(missing_since__isnull=False).exists() else 0.02)
        # A second more: what is due at about the same time is done together.
        put_forward(min(moments) - timezone.now() + dt.timedelta(seconds=1))


def put_forward(by: dt.timedelta) -> None:
    """Let so much time pass for the rows that are open, as a clock would that jumps."""
    if by > dt.timedelta(0):
        changes = {name: F(name) - by for name in CLOCK_COLUMNS}
        Invocation.objects.open().update(**changes)


def outlive_leases() -> None:
    """Let so much time pass that no lease is left."""
    held = Invocation.objects.open().filter(lease_until__gt=timezone.now())
    last = held.order_by("-lease_until").values_list("lease_until", flat=True).first()
    if last is not None:
        put_forward(last - timezone.now() + dt.timedelta(seconds=1))


def attempt_once() -> None:
    """Make one attempt at each row that Restate has not accepted and nobody holds, due or not."""
    unsent = list(Invocation.objects.unsent().order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(unsent), delivery.BATCH):
        delivery.deliver_now(unsent[start : start + delivery.BATCH], "default")
