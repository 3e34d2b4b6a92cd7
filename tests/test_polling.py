"""Polling: how news become a row's status, output or failure, and when a row is asked about again."""

from __future__ import annotations

import datetime as dt
import json
import uuid

import pytest
from django.db import OperationalError
from django.utils import timezone

from restate_django import NO_PAYLOAD, call, intervals, recording, send, signals
from restate_django.client import AdminClient
from restate_django.connections import connections
from restate_django.delivery import deliver_due
from restate_django.exceptions import (
    CallTimeout,
    InvalidRequest,
    InvocationFailed,
    OperationRefused,
    ResponseTooLarge,
)
from restate_django.models import Invocation
from restate_django.polling import poll_due, refresh
from restate_django.querysets import InvocationQuerySet
from tests import fake_ingress
from tests.fake_ingress import FakeIngress
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["with the Admin API", "through the ingress alone"])
def either_way(request, restate, settings):
    """The same server, asked in both ways."""
    if request.param == "through the ingress alone":
        settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    return restate


def sweep_until(row: Invocation, *statuses: str, timeout: float = 20) -> Invocation:
    """Sweep as beat does, until the row has one of these statuses."""

    def there() -> bool:
        poll_due()
        row.refresh_from_db()
        return row.status in statuses

    wait_for(there, timeout=timeout, what=f"{row.target} to be {' or '.join(statuses)}, it is {row.status!r}")
    return row


def due(row: Invocation, **changes: object) -> None:
    """Let a row be due now."""
    Invocation.objects.filter(pk=row.pk).update(next_poll_at=timezone.now(), **changes)


# ---------------------------------------------------------------- both ways end alike


def test_success(either_way):
    row = sweep_until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    assert (row.has_output, row.output, row.output_content_type) == (True, "Hello, Mary!", "application/json")
    assert row.finished_at is not None
    assert row.recorded_at is not None
    assert row.result_expires_at > timezone.now() + dt.timedelta(hours=23)
    assert (row.next_poll_at, row.lease_token) == (None, None)


def test_no_output(either_way):
    nothing = sweep_until(send("NoInput", "quiet"), "succeeded")
    assert (nothing.has_output, nothing.output_value) == (False, None)


def test_null_is_an_output(fake):
    null = send("Greeter", "greet")
    fake.answer = lambda request: fake_ingress.output(None)
    refresh(null)
    assert (null.has_output, bytes(null.output_bytes), null.output_value) == (True, b"null", None)


@pytest.mark.parametrize("code", [400, 404, 409, 418, 470, 500, 200, 1000])
def test_failure_of_any_code(either_way, code):
    row = send("Fail", "terminal", {"code": code, "message": "no such luck", "metadata": {"why": "because"}})
    sweep_until(row, "failed")
    assert (row.failure_code, row.failure_message) == (code, "no such luck")
    assert row.failure_metadata == {"why": "because"}
    assert not row.has_output


@pytest.mark.parametrize("code", [100, 101, 204, 304])
def test_a_failure_whose_answer_has_no_body_keeps_its_message(either_way, code):
    row = sweep_until(send("Fail", "terminal", {"code": code, "message": "no such luck"}), "failed")
    assert (row.failure_code, row.failure_message) == (code, "no such luck")


def test_workflow(either_way):
    row = sweep_until(send("Signup", "run", {"email": "a@b.c"}, key=uuid.uuid4().hex), "succeeded")
    assert row.output == {"email": "a@b.c", "confirmed": True}


def test_what_is_forgotten_is_gone(either_way, restate):
    row = sweep_until(send("Greeter", "greet", {"name": "x"}, idempotency_key=uuid.uuid4().hex), "succeeded")
    with AdminClient(restate.admin_url) as admin:
        admin.purge_invocation(row.invocation_id)
    Invocation.objects.filter(pk=row.pk).update(status="accepted", recorded_at=None)
    due(row)
    poll_due()
    row.refresh_from_db()
    assert row.status == "accepted"
    assert row.missing_since is not None
    assert row.next_poll_at > timezone.now() + dt.timedelta(seconds=3)
    due(row)
    poll_due()
    row.refresh_from_db()
    assert row.status == "accepted", "it was said twice, but not some seconds apart"
    due(row, missing_since=timezone.now() - dt.timedelta(seconds=6))
    poll_due()
    row.refresh_from_db()
    assert (row.status, row.dedupe_digest, row.next_poll_at) == ("gone", None, None)


HANDLER_SAYS = {
    "NUL": "a\u0000b",
    "a huge float": 1e300,
    "a huge integer": 10**40,
    "deep": json.loads("[" * 60 + "]" * 60),
    "large": "x" * 300_000,
}


@pytest.mark.parametrize("value", HANDLER_SAYS.values(), ids=HANDLER_SAYS.keys())
def test_an_odd_output_is_kept_as_it_came(restate, value):
    row = sweep_until(send("Echo", "json", value), "succeeded")
    row = Invocation.objects.get(pk=row.pk)
    assert row.output is None
    assert row.output_value == value
    assert row.attach(timeout=5) == value


def test_an_output_over_the_limit_stays_in_restate(restate, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "MAX_OUTPUT_SIZE": 100}}
    row = sweep_until(send("Echo", "json", "y" * 200), "succeeded")
    assert (row.has_output, row.has_stored_output, row.output_size) == (True, False, 202)
    assert row.fetch_output().value == "y" * 200
    assert row.attach(timeout=5) == "y" * 200


@pytest.mark.parametrize("admin", [True, False])
def test_an_output_that_the_client_does_not_read_ends_the_row_all_the_same(restate, settings, admin):
    """Restate's own limit can be raised beyond the client's: such an output must not leave its row open for ever."""
    row = send("Echo", "json", "y" * 5000)
    call_row = Invocation.objects.create(
        service="Echo",
        handler="json",
        verb="call",
        idempotency_key=row.pk.hex,
        unknown_since=timezone.now(),
        next_attempt_at=timezone.now(),
    )  # fmt: skip - one whose answer was lost, under the same key
    if not admin:
        settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    transport = connections["default"].ingress.transport
    transport.max_response_size = 1000
    sweep_until(row, "succeeded")
    assert (row.has_output, row.has_stored_output, row.output_size) == (True, False, 5002)
    assert row.result_expires_at > timezone.now(), "its key binds until then"
    with pytest.raises(ResponseTooLarge):
        row.attach(timeout=5)
    assert deliver_due() == {"accepted": 1}
    sweep_until(call_row, "succeeded")
    assert call_row.invocation_id == row.invocation_id
    transport.max_response_size = 10_000
    assert row.attach(timeout=5) == "y" * 5000


def test_a_failure_of_code_200_is_none_of_a_success(legacy_restate_server, settings):
    """1.6 answers it like an output; SQL tells it apart."""
    server = legacy_restate_server
    settings.RESTATE = {"default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url}}
    row = sweep_until(send("Fail", "terminal", {"code": 200, "message": "no"}), "succeeded", "failed")
    assert (row.status, row.failure_code, row.failure_message) == ("failed", 200, "no")
    assert not row.has_output


def test_a_message_with_nul(restate):
    row = sweep_until(send("Fail", "terminal", {"code": 500, "message": "a\u0000b"}), "failed")
    assert row.failure_message == "ab"


# ---------------------------------------------------------------- what only SQL tells


def test_statuses_on_the_way(restate):
    scheduled = sweep_until(
        send("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1)), "scheduled", "accepted"
    )
    refresh(scheduled)
    assert scheduled.status == "scheduled"
    assert scheduled.next_poll_at > timezone.now() + dt.timedelta(minutes=59)
    sleeping = sweep_until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    assert sleeping.started_at is not None
    broken = sweep_until(send("Fail", "backoff", {}), "backing-off")
    assert broken.last_failure
    for row in (scheduled, sleeping, broken):
        row.kill()
        assert row.status == "killed"


def test_the_ingress_alone_tells_scheduled_and_running(restate, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    scheduled = send("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1))
    refresh(scheduled)
    assert scheduled.status == "scheduled"
    slow = send("Slow", "sleep", {"seconds": 3})
    sweep_until(slow, "running")
    sweep_until(slow, "succeeded")


def test_cancelled_is_told_from_a_handlers_own_409(restate):
    slow = sweep_until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    slow.cancel()
    assert slow.status in {"suspended", "running"}
    assert slow.cancel_sent_at is not None
    sweep_until(slow, "cancelled")
    assert slow.failure_code == 409
    own = sweep_until(send("Fail", "terminal", {"code": 409, "message": "sold out"}), "failed")
    assert own.failure_message == "sold out"


# ---------------------------------------------------------------- not knowing is not failing


@pytest.fixture
def fake(settings):
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    yield server
    server.close()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        fake_ingress.error(500, "oh"),
        fake_ingress.error(503, "oh"),
        fake_ingress.error(429, "later"),
        fake_ingress.error(401, "who?"),
        (404, {"Content-Type": "text/html"}, b"<html>"),
        (404, {"Content-Type": "application/json"}, b'{"message":"not found"}'),
        (302, {"Location": "/x"}, b""),
        (200, {}, b"a result without its id"),
    ],
)
def test_a_network_error_changes_no_status(fake, answer):
    row = send("Greeter", "greet")
    fake.answer = lambda request: answer
    due(row)
    assert poll_due() == {"unchanged": 1}
    row.refresh_from_db()
    assert (row.status, row.missing_since, row.lease_token) == ("accepted", None, None)
    assert row.next_poll_at > timezone.now()
    refresh(row)
    assert row.status == "accepted"


def test_an_admin_api_that_is_down_leaves_it_to_the_ingress(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": "http://127.0.0.1:9"}}
    row = send("Greeter", "greet")
    fake.answer = lambda request: fake_ingress.output("hi")
    due(row)
    assert poll_due() == {"succeeded": 1}
    assert Invocation.objects.get().output == "hi"


def test_a_value_that_the_database_refuses_does_not_hold_up_the_others(fake, monkeypatch, caplog):
    rows = [send("Greeter", "greet", n) for n in range(3)]
    fake.answer = lambda request: fake_ingress.output({"n": 1})
    real = recording.ended

    def ended(row, *args, **kwargs):
        changes = real(row, *args, **kwargs)
        return changes | {"failure_message": "\ud800"} if row == rows[1] else changes

    monkeypatch.setattr(recording, "ended", ended)
    for row in rows:
        due(row)
    assert poll_due() == {"succeeded": 3}
    assert [row.output for row in Invocation.objects.order_by("pk")] == [{"n": 1}, None, {"n": 1}]
    assert "could not be stored" in caplog.text


ANSWERS: dict[str, tuple[str, bytes]] = {
    "NaN": ("application/json", b"NaN"),
    "a NUL in a key": ("application/json", b'{"a\\u0000": 1}'),
    "a lone surrogate": ("application/json", b'"\\ud800"'),
    "a huge float": ("application/json", b"1e300"),
    "a huge integer": ("application/json", b"1" * 5000),
    "very deep": ("application/json", b"[" * 100_000 + b"]" * 100_000),
    "megabytes of JSON": ("application/json", b'"' + b"x" * 3_000_000 + b'"'),
    "megabytes of bytes": ("application/octet-stream", b"\x00\xff" * 1_500_000),
    "half a JSON": ("application/json", b'{"a": '),
    "JSON that is no UTF-8": ("application/json", b'"\xff\xfe"'),
    "text in a charset that there is not": ("text/plain; charset=klingon", b"\xe9"),
    "a type that is none": ("nonsense", b"what?"),
    "an endless type": ("application/" + "x" * 2000, b"what?"),
    "no type": ("", b"what?"),
}
FAILURES: dict[str, bytes] = {
    "a code that no column takes": b'{"code": 1' + b"0" * 30 + b', "message": "oh", "source": "invocation"}',
    "NUL and half a surrogate in a message": b'{"code": 500, "message": "a\\u0000\\ud800b", "source": "invocation"}',
    "NaN in the metadata": b'{"code": 500, "message": "", "source": "invocation", "metadata": {"\\u0000": NaN}}',
    "megabytes of message": b'{"code": 500, "source": "invocation", "message": "' + b"x" * 2_000_000 + b'"}',
}


def test_whatever_a_handler_answers_its_row_ends_and_so_do_the_others(fake, settings):
    """One sweep over all of them: each output is kept to the byte, and no row stays open."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "MAX_OUTPUT_SIZE": 10_000_000}}
    answers = {f"inv_1output{n}": (200, found) for n, found in enumerate(ANSWERS.values())}
    answers |= {f"inv_1failure{n}": (500, ("application/json", body)) for n, body in enumerate(FAILURES.values())}
    ids = iter(answers)
    fake.answer = lambda request: fake_ingress.accepted(invocation_id=next(ids))
    rows = [send("Greeter", "greet") for _ in answers]

    def read(request: fake_ingress.Request) -> tuple[int, dict[str, str], bytes]:
        invocation_id = request.path.rsplit("/", 1)[-1]
        status, (content_type, body) = answers[invocation_id]
        headers = {"Content-Type": content_type} if content_type else {}
        source = {"x-restate-error-source": "invocation"} if status != 200 else {}
        return status, {"x-restate-id": invocation_id} | headers | source, body

    fake.answer = read
    for row in rows:
        due(row)
    assert poll_due() == {"succeeded": len(ANSWERS), "failed": len(FAILURES)}
    for row in Invocation.objects.filter(status="succeeded"):
        _status, (content_type, body) = answers[row.invocation_id]
        assert row.output is None
        assert (bytes(row.output_bytes), row.output_size) == (body, len(body))
        assert row.output_content_type == content_type[:255]
    codes = dict(Invocation.objects.filter(status="failed").values_list("invocation_id", "failure_code"))
    assert [codes[f"inv_1failure{n}"] for n in range(len(FAILURES))][1:] == [500] * (len(FAILURES) - 1)
    messages = Invocation.objects.filter(status="failed").values_list("failure_message", flat=True)
    assert not any("\x00" in message or len(message) > recording.MAX_MESSAGE for message in messages)


# ---------------------------------------------------------------- when, and by whom


def test_older_rows_are_asked_about_less_often(settings):
    from restate_django.conf import get_settings

    connection = get_settings()
    now = timezone.now()

    def interval(**age: float) -> float:
        row = Invocation(created_at=now, accepted_at=now - dt.timedelta(**age))
        return intervals.next_interval(row, connection, now).total_seconds()

    assert interval(seconds=0) == 1
    assert interval(seconds=100) == 10
    assert interval(minutes=30) == 180
    assert interval(days=3) == 300
    scheduled = Invocation(created_at=now, accepted_at=now, execution_at=now + dt.timedelta(hours=2))
    assert intervals.next_interval(scheduled, connection, now) == dt.timedelta(hours=2, seconds=1)


def test_a_claimed_row_is_nobody_elses(fake):
    row = send("Greeter", "greet")
    due(row)
    claim = Invocation.objects.claim_for_poll(limit=5, lease=dt.timedelta(seconds=60))
    (claimed,) = Invocation.objects.claimed(claim, [row.pk for row in claim.rows])
    before = len(fake.requests)
    assert poll_due() == {}
    assert len(fake.requests) == before
    # A late worker's write loses to one that has written meanwhile.
    Invocation.objects.filter(pk=row.pk).update(lease_token=None, status="running")
    assert not Invocation.objects.write_back(claimed, lease=claimed.lease_token, status="succeeded")


def test_limit_and_budget(fake):
    rows = [send("Greeter", "greet", n) for n in range(5)]
    fake.answer = lambda request: fake_ingress.output(1)
    for row in rows:
        due(row)
    assert poll_due(budget=0) == {}
    assert poll_due(limit=2) == {"succeeded": 2}
    assert poll_due() == {"succeeded": 3}


def test_finished_is_told_once_and_can_be_read_again(fake):
    heard: list[object] = []

    def finished(invocation, **kwargs):
        heard.append(invocation.pk)

    rows = [send("Greeter", "greet", n) for n in range(3)]
    fake.answer = lambda request: fake_ingress.output(1)
    signals.invocation_finished.connect(finished)
    try:
        for row in rows:
            due(row)
        poll_due()
        poll_due()
        refresh(rows)
    finally:
        signals.invocation_finished.disconnect(finished)
    assert sorted(heard) == [row.pk for row in rows]
    everything = list(Invocation.objects.finished_since())
    assert {row.pk for row in everything} == set(heard)
    first = everything[0]
    assert list(Invocation.objects.finished_since(first)) == everything[1:]
    assert list(Invocation.objects.finished_since(first.finished_cursor)) == everything[1:]
    assert list(Invocation.objects.finished_since(everything[-1])) == []
    assert list(Invocation.objects.finished_since(timezone.now() - dt.timedelta(hours=1))) == everything
    assert list(Invocation.objects.finished_since(settle=60)) == []
    with pytest.raises(ValueError, match="finished_cursor"):
        Invocation.objects.finished_since("yesterday")


# ---------------------------------------------------------------- waiting


def test_attach_waits(restate):
    row = send("Greeter", "slowly", {"name": "Mary", "seconds": 1})
    assert row.attach(timeout=20) == "Hello, Mary!"
    assert (row.status, row.output) == ("succeeded", "Hello, Mary!")
    assert row.attach() == "Hello, Mary!"


def test_attach_raises_the_failure(restate):
    row = send("Fail", "terminal", {"code": 418, "message": "teapot", "metadata": {"a": "b"}})
    for _again in range(2):
        with pytest.raises(InvocationFailed) as caught:
            row.attach(timeout=20)
        assert (caught.value.code, caught.value.message, caught.value.metadata) == (418, "teapot", {"a": "b"})
        assert caught.value.invocation == row


def test_waiting_ends_before_the_invocation_does(restate):
    row = send("Slow", "sleep", {"seconds": 30})
    with pytest.raises(CallTimeout) as caught:
        row.attach(timeout=0.3)
    assert caught.value.invocation == row
    with pytest.raises(TimeoutError):
        call("Slow", "sleep", {"seconds": 30}, timeout=3)
    called = Invocation.objects.get(verb="call")
    assert called.status == "accepted"
    assert called.invocation_id.startswith("inv_")
    for each in (row, called):
        each.kill()


def test_nothing_to_wait_for(fake):
    row = send("Greeter", "greet", NO_PAYLOAD)
    Invocation.objects.filter(pk=row.pk).update(status="gone")
    row.refresh_from_db()
    with pytest.raises(OperationRefused, match="no longer"):
        row.attach(timeout=1)
    Invocation.objects.filter(pk=row.pk).update(status="undeliverable")
    row.refresh_from_db()
    with pytest.raises(OperationRefused, match="person"):
        row.attach(timeout=1)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), "5", True, -1])
def test_attach_takes_only_a_timeout_that_ends(fake, timeout):
    row = send("Greeter", "greet")
    with pytest.raises(InvalidRequest, match="timeout"):
        row.attach(timeout=timeout)


def test_attach_believes_twice_that_it_is_gone(fake, monkeypatch):
    monkeypatch.setattr(recording, "CONFIRM_AFTER", dt.timedelta(seconds=0.2))
    row = send("Greeter", "greet")
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    with pytest.raises(OperationRefused, match="no longer"):
        row.attach(timeout=10)
    assert row.status == "gone"


def test_what_a_wrong_url_made_gone_comes_back(restate, settings, fake):
    """Another server knows none of our invocations. Nothing is lost for good: asked again, the right one tells."""
    right = {"default": {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}}
    wrong = settings.RESTATE
    settings.RESTATE = right
    row = send("Greeter", "greet", {"name": "Mary"}, idempotency_key="comes-back")
    settings.RESTATE = wrong
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    due(row, missing_since=timezone.now() - dt.timedelta(seconds=6))
    assert poll_due() == {"gone": 1}
    settings.RESTATE = right
    wait_for(lambda: refresh(row) and row.status == "succeeded", what="it to come back")
    assert row.output == "Hello, Mary!"
    assert send("Greeter", "greet", {"name": "Mary"}, idempotency_key="comes-back") == row, "its key binds again"


def test_an_ingress_that_knows_nothing_is_not_believed_against_the_admin_api(restate, settings, fake, caplog):
    right = settings.RESTATE["default"] | {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}
    settings.RESTATE = {"default": right}
    row = send("Greeter", "greet", {"name": "Mary"})
    with AdminClient(restate.admin_url) as admin:
        wait_for(lambda: admin.sys_invocations([row.invocation_id])[0].status == "completed", what="its end")
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    settings.RESTATE = {"default": {**right, "INGRESS_URL": fake.url}}
    for _again in range(2):
        due(row, missing_since=None)
        assert poll_due() == {"unchanged": 1}
    assert "same server" in caplog.text
    settings.RESTATE = {"default": right}
    wait_for(lambda: refresh(row) and row.status == "succeeded", what="its output")


def test_who_waits_believes_the_ingress_no_more_than_the_poll_does(restate, settings, fake, caplog, monkeypatch):
    """A wrong URL must not free a row's key, least of all by a visitor's wait for it."""
    monkeypatch.setattr(recording, "CONFIRM_AFTER", dt.timedelta(seconds=0.1))
    right = settings.RESTATE["default"] | {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}
    settings.RESTATE = {"default": right}
    row = send("Greeter", "greet", {"name": "Mary"}, idempotency_key="waited-for")
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    settings.RESTATE = {"default": {**right, "INGRESS_URL": fake.url}}
    with pytest.raises(CallTimeout):
        row.attach(timeout=1)
    row.refresh_from_db()
    assert row.is_in_restate
    assert row.dedupe_digest
    assert "same server" in caplog.text
    settings.RESTATE = {"default": {**right, "INGRESS_URL": fake.url, "ADMIN_URL": "http://127.0.0.1:1"}}
    with pytest.raises(CallTimeout):
        row.attach(timeout=1)
    settings.RESTATE = {"default": right}
    assert row.attach(timeout=20) == "Hello, Mary!"


def test_a_deadlock_costs_no_outcome(fake, monkeypatch):
    row = send("Greeter", "greet")
    fake.answer = lambda request: fake_ingress.output("hi")
    write_back, failures = InvocationQuerySet.write_back, iter([True])

    def deadlocked(self, *args, **kwargs):
        if next(failures, False):
            raise OperationalError("deadlock detected")
        return write_back(self, *args, **kwargs)

    monkeypatch.setattr(InvocationQuerySet, "write_back", deadlocked)
    due(row)
    assert poll_due() == {"succeeded": 1}
    row.refresh_from_db()
    assert row.output == "hi"
