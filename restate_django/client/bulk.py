"""Many requests at once by one thread, over libcurl (the extra ``bulk``): what the jobs use where it is installed.

``requests`` costs some 400 us of a processor's time for each request, whatever the number of threads; libcurl 70. What
an answer means is decided where it always is, errors are the transport's own, and a wrong setting is told by the same
words. Imports the transport and the error tree; ``pycurl`` only when it is used.

libcurl sends a request again by itself when a kept-alive connection turns out to be dead. So only requests that may be
repeated belong here, and an answer after which that may have happened says ``resent``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from restate_django.client.transport import (
    UNFORESEEN,
    Answer,
    broke,
    checked_seconds,
    has_body,
    measured,
    no_tls,
    nothing_sent,
    too_large,
    too_late,
)
from restate_django.client.words import one_line
from restate_django.exceptions import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from restate_django.client.transport import Request, Transport

K = TypeVar("K")
T = TypeVar("T")

# Seconds that libcurl may sleep before it looks again; it wakes up for every answer.
_LONGEST_NAP: Final = 1.0
# Requests under way before the first answer.
_AT_FIRST: Final = 8


@functools.cache
def is_installed() -> bool:
    """Tell whether libcurl's Python package is there."""
    return importlib.util.find_spec("pycurl") is not None


def holds_up_greenlets() -> bool:
    """Tell whether the threads of this process are greenlets, all of which would stand still while libcurl waits.

    Measured with gevent, 200 sends to a server that takes 50 ms for each: another greenlet had no turn at all until
    they were done. By ``requests``, which gevent knows how to interrupt, it never waited longer than 0.14 s.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("socket"):
        return True
    return eventlet is not None and bool(eventlet.is_monkey_patched("socket"))


class Bulk:
    """A way to send many requests of one transport at once.

    It may be shared by threads and survives a fork: each thread of each process has connections of its own.

    Args:
        transport: The server, and how to talk to it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._engines = threading.local()
        # A fork's child leaves its parent's engine alone: to end it would say good-bye on the parent's connections.
        self._parents: list[_Engine] = []

    def exchange(
        self, jobs: Iterable[tuple[K, Request, Callable[[Answer], T]]], *, concurrency: int
    ) -> Iterator[tuple[K, T | RequestError, float]]:
        """Send requests, some at a time, and yield what each came to, as the answers arrive.

        Args:
            jobs: For each a name for it, the request (one that may be repeated), and what turns its answer into a
                result or raises a ``RequestError``. An iterator is read when a request can leave.
            concurrency: Requests under way at most.

        Yields:
            The name, the result or the error, and how many seconds it took.
        """
        engine: _Engine | None = getattr(self._engines, "mine", None)
        if engine is not None and engine.process != os.getpid():
            self._parents.append(engine)
            engine = None
        # A sweep inside another's loop gets connections of its own.
        self._engines.mine = None
        if engine is None:
            engine = _Engine(self._transport)
        try:
            yield from engine.run(iter(jobs), concurrency)
        finally:
            self._engines.mine = engine

    def close(self) -> None:
        """Close this thread's connections. The next requests open new ones."""
        engine: _Engine | None = getattr(self._engines, "mine", None)
        self._engines.mine = None
        if engine is not None and engine.process == os.getpid():
            engine.close()


class _Transfer:
    """A libcurl handle with what it carries: one request after the other."""

    def __init__(self, curl: Any) -> None:
        self.curl = curl
        self.was_used = False
        self.job: tuple[Any, Request, Callable[[Answer], Any]]
        self.began = 0.0
        self.seconds = 0.0
        self.head: list[bytes] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.limit = 0

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers, their names in lower case."""
        headers: dict[str, str] = {}
        for line in b"".join(self.head).decode("latin-1").split("\n"):
            if line.startswith("HTTP/"):
                # An interim answer came before it.
                headers = {}
                continue
            name, colon, value = line.partition(":")
            if colon:
                name, value = name.strip().lower(), value.strip()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def hear_body(self, chunk: bytes) -> int | None:
        """Take a part of the body. Anything but None stops the transfer."""
        self.size += len(chunk)
        if self.size > self.limit:
            return -1
        self.chunks.append(chunk)
        return None


class _Engine:
    """libcurl's many transfers, of one thread of one process."""

    def __init__(self, transport: Transport) -> None:
        import pycurl

        self.process = os.getpid()
        self._pycurl = pycurl
        self._transport = transport
        self._multi = pycurl.CurlMulti()
        self._free: list[_Transfer] = []

    def run(
        self, jobs: Iterator[tuple[K, Request, Callable[[Answer], T]]], concurrency: int
    ) -> Iterator[tuple[K, T | RequestError, float]]:
        """Do what :meth:`Bulk.exchange` promises."""
        under_way: dict[int, _Transfer] = {}
        # More with each answer: a server that hangs is found out by a few, and the outcome of few is unknown then.
        allowed = min(_AT_FIRST, concurrency)
        more = True
        try:
            while more or under_way:
                while more and len(under_way) < allowed:
                    job = next(jobs, None)
                    if job is None:
                        more = False
                        break
                    transfer = self._begin(job)
                    under_way[id(transfer.curl)] = transfer
                self._multi.perform()
                ended = list(self._ended())
                for curl, code, reason in ended:
                    transfer = under_way.pop(id(curl))
                    if not code:
                        allowed = min(allowed + 1, concurrency)
                    self._multi.remove_handle(curl)
                    result = self._result(transfer, code, reason)
                    self._free.append(transfer)
                    seconds = time.monotonic() - transfer.began
                    measured(transfer.job[1], seconds, None if code else curl.getinfo(self._pycurl.RESPONSE_CODE))
                    yield transfer.job[0], result, seconds
                if not ended and under_way:
                    self._multi.select(_LONGEST_NAP)
        finally:
            # Whoever stopped listening, or a transfer's own error: what is under way ends with its connection.
            for transfer in under_way.values():
                self._multi.remove_handle(transfer.curl)
                transfer.curl.close()

    def close(self) -> None:
        """Close the connections now: a handle and its callbacks hold each other, and libcurl keeps what it opened."""
        while self._free:
            self._free.pop().curl.close()
        self._multi.close()

    def _ended(self) -> Iterator[tuple[Any, int, str]]:
        while True:
            queued, well, badly = self._multi.info_read()
            yield from ((curl, 0, "") for curl in well)
            yield from badly
            if not queued:
                return

    # -------------------------------------------------------------------------------------------- a request

    def _begin(self, job: tuple[Any, Request, Callable[[Answer], Any]]) -> _Transfer:
        request = job[1]
        transfer = self._free.pop() if self._free else self._new()
        transfer.job = job
        transfer.chunks, transfer.size = [], 0
        transfer.head.clear()
        transfer.limit = self._transport.max_response_size
        transfer.began = time.monotonic()
        timeout = request.timeout
        transfer.seconds = self._transport.timeout if timeout is None else checked_seconds("timeout", timeout)
        connect = min(transfer.seconds, self._transport.connect_timeout or transfer.seconds)
        curl, names = transfer.curl, self._pycurl
        curl.setopt(names.URL, self._transport.base_url + request.path)
        curl.setopt(names.TIMEOUT_MS, max(1, round(transfer.seconds * 1000)))
        curl.setopt(names.CONNECTTIMEOUT_MS, max(1, round(connect * 1000)))
        # A name without a value keeps libcurl from sending a header of its own.
        unsaid = (
            ["Accept:", "Expect:"] if "Content-Type" in request.headers else ["Accept:", "Expect:", "Content-Type:"]
        )
        own = [f"{name}: {value}" for name, value in request.headers.items()]
        curl.setopt(names.HTTPHEADER, [*self._transport.header_lines, *own, *unsaid])
        if request.method == "GET":
            curl.setopt(names.HTTPGET, 1)
        else:
            curl.setopt(names.POST, 1)
            curl.setopt(names.POSTFIELDS, request.body or b"")
        self._multi.add_handle(curl)
        return transfer

    def _new(self) -> _Transfer:
        """Return one that keeps the transport's promises: no redirect, no cookie, no proxy, the CA that is set."""
        names = self._pycurl
        curl = names.Curl()
        options = {
            names.NOSIGNAL: 1,
            names.FOLLOWLOCATION: 0,
            names.PROXY: "",
            names.NOPROXY: "*",
            names.PATH_AS_IS: 1,
            names.HTTP_VERSION: names.CURL_HTTP_VERSION_1_1,
            names.TCP_NODELAY: 1,
            names.SSL_VERIFYPEER: 1,
            names.SSL_VERIFYHOST: 2,
        }
        for option, value in options.items():
            curl.setopt(option, value)
        verify = self._transport.verify
        path = Path(verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH)
        curl.setopt(names.CAPATH if path.is_dir() else names.CAINFO, str(path))
        transfer = _Transfer(curl)
        # A method of C's: it is called for each line of each answer.
        curl.setopt(names.HEADERFUNCTION, transfer.head.append)
        curl.setopt(names.WRITEFUNCTION, transfer.hear_body)
        return transfer

    # -------------------------------------------------------------------------------------------- an answer

    def _result(self, transfer: _Transfer, code: int, reason: str) -> Any:
        """Return what a transfer came to: a result, or an error as the transport has it."""
        _name, request, interpret = transfer.job
        names, curl = self._pycurl, transfer.curl
        try:
            if code:
                raise self._error(transfer, code, reason)
            status = curl.getinfo(names.RESPONSE_CODE)
            body = b"".join(transfer.chunks)
            headers = transfer.headers
            silent = not body and "content-length" not in headers and "transfer-encoding" not in headers
            if silent and has_body(status):
                # As in the transport: Restate says that there is no body, so this one was cut inside its headers.
                raise broke(request, "the answer is cut off inside its headers")
            # A new connection for a handle that had one: the old one was dead, perhaps with this request on it.
            resent = transfer.was_used and curl.getinfo(names.NUM_CONNECTS) > 0
            transfer.was_used = True
            return interpret(Answer(status, headers, body, resent=resent))
        except RequestError as error:
            self._transport.mask(error)
            return error
        except UNFORESEEN as error:
            # As in the transport: an answer that nobody foresaw must not end the others.
            return broke(request, one_line(str(error)) or type(error).__name__)

    def _error(self, transfer: _Transfer, code: int, reason: str) -> RequestError:
        """Return what it means that no whole answer came."""
        _name, request, _interpret = transfer.job
        names, curl = self._pycurl, transfer.curl
        sent = curl.getinfo(names.REQUEST_SIZE) > 0
        number = curl.getinfo(names.OS_ERRNO)
        words = os.strerror(number) if number and not sent else one_line(reason)
        if code == names.E_WRITE_ERROR and transfer.size > transfer.limit:
            headers = transfer.headers
            length = headers.get("content-length", "")
            announced = int(length) if length.isascii() and length.isdecimal() else 0
            answer = (curl.getinfo(names.RESPONSE_CODE), headers)
            return too_large(request, transfer.limit, *answer, announced if announced > transfer.limit else None)
        if not sent:
            if code in {names.E_SSL_CONNECT_ERROR, names.E_SSL_CACERT, names.E_SSL_CACERT_BADFILE}:
                return no_tls(request.about, self._transport.address, words)
            return nothing_sent(request.about, self._transport.address, words)
        if code == names.E_OPERATION_TIMEDOUT:
            return too_late(request, transfer.seconds)
        return broke(request, words)
