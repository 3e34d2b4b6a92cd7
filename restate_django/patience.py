"""How long an answer is waited for: a visitor's few seconds, or a job's batch.

Imports the connections and the floors below.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext_noop

from restate_django import measuring
from restate_django.breaker import LEFT_ALONE_FOR
from restate_django.exceptions import OutcomeUnknown, RequestTimeout, Unavailable
from restate_django.logs import get_logger

if TYPE_CHECKING:
    from restate_django.connections import Connection

logger = get_logger("restate_django.delivery")

# Seconds that a request gets though those before it have used up the visitor's patience: to one that is there, enough.
_LEAST_TIME: Final = 0.2


class JobsPatience:
    """Keeps a batch from waiting in vain for a server that hangs, row after row."""

    #: Seconds for a send; the connection's own where it is None.
    timeout: float | None = None

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # One for each thread: the rows of other connections wait behind this, and their lease with them.
        self.left = connection.settings.concurrency

    @property
    def ends_because(self) -> str:
        """Why nothing more should be sent; empty while it may."""
        return "" if self.left > 0 else gettext_noop("Restate did not answer in time to those before it.")

    def heard(self, error: Exception | None, seconds: float) -> None:  # noqa: ARG002 - the visitor's asks how long
        """Take note of an answer, or of what came instead of it after how many seconds."""
        if isinstance(error, RequestTimeout):
            self.left -= 1


class VisitorsPatience:
    """Keeps a view from waiting for long, and the process from doing so again and again."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.timeout: float | None = min(connection.settings.on_commit_timeout, connection.settings.timeout)

    @property
    def ends_because(self) -> str:
        """Why nothing more should be sent; empty while it may."""
        if not self.connection.breaker.is_open:
            return ""
        return gettext_noop("Restate did not answer in time lately: the relay sends it.")

    def heard(self, error: Exception | None, seconds: float) -> None:
        """Take note of an answer, or of what came instead of it after how many seconds."""
        if not isinstance(error, Unavailable | OutcomeUnknown):
            self.connection.breaker.succeeded()
        elif self.connection.breaker.failed(seconds):
            until = time.time() + LEFT_ALONE_FOR
            measuring.add(measuring.BREAKER, until, connection=self.connection.alias)
            logger.warning(
                "Restate does not answer in time on connection %r: its rows are left to the relay for %g seconds (%s)",
                self.connection.alias,
                LEFT_ALONE_FOR,
                error,
                connection=self.connection.alias,
            )


Patience = JobsPatience | VisitorsPatience


class Deadline:
    """What a visitor's patience leaves to each of several requests in turn."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds for the next request; the connection's own where nobody waits for it."""
        return None if self._end is None else max(_LEAST_TIME, self._end - time.monotonic())
