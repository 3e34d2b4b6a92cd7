"""Tasks for Celery from inside a view: a broker that hangs costs it a second at most, one that is down a log line.

Imports nothing of the package. Celery's own connection time-outs are per attempt and per transport, and some transports
have none: so another thread publishes, and the view waits for it no longer than it should.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from celery.app import app_or_default

from restate_django.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

logger = get_logger("restate_django.dispatch")

#: Seconds that publishing may take.
PATIENCE: Final = 1.0


class _Publisher:
    """The thread of this process that publishes, and what it hangs on.

    It is a daemon, and no executor's: the interpreter waits for those at its end, however long a broker hangs.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queue: SimpleQueue[tuple[Future[None], Celery, Sequence[tuple[str, list[Any]]]]] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.stuck: Future[None] | None = None

    def submit(self, tasks: Sequence[tuple[str, list[Any]]]) -> Future[None]:
        """Have tasks published, behind those before them."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="restate-django-broker", daemon=True)
            self.thread.start()
        work: Future[None] = Future()
        # The caller's app: which one is current is each thread's own.
        self.queue.put((work, app_or_default(), tasks))
        return work

    def _run(self) -> None:
        while True:
            work, app, tasks = self.queue.get()
            try:
                _send(app, tasks)
            except Exception as error:  # noqa: BLE001 - told to whoever waits for it
                work.set_exception(error)
            else:
                work.set_result(None)


_publisher = _Publisher()


def _start_anew() -> None:
    """In a forked child: the thread does not exist there."""
    global _publisher  # noqa: PLW0603 - the one publisher of a process
    _publisher = _Publisher()


os.register_at_fork(after_in_child=_start_anew)


def publish(tasks: Sequence[tuple[str, list[Any]]]) -> bool:
    """Publish tasks, or say in the log why not. What is published late does no harm: the tasks are idempotent.

    Args:
        tasks: Names and arguments.

    Returns:
        Whether the broker has them all.
    """
    publisher = _publisher
    with publisher.lock:
        if publisher.stuck is not None and not publisher.stuck.done():
            # An earlier one still hangs: this one would wait behind it.
            return False
        work = publisher.submit(tasks)
    try:
        work.result(PATIENCE)
    except NotDone:
        publisher.stuck = work
        logger.warning("The Celery broker did not answer within %g s: the relay delivers.", PATIENCE)
        return False
    except Exception as error:  # noqa: BLE001 - each transport raises its own; the rows are safe in any case
        logger.warning("No Celery broker (%s): the relay delivers.", type(error).__name__)
        return False
    return True


def _send(app: Celery, tasks: Sequence[tuple[str, list[Any]]]) -> None:
    for name, args in tasks:
        app.send_task(name, args=args, retry=False, ignore_result=True)
