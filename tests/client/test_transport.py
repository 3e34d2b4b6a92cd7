"""The wire: deadlines that hold, connections that break, and what each break proves."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from restate_django import conf
from restate_django.client import (
    AdminClient,
    EncodedPayload,
    IngressClient,
    OutputState,
    Target,
    outcomes,
    targets,
    transport,
)
from restate_django.client.transport import Request, Transport, retry_after
from restate_django.exceptions import (
    InvalidRequest,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    Refused,
    RequestError,
    RequestTimeout,
    ResponseTooLarge,
    RestateError,
    Unavailable,
)
from tests.client.wire import ACCEPTED, ID, Peer, WireServer, answer, hang_up, reset, response
from tests.require import require

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "s3cret-token"
JSON = "application/json"


def ingress(server, **settings):
    settings.setdefault("timeout", 5.0)
    return IngressClient(server.url, TOKEN, **settings)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def took(function):
    start = time.monotonic()
    try:
        function()
    except RestateError as error:
        return error, time.monotonic() - start
    return None, time.monotonic() - start


# ---------------------------------------------------------------- the deadline


def trickle_headers(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 202 X\r\n")
    peer.trickle(b"x-slow: " + b"a" * 10_000)


def trickle_status_line(peer: Peer) -> None:
    peer.read()
    peer.trickle(b"HTTP/1.1 202 " + b"a" * 10_000)


def trickle_body(peer: Peer) -> None:
    peer.read()
    peer.write(response(202, length=10_000, content_type=JSON, x_restate_id=ID))
    peer.trickle(b"a" * 10_000)


def trickle_chunks(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 202 X\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(1000):
        if peer.server.closing.wait(0.05):
            return
        peer.write(b"1\r\na\r\n")


def never_answer(peer: Peer) -> None:
    peer.read()
    peer.wait()


def never_read(peer: Peer) -> None:
    peer.server.closing.wait(10)


@pytest.mark.parametrize(
    "script", [trickle_headers, trickle_status_line, trickle_body, trickle_chunks, never_answer, never_read]
)
def test_the_deadline_is_for_the_whole_request(script):
    """A socket's timeout is per operation: a server that sends a byte now and then beats it. Ours holds."""
    with WireServer(script) as server, ingress(server) as client:
        # Larger than the buffers on the way, so that a peer that never reads blocks the sending.
        payload = EncodedPayload(b"x" * (8 * 2**20 if script is never_read else 10), "a/b")
        error, seconds = took(lambda: client.send("S", "h", payload, timeout=0.4))
    assert isinstance(error, RequestTimeout)
    assert isinstance(error, (requests.Timeout, TimeoutError))
    assert error.may_have_run
    assert 0.3 < seconds < 1.5
    assert "0.4 s" in str(error)


def test_a_read_that_times_out_leaves_nothing_unknown():
    with WireServer(never_answer) as server, ingress(server, timeout=0.5) as client:
        error, _ = took(lambda: client.output(ID))
    assert isinstance(error, RequestTimeout)
    assert not error.may_have_run


def test_a_connect_that_times_out_proves_that_nothing_ran():
    # A listener with a full backlog answers no further connection.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            with IngressClient(f"http://127.0.0.1:{port}", timeout=5, connect_timeout=0.2) as client:
                error, seconds = took(lambda: client.send("S", "h"))
        finally:
            for filler in fillers:
                filler.close()
    assert isinstance(error, Unavailable)
    assert not error.may_have_run
    assert seconds < 1.5


def test_a_silent_address_does_not_take_the_time_of_one_that_answers(monkeypatch):
    """Each of a host's addresses gets its share: with all of it, the first would use up the deadline."""
    with socket.socket() as silent, WireServer(answer(ACCEPTED)) as server:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        where = [silent.getsockname(), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in where]
        with monkeypatch.context() as patch, IngressClient("http://two.example", timeout=2) as client:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert client.send("S", "h").invocation_id == ID
            client.close()
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: [found[0]] * 3)
            error, seconds = took(lambda: client.send("S", "h", timeout=0.6))
        for filler in fillers:
            filler.close()
    assert isinstance(error, Unavailable)
    assert seconds < 1.2


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_timeout_must_be_seconds(timeout):
    with pytest.raises(InvalidRequest, match="timeout"):
        IngressClient("http://localhost", timeout=timeout)
    with IngressClient("http://localhost") as client, pytest.raises(InvalidRequest, match="timeout"):
        client.send("S", "h", timeout=timeout)


# ---------------------------------------------------------------- what a break proves


def test_a_refused_connection_proves_that_nothing_ran():
    with IngressClient(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unavailable) as caught:
        client.send("Greeter", "greet")
    assert not isinstance(caught.value, Misconfigured)
    assert isinstance(caught.value, requests.ConnectionError)
    assert not caught.value.may_have_run
    assert caught.value.retryable
    assert caught.value.target == "Greeter/greet"
    assert "refused" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("LocalHost", "localhost"), ("[::1]", "[::1]")]
)
def test_a_connection_that_did_not_come_about_names_its_address(host, address):
    port = free_port()
    with IngressClient(f"http://{host}:{port}/prefix", TOKEN, headers={"x-key": "s3cret"}) as client:
        for act in (lambda: client.send("S", "h"), lambda: client.output(ID)):
            with pytest.raises(Unavailable, match=re.escape(f"with {address}:{port} (")) as caught:
                act()
            assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("url", "address"), [("http://no-such.invalid", ":80"), ("https://no-such.invalid/a", ":443")])
def test_an_address_has_its_schemes_port(url, address):
    with IngressClient(url) as client, pytest.raises(Unavailable, match=re.escape(f"with no-such.invalid{address} (")):
        client.send("S", "h", timeout=5)


def test_an_unknown_host_proves_that_nothing_ran():
    with IngressClient("http://no-such-host.invalid") as client, pytest.raises(Unavailable) as caught:
        client.send("S", "h", timeout=5)
    assert not caught.value.may_have_run


@pytest.mark.parametrize("script", [hang_up, reset])
def test_a_hang_up_after_the_request_proves_nothing(script):
    with WireServer(script) as server, ingress(server) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            client.send("S", "h")
        assert type(caught.value) is OutcomeUnknown
        assert caught.value.may_have_run
        # The same break of a read leaves nothing unknown.
        with pytest.raises(Unavailable) as read:
            client.output(ID)
        assert not read.value.may_have_run


def cut_off(peer: Peer) -> None:
    peer.read()
    peer.write(response(202, b'{"invocationId"', length=500, x_restate_id=ID, content_type=JSON))


def cut_off_chunks(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 202 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{")


def garbage(peer: Peer) -> None:
    peer.read()
    peer.write(b"\x00\x01\x02 not HTTP at all\r\n\r\n")


def test_what_a_broken_answer_says_is_one_line_of_the_error():
    def forge(peer: Peer) -> None:
        peer.read()
        peer.write(b"ERROR forged\x1b[31m" + b"x" * 5000 + b"\r\n\r\n")

    with WireServer(forge) as server, ingress(server) as client, pytest.raises(OutcomeUnknown) as caught:
        client.send("S", "h")
    assert r"ERROR forged\x1b[31mxxx" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("script", [cut_off, cut_off_chunks, garbage])
def test_a_broken_answer_proves_nothing(script):
    with WireServer(script) as server, ingress(server) as client, pytest.raises(OutcomeUnknown) as caught:
        client.send("S", "h")
    assert caught.value.may_have_run


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_an_answer_that_is_cut_inside_its_headers_is_no_answer(kept):
    """Python's HTTP client takes the end of the connection for the end of the headers, and then for an empty body."""
    head = f"HTTP/1.1 200 OK\r\nx-restate-id: {ID}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"

    def cut_inside_the_headers(peer: Peer) -> None:
        peer.read()
        peer.write(head[: int(len(head) * kept)].encode())

    with WireServer(cut_inside_the_headers) as server, ingress(server) as client:
        with pytest.raises(Unavailable):
            client.output(ID)
        with pytest.raises(OutcomeUnknown):
            client.call("S", "h")


@pytest.mark.parametrize(
    ("length", "kind"),
    [
        ("²", OutcomeUnknown),  # a digit to str.isdigit(), and none to int()
        ("1_0", OutcomeUnknown),
        ("-5", OutcomeUnknown),
        ("", OutcomeUnknown),
        ("41, 42", OutcomeUnknown),
        ("9" * 18, ResponseTooLarge),
        ("9" * 5000, ResponseTooLarge),  # more digits than int() reads
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_announced_length_that_no_body_has(length, kind):
    def script(peer: Peer) -> None:
        while peer.read():
            head = f"HTTP/1.1 200 X\r\nx-restate-id: {ID}\r\ncontent-length: {length}\r\n\r\n"
            peer.write(head.encode("latin-1") + b"a" * 41)

    with WireServer(script) as server, ingress(server) as client:
        with pytest.raises(kind) as sent:
            client.call("S", "h")
        assert sent.value.may_have_run
        with pytest.raises(RequestError) as read:
            client.output(ID)
        assert not read.value.may_have_run


def test_a_length_that_is_said_twice_is_one():
    said = ACCEPTED.replace(
        b"content-length: ", b"content-length: %d\r\ncontent-length: " % len(ACCEPTED.split(b"\r\n\r\n")[1])
    )
    with WireServer(answer(said)) as server, ingress(server) as client:
        assert client.send("S", "h").invocation_id == ID


@pytest.mark.parametrize("kind", [ValueError, UnicodeDecodeError, TypeError, KeyError, OverflowError, AssertionError])
def test_whatever_goes_wrong_in_reading_an_answer_is_an_unknown_outcome(monkeypatch, kind):
    error = kind("utf-8", b"", 0, 1, "odd") if kind is UnicodeDecodeError else kind("odd")

    def read(*_):
        raise error

    monkeypatch.setattr(Transport, "_read", read)
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        with pytest.raises(OutcomeUnknown) as sent:
            client.send("S", "h")
        assert sent.value.may_have_run
        assert sent.value.__cause__ is error
        with pytest.raises(Unavailable):
            client.output(ID)


def test_what_interrupts_a_request_comes_through_as_itself(monkeypatch):
    """A Celery task's soft time limit is an Exception as well, and no answer's fault."""

    class SoftTimeLimitExceeded(Exception):
        pass

    def interrupt(*_):
        raise SoftTimeLimitExceeded

    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Transport, "_read", interrupt)
            with pytest.raises(SoftTimeLimitExceeded):
                client.send("S", "h")
        assert client.send("S", "h").invocation_id == ID


def test_a_bug_before_anything_was_sent_is_no_unknown_outcome(monkeypatch):
    def odd(*_, **__):
        raise TypeError("odd")

    monkeypatch.setattr(socket, "getaddrinfo", odd)
    with IngressClient("http://127.0.0.1:9") as client, pytest.raises(TypeError, match="odd"):
        client.send("S", "h")


@pytest.mark.parametrize(
    "headers",
    [{"length": 5000}, {}],
    ids=["announced", "as it comes"],
)
def test_an_answer_over_the_limit_is_not_read(headers):
    def script(peer: Peer) -> None:
        peer.read()
        peer.write(response(200, b"a" * 5000, x_restate_id=ID) if headers else b"HTTP/1.1 200 X\r\n\r\n" + b"a" * 5000)

    with WireServer(script) as server, ingress(server, max_response_size=1000) as client:
        with pytest.raises(ResponseTooLarge) as sent:
            client.call("S", "h")
        assert sent.value.may_have_run
        with pytest.raises(ResponseTooLarge) as read:
            client.output(ID)
        assert not read.value.may_have_run
        assert "1000" in str(read.value)
        assert (read.value.invocation_id, read.value.size) == ((ID, 5000) if headers else (None, 1001))


def test_a_redirect_is_never_followed():
    with WireServer(answer(ACCEPTED)) as elsewhere:
        moved = response(307, location=f"{elsewhere.url}/restate/send/S/h")
        with WireServer(answer(moved)) as server, ingress(server) as client:
            with pytest.raises(Misconfigured, match=r"[Rr]edirect"):
                client.send("S", "h", {"a": 1})
            with pytest.raises(Misconfigured):
                client.output(ID)
        assert elsewhere.requests == []


def test_a_proxys_page_is_not_an_answer():
    page = response(200, b"<html>Welcome</html>", content_type="text/html")
    with WireServer(answer(page)) as server, ingress(server) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            client.send("S", "h")
        assert "<html>" not in str(caught.value)
        with pytest.raises(OutcomeUnknown):
            client.output(ID)
        with pytest.raises(OutcomeUnknown):
            client.health()
        with AdminClient(server.url) as admin, pytest.raises(OutcomeUnknown):
            admin.version()


# ---------------------------------------------------------------- kept-alive connections


def test_connections_are_kept():
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        for _ in range(3):
            client.send("S", "h")
        assert server.connections == 1


def one_then_hang_up(peer: Peer) -> None:
    """Answer once, take a second request and hang up on it: the race that a keep-alive timeout makes."""
    peer.read()
    peer.write(ACCEPTED)
    peer.read()


def test_a_dead_connection_costs_a_keyed_send_nothing():
    with WireServer(one_then_hang_up, answer(ACCEPTED)) as server, ingress(server) as client:
        first = client.send("S", "h", idempotency_key="a")
        second = client.send("S", "h", idempotency_key="b")
        assert (first.resent, second.resent) == (False, True)
        assert server.connections == 2
        assert len(server.requests) == 3


def test_a_dead_connection_is_no_excuse_to_send_twice():
    with WireServer(one_then_hang_up, answer(ACCEPTED)) as server, ingress(server) as client:
        client.send("S", "h")
        with pytest.raises(OutcomeUnknown):
            client.send("S", "h")
        assert len(server.requests) == 2
        # A read, and a workflow's run that says so, may be repeated.
    with WireServer(one_then_hang_up, answer(ACCEPTED)) as server, ingress(server) as client:
        client.send("S", "h")
        assert client.send("W", "run", key="k", repeatable=True).resent


def test_a_second_try_that_nothing_can_come_of_does_not_hide_the_first():
    """The first attempt may have run, so a refused second one must not say that nothing did."""
    refusal = response(429, b'{"message":"busy"}', content_type=JSON, x_restate_error_source="ingress")
    with WireServer(one_then_hang_up, answer(refusal)) as server, ingress(server) as client:
        client.send("S", "h", idempotency_key="a")
        with pytest.raises(OutcomeUnknown) as caught:
            client.send("S", "h", idempotency_key="b")
    assert caught.value.may_have_run
    assert caught.value.status == 429


def test_a_connection_is_not_used_after_a_query_which_asks_for_its_end():
    """A cancellation that found it dead would not know whether it arrived."""
    rows = response(200, b'{"rows": []}', content_type=JSON)
    taken = response(202)
    with WireServer(one_answer_of(rows), answer(taken)) as server, AdminClient(server.url) as admin:
        assert admin.query("SELECT 1") == []
        assert not admin.cancel_invocation(ID).done
        assert server.connections == 2
        assert len(server.requests) == 2


def one_answer_of(data: bytes) -> Callable[[Peer], None]:
    """Answer once, and stay silent: a server that is slow to hang up."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.write(data)
        peer.read()

    return script


def test_a_connection_is_not_used_after_a_refusal_of_a_body():
    """Restate refuses large bodies unread and hangs up; the next send must not find that connection."""
    refused = response(413, b"length limit exceeded", content_type="text/plain")
    with WireServer(answer(refused), answer(ACCEPTED)) as server, ingress(server) as client:
        with pytest.raises(Refused):
            client.send("S", "h", {"a": 1})
        assert client.send("S", "h", {"a": 1}).invocation_id == ID
        assert server.connections == 2


# ---------------------------------------------------------------- retries


BUSY = response(429, b'{"message":"busy"}', content_type=JSON, x_restate_error_source="ingress", retry_after="0")
BROKEN = response(503, b"", content_length_="0")


def test_nothing_is_retried_unless_told_to():
    with WireServer(answer(BUSY)) as server, ingress(server) as client:
        with pytest.raises(Unavailable) as caught:
            client.send("S", "h", idempotency_key="a")
        assert caught.value.retry_after == 0.0
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "bad",
    [
        BUSY,
        response(500, b"x"),
        response(503, b""),
        response(408, b""),
        response(425, b""),
        response(429, b"<html>slow down</html>", content_type="text/html", retry_after="0"),
    ],
)
def test_what_may_be_repeated_is_retried(bad):
    with WireServer(answer(bad, bad, ACCEPTED)) as server, ingress(server, retries=2) as client:
        receipt = client.send("S", "h", idempotency_key="a")
        assert receipt.invocation_id == ID
        # What surely did not run was not sent twice.
        assert receipt.resent == (b" 425 " not in bad and b" 429 " not in bad)
        assert len(server.requests) == 3
        assert len({request.split(b"\r\n\r\n")[0] for request in server.requests}) == 1


def test_a_send_without_a_key_is_never_retried():
    with WireServer(answer(BUSY)) as server, ingress(server, retries=3) as client:
        with pytest.raises(Unavailable):
            client.send("S", "h")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (response(404, b'{"message":"not found"}', content_type=JSON), Misconfigured),
        (response(400, b'{"message":"bad"}', content_type=JSON, x_restate_error_source="ingress"), Refused),
        (response(400, b'{"message":"bad"}', content_type=JSON), Misconfigured),
        (response(200, b"what"), OutcomeUnknown),
    ],
)
def test_what_a_retry_can_not_cure_is_not_retried(bad, kind):
    with WireServer(answer(bad)) as server, ingress(server, retries=3) as client:
        with pytest.raises(kind):
            client.send("S", "h", idempotency_key="a")
        assert len(server.requests) == 1


def test_retries_end_with_the_deadline():
    wait = response(503, b"", retry_after="60")
    with WireServer(answer(wait)) as server, ingress(server, retries=5, timeout=1) as client:
        error, seconds = took(lambda: client.output(ID))
        assert isinstance(error, Unavailable)
        assert error.retry_after == 60
        assert seconds < 0.9
        assert len(server.requests) == 1
    with WireServer(answer(BROKEN)) as server, ingress(server, retries=10**6, timeout=2) as client:
        error, seconds = took(lambda: client.output(ID))
        assert isinstance(error, Unavailable)
        assert seconds < 2.9
        assert len(server.requests) > 1


def test_a_refused_connection_is_retried_until_the_server_is_there():
    port = free_port()
    with IngressClient(f"http://127.0.0.1:{port}", retries=2, timeout=5) as client:
        error, _ = took(client.health)
    assert isinstance(error, Unavailable)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("3", 3.0),
        ("soon", None),
        ("-1", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("²", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after({"retry-after": value}) == seconds
    assert retry_after({}) is None


# ---------------------------------------------------------------- what is sent


def test_what_goes_over_the_wire():
    with (
        WireServer(answer(ACCEPTED)) as server,
        IngressClient(server.url + "/prefix/", headers={"X-Tenant": "t"}) as client,
    ):
        client.send("S", "h", {"a": 1}, idempotency_key="k", headers={"x-trace": "1"}, scope="sc", limit_key="a/b")
        client.send("S", "h")
    first, second = server.requests
    head, _, body = first.partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /prefix/restate/scope/sc/send/S/h HTTP/1.1"
    headers = dict(line.lower().split(": ") for line in lines[1:])
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "restate-django",
        "x-tenant": "t",
        "x-trace": "1",
        "content-type": "application/json",
        "content-length": "7",
        "idempotency-key": "k",
        "x-restate-limit-key": "a/b",
    }
    assert b"content-type" not in second.lower()
    assert b"content-length: 0" in second.lower()


def test_a_request_can_be_looked_at_without_a_network():
    client = IngressClient("http://localhost:1", TOKEN)
    request = client.prepare_send(Target("Greeter", "greet", idempotency_key="k"), {"name": "Mary"})
    assert (request.method, request.path, request.body) == ("POST", "/restate/send/Greeter/greet", b'{"name":"Mary"}')
    prepared = client.transport.prepare(request)
    assert prepared.url == "http://localhost:1/restate/send/Greeter/greet"
    assert prepared.headers["authorization"] == f"Bearer {TOKEN}"
    client.close()


def test_cookies_are_not_kept_and_the_environment_is_not_read(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    accepted = ACCEPTED.replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1)
    with WireServer(answer(accepted)) as server, IngressClient(server.url) as client:
        client.send("S", "h")
        client.send("S", "h")
        assert not any(
            b"cookie" in request.lower() or b"authorization" in request.lower() for request in server.requests
        )
        with (
            IngressClient(server.url, trust_env=True) as trusting,
            pytest.raises(Unavailable, match="Nothing was sent") as caught,
        ):
            trusting.send("S", "h")
        assert not caught.value.may_have_run


def test_a_proxy_of_the_environment_is_used_and_keeps_the_deadline(monkeypatch):
    with WireServer(answer(ACCEPTED), trickle_headers) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with IngressClient("http://restate.example:8080", trust_env=True) as client:
            assert client.send("S", "h").invocation_id == ID
            client.close()
            error, seconds = took(lambda: client.send("S", "h", timeout=0.3))
        assert isinstance(error, RequestTimeout)
        assert seconds < 1.5
    assert proxy.requests[0].startswith(b"POST http://restate.example:8080/restate/send/S/h HTTP/1.1")


# ---------------------------------------------------------------- secrets


def test_no_secret_shows_anywhere(caplog):
    caplog.set_level("DEBUG")
    shown: list[str] = []
    scripts = [answer(response(401, b"")), hang_up, answer(response(500, b"x")), cut_off]
    for script in scripts:
        with WireServer(script) as server, ingress(server, headers={"X-Key": "s3cret-key"}) as client:
            shown += [repr(client), str(client), repr(client.transport)]
            for act in (lambda: client.send("S", "h"), lambda: client.output(ID)):
                with pytest.raises(RestateError) as caught:
                    act()
                error = caught.value
                shown += [str(error), repr(error), repr(error.__dict__), repr(pickle.loads(pickle.dumps(error)))]
                cause = error.__cause__
                if isinstance(cause, requests.RequestException):
                    assert cause.request is None
    with AdminClient("http://127.0.0.1:1", TOKEN) as admin:
        shown.append(repr(admin))
    assert len(shown) > 20
    assert "s3cret" not in "".join(shown)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("headers", [{}, {"X-Key": "s3cret-key"}, {"X-Auth": "Basic s3cret-pair"}])
def test_an_answer_that_repeats_a_secret_does_not_get_it_into_an_error(headers):
    said = f"bad credentials: Bearer {TOKEN}, {list(headers.values())}, s3cret-pair"
    body = json.dumps({"message": said}).encode()
    for status in (400, 401, 404, 429, 500):
        with (
            WireServer(answer(response(status, body, content_type=JSON))) as server,
            IngressClient(server.url, TOKEN, headers=headers) as client,
        ):
            for act in (lambda: client.send("S", "h"), lambda: client.status(ID)):
                with pytest.raises(RestateError) as caught:
                    act()
                assert "***" in str(caught.value)
                shown = [str(caught.value), repr(caught.value), repr(pickle.loads(pickle.dumps(caught.value)))]
                assert TOKEN not in "".join(shown)
                assert not any(value in "".join(shown) for value in headers.values())


def test_a_rule_has_one_home():
    """What the setting takes, the client takes: two copies of a rule drift apart."""
    assert outcomes.INVOCATION_ID is targets.INVOCATION_ID
    for fault in ("url_fault", "token_fault"):
        assert getattr(transport, fault) is getattr(conf, fault) is getattr(targets, fault)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "é", 5])
def test_a_token_that_can_not_be_sent_is_refused(token):
    with pytest.raises(InvalidRequest, match="token") as caught:
        IngressClient("http://localhost", token)
    assert repr(token) not in str(caught.value) or token == ""
    with pytest.raises(InvalidRequest, match="not both"):
        IngressClient("http://localhost", "t", headers={"authorization": "Basic x"})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://localhost",
        "http://",
        "http://:80",
        "http://host:99999",
        "http://host:port",
        "http://user:s3cret@host",
        "http://host?x=1",
        "http://host/#x",
        "http://ho st",
        "http://host/\n",
        "http://host/\u2028",
        "http://host\\@other",
        "http://host?",
        "http://host#",
        "",
        None,
    ],
)
def test_a_url_that_can_not_be_used_is_refused(url):
    with pytest.raises(InvalidRequest, match="URL") as caught:
        IngressClient(url)
    assert "s3cret" not in str(caught.value)


def test_errors_travel_between_processes():
    error = Unavailable("m", status=429, code=1, target="t")
    error.retry_after = 2.0
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.status, again.retry_after) == (Unavailable, "t: m", 429, 2.0)


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody trusts but who is told to."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"),
                *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            ],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        require(condition=False, reason=f"openssl made no certificate: {error}")
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_tls_is_verified_by_the_bundle_that_is_given(certificate, tls):
    with WireServer(answer(ACCEPTED), context=tls) as server:
        with ingress(server, ca_bundle=certificate[0]) as client:
            assert client.send("S", "h").invocation_id == ID
            assert client.send("S", "h").invocation_id == ID
        with ingress(server) as client, pytest.raises(Misconfigured, match="TLS") as caught:
            client.send("S", "h")
        assert not caught.value.may_have_run
        assert len(server.requests) == 2


def test_the_deadline_holds_over_tls(certificate, tls):
    with (
        WireServer(trickle_headers, context=tls) as server,
        ingress(server, ca_bundle=str(certificate[0])) as client,
    ):
        error, seconds = took(lambda: client.send("S", "h", timeout=0.4))
    assert isinstance(error, RequestTimeout)
    assert error.may_have_run
    assert seconds < 1.5


def test_a_handshake_that_never_ends_proves_that_nothing_ran():
    with WireServer(never_read) as server, IngressClient(server.url.replace("http", "https"), timeout=0.4) as client:
        error, seconds = took(lambda: client.send("S", "h"))
    assert isinstance(error, Unavailable)
    assert seconds < 1.5


def test_a_bundle_that_is_not_there_is_a_setting():
    with (
        WireServer(never_read) as server,
        IngressClient(server.url.replace("http", "https"), ca_bundle="/no/such/bundle.pem") as client,
        pytest.raises(Misconfigured, match="bundle"),
    ):
        client.send("S", "h")


# ---------------------------------------------------------------- processes and threads


def test_threads_do_not_share_a_connection():
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        barrier = threading.Barrier(4)

        def work(_):
            barrier.wait(5)
            return [client.send("S", "h", idempotency_key="k").invocation_id for _ in range(5)]

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(4))) == [[ID] * 5] * 4
        assert server.connections == 4
        # The threads are gone; the next session that is opened closes theirs.
        client.send("S", "h")
        assert len(client.transport._sessions) == 1


def test_a_closed_client_can_be_used_again():
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        client.send("S", "h")
        client.close()
        client.send("S", "h")
        assert server.connections == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # 3.12 warns of threads: the server's, in this test
def test_a_fork_never_uses_its_parents_connection():
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        client.send("S", "h")
        pid = os.fork()
        if pid == 0:
            # The child must not return into pytest, whatever happens.
            try:
                ok = client.send("S", "h").invocation_id == ID and len(client.transport._sessions) == 1
            except BaseException:  # noqa: BLE001 - told by the exit code
                ok = False
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.send("S", "h")
        assert server.connections == 2, "the child opened its own, and the parent kept its own"
        assert len(server.requests) == 3


def test_an_interrupted_request_leaves_no_half_read_answer():
    """A Celery time limit strikes in the middle: the next request must not read the rest of this answer."""

    class Interrupted(BaseException):
        pass

    def slow_body(peer: Peer) -> None:
        peer.read()
        peer.write(response(202, b'{"half"', length=50, content_type=JSON))
        peer.wait()

    with WireServer(slow_body, answer(ACCEPTED)) as server, ingress(server) as client:
        import signal

        def strike(*_):
            raise Interrupted

        before = signal.signal(signal.SIGALRM, strike)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                client.send("S", "h")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert client.send("S", "h").invocation_id == ID
        assert server.connections == 2


def test_one_exchange_with_the_bare_transport():
    with WireServer(answer(response(404, b"no"))) as server:
        transport = Transport(server.url)
        found = transport.exchange(Request("GET", "/x?y=%2F"), lambda answer: (answer.status, answer.body))
        assert found == (404, b"no")
        assert server.requests[0].startswith(b"GET /x?y=%2F HTTP/1.1")

        def refuse(_):
            raise NotFound("gone", status=404)

        with pytest.raises(RequestError, match="gone"):
            transport.exchange(Request("GET", "/x"), refuse)
        transport.close()


@pytest.mark.parametrize("read", ["output", "attach"])
@pytest.mark.parametrize("code", [200, 500])
def test_another_invocations_output_is_none(read, code):
    """A cache or a proxy that mixes answers up must not end an invocation with another one's output."""
    body = b'{"code": 500, "message": "no", "source": "invocation"}'
    for named in ("inv_1bBtpXeOGpvP6LCtCND899C2uneaMernfr", "nobody's"):
        result = response(code, body, x_restate_id=named, content_type=JSON)
        with WireServer(answer(result)) as server, ingress(server) as client:
            with pytest.raises((OutcomeUnknown, Unavailable)) as caught:
                getattr(client, read)(ID)
            assert not caught.value.may_have_run


def test_an_output_that_is_not_ready_is_no_error():
    body = b'{"code":470,"message":"the invocation exists but has not completed yet","source":"ingress"}'
    not_ready = response(470, body, content_type=JSON, x_restate_error_source="ingress")
    with WireServer(answer(not_ready)) as server, ingress(server) as client:
        assert client.output(ID).state is OutputState.NOT_READY


def test_a_compressed_answer_is_read_and_a_bomb_is_not():
    def compressed(body):
        packed = gzip.compress(body)
        return response(200, packed, content_encoding="gzip", content_type=JSON, x_restate_id=ID)

    script = answer(compressed(b'"out"'), compressed(b"0" * 10**7))
    with WireServer(script) as server, ingress(server, max_response_size=10**6) as client:
        assert client.output(ID).value == "out"
        with pytest.raises(ResponseTooLarge):
            client.output(ID)


def test_a_deadline_that_is_over_sends_nothing():
    with WireServer(answer(ACCEPTED)) as server, ingress(server) as client:
        client.send("S", "h")
        with pytest.raises(Unavailable) as caught:
            client.send("S", "h", timeout=1e-9)
        assert not caught.value.may_have_run
        assert len(server.requests) == 1


def test_a_workflow_that_was_accepted_may_have_run_whatever_reading_it_says():
    refused = response(400, b'{"message":"bad"}', content_type=JSON, x_restate_error_source="ingress")
    with WireServer(answer(ACCEPTED, refused)) as server, ingress(server) as client:
        with pytest.raises(OutcomeUnknown, match=ID) as caught:
            client.submit_or_attach("Flow", "k", 1)
        assert caught.value.may_have_run


def test_an_unknown_invocation_is_confirmed_before_attach_says_so():
    """Attach says "not found" as a handler would; only output tells the two apart."""
    attach = response(
        404,
        b'{"code":404,"message":"not found","source":"invocation"}',
        content_type=JSON,
        x_restate_id=ID,
        x_restate_error_source="invocation",
    )
    failed = attach.replace(b"content-type", b"idempotency-expires: 2026-11-23T02:36:12.289+00:00\r\ncontent-type")
    unknown = response(
        404,
        b'{"code":404,"message":"invocation not found","source":"ingress"}',
        content_type=JSON,
        x_restate_error_source="ingress",
    )
    not_ready = response(
        470, b'{"code":470,"message":"not yet","source":"ingress"}', content_type=JSON, x_restate_error_source="ingress"
    )
    with WireServer(answer(attach, unknown)) as server, ingress(server) as client:
        assert client.attach(ID).state is OutputState.UNKNOWN
        assert len(server.requests) == 2
    with WireServer(answer(attach, failed)) as server, ingress(server) as client:
        assert client.attach(ID).failure.code == 404
    # It is there after all: attach again.
    with WireServer(answer(attach, not_ready, failed)) as server, ingress(server) as client:
        assert client.attach(ID).failure.message == "not found"
        assert len(server.requests) == 3
