"""Primary keys that sort by time. Imports nothing of the package."""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

_lock = threading.Lock()
_last = 0


def _renew_lock() -> None:
    """Take a new lock in a forked child: a thread that held the old one does not exist there."""
    global _lock  # noqa: PLW0603 - the one lock of this module
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then a counter, then random bits.

    Two ids made by one process sort in the order they were made, also within a millisecond and when the clock is set
    back: the 60 bits of time and counter never go down (RFC 9562, section 6.2, method 3).
    """
    global _last  # noqa: PLW0603 - the counter is what makes ids of one process monotonic
    # 1/4096 ms: twelve bits of the millisecond's fraction, which is what rand_a has room for.
    ticks = time.time_ns() * 4096 // 1_000_000
    with _lock:
        _last = ticks = max(ticks, _last + 1)
    random_bits = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | random_bits
    return uuid.UUID(int=value)


def uuid7_floor(moment: dt.datetime) -> uuid.UUID:
    """Return the smallest version 7 UUID of a moment, so that a range of time is a range of primary keys.

    Args:
        moment: Aware; its millisecond counts. Before 1970 there is no such UUID: the smallest of all stands for it.
    """
    milliseconds = int(moment.timestamp() * 1000)
    return uuid.UUID(int=max(0, milliseconds) << 80 | 0x7 << 76 | 0b10 << 62)
