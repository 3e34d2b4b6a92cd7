"""What is sent arrives at a real handler unchanged, or is refused before anything leaves, with a typed error."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from restate_django.client import AdminClient, EncodedPayload, IngressClient, OutputState, Target
from restate_django.client.transport import Answer
from restate_django.exceptions import AdminRefused, InvalidRequest, NotFound, NotSupported, Refused, RestateError

# The servers are the session's: each example is one request more to them.
bounded = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

anything = st.text(st.characters(codec=None), max_size=60)
url_like = st.text(st.sampled_from("aZ0/%+ .?#&=;:@~\\|<>\"'`^{}[]é😀\u2028\u00a0"), min_size=1, max_size=40)
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)


@given(key=anything | url_like)
@example(key="a/b cé%2F+")
@example(key="%2E%2E")
@example(key="..%2F..")
@example(key="../x")
@example(key="é" * 512)
@example(key="😀" * 512)
@bounded
def test_an_objects_key_arrives_as_it_is(server, key):
    try:
        arrived = server.ingress.call("Box", "key_of", key=key).value
    except InvalidRequest:
        assert (
            key in {"", ".", ".."} or any(ord(each) < 32 or 127 <= ord(each) < 160 for each in key) or surrogates(key)
        )
        return
    assert arrived == key


def surrogates(text):
    return any(0xD800 <= ord(each) < 0xE000 for each in text)


@given(delay=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
@example(delay=timedelta(0))
@example(delay=timedelta(microseconds=1))
@example(delay=timedelta(milliseconds=1))
@example(delay=timedelta(days=3650))
@bounded
def test_a_delay_is_kept_to_the_millisecond(server, delay):
    before = datetime.now(UTC)
    receipt = server.ingress.send("Wire", "greet", "x", delay=delay)
    after = datetime.now(UTC)
    if receipt.execution_time is None:
        # No delay at all is not answered with a time.
        assert delay == timedelta(0)
        return
    # Rounded up to a millisecond: it never runs early. Both clocks are this machine's.
    assert before + delay - timedelta(milliseconds=1) <= receipt.execution_time
    assert receipt.execution_time <= after + delay + timedelta(milliseconds=2)
    with contextlib.suppress(AdminRefused, NotFound):  # a short one has run meanwhile
        server.admin.cancel_invocation(receipt.invocation_id)


@given(key=url_like)
@bounded
def test_a_workflow_is_read_by_the_key_it_ran_under(server, key):
    key = f"{uuid.uuid4().hex}{key}"
    sent = server.ingress.send("Flow", "run", key, key=key)
    output = server.ingress.attach(target=Target.workflow("Flow", key))
    assert output.invocation_id == sent.invocation_id
    assert output.value == {"key": key, "value": key}


@given(tail=visible)
@bounded
def test_an_idempotency_key_is_one_key_to_write_and_to_read(server, tail):
    """The old paths do not decode it: what they would change is refused, never looked up under another name."""
    key = f"{uuid.uuid4().hex}{tail}"
    sent = server.ingress.send("Wire", "greet", "x", idempotency_key=key)
    again = server.ingress.send("Wire", "greet", "x", idempotency_key=key)
    assert again.invocation_id == sent.invocation_id
    assert again.previously_accepted
    target = Target.idempotent("Wire", "greet", key)
    try:
        output = server.ingress.attach(target=target)
    except NotSupported:
        assert server.is_legacy
        return
    assert output.state is OutputState.READY
    assert output.invocation_id == sent.invocation_id


@given(
    headers=st.dictionaries(
        st.text(st.sampled_from("abcXYZ09-_.!~*'"), min_size=1, max_size=20).map(lambda name: f"p-{name}"),
        header_values | anything,
        max_size=6,
    )
)
@example(headers={"p-empty": "", "p-blank": "a b\tc", "p-equals": "a=b; c, d"})
@bounded
def test_headers_arrive_as_they_are(server, headers):
    try:
        arrived = server.ingress.call("Wire", "inspect", b"x", headers=headers).value["headers"]
    except InvalidRequest as error:
        assert "header" in str(error)  # noqa: PT017 - a refusal is one of the two right ends
        return
    lowered = {name.lower(): value for name, value in headers.items()}
    assert {name: arrived.get(name) for name in lowered} == lowered


@given(body=st.binary(max_size=300))
@example(body=b"")
@example(body=bytes(range(256)) * 4000)
@bounded
def test_bytes_arrive_as_they_are(server, body):
    if not body:
        # The server takes no empty body where a handler has an input: refused, so nothing arrived changed.
        with pytest.raises(Refused, match="Empty body"):
            server.ingress.call("Wire", "echo", body)
        return
    assert server.ingress.call("Wire", "echo", body).body == body
    arrived = server.ingress.call("Wire", "inspect", EncodedPayload(body, "x-odd/type; a=b")).value
    assert arrived["body"] == body.hex()
    assert arrived["headers"]["content-type"] == "x-odd/type; a=b"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20, max_value=10**40)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None), max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=15,
)


@given(value=json_values)
@example(value={"b": "\ud800\x00", "a": [1e300, 10**400, float("inf"), -0.0, 1.0]})
@example(value=json.loads("[" * 400 + "]" * 400))
@bounded
def test_json_arrives_as_it_is(server, value):
    """NUL, lone surrogates, huge numbers and the order of keys: all that a database would change."""
    output = server.ingress.call("Wire", "echo_json", value)
    assert output.value == value
    assert json.dumps(output.value) == json.dumps(value)


def test_large_json_arrives_as_it_is(server):
    value = {"rows": [{"i": i, "text": "é" * 50} for i in range(20_000)]}
    assert server.ingress.call("Wire", "echo_json", value, timeout=30).value == value


@pytest.mark.parametrize("size", [1, 255])
def test_the_longest_idempotency_key(server, size):
    key = uuid.uuid4().hex[:1] if size == 1 else uuid.uuid4().hex + "~" * (size - 32)
    sent = server.ingress.send("Wire", "greet", "x", idempotency_key=key)
    assert server.ingress.output(sent.invocation_id).state in {OutputState.READY, OutputState.NOT_READY}


# ---------------------------------------------------------------- answers of something else

ID = "inv_1fhdLEo6AyEH1AWuM0SxC8h1wnBPsAsNcS"
NAMES = re.findall(
    r"\w+",
    "services handlers deployments subscriptions clusters rows rules limits name id version features stage error code "
    "message metadata invocationId status executionTime created_at idempotency_retention entry_lite_json event_json "
    "last_failure Notification new_invocation_id completion_failure",
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(ID) | st.just("PT9D")
odd_json = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
ASKED = {
    "version": lambda admin, _: admin.version().release,
    "list_services": lambda admin, _: admin.list_services(),
    "get_service": lambda admin, _: admin.get_service("S").retention_of("h"),
    "modify_service": lambda admin, _: admin.modify_service("S", public=True),
    "list_service_handlers": lambda admin, _: admin.list_service_handlers("S"),
    "get_service_handler": lambda admin, _: admin.get_service_handler("S", "h"),
    "list_deployments": lambda admin, _: admin.list_deployments(),
    "get_deployment": lambda admin, _: admin.get_deployment("dp_1"),
    "create_deployment": lambda admin, _: admin.create_deployment("http://h"),
    "update_deployment": lambda admin, _: admin.update_deployment("dp_1", uri="http://h"),
    "restart_as_new_invocation": lambda admin, _: admin.restart_as_new_invocation(ID),
    "cancel_invocation": lambda admin, _: admin.cancel_invocation(ID),
    "sys_invocations": lambda admin, _: [row.failure for row in admin.sys_invocations([ID])],
    "has_cancel_signal": lambda admin, _: admin.has_cancel_signal(ID),
    "pause_failures": lambda admin, _: admin.pause_failures([ID]),
    "describe_invocation": lambda admin, _: admin.describe_invocation(ID),
    "list_subscriptions": lambda admin, _: admin.list_subscriptions(),
    "get_subscription": lambda admin, _: admin.get_subscription("sub_1"),
    "list_kafka_clusters": lambda admin, _: admin.list_kafka_clusters(),
    "upsert_rules": lambda admin, _: admin.upsert_rules([{"pattern": "*"}]),
    "bulk_delete_rules": lambda admin, _: admin.bulk_delete_rules(["*"]),
    "send": lambda _, ingress: ingress.send("S", "h"),
    "call": lambda _, ingress: ingress.call("S", "h").value,
    "output": lambda _, ingress: ingress.output(ID).value,
    "status": lambda _, ingress: ingress.status(ID),
    "lookup": lambda _, ingress: ingress.lookup(Target.idempotent("S", "h", "k")),
    "health": lambda _, ingress: ingress.health(),
}


@pytest.mark.parametrize("name", ASKED)
@given(
    body=odd_json,
    status=st.sampled_from([200, 200, 200, 202, 400, 404, 409, 470, 500]),
    headers=st.dictionaries(
        st.sampled_from(["x-restate-id", "x-restate-error-source", "retry-after", "idempotency-expires"]),
        st.sampled_from([ID, "ingress", "invocation", "9" * 5000, "²", "9999-12-31T23:59:59-23:59"]),
    ),
)
@example(body={"services": ["S"], "handlers": 5, "deployments": {"a": 1}, "rows": [5]}, status=200, headers={})
@example(
    body={"rows": [{"completion_result": "failure", "completion_failure": f"[{'9' * 5000}] x"}]}, status=200, headers={}
)
@example(body={"version": "9" * 5000, "limits": "x", "services": [1]}, status=200, headers={})
@settings(max_examples=60, deadline=None)
def test_no_json_of_an_answer_is_more_than_a_typed_error(name, body, status, headers):
    """Whatever answers in the server's place: the caller gets a result or one of this package's errors."""
    answer = Answer(status, {"content-type": "application/json", **headers}, json.dumps(body).encode())
    with AdminClient("http://127.0.0.1:9") as admin, IngressClient("http://127.0.0.1:9") as ingress:
        for client in (admin, ingress):
            client.transport.exchange = lambda request, interpret: interpret(answer)
        with contextlib.suppress(RestateError):
            ASKED[name](admin, ingress)
