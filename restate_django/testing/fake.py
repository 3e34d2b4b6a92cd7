"""``FakeRestate``: tests of your own code without a Restate server, without Celery and without any network.

It stands in for the server below the client's transport, so everything above that is the real code: rows, delivery,
polling, operations, exceptions. It records what is sent and answers it as it was told. It may import the verbs.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import io
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

import requests
import urllib3
from django.test import TestCase, override_settings
from django.utils import timezone
from requests.adapters import BaseAdapter

from restate_django import polling, recording
from restate_django.client import NO_PAYLOAD, ServiceInfo, resolve_target
from restate_django.client.transport import stand_in
from restate_django.conf import all_settings
from restate_django.exceptions import InvalidRequest, InvocationFailed
from restate_django.models import Invocation
from restate_django.querysets import write_alias
from restate_django.testing.answers import Answers, encoded
from restate_django.testing.fake_server import Broken, FakeInvocation, FakeServer, Outcome, Reply
from restate_django.testing.sent import (
    ANY,
    Sent,
    databases_of_this_test,
    differences,
    line,
    listed,
    named,
    not_sent,
    not_there,
    row_of,
    sent_of,
    times_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

C = TypeVar("C")
R = TypeVar("R")

# The poll believes that an invocation is gone when it was told so twice, this far apart.
_BELIEVED: Final = recording.CONFIRM_AFTER + dt.timedelta(seconds=1)


class FakeRestate:
    """A Restate server for tests of your own code: a context manager, a decorator, and the fixture ``fake_restate``.

    As a decorator of a function it is handed over as the last positional argument; as one of a ``TestCase`` it is
    ``self.fake_restate`` in each test. While it is active, every request of this process to any Restate server is its
    to answer, every connection delivers after the commit (``"on_commit"``), and nothing leaves this machine.

    Args:
        services: What it serves: the official SDK's services, or :class:`~restate_django.client.ServiceInfo` records.
            Without any, it takes whatever is sent. With some, what they don't have is not found, and a key, a
            workflow's rules and handlers without input are checked as Restate checks them.

    Attributes:
        sent: What was sent and taken, in order.
    """

    def __init__(self, *services: Any) -> None:
        self._served: dict[str, ServiceInfo] = {info.name: info for info in map(_service_info, services)}
        self._answers: list[Answers] = []
        self._servers: dict[str, FakeServer] = {}
        self._offset = dt.timedelta()
        self._stack = ExitStack()
        #: Sets ``RESTATE`` for as long as the fake is active. The fixture sets it through pytest-django's ``settings``.
        self.override: Callable[[dict[str, dict[str, Any]]], Any] = lambda value: override_settings(RESTATE=value)

    def __repr__(self) -> str:
        return f"<FakeRestate: {len(self.sent)} sent>"

    # ------------------------------------------------------------ being active

    def __enter__(self) -> Self:
        """Take the place of every server."""
        self._stack.enter_context(self.override(_restate_settings()))
        session = requests.Session()
        session.mount("http://", _Wire(self))
        session.mount("https://", _Wire(self))
        self._stack.enter_context(stand_in(session))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back."""
        self._stack.close()

    @overload
    def __call__(self, decorated: type[C]) -> type[C]: ...

    @overload
    def __call__(self, decorated: Callable[..., R]) -> Callable[..., R]: ...

    def __call__(self, decorated: Any) -> Any:
        """Decorate a test function, or each test of a ``TestCase``. Each gets a fake of its own."""
        services = tuple(self._served.values())
        if isinstance(decorated, type):
            return _decorated_class(decorated, services)
        name, signature = _taken_apart(decorated)
        if inspect.iscoroutinefunction(decorated):

            @functools.wraps(decorated)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with FakeRestate(*services) as fake:
                    return await decorated(*args, **kwargs, **{name: fake})

            wrapper: Any = coroutine
        else:

            @functools.wraps(decorated)
            def function(*args: Any, **kwargs: Any) -> Any:
                with FakeRestate(*services) as fake:
                    return decorated(*args, **kwargs, **{name: fake})

            wrapper = function
        # pytest would look for a fixture of that name.
        wrapper.__signature__ = signature
        return wrapper

    # ------------------------------------------------------------ what it answers

    def on(self, service: Any, handler: Any = None, *, key: Any = ANY) -> Answers:
        """Say what a target answers. What is said last wins over what was said before.

        Args:
            service: A service's name, or the official SDK's object or handler, as for ``send``.
            handler: The handler; all of the service's where it is None.
            key: Only this object's or workflow's key.
        """
        if handler is None and isinstance(service, str):
            name, handler_name = service, None
        elif handler is None and hasattr(service, "service_tag"):
            name, handler_name = service.service_tag.name, None
        else:
            name, handler_name = resolve_target(service, handler)
        answers = Answers(name, handler_name, key)
        self._answers.insert(0, answers)
        return answers

    @property
    def now(self) -> dt.datetime:
        """The fake's clock: the real time, and what it was advanced by."""
        return timezone.now() + self._offset

    def advance(self, by: float | dt.timedelta) -> None:
        """Let time pass: what is scheduled starts, what takes time ends. The rows are up to date afterwards.

        Args:
            by: Seconds, or a timedelta.
        """
        self._offset += by if isinstance(by, dt.timedelta) else dt.timedelta(seconds=by)
        self.sweep()

    # ------------------------------------------------------------ what becomes of an invocation

    def finish(self, which: Any, output: Any = NO_PAYLOAD, *, content_type: str | None = None) -> Any:
        """End an invocation well.

        Args:
            which: Its row, what ``assert_sent`` returned, or Restate's id.
            output: The output; nothing at all for a handler without output.
            content_type: The output's type; JSON by default.

        Returns:
            Its row, up to date. (So do the methods below.)
        """
        outcome = encoded(output, content_type)
        return self._play(which, lambda invocation: invocation.end(outcome, self.now))

    def fail(self, which: Any, message: str, code: int = 500, *, metadata: Mapping[str, str] | None = None) -> Any:
        """End an invocation in its handler's terminal error.

        Args:
            which: As for :meth:`finish`.
            message: The error's message.
            code: The error's code.
            metadata: What the handler attached to it.
        """
        failure = InvocationFailed(code, message, dict(metadata or {}))
        return self._play(which, lambda invocation: invocation.end(failure, self.now))

    def cancel(self, which: Any) -> Any:
        """End an invocation as cancelled: somebody else did it, in Restate's own UI."""
        return self._play(which, lambda invocation: invocation.end(InvocationFailed(409, "cancelled"), self.now))

    def kill(self, which: Any) -> Any:
        """End an invocation as killed: somebody else did it, in Restate's own UI."""
        return self._play(which, lambda invocation: invocation.end(InvocationFailed(409, "killed"), self.now))

    def pause(self, which: Any, failure: str = "") -> Any:
        """Pause an invocation, as Restate does when its tries are used up, or as somebody does in its UI.

        Args:
            which: As for :meth:`finish`.
            failure: What its last try died of. A handler that breaks sees no cancellation before it runs again.
        """
        return self._play(which, lambda invocation: self._hold(invocation, "paused", pause_failure=failure))

    def back_off(self, which: Any, failure: str = "", *, retries: int = 1) -> Any:
        """Let an invocation wait for its next try.

        Args:
            which: As for :meth:`finish`.
            failure: What its last try died of.
            retries: How many tries there were after the first.
        """

        def play(invocation: FakeInvocation) -> None:
            self._hold(invocation, "backing-off", last_failure=failure, retry_count=retries + 1)

        return self._play(which, play)

    def suspend(self, which: Any) -> Any:
        """Let an invocation wait for a sleep, an awakeable or another invocation."""
        return self._play(which, lambda invocation: self._hold(invocation, "suspended"))

    def run(self, which: Any) -> Any:
        """Let an invocation run: one that is scheduled, paused, suspended or backs off."""
        return self._play(which, lambda invocation: self._server_of(invocation).go_on(invocation))

    def forget(self, which: Any) -> Any:
        """Let Restate forget an invocation: purged, or wiped with its data. An open row ends ``gone``."""
        row = self._play(which, lambda invocation: self._server_of(invocation).forget(invocation), ended_too=True)
        if row is not None and row.is_in_restate:
            # Believed only twice, some seconds apart. Nobody waits for them here.
            rows = Invocation.objects.using(write_alias(row)).filter(pk=row.pk, missing_since__isnull=False)
            rows.update(missing_since=timezone.now() - _BELIEVED)
            _refresh([row])
        return row

    def sweep(self) -> None:
        """Do what the periodic jobs would, now: send what is unsent, and ask about what is open."""
        for using in databases_of_this_test():
            _refresh(list(Invocation.objects.using(using).open()))

    # ------------------------------------------------------------ what was sent

    @property
    def sent(self) -> list[Sent]:
        """What was sent and taken, in order."""
        taken = [
            (invocation, alias)
            for url, server in self._servers.items()
            for invocation in server.taken
            if invocation.restarted_from is None
            for alias in [_alias_of(url)]
        ]
        taken.sort(key=lambda pair: pair[0].created_at)
        return [sent_of(invocation, alias) for invocation, alias in taken]

    def assert_sent(
        self,
        service: Any,
        handler: Any = None,
        payload: Any = ANY,
        *,
        key: Any = ANY,
        idempotency_key: Any = ANY,
        delay: Any = ANY,
        headers: Any = ANY,
        scope: Any = ANY,
        verb: Any = ANY,
        connection: Any = ANY,
        times: int | None = None,
    ) -> Sent:
        """Assert that something was sent, and return it: the last one that fits.

        Args:
            service: The service's name, or the official SDK's object or handler.
            handler: The handler.
            payload: What it was sent with, as you gave it; ``NO_PAYLOAD`` for none.
            key: The object's or workflow's key, None for a service.
            idempotency_key: The idempotency key.
            delay: The delay, a ``timedelta``, as it was sent; None for none.
            headers: The headers for the handler.
            scope: The scope, None for none.
            verb: ``send`` or ``call``.
            connection: The alias in ``RESTATE``.
            times: How many that fit there must be; one at least by default.

        Raises:
            AssertionError: Nothing like it was sent. The message says what was, and how it differs.
        """
        name, handler_name, payload = named(service, handler, payload)
        wanted = {
            "payload": payload,
            "key": key,
            "idempotency_key": idempotency_key,
            "delay": delay,
            "headers": headers,
            "scope": scope,
            "verb": verb,
            "connection": connection,
        }
        wanted = {attribute: value for attribute, value in wanted.items() if value is not ANY}
        sent = self.sent
        there = [each for each in sent if each.service == name and handler_name in {None, each.handler}]
        fitting = [each for each in there if not differences(each, wanted)]
        if fitting and times in {None, len(fitting)}:
            return fitting[-1]
        what = f"{name}/{handler_name}" if handler_name else name
        if fitting:
            raise AssertionError(
                f"{what} was sent {times_in_words(len(fitting))}, not {times_in_words(times or 0)}.\n{listed(sent)}"
            )
        raise AssertionError(not_sent(what, wanted, there, sent))

    def assert_not_sent(self, service: Any, handler: Any = None, payload: Any = ANY, *, key: Any = ANY) -> None:
        """Assert that nothing like it was sent.

        Args:
            service: As for :meth:`assert_sent`, as are the rest.
            handler: The handler.
            payload: The payload.
            key: The object's or workflow's key.

        Raises:
            AssertionError: It was.
        """
        name, handler_name, payload = named(service, handler, payload)
        wanted = {name: value for name, value in (("payload", payload), ("key", key)) if value is not ANY}
        for each in self.sent:
            if each.service == name and handler_name in {None, each.handler} and not differences(each, wanted):
                raise AssertionError(f"This was sent:\n  {line(each)}")

    def assert_nothing_sent(self) -> None:
        """Assert that nothing was sent at all.

        Raises:
            AssertionError: Something was. The message lists it.
        """
        if sent := self.sent:
            raise AssertionError(listed(sent))

    # ------------------------------------------------------------ how

    def answer(self, request: requests.PreparedRequest, seconds: float) -> Reply:
        """Answer a request as it would go over the wire.

        Args:
            request: The request.
            seconds: How long whoever asks waits.

        Raises:
            Broken: No answer comes.
        """
        url = str(request.url)
        home, path, admin = _home_of(url)
        body = request.body.encode() if isinstance(request.body, str) else request.body
        return self._server(home).answer(
            str(request.method),
            path,
            {str(name): str(value) for name, value in request.headers.items() if isinstance(value, str)},
            None if body is None else bytes(body),
            seconds,
            admin=admin,
        )

    def _server(self, url: str) -> FakeServer:
        if url not in self._servers:
            self._servers[url] = FakeServer(
                now=lambda: self.now,
                pass_time=self._pass_time,
                break_at=self._break_at,
                ending=self._ending,
                is_unknown=self._is_unknown,
                kind_of=self._kind_of,
                names=lambda: set(self._served),
            )
        return self._servers[url]

    def _pass_time(self, to: dt.datetime) -> None:
        self._offset += max(dt.timedelta(), to - self.now)

    def _answers_of(self, service: str, handler: str, key: str | None) -> Answers | None:
        return next((each for each in self._answers if each.fits(service, handler, key)), None)

    def _break_at(self, service: str, handler: str, key: str | None, *, taken: bool) -> Reply | None:
        answers = self._answers_of(service, handler, key)
        how = answers.broken(taken=taken) if answers is not None else None
        if how is None:
            return None
        if how == "busy":
            return Reply(429)
        raise Broken(how)

    def _ending(self, invocation: FakeInvocation) -> tuple[dt.datetime | None, Callable[[], Outcome] | None]:
        answers = self._answers_of(invocation.service, invocation.handler, invocation.key)
        after, outcome = answers.ending(invocation) if answers is not None else (None, None)
        if after is None:
            return None, None
        return (invocation.running_at or invocation.starts_at) + after, outcome

    def _is_unknown(self, service: str, handler: str, key: str | None) -> str:
        answers = self._answers_of(service, handler, key)
        if answers is not None and (part := answers.unknown_part()):
            return part
        if not self._served:
            return ""
        info = self._served.get(service)
        return "service" if info is None else "" if info.handler(handler) is not None else "handler"

    def _kind_of(self, service: str) -> tuple[str, Mapping[str, str | None], frozenset[str]] | None:
        info = self._served.get(service)
        if info is None:
            return None
        bare = frozenset(handler.name for handler in info.handlers if handler.takes_no_input)
        return info.ty, {handler.name: handler.ty for handler in info.handlers}, bare

    def _hold(self, invocation: FakeInvocation, status: str, **values: Any) -> None:
        invocation.start(self.now)
        invocation.status, invocation.held = status, True
        for name, value in values.items():
            setattr(invocation, name, value)

    def _server_of(self, invocation: FakeInvocation) -> FakeServer:
        return next(server for server in self._servers.values() if invocation in server.taken)

    def _play(self, which: Any, play: Callable[[FakeInvocation], None], *, ended_too: bool = False) -> Any:
        row = which if isinstance(which, Invocation) else None
        if row is not None and not row.invocation_id:
            row.refresh_from_db()
        invocation_id = str(getattr(which, "invocation_id", which))
        found = next(filter(None, (server.find(invocation_id) for server in self._servers.values())), None)
        if found is None:
            raise AssertionError(not_there(which, row, self.sent))
        if found.outcome is not None and not ended_too:
            raise AssertionError(f"{found.target} has ended already: {found.outcome!r}.")
        server = self._server_of(found)
        with server.lock:
            play(found)
        row = row if row is not None else row_of(invocation_id)
        if row is not None:
            _refresh([row])
        return row


# ---------------------------------------------------------------- the wire


class _Wire(BaseAdapter):
    """What takes the place of ``requests``' adapter, and so of sockets."""

    def __init__(self, fake: FakeRestate) -> None:
        super().__init__()
        self.fake = fake

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - requests' signature, as are the rest
        timeout: Any = None,
        verify: Any = True,  # noqa: ARG002 - requests' signature
        cert: Any = None,  # noqa: ARG002 - requests' signature
        proxies: Any = None,  # noqa: ARG002 - requests' signature
    ) -> requests.Response:
        """Answer, or break as the fake says."""
        seconds = timeout[1] if isinstance(timeout, tuple) else timeout
        try:
            reply = self.fake.answer(request, float(seconds or 0))
        except Broken as broken:
            raise _as_requests(broken.how) from None
        response = requests.Response()
        response.status_code = reply.status
        response.headers.update({**reply.headers, "content-length": str(len(reply.body))})
        response.raw = urllib3.HTTPResponse(
            body=io.BytesIO(reply.body), headers=dict(response.headers), status=reply.status, preload_content=False
        )
        response.request = request
        response.url = request.url or ""
        return response

    def close(self) -> None:
        """Nothing is open."""


def _as_requests(how: str) -> requests.RequestException:
    """Return what ``requests`` raises when a connection breaks like this."""
    if how == "refused":
        return requests.ConnectionError(ConnectionRefusedError("the fake refuses the connection"))
    if how == "timeout":
        return requests.ReadTimeout("the fake did not answer in time")
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("the fake broke the connection"))


def _restate_settings() -> dict[str, dict[str, Any]]:
    """Return ``RESTATE`` as it is, except that everything is sent after the commit, by the paths of Restate 1.7."""
    from django.conf import settings

    own = getattr(settings, "RESTATE", None) or {"default": {}}
    # A connection's HEADERS and TOKEN stay: they go to the fake alone.
    return {alias: {**entry, "DELIVERY": "on_commit", "PATH_STYLE": "restate"} for alias, entry in own.items()}


def _home_of(url: str) -> tuple[str, str, bool]:
    """Return the ingress of the server that a URL belongs to, the path below it, and whether it is its Admin API."""
    found: list[tuple[int, str, str, bool]] = []
    for settings in all_settings().values():
        bases = [(given or "").rstrip("/") for given in (settings.ingress_url, settings.admin_url)]
        for base, admin in zip(bases, (False, True), strict=True):
            if base and url.startswith(f"{base}/"):
                path = url[len(base) :]
                if bases[0] == bases[1]:
                    # A proxy leads to both: they have no path in common.
                    admin = not path.startswith("/restate/")  # noqa: PLW2901 - which of the two it was is not known
                found.append((len(base), settings.ingress_url, path, admin))
    if found:
        _length, home, path, admin = max(found)
        return home, path, admin
    # A client of its own, in a script.
    path = "/" + url.partition("://")[2].partition("/")[2]
    return "", path, not path.startswith("/restate/")


def _alias_of(ingress_url: str) -> str:
    return next((alias for alias, each in all_settings().items() if each.ingress_url == ingress_url), "")


# ---------------------------------------------------------------- rows


def _refresh(rows: list[Invocation]) -> None:
    """Bring rows up to date, and let their signals out in a ``TestCase`` too, whose transaction is never committed."""
    with ExitStack() as stack:
        for using in {write_alias(row) for row in rows}:
            stack.enter_context(TestCase.captureOnCommitCallbacks(using=using, execute=True))
        polling.refresh(rows)


# ---------------------------------------------------------------- services, outcomes, decorators


def _service_info(service: Any) -> ServiceInfo:
    """Return what a service is, from a record or from the official SDK's object."""
    if isinstance(service, ServiceInfo):
        return service
    tag = getattr(service, "service_tag", None)
    if tag is None:
        raise InvalidRequest(f"FakeRestate serves the SDK's services or ServiceInfo records, not {service!r}.")
    kinds = {"service": "Service", "object": "VirtualObject", "workflow": "Workflow"}
    handlers = [
        {
            "name": name,
            "ty": {"exclusive": "Exclusive", "shared": "Shared", "workflow": "Workflow"}.get(handler.kind or ""),
            "input_description": "none" if _takes_nothing(handler) else "any",
        }
        for name, handler in service.handlers.items()
    ]
    return ServiceInfo.from_json({"name": tag.name, "ty": kinds[tag.kind], "handlers": handlers})


def _takes_nothing(handler: Any) -> bool:
    hint = getattr(getattr(handler, "handler_io", None), "input_type", None)
    return bool(getattr(hint, "is_void", False))


def _taken_apart(decorated: Any) -> tuple[str, inspect.Signature]:
    """Return the name of a test's last positional argument, which is the fake, and its signature without it."""
    signature = inspect.signature(decorated)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    names = [each.name for each in signature.parameters.values() if each.kind in kinds and each.name != "self"]
    if not names:
        raise TypeError(f"{decorated.__qualname__} must take the fake: let it have one more argument.")
    kept = [each for each in signature.parameters.values() if each.name != names[-1]]
    return names[-1], signature.replace(parameters=kept)


def _decorated_class(decorated: type, services: tuple[Any, ...]) -> type:
    """Give each test of a ``TestCase`` a fake of its own, in ``self.fake_restate``."""
    own: Any = decorated
    before = own.setUp

    @functools.wraps(before)
    def set_up(self: Any) -> None:
        self.fake_restate = self.enterContext(FakeRestate(*services))
        before(self)

    own.setUp = set_up
    return decorated
