"""When a row is asked about again: the later, the older it is.

Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone

from restate_django import cancelling
from restate_django.conf import all_settings
from restate_django.models import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from restate_django.conf import ConnectionSettings
    from restate_django.querysets import Due, PollClaim

# A row is next asked about after a tenth of its age: news is late by a tenth at most.
_AGE_FRACTION: Final = 0.1
#: A cancellation that waits for Restate is tried again after a tenth of its age, and after this at the latest.
_CANCEL_PAUSE: Final = dt.timedelta(seconds=30)
# Rows whose next poll falls into the same step are put off by one UPDATE.
_STEP: Final = 1.25
# A logarithm that is a whole number but for this is one.
_ROUNDING: Final = 1e-9


def next_interval(row: Invocation | Due, settings: ConnectionSettings, now: dt.datetime) -> dt.timedelta:
    """Return how long to wait before a row is asked about again: longer as it gets older.

    Args:
        row: An open row.
        settings: Its connection, for ``POLL_MIN_INTERVAL`` and ``POLL_MAX_INTERVAL``.
        now: The present moment.
    """
    if cancelling.is_wanted(row) and row.cancel_requested_at is not None and settings.admin_url is not None:
        # It could not be sent, and must not come after the invocation's own time.
        return min(_CANCEL_PAUSE, max(settings.poll_min_interval, (now - row.cancel_requested_at) * _AGE_FRACTION))
    starts = row.starts_at
    if starts is not None and starts > now:
        # A scheduled one waits for its time; one that somebody else cancels is seen by then at the latest.
        return max(settings.poll_min_interval, min(starts - now + settings.poll_min_interval, dt.timedelta(days=1)))
    since = max(filter(None, (row.waits_since, starts)))
    return min(settings.poll_max_interval, max(settings.poll_min_interval, (now - since) * _AGE_FRACTION))


def put_off_columns(row: Invocation, settings: ConnectionSettings) -> dict[str, Any]:
    """Return the changes by which a row that was asked about is next asked about, and is anybody's until then."""
    now = timezone.now()
    return {
        "polled_at": now,
        "next_poll_at": now + next_interval(row, settings, now),
        "lease_until": None,
        "lease_token": None,
    }


def stepped_interval() -> Callable[[Invocation | Due], dt.timedelta]:
    """Return what says how long to wait before a row is asked about again, in steps: those of like age by one UPDATE.

    Rows that came together are spread a little, so that they don't come together for ever.
    """
    now = timezone.now()
    spread = random.uniform(1.0, 1.1)  # noqa: S311 - spreads load, guards no secret
    settings_of = all_settings()

    def interval(row: Invocation | Due) -> dt.timedelta:
        settings = settings_of.get(row.connection)
        if settings is None:
            return dt.timedelta(0)
        shortest = settings.poll_min_interval.total_seconds()
        times = next_interval(row, settings, now).total_seconds() / shortest
        return dt.timedelta(seconds=shortest * _STEP ** math.floor(math.log(times, _STEP) + _ROUNDING) * spread)

    return interval


def put_off_by_age(rows: Sequence[Invocation | Due], claim: PollClaim, using: str) -> Counter[str]:
    """Put rows off, those of like age by one UPDATE."""
    interval = stepped_interval()
    groups: dict[dt.timedelta, list[Invocation | Due]] = {}
    for row in rows:
        groups.setdefault(interval(row), []).append(row)
    done: Counter[str] = Counter()
    for wait, group in groups.items():
        done += put_off(group, wait, claim, using)
    return done


def put_off(rows: Sequence[Invocation | Due], wait: dt.timedelta, claim: PollClaim, using: str) -> Counter[str]:
    """Let claimed rows be asked about again after so long, and count them as unchanged."""
    if rows:
        Invocation.objects.using(using).put_off(rows, lease=claim.token, due="next_poll_at", when=timezone.now() + wait)
    return Counter(unchanged=len(rows))
