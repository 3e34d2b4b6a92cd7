"""The wire between the app and what it talks to, in the hands of a test.

``HttpProxy`` stands before an ingress or an Admin API and knows requests: it can hold one or its answer, cut, replace,
delay, and counts what passed. ``TcpProxy`` stands before a database or a broker and knows bytes alone: it can be cut
and mended. Both import the standard library, and how much patience is due.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tests.faults.scale import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
# What HTTP says about one connection alone, and what the proxy says itself.
_PER_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}


@dataclass
class Request:
    """A request as it came.

    Attributes:
        row: What the ledger calls it, None for a request that is not for the ledger.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_send(self) -> bool:
        """It would start a handler."""
        return "/restate/send/" in self.path

    @property
    def is_output(self) -> bool:
        """It reads what became of an invocation."""
        return self.path.startswith("/restate/output")

    @property
    def row(self) -> str | None:
        try:
            value: Any = json.loads(self.body)
        except ValueError:
            return None
        return value.get("row") if isinstance(value, dict) else None


class Gate:
    """Where requests or answers wait until the test lets them go on, or drops them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._fate: Literal["held", "open", "dropped"] = "held"
        self.held = 0

    def pass_through(self) -> bool:
        """Wait; tell whether to go on."""
        with self._changed:
            self.held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._fate != "held")
            return self._fate == "open"

    def wait_for(self, number: int, timeout: float = PATIENCE) -> None:
        """Wait until so many have come here."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.held >= number, timeout):
                raise AssertionError(f"{self.held} came to the gate in {timeout:g} s, and not {number}")

    def open(self) -> None:
        """Let them go on, and all that come later."""
        self._decide("open")

    def drop(self) -> None:
        """Cut them off, and all that come later."""
        self._decide("dropped")

    def _decide(self, fate: Literal["open", "dropped"]) -> None:
        with self._changed:
            self._fate = fate
            self._changed.notify_all()


@dataclass
class Plan:
    """What happens to one request.

    Attributes:
        hold_request: Where it waits before it is forwarded.
        forward: Whether it is forwarded at all.
        hold_answer: Where its answer waits.
        delay: Seconds that its answer comes late.
        too_late: Its answer comes when nobody waits for it any more.
        answer: What the client gets in place of the answer: raw bytes, status line and all.
        cut: Where the connection is cut: before the answer, inside of it, or after it, under the next request.
    """

    hold_request: Gate | None = None
    forward: bool = True
    hold_answer: Gate | None = None
    delay: float = 0.0
    too_late: bool = False
    answer: bytes | None = None
    cut: Literal["before", "inside", "after"] | None = None


PASS = Plan()


def answer(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    """Return an answer as it stands on the wire."""
    reason = http.client.responses.get(status, "Whatever")
    lines = [f"HTTP/1.1 {status} {reason}", f"content-type: {content_type}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Listener:
    """A port of the loopback interface, with a thread per connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server((LOOPBACK, 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    def close(self) -> None:
        """Stop listening, and hang up on everybody."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _reset(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True, name="proxied").start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self._serve(connection)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        raise NotImplementedError


def _wait_until_hung_up(connection: socket.socket) -> None:
    """Wait until the client has closed its end."""
    connection.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        # It sends nothing before it has its answer: what can be read is the end.
        connection.recv(1, socket.MSG_PEEK)


def _reset(connection: socket.socket) -> None:
    """Cut a connection as a crash does: with a reset, and nothing that was sent before is waited for."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Passed:
    """What has passed so far: each counted once for each request.

    Attributes:
        came: Requests that were read to their end.
        forwarded: Requests that were sent on.
        given: Answers that were given to the client, whole.
    """

    came: int = 0
    forwarded: int = 0
    answered: int = 0
    accepted: int = 0
    given: int = 0


class HttpProxy(_Listener):
    """Stands before an HTTP server. ``rule`` decides about each request; all pass until a test sets another.

    Attributes:
        rule: From a request to its plan. Called in the order in which they come, one at a time; ``came`` counts it
            already.
        sends: What has passed of requests that would start a handler, ``others`` of the rest.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self.rule: Callable[[Request], Plan] = lambda _request: PASS
        self.sends, self.others = Passed(), Passed()
        self._changed = threading.Condition()
        super().__init__()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def reset(self) -> None:
        """Let all pass, and count from zero."""
        with self._changed:
            self.rule = lambda _request: PASS
            self.sends, self.others = Passed(), Passed()

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Wait for something about what has passed."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"Not in {timeout:g} s: {what}. Sends: {self.sends}; others: {self.others}")

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            lives = True
            while (request := _read_request(reader)) is not None and lives:
                plan = self._decide(request)
                if not self._exchange(connection, request, plan):
                    break
                # A kept connection that dies is found dead by the next request: who sent it can't tell why.
                lives = plan.cut is None
            _reset(connection)

    def _decide(self, request: Request) -> Plan:
        with self._changed:
            # Under one lock: a rule that looks at the count sees each number once.
            self._count(self.sends if request.is_send else self.others, "came")
            return self.rule(request)

    def _exchange(self, connection: socket.socket, request: Request, plan: Plan) -> bool:
        """Serve one request; tell whether its answer was given to the end."""
        passed = self.sends if request.is_send else self.others
        if plan.hold_request is not None and not plan.hold_request.pass_through():
            return False
        given = plan.answer
        if plan.forward:
            self._count(passed, "forwarded")
            try:
                received = _forward(self._upstream, request)
            except (OSError, http.client.HTTPException):
                return False
            self._count(passed, "answered")
            if received.startswith(b"HTTP/1.1 202 "):
                self._count(passed, "accepted")
            given = received if given is None else given
        if plan.hold_answer is not None and not plan.hold_answer.pass_through():
            return False
        time.sleep(plan.delay)
        if plan.too_late:
            _wait_until_hung_up(connection)
        if plan.cut == "before" or given is None:
            return False
        if plan.cut == "inside":
            connection.sendall(given[: len(given) * 2 // 3])
            return False
        connection.sendall(given)
        self._count(passed, "given")
        return True

    def _count(self, passed: Passed, what: str) -> None:
        with self._changed:
            setattr(passed, what, getattr(passed, what) + 1)
            self._changed.notify_all()


def _read_request(reader: Any) -> Request | None:
    """Read a request to its end; None at the end of the connection."""
    line = reader.readline().decode("latin-1").split()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    body = reader.read(length) if length else b""
    return Request(line[0], line[1], headers, body) if len(body) == length else None


def _forward(upstream: tuple[str, int], request: Request) -> bytes:
    """Send a request on and return the answer, as it stands on the wire.

    Each goes over a connection of its own: on a kept one that has died nobody knows whether to send again, and a proxy
    that does would be the one that sends twice.
    """
    headers = {name: value for name, value in request.headers.items() if name not in _PER_HOP}
    connection = http.client.HTTPConnection(*upstream, timeout=60)
    try:
        connection.request(request.method, request.path, request.body or None, {**headers, "Connection": "close"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.getheaders() if name.lower() not in _PER_HOP]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class TcpProxy(_Listener):
    """Stands before any server, and pumps bytes until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._cut = False
        super().__init__()

    def cut(self) -> None:
        """Cut every connection, and take none until ``mend``: the server is gone."""
        self._cut = True
        self.hang_up()

    def mend(self) -> None:
        """Let connections through again."""
        self._cut = False

    def _serve(self, connection: socket.socket) -> None:
        if self._cut:
            _reset(connection)
            return
        with socket.create_connection(self._upstream) as upstream:
            _pump_both(connection, upstream)


class Balancer(_Listener):
    """Stands before several servers of this machine, and leads each connection to the next one that is there.

    Args:
        ports: Where they listen.
    """

    def __init__(self, ports: list[int]) -> None:
        self._turn = itertools.cycle(ports)
        self._servers = len(ports)
        self._turns = threading.Lock()
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        for _ in range(self._servers):
            with self._turns:
                port = next(self._turn)
            try:
                upstream = socket.create_connection((LOOPBACK, port), timeout=2)
            except OSError:
                continue
            with upstream:
                upstream.settimeout(None)
                _pump_both(connection, upstream)
            return
        _reset(connection)


def _pump_both(connection: socket.socket, upstream: socket.socket) -> None:
    upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
    back.start()
    _pump(connection, upstream)
    back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
