"""A server that misbehaves as a test tells it to: what no real Restate does on demand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class WireServer:
    """A TCP server whose connections are each given to the next script, and the last script from then on.

    A script gets a :class:`Peer`; what it raises is kept in ``errors``, unless the client hung up.
    """

    def __init__(self, *scripts: Callable[[Peer], None], context: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self.closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        # A listening socket does not wake on close: one last connection does it.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass
        for thread in self._threads:
            thread.join(10)
        self._socket.close()
        assert self.errors == []

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            connection, _ = self._socket.accept()
            if self.closing.is_set():
                connection.close()
                return
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            self.connections += 1
            self._start(self._serve, connection, script)

    def _serve(self, connection: socket.socket, script: Callable[[Peer], None]) -> None:
        try:
            with connection:
                connection.settimeout(10)
                if self.context is None:
                    script(Peer(self, connection))
                    return
                with self.context.wrap_socket(connection, server_side=True) as wrapped:
                    script(Peer(self, wrapped))
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass  # the client hung up, as it should when its time is over
        except BaseException as error:  # noqa: BLE001 - shown by the test that uses the server
            self.errors.append(error)


class Peer:
    """The client's end of one connection."""

    def __init__(self, server: WireServer, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self._buffer = b""

    def read(self) -> bytes:
        """Return one whole request; empty when the client closed."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.connection.recv(65536)
            if not data:
                return b""
            self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            rest += self.connection.recv(65536)
        request, self._buffer = head + b"\r\n\r\n" + rest[:length], rest[length:]
        self.server.requests.append(request)
        return request

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def trickle(self, data: bytes, pause: float = 0.05) -> None:
        """Send byte by byte, as slow as the pause says, until the test ends."""
        for byte in data:
            if self.server.closing.wait(pause):
                return
            self.connection.sendall(bytes([byte]))

    def wait(self) -> None:
        """Do nothing until the client hangs up or the test ends."""
        self.connection.settimeout(0.05)
        while not self.server.closing.is_set():
            try:
                if not self.connection.recv(65536):
                    return
            except TimeoutError:
                continue

    def reset(self) -> None:
        """Hang up with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.connection.close()


def response(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """Return a whole HTTP answer; underscores in the headers' names are dashes."""
    lines = [f"HTTP/1.1 {status} X"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ID = "inv_1fhdLEo6AyEH1AWuM0SxC8h1wnBPsAsNcS"
ACCEPTED = response(
    202,
    b'{"invocationId":"%s","status":"Accepted"}' % ID.encode(),
    x_restate_id=ID,
    content_type="application/json",
)


def answer(*answers: bytes) -> Callable[[Peer], None]:
    """Return a script that answers a request with each, and the last from then on, over one connection."""

    def script(peer: Peer) -> None:
        left = list(answers)
        while peer.read():
            peer.write(left.pop(0) if len(left) > 1 else left[0])

    return script


def hang_up(peer: Peer) -> None:
    """Read a request and close without an answer."""
    peer.read()


def reset(peer: Peer) -> None:
    """Read a request and reset the connection."""
    peer.read()
    peer.reset()
