"""For handlers written with the official Python SDK: tell the Django site at once that an invocation has ended.

Used where the handlers run: it needs neither Django's settings nor a database, and imports nothing of the package. The
site, which gave the address with the invocation, then reads the outcome from Restate: a report carries none.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError

from restate_django.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger = get_logger("restate_django.handlers")

#: The header of an invocation that says where its end may be reported.
REPORT_HEADER: Final = "x-django-report"
# Seconds that Restate may take to close an attempt whose handler is done, and that the site may take to answer.
_PATIENCE: Final = 30.0
_TIMEOUT: Final = 10.0

_reports: Final[set[asyncio.Task[None]]] = set()


@contextlib.asynccontextmanager
async def reports(to: str = "") -> AsyncIterator[None]:
    """Report the end of each invocation that runs in here, if the site that sent it wants to hear of it.

    For all handlers of a service: ``restate.Service("Greeter", invocation_context_managers=[reports])`` (restate-sdk
    0.13 and later), or inside a handler: ``async with reports(): ...``.

    Nothing is said when an attempt is suspended or fails and is tried again. The report goes out after Restate has the
    outcome, in the background and once: when it is lost, the site finds out by polling.

    Args:
        to: How the address must begin, so that nobody who may call your handlers can have them post elsewhere:
            ``"https://shop.example.com/"``. Anywhere by default.
    """
    from restate.exceptions import TerminalError
    from restate.extensions import current_context

    context = current_context()
    request = context.request() if context is not None else None
    address = request.headers.get(REPORT_HEADER, "") if request is not None else ""
    try:
        yield
    except TerminalError:
        _report_later(request, address, to)
        raise
    _report_later(request, address, to)


def _report_later(request: Any, address: str, to: str) -> None:
    if not address:
        return
    allowed = f"{to.rstrip('/')}/" if to else ""
    if not address.startswith(("http://", "https://")) or not address.startswith(allowed):
        logger.warning("An invocation asks for its end to be reported to a place that is not allowed.")
        return
    task = asyncio.get_running_loop().create_task(_report(request, address))
    _reports.add(task)  # the loop itself would let go of it
    task.add_done_callback(_reports.discard)


async def _report(request: Any, address: str) -> None:
    # Before that the outcome is on its way, and the site would read that it still runs.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(request.attempt_finished_event.wait(), _PATIENCE)
    try:
        await asyncio.to_thread(_post, address)
    except (OSError, ValueError) as error:
        # Its address lets whoever has it ask for a read: not in a log.
        logger.info(
            "The end of %s could not be reported, polling will tell: %s",
            request.id,
            type(error).__name__,
            invocation_id=request.id,
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def _post(address: str) -> None:
    request = urllib.request.Request(address, data=b"", method="POST")  # noqa: S310 - http and https alone, see above
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT):
            pass
    except HTTPError as error:
        with error:
            logger.info("The site answered a report with %d", error.code)
