"""Every path in both styles, without a network."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from restate_django.client import Target
from restate_django.client.paths import awakeable, delay_query, paths_for, with_query
from restate_django.exceptions import InvalidRequest, NotSupported

NEW, OLD = paths_for("restate"), paths_for("legacy")
WEIRD = "a/b cé%2F+?#"
ENCODED = "a%2Fb%20c%C3%A9%252F%2B%3F%23"


@pytest.mark.parametrize(
    ("verb", "target", "new", "old"),
    [
        ("call", Target("S", "h"), "/restate/call/S/h", "/S/h"),
        ("send", Target("S", "h"), "/restate/send/S/h", "/S/h/send"),
        ("send", Target("O", "h", WEIRD), f"/restate/send/O/{ENCODED}/h", f"/O/{ENCODED}/h/send"),
        ("call", Target("S S", "h/h"), "/restate/call/S%20S/h%2Fh", "/S%20S/h%2Fh"),
    ],
)
def test_submitting(verb, target, new, old):
    assert NEW.submit(verb, target) == new
    assert OLD.submit(verb, target) == old


def test_a_delay_has_a_unit_and_rounds_up():
    assert delay_query(None) == delay_query(timedelta(0)) == ""
    assert delay_query(timedelta(seconds=1.5)) == "?delay=1500ms"
    assert delay_query(timedelta(microseconds=1)) == "?delay=1ms"
    assert delay_query(timedelta(days=3650)) == "?delay=315360000000ms"
    assert NEW.submit("send", Target("S", "h"), timedelta(seconds=1)) == "/restate/send/S/h?delay=1000ms"
    assert OLD.submit("send", Target("S", "h"), timedelta(seconds=1)) == "/S/h/send?delay=1000ms"


def test_scopes():
    assert NEW.submit("send", Target("S", "h", scope="t.1")) == "/restate/scope/t.1/send/S/h"
    assert NEW.submit("call", Target("O", "h", "k", scope="t")) == "/restate/scope/t/call/O/k/h"
    with pytest.raises(NotSupported, match="scopes"):
        OLD.submit("send", Target("S", "h", scope="t"))
    with pytest.raises(NotSupported, match="scopes"):
        OLD.by_target("output", Target("S", "h", scope="t", idempotency_key="i"))


@pytest.mark.parametrize("reading", ["attach", "output", "status", "lookup"])
def test_reading_with_the_new_paths(reading):
    assert NEW.by_id(reading, "inv_1") == ("GET", f"/restate/{reading}/inv_1", None)
    method, path, body = NEW.by_target(reading, Target("O", "h", "k", "s", None, "i"))
    assert (method, path) == ("POST", f"/restate/{reading}")
    assert json.loads(body or b"") == {
        "target": "idempotentInvocation",
        "service": "O",
        "key": "k",
        "handler": "h",
        "idempotencyKey": "i",
        "scope": "s",
    }
    _, _, body = NEW.by_target(reading, Target.workflow("W", WEIRD))
    assert json.loads(body or b"") == {"target": "workflow", "workflowName": "W", "workflowKey": WEIRD}


@pytest.mark.parametrize("reading", ["attach", "output"])
def test_reading_with_the_old_paths(reading):
    assert OLD.by_id(reading, "inv_1").path == f"/restate/invocation/inv_1/{reading}"
    assert OLD.by_target(reading, Target.workflow("W", WEIRD)).path == f"/restate/workflow/W/{ENCODED}/{reading}"
    target = Target("O", "h", "k/1", idempotency_key="a:b@c~!$&'()*+,;=._-")
    expected = f"/restate/invocation/O/k%2F1/h/a:b@c~!$&'()*+,;=._-/{reading}"
    assert OLD.by_target(reading, target).path == expected
    assert OLD.by_target(reading, Target("S", "h", idempotency_key="i")).path == f"/restate/invocation/S/h/i/{reading}"


@pytest.mark.parametrize("key", ["a/b", "a%2Fb", "a?b", "a#b", '"', "<", "[", "|", ".", ".."])
def test_the_old_paths_refuse_an_idempotency_key_that_they_would_change(key):
    with pytest.raises(NotSupported, match="invocation's id"):
        OLD.by_target("output", Target("S", "h", idempotency_key=key))


@pytest.mark.parametrize("reading", ["status", "lookup"])
def test_the_old_paths_have_no_status_and_no_lookup(reading):
    with pytest.raises(NotSupported, match=reading):
        OLD.by_id(reading, "inv_1")
    with pytest.raises(NotSupported, match=reading):
        OLD.by_target(reading, Target.workflow("W", "k"))


@pytest.mark.parametrize("paths", [NEW, OLD])
def test_a_target_without_any_key_can_not_be_read(paths):
    with pytest.raises(InvalidRequest, match="idempotency key"):
        paths.by_target("output", Target("S", "h"))


def test_the_rest():
    assert awakeable("prom_1a", "resolve") == "/restate/awakeables/prom_1a/resolve"
    assert with_query("/x", from_=0, deployment=None, force=True) == "/x?from=0&force=true"
    assert with_query("/x", a=None) == "/x"
    assert with_query("/x", sink="a b&c") == "/x?sink=a%20b%26c"
    with pytest.raises(InvalidRequest, match="auto"):
        paths_for("auto")
