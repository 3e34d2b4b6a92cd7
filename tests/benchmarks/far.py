"""A server that stands further away: ``python -m tests.benchmarks.far HOST PORT MILLISECONDS`` listens before it.

Every chunk of bytes arrives that much later, in each direction, and none waits for another: what is long is the way,
and not the queue. It prints its port. Imports the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    def arrive(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            loop.call_later(seconds, arrive, data)
    loop.call_later(seconds, writer.close)


async def main(host: str, port: int, milliseconds: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        one_way = milliseconds / 1000
        await asyncio.gather(_pump(reader, back, one_way), _pump(there, writer, one_way))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
