"""What a page is told of an invocation, and the stream of server-sent events that tells it.

A stream is written by one coroutine. It lives some minutes, holds nothing while it waits, and says when all is told.
Imports ``watching`` and the floors below.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from django.utils import translation

from restate_django import watching
from restate_django.lifecycle import Status
from restate_django.querysets import write_alias

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Iterable

    from restate_django.models import Invocation

#: Seconds that a stream lives; the browser opens the next one, and is asked anew whether it may.
LIFE: Final = 300.0
#: Seconds of silence after which a stream says that it is there: proxies cut what is silent for a minute.
HEARTBEAT: Final = 15.0
# Milliseconds after which a browser opens the next stream.
_RETRY: Final = 2000
_END: Final = "event: end\ndata: {}\n\n"


def document(row: Invocation, *, tells_why: bool) -> dict[str, Any]:
    """Return how a row stands, as a page is told it.

    Args:
        row: The row.
        tells_why: Whether a handler's or Restate's own words of a failure are for whoever asks.
    """
    said = {
        "id": str(row.pk),
        "service": row.service,
        "handler": row.handler,
        "status": str(row.status),
        "label": row.get_status_display(),
        "finished": row.is_finished,
        "succeeded": row.status == Status.SUCCEEDED,
        "cancel_requested": row.is_open and row.cancel_requested_at is not None,
    }
    if row.is_finished and row.status != Status.SUCCEEDED:
        message = row.failure_message or row.delivery_error
        if message and tells_why:
            said["failure_message"] = message
    return said


async def stream(rows: list[Invocation], *, tells_why: bool) -> AsyncIterator[str]:
    """Write events: how each row stands, then each change, then the end.

    Args:
        rows: The rows.
        tells_why: As for :func:`document`.
    """
    told = _Told(rows, tells_why=tells_why)
    yield f"retry: {_RETRY}\n\n{told.news(rows)}"
    if told.places:
        following = watching.follow(told.places)
        try:
            async for found in following:
                if written := told.after_a_look(found):
                    yield written
                if told.is_over:
                    break
        finally:
            await following.aclose()
    if not told.places:
        yield _END


class _Told:
    """What one stream has told.

    Attributes:
        places: The database alias of each row of which there is more to tell.
    """

    def __init__(self, rows: Iterable[Invocation], *, tells_why: bool) -> None:
        self.places = {row.pk: write_alias(row) for row in rows}
        self._tells_why = tells_why
        # What is written later is in the request's language too.
        self._language = translation.get_language()
        self._said: dict[uuid.UUID, str] = {}
        self._spoke = time.monotonic()
        self._ends = self._spoke + LIFE

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to tell, or the stream's life is over."""
        return not self.places or time.monotonic() >= self._ends

    def after_a_look(self, found: list[Invocation] | None) -> str:
        """Return what is to be written after a look at the database: news, a heartbeat, or nothing."""
        written = ""
        if found is not None:
            for pk in set(self.places) - {row.pk for row in found}:
                del self.places[pk]  # it was deleted
            written = self.news(found)
        if not written and time.monotonic() - self._spoke >= HEARTBEAT:
            written = ": nothing new\n\n"
        if written:
            self._spoke = time.monotonic()
        return written

    def news(self, found: Iterable[Invocation]) -> str:
        """Return an event for each row that has changed."""
        written = ""
        for row in found:
            with translation.override(self._language):
                data = json.dumps(document(row, tells_why=self._tells_why))
            if self._said.get(row.pk) != data:
                self._said[row.pk] = data
                written += f"event: status\ndata: {data}\n\n"
            if row.is_finished:
                self.places.pop(row.pk, None)
        return written
