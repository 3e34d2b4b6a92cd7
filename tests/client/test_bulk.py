"""Many requests at once by libcurl: the same bytes, the same outcomes and the same promises as one by one."""

from __future__ import annotations

import multiprocessing
import re
import socket
import threading
from typing import Any

import pytest

from restate_django.client import EncodedPayload, IngressClient, OutputState, Sending, SendReceipt, Target
from restate_django.exceptions import (
    InvalidRequest,
    Misconfigured,
    NotSupported,
    OutcomeUnknown,
    RequestTimeout,
    ResponseTooLarge,
    RestateError,
    Unavailable,
)
from tests.client import test_transport as one_by_one
from tests.client.test_transport import certificate, free_port, tls  # noqa: F401 - fixtures
from tests.client.wire import ACCEPTED, ID, Peer, WireServer, answer, hang_up, reset, response
from tests.require import require_bulk

TOKEN = "s3cret-token"
JSON = "application/json"


@pytest.fixture(autouse=True)
def _libcurl() -> None:
    require_bulk()


def target(number: int = 0) -> Target:
    return Target.idempotent("S", "h", f"key-{number}")


def only(client: IngressClient, sending: Sending | None = None, **options: Any) -> Any:
    ((name, result, seconds),) = client.send_many([("the one", sending or Sending(target()))], **options)
    assert name == "the one"
    assert 0 <= seconds < 30
    return result


def html(peer: Peer) -> None:
    peer.read()
    peer.write(response(502, b"<html>bad gateway</html>", content_type="text/html"))


ODD_ANSWERS = {
    "another id in the header": ACCEPTED.replace(f"x-restate-id: {ID}".encode(), f"x-restate-id: {ID}x".encode()),
    "no JSON": response(202, b"{", x_restate_id=ID, content_type=JSON),
    "an empty 202": response(202),
    "a redirect": response(302, location="http://127.0.0.1:9/"),
    "a proxy's page": response(404, b"<html>no</html>", content_type="text/html"),
    "401": response(401, b"no", content_type="text/plain"),
    "500": response(500, b'{"message":"hm"}', content_type=JSON),
    "429": response(429, b"{}", content_type=JSON, retry_after="1"),
    "an unknown service": response(
        404,
        b'{"code":404,"message":"service \'S\' not found","source":"ingress"}',
        content_type=JSON,
        x_restate_error_source="ingress",
    ),
    "a refusal": response(
        400, b'{"code":400,"message":"bad","source":"ingress"}', content_type=JSON, x_restate_error_source="ingress"
    ),
}
SCRIPTS = {
    **{name: answer(each) for name, each in ODD_ANSWERS.items()},
    **{
        script.__name__: script
        for script in (
            hang_up,
            reset,
            html,
            one_by_one.cut_off,
            one_by_one.cut_off_chunks,
            one_by_one.garbage,
            one_by_one.never_answer,
            one_by_one.trickle_body,
            one_by_one.trickle_headers,
            one_by_one.trickle_chunks,
        )
    },
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_outcome_as_one_by_one(name):
    with WireServer(SCRIPTS[name]) as server, IngressClient(server.url, timeout=0.5) as client:
        with pytest.raises(RestateError) as caught:
            client.send(target())
        error = only(client)
        read = list(client.output_many([(1, ID)]))
        with pytest.raises(RestateError) as read_alone:
            client.output(ID).result()
    alone = caught.value
    assert type(error) is type(alone)
    facts = ("may_have_run", "retryable", "status", "code", "target", "retry_after")
    assert {fact: getattr(error, fact, None) for fact in facts} == {fact: getattr(alone, fact, None) for fact in facts}
    # The reason in brackets is in each library's own words.
    assert re.sub(r"\(.*\)", "", error.message) == re.sub(r"\(.*\)", "", alone.message)
    if isinstance(read[0][1], RestateError):
        assert type(read[0][1]) is type(read_alone.value)
        assert read[0][1].may_have_run == read_alone.value.may_have_run


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_an_answer_that_is_cut_inside_its_headers_is_no_answer(kept):
    head = f"HTTP/1.1 202 OK\r\nx-restate-id: {ID}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"

    def cut(peer: Peer) -> None:
        peer.read()
        peer.write(head[: int(len(head) * kept)].encode())

    with WireServer(cut) as server, IngressClient(server.url, timeout=5) as client:
        assert isinstance(only(client), OutcomeUnknown)


def test_what_proves_that_nothing_ran():
    with IngressClient(f"http://127.0.0.1:{free_port()}", TOKEN, headers={"x-key": "another-secret"}) as client:
        error = only(client)
        assert type(error) is Unavailable
        assert not error.may_have_run
        assert TOKEN not in str(error)
    with IngressClient("http://no-such-host.invalid", timeout=5) as client:
        assert type(only(client)) is Unavailable
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with IngressClient(url, timeout=5, connect_timeout=0.2) as client:
            assert type(only(client)) is Unavailable
        for filler in fillers:
            filler.close()


def test_a_client_that_is_closed_leaves_no_connection_open():
    """Whatever still holds its handles: on some Pythons they lived until the garbage was collected."""
    hung_up = threading.Event()

    def serve(peer: Peer) -> None:
        answer(ACCEPTED)(peer)
        hung_up.set()

    with WireServer(serve) as server:
        client = IngressClient(server.url)
        assert isinstance(only(client), SendReceipt)
        held = client._bulk._engines.mine
        client.close()
        assert hung_up.wait(5)
        assert held is not None
        assert isinstance(only(client), SendReceipt), "it opens new ones"
        client.close()


def test_the_time_of_a_request_can_be_told():
    with WireServer(one_by_one.never_answer) as server, IngressClient(server.url, timeout=30) as client:
        error = only(client, timeout=0.3)
    assert isinstance(error, RequestTimeout)
    assert "0.3 s" in str(error)


def test_too_large():
    body = b'{"x": "%s"}' % (b"a" * 5000)
    for kept in (response(200, body, x_restate_id=ID), b"HTTP/1.1 200 X\r\nx-restate-id: a\r\n\r\n" + body):
        with WireServer(answer(kept)) as server, IngressClient(server.url, max_response_size=1000) as client:
            ((_, read, _),) = client.output_many([(0, ID)], timeout=3)
            assert isinstance(read, ResponseTooLarge)
            assert isinstance(only(client, timeout=3), ResponseTooLarge)


def test_tls_is_verified_by_the_bundle_that_is_given(certificate, tls):  # noqa: F811 - the fixtures
    with WireServer(answer(ACCEPTED), context=tls) as server:
        with IngressClient(server.url, ca_bundle=certificate[0]) as client:
            assert only(client).invocation_id == ID
        with IngressClient(server.url) as client:
            error = only(client)
    assert type(error) is Misconfigured
    assert "TLS" in str(error)


# ---------------------------------------------------------------- what goes over the wire


@pytest.mark.parametrize(
    "sending",
    [
        Sending(target(), {"name": "Mary"}),
        Sending(target()),
        Sending(target(), EncodedPayload(b"\x00\xff\r\n", "a/b"), headers={"X-Tenant": "acme"}),
        Sending(Target.workflow("W", "a/b c%+é"), None),
        Sending(Target.idempotent("O", "h", "k~!", key="..x"), "text"),
        Sending(target(), b"x" * 3_000_000),
    ],
)
def test_the_same_bytes_as_one_by_one(sending, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with WireServer(answer(ACCEPTED)) as server, IngressClient(server.url, TOKEN, headers={"X-Key": "k"}) as client:
        client.send(sending.target, payload=sending.payload, headers=sending.headers)
        assert only(client, sending).invocation_id == ID
        alone, together = server.requests

    def parts(request: bytes) -> tuple[bytes, set[bytes], bytes]:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        return (
            line,
            {name.lower() + b":" + value.strip() for name, _, value in (h.partition(b":") for h in headers)},
            body,
        )

    assert parts(alone) == parts(together)


def test_a_request_that_may_have_been_sent_twice_says_so():
    """libcurl repeats what it sent on a connection that turns out to be dead: an answer to that is our own doing."""

    def once(peer: Peer) -> None:
        peer.read()
        peer.write(ACCEPTED)
        peer.read()

    with WireServer(once, answer(ACCEPTED)) as server, IngressClient(server.url) as client:
        results = [
            result for _, result, _ in client.send_many([(n, Sending(target(n))) for n in (1, 2)], concurrency=1)
        ]
        assert len(server.requests) == 3
    assert all(isinstance(result, SendReceipt) for result in results)
    assert [result.resent for result in results] == [False, True]


def test_connections_are_kept_and_shared_out():
    with WireServer(answer(ACCEPTED)) as server, IngressClient(server.url) as client:
        for _ in range(2):
            found = list(client.send_many(((n, Sending(target(n))) for n in range(50)), concurrency=3))
            assert {name for name, _, _ in found} == set(range(50))
            assert all(isinstance(result, SendReceipt) for _, result, _ in found)
        assert server.connections == 3


def test_requests_are_read_as_they_can_leave():
    read = []

    def sends():
        for number in range(20):
            read.append(number)
            yield number, Sending(target(number))

    with WireServer(answer(ACCEPTED)) as server, IngressClient(server.url) as client:
        found = client.send_many(sends(), concurrency=2)
        next(found)
        assert len(read) <= 3
        # Whoever stops listening leaves the client as it was.
        found.close()
        assert len(list(client.send_many(((n, Sending(target(n))) for n in range(5)), concurrency=2))) == 5


def test_one_that_can_not_be_sent_does_not_stop_the_others():
    unfit = Sending(target(2), headers={"Host": "x"})
    sends = [(1, Sending(target(1))), (2, unfit), (3, Sending(target(3)))]
    with WireServer(answer(ACCEPTED)) as server, IngressClient(server.url) as client:
        found = {name: result for name, result, _ in client.send_many(sends)}
    assert isinstance(found[2], InvalidRequest)
    assert isinstance(found[1], SendReceipt)
    assert isinstance(found[3], SendReceipt)


def test_a_child_of_a_fork_has_connections_of_its_own():
    with WireServer(answer(ACCEPTED)) as server, IngressClient(server.url) as client:
        assert only(client).invocation_id == ID

        def child(results: Any) -> None:
            results.put(only(client).invocation_id)

        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=child, args=(results,))
        process.start()
        assert results.get(timeout=20) == ID
        process.join(20)
        assert process.exitcode == 0
        assert only(client).resent is False
        assert server.connections == 2


def test_without_libcurl_or_through_a_proxy_it_says_what_to_do(monkeypatch):
    with IngressClient("http://localhost") as client:
        assert client.sends_in_bulk
        monkeypatch.setattr("restate_django.client.ingress.is_installed", lambda: False)
        assert not client.sends_in_bulk
        with pytest.raises(NotSupported, match=r"restate-django\[bulk\]"):
            client.send_many([])
    monkeypatch.undo()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with IngressClient("http://localhost", trust_env=True) as client:
        assert not client.sends_in_bulk


# ---------------------------------------------------------------- against real servers


def test_what_is_sent_arrives_unchanged(server):
    payloads = [b"\x00\xff", "é".encode() * 1000, b"x" * 500_000, b"null", b'{"a": NaN}']
    sends = [
        (body, Sending(Target.idempotent("Wire", "echo", f"bulk-{server}-{number}"), EncodedPayload(body, "a/b")))
        for number, body in enumerate(payloads)
    ]
    ids = {}
    for body, receipt, _ in server.ingress.send_many(sends):
        assert isinstance(receipt, SendReceipt), receipt
        assert not receipt.previously_accepted
        ids[receipt.invocation_id] = body
        assert server.ingress.attach(receipt.invocation_id).body == body
    for body, output, _ in server.ingress.output_many((body, invocation_id) for invocation_id, body in ids.items()):
        assert output.state is OutputState.READY
        assert output.body == body
    again = {body: receipt for body, receipt, _ in server.ingress.send_many(sends)}
    assert {receipt.invocation_id: body for body, receipt in again.items()} == ids
    assert all(receipt.previously_accepted for receipt in again.values())


def test_outputs_of_every_kind(server):
    failed = server.ingress.send(
        "Fails", "fail", {"code": 418, "message": "hm"}, idempotency_key=f"bulk-fails-{server}"
    )
    server.ingress.attach(failed.invocation_id)
    waiting = server.ingress.send("Wire", "nap", 600, idempotency_key=f"bulk-waits-{server}")
    ids = [("failed", failed.invocation_id), ("waiting", waiting.invocation_id), ("unknown", ID)]
    found = {name: output for name, output, _ in server.ingress.output_many(ids)}
    assert found["failed"].state is OutputState.FAILED
    assert (found["failed"].failure.code, found["failed"].failure.message) == (418, "hm")
    assert found["waiting"].state is OutputState.NOT_READY
    assert found["unknown"].state is OutputState.UNKNOWN
    server.admin.kill_invocation(waiting.invocation_id)
