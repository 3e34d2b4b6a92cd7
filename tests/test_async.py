"""Coroutines: what they tell is what the plain functions tell, and while they wait no thread does."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync

from restate_django import acall, asend, call, send, send_many
from restate_django.client import IngressClient
from restate_django.dispatch import Outgoing
from restate_django.exceptions import (
    CallTimeout,
    InvalidRequest,
    InvocationFailed,
    Misconfigured,
    NotSupported,
    OperationRefused,
    OutcomeUnknown,
    RequestTimeout,
    ResponseTooLarge,
    RestateError,
    Unavailable,
)
from restate_django.models import Invocation
from tests.client.wire import ID, WireServer, answer, response
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["httpx", "without httpx"])
def way(request, monkeypatch):
    """Both ways to wait: one request on the event loop, and short reads again and again."""
    if request.param == "without httpx":
        monkeypatch.setitem(sys.modules, "httpx", None)
    return request.param


def with_few_threads(work, threads=2):
    """Run a coroutine function on a loop that has few threads to give."""

    async def story():
        with ThreadPoolExecutor(threads) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            return await work()

    return async_to_sync(story)()


# ---------------------------------------------------------------- no thread waits


def test_fifty_that_wait_take_as_long_as_one(restate, way):
    """Two threads would take fifty seconds for what fifty coroutines wait for."""
    rows = send_many([Outgoing("Greeter", "slowly", {"name": str(n), "seconds": 2}) for n in range(50)])
    assert {row.status for row in rows} == {"accepted"}

    async def wait():
        began = time.monotonic()
        said = await asyncio.gather(*(row.aattach(timeout=30) for row in rows))
        return said, time.monotonic() - began

    said, took = with_few_threads(wait)
    assert said == [f"Hello, {n}!" for n in range(50)]
    assert took < 12
    assert set(Invocation.objects.values_list("status", flat=True)) == {"succeeded"}


def test_twenty_calls_take_as_long_as_one(restate, way):
    async def wait():
        began = time.monotonic()
        calls = (acall("Greeter", "slowly", {"name": str(n), "seconds": 2}, timeout=30) for n in range(20))
        return await asyncio.gather(*calls), time.monotonic() - began

    said, took = with_few_threads(wait)
    assert said == [f"Hello, {n}!" for n in range(20)]
    assert took < 10
    assert set(Invocation.objects.values_list("status", "verb")) == {("succeeded", "call")}


def test_while_it_waits_no_thread_is_busy(restate):
    """Each thread of the loop is counted, at a moment when eight coroutines wait."""
    rows = send_many([Outgoing("Slow", "sleep", {"seconds": 60}) for _ in range(8)])
    pool = ThreadPoolExecutor(8)
    busy = threading.Semaphore(8)
    submit = pool.submit

    def counted(work, *args, **kwargs):
        def run():
            with busy:
                return work(*args, **kwargs)

        return submit(run)

    pool.submit = counted

    async def story():
        asyncio.get_running_loop().set_default_executor(pool)
        waits = [asyncio.create_task(row.aattach(timeout=30)) for row in rows]
        await asyncio.sleep(1)
        free = busy._value
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return free

    assert async_to_sync(story)() == 8
    pool.shutdown()
    assert {row.refresh().is_open for row in rows} == {True}, "who stops waiting has not stopped the invocation"
    for row in rows:
        row.kill()


# ---------------------------------------------------------------- the same outcomes


def outcome_of(work):
    """What a call tells: its output, or its error with its words."""
    try:
        return work()
    except RestateError as error:
        message = error.message.replace(str(getattr(getattr(error, "invocation", None), "pk", "")), "")
        return type(error), message, error.code, error.metadata


CALLS = {
    "an output": ("Greeter", "greet", {"name": "Mary"}),
    "no output": ("NoInput", "quiet"),
    "bytes": ("Echo", "raw", b"\x00\xff"),
    "a failure": ("Fail", "terminal", {"code": 422, "message": "no", "metadata": {"a": "b"}}),
    "a failure without a body": ("Fail", "terminal", {"code": 204, "message": "nothing there"}),
    "a failure that HTTP can't carry": ("Fail", "terminal", {"code": 101, "message": "switching"}),
    "a failure of 500": ("Fail", "terminal", {"code": 500, "message": "broken"}),
    "an unknown service": ("Nobody", "greet", {}),
    "a service that remembers nothing": ("Forgetful", "greet", {"name": "Mary"}),
    "a body for a handler without input": ("NoInput", "ping", None),
}


#: What is refused, or forgotten before anybody can ask.
NO_ATTACH = {"an unknown service", "a body for a handler without input", "a service that remembers nothing"}


@pytest.mark.parametrize("what", CALLS, ids=lambda name: name.replace(" ", "-"))
def test_a_call_tells_the_same_in_both_ways(restate, way, what):
    options = {"content_type": "application/octet-stream"} if what == "bytes" else {}
    plain = outcome_of(lambda: call(*CALLS[what], **options))
    waited = outcome_of(lambda: async_to_sync(acall)(*CALLS[what], **options))
    assert waited == plain
    first, second = Invocation.objects.order_by("id")
    columns = ("status", "output", "failure_code", "failure_message", "failure_metadata", "dedupe_digest")
    assert [getattr(second, name) for name in columns] == [getattr(first, name) for name in columns]


@pytest.mark.parametrize("what", [name for name in CALLS if name not in NO_ATTACH])
def test_an_attach_tells_the_same_in_both_ways(restate, what):
    options = {"content_type": "application/octet-stream"} if what == "bytes" else {}
    row = send(*CALLS[what], **options)
    wait_for(lambda: row.refresh().is_finished, what="it to end")
    with IngressClient(restate.ingress_url) as ingress:

        def told(output):
            failure = output.failure
            return (
                output.state,
                output.body if failure is None else b"",
                output.content_type if failure is None else "",
                failure and (failure.code, failure.message, failure.metadata),
            )

        assert told(async_to_sync(ingress.aattach)(row.invocation_id)) == told(ingress.attach(row.invocation_id))


def test_without_an_admin_api_a_call_is_one_request_where_no_thread_waits(restate, settings):
    """Nobody can tell that this service remembers nothing: what was sent would be gone before it is waited for."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    for _time in range(3):
        assert async_to_sync(acall)("Forgetful", "greet", {"name": "Mary"}) == "Hello, Mary!"


def test_a_workflow_is_called_and_attached_to(restate, way):
    key = uuid.uuid4().hex
    output = async_to_sync(acall)("Signup", "run", {"email": "m@example.com"}, key=key)
    assert output == {"email": "m@example.com", "confirmed": True}
    row = Invocation.objects.get()
    assert row.dedupe_digest is not None, "its key binds"
    assert async_to_sync(acall)("Signup", "run", {"email": "m@example.com"}, key=key) == output
    assert Invocation.objects.count() == 1


def test_waiting_has_an_end(restate, way):
    began = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        async_to_sync(acall)("Slow", "sleep", {"seconds": 60}, timeout=0.7)
    assert 0.6 < time.monotonic() - began < 5
    row = Invocation.objects.get()
    assert (caught.value.invocation, row.status) == (row, "accepted"), "it goes on, and its row is polled"
    row.kill()
    with pytest.raises(InvocationFailed, match="killed"):
        async_to_sync(row.aattach)(timeout=5)


def test_who_stops_waiting_for_a_call_leaves_a_row_that_is_polled(restate, way):
    """A visitor who goes away cancels the coroutine of his request."""

    async def story():
        waiting = asyncio.create_task(acall("Greeter", "slowly", {"name": "Mary", "seconds": 2}))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async_to_sync(story)()
    row = Invocation.objects.get()
    assert (row.status, row.lease_token) == ("accepted", None)
    wait_for(lambda: row.refresh().output == "Hello, Mary!", what="the jobs to bring the output")


def test_an_unknown_invocation_is_gone_in_both_ways(restate, way, monkeypatch):
    from datetime import timedelta

    from restate_django import recording

    monkeypatch.setattr(recording, "CONFIRM_AFTER", timedelta(seconds=0.2))
    row = send("Greeter", "greet", {"name": "Mary"})
    Invocation.objects.filter(pk=row.pk).update(invocation_id=ID)
    row.refresh_from_db()
    with pytest.raises(OperationRefused, match="no longer knows"):
        async_to_sync(row.aattach)(timeout=10)


def test_when_nobody_is_there_nothing_ran(settings, way):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:1", "ADMIN_URL": None}}
    with pytest.raises(Unavailable, match="Nothing was sent"):
        async_to_sync(acall)("Greeter", "greet", {})
    assert Invocation.objects.get().status == "rejected"


def test_a_wait_outlives_a_server_that_is_away_for_a_moment(make_restate, settings, way):
    server = make_restate()
    settings.RESTATE = {"default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url}}
    row = send("Greeter", "slowly", {"name": "Mary", "seconds": 2})

    async def story():
        wait = asyncio.create_task(row.aattach(timeout=40))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.server.restart)
        return await wait

    assert async_to_sync(story)() == "Hello, Mary!"


@pytest.mark.parametrize("refused", [{"delay": 1}, {"eta": 1}])
def test_a_call_takes_no_delay(refused):
    with pytest.raises(InvalidRequest, match="takes no"):
        async_to_sync(acall)("Greeter", "greet", **refused)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dely'"):
        async_to_sync(acall)("Greeter", "greet", dely=1)
    assert not Invocation.objects.exists()


def test_without_httpx_a_client_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with IngressClient("http://127.0.0.1:1") as ingress:
        assert not ingress.can_wait
        with pytest.raises(NotSupported, match=r"restate-django\[async\]"):
            async_to_sync(ingress.aattach)(ID)


# ---------------------------------------------------------------- the wire


def test_what_goes_out_is_what_the_plain_client_sends():
    """Byte for byte, but for the order of the headers."""
    done = response(200, b'"x"', content_type="application/json", x_restate_id=ID)

    def sent(way):
        with (
            WireServer(answer(done)) as server,
            IngressClient(f"{server.url}/a%20prefix", "token-of-mine", headers={"X-Proxy": "key"}) as ingress,
        ):
            work = ingress.call if way == "plain" else async_to_sync(ingress.acall)
            options = {"key": "a/b cé..", "idempotency_key": "once", "headers": {"X-Tenant": "acme"}}
            assert work("Cart", "add", {"n": 1}, **options).result() == "x"
            head, _, body = server.requests[0].partition(b"\r\n\r\n")
            line, *headers = head.replace(str(server.port).encode(), b"PORT").split(b"\r\n")
            return line, sorted(header.lower() for header in headers), body

    assert sent("coroutine") == sent("plain")


def hang_up(peer):
    peer.read()
    peer.reset()


def cut(peer):
    peer.read()
    peer.write(response(200, b'"x"', length=10, x_restate_id=ID))


def headless(peer):
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nx-restate-id: x\r\n\r\n")


def trickle(peer):
    peer.read()
    peer.trickle(response(200, b'"' + b"x" * 500 + b'"'))


def large(peer):
    peer.read()
    peer.write(response(200, b"x" * 3000, x_restate_id=ID))


def secret(peer):
    peer.read()
    peer.write(response(500, b'{"message": "you said Bearer token-of-mine"}', content_type="application/json"))


WIRE = {
    "a broken connection": (hang_up, OutcomeUnknown, Unavailable),
    "an answer that is cut off": (cut, OutcomeUnknown, Unavailable),
    "an answer cut in its headers": (headless, OutcomeUnknown, Unavailable),
    "an answer that trickles": (trickle, RequestTimeout, RequestTimeout),
    "an answer over the limit": (large, ResponseTooLarge, ResponseTooLarge),
    "an answer that repeats a secret": (secret, OutcomeUnknown, Unavailable),
}


@pytest.mark.parametrize("what", WIRE, ids=lambda name: name.replace(" ", "-"))
def test_a_wire_that_breaks_means_the_same(what):
    script, of_call, of_attach = WIRE[what]
    with WireServer(script) as server:
        for name, kind in (("call", of_call), ("attach", of_attach)):
            found = []
            for way in ("plain", "coroutine"):
                ingress = IngressClient(server.url, "token-of-mine", timeout=1, max_response_size=2000)
                arguments = ("Greeter", "greet", {}) if name == "call" else (ID,)
                work = getattr(ingress, name) if way == "plain" else async_to_sync(getattr(ingress, f"a{name}"))
                began = time.monotonic()
                with pytest.raises(RestateError) as caught:
                    work(*arguments)
                assert time.monotonic() - began < 4
                assert "token-of-mine" not in str(caught.value)
                found.append((type(caught.value), caught.value.may_have_run))
                ingress.close()
            assert found[0] == found[1], name
            assert issubclass(found[0][0], kind), name


def test_a_certificate_that_nobody_signed_is_a_wrong_setting(tmp_path):
    import ssl
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    done = response(200, b'"x"', content_type="application/json", x_restate_id=ID)
    with WireServer(answer(done), context=context) as server:
        with pytest.raises(Misconfigured, match="no TLS connection came about"):
            async_to_sync(IngressClient(server.url).aattach)(ID)
        trusting = IngressClient(server.url, ca_bundle=certificate)
        assert async_to_sync(trusting.aattach)(ID).result() == "x"


# ---------------------------------------------------------------- every twin


def test_every_twin_of_a_row(restate):
    """Each method of a row that has a twin is used from a coroutine, against the real server."""

    async def story():
        used = set()

        async def do(row, name, *args):
            used.add(name)
            return await getattr(row, name)(*args)

        row = await asend("Fail", "backoff", {})
        await do(row, "arefresh")
        await do(row, "apause")
        await do(row, "aresume")
        await do(row, "acancel")
        await do(row, "akill")
        done = await asend("Greeter", "greet", {"name": "Mary"})
        assert await do(done, "aattach", 10) == "Hello, Mary!"
        assert (await do(done, "afetch_output")).result() == "Hello, Mary!"
        again = await do(done, "arestart_as_new")
        assert await again.aattach(10) == "Hello, Mary!"
        await do(done, "apurge_journal")
        await do(done, "apurge")
        with pytest.raises(OperationRefused):
            await do(done, "aresend")
        return used

    twins = {name for name in vars(Invocation) if name.startswith("a") and hasattr(Invocation, name[1:])}
    twins = {name for name in twins if callable(getattr(Invocation, name))}
    assert async_to_sync(story)() == twins
    assert len(twins) == 11
