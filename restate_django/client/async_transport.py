"""The same request and the same answer as in ``transport``, waited for on an event loop: no thread is held meanwhile.

For what takes long: attaching to an invocation, and a call. It needs httpx, which the extra ``async`` brings, and
imports it when it is used. What goes out is what the transport prepares, what comes back is read as there, and the
errors are the transport's own: only the waiting is done here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.util import SKIP_HEADER

from restate_django.client.transport import (
    Answer,
    Clock,
    Request,
    Transport,
    announced,
    broken,
    checked_seconds,
    has_body,
    honest,
    is_stood_in,
    measured,
    too_large,
)
from restate_django.exceptions import NotSupported, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

T = TypeVar("T")


def can_wait(transport: Transport) -> bool:
    """Tell whether a transport's requests can be waited for here: httpx is installed, and no SOCKS proxy is between.

    Nor a stand-in for every server (see ``restate_django.testing``), which has no event loop.
    """
    return importlib.util.find_spec("httpx") is not None and not transport.through_socks and not is_stood_in()


async def exchange(transport: Transport, request: Request, interpret: Callable[[Answer], T]) -> T:
    """Send a request once, and return what its answer means.

    Each has a connection of its own: it is waited for longer than a connection takes, and belongs to this event loop.
    So nothing is tried again either: no kept-alive connection can be dead.

    Args:
        transport: Where to, and how.
        request: The request.
        interpret: Turns an answer into a result, or raises a ``RequestError`` with its ``status``.

    Raises:
        NotSupported: httpx is not installed, or a SOCKS proxy is between.
        RequestError: As ``Transport.exchange``.
    """
    if not can_wait(transport):
        raise NotSupported("Waiting without a thread needs httpx, and no SOCKS proxy: install restate-django[async].")
    seconds = transport.timeout if request.timeout is None else checked_seconds("timeout", request.timeout)
    try:
        return interpret(await _measured_answer(transport, request, seconds))
    except NotSupported as error:
        transport.mask(error)
        raise
    except RequestError as error:
        transport.mask(error)
        raise honest(error, request, may_have_run=False) from error.__cause__


async def _measured_answer(transport: Transport, request: Request, seconds: float) -> Answer:
    began = time.monotonic()
    answer: Answer | None = None
    try:
        answer = await _answer(transport, request, seconds)
    finally:
        measured(request, time.monotonic() - began, None if answer is None else answer.status)
    return answer


async def _answer(transport: Transport, request: Request, seconds: float) -> Answer:
    import httpx

    clock = Clock()
    clock.start(float("inf"), sent=False)
    clock.connects = True
    answered = False

    async def follow(event: str, _info: Any) -> None:
        # From its first byte on nobody knows whether it arrived.
        if event.endswith("send_request_headers.started"):
            clock.sent, clock.connects = True, False

    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                verify=_context(transport),
                trust_env=False,
                proxy=_proxy(transport),
                timeout=httpx.Timeout(seconds, connect=min(seconds, transport.connect_timeout or seconds)),
            ) as client,
        ):
            response = await client.send(_prepared(transport, request, follow), stream=True)
            answered = True
            try:
                body = await _read(response, request, transport.max_response_size)
            finally:
                await response.aclose()
    except RequestError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        clock.timed_out = isinstance(error, TimeoutError | httpx.TimeoutException)
        raise broken(error, request, transport.address, seconds, clock, answered=answered) from error
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def _prepared(transport: Transport, request: Request, follow: Any) -> httpx.Request:
    """Return the transport's own request, byte for byte."""
    import httpx

    prepared = transport.prepare(request)
    headers = {name: value for name, value in prepared.headers.items() if value != SKIP_HEADER}
    url = str(prepared.url)
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    # httpx would write a path anew: paths come here encoded.
    extensions: dict[str, Any] = {"trace": follow, "target": target.encode("ascii")}
    return httpx.Request(request.method, url, headers=headers, content=request.body, extensions=extensions)


async def _read(response: httpx.Response, request: Request, limit: int) -> bytes:
    """Read a body to its end, within the limit."""
    expected = announced(response.headers.get("content-length"))
    if expected is not None and expected > limit:
        told = int(expected) if expected < float("inf") else None
        raise too_large(request, limit, response.status_code, dict(response.headers), told)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise too_large(request, limit, response.status_code, dict(response.headers))
        chunks.append(chunk)
    chunked = "transfer-encoding" in response.headers
    if expected is None and not size and not chunked and has_body(response.status_code):
        # As in the transport: Restate says "content-length: 0" where there is no body.
        raise urllib3.exceptions.ProtocolError("the answer is cut off inside its headers")
    return b"".join(chunks)


def _proxy(transport: Transport) -> str | None:
    return requests.utils.select_proxy(transport.base_url, transport.proxies)


def _context(transport: Transport) -> ssl.SSLContext | bool:
    """Return how the server is verified; made once for a transport, for it takes tens of milliseconds."""
    if not transport.base_url.startswith("https:"):
        return False
    known = _contexts.get(transport.verify)
    if known is None:
        bundle = requests.utils.DEFAULT_CA_BUNDLE_PATH if transport.verify is True else str(transport.verify)
        folder = Path(bundle).is_dir()
        known = ssl.create_default_context(cafile=None if folder else bundle, capath=bundle if folder else None)
        _contexts[transport.verify] = known
    return known


_contexts: dict[bool | str, ssl.SSLContext] = {}
