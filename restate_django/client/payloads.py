"""How a payload becomes the bytes of a request, and an answer's bytes become a value.

It may import Django's JSON encoder, the error tree and how a value is shown, and none of the libraries whose objects it
takes: pydantic's models and their like are known by what they can do. The same payload gives the same bytes each time,
and what JSON can say beyond a database's idea of it (NUL, lone surrogates, NaN, huge numbers, the order of keys) is
kept.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final, final

from restate_django.client.words import shown
from restate_django.exceptions import InvalidRequest

_JSON = "application/json"
_BINARY = "application/octet-stream"
_CONTENT_TYPE_LIMIT = 255
_CONTENT_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\x20-\x7e\t]*)?")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._:-]+)""", re.IGNORECASE)


@final
class NoPayload:
    """The type of :data:`NO_PAYLOAD`. There is one instance, which copies and pickles as itself."""

    _instance: NoPayload | None = None

    def __new__(cls) -> NoPayload:
        """Return the one instance."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "NO_PAYLOAD"

    def __reduce__(self) -> str:
        return "NO_PAYLOAD"

    def __copy__(self) -> NoPayload:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> NoPayload:
        return self


#: No body and no Content-Type, which a handler without input demands. ``None`` is JSON's ``null``, and something else.
NO_PAYLOAD: Final = NoPayload()


@dataclass(frozen=True)
class EncodedPayload:
    """A request's body as it goes over the wire.

    Attributes:
        body: The bytes, None for no body at all.
        content_type: What they are; empty for no body and no Content-Type header.
    """

    body: bytes | None
    content_type: str

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the content type and the body, in hex: equal digests are equal requests."""
        digest = hashlib.sha256(self.content_type.encode("ascii", "backslashreplace"))
        digest.update(b"\n")
        digest.update(self.body or b"")
        return digest.hexdigest()

    @property
    def is_json(self) -> bool:
        """Whether the content type is JSON."""
        return is_json(self.content_type)

    def __repr__(self) -> str:
        size = "no body" if self.body is None else f"{len(self.body)} bytes"
        return f"<EncodedPayload: {size} of {self.content_type or 'nothing'}>"


def encode_payload(payload: Any = NO_PAYLOAD, content_type: str | None = None) -> EncodedPayload:
    """Return a payload as the bytes of a request.

    Args:
        payload: :data:`NO_PAYLOAD` for no body; ``bytes`` (or a ``bytearray`` or ``memoryview``) go as they are; a
            ``str`` with a content type other than JSON goes as UTF-8; all else, ``None`` too, becomes JSON by Django's
            ``DjangoJSONEncoder`` (dates, durations, decimals, UUIDs, lazy strings). Models of pydantic, dataclasses,
            attrs' classes, msgspec's structs and members of an enum are taken too, at any depth. An
            :class:`EncodedPayload` comes back as it is.
        content_type: What the bytes are. Default: ``application/octet-stream`` for bytes, else ``application/json``.

    Raises:
        InvalidRequest: The payload is not JSON, or the content type is none.
    """
    if isinstance(payload, EncodedPayload):
        if payload.content_type:
            validate_content_type(payload.content_type)
        return payload
    if payload is NO_PAYLOAD:
        if content_type:
            raise InvalidRequest(f"The content type {content_type!r} needs a payload: NO_PAYLOAD is sent without one.")
        return EncodedPayload(None, "")
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return EncodedPayload(bytes(payload), validate_content_type(content_type or _BINARY))
    kind = _JSON if not content_type else validate_content_type(content_type)
    if kind is _JSON or is_json(kind):
        return EncodedPayload(_encode_json(payload), kind)
    if isinstance(payload, str):
        try:
            return EncodedPayload(payload.encode(), kind)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"The text can't be sent as {kind}: {error.reason} at {error.start}.") from None
    raise InvalidRequest(
        f"A payload of type {type(payload).__name__} can't be sent as {kind}: give it as bytes or str."
    )


#: Levels of nesting that JSON may have: how many a Python can write and read differs by its version and by how deep the
#: stack is already, and a handler's own reader may take less.
MAX_NESTING: Final = 400
_STRINGS: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKETS: Final = re.compile(r"[\[\]{}]")


@functools.cache
def _encoder() -> json.JSONEncoder:
    # On first use, not on import: it pulls in Django's models, which a script that sends bytes never needs.
    from django.core.serializers.json import DjangoJSONEncoder

    class Encoder(DjangoJSONEncoder):
        def default(self, o: Any) -> Any:
            plain = _plain(o)
            return super().default(o) if plain is None else plain[0]

    return Encoder(separators=(",", ":"))


def _plain(value: Any) -> tuple[Any] | None:
    """Return what an object of a known kind of library is in JSON's terms, None for any other object.

    In a tuple, since it may be None itself. Only its outermost level: the encoder comes back for what is within.
    """
    if isinstance(value, type):
        return None  # a class has the methods of its instances, and is none
    if isinstance(value, enum.Enum):
        return (value.value,)
    if callable(dump := getattr(value, "model_dump", None)):
        # pydantic 2. By its aliases: they are the names that its JSON schema has.
        return (dump(mode="json", by_alias=True),)
    if dataclasses.is_dataclass(value):
        return ({item.name: getattr(value, item.name) for item in dataclasses.fields(value)},)
    if (attributes := getattr(value, "__attrs_attrs__", None)) is not None:
        return ({item.name: getattr(value, item.name) for item in attributes},)
    if hasattr(value, "__struct_fields__"):
        import msgspec  # whoever has made one has it; its names, tags and defaults are its own business

        return (msgspec.to_builtins(value, str_keys=True),)
    return None


def _encode_json(payload: Any) -> bytes:
    try:
        # ASCII output keeps lone surrogates as escapes, so they reach the handler as they were given.
        text = _encoder().encode(payload)
    except RecursionError:
        text = None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"The payload ({type(payload).__name__}) is not JSON: {error}.") from error
    if text is None or _is_too_deep(text):
        raise InvalidRequest(
            f"The payload ({type(payload).__name__}) is nested too deeply to be JSON (over {MAX_NESTING} levels): "
            "flatten it, or send it as bytes."
        )
    return text.encode("ascii")


def _is_too_deep(text: str) -> bool:
    """Tell whether a JSON text is nested deeper than every reader reads."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def validate_content_type(content_type: Any) -> str:
    """Check a content type: ``type/subtype``, with parameters or without, in visible ASCII, of 255 characters at most.

    Raises:
        InvalidRequest: It is none, or longer (a database that keeps it has no place for more).
    """
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequest(f"{shown(content_type)} is no content type: one looks like 'application/json'.")
    if len(content_type) > _CONTENT_TYPE_LIMIT:
        raise InvalidRequest(
            f"The content type {shown(content_type)} must have 1 to {_CONTENT_TYPE_LIMIT} characters, "
            f"not {len(content_type)}."
        )
    if content_type != content_type.strip():
        raise InvalidRequest(f"The content type {content_type!r} must not end with a blank.")
    return content_type


def is_json(content_type: str) -> bool:
    """Tell whether a content type is JSON: ``application/json``, or one that ends in ``+json``."""
    if content_type == _JSON:
        return True
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == _JSON or media_type.endswith("+json")


def decode_output(body: bytes, content_type: str) -> Any:
    """Return what an answer's bytes mean.

    Handlers give what they like, so this never fails: what is not what its content type says stays bytes.

    Args:
        body: The bytes.
        content_type: What they are said to be. Empty with an empty body is a handler without output.

    Returns:
        None for no output; the value of JSON (a bare ``NaN`` is a float); a ``str`` for ``text/...``; else the bytes.
    """
    if not content_type:
        return body or None
    if is_json(content_type):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body
    if content_type.lstrip().lower().startswith("text/"):
        charset = _CHARSET.search(content_type)
        try:
            return body.decode(charset[1] if charset else "utf-8")
        except (LookupError, ValueError):
            return body
    return body
