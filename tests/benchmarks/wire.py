"""Sends over bare sockets, many at once: the shortest way to a server that knows many invocations.

Imports the standard library.
"""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urlsplit

#: So that no handler runs: what is measured is the way to Restate, and not its work.
DELAY_HOURS = 10
PAYLOAD = {"name": "Mary"}
BODY = json.dumps(PAYLOAD).encode()
#: Where every delayed send goes.
SEND_PATH = f"/restate/send/Greeter/greet?delay={DELAY_HOURS}h"

_CONNECTIONS = 16
# Requests that are written at once; the server answers them one after the other.
_PIPELINED = 32
_ID = re.compile(rb'"invocationId":"(inv_\w+)"')


def invocation_ids(url: str, count: int, path: str = SEND_PATH) -> list[str]:
    """Send that many invocations, and return their ids."""
    return asyncio.run(_send(url, count, path))


async def _send(url: str, count: int, path: str) -> list[str]:
    parts = urlsplit(url)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    ids: list[str] = []
    chunks = iter([_PIPELINED] * (count // _PIPELINED) + ([count % _PIPELINED] if count % _PIPELINED else []))

    async def work() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for wanted in chunks:
            writer.write(request * wanted)
            received = b""
            while len(found := _ID.findall(received)) < wanted:
                chunk = await reader.read(2**16)
                if not chunk or b"HTTP/1.1 4" in chunk:
                    raise RuntimeError(f"Restate did not take a send: {received + chunk!r}")
                received += chunk
            ids.extend(invocation_id.decode() for invocation_id in found)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))
    return ids
