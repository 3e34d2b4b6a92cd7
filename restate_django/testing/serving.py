"""The program that ``HandlerServer`` runs: ``python -m restate_django.testing.serving module:app port``.

Hypercorn, with an end of our own: on Python 3.12 and later Hypercorn (0.18) waits until each connection is closed,
before it looks at its graceful time-out, and Restate holds one open for as long as an invocation runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
import signal
import sys
from typing import TYPE_CHECKING, Final

from hypercorn.asyncio import serve
from hypercorn.config import Config

from restate_django.testing.process import LOOPBACK

if TYPE_CHECKING:
    from hypercorn.typing import Framework

#: Seconds after a signal for what Hypercorn does about it. Restate retries what was under way.
GRACE: Final = 1.0


async def run(app: Framework, port: int) -> None:
    """Serve an app until a signal ends it.

    Args:
        app: What ``restate.app([...])`` returned.
        port: Where, on the loopback address.

    Raises:
        OSError: The port is taken.
    """
    config = Config()
    config.bind = [f"{LOOPBACK}:{port}"]
    # It never closes by itself what Restate keeps open.
    config.graceful_timeout = 0
    is_over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, is_over.set)
    serving = asyncio.ensure_future(serve(app, config, shutdown_trigger=is_over.wait))
    told = asyncio.ensure_future(is_over.wait())
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    await asyncio.wait({serving}, timeout=GRACE)
    await _end_the_rest()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _end_the_rest() -> None:
    """Cancel what still runs, more than once: a connection's task takes the first for the end of its reading alone."""
    this = asyncio.current_task()
    for _ in range(20):
        rest = {task for task in asyncio.all_tasks() if task is not this}
        if not rest:
            return
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=0.1)


if __name__ == "__main__":
    asyncio.run(run(pkgutil.resolve_name(sys.argv[1]), int(sys.argv[2])))
