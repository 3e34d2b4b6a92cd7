"""Following rows from coroutines: one look at the database a second tells all the streams of a process.

However many streams are open, an event loop makes one query a second for each database that they look at, in a thread
that gives up its connection after it. Between the looks nothing is held. Imports the records and the floors below.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from django.db import DatabaseError
from django.db import connections as databases

from restate_django.logs import get_logger, trouble
from restate_django.models import Invocation

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncGenerator, Callable, Mapping

logger = get_logger("restate_django.watching")

T = TypeVar("T")
#: Seconds between two looks.
INTERVAL: Final = 1.0
# Primary keys in one statement.
_TOGETHER: Final = 500


async def in_own_thread(work: Callable[..., T], *args: Any) -> T:
    """Do some work with the database in a thread of the event loop's, and leave no connection open there.

    Django's own thread of a request keeps its connection until the request ends, which a stream's takes minutes to do.
    """

    def run() -> T:
        try:
            return work(*args)
        finally:
            for database in databases.all(initialized_only=True):
                database.close()

    return await asyncio.to_thread(run)


async def follow(rows: Mapping[uuid.UUID, str]) -> AsyncGenerator[list[Invocation] | None]:
    """Tell how rows stand, about once a second, until somebody stops asking.

    Args:
        rows: The database alias of each, by primary key. One that is taken out of it is not looked at any more.

    Yields:
        The rows that are there, without bodies; None when the database could not be looked at.
    """
    hub = _hubs.setdefault(asyncio.get_running_loop(), _Hub())
    news: asyncio.Queue[list[Invocation] | None] = asyncio.Queue(maxsize=1)
    hub.join(news, rows)
    try:
        while True:
            yield await news.get()
    finally:
        hub.leave(news)


class _Hub:
    """The streams of one event loop, and the task that looks for them all."""

    def __init__(self) -> None:
        self._streams: dict[asyncio.Queue[list[Invocation] | None], Mapping[uuid.UUID, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def join(self, news: asyncio.Queue[list[Invocation] | None], rows: Mapping[uuid.UUID, str]) -> None:
        self._streams[news] = rows
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def leave(self, news: asyncio.Queue[list[Invocation] | None]) -> None:
        del self._streams[news]
        if not self._streams and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            wanted: dict[str, set[uuid.UUID]] = {}
            for rows in self._streams.values():
                for pk, using in rows.items():
                    wanted.setdefault(using, set()).add(pk)
            found: dict[uuid.UUID, Invocation] | None = None
            try:
                found = await in_own_thread(_read, wanted)
            except DatabaseError as error:
                logger.warning("The rows that pages look at can't be read now: %s", trouble(error))
            except Exception:
                # A bug, here or in a driver, must not leave every stream of this process without a word.
                logger.exception("The rows that pages look at could not be read")
            for news, rows in list(self._streams.items()):
                # A reader that is slow is told the newest, and not all that went by.
                with contextlib.suppress(asyncio.QueueEmpty):
                    news.get_nowait()
                news.put_nowait(None if found is None else [found[pk] for pk in rows if pk in found])


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = WeakKeyDictionary()


def _read(wanted: Mapping[str, set[uuid.UUID]]) -> dict[uuid.UUID, Invocation]:
    """Read rows by their primary keys."""
    found: dict[uuid.UUID, Invocation] = {}
    for using, pks in wanted.items():
        ordered = sorted(pks)
        for start in range(0, len(ordered), _TOGETHER):
            rows = Invocation.objects.using(using).without_bodies().filter(pk__in=ordered[start : start + _TOGETHER])
            found |= {row.pk: row for row in rows.order_by()}
    return found
