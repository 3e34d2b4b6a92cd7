"""Every path of a Restate server, in both styles, built here and nowhere else.

``restate`` is what servers from 1.7 on speak (``/restate/send/Greeter/greet``), ``legacy`` what those before it do
(``/Greeter/greet/send``). Each segment is percent-encoded. It imports the error tree and the targets; it sends nothing.
"""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args
from urllib.parse import quote, urlencode

from restate_django.exceptions import InvalidRequest, NotSupported

if TYPE_CHECKING:
    from restate_django.client.targets import Target

PathStyle = Literal["restate", "legacy"]
PATH_STYLES: tuple[str, ...] = get_args(PathStyle)

#: The header that carries a limit key (the query parameter ``limit-key`` says the same, and loses against it).
LIMIT_KEY_HEADER = "x-restate-limit-key"

HEALTH = "/restate/health"

_MILLISECOND = timedelta(milliseconds=1)
# What may stand in a path's segment as it is. The old paths give an idempotency key to the server undecoded, so a key
# with any other character would be looked up under another name.
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

Reading = Literal["attach", "output", "status", "lookup"]


class ReadRequest(NamedTuple):
    """How something is read: a method, a path and, with POST, a JSON body that names a target."""

    method: str
    path: str
    body: bytes | None = None


class Paths(Protocol):
    """One style of paths."""

    style: PathStyle

    def submit(self, verb: Literal["call", "send"], target: Target, delay: timedelta | None = None) -> str:
        """Return the path that calls a handler or sends to it."""

    def by_id(self, reading: Reading, invocation_id: str) -> ReadRequest:
        """Return how an invocation is read by its id."""

    def by_target(self, reading: Reading, target: Target) -> ReadRequest:
        """Return how an invocation is read by what it was sent to: an idempotency key, or a workflow's key."""


def paths_for(style: str) -> Paths:
    """Return the paths of a style.

    Raises:
        InvalidRequest: It is neither ``restate`` nor ``legacy``. (``auto`` is resolved where an Admin API is at hand.)
    """
    if style == "restate":
        return RestatePaths()
    if style == "legacy":
        return LegacyPaths()
    raise InvalidRequest(f"The path style {style!r} must be 'restate' (Restate 1.7 and later) or 'legacy'.")


def segment(value: str) -> str:
    """Return a value as one segment of a path: ``a/b cé`` as ``a%2Fb%20c%C3%A9``."""
    return quote(value, safe="")


def awakeable(awakeable_id: str, what: Literal["resolve", "reject"]) -> str:
    """Return the path that resolves or rejects an awakeable, the same in both styles."""
    return f"/restate/awakeables/{segment(awakeable_id)}/{what}"


def delay_query(delay: timedelta | None) -> str:
    """Return a delay as a query, empty for none.

    A unit is needed: a bare number is refused (measured on 1.6.2 and 1.7.12). Fractions of a millisecond round up.
    """
    if not delay:
        return ""
    return f"?delay={math.ceil(delay / _MILLISECOND)}ms"


def with_query(path: str, **parameters: Any) -> str:
    """Return a path with those query parameters that are not None (``from_`` is ``from``).

    Raises:
        InvalidRequest: One has a lone surrogate.
    """
    given = {
        name.rstrip("_"): str(value).lower() if isinstance(value, bool) else value
        for name, value in parameters.items()
        if value is not None
    }
    try:
        return f"{path}?{urlencode(given, quote_via=quote)}" if given else path
    except UnicodeEncodeError:
        raise InvalidRequest("An argument has a lone surrogate, which no encoding can send.") from None


def _handler_path(target: Target) -> str:
    service, handler = segment(target.service), segment(target.handler)
    return f"{service}/{handler}" if target.key is None else f"{service}/{segment(target.key)}/{handler}"


class RestatePaths:
    """The paths of Restate 1.7 and later."""

    style: PathStyle = "restate"

    def submit(self, verb: Literal["call", "send"], target: Target, delay: timedelta | None = None) -> str:
        """Return ``/restate/send/Greeter/greet``, within ``/restate/scope/{scope}`` where there is a scope."""
        scope = f"/scope/{segment(target.scope)}" if target.scope is not None else ""
        return f"/restate{scope}/{verb}/{_handler_path(target)}{delay_query(delay)}"

    def by_id(self, reading: Reading, invocation_id: str) -> ReadRequest:
        """Return ``GET /restate/output/{id}``."""
        return ReadRequest("GET", f"/restate/{reading}/{segment(invocation_id)}")

    def by_target(self, reading: Reading, target: Target) -> ReadRequest:
        """Return ``POST /restate/output`` with the target in the body (a malformed one is a 500 on 1.7.12)."""
        body: dict[str, str | None]
        if target.idempotency_key is not None:
            body = {
                "target": "idempotentInvocation",
                "service": target.service,
                "key": target.key,
                "handler": target.handler,
                "idempotencyKey": target.idempotency_key,
                "scope": target.scope,
            }
        else:
            body = {
                "target": "workflow",
                "workflowName": target.service,
                "workflowKey": _workflow_key(target),
                "scope": target.scope,
            }
        given = {name: value for name, value in body.items() if value is not None}
        return ReadRequest("POST", f"/restate/{reading}", json.dumps(given).encode("ascii"))


class LegacyPaths:
    """The paths of Restate before 1.7 (later ones still answer them, for now)."""

    style: PathStyle = "legacy"

    def submit(self, verb: Literal["call", "send"], target: Target, delay: timedelta | None = None) -> str:
        """Return ``/Greeter/greet/send``.

        Raises:
            NotSupported: The target has a scope.
        """
        _refuse_scope(target)
        suffix = "/send" if verb == "send" else ""
        return f"/{_handler_path(target)}{suffix}{delay_query(delay)}"

    def by_id(self, reading: Reading, invocation_id: str) -> ReadRequest:
        """Return ``GET /restate/invocation/{id}/output``.

        Raises:
            NotSupported: Status and lookup, which came with 1.7.
        """
        return ReadRequest("GET", f"/restate/invocation/{segment(invocation_id)}/{_offered(reading)}")

    def by_target(self, reading: Reading, target: Target) -> ReadRequest:
        """Return ``GET /restate/workflow/{name}/{key}/output``, or the same for an idempotency key.

        Raises:
            NotSupported: Status and lookup; a scope; an idempotency key that these paths can't carry unchanged.
        """
        _offered(reading)
        _refuse_scope(target)
        if target.idempotency_key is None:
            return ReadRequest(
                "GET", f"/restate/workflow/{segment(target.service)}/{segment(_workflow_key(target))}/{reading}"
            )
        key = target.idempotency_key
        if key in {".", ".."} or not _PLAIN_SEGMENT.fullmatch(key):
            raise NotSupported(
                f"The old paths of Restate can't carry the idempotency key {key!r}: read by the invocation's id, or "
                "use the path style 'restate' with a server of 1.7 or later.",
                target=str(target),
            )
        return ReadRequest("GET", f"/restate/invocation/{_handler_path(target)}/{key}/{reading}")


def _workflow_key(target: Target) -> str:
    if target.key is None:
        raise InvalidRequest(
            f"{target} can't be read by target: give the idempotency key it was sent with, or a workflow's key."
        )
    return target.key


def _offered(reading: Reading) -> str:
    if reading in {"status", "lookup"}:
        raise NotSupported(
            f"The old paths of Restate have no {reading}: it needs a server of 1.7 or later and the path style "
            "'restate'."
        )
    return reading


def _refuse_scope(target: Target) -> None:
    if target.scope is not None:
        raise NotSupported(
            f"The old paths of Restate have no scopes ({target.scope!r}): they need a server of 1.7 or later and the "
            "path style 'restate'.",
            target=str(target),
        )
