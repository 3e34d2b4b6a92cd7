"""The client of Restate's ingress: call and send, and read what became of it.

It needs no Django settings. It may import the rest of this package's client and the error tree. It promises that
whatever it sends arrives at the handler as it was given, or is refused before anything leaves.
"""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar

from restate_django.client import paths as path_rules
from restate_django.client.bulk import Bulk, holds_up_greenlets, is_installed
from restate_django.client.outcomes import EXPIRES_HEADER, Meaning, Outcome, classify, parse_time
from restate_django.client.paths import LIMIT_KEY_HEADER, PathStyle, ReadRequest, paths_for
from restate_django.client.payloads import NO_PAYLOAD, EncodedPayload, encode_payload
from restate_django.client.results import InvocationStage, Output, OutputState, SendReceipt
from restate_django.client.targets import (
    Target,
    arguments,
    validate_delay,
    validate_headers,
    validate_invocation_id,
    validate_target,
)
from restate_django.client.transport import (
    DEFAULT_MAX_RESPONSE_SIZE,
    DEFAULT_TIMEOUT,
    Answer,
    Request,
    Transport,
    checked_seconds,
    is_stood_in,
    retry_after,
)
from restate_django.client.words import one_line
from restate_django.exceptions import (
    InvalidRequest,
    InvocationFailed,
    Misconfigured,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    PathRefused,
    Refused,
    RequestError,
    RestateError,
    Unavailable,
    UnknownTarget,
    WorkflowAlreadyRun,
    WorkflowKeyRefused,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta

K = TypeVar("K")
T = TypeVar("T")

# Codes of failures whose answers have no body, and so no message.
_BODILESS = frozenset({101, 204, 205, 304})
_AWAKEABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, slots=True)
class Sending:
    """One invocation of a :meth:`IngressClient.send_many`.

    Attributes:
        target: What it goes to, checked already: :meth:`Target.idempotent`, or :meth:`Target.workflow` for a run.
        payload: As for :meth:`IngressClient.send`, as are the rest.
        delay: How long Restate waits before it runs.
        headers: Headers for the handler.
    """

    target: Target
    payload: Any = NO_PAYLOAD
    delay: timedelta | None = None
    headers: Mapping[str, str] | None = None


class _Unreadable(RequestError):
    """The invocation ended, it seems, in a failure whose code HTTP can't carry. Never leaves this module."""


_ERRORS: dict[Meaning, type[RequestError]] = {
    Meaning.REFUSED: Refused,
    Meaning.WORKFLOW_KEY_REFUSED: WorkflowKeyRefused,
    Meaning.PATH_REFUSED: PathRefused,
    Meaning.ALREADY_RUN: WorkflowAlreadyRun,
    Meaning.UNKNOWN_TARGET: UnknownTarget,
    Meaning.MISCONFIGURED: Misconfigured,
    Meaning.UNAVAILABLE: Unavailable,
    Meaning.NOT_FOUND: NotFound,
    Meaning.UNREADABLE: _Unreadable,
    Meaning.UNKNOWN: OutcomeUnknown,
}


class IngressClient:
    """A client of Restate's ingress, where handlers are called.

    It may be shared by threads, each of which gets a session of its own, and used as a context manager.

    Args:
        url: The ingress, such as ``http://localhost:8080``. A path prefix is kept.
        token: A bearer token (Restate Cloud, or a proxy). A self-hosted server stores it with each invocation.
        headers: Headers for each request.
        timeout: Seconds for a whole request by our own clock, retries included.
        connect_timeout: Seconds to connect. Default: what is left of ``timeout``.
        path_style: ``restate`` (servers from 1.7 on) or ``legacy``; ``detect_path_style`` asks the server which.
        trust_env: Take proxies and a CA bundle from the environment, as ``requests`` does.
        ca_bundle: A file or folder of certificates to verify the server by.
        max_response_size: The largest body that is read, in bytes.
        retries: How often a request that may be repeated (with an idempotency key, a workflow's run that says so, any
            read) is tried again after a network error, 408, 425, 429 or 5xx.

    Raises:
        InvalidRequest: One of them can't be used. (Here and below: before anything is sent.)
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        path_style: PathStyle = "restate",
        trust_env: bool = False,
        ca_bundle: str | os.PathLike[str] | None = None,
        max_response_size: int = DEFAULT_MAX_RESPONSE_SIZE,
        retries: int = 0,
    ) -> None:
        self._paths = paths_for(path_style)
        self.transport = Transport(
            url,
            token,
            headers=headers,
            timeout=timeout,
            connect_timeout=connect_timeout,
            trust_env=trust_env,
            ca_bundle=ca_bundle,
            max_response_size=max_response_size,
            retries=retries,
        )
        self._bulk = Bulk(self.transport)

    @property
    def url(self) -> str:
        """The ingress it talks to."""
        return self.transport.base_url

    @property
    def path_style(self) -> PathStyle:
        """The style of its paths."""
        return self._paths.style

    def __repr__(self) -> str:
        return f"<IngressClient: {self.url} ({self.path_style})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. It can be used again, and opens new ones then."""
        self.transport.close()
        self._bulk.close()

    # -------------------------------------------------------------------------------------------- submitting

    def send(
        self,
        service: Any,
        handler: Any = NO_PAYLOAD,
        payload: Any = NO_PAYLOAD,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        scope: str | None = None,
        limit_key: str | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> SendReceipt:
        """Hand an invocation to Restate and return its receipt. It runs whether or not we wait.

        Args:
            service: The service's name, the official SDK's object, a handler function of it, or a whole
                :class:`~restate_django.client.Target`, checked already (then no other part of the target is given).
            handler: The handler's name or function. After a handler function this is the payload: ``send(greet, x)``.
            payload: What the handler gets; see :func:`~restate_django.client.encode_payload`.
            key: The object's or workflow's key.
            delay: How long Restate waits before it runs, rounded up to milliseconds.
            idempotency_key: Under the same key, the same handler runs once. Not for a workflow's main handler.
            headers: Headers for the handler.
            content_type: What the payload is.
            scope: The scope it runs in (1.7 with scopes switched on).
            limit_key: Where it counts within the scope's limits.
            timeout: Seconds for this request, in place of the client's.
            repeatable: Sending twice does the same as once. Default: there is an idempotency key. Say True for a
                workflow's main handler, whose key does the same.

        Raises:
            InvalidRequest: A value that could never be served.
            NotSupported: A scope with the old paths.
            Refused: The server refuses this request for good. ``WorkflowKeyRefused``: for its idempotency key;
                ``PathRefused``: for its key, or the lack of one.
            Unavailable: Nothing ran, and later it may. ``Misconfigured``: a setting is wrong. ``UnknownTarget``: no
                such service or handler is registered.
            OutcomeUnknown: It may have been accepted. ``RequestTimeout``: no answer came in time.
            ResponseTooLarge: The answer is over the limit; it may have been accepted.
        """
        if delay is not None:
            validate_delay(delay)
        service, handler, payload = arguments(service, handler, payload)
        target = _target(service, handler, key, scope, limit_key, idempotency_key)
        request = self._submit("send", target, delay, payload, content_type, headers, timeout, repeatable)
        return self.transport.exchange(request, partial(_receipt, request, target.service))

    @property
    def sends_in_bulk(self) -> bool:
        """Whether :meth:`send_many` and :meth:`output_many` can be used.

        With the extra ``bulk``, without a proxy, and not where threads are greenlets (a gevent worker).
        """
        return is_installed() and not self.transport.has_proxy and not is_stood_in() and not holds_up_greenlets()

    def send_many(
        self, sends: Iterable[tuple[K, Sending]], *, concurrency: int = 8, timeout: float | None = None
    ) -> Iterator[tuple[K, SendReceipt | RestateError, float]]:
        """Hand many invocations to Restate by one thread, some at a time, several times as fast as one by one.

        libcurl sends a request again by itself when a kept-alive connection was dead: give only what Restate recognises
        (with an idempotency key, or to a workflow's main handler). Nothing else is tried twice.

        Args:
            sends: What to send, each with a name for it. An iterator is read when a request can leave.
            concurrency: Requests under way at most.
            timeout: Seconds for each of them, in place of the client's.

        Yields:
            The name, the receipt or the error that :meth:`send` would raise, and the seconds that it took, in the order
            in which the answers come.

        Raises:
            NotSupported: libcurl is not installed or would hold up greenlets, or a proxy is in between.
        """

        def job(send: Sending) -> tuple[Request, Callable[[Answer], SendReceipt]]:
            if send.delay is not None:
                validate_delay(send.delay)
            request = self._submit(
                "send", send.target, send.delay, send.payload, None, send.headers, timeout, repeatable=True
            )
            return request, partial(_receipt, request, send.target.service)

        return self._many(sends, job, concurrency)

    def output_many(
        self, invocation_ids: Iterable[tuple[K, str]], *, concurrency: int = 8, timeout: float | None = None
    ) -> Iterator[tuple[K, Output | RestateError, float]]:
        """Read many outputs by one thread, some at a time, as :meth:`output` reads one.

        A failure whose code leaves no room for its words comes without them, or as ``Unavailable``: read that one by
        :meth:`output`.

        Args:
            invocation_ids: The invocations, each with a name for it. An iterator is read when a request can leave.
            concurrency: Requests under way at most.
            timeout: Seconds for each of them, in place of the client's.

        Yields:
            The name, the output or the error that :meth:`output` would raise, and the seconds that it took, in the
            order in which the answers come.

        Raises:
            NotSupported: libcurl is not installed, or a proxy is in between.
        """

        def job(invocation_id: str) -> tuple[Request, Callable[[Answer], Output]]:
            request = self._reading("output", invocation_id, None, timeout)

            def interpret(answer: Answer) -> Output:
                outcome = classify("output", answer.status, answer.headers, answer.body)
                try:
                    return _output(outcome, request, answer, invocation_id)
                except _Unreadable as unreadable:
                    raise Unavailable(unreadable.message, status=unreadable.status, target=request.about) from None

            return request, interpret

        return self._many(invocation_ids, job, concurrency)

    def _many(
        self,
        items: Iterable[tuple[K, Any]],
        job: Callable[[Any], tuple[Request, Callable[[Answer], T]]],
        concurrency: int,
    ) -> Iterator[tuple[K, T | RestateError, float]]:
        if not self.sends_in_bulk:
            raise NotSupported(
                "Many requests at once take libcurl: pip install 'restate-django[bulk]', no proxy in between, and "
                "threads that are no greenlets."
            )
        unfit: list[tuple[K, RestateError, float]] = []

        def jobs() -> Iterator[tuple[K, Request, Callable[[Answer], T]]]:
            for name, item in items:
                try:
                    request, interpret = job(item)
                except RestateError as error:
                    unfit.append((name, error, 0.0))
                else:
                    yield name, request, interpret

        return self._with_unfit(jobs(), unfit, concurrency)

    def _with_unfit(
        self,
        jobs: Iterator[tuple[K, Request, Callable[[Answer], T]]],
        unfit: list[tuple[K, RestateError, float]],
        concurrency: int,
    ) -> Iterator[tuple[K, T | RestateError, float]]:
        yield from self._bulk.exchange(jobs, concurrency=concurrency)
        # What could not even be asked has waited for those that could.
        yield from unfit

    def call(
        self,
        service: Any,
        handler: Any = NO_PAYLOAD,
        payload: Any = NO_PAYLOAD,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        scope: str | None = None,
        limit_key: str | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Output:
        """Call a handler, wait for it and return its output.

        Args:
            service: As for :meth:`send`, as are the rest.
            handler: The handler's name or function.
            payload: What the handler gets.
            key: The object's or workflow's key.
            idempotency_key: Under the same key, the same handler runs once, and a second call waits for its output.
            headers: Headers for the handler.
            content_type: What the payload is.
            scope: The scope it runs in.
            limit_key: Where it counts within the scope's limits.
            timeout: Seconds to wait, in place of the client's.
            repeatable: Calling twice does the same as once.

        Returns:
            An output that is ready or failed; ``.result()`` gives the value, or raises the failure.

        Raises:
            WorkflowAlreadyRun: The workflow ran before: attach to it.
            RestateError: The rest as :meth:`send` does. A ``RequestTimeout`` leaves the invocation running.
        """
        service, handler, payload = arguments(service, handler, payload)
        target = _target(service, handler, key, scope, limit_key, idempotency_key)
        request = self._submit("call", target, None, payload, content_type, headers, timeout, repeatable)
        deadline = self._deadline(timeout)
        try:
            output = self.transport.exchange(request, _call_reader(request, target))
        except _Unreadable as unreadable:
            return self._read_unreadable(target, unreadable, _left(deadline))
        return self._with_words(output, None, None, deadline)

    async def acall(
        self,
        service: Any,
        handler: Any = NO_PAYLOAD,
        payload: Any = NO_PAYLOAD,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        scope: str | None = None,
        limit_key: str | None = None,
        timeout: float | None = None,
    ) -> Output:
        """Do what :meth:`call` does, from a coroutine and once: nothing is tried again, and no thread waits.

        Raises:
            NotSupported: httpx is not installed (the extra ``async``).
            RestateError: The rest as :meth:`call` does.
        """
        import asyncio

        from restate_django.client import async_transport

        service, handler, payload = arguments(service, handler, payload)
        target = _target(service, handler, key, scope, limit_key, idempotency_key)
        request = self._submit("call", target, None, payload, content_type, headers, timeout, None)
        deadline = self._deadline(timeout)
        try:
            output = await async_transport.exchange(self.transport, request, _call_reader(request, target))
        except _Unreadable as unreadable:
            return await asyncio.to_thread(self._read_unreadable, target, unreadable, _left(deadline))
        return await asyncio.to_thread(self._with_words, output, None, None, deadline)

    def _read_unreadable(self, target: Target, unreadable: _Unreadable, timeout: float) -> Output:
        """Read the failure of a call whose answer could not carry it, where its key leads to it."""
        unknown = OutcomeUnknown(unreadable.message, status=unreadable.status, target=target.unkeyed)
        if target.idempotency_key is None:
            raise unknown
        try:
            output = self.output(target=target, timeout=timeout)
        except RestateError:
            raise unknown from None
        if output.state not in {OutputState.READY, OutputState.FAILED}:
            raise unknown
        return output

    def submit_or_attach(
        self,
        workflow: Any,
        key: str,
        payload: Any = NO_PAYLOAD,
        *,
        handler: Any = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        scope: str | None = None,
        limit_key: str | None = None,
        timeout: float | None = None,
    ) -> Output:
        """Run a workflow, or attach to its run if it was sent before, and return its output.

        Args:
            workflow: The workflow's name, or the official SDK's object.
            key: The workflow's key.
            payload: What its run gets, if this is the first.
            handler: Its main handler's name; ``run`` if none is told.
            headers: Headers for the handler.
            content_type: What the payload is.
            scope: The scope it runs in.
            limit_key: Where it counts within the scope's limits.
            timeout: Seconds for all of it.

        Raises:
            OutcomeUnknown: It was accepted, and reading its output failed; attach later.
            RestateError: The rest as :meth:`send` and :meth:`attach` do.
        """
        deadline = self._deadline(timeout)
        target = Target.workflow(workflow, key, scope=scope, handler=handler)
        receipt = self.send(
            target.service,
            target.handler,
            payload,
            key=key,
            headers=headers,
            content_type=content_type,
            scope=scope,
            limit_key=limit_key,
            timeout=timeout,
            repeatable=True,
        )
        try:
            return self.attach(receipt.invocation_id, timeout=_left(deadline))
        except RequestError as error:
            if isinstance(error, OutcomeUnknown):
                error.may_have_run = True
                raise
            raise OutcomeUnknown(
                f"It was accepted as {receipt.invocation_id}, and its output could not be read: {error.message}",
                status=error.status,
                target=str(target),
            ) from error

    # -------------------------------------------------------------------------------------------- reading

    def attach(
        self, invocation_id: str | None = None, *, target: Target | None = None, timeout: float | None = None
    ) -> Output:
        """Wait for an invocation to end and return its output.

        Args:
            invocation_id: The invocation.
            target: What it was sent to, in place of its id: :meth:`Target.idempotent` or :meth:`Target.workflow`.
            timeout: Seconds to wait, in place of the client's. The server waits without limit.

        Returns:
            An output that is ready or failed, or unknown to the server.

        Raises:
            RequestTimeout: It has not ended within the time.
            NotSupported: The old paths can't carry the target.
            RestateError: The rest as :meth:`output` does.
        """
        deadline = self._deadline(timeout)
        while True:
            found = self._output("attach", invocation_id, target, _left(deadline))
            if found.state is not OutputState.UNKNOWN:
                return found
            # Attach says "not found" as if the handler had; only output tells the two apart (measured on 1.7.12).
            confirmed = self._output("output", invocation_id, target, _left(deadline))
            if confirmed.state is not OutputState.NOT_READY:
                return confirmed

    @property
    def can_wait(self) -> bool:
        """Whether :meth:`aattach` and :meth:`acall` work: httpx is installed, and no SOCKS proxy is between."""
        # A script that waits for nothing need not load what waits.
        from restate_django.client import async_transport

        return async_transport.can_wait(self.transport)

    async def aattach(
        self, invocation_id: str | None = None, *, target: Target | None = None, timeout: float | None = None
    ) -> Output:
        """Do what :meth:`attach` does, from a coroutine: no thread waits.

        Raises:
            NotSupported: httpx is not installed (the extra ``async``).
            RestateError: The rest as :meth:`attach` does.
        """
        import asyncio

        from restate_django.client import async_transport

        deadline = self._deadline(timeout)
        while True:
            request = self._reading("attach", invocation_id, target, _left(deadline))
            cut: Unavailable | None = None
            try:
                found = await async_transport.exchange(
                    self.transport, request, _output_reader("attach", request, invocation_id)
                )
                if found.state is OutputState.READY or (found.failure is not None and found.failure.message):
                    return found
            except _Unreadable:
                pass
            except Unavailable as error:
                # httpx takes an answer of 101 (a handler may fail with it) for a broken connection.
                cut = error
            # What has ended, or is not known, is told at once: that takes a thread for no longer than any other read.
            told = await asyncio.to_thread(self.output, invocation_id, target=target, timeout=_left(deadline))
            if told.state is not OutputState.NOT_READY:
                return told
            if cut is not None:
                raise cut

    def output(
        self, invocation_id: str | None = None, *, target: Target | None = None, timeout: float | None = None
    ) -> Output:
        """Return an invocation's output as it stands, without waiting for it.

        Args:
            invocation_id: The invocation.
            target: What it was sent to, in place of its id: :meth:`Target.idempotent` or :meth:`Target.workflow`.
            timeout: Seconds for this request, in place of the client's.

        Returns:
            An output that is ready, not ready, failed or unknown to the server.

        Raises:
            NotSupported: The old paths can't carry the target.
            Refused: The server does not take the id.
            Unavailable: It can't be told now. ``Misconfigured``: a setting is wrong.
            OutcomeUnknown: The answer says nothing that is known. ``RequestTimeout``: none came in time.
            ResponseTooLarge: The output is over the limit.
        """
        return self._output("output", invocation_id, target, timeout)

    def status(
        self, invocation_id: str | None = None, *, target: Target | None = None, timeout: float | None = None
    ) -> InvocationStage:
        """Return how far an invocation has come (servers from 1.7.9 on).

        Args:
            invocation_id: The invocation.
            target: What it was sent to, in place of its id.
            timeout: Seconds for this request, in place of the client's.

        Raises:
            NotSupported: The server, or the path style, has no status.
            NotFound: Restate does not know the invocation.
            RestateError: The rest as :meth:`output` does.
        """
        request = self._reading("status", invocation_id, target, timeout)

        def interpret(answer: Answer) -> InvocationStage:
            outcome = classify("status", answer.status, answer.headers, answer.body)
            if outcome.meaning is not Meaning.READY:
                _raise(outcome, request, answer)
            return InvocationStage(
                outcome.data["stage"], _stage_error(outcome.data), outcome.invocation_id or invocation_id
            )

        return self.transport.exchange(request, interpret)

    def lookup(self, target: Target, *, timeout: float | None = None) -> str:
        """Return the invocation id that a target has, or would have: it proves nothing about its existence.

        Args:
            target: :meth:`Target.idempotent` or :meth:`Target.workflow`.
            timeout: Seconds for this request, in place of the client's.

        Raises:
            NotSupported: The server, or the path style, has no lookup.
            RestateError: The rest as :meth:`output` does.
        """
        request = self._reading("lookup", None, target, timeout)

        def interpret(answer: Answer) -> str:
            outcome = classify("lookup", answer.status, answer.headers, answer.body)
            if outcome.meaning is not Meaning.READY:
                _raise(outcome, request, answer)
            return str(outcome.data["invocationId"])

        return self.transport.exchange(request, interpret)

    def health(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of the services that the ingress serves: it is up, and this is what it knows.

        Args:
            timeout: Seconds for this request, in place of the client's.

        Raises:
            RestateError: As :meth:`output` does.
        """
        request = Request("GET", path_rules.HEALTH, about="the ingress", kind="health", timeout=timeout)

        def interpret(answer: Answer) -> list[str]:
            outcome = classify("health", answer.status, answer.headers, answer.body)
            if outcome.meaning is not Meaning.READY:
                _raise(outcome, request, answer)
            return [str(name) for name in outcome.data["services"]]

        return self.transport.exchange(request, interpret)

    # -------------------------------------------------------------------------------------------- awakeables

    def resolve_awakeable(
        self,
        awakeable_id: str,
        payload: Any = NO_PAYLOAD,
        *,
        content_type: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Complete an awakeable that a handler waits for.

        Args:
            awakeable_id: The id that the handler made.
            payload: What the handler gets; see :func:`~restate_django.client.encode_payload`.
            content_type: What the payload is.
            timeout: Seconds for this request, in place of the client's.

        Raises:
            Refused: It is no awakeable's id. One that has the form of one is accepted, whether or not a handler waits.
            OutcomeUnknown: It may have been completed.
            RestateError: The rest as :meth:`send` does.
        """
        self._complete(awakeable_id, "resolve", encode_payload(payload, content_type), timeout)

    def reject_awakeable(self, awakeable_id: str, reason: str, *, timeout: float | None = None) -> None:
        """Complete an awakeable with a failure: the handler that waits gets a terminal error.

        Args:
            awakeable_id: The id that the handler made.
            reason: The failure's message.
            timeout: Seconds for this request, in place of the client's.

        Raises:
            RestateError: As :meth:`resolve_awakeable` does.
        """
        self._complete(awakeable_id, "reject", encode_payload(reason, "text/plain"), timeout)

    def _complete(
        self, awakeable_id: str, what: Literal["resolve", "reject"], payload: EncodedPayload, timeout: float | None
    ) -> None:
        if not isinstance(awakeable_id, str) or not _AWAKEABLE_ID.fullmatch(awakeable_id):
            raise InvalidRequest(f"{awakeable_id!a} is no awakeable's id: one is letters, digits, '_' and '-'.")
        request = Request(
            "POST",
            path_rules.awakeable(awakeable_id, what),
            payload.body,
            {"Content-Type": payload.content_type} if payload.content_type else {},
            about=f"the awakeable {awakeable_id}",
            kind="awakeable",
            runs=True,
            repeatable=False,
            timeout=timeout,
        )

        def interpret(answer: Answer) -> None:
            outcome = classify("awakeable", answer.status, answer.headers, answer.body)
            if outcome.meaning is not Meaning.DONE:
                _raise(outcome, request, answer)

        self.transport.exchange(request, interpret)

    # -------------------------------------------------------------------------------------------- requests

    def prepare_send(
        self,
        target: Target,
        payload: Any = NO_PAYLOAD,
        *,
        delay: timedelta | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> Request:
        """Return the request that :meth:`send` would make, without sending it."""
        return self._submit("send", target, delay, payload, content_type, headers, None, None)

    def _submit(
        self,
        verb: Literal["call", "send"],
        target: Target,
        delay: timedelta | None,
        payload: Any,
        content_type: str | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        repeatable: bool | None,
    ) -> Request:
        encoded = encode_payload(payload, content_type)
        sent = validate_headers(headers) if headers else {}
        if encoded.content_type:
            sent["Content-Type"] = encoded.content_type
        if target.idempotency_key is not None:
            sent["Idempotency-Key"] = target.idempotency_key
        if target.limit_key is not None:
            sent[LIMIT_KEY_HEADER] = target.limit_key
        return Request(
            "POST",
            self._paths.submit(verb, target, delay),
            encoded.body,
            sent,
            about=target.unkeyed,
            kind=verb,
            runs=True,
            repeatable=target.idempotency_key is not None if repeatable is None else repeatable,
            timeout=timeout,
        )

    def _reading(
        self, reading: path_rules.Reading, invocation_id: str | None, target: Target | None, timeout: float | None
    ) -> Request:
        if (invocation_id is None) is (target is None):
            raise InvalidRequest("Say which invocation: by its id or by its target, one of the two.")
        how: ReadRequest
        if target is not None:
            if not isinstance(target, Target):
                raise InvalidRequest(f"The target must be a Target, not {type(target).__name__}.")
            how, about = self._paths.by_target(reading, target), target.unkeyed
        else:
            about = validate_invocation_id(invocation_id)
            how = self._paths.by_id(reading, about)
        headers = {"Content-Type": "application/json"} if how.body is not None else {}
        return Request(how.method, how.path, how.body, headers, about=about, kind=reading, timeout=timeout)

    def _output(
        self,
        verb: Literal["attach", "output"],
        invocation_id: str | None,
        target: Target | None,
        timeout: float | None,
    ) -> Output:
        deadline = self._deadline(timeout)
        request = self._reading(verb, invocation_id, target, timeout)
        try:
            output = self.transport.exchange(request, _output_reader(verb, request, invocation_id))
        except _Unreadable as unreadable:
            # Without the server's status (before 1.7.9) the failure can be read by SQL alone.
            stage = self._stage(invocation_id, target, _left(deadline))
            if stage is None or stage.error is None:
                raise Unavailable(unreadable.message, status=unreadable.status, target=request.about) from None
            return Output(OutputState.FAILED, stage.invocation_id, failure=stage.error)
        return self._with_words(output, invocation_id, target, deadline)

    def _with_words(self, output: Output, invocation_id: str | None, target: Target | None, deadline: float) -> Output:
        """Give a failure its message where its code leaves no room for a body (101, 204, 304)."""
        failure = output.failure
        if failure is None or failure.message or failure.code not in _BODILESS:
            return output
        known = invocation_id or output.invocation_id
        if known is None and target is None:
            return output
        stage = self._stage(known, None if known else target, _left(deadline))
        if stage is None or stage.error is None:
            return output
        return dataclasses.replace(output, failure=stage.error)

    def _stage(self, invocation_id: str | None, target: Target | None, timeout: float) -> InvocationStage | None:
        try:
            return self.status(invocation_id, target=target, timeout=timeout)
        except (NotSupported, RequestError):
            return None

    def _deadline(self, timeout: float | None) -> float:
        seconds = self.transport.timeout if timeout is None else checked_seconds("timeout", timeout)
        return time.monotonic() + seconds


def _left(deadline: float) -> float:
    """Return the seconds to a deadline, at least a token: the request itself then says that the time is over."""
    return max(deadline - time.monotonic(), 0.001)


def _target(
    service: Any,
    handler: Any,
    key: str | None,
    scope: str | None,
    limit_key: str | None,
    idempotency_key: str | None,
) -> Target:
    if not isinstance(service, Target):
        return validate_target(
            service, handler, key=key, scope=scope, limit_key=limit_key, idempotency_key=idempotency_key
        )
    if not (handler is key is scope is limit_key is idempotency_key is None):
        raise InvalidRequest(f"The target {service} is whole: give no handler, key or scope beside it.")
    return service


def _receipt(request: Request, service: str, answer: Answer) -> SendReceipt:
    """Return the receipt of an accepted send, or raise."""
    outcome = classify("send", answer.status, answer.headers, answer.body, service=service)
    if outcome.meaning is not Meaning.ACCEPTED or outcome.invocation_id is None:
        _raise(outcome, request, answer)
    return SendReceipt(outcome.invocation_id, outcome.previously_accepted, outcome.execution_time, answer.resent)


def _call_reader(request: Request, target: Target) -> Callable[[Answer], Output]:
    """Return what reads a call's answer."""

    def interpret(answer: Answer) -> Output:
        outcome = classify("call", answer.status, answer.headers, answer.body, service=target.service)
        return _output(outcome, request, answer)

    return interpret


def _output_reader(
    verb: Literal["attach", "output"], request: Request, invocation_id: str | None
) -> Callable[[Answer], Output]:
    """Return what reads the answer of an attach or an output."""

    def interpret(answer: Answer) -> Output:
        outcome = classify(verb, answer.status, answer.headers, answer.body)
        return _output(outcome, request, answer, invocation_id)

    return interpret


def _output(outcome: Outcome, request: Request, answer: Answer, invocation_id: str | None = None) -> Output:
    """Return an output from an answer that has one, or raise."""
    found = outcome.invocation_id or invocation_id
    if invocation_id not in {None, found}:
        # A proxy that mixes answers up, say: nothing of it is this invocation's.
        error = OutcomeUnknown(
            f"The answer is about another invocation, {found}: nothing is taken from it. Does the URL lead to Restate "
            "itself?",
            status=outcome.status,
            target=request.about,
        )
        error.may_have_run = request.runs
        raise error
    if outcome.meaning is Meaning.READY:
        return Output(
            OutputState.READY,
            found,
            answer.body,
            answer.headers.get("content-type", ""),
            parse_time(answer.headers.get(EXPIRES_HEADER)),
        )
    if outcome.meaning is Meaning.FAILED:
        failure = InvocationFailed(
            outcome.code, outcome.message, outcome.metadata, status=answer.status, target=request.about
        )
        return Output(
            OutputState.FAILED,
            found,
            answer.body,
            answer.headers.get("content-type", ""),
            parse_time(answer.headers.get(EXPIRES_HEADER)),
            failure,
        )
    if outcome.meaning is Meaning.NOT_READY:
        return Output(OutputState.NOT_READY, found)
    if outcome.meaning is not Meaning.NOT_FOUND:
        _raise(outcome, request, answer)
    return Output(OutputState.UNKNOWN, found)


def _stage_error(data: Mapping[str, Any]) -> InvocationFailed | None:
    error = data.get("error")
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    return InvocationFailed(code if isinstance(code, int) else None, message if isinstance(message, str) else "")


def _raise(outcome: Outcome, request: Request, answer: Answer) -> NoReturn:
    """Raise what an outcome that is no result means."""
    message = describe(outcome)
    if outcome.meaning is Meaning.NOT_OFFERED:
        raise NotSupported(message, status=outcome.status, target=request.about)
    kind = _ERRORS.get(outcome.meaning, OutcomeUnknown)
    error = kind(message, status=outcome.status, code=outcome.code, target=request.about)
    error.retry_after = retry_after(answer.headers)
    if isinstance(error, OutcomeUnknown):
        error.may_have_run = request.runs
    if isinstance(error, WorkflowAlreadyRun):
        error.invocation_id = outcome.invocation_id
    raise error


def describe(outcome: Outcome) -> str:
    """Return an outcome as an error's message: what the server said, and what to do next."""
    said = "" if outcome.message[:1] == "<" else one_line(outcome.message)
    answer = f"The server answered {outcome.status}" + (f" ({said})" if said else "")
    return f"{answer}. {outcome.reason}"
