"""Payloads to bytes, and answers back to values."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pickle
import subprocess
import sys
import uuid

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restate_django.client import NO_PAYLOAD, EncodedPayload, NoPayload, decode_output, encode_payload, is_json
from restate_django.exceptions import InvalidRequest


def test_no_payload_is_one_object_that_copies_and_pickles_as_itself():
    assert repr(NO_PAYLOAD) == "NO_PAYLOAD"
    assert NO_PAYLOAD
    assert NoPayload() is NO_PAYLOAD
    assert copy.copy(NO_PAYLOAD) is NO_PAYLOAD
    assert copy.deepcopy({"a": NO_PAYLOAD})["a"] is NO_PAYLOAD
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(NO_PAYLOAD, protocol)) is NO_PAYLOAD


def test_nothing_and_null_are_two_things():
    assert encode_payload() == EncodedPayload(None, "")
    assert encode_payload(None) == EncodedPayload(b"null", "application/json")
    assert encode_payload(b"") == EncodedPayload(b"", "application/octet-stream")
    assert len({encode_payload().digest, encode_payload(None).digest, encode_payload(b"").digest}) == 3
    with pytest.raises(InvalidRequest, match="text/plain"):
        encode_payload(NO_PAYLOAD, "text/plain")


@pytest.mark.parametrize(
    ("payload", "content_type", "body", "sent_as"),
    [
        ({"a": [1, "é"]}, None, b'{"a":[1,"\\u00e9"]}', "application/json"),
        ("text", None, b'"text"', "application/json"),
        ("text", "application/vnd.api+json", b'"text"', "application/vnd.api+json"),
        ("é", "text/plain", b"\xc3\xa9", "text/plain"),
        (b"\x00\xff", None, b"\x00\xff", "application/octet-stream"),
        (bytearray(b"x"), "image/png", b"x", "image/png"),
        (memoryview(b"x"), "application/json", b"x", "application/json"),
        ("\ud800\x00", None, b'"\\ud800\\u0000"', "application/json"),
        (float("nan"), None, b"NaN", "application/json"),
        (10**400, None, b"1" + b"0" * 400, "application/json"),
        ({"b": 1, "a": 2}, None, b'{"b":1,"a":2}', "application/json"),
        (decimal.Decimal("1.10"), None, b'"1.10"', "application/json"),
        (uuid.UUID(int=1), None, b'"00000000-0000-0000-0000-000000000001"', "application/json"),
        (dt.timedelta(hours=1), None, b'"P0DT01H00M00S"', "application/json"),
    ],
)
def test_encoding(payload, content_type, body, sent_as):
    assert encode_payload(payload, content_type) == EncodedPayload(body, sent_as)


def test_an_encoded_payload_goes_as_it_is():
    encoded = EncodedPayload(b"{", "application/json")
    assert encode_payload(encoded) is encoded
    assert encoded.is_json
    assert encoded.digest == EncodedPayload(b"{", "application/json").digest
    assert encoded.digest != EncodedPayload(b"{", "application/json; charset=utf-8").digest
    assert len(encoded.digest) == 64
    assert repr(encoded) == "<EncodedPayload: 1 bytes of application/json>"
    assert repr(encode_payload()) == "<EncodedPayload: no body of nothing>"


@pytest.mark.parametrize(
    ("content_type", "json_"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("application/json-seq", False),
        ("text/x-json", False),
        ("text/plain; x=application/json", False),
        ("", False),
    ],
)
def test_what_is_json_is_decided_once_for_requests_and_answers(content_type, json_):
    assert is_json(content_type) is EncodedPayload(b"1", content_type).is_json is json_
    assert (decode_output(b"1", content_type) == 1) is json_


def test_a_content_type_has_255_characters_at_most():
    """As many as a row has place for: SQLite would take more, and PostgreSQL fail in the caller's transaction."""
    longest = "text/" + "x" * 250
    assert encode_payload(b"x", longest).content_type == longest
    for payload in (b"x", "x", {"a": 1}):
        with pytest.raises(InvalidRequest, match="255 characters, not 256") as caught:
            encode_payload(payload, longest + "x")
        assert len(str(caught.value)) < 200
    for odd in (longest + "x", "text/plain\r\nx-admin: yes"):
        with pytest.raises(InvalidRequest, match="content type"):
            encode_payload(EncodedPayload(b"x", odd))


def test_the_content_type_never_runs_into_the_body():
    assert EncodedPayload(b"a", "text/b").digest != EncodedPayload(b"ba", "text/").digest


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


circle: list = []
circle.append(circle)


@pytest.mark.parametrize(
    "payload",
    [
        object(),
        {1, 2},
        {"a": object()},
        {(1, 2): 3},
        nested(100_000),
        circle,
        lambda: None,
        dt.time(1, tzinfo=dt.UTC),
        10**5000,
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_what_is_not_json_is_refused(payload):
    with pytest.raises(InvalidRequest, match="payload"):
        encode_payload(payload)


@pytest.mark.parametrize("payload", [{"a": 1}, None, 3])
def test_only_text_and_bytes_go_under_another_content_type(payload):
    with pytest.raises(InvalidRequest, match="application/xml"):
        encode_payload(payload, "application/xml")


def test_text_that_has_no_bytes_is_refused():
    with pytest.raises(InvalidRequest, match="text/plain"):
        encode_payload("\ud800", "text/plain")


@pytest.mark.parametrize(
    "content_type", ["json", "a/b\r\nX: 1", "a/b\x00", "é/b", "/", "a/", " a/b", "a/b ", "a/b; é", 3, "a /b"]
)
def test_content_types_are_refused(content_type):
    with pytest.raises(InvalidRequest, match="content type"):
        encode_payload(b"", content_type)


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        (b"", "", None),
        (b"x", "", b"x"),
        (b'{"a": 1}', "application/json", {"a": 1}),
        (b"[1]", "Application/JSON; charset=utf-8", [1]),
        (b"1", "application/problem+json", 1),
        (b"{bad", "application/json", b"{bad"),
        (b"", "application/json", b""),
        (b"\xff\xfe\xfa", "application/json", b"\xff\xfe\xfa"),
        (b"[" * 100_000, "application/json", b"[" * 100_000),
        (b"9" * 5000, "application/json", b"9" * 5000),
        ("é".encode(), "text/plain", "é"),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        (b"\xff", "text/plain", b"\xff"),
        (b"x", "text/plain; charset=klingon", b"x"),
        (b"\x89PNG", "image/png", b"\x89PNG"),
        (b'"a\\u0000b"', "application/json", "a\x00b"),
    ],
    ids=str,
)
def test_decoding_never_fails(body, content_type, value):
    assert decode_output(body, content_type) == value


def test_a_bare_nan_is_a_float():
    assert math.isnan(decode_output(b"NaN", "application/json"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_json_comes_back_as_it_went(value):
    encoded = encode_payload(value)
    assert encoded.body is not None
    assert encoded.body.isascii()
    assert decode_output(encoded.body, encoded.content_type) == value
    assert json.loads(encoded.body) == value
    assert encode_payload(value).digest == encoded.digest


@given(st.binary(max_size=200), st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_decoding_anything_never_fails(body, content_type):
    decode_output(body, content_type)


def test_the_client_needs_no_settings_and_no_registry():
    """A script without Django's settings encodes, and importing does not even load Django's models."""
    code = (
        "import sys, restate_django.client as client\n"
        "assert 'django.db' not in sys.modules\n"
        "import decimal\n"
        "assert client.encode_payload({'a': decimal.Decimal(1)}).body == b'{\"a\":\"1\"}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path or "." for path in sys.path)},
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- objects of other libraries


class Size(enum.Enum):
    LARGE = "large"


class Item(pydantic.BaseModel):
    sku: str
    size: Size = Size.LARGE
    price: decimal.Decimal | None = None
    from_: dt.date | None = pydantic.Field(default=None, alias="from")


@dataclasses.dataclass
class Line:
    item: Item
    quantity: int
    day: dt.date


@attrs.define
class Parcel:
    lines: list[Line]
    number: uuid.UUID


class Label(msgspec.Struct, rename="camel", tag="label"):
    printed_at: dt.date


def test_objects_of_known_libraries_are_payloads_at_any_depth():
    line = Line(Item(sku="mug", price="1.50", **{"from": "2026-01-02"}), 2, dt.date(2026, 1, 3))
    item = {"sku": "mug", "size": "large", "price": "1.50", "from": "2026-01-02"}
    as_json = {"item": item, "quantity": 2, "day": "2026-01-03"}
    assert json.loads(encode_payload(line.item).body) == item
    assert json.loads(encode_payload(line).body) == as_json
    parcel = Parcel([line], uuid.UUID(int=1))
    as_json = {"lines": [as_json], "number": "00000000-0000-0000-0000-000000000001"}
    assert json.loads(encode_payload(parcel).body) == as_json
    assert json.loads(encode_payload({"parcels": (parcel,)}).body) == {"parcels": [as_json]}
    assert json.loads(encode_payload([Size.LARGE, Label(dt.date(2026, 1, 2))]).body) == [
        "large",
        {"type": "label", "printedAt": "2026-01-02"},
    ]
    assert json.loads(encode_payload(pydantic.RootModel[None](None)).body) is None
    assert encode_payload(line).digest == encode_payload(copy.deepcopy(line)).digest


def test_lazy_texts_and_choices_are_payloads():
    from django.db.models import TextChoices
    from django.utils.functional import lazystr

    class Colour(TextChoices):
        RED = "red", "Red"

    assert encode_payload({"name": lazystr("Mary"), "colour": Colour.RED}).body == b'{"name":"Mary","colour":"red"}'


class Unwilling:
    """Something that calls itself a model."""

    def model_dump(self, **options):
        raise ValueError("not today")


@pytest.mark.parametrize("payload", [Item, Line, Parcel, Label, Size, Unwilling(), [Item]])
def test_a_class_is_no_payload_and_neither_is_what_can_not_be_dumped(payload):
    with pytest.raises(InvalidRequest, match="is not JSON"):
        encode_payload(payload)
