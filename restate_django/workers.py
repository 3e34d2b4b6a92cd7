"""Threads that talk HTTP for the verbs, and the guard that keeps jobs out of transactions.

A job that runs in these threads must never touch the ORM: a database connection belongs to the thread that asked.
Imports nothing of the package.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from django.db import connections as databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

# Threads for jobs in the background: a few sweeps of one process may ask at once.
_BACKGROUND: Final = 3

_lock = threading.Lock()
_pools: Final[dict[int, ThreadPoolExecutor]] = {}


def _forget_threads() -> None:
    """Start anew in a forked child: neither the threads nor whoever held the lock exist there."""
    global _lock  # noqa: PLW0603 - the one lock of this module
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget_threads)


def in_threads(job: Callable[[T], R], items: Iterable[T], *, concurrency: int) -> Iterator[tuple[T, R]]:
    """Do a job of pure HTTP for each item, some at a time, and yield ``(item, result)`` as the results come, in order.

    The threads are kept, and with them their connections to the server. One item alone is done in this thread.

    Args:
        job: Must not raise and must not use the ORM.
        items: What to do it for.
        concurrency: Threads at most.
    """
    work = list(items)
    if len(work) == 1 or concurrency == 1:
        for item in work:
            yield item, job(item)
        return
    yield from zip(work, _pool(concurrency).map(job, work), strict=True)


def in_background(job: Callable[[], R]) -> Future[R]:
    """Do a job of pure HTTP in a thread that is kept, while this one goes on.

    Args:
        job: Must not use the ORM.
    """
    return _pool(_BACKGROUND).submit(job)


def _pool(concurrency: int) -> ThreadPoolExecutor:
    with _lock:
        if concurrency not in _pools:
            _pools[concurrency] = ThreadPoolExecutor(concurrency, thread_name_prefix="restate-django")
        return _pools[concurrency]


def is_inside_transaction(using: str) -> bool:
    """Tell whether a transaction is open on an alias. The one that a ``TestCase`` wraps around a test does not count.

    Args:
        using: The alias.
    """
    database = databases[using]
    blocks = getattr(database, "atomic_blocks", [])
    # With autocommit switched off there is a transaction without a block.
    return not getattr(blocks[-1], "_from_testcase", False) if blocks else not database.get_autocommit()


def refuse_inside_transaction(what: str, using: str) -> None:
    """Refuse work that talks to the network while a transaction is open, as ``atomic(durable=True)`` does.

    Args:
        what: What was to be done, for the message.
        using: The alias whose transaction is looked at.

    Raises:
        RuntimeError: A transaction is open on that alias.
    """
    if is_inside_transaction(using):
        raise RuntimeError(
            f"{what} talks to Restate and can't run inside a transaction: its locks would be held for as long as the "
            f'network takes. Leave the atomic block first (or use transaction.on_commit(..., using="{using}")).'
        )
