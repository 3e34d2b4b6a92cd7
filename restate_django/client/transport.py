# ruff: noqa: PLR2004 - HTTP's numbers, and the bounds of visible ASCII
"""One HTTP request to a Restate server and its answer, over ``requests``, with a deadline for the whole of it.

It knows nothing of what an answer means. It may import the error tree, the rules for headers, tokens and URLs, and how
words are shown. It promises: no redirect is followed, no cookie kept, no secret in an error; and an error says for
certain whether anything left this machine.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import io
import os
import random
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import SKIP_HEADER

from restate_django import measuring
from restate_django.client.targets import token_fault, url_fault, validate_connection_headers
from restate_django.client.words import one_line
from restate_django.exceptions import (
    InvalidRequest,
    Misconfigured,
    NotSupported,
    OutcomeUnknown,
    RequestError,
    RequestTimeout,
    ResponseTooLarge,
    RestateError,
    Unavailable,
    UnknownTarget,
    WorkflowKeyRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0
DEFAULT_MAX_RESPONSE_SIZE = 64 * 2**20

_CHUNK = 2**18
_RETRY_STATUSES = frozenset({408, 425, 429})
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_USER_AGENT = "restate-django"
_DIGITS = re.compile(r"[0-9]+")
_MOST_DIGITS = 18
# A shorter word would be found in sentences that have nothing to do with it.
_SHORTEST_SECRET = 8
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
# What reading an answer that nobody foresaw may raise, in http.client, urllib3 or here. Not all of Exception: a Celery
# task's soft time limit is one too, and must come through as itself.
UNFORESEEN = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is sent.

    Attributes:
        method: The HTTP method.
        path: The path below the base URL, encoded, with its query.
        body: The body, None for none.
        headers: Its own headers, on top of the connection's.
        about: What it is about, in words, for errors.
        kind: What it is for, in a word of few: that is what it is measured by.
        runs: It may make something run or change. Where it does not, a broken connection leaves nothing unknown.
        repeatable: Sending it twice does the same as once.
        timeout: Seconds for the whole of it, None for the transport's.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    kind: str = ""
    runs: bool = False
    repeatable: bool = True
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end.

    Attributes:
        status: The HTTP status.
        headers: The headers, their names in lower case.
        body: The whole body.
        resent: An attempt before this one may have reached the server too.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    resent: bool = False


class Clock(threading.local):
    """What the sockets of this thread have to know of the request they carry, and how far that has come."""

    deadline: float = float("inf")
    timed_out: bool = False
    sent: bool = False
    connects: bool = False

    def start(self, deadline: float, *, sent: bool) -> None:
        """Begin with a request."""
        self.deadline = deadline
        self.timed_out = self.connects = False
        self.sent = sent

    def left(self) -> float:
        """Return the seconds that are left, or raise."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.timed_out = True
            raise TimeoutError("the deadline of the whole request")
        return left


_clock = Clock()


class _DeadlineSocket:
    """A connected socket whose every operation ends at the deadline of the request it carries.

    A socket's own timeout is per operation, and a server that trickles beats it: with ``timeout=1``, ``requests`` was
    held for 12.6 s. Each receive here gets only the time that the whole request has left, headers included.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendall(self, data: Any, *args: Any) -> None:
        self._sock.settimeout(_clock.left())
        _clock.sent = True
        try:
            self._sock.sendall(data, *args)
        except TimeoutError:
            _clock.timed_out = True
            raise

    def recv_into(self, *args: Any) -> int:
        self._sock.settimeout(_clock.left())
        try:
            return self._sock.recv_into(*args)
        except TimeoutError:
            _clock.timed_out = True
            raise

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        # As socket.makefile("rb") does it, except that the reads come back through this object.
        self._sock._io_refs += 1  # type: ignore[attr-defined] # what makefile counts, and _decref_socketios counts down
        return io.BufferedReader(socket.SocketIO(self, "r"))  # type: ignore[arg-type] # all it calls is here

    def drop(self) -> None:
        """Close it for good. A socket that is only closed stays open for as long as somebody may read it.

        The reader is left as it is: a half-made answer still holds it, and its finalizer fails on one that is closed.
        """
        self._sock._io_refs = 0  # type: ignore[attr-defined] # what makefile counts
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Deadlined:
    """What our connections do beyond urllib3's: connect within the request's time, and hold the socket to it."""

    sock: Any
    port: int
    timeout: Any
    source_address: Any
    socket_options: Any
    _dns_host: str

    def connect(self) -> None:
        _clock.connects = True
        super().connect()  # type: ignore[misc] # urllib3's class comes after this one
        self.sock = _DeadlineSocket(self.sock)

    def getresponse(self) -> Any:
        sock = self.sock
        try:
            return super().getresponse()  # type: ignore[misc] # urllib3's class comes after this one
        except BaseException:
            # http.client lets go of a connection whose answer names no length, and urllib3 may refuse that answer then.
            if sock is not None:
                sock.drop()
            raise

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses, each of which gets its share of the time.

        urllib3 gives each the whole of it: a host of which one address is silent would take twice as long, or would
        never get to the one that answers.
        """
        family = urllib3.util.connection.allowed_gai_family()
        try:
            addresses = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, family, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise urllib3.exceptions.NewConnectionError(self, f"The host is not known: {error}") from error  # type: ignore[arg-type] # it is one
        deadline = time.monotonic() + min(self.timeout, _clock.left())
        failure: OSError = OSError("The host has no address.")
        for number, (kind, type_, protocol, _, address) in enumerate(addresses):
            share = (deadline - time.monotonic()) / (len(addresses) - number)
            if share <= 0:
                failure = TimeoutError("No time was left.")
                break
            sock = socket.socket(kind, type_, protocol)
            try:
                sock.settimeout(share)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                if self.source_address:
                    sock.bind(self.source_address)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        kind_of_error: Any = urllib3.exceptions.NewConnectionError
        if isinstance(failure, TimeoutError):
            kind_of_error = urllib3.exceptions.ConnectTimeoutError
        raise kind_of_error(self, f"No connection: {failure}") from failure


class _HTTPConnection(_Deadlined, HTTPConnection):
    pass


class _HTTPSConnection(_Deadlined, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """``requests``' adapter over connections that keep the deadline, for one server.

    It leaves out what ``requests`` does each time and no Restate server needs: cookies, and finding the pool anew.
    """

    _pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        response.request = req
        response.url = req.url or ""
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        self._pool = None
        # urllib3 leaves a pool's connections to the garbage collector, and the traceback of an error may hold the pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


class Transport:
    """A server's base URL and how to talk to it.

    One session serves one thread of one process: a fork or a thread pool never shares a socket. :meth:`close` closes
    them all.

    Args:
        base_url: ``http`` or ``https``, with a path prefix or without.
        token: A bearer token.
        headers: Headers for each request, such as a proxy's key.
        timeout: Seconds for a whole request by our own clock, retries included.
        connect_timeout: Seconds to connect, to each address of the host. Default: what is left of ``timeout``.
        trust_env: Take proxies and a CA bundle from the environment, as ``requests`` does.
        ca_bundle: A file or folder of certificates to verify the server by, in place of the usual ones.
        max_response_size: The largest body that is read, in bytes.
        retries: How often a request that may be repeated is tried again.

    Raises:
        InvalidRequest: One of them can't be used. No message shows a secret.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        trust_env: bool = False,
        ca_bundle: str | os.PathLike[str] | None = None,
        max_response_size: int = DEFAULT_MAX_RESPONSE_SIZE,
        retries: int = 0,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._address = _address(self.base_url)
        self.timeout = checked_seconds("timeout", timeout)
        self.connect_timeout = None if connect_timeout is None else checked_seconds("connect_timeout", connect_timeout)
        self.max_response_size = max_response_size
        self.retries = retries
        self.trust_env = trust_env
        self._headers: CaseInsensitiveDict[str] = CaseInsensitiveDict({"User-Agent": _USER_AGENT})
        self._headers.update(validate_connection_headers(headers))
        # Restate stores each header with the invocation: nothing goes that need not. Answers come uncompressed.
        self._headers.setdefault("Accept-Encoding", SKIP_HEADER)
        if token is not None:
            self._headers["Authorization"] = f"Bearer {_checked_token(token, self._headers)}"
        self._secrets = _secrets(self._headers, token)
        self.proxies: dict[str, str] = {}
        self._verify: bool | str = True if ca_bundle is None else os.fspath(ca_bundle)
        if trust_env:
            self.proxies = dict(requests.utils.get_environ_proxies(self.base_url))
            if ca_bundle is None:
                self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self.through_socks = any(proxy.lower().startswith("socks") for proxy in self.proxies.values())
        self._sessions: dict[tuple[int, int], requests.Session] = {}

    def __repr__(self) -> str:
        return f"<Transport: {self.base_url}>"

    def close(self) -> None:
        """Close the sessions of every thread. The transport can be used again, and opens new ones then."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    # -------------------------------------------------------------------------------------------- sending

    def exchange(self, request: Request, interpret: Callable[[Answer], T]) -> T:
        """Send a request, once or as often as it may be repeated, and return what its answer means.

        Args:
            request: The request.
            interpret: Turns an answer into a result, or raises a ``RequestError`` with its ``status``.

        Raises:
            Unavailable: Nothing left this machine, or (for what runs nothing) the connection broke.
            RequestTimeout: No whole answer within the time.
            OutcomeUnknown: The connection broke after something was sent, or an attempt before may have run.
            ResponseTooLarge: The body is over the limit.
            RequestError: What ``interpret`` raised, or ``NotSupported``.
        """
        seconds = self.timeout if request.timeout is None else checked_seconds("timeout", request.timeout)
        deadline = time.monotonic() + seconds
        prepared = self.prepare(request)
        attempt, may_have_run = 0, False
        while True:
            try:
                answer = self._attempt(prepared, request, deadline, seconds)
                if may_have_run:
                    answer = Answer(answer.status, answer.headers, answer.body, resent=True)
                return interpret(answer)
            except NotSupported as error:
                self.mask(error)
                raise
            except RequestError as error:
                self.mask(error)
                stale = isinstance(error, _StaleConnection)
                pause = 0.0 if stale and request.repeatable else self._pause(error, request, attempt, deadline)
                if pause is None:
                    raise honest(error, request, may_have_run=may_have_run) from error.__cause__
                may_have_run = may_have_run or (request.runs and error.may_have_run)
            # The second try of a dead connection is on a new one, so it can't be stale again.
            attempt += 0 if stale else 1
            if pause:
                time.sleep(pause)

    def mask(self, error: RestateError) -> None:
        """Take what is secret out of an error: what answers may repeat what it was given."""
        for secret in self._secrets:
            error.message = error.message.replace(secret, "***")
        error.args = (error.message,)

    @property
    def address(self) -> str:
        """The server's host and port, for messages."""
        return self._address

    @property
    def verify(self) -> bool | str:
        """The certificates to verify the server by: a path, or True for the usual ones."""
        return self._verify

    @property
    def header_lines(self) -> list[str]:
        """The headers of each request, a line each."""
        return [f"{name}: {value}" for name, value in self._headers.items() if value is not SKIP_HEADER]

    @property
    def has_proxy(self) -> bool:
        """Whether requests go through a proxy of the environment."""
        return bool(self.proxies)

    def prepare(self, request: Request) -> requests.PreparedRequest:
        """Return a request as it goes over the wire. Nothing is sent.

        ``requests`` would read proxies and ``.netrc``, merge cookies and rewrite the URL for each one: paths come here
        encoded, so it is put together by hand.
        """
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = self.base_url + request.path
        prepared.headers = self._headers.copy()
        for name, value in request.headers.items():
            prepared.headers[name] = value
        prepared.body = request.body
        if request.body is not None:
            prepared.headers["Content-Length"] = str(len(request.body))
        prepared.hooks = default_hooks()
        return prepared

    def _attempt(self, prepared: requests.PreparedRequest, request: Request, deadline: float, seconds: float) -> Answer:
        began = time.monotonic()
        answer: Answer | None = None
        try:
            answer = self._try(prepared, request, deadline, seconds)
        finally:
            measured(request, time.monotonic() - began, None if answer is None else answer.status)
        return answer

    def _try(self, prepared: requests.PreparedRequest, request: Request, deadline: float, seconds: float) -> Answer:
        session = self._session()
        # A SOCKS proxy's sockets are not ours, so they can't say that nothing was sent.
        _clock.start(deadline, sent=self.through_socks)
        response: requests.Response | None = None
        try:
            left = _clock.left()
            connect = left if self.connect_timeout is None else min(left, self.connect_timeout)
            # The adapter alone: the session's own send would add cookies, hooks and redirects.
            response = session.get_adapter(self.base_url).send(
                prepared, stream=True, timeout=(connect, left), verify=self._verify, proxies=self.proxies
            )
            body = self._read(response, request)
        except (*_BROKEN, *UNFORESEEN) as error:
            if response is not None:
                response.close()
            # Before anything was sent there was no answer to read: then it is a bug, and shows itself.
            if isinstance(error, RequestError) or not (_clock.sent or isinstance(error, _BROKEN)):
                raise
            raise broken(error, request, self._address, seconds, _clock, answered=response is not None) from error
        except BaseException:
            # A Celery time limit, Ctrl-C: a half-read answer must not be the next request's.
            if response is not None:
                response.close()
            raise
        # The server hangs up after an answer to a request that asked for it, and after refusing one without reading its
        # body. The next request would find a dead connection, and not know whether it ran.
        refused = response.status_code >= 400 and prepared.body and "x-restate-id" not in response.headers
        if refused or prepared.headers.get("Connection") == "close":
            session.close()
        return Answer(response.status_code, dict(response.headers.lower_items()), body)

    def _read(self, response: requests.Response, request: Request) -> bytes:
        """Read the body to its end, within the limit. The deadline is kept by the socket."""
        raw = response.raw
        expected = announced(response.headers.get("Content-Length"))
        limit = self.max_response_size
        chunks: list[bytes] = []
        size = 0
        if expected is None or expected <= limit:
            while chunk := raw.read(_CHUNK, decode_content=True):
                size += len(chunk)
                if size > limit:
                    break
                chunks.append(chunk)
        if size > limit or (expected or 0) > limit:
            size_told = int(expected) if expected is not None and limit < expected < float("inf") else None
            raise too_large(request, limit, response.status_code, response.headers, size_told)
        plain = "content-encoding" not in response.headers
        if plain and expected is not None and size != expected and has_body(response.status_code):
            raise urllib3.exceptions.ProtocolError("the answer is cut off")
        if expected is None and not size and not raw.chunked and has_body(response.status_code):
            # Where there is no body, Restate says "content-length: 0" (measured on 1.7.12). An answer that has none and
            # says nothing was cut inside its headers: http.client takes their end for the end of the headers.
            raise urllib3.exceptions.ProtocolError("the answer is cut off inside its headers")
        raw.release_conn()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _pause(self, error: RequestError, request: Request, attempt: int, deadline: float) -> float | None:
        """Return the seconds to wait before trying again, None for not trying again."""
        if attempt >= self.retries or not request.repeatable:
            return None
        if not isinstance(error, (Unavailable, OutcomeUnknown)) or isinstance(error, (Misconfigured, UnknownTarget)):
            return None
        if error.status is not None and error.status not in _RETRY_STATUSES and not 500 <= error.status < 600:
            return None
        pause = error.retry_after
        if pause is None:
            # Full jitter: many clients that failed together must not come back together.
            pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))  # noqa: S311 - no secret
        return pause if time.monotonic() + pause < deadline else None

    # -------------------------------------------------------------------------------------------- sessions

    def _session(self) -> requests.Session:
        """Return the session of this process and this thread, or the one that stands in for all of them."""
        if _stand_in is not None:
            return _stand_in
        key = (os.getpid(), threading.get_ident())
        session = self._sessions.get(key)
        return session if session is not None else self._open(key)

    def _open(self, key: tuple[int, int]) -> requests.Session:
        """Open a session, and close those whose process (before a fork) or thread is gone."""
        threading.current_thread()  # a thread that Python did not start is enumerated from now on
        alive = {thread.ident for thread in threading.enumerate()}
        for pid, thread in list(self._sessions):
            if pid != key[0] or thread not in alive:
                gone = self._sessions.pop((pid, thread), None)
                if gone is not None:
                    gone.close()
        session = requests.Session()
        session.trust_env = self.trust_env
        adapter = _Adapter(pool_connections=1, pool_maxsize=1)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        self._sessions[key] = session
        return session


_stand_in: requests.Session | None = None


@contextmanager
def stand_in(session: requests.Session) -> Iterator[None]:
    """Let a session stand in for every server, in all threads of this process: what the testing kit's fake does.

    Its adapters get each request as it would go over the wire, and all that is done with an answer is done with theirs.

    Args:
        session: Its adapters answer, for ``http://`` and ``https://``. They must not hang: nothing here stops them.
    """
    global _stand_in  # noqa: PLW0603 - the one place where it is set
    before, _stand_in = _stand_in, session
    try:
        yield
    finally:
        _stand_in = before


def is_stood_in() -> bool:
    """Tell whether a session stands in for the servers now: then nothing may go around it."""
    return _stand_in is not None


# ------------------------------------------------------------------------------------------------ errors


class _StaleConnection(OutcomeUnknown):
    """A kept-alive connection was dead: the server hung up before a byte of an answer. Never leaves this module."""


def broken(
    error: Exception, request: Request, address: str, seconds: float, clock: Clock, *, answered: bool
) -> RequestError:
    """Return what it means that no whole answer came.

    Args:
        error: What was raised, by whichever library.
        request: What was asked.
        address: Where, for the message.
        seconds: How long it was allowed to take.
        clock: How far it had come.
        answered: The answer had begun.
    """
    timed_out = clock.timed_out or isinstance(error, requests.Timeout)
    reason = _reason(error)
    for link in _chain(error):
        if isinstance(link, requests.RequestException):
            # It stays with the error as its cause, and the request's headers hold the token.
            link.request = link.response = None
    about = request.about
    if any(isinstance(link, requests.exceptions.SSLError | ssl.SSLError) for link in _chain(error)) and not clock.sent:
        return no_tls(about, address, reason)
    if isinstance(error, requests.exceptions.InvalidURL) or (isinstance(error, OSError) and "CA certificate" in reason):
        return Misconfigured(f"Nothing was sent: {reason}. Check the settings.", target=about)
    if not answered and not clock.sent and _is_before_sending(error, clock):
        return nothing_sent(about, address, reason)
    if timed_out:
        return too_late(request, seconds)
    if not answered and not clock.connects and _is_hang_up(error):
        return _StaleConnection(f"The connection was dead ({reason}). What was sent may have run.", target=about)
    return broke(request, reason)


def no_tls(about: str, address: str, reason: str) -> Misconfigured:
    """Return the error for a TLS connection that did not come about."""
    return Misconfigured(
        f"Nothing was sent: no TLS connection came about with {address} ({reason}). Check the URL, and the CA bundle.",
        target=about,
    )


def nothing_sent(about: str, address: str, reason: str) -> Unavailable:
    """Return the error for a connection that did not come about."""
    return Unavailable(
        f"Nothing was sent: no connection came about with {address} ({reason}). Is the server running, and the URL "
        "right?",
        target=about,
    )


def too_late(request: Request, seconds: float) -> RequestTimeout:
    """Return the error for an answer that was not whole in time."""
    advice = "What was sent may have run." if request.runs else "Reading changes nothing: try again, or wait longer."
    timeout = RequestTimeout(f"No whole answer came within {seconds:g} s. {advice}", target=request.about)
    timeout.may_have_run = request.runs
    return timeout


def broke(request: Request, reason: str) -> OutcomeUnknown | Unavailable:
    """Return the error for a connection that broke after something was sent."""
    if request.runs:
        return OutcomeUnknown(f"The connection broke ({reason}). What was sent may have run.", target=request.about)
    return Unavailable(f"The connection broke ({reason}). Reading changes nothing: try again.", target=request.about)


def too_large(
    request: Request, limit: int, status: int, headers: Mapping[str, str], announced: int | None = None
) -> ResponseTooLarge:
    """Return the error for a body that is over the limit.

    Args:
        request: What was asked.
        limit: The most bytes that are read.
        status: The answer's status.
        headers: The answer's headers.
        announced: How many bytes it said it has, where that is a number above the limit.
    """
    error = ResponseTooLarge(
        f"The answer is over the limit of {limit} bytes and was not read to its end.",
        status=status,
        target=request.about,
    )
    error.may_have_run = request.runs
    error.size = announced or limit + 1
    if status == 200 and "x-restate-error-source" not in headers:
        error.invocation_id = headers.get("x-restate-id")
    return error


def honest(error: RequestError, request: Request, *, may_have_run: bool) -> RequestError:
    """Return an error that is true of all attempts together, and of a class that may leave this module."""
    if isinstance(error, _StaleConnection):
        kind = OutcomeUnknown if request.runs else Unavailable
        return kind(error.message, target=error.target)
    if may_have_run and not error.may_have_run and not isinstance(error, WorkflowKeyRefused):
        return OutcomeUnknown(
            f"An attempt before the last may have run. The last one: {error.message}",
            status=error.status,
            code=error.code,
            target=error.target,
        )
    return error


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error with all that it wraps, outermost first (``requests`` and ``urllib3`` wrap in three ways)."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
    return found


def _is_before_sending(error: Exception, clock: Clock) -> bool:
    """Tell whether an error came before anything was sent: on a new connection, or for want of one."""
    early = (
        requests.exceptions.ProxyError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        requests.ConnectTimeout,
        socket.gaierror,
        ConnectionRefusedError,
    )
    return clock.connects or any(isinstance(link, early) for link in _chain(error)) or clock.timed_out


def _is_hang_up(error: Exception) -> bool:
    return any(
        isinstance(link, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)) for link in _chain(error)
    )


def _reason(error: Exception) -> str:
    """Return the innermost cause in a few words. No header, and so no token, is ever in one."""
    innermost = _chain(error)[-1]
    words = getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__
    return one_line(str(words))


def announced(length: str | None) -> float | None:
    """Return the length that an answer says it has: None for none said, infinity for one that no body has."""
    if length is None:
        return None
    # The same header twice is one, joined by a comma.
    said = {part.strip() for part in length.split(",")}
    number = said.pop()
    # str.isdigit() is true of "²" as well, and int() gives up on some thousands of digits.
    if said or not _DIGITS.fullmatch(number):
        raise urllib3.exceptions.ProtocolError("the answer's Content-Length is no number")
    return int(number) if len(number) <= _MOST_DIGITS else float("inf")


def measured(request: Request, seconds: float, status: int | None) -> None:
    """Report a request that was made, to whoever measures.

    Args:
        request: The request.
        seconds: How long it took.
        status: The status of its answer, None where no whole one came.
    """
    if measuring.is_on():
        measuring.add(measuring.HTTP, seconds, kind=request.kind, status=str(status or "none"))


def has_body(status: int) -> bool:
    """Tell whether an answer of this status has a body at all (a handler can fail with any of them)."""
    return status >= 200 and status not in {204, 304}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or as a date, None for none."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


# ------------------------------------------------------------------------------------------------ settings


def checked_seconds(name: str, value: Any, *, or_none: bool = False) -> float:
    """Check a number of seconds, or a timedelta: finite and above zero.

    Args:
        name: What it is, for the message.
        value: What was given.
        or_none: No time at all is fine too.

    Raises:
        InvalidRequest: It is not.
    """
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if is_number and (0 < seconds < float("inf") or (or_none and seconds == 0)):
        return float(seconds)
    least = "of zero or more" if or_none else "above zero"
    raise InvalidRequest(f"The {name} {value!r} must be a number of seconds {least}.")


def _checked_url(url: Any) -> str:
    fault = url_fault(url)
    if fault is not None:
        raise InvalidRequest(f"The URL {fault}.")
    return str(url).rstrip("/")


def _address(url: str) -> str:
    """Return a checked URL's host and port for a message. It holds no user and no password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _secrets(headers: Mapping[str, str], token: str | None) -> tuple[str, ...]:
    """Return what no error may show: the token, and the values of the connection's headers. The longest come first."""
    values = [value for name, value in headers.items() if name.lower() not in {"user-agent", "accept-encoding"}]
    words = {word for value in (token or "", *values) if isinstance(value, str) for word in (value, *value.split())}
    return tuple(sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True))


def _checked_token(token: Any, headers: Mapping[str, str]) -> str:
    fault = token_fault(token)
    if fault is not None:
        raise InvalidRequest(f"The token {fault}.")
    if "authorization" in headers:
        raise InvalidRequest("Give a token or an Authorization header, not both.")
    return str(token)
