"""An HTTP server that answers as a test says: for "what do we do when", never for "what does Restate do"."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INVOCATION_ID = "inv_1fakefakefakefakefakefakefakefakefakefa"


class FakeIngress:
    """Answers each request by ``self.answer(request)``, a callable that a test replaces.

    ``request`` has ``method``, ``path``, ``headers`` and ``body``; all are kept in ``requests``. An answer is
    ``(status, headers, body)``; ``None`` cuts the connection without one.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], tuple[int, dict[str, str], bytes] | None] = lambda _request: accepted()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                fake.requests.append(request)
                answer = fake.answer(request)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - the names are http.server's

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # http.server's own is five: of a burst the kernel would drop the rest.
            request_queue_size = 1024

            def handle_error(self, *args: object) -> None:
                """A client that hangs up is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def sends(self) -> list[Request]:
        """The requests that would have started a handler."""
        return [request for request in self.requests if "/restate/send/" in request.path]

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._server.shutdown()
            self._server.server_close()


class Request:
    """A request as it came."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body


def accepted(*, previously: bool = False, invocation_id: str = INVOCATION_ID) -> tuple[int, dict[str, str], bytes]:
    """What the ingress says when it takes a send."""
    status = "PreviouslyAccepted" if previously else "Accepted"
    body = json.dumps({"invocationId": invocation_id, "status": status}).encode()
    return 202, {"Content-Type": "application/json", "x-restate-id": invocation_id}, body


def error(status: int, message: str, source: str = "ingress") -> tuple[int, dict[str, str], bytes]:
    """What Restate says when it has no result to give."""
    body = json.dumps({"code": status, "message": message, "source": source}).encode()
    return status, {"Content-Type": "application/json", "x-restate-error-source": source}, body


def output(value: object, invocation_id: str = INVOCATION_ID) -> tuple[int, dict[str, str], bytes]:
    """What the ingress says of one that succeeded."""
    headers = {"Content-Type": "application/json", "x-restate-id": invocation_id}
    return 200, headers, json.dumps(value).encode()


UNKNOWN_SERVICE = error(404, "service 'Greeter' not found, make sure to register the service before calling it.")
NOT_FOUND = error(404, "invocation not found")
NOT_READY = error(470, "the invocation exists but has not completed yet")
