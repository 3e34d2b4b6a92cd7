"""What a request is about, and every rule that is checked before anything is recorded or sent.

It imports the error tree and how a value is shown. Each function returns the value it was given, or raises
:class:`~restate_django.exceptions.InvalidRequest` with a message that names the value and says what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from restate_django.client.payloads import NO_PAYLOAD
from restate_django.client.words import shown
from restate_django.exceptions import InvalidRequest

#: The longest delay that is taken. A server records far greater ones and answers nothing (measured on 1.7.12).
MAX_DELAY = timedelta(days=3650)

_NAME_LIMIT = 255
_KEY_LIMIT = 512
_IDEMPOTENCY_KEY_LIMIT = 255
_LIMIT_KEY_LEVELS = 2

#: What an invocation's id looks like, to ask about one and in an answer.
INVOCATION_ID = re.compile(r"inv_[A-Za-z0-9]+")
# The escapes are C0, DEL and C1: no server log, URL or database is the better for one of them in a name.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,36}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_HEADERS = frozenset({"authorization", "cookie", "host", "idempotency-key"}) | _HOP_BY_HOP
_RESERVED_PREFIXES = ("content-", "x-restate-")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about: a handler of a service, an object or a workflow.

    Attributes:
        service: The service's name (an object's or a workflow's is a service's name to Restate).
        handler: The handler's name.
        key: The object's or workflow's key, None for a service.
        scope: The scope that the invocation runs in, None for none.
        limit_key: Where it counts within the scope's limits, one or two levels.
        idempotency_key: The key under which Restate takes the same request once.
    """

    service: str
    handler: str
    key: str | None = None
    scope: str | None = None
    limit_key: str | None = None
    idempotency_key: str | None = None

    @classmethod
    def idempotent(
        cls,
        service: Any,
        handler: Any = None,
        idempotency_key: str = "",
        *,
        key: str | None = None,
        scope: str | None = None,
    ) -> Target:
        """Return the target of an invocation that was sent with an idempotency key, checked.

        Args:
            service: The service's name, or the official SDK's object (see :func:`resolve_target`).
            handler: The handler's name.
            idempotency_key: The key it was sent with.
            key: The object's key.
            scope: The scope it was sent in.

        Raises:
            InvalidRequest: A value that no invocation can have been sent with.
        """
        return validate_target(service, handler, key=key, scope=scope, idempotency_key=idempotency_key)

    @classmethod
    def workflow(cls, name: Any, key: str, *, scope: str | None = None, handler: Any = None) -> Target:
        """Return the target of a workflow's run, checked.

        Args:
            name: The workflow's name, or the official SDK's object.
            key: The workflow's key.
            scope: The scope it was sent in.
            handler: The main handler's name where one sends to it (``run`` if none is told). Reading needs none.

        Raises:
            InvalidRequest: A value that no workflow can have been sent with.
        """
        if handler is None and isinstance(name, str):
            handler = "run"
        service, handler = resolve_target(name, handler, main=True)
        return validate_target(service, handler, key=validate_key(key), scope=scope)

    @property
    def unkeyed(self) -> str:
        """The target in words without its idempotency key: ``Cart/cart-1/add``."""
        parts = [self.service, self.handler] if self.key is None else [self.service, self.key, self.handler]
        return "/".join(parts)

    def __str__(self) -> str:
        return self.unkeyed


def validate_target(
    service: Any,
    handler: Any = None,
    *,
    key: str | None = None,
    scope: str | None = None,
    limit_key: str | None = None,
    idempotency_key: str | None = None,
) -> Target:
    """Check all parts of a target and return it.

    Args:
        service: The service's name, or the official SDK's object (see :func:`resolve_target`).
        handler: The handler's name.
        key: The object's or workflow's key, None for a service.
        scope: A scope, 1 to 36 of ``[A-Za-z0-9_.-]``.
        limit_key: One or two levels like a scope, joined by ``/``. It needs a scope.
        idempotency_key: 1 to 255 visible ASCII characters.

    Raises:
        InvalidRequest: A part breaks its rule. The message names it.
    """
    service_name, handler_name = resolve_target(service, handler)
    if key is not None:
        validate_key(key)
    if scope is not None:
        validate_scope(scope)
    if limit_key is not None:
        validate_limit_key(limit_key)
        if scope is None:
            raise InvalidRequest(f"The limit key {shown(limit_key)} needs a scope: give scope= with it.")
    if idempotency_key is not None:
        validate_idempotency_key(idempotency_key)
    return Target(service_name, handler_name, key, scope, limit_key, idempotency_key)


def resolve_target(service: Any, handler: Any = None, *, main: bool = False) -> tuple[str, str]:
    """Return the names of a service and a handler, however they were given.

    ``("Greeter", "greet")`` are names. The official SDK's objects are taken too, by the attributes they carry (read off
    restate-sdk 1.3.0) and without importing it: a decorated handler function alone (``greet``), or its service, object
    or workflow with the handler's name or function (``greeter, "greet"``).

    Args:
        service: A name, a service object, or a handler function.
        handler: A name or a handler function. Not given with a handler function as the service.
        main: Take a workflow's main handler where no handler is given.

    Raises:
        InvalidRequest: Neither, or names outside 1 to 255 characters.
    """
    if type(service) is str and type(handler) is str:
        return validate_service(service), validate_handler(handler)
    found = _sdk_handler(service)
    if found is not None:
        if handler is not None:
            raise InvalidRequest(f"{found[0]}/{found[1]} is a handler already: give no other handler ({handler!r}).")
        return validate_service(found[0]), validate_handler(found[1])
    tag = getattr(service, "service_tag", None)
    if tag is not None:
        if handler is None and main:
            handler = _main_handler(service)
        service = tag.name
    named = _sdk_handler(handler)
    if named is not None:
        if named[0] != service:
            raise InvalidRequest(f"The handler {named[1]!r} belongs to {named[0]!r}, not to {shown(service)}.")
        handler = named[1]
    return validate_service(service), validate_handler(handler)


def service_name(service: Any) -> str:
    """Return the name of a service, an object or a workflow: a name, or the official SDK's object for it.

    Args:
        service: Either.

    Raises:
        InvalidRequest: Neither, or a name outside 1 to 255 characters.
    """
    tag = getattr(service, "service_tag", None)
    return validate_service(service if tag is None else tag.name)


def arguments(service: Any, handler: Any, payload: Any) -> tuple[Any, Any, Any]:
    """Return service, handler and payload as they were meant: ``send(greet, {"name": "Mary"})`` is one of three words.

    A handler function of the official SDK names its service and itself, so what follows it is the payload.

    Args:
        service: The first argument.
        handler: The second; ``NO_PAYLOAD`` where it was left out, for None is a payload.
        payload: The third.
    """
    if payload is NO_PAYLOAD and type(service) is not str and _sdk_handler(service) is not None:
        return service, None, handler
    return service, None if handler is NO_PAYLOAD else handler, payload


def _sdk_handler(candidate: Any) -> tuple[str, str] | None:
    """Return the names that a handler of the official SDK carries, None for anything else.

    Its decorator keeps a record with ``service_tag`` and ``name`` on the function, under a private object as the key.
    """
    if not callable(candidate) or not hasattr(candidate, "__dict__"):
        return None
    for record in vars(candidate).values():
        tag = getattr(record, "service_tag", None)
        if tag is not None and isinstance(getattr(record, "name", None), str):
            return tag.name, record.name
    return None


def _main_handler(service: Any) -> str | None:
    """Return the name of a workflow's main handler, by the kind that the official SDK gives it."""
    handlers: Mapping[str, Any] = getattr(service, "handlers", None) or {}
    return next((name for name, record in handlers.items() if getattr(record, "kind", None) == "workflow"), None)


def validate_service(service: Any) -> str:
    """Check a service's name: 1 to 255 characters, none of them a control character."""
    return _validate_name("service", service)


def validate_handler(handler: Any) -> str:
    """Check a handler's name: 1 to 255 characters, none of them a control character."""
    return _validate_name("handler", handler)


def _validate_name(what: str, name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidRequest(
            f"The {what} must be a name or one of the Restate SDK's objects, not {shown(name)} ({_type(name)})."
        )
    if not 1 <= len(name) <= _NAME_LIMIT:
        raise InvalidRequest(f"The {what} {shown(name)} must have 1 to {_NAME_LIMIT} characters, not {len(name)}.")
    _refuse_characters(what, name)
    return name


def validate_key(key: Any) -> str:
    """Check an object's or workflow's key: 1 to 512 characters, no control characters, not ``.`` or ``..``.

    Restate itself takes keys of 60,000 characters (measured on 1.7.12); databases and URLs along the way do not.
    """
    if not isinstance(key, str):
        raise InvalidRequest(f"The key must be a string, not {shown(key)} ({_type(key)}): use str().")
    if not 1 <= len(key) <= _KEY_LIMIT:
        raise InvalidRequest(f"The key {shown(key)} must have 1 to {_KEY_LIMIT} characters, not {len(key)}.")
    _refuse_characters("key", key)
    return key


def _refuse_characters(what: str, value: str) -> None:
    if value in {".", ".."}:
        raise InvalidRequest(f"The {what} {value!r} can't be sent: it means a folder in a URL, and is taken out of it.")
    if _CONTROL.search(value):
        raise InvalidRequest(f"The {what} {shown(value)} must not have control characters.")
    if _SURROGATE.search(value):
        raise InvalidRequest(f"The {what} {shown(value)} has a lone surrogate, which no encoding can send.")


def validate_idempotency_key(idempotency_key: Any) -> str:
    """Check an idempotency key: 1 to 255 visible ASCII characters.

    Restate trims blanks off it, takes the empty one (so all of those collide), and refuses what is not ASCII
    (measured on 1.7.12).
    """
    if not isinstance(idempotency_key, str):
        raise InvalidRequest(
            f"The idempotency key must be a string, not {shown(idempotency_key)} ({_type(idempotency_key)})."
        )
    if len(idempotency_key) > _IDEMPOTENCY_KEY_LIMIT or not _VISIBLE_ASCII.fullmatch(idempotency_key):
        raise InvalidRequest(
            f"The idempotency key {shown(idempotency_key)} must be 1 to {_IDEMPOTENCY_KEY_LIMIT} visible ASCII "
            "characters, without blanks."
        )
    return idempotency_key


def validate_scope(scope: Any) -> str:
    """Check a scope: 1 to 36 of ``[A-Za-z0-9_.-]``, as the server demands (measured on 1.7.12)."""
    if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
        raise InvalidRequest(f"The scope {shown(scope)} must be 1 to 36 characters of A-Z, a-z, 0-9, '_', '.', '-'.")
    if scope in {".", ".."}:
        raise InvalidRequest(f"The scope {scope!r} can't be sent: it means a folder in a URL, and is taken out of it.")
    return scope


def validate_limit_key(limit_key: Any) -> str:
    """Check a limit key: one or two levels joined by ``/``, each of them 1 to 36 of ``[A-Za-z0-9_.-]``."""
    levels = limit_key.split("/") if isinstance(limit_key, str) else []
    if not 1 <= len(levels) <= _LIMIT_KEY_LEVELS or not all(_SCOPE.fullmatch(level) for level in levels):
        raise InvalidRequest(
            f"The limit key {shown(limit_key)} must be one or two levels joined by '/', each of them 1 to 36 "
            "characters of A-Z, a-z, 0-9, '_', '.', '-'."
        )
    return str(limit_key)


def validate_invocation_id(invocation_id: Any) -> str:
    """Check an invocation id, which goes into paths and into SQL: ``inv_`` and letters and digits."""
    if not isinstance(invocation_id, str) or not INVOCATION_ID.fullmatch(invocation_id):
        raise InvalidRequest(f"{shown(invocation_id)} is no invocation id: one is 'inv_' and letters and digits.")
    return invocation_id


def validate_delay(delay: Any, max_delay: timedelta = MAX_DELAY) -> timedelta:
    """Check a delay: a ``timedelta`` from zero to ``max_delay``."""
    if not isinstance(delay, timedelta):
        raise InvalidRequest(f"The delay must be a timedelta, not {shown(delay)} ({_type(delay)}).")
    if delay < timedelta(0):
        raise InvalidRequest(f"The delay {delay} is negative: leave it out to send at once.")
    if delay > max_delay:
        raise InvalidRequest(f"The delay {delay} is over the limit of {max_delay}.")
    return delay


def validate_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check the headers that travel with an invocation to its handler, and return a copy.

    Restate stores them and gives them to the handler, so what authenticates or frames the request is refused here.

    Args:
        headers: Names and values, or None for none.

    Raises:
        InvalidRequest: A name that is no token, is reserved or comes twice; a value that is not ASCII, has control
            characters, or blanks at its ends (HTTP takes them off).
    """
    checked = _validate_headers(headers)
    for name in checked:
        lowered = name.lower()
        if lowered in _RESERVED_HEADERS or lowered.startswith(_RESERVED_PREFIXES):
            raise InvalidRequest(f"The header {name!r} is reserved: it says how the request travels, or who sends it.")
    return checked


def url_fault(url: Any) -> str | None:
    """Return what keeps a text from being a server's URL, in words that follow its name; None where nothing does.

    It must be http or https with a host, may have a port and a path prefix, and never holds a secret: none is shown.

    Args:
        url: What was given.
    """
    if not isinstance(url, str):
        return f"must be a string, not {_type(url)}"
    if not url or any(each.isspace() or not each.isprintable() or each == "\\" for each in url):
        return "must be a URL such as http://localhost:8080, without blanks"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its own message can quote a part of the URL, and that part be a password.
        return "is not a URL with a valid host and port"
    if parts.scheme not in {"http", "https"}:
        return "must start with http:// or https://"
    if "@" in parts.netloc:
        return "must not hold a user name or password: use a token or headers"
    if not host or port == 0:
        return "must name a host, and a port that is not 0 where it names one"
    if "?" in url or "#" in url:
        return "must not have a query (?) or a fragment (#)"
    return None


def token_fault(token: Any) -> str | None:
    """Return what keeps a text from being a bearer token, in words that follow its name and never show it.

    Args:
        token: What was given.
    """
    if not isinstance(token, str):
        return f"must be a string or None, not {_type(token)}"
    if not _VISIBLE_ASCII.fullmatch(token):
        return "must be visible ASCII characters without blanks (and without the word Bearer)"
    return None


def validate_connection_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check the headers of a connection, sent with each request: a proxy's key, a tenant's name.

    Raises:
        InvalidRequest: As :func:`validate_headers` does, except that ``Authorization``, ``Cookie`` and ``Host`` are
            taken. The message never shows a value: it may be a secret.
    """
    checked = _validate_headers(headers, show_values=False)
    for name in checked:
        lowered = name.lower()
        if lowered == "idempotency-key" or lowered in _HOP_BY_HOP or lowered.startswith(_RESERVED_PREFIXES):
            raise InvalidRequest(f"The header {name!r} is reserved: each request sets it as it needs.")
    return checked


def _validate_headers(headers: Any, *, show_values: bool = True) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidRequest(f"The headers must be a mapping of names to values, not {_type(headers)}.")
    checked: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidRequest(f"The header name {shown(name)} is no token of HTTP.")
        if name.lower() in seen:
            raise InvalidRequest(f"The header {name!r} is given twice: names are the same in any case.")
        given = shown(value) if show_values else "given"
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequest(f"The value {given} of the header {name!r} must be ASCII text without control codes.")
        if value != value.strip(" \t"):
            raise InvalidRequest(f"The value {given} of the header {name!r} must not begin or end with a blank.")
        seen.add(name.lower())
        checked[name] = value
    return checked


def _type(value: Any) -> str:
    return type(value).__name__
