"""Spans: one for each send, call, attempt to deliver, batch of them, and batch of a poll.

A ``send`` makes the message (``create``, in the words of the conventions), and its context is what the invocation
carries: the attempts to deliver it continue that trace from whichever process they are made, and so do the handler and
Restate itself. Batches belong to no sender's trace, and link to those of their messages.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from restate_django import __version__
from restate_django.conf import get_settings
from restate_django.measuring import Doing, Kind, Listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from restate_django.measuring import Work
    from restate_django.models import Invocation

#: What each work is in the conventions for messaging: the type of the operation, and the kind of the span.
_AS_MESSAGING: Final = {
    Kind.SEND: ("create", SpanKind.PRODUCER),
    Kind.CALL: ("send", SpanKind.CLIENT),
    Kind.DELIVER: ("send", SpanKind.CLIENT),
    Kind.POLL: ("receive", SpanKind.CLIENT),
}
# A span keeps no more by default.
_MOST_LINKS: Final = 128


class _Span(Doing):
    """The span of a piece of work."""

    def __init__(self, work: Work, span: Span) -> None:
        self._work = work
        self._span = span
        self._told = len(work.rows)
        # A call's and a poll's span may end in another thread than it began in: that one is nobody's current span.
        is_current = work.kind in {Kind.SEND, Kind.DELIVER}
        self._token = context.attach(trace.set_span_in_context(span)) if is_current else None

    def headers(self) -> Mapping[str, str]:
        """Return the headers of its trace."""
        return _injected(trace.set_span_in_context(self._span))

    def end(self, error: BaseException | None) -> None:
        """End the span."""
        if self._token is not None:
            context.detach(self._token)
        span, work = self._span, self._work
        if span.is_recording():
            if work.size is not None:
                span.set_attribute("messaging.batch.message_count", work.size)
                for link in _links(work.rows[self._told :]):
                    span.add_link(link.context)
            elif work.rows and work.rows[0].invocation_id:
                span.set_attribute("restate.invocation.id", work.rows[0].invocation_id)
            if error is not None and not isinstance(error, GeneratorExit):
                _set_error(span, error)
        span.end()


class Tracing(Listener):
    """Makes spans of the work.

    Args:
        tracer: What makes them; that of the project's provider by default.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        # A proxy: the provider that the project sets up later is the one that is used.
        self._tracer = tracer or trace.get_tracer("restate_django", __version__)

    def header_names(self) -> set[str]:
        """The names that the propagator writes."""
        return {name.lower() for name in propagate.get_global_textmap().fields}

    def begin(self, work: Work) -> Doing:
        """Begin a span. Work of the caller's own thread makes it the current one."""
        operation, kind = _AS_MESSAGING[work.kind]
        attributes = _attributes(work.kind, operation, work.connection)
        name: str = work.kind
        links: list[Link] = []
        if work.size is None:
            row = work.rows[0]
            name = f"{work.kind} {row.service}/{row.handler}"
            attributes |= _of_message(row)
        elif work.kind is not Kind.SEND:
            links = list(_links(work.rows))
        return _Span(work, self._tracer.start_span(name, kind=kind, attributes=attributes, links=links))

    def delivered(self, row: Invocation, seconds: float, error: Exception | None) -> None:
        """Make the span of an attempt. It belongs to the trace of the ``send``, from whichever process that was."""
        ended = time.time_ns()
        batch = trace.get_current_span().get_span_context()
        parent = _extracted(row)
        operation, kind = _AS_MESSAGING[Kind.DELIVER]
        span = self._tracer.start_span(
            f"{Kind.DELIVER} {row.service}/{row.handler}",
            context=parent,
            kind=kind,
            attributes={
                **_attributes(Kind.DELIVER, operation, row.connection),
                **_of_message(row),
                "restate_django.attempt": row.attempts,
            },
            links=[Link(batch)] if batch.is_valid and parent is not None else [],
            start_time=ended - int(seconds * 1e9),
        )
        if error is not None:
            _set_error(span, error)
        span.end(ended)


listener: Final = Tracing()


def _attributes(kind: Kind, operation: str, connection: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "restate",
        "messaging.operation.name": kind.value,
        "messaging.operation.type": operation,
        "restate_django.connection": connection,
    }
    if kind is not Kind.SEND:
        settings = get_settings(connection)
        url = settings.admin_url if kind is Kind.POLL and settings.admin_url else settings.ingress_url
        attributes |= _server(url)
    return attributes


@functools.cache
def _server(url: str) -> dict[str, AttributeValue]:
    parts = urlsplit(url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _of_message(row: Invocation) -> dict[str, AttributeValue]:
    """The attributes of one invocation. Its key is left out: it may name a person."""
    return {"messaging.destination.name": f"{row.service}/{row.handler}", "messaging.message.id": str(row.pk)}


def _set_error(span: Span, error: BaseException) -> None:
    # Its words may be a handler's, and hold anything.
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _injected(of: Context) -> dict[str, str]:
    """Return the headers that name a context's span. Baggage stays here: a row and Restate keep what they are given."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, of)
    return {name: value for name, value in carrier.items() if name.lower() != "baggage"}


def _extracted(row: Invocation) -> Context | None:
    """Return the context that a row carries; None where it carries none."""
    if not row.headers:
        return None
    found = propagate.extract({name.lower(): value for name, value in row.headers.items()}, context.Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _links(rows: Iterable[Invocation]) -> Iterator[Link]:
    """Return links to the traces of rows."""
    seen: set[Any] = set()
    for row in rows:
        found = _extracted(row)
        if found is None:
            continue
        linked = trace.get_current_span(found).get_span_context()
        if linked.span_id in seen:
            continue
        seen.add(linked.span_id)
        yield Link(linked)
        if len(seen) >= _MOST_LINKS:
            return
