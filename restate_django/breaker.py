"""A server that hangs must not take the site down with it: the smallest state that sees to that.

Imports nothing of the package. It promises that a process waits in vain for one connection a few times only, and asks
again after a while; what it keeps is two numbers.
"""

from __future__ import annotations

import threading
import time
from typing import Final

#: Slow failures in a row after which a connection is left alone.
FAILURES: Final = 3
#: Seconds for which it is left alone. The first request after that decides anew.
LEFT_ALONE_FOR: Final = 30.0
#: A failure that took less than this (a refused connection, say) costs nobody anything, and does not count.
SLOW: Final = 0.5


class Breaker:
    """Counts the slow failures of one connection in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the connection is left alone now."""
        return time.monotonic() < self._open_until

    def succeeded(self) -> None:
        """An answer came."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self, seconds: float) -> bool:
        """No answer came. Tells whether that was the one too many.

        Args:
            seconds: How long it was waited for.
        """
        if seconds < SLOW:
            return False
        with self._lock:
            was_open = self.is_open
            self._failures += 1
            if self._failures < FAILURES or was_open:
                return False
            # The count stays: after the pause a single slow failure is enough.
            self._open_until = time.monotonic() + LEFT_ALONE_FOR
            return True
