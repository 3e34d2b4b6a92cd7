"""The loop of a sweep: batches of due rows, on each database in turn, until nothing is due or the bounds are reached.

What a batch is stays with the verbs that sweep. Imports the settings and the floors below.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from restate_django.conf import all_settings, get_settings, swept_databases
from restate_django.logs import get_logger
from restate_django.workers import refuse_inside_transaction

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

logger = get_logger("restate_django.sweeping")


class Part(NamedTuple):
    """What one batch may take of.

    Attributes:
        using: A database alias.
        connection: The connection whose rows it takes; None for those of all.
    """

    using: str
    connection: str | None

    @property
    def lease(self) -> dt.timedelta:
        """The lease of a claim: the connection's, or the longest of all."""
        return job_lease() if self.connection is None else get_settings(self.connection).lease


def sweep(
    what: str,
    batch: Callable[[Part, int], tuple[int, Callable[[], Counter[str]]]],
    *,
    size: int,
    limit: int | None,
    budget: float | None,
    connections: Iterable[str] | None = None,
    ahead: int = 0,
) -> Counter[str]:
    """Do batches on every database that the connections name, a batch each in turn.

    Args:
        what: What sweeps, for the error inside a transaction.
        batch: Takes the part and how many rows it may claim of it; returns how many it claimed, and what finishes the
            work on them and tells what became of them. A part of which it claimed none is done with.
        size: Rows of a batch at most.
        limit: Rows of all batches at most, None for all that are due.
        budget: Seconds after which no further batch begins, None for no end.
        connections: The connections whose rows are taken, a batch of one each in turn; None for all, together.
        ahead: Batches that are begun before an earlier one is finished.

    Returns:
        What became of all rows together.

    Raises:
        RuntimeError: A transaction is open.
        ConnectionDoesNotExist: ``RESTATE`` has no connection of that name.
    """
    done: Counter[str] = Counter()
    end = float("inf") if budget is None else time.monotonic() + budget
    left = float("inf") if limit is None else limit
    turns = _parts(connections)
    for using in {part.using for part in turns}:
        refuse_inside_transaction(what, using)
    # No part always leads: a short budget would leave the others waiting.
    random.shuffle(turns)
    begun: deque[Callable[[], Counter[str]]] = deque()
    while turns and left > 0 and time.monotonic() < end:
        part = turns.pop(0)
        claimed, finish = batch(part, int(min(size, left)))
        if claimed:
            begun.append(finish)
            left -= claimed
            turns.append(part)
        if len(begun) > ahead:
            done += begun.popleft()()
    while begun:
        done += begun.popleft()()
    if done:
        logger.debug("%s: %s", what, ", ".join(f"{count} {status}" for status, count in sorted(done.items())))
    return done


def _parts(connections: Iterable[str] | None) -> list[Part]:
    if connections is None:
        return [Part(using, None) for using in swept_databases()]
    names = [connections] if isinstance(connections, str) else dict.fromkeys(connections)
    return [Part(using, name) for name in names for using in get_settings(name).databases]


def job_lease() -> dt.timedelta:
    """Return the lease of a claim that takes rows of every connection: the longest of theirs."""
    return max(settings.lease for settings in all_settings().values())
