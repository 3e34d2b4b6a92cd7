"""Calling, sending and reading on real servers, 1.7 and 1.6 alike."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from restate_django.client import NO_PAYLOAD, EncodedPayload, IngressClient, OutputState, Target
from restate_django.client.outcomes import Meaning, classify
from restate_django.client.transport import Request
from restate_django.exceptions import (
    CallTimeout,
    InvocationFailed,
    Misconfigured,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    Refused,
    RequestTimeout,
    Unavailable,
    UnknownTarget,
    WorkflowAlreadyRun,
    WorkflowKeyRefused,
)
from tests.client import handlers
from tests.wait import wait_for

UNKNOWN_ID = "inv_14Xgw3wzGLNU4HA3PNPlh6DHnqTAOEOzuX"
JSON = {"Content-Type": "application/json"}


def fresh() -> str:
    return uuid.uuid4().hex


def test_a_service_is_called_by_name_and_by_the_sdks_objects(server):
    client = server.ingress
    for how in (("Wire", "greet"), (handlers.greet,), (handlers.wire, "greet"), (handlers.wire, handlers.greet)):
        output = client.call(*how, payload="Mary")
        assert output.state is OutputState.READY
        assert output.value == "Hello Mary!"
        assert output.invocation_id.startswith("inv_")
        assert output.content_type == "application/json"


def test_none_is_a_payload_also_after_a_handler_function(server):
    for output in (server.ingress.call(handlers.inspect, None), server.ingress.call("Wire", "inspect", None)):
        assert bytes.fromhex(output.value["body"]) == b"null"
    assert server.ingress.call(handlers.inspect).value["body"] == ""


def test_an_object_and_a_workflow_are_called_by_their_key(server):
    key = fresh()
    assert server.ingress.call(handlers.put, payload=1, key=key).value == {"key": key, "before": None}
    assert server.ingress.call("Box", "put", 2, key=key).value == {"key": key, "before": 1}
    assert server.ingress.call("Box", "key_of", key=key).value == key
    assert server.ingress.call("Flow", "run", {"a": 1}, key=key).value == {"key": key, "value": {"a": 1}}


def test_a_handler_without_input_and_output(server):
    output = server.ingress.call("Wire", "nothing")
    assert (output.value, output.body, output.content_type) == (None, b"", "")
    for payload in (None, b"", {}):
        with pytest.raises(Refused):
            server.ingress.call("Wire", "nothing", payload)


def test_a_send_is_accepted_and_read(server):
    receipt = server.ingress.send("Wire", "greet", "Mary", idempotency_key=fresh())
    assert not receipt.previously_accepted
    assert not receipt.resent
    assert receipt.execution_time is None
    attached = server.ingress.attach(receipt.invocation_id)
    output = server.ingress.output(receipt.invocation_id)
    for found in (attached, output):
        assert found.value == "Hello Mary!"
        assert found.invocation_id == receipt.invocation_id
    # An attach that waited is answered from the run itself, which does not say how long the result is kept.
    assert output.expires_at is not None
    assert timedelta(hours=23) < output.expires_at - datetime.now(UTC) < timedelta(hours=25)
    assert attached.expires_at in {None, output.expires_at}


def test_a_key_runs_once_whatever_the_payload(server):
    key, target = fresh(), handlers.greet
    first = server.ingress.send(target, payload="Mary", idempotency_key=key)
    again = server.ingress.send(target, payload="John", idempotency_key=key)
    assert again.invocation_id == first.invocation_id
    assert again.previously_accepted
    assert server.ingress.call(target, payload="Ann", idempotency_key=key).value == "Hello Mary!"
    assert server.ingress.output(target=Target.idempotent(target, idempotency_key=key)).value == "Hello Mary!"


def test_a_delayed_send_waits(server):
    before = datetime.now(UTC)
    receipt = server.ingress.send("Wire", "greet", "x", delay=timedelta(hours=1, microseconds=1))
    assert receipt.execution_time is not None
    assert abs(receipt.execution_time - before - timedelta(hours=1)) < timedelta(seconds=30)
    assert server.ingress.output(receipt.invocation_id).state is OutputState.NOT_READY
    server.admin.cancel_invocation(receipt.invocation_id)


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(microseconds=1), timedelta(milliseconds=1)])
def test_a_delay_next_to_nothing(server, delay):
    receipt = server.ingress.send("Wire", "greet", "x", delay=delay)
    assert server.ingress.attach(receipt.invocation_id).value == "Hello x!"


def test_the_longest_delay(server):
    receipt = server.ingress.send("Wire", "greet", "x", delay=timedelta(days=3650))
    assert receipt.execution_time.year >= datetime.now(UTC).year + 9
    assert server.admin.cancel_invocation(receipt.invocation_id).done


def test_an_output_tells_not_ready_from_unknown(server):
    client = server.ingress
    receipt = client.send("Wire", "nap", 600, idempotency_key="nap-1")
    pending = client.output(receipt.invocation_id)
    assert pending.state is OutputState.NOT_READY
    assert pending.invocation_id == receipt.invocation_id
    with pytest.raises(CallTimeout):
        pending.result()
    with pytest.raises(RequestTimeout) as caught:
        client.attach(receipt.invocation_id, timeout=0.3)
    assert not caught.value.may_have_run
    server.admin.kill_invocation(receipt.invocation_id)
    assert client.output(UNKNOWN_ID).state is OutputState.UNKNOWN
    assert client.attach(UNKNOWN_ID).state is OutputState.UNKNOWN
    assert client.output(target=Target.workflow("Flow", fresh())).state is OutputState.UNKNOWN
    assert client.attach(target=Target.workflow("Flow", fresh())).state is OutputState.UNKNOWN
    assert client.output(target=Target.idempotent("Wire", "greet", fresh())).state is OutputState.UNKNOWN
    with pytest.raises(NotFound):
        client.output(UNKNOWN_ID).result()


def test_a_target_in_place_of_an_id(server):
    client, key = server.ingress, fresh()
    client.call("Flow", "run", 7, key=f"w {key}/é")
    assert client.output(target=Target.workflow("Flow", f"w {key}/é")).value["value"] == 7
    assert client.attach(target=Target.workflow(handlers.flow, f"w {key}/é")).value["value"] == 7
    client.call("Box", "put", 1, key=f"b {key}/é", idempotency_key=key)
    target = Target.idempotent("Box", "put", key, key=f"b {key}/é")
    assert client.output(target=target).value["before"] is None
    assert client.attach(target=target).value["before"] is None


def test_a_workflow_runs_once(server):
    client, key = server.ingress, fresh()
    first = client.send("Flow", "run", 1, key=key)
    again = client.send("Flow", "run", 2, key=key)
    assert again.previously_accepted
    assert again.invocation_id == first.invocation_id
    with pytest.raises(WorkflowAlreadyRun) as caught:
        client.call("Flow", "run", 3, key=key)
    assert caught.value.invocation_id == first.invocation_id
    assert not caught.value.may_have_run
    with pytest.raises(WorkflowKeyRefused):
        client.send("Flow", "run", 1, key=key, idempotency_key="k")
    assert client.call("Flow", "go", 1, key=key, idempotency_key="k").value == "gone"


def test_run_or_attach(server):
    client, key = server.ingress, fresh()
    assert client.submit_or_attach(handlers.flow, key, 1).value == {"key": key, "value": 1}
    assert client.submit_or_attach("Flow", key, 2).value == {"key": key, "value": 1}
    with pytest.raises(RequestTimeout) as caught:
        client.submit_or_attach("Flow", f"{key}-2", "wait", timeout=0.4)
    assert caught.value.may_have_run
    client.call("Flow", "go", "done", key=f"{key}-2")
    assert client.submit_or_attach("Flow", f"{key}-2", "wait").value["value"] == "done"


def test_status_and_lookup(server):
    client, key = server.ingress, fresh()
    target = Target.idempotent("Wire", "greet", key)
    if server.is_legacy:
        for act in (lambda: client.status(UNKNOWN_ID), lambda: client.lookup(target)):
            with pytest.raises(NotSupported, match=r"1\.7"):
                act()
        return
    receipt = client.send("Wire", "greet", "x", idempotency_key=key)
    assert client.lookup(target) == receipt.invocation_id
    client.attach(receipt.invocation_id)
    for stage in (client.status(receipt.invocation_id), client.status(target=target)):
        assert (stage.stage, stage.error, stage.invocation_id) == ("completed", None, receipt.invocation_id)
    with pytest.raises(NotFound):
        client.status(UNKNOWN_ID)
    # An id from lookup proves nothing about existence.
    assert client.lookup(Target.workflow("Flow", fresh())).startswith("inv_")
    assert client.lookup(Target.workflow("NoSuchFlow", "k")).startswith("inv_")
    delayed = client.send("Wire", "greet", "x", delay=timedelta(hours=1))
    assert client.status(delayed.invocation_id).stage == "created"
    server.admin.cancel_invocation(delayed.invocation_id)


def test_the_new_paths_on_an_old_server_are_a_wrong_setting(legacy):
    """Never a silent fall-back on a 404."""
    with IngressClient(legacy.ingress_url, path_style="restate") as client:
        for act in (
            lambda: client.send("Wire", "greet", "x"),
            lambda: client.call("Wire", "greet", "x"),
            lambda: client.output(UNKNOWN_ID),
            lambda: client.attach(UNKNOWN_ID),
        ):
            with pytest.raises(Misconfigured, match="path"):
                act()
        with pytest.raises(NotSupported):
            client.status(UNKNOWN_ID)
        with pytest.raises(NotSupported):
            client.lookup(Target.workflow("Flow", "k"))


def test_a_prefix_that_nobody_takes_off_is_a_wrong_setting(server):
    with IngressClient(f"{server.ingress_url}/prefix", path_style=server.ingress.path_style) as client:
        with pytest.raises((Misconfigured, Refused)) as caught:
            client.send("Wire", "greet", "x")
        assert not caught.value.may_have_run
        with pytest.raises((Misconfigured, Refused)):
            client.output(UNKNOWN_ID)


def test_the_old_paths_on_a_new_server_still_work(modern):
    with IngressClient(modern.ingress_url, path_style="legacy") as client:
        receipt = client.send("Wire", "greet", "x", idempotency_key=fresh())
        assert client.attach(receipt.invocation_id).value == "Hello x!"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (("Nope", "greet"), UnknownTarget),
        (("Wire", "nope"), UnknownTarget),
        (("No Such/Sérvice", "greet"), UnknownTarget),
        (("Wire", "no such/hændler"), UnknownTarget),
        (("Nope", "greet", NO_PAYLOAD, "key"), UnknownTarget),
    ],
)
def test_an_unknown_target(server, target, kind):
    service, handler, payload, key = (*target, NO_PAYLOAD, None)[:4]
    for submit in (server.ingress.send, server.ingress.call):
        with pytest.raises(kind) as caught:
            submit(service, handler, payload, key=key)
        assert isinstance(caught.value, LookupError)
        assert not caught.value.may_have_run
        assert caught.value.status == 404


def test_a_key_that_does_not_fit_the_service(server):
    with pytest.raises((Refused, UnknownTarget)):
        server.ingress.send("Wire", "greet", "x", key="k")
    with pytest.raises((Refused, UnknownTarget)):
        server.ingress.send("Box", "put", 1)


def test_a_payload_that_does_not_fit_is_refused(server):
    with pytest.raises(Refused, match="text/plain"):
        server.ingress.send("Wire", "greet", "x", content_type="text/plain")
    with pytest.raises(Refused) as caught:
        server.ingress.send("Wire", "inspect", EncodedPayload(b"x" * (33 * 2**20), "a/b"), timeout=30)
    assert not caught.value.may_have_run
    assert server.ingress.call("Wire", "greet", "y").value == "Hello y!"


@pytest.mark.parametrize(
    ("path", "body", "headers", "words"),
    [
        ("/Wire/greet/send", b'"x"', {"Content-Type": "text/plain"}, "input validation error: Content-type"),
        ("/Wire/greet/send", b'"x"', {}, "input validation error: Empty content-type"),
        ("/Wire/nothing/send", b"null", JSON, "input validation error: Expected body and content-type to be empty"),
        ("/Wire/k/greet/send", b'"x"', JSON, "bad path, expected either"),
        ("/Box/%FF/put/send", b"1", JSON, "bad path, cannot decode key"),
        ("/Wire/greet/send?delay=5", b'"x"', JSON, "bad delay query parameter"),
        ("/Wire/greet?delay=5s", b'"x"', JSON, "cannot use the delay query parameter with calls"),
        ("/Wire/greet/send", b'"x"', JSON | {"Idempotency-Key": "\xe9"}, "bad header idempotency-key"),
        ("/restate/awakeables/x/resolve", b"1", JSON, "bad awakeable id 'x'"),
        ("/restate/invocation/x/output", None, {}, "bad invocation id 'x'"),
        ("/Box/" + "a" * 70_000 + "/put/send", b"1", JSON, ""),
        ("/Wire/greet/send", b'"x"', JSON | {f"x-{number}": "x" for number in range(150)}, ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refusal_is_known_as_restates_own(server, path, body, headers, words):
    """In the server's very words: 1.6 signs none, and a proxy's refusal must not pass for one of them."""
    method = "GET" if body is None else "POST"
    answer = server.ingress.transport.exchange(Request(method, path, body, headers), lambda answer: answer)
    outcome = classify("output" if body is None else "send", answer.status, answer.headers, answer.body)
    assert outcome.meaning is (Meaning.PATH_REFUSED if words.startswith("bad path") else Meaning.REFUSED)
    assert outcome.message.startswith(words)
    assert outcome.status == 400 if words else outcome.status in {414, 431}


def test_broken_json_is_accepted_and_never_looked_at(server):
    """The server checks no JSON: the client sends the bytes that it is given."""
    receipt = server.ingress.send("Wire", "echo", EncodedPayload(b'{"bad', "application/json"))
    assert server.ingress.attach(receipt.invocation_id).body == b'{"bad'


@pytest.mark.parametrize(
    ("handler", "body", "value"),
    [
        ("echo", b"\x00\xff", b"\x00\xff"),
        ("echo_json", b'{"a":"\\u0000"}', {"a": "\x00"}),
        ("echo_json", b"{bad", b"{bad"),
        ("echo_json", b"[" * 5000, b"[" * 5000),
        ("echo_text", "é\x00".encode(), "é\x00"),
        ("echo_text", b"\xff", b"\xff"),
    ],
)
def test_outputs_of_all_kinds(server, handler, body, value):
    called = server.ingress.call("Wire", handler, body)
    assert called.value == value
    read = server.ingress.output(called.invocation_id)
    assert (read.state, read.body) == (OutputState.READY, body)


def test_awakeables(server):
    for complete, value in (("resolve", {"a": 1}), ("reject", "no such luck")):
        key = fresh()
        waiting = server.ingress.send("Wait", "for_awakeable", key=key, idempotency_key=key)
        awakeable = wait_for(
            lambda key=key: server.ingress.call("Wait", "awakeable_id", key=key).value, what="the awakeable"
        )
        if complete == "resolve":
            server.ingress.resolve_awakeable(awakeable, value)
            assert server.ingress.attach(waiting.invocation_id).value == value
        else:
            server.ingress.reject_awakeable(awakeable, value)
            output = server.ingress.attach(waiting.invocation_id)
            assert output.state is OutputState.FAILED
            assert output.failure.message == value


def test_an_awakeable_that_never_was_is_refused(server):
    with pytest.raises(Refused, match="awakeable"):
        server.ingress.resolve_awakeable("xxx", 1)
    with pytest.raises(ValueError, match="awakeable"):
        server.ingress.resolve_awakeable("a/b", 1)


def test_health_names_the_services(server):
    assert {"Wire", "Box", "Flow", "Fails", "Wait"} <= set(server.ingress.health())


def test_one_of_id_and_target(server):
    for arguments in ({}, {"invocation_id": UNKNOWN_ID, "target": Target.workflow("Flow", "k")}):
        with pytest.raises(ValueError, match="one of the two"):
            server.ingress.output(**arguments)
    with pytest.raises(ValueError, match="inv_"):
        server.ingress.output("dp_1")
    with pytest.raises(ValueError, match="must be a Target"):
        server.ingress.output(target="Wire/greet")
    with pytest.raises(ValueError, match="whole"):
        server.ingress.send(Target("Wire", "greet"), "greet")


def test_a_whole_target_is_sent_to(server):
    target = Target("Box", "put", fresh(), idempotency_key=fresh())
    assert server.ingress.call(target, payload=1).value["key"] == target.key
    assert server.ingress.send(target, payload=1).previously_accepted


# ---------------------------------------------------------------- failures

CODES = [
    101,
    200,
    202,
    204,
    301,
    304,
    400,
    401,
    404,
    405,
    408,
    409,
    413,
    429,
    470,
    500,
    503,
    599,
    600,
    999,
    99,
    1000,
    65000,
]


@pytest.mark.parametrize("code", CODES)
def test_a_failure_is_the_same_over_call_attach_and_output(server, code):
    """A handler picks any code, and the server makes it the status: it stays the handler's failure everywhere."""
    client = server.ingress
    how = {"code": code, "message": f"no\x00 é {code}", "metadata": {"why": "because"}}
    called = client.call("Fails", "fail", how, idempotency_key=fresh())
    if code == 200 and server.is_legacy:
        # 1.6 marks no failure, and a 200 is a 200: only SQL tells that it failed.
        assert called.state is OutputState.READY
        row = server.admin.sys_invocations([called.invocation_id])[0]
        assert row.failure == (200, how["message"])
        return
    attached = client.attach(called.invocation_id)
    read = client.output(called.invocation_id)
    # Their answers have no body. From 1.7.9 on the status tells the message.
    bodiless = code in {101, 204, 304}
    for output in (called, attached, read):
        assert output.state is OutputState.FAILED
        assert output.invocation_id == called.invocation_id
        assert output.failure.code == code
        assert output.failure.message == ("" if bodiless and server.is_legacy else how["message"])
        with pytest.raises(InvocationFailed) as caught:
            output.result()
        assert caught.value.code == code
    # 1.6 keeps no metadata with a result: only the call itself tells it.
    telling = () if bodiless else (called,) if server.is_legacy else (called, attached, read)
    for output in telling:
        assert output.failure.metadata == how["metadata"]


def test_a_failure_that_comes_while_waiting(server):
    how = {"code": 404, "message": "not found"}
    receipt = server.ingress.send("Fails", "fail_slowly", how, idempotency_key=fresh())
    output = server.ingress.attach(receipt.invocation_id)
    # The very words that attach has for an unknown invocation, and yet it is the handler's.
    assert output.state is OutputState.FAILED
    assert (output.failure.code, output.failure.message) == (404, "not found")


@pytest.mark.parametrize("code", [100, 102, 150, 199])
def test_a_call_that_fails_with_a_code_that_http_can_not_carry(server, code):
    """Its key leads to the failure; without one nobody can tell it from a broken proxy."""
    how = {"code": code, "message": "hm"}
    # What ran before may have left a kept-alive connection that the server has hung up: that would be another error.
    server.ingress.close()
    with pytest.raises(OutcomeUnknown, match="no answer can have"):
        server.ingress.call("Fails", "fail", how)
    key = fresh()
    if server.is_legacy:
        with pytest.raises(OutcomeUnknown):
            server.ingress.call("Fails", "fail", how, idempotency_key=key)
        return
    output = server.ingress.call("Fails", "fail", how, idempotency_key=key)
    assert (output.failure.code, output.failure.message) == (code, "hm")


@pytest.mark.parametrize("code", [100, 102, 199])
def test_a_code_that_http_can_not_carry(server, code):
    """The server answers 500 with nothing at all; on 1.7.9 and later, its status has the failure."""
    receipt = server.ingress.send("Fails", "fail", {"code": code, "message": "hm"}, idempotency_key=fresh())
    wait_for(lambda: server.admin.sys_invocations([receipt.invocation_id])[0].completed_at, what="the end")
    assert server.admin.sys_invocations([receipt.invocation_id])[0].failure == (code, "hm")
    if server.is_legacy:
        with pytest.raises(Unavailable, match="no answer can have"):
            server.ingress.output(receipt.invocation_id)
        return
    for output in (server.ingress.output(receipt.invocation_id), server.ingress.attach(receipt.invocation_id)):
        assert output.state is OutputState.FAILED
        assert (output.failure.code, output.failure.message) == (code, "hm")


def test_cancelled_and_killed(server):
    from restate_django.client import final_status

    for act, status in ((server.admin.cancel_invocation, "cancelled"), (server.admin.kill_invocation, "killed")):
        receipt = server.ingress.send("Wire", "nap", 600, idempotency_key=fresh())
        wait_for(
            lambda receipt=receipt: (
                server.admin.sys_invocations([receipt.invocation_id])[0].status in {"running", "suspended"}
            ),
            what="the start",
        )
        act(receipt.invocation_id)
        failure = server.ingress.attach(receipt.invocation_id).failure
        assert final_status(failure.code, failure.message) == status


# ---------------------------------------------------------------- scopes


def test_scopes_and_limit_keys(scoped):
    client, key = scoped.ingress, fresh()
    inspected = client.call("Wire", "inspect", b"x", scope="tenant-a", limit_key="free/user.42", idempotency_key=key)
    assert (inspected.value["scope"], inspected.value["limit_key"]) == ("tenant-a", "free/user.42")
    target = Target.idempotent("Wire", "inspect", key, scope="tenant-a")
    assert client.output(target=target).invocation_id == inspected.invocation_id
    assert client.attach(target=target).invocation_id == inspected.invocation_id
    assert client.lookup(target) == inspected.invocation_id
    assert client.status(target=target).stage == "completed"
    # The scope is a part of what it is: without it, or in another, it is another invocation.
    for scope in (None, "tenant-b"):
        assert client.output(target=Target.idempotent("Wire", "inspect", key, scope=scope)).state is OutputState.UNKNOWN

    assert client.call("Box", "put", 1, key=key, scope="a").value["before"] is None
    assert client.call("Box", "put", 2, key=key, scope="b").value["before"] is None
    assert client.call("Box", "put", 3, key=key, scope="a").value["before"] == 1

    assert client.submit_or_attach("Flow", key, 1, scope="a", limit_key="free").value["value"] == 1
    assert client.submit_or_attach("Flow", key, 2, scope="b").value["value"] == 2
    assert client.output(target=Target.workflow("Flow", key, scope="a")).value["value"] == 1
    assert client.output(target=Target.workflow("Flow", key)).state is OutputState.UNKNOWN
    receipt = client.send("Wire", "greet", "x", scope="a" * 36, limit_key="b" * 36 + "/" + "c" * 36)
    assert client.attach(receipt.invocation_id).value == "Hello x!"


def test_a_scope_where_there_are_none(server):
    if server.is_legacy:
        with pytest.raises(NotSupported, match="scope"):
            server.ingress.send("Wire", "greet", "x", scope="a")
    else:
        with pytest.raises(Refused, match="scope") as caught:
            server.ingress.send("Wire", "greet", "x", scope="a")
        assert not caught.value.may_have_run
