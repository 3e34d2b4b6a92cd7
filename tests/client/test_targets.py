"""What is refused before anything leaves, and how a handler may be named."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restate_django.client import Target, resolve_target, validate_target
from restate_django.client.targets import (
    validate_connection_headers,
    validate_delay,
    validate_handler,
    validate_headers,
    validate_idempotency_key,
    validate_invocation_id,
    validate_key,
    validate_limit_key,
    validate_scope,
    validate_service,
)
from restate_django.exceptions import InvalidRequest
from tests.client import handlers


@pytest.mark.parametrize("check", [validate_service, validate_handler])
@pytest.mark.parametrize("name", ["", "x" * 256, None, 3, b"x", ".", "..", "a\nb", "a\x00", "\ud800", "a\x85"])
def test_names_are_refused(check, name):
    with pytest.raises(InvalidRequest):
        check(name)


@pytest.mark.parametrize("check", [validate_service, validate_handler])
@pytest.mark.parametrize("name", ["x", "x" * 255, "Ünïcode", "a b", "a/b?c=1#d%20"])
def test_names_are_taken(check, name):
    assert check(name) == name


@pytest.mark.parametrize("key", ["", ".", "..", "x" * 513, "a\tb", "a\x7fb", "\udc00", 7, None, b"k"])
def test_keys_are_refused(key):
    with pytest.raises(InvalidRequest) as caught:
        validate_key(key)
    assert "key" in str(caught.value)


@pytest.mark.parametrize("key", ["x", "x" * 512, "...", "a/b cé+%2F", "😀", " leading", "\u2028"])
def test_keys_are_taken(key):
    assert validate_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "k ", "k\t", "é", "x" * 256, "a\x7f", None, 5])
def test_idempotency_keys_are_refused(key):
    with pytest.raises(InvalidRequest, match="idempotency key"):
        validate_idempotency_key(key)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255))
@settings(max_examples=50, deadline=None)
def test_idempotency_keys_are_visible_ascii(key):
    assert validate_idempotency_key(key) == key


@pytest.mark.parametrize("scope", ["", "a" * 37, "a b", "a/b", "é", ".", "..", None, "a\n"])
def test_scopes_are_refused(scope):
    with pytest.raises(InvalidRequest, match="scope"):
        validate_scope(scope)


@pytest.mark.parametrize("limit_key", ["", "/", "a/", "/a", "a/b/c", "a b", "a" * 37, "a/" + "b" * 37, None])
def test_limit_keys_are_refused(limit_key):
    with pytest.raises(InvalidRequest, match="limit key"):
        validate_limit_key(limit_key)


def test_a_limit_key_needs_a_scope():
    assert validate_target("S", "h", scope="t-1_.", limit_key="free/user42").limit_key == "free/user42"
    with pytest.raises(InvalidRequest, match=r"free.*scope"):
        validate_target("S", "h", limit_key="free")


@pytest.mark.parametrize("value", ["inv_", "inv", "", "inv_x'--", "inv_a b", "inv_é", None, "dp_123", "inv_a\n"])
def test_invocation_ids_are_refused(value):
    with pytest.raises(InvalidRequest, match="invocation id"):
        validate_invocation_id(value)


@pytest.mark.parametrize("delay", [timedelta(microseconds=-1), timedelta(days=3651), 5, "5s", None])
def test_delays_are_refused(delay):
    with pytest.raises(InvalidRequest, match="delay"):
        validate_delay(delay)


def test_delays_are_taken_up_to_the_limit():
    assert validate_delay(timedelta(0)) == timedelta(0)
    assert validate_delay(timedelta(days=3650)) == timedelta(days=3650)
    with pytest.raises(InvalidRequest, match="limit of 0:01:00"):
        validate_delay(timedelta(minutes=2), timedelta(minutes=1))


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "cookie",
        "HOST",
        "Idempotency-Key",
        "content-type",
        "Content-Length",
        "content-anything",
        "Connection",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-authorization",
        "expect",
        "x-restate-id",
        "X-Restate-Limit-Key",
        "",
        "a b",
        "a:b",
        "é",
        "a\n",
        3,
    ],
)
def test_header_names_are_refused(name):
    with pytest.raises(InvalidRequest, match="header"):
        validate_headers({name: "value"})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\x00", "é", " a", "a ", "\ta", "\x7f", 3, None, b"a"])
def test_header_values_are_refused(value):
    with pytest.raises(InvalidRequest, match="X-Trace"):
        validate_headers({"X-Trace": value})


def test_headers_are_copied_and_not_repeated():
    given_headers = {"X-A": "1", "traceparent": "", "x-b": "a b\tc~"}
    taken = validate_headers(given_headers)
    assert taken == given_headers
    assert taken is not given_headers
    assert validate_headers(None) == {}
    with pytest.raises(InvalidRequest, match="twice"):
        validate_headers({"X-A": "1", "x-a": "1"})
    with pytest.raises(InvalidRequest, match="mapping"):
        validate_headers([("X-A", "1")])  # type: ignore[arg-type] # the wrong type is the point


def test_connection_headers_may_authorise_and_never_show_a_value():
    assert validate_connection_headers({"Authorization": "Basic abc", "Cookie": "a=b", "Host": "x"})
    for headers in (
        {"Idempotency-Key": "s3cret"},
        {"X-Key": "s3cret\n"},
        {"X-Key": " s3cret"},
        {"Content-Type": "s3cret"},
    ):
        with pytest.raises(InvalidRequest) as caught:
            validate_connection_headers(headers)
        assert "s3cret" not in repr(caught.value)


# ---------------------------------------------------------------- the SDK's objects


def test_names_and_the_sdks_objects_say_the_same():
    expected = ("Wire", "greet")
    assert resolve_target("Wire", "greet") == expected
    assert resolve_target(handlers.greet) == expected
    assert resolve_target(handlers.wire, "greet") == expected
    assert resolve_target(handlers.wire, handlers.greet) == expected
    assert resolve_target("Wire", handlers.greet) == expected
    assert resolve_target(handlers.put) == ("Box", "put")
    assert resolve_target(handlers.run) == ("Flow", "run")


@pytest.mark.parametrize(
    "arguments",
    [
        (handlers.greet, "other"),
        (handlers.box, handlers.greet),
        (handlers.wire,),
        ("Wire",),
        (None, "greet"),
        (object(), "greet"),
        (lambda: None,),
        ("Wire", 3),
    ],
)
def test_what_names_no_handler_is_refused(arguments):
    with pytest.raises(InvalidRequest):
        resolve_target(*arguments)


def test_targets_for_reading():
    assert Target.workflow("Flow", "k") == Target("Flow", "run", "k")
    assert Target.workflow(handlers.flow, "k") == Target("Flow", "run", "k")
    assert Target.workflow(handlers.run, "k", scope="s") == Target("Flow", "run", "k", "s")
    assert Target.idempotent(handlers.put, idempotency_key="i", key="k") == Target("Box", "put", "k", None, None, "i")
    assert str(Target("Box", "put", "k")) == "Box/k/put"
    assert str(Target("Wire", "greet")) == "Wire/greet"
    with pytest.raises(InvalidRequest, match="key"):
        Target.workflow("Flow", "")
    with pytest.raises(InvalidRequest, match="idempotency key"):
        Target.idempotent("Wire", "greet")


@given(st.text(max_size=600))
@settings(max_examples=200, deadline=None)
def test_a_key_is_taken_as_it_is_or_refused_with_a_message_that_prints(key):
    try:
        taken = validate_key(key)
    except InvalidRequest as error:
        refusal = str(error)
    else:
        assert taken == key
        return
    assert "key" in refusal
    assert refusal.isascii()
