"""Delivery: what each answer means for a row, who may send it, and what is counted."""

from __future__ import annotations

import datetime as dt
import threading
import time
from types import SimpleNamespace

import pytest
from celery import Celery
from django.core import management
from django.db import connections as databases
from django.db import transaction
from django.utils import timezone

from restate_django import Outgoing, call, delivery, send, send_many, settling, signals, submitting
from restate_django.exceptions import OperationRefused, OutcomeUnknown, Refused, Unavailable
from restate_django.models import Invocation
from restate_django.polling import poll_due, refresh
from tests import fake_ingress
from tests.current_app import current_app_put_back
from tests.fake_ingress import FakeIngress
from tests.require import require_bulk
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True, params=["one by one", "in bulk"])
def way(request, monkeypatch):
    """Both ways of sending: a request at a time in each thread, and many at once by libcurl."""
    if request.param == "in bulk":
        require_bulk()
    monkeypatch.setattr("restate_django.connections.BULK_FROM", 1 if request.param == "in bulk" else 10**9)
    return request.param


@pytest.fixture
def fake(settings):
    """A server that answers as a test says, and rows that only the relay sends."""
    server = FakeIngress()
    settings.RESTATE = {
        "default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "DELIVERY": "relay", "PATH_STYLE": "restate"}
    }
    yield server
    server.close()


@pytest.fixture
def admin_away(fake, settings):
    """An Admin API that there is, and that can't be reached now."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": NOBODY}}


def make_due(*rows: Invocation, **changes: object) -> None:
    """Let rows be due now, as they would be after their wait."""
    for row in rows:
        Invocation.objects.filter(pk=row.pk).update(next_attempt_at=timezone.now(), **changes)


def deliver(row: Invocation, **changes: object) -> Invocation:
    """One attempt for a row."""
    make_due(row, **changes)
    delivery.deliver_due()
    row.refresh_from_db()
    return row


# ---------------------------------------------------------------- what an answer means for a row


def test_accepted(fake):
    row = deliver(send("Greeter", "greet", {"name": "Mary"}))
    assert (row.status, row.invocation_id, row.attempts) == ("accepted", fake_ingress.INVOCATION_ID, 1)
    assert row.accepted_at is not None
    assert (row.unknown_since, row.lease_until, row.lease_token, row.next_attempt_at) == (None, None, None, None)
    assert row.next_poll_at > timezone.now()
    (request,) = fake.sends()
    assert request.path == "/restate/send/Greeter/greet"
    assert request.headers["idempotency-key"] == row.pk.hex
    assert request.body == bytes(row.payload_bytes)


RAN_NOTHING = {
    "401": fake_ingress.error(401, "no"),
    "403": fake_ingress.error(403, "no"),
    "405": fake_ingress.error(405, "no"),
    "a path that is not known": (404, {"Content-Type": "application/json"}, b'{"message":"not found"}'),
    "a redirect": (302, {"Location": "http://example.com/"}, b""),
    "HTML from a proxy": (404, {"Content-Type": "text/html"}, b"<html>no</html>"),
    "429": fake_ingress.error(429, "later"),
    "an unknown service": fake_ingress.UNKNOWN_SERVICE,
}
MAY_HAVE_RUN = {
    "500": fake_ingress.error(500, "oh"),
    "503": fake_ingress.error(503, "oh"),
    "500 from a proxy": (500, {"Content-Type": "text/html"}, b"<html>"),
    "half a JSON": (202, {"Content-Type": "application/json"}, b'{"invocationId"'),
    "an acceptance without its header": (202, {}, fake_ingress.accepted()[2]),
    "two ids": (202, {"x-restate-id": "inv_1other"}, fake_ingress.accepted()[2]),
    "nothing": None,
    "a number nobody knows": (299, {}, b""),
}


@pytest.mark.parametrize("answer", RAN_NOTHING.values(), ids=RAN_NOTHING.keys())
def test_an_answer_that_proves_that_nothing_ran_does_not_start_the_clock(fake, answer):
    fake.answer = lambda request: answer
    before = timezone.now()
    row = deliver(send("Greeter", "greet"))
    assert (row.status, row.unknown_since, row.attempts) == ("unsent", None, 1)
    assert row.delivery_error
    assert row.next_attempt_at > before
    assert row.lease_token is None
    # A day later, the setting corrected: it goes out.
    fake.answer = lambda request: fake_ingress.accepted()
    assert deliver(row, created_at=timezone.now() - dt.timedelta(days=2)).status == "accepted"
    assert row.previously_accepted is False


def test_each_wait_is_drawn_up_to_a_bound_that_doubles(fake, monkeypatch):
    """Full jitter: rows that failed together do not come back together."""
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr(settling, "random", SimpleNamespace(uniform=uniform))
    fake.answer = lambda request: RAN_NOTHING["429"]
    row = send("Greeter", "greet")
    for attempt in range(1, 8):
        before = timezone.now()
        assert deliver(row).attempts == attempt
        assert row.next_attempt_at - before >= dt.timedelta(seconds=bounds[-1][1])
    assert bounds == [(0.1, bound) for bound in (2, 4, 8, 16, 32, 60, 60)]


def test_a_server_that_is_not_there_does_not_start_the_clock(settings, fake):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "INGRESS_URL": NOBODY}}
    row = deliver(send("Greeter", "greet"))
    assert (row.status, row.unknown_since) == ("unsent", None)
    assert "Connection refused" in row.delivery_error


@pytest.mark.parametrize("answer", MAY_HAVE_RUN.values(), ids=MAY_HAVE_RUN.keys())
def test_an_answer_that_proves_nothing_starts_the_clock(fake, answer):
    fake.answer = lambda request: answer
    row = deliver(send("Greeter", "greet"))
    assert (row.status, row.lease_token) == ("unsent", None)
    since = row.unknown_since
    assert since is not None
    assert deliver(row).unknown_since == since
    # Sent again under the same key, PreviouslyAccepted is our own send.
    fake.answer = lambda request: fake_ingress.accepted(previously=True)
    assert deliver(row).status == "accepted"
    assert row.previously_accepted is False
    assert len({request.headers["idempotency-key"] for request in fake.sends()}) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "least", "most"), [("90", 90, 95), ("86400", 600, 605), ("soon", 0, 5)])
def test_an_answer_may_ask_for_patience(fake, status, asked, least, most):
    """Retry-After is obeyed, within reason: a wrong one must not hold up a row for a day."""
    code, headers, body = fake_ingress.error(status, "later")
    fake.answer = lambda request: (code, {**headers, "Retry-After": asked}, body)
    before = timezone.now()
    row = deliver(send("Greeter", "greet"))
    assert least <= (row.next_attempt_at - before).total_seconds() <= most
    assert len({request.body for request in fake.sends()}) == 1


def test_a_connection_that_just_broke_is_tried_once_more_under_the_same_key(fake):
    answers = iter([None, fake_ingress.accepted(previously=True)])
    fake.answer = lambda request: next(answers)
    row = deliver(send("Greeter", "greet"))
    assert (row.status, row.attempts, row.previously_accepted) == ("accepted", 1, False)
    assert len({request.headers["idempotency-key"] for request in fake.sends()}) == 1


def test_previously_accepted_on_a_first_attempt_is_somebody_elses(fake):
    fake.answer = lambda request: fake_ingress.accepted(previously=True)
    row = deliver(send("Greeter", "greet", idempotency_key="theirs"))
    assert (row.status, row.previously_accepted) == ("accepted", True)


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_refusal_is_for_good_and_frees_the_key(fake, status):
    fake.answer = lambda request: fake_ingress.error(status, "bad")
    row = deliver(send("Greeter", "greet", {"a": 1}, idempotency_key="k"))
    assert (row.status, row.dedupe_digest, row.next_attempt_at) == ("rejected", None, None)
    assert "bad" in row.delivery_error
    assert row.recorded_at is not None
    assert send("Greeter", "greet", {"a": 2}, idempotency_key="k").created


def test_a_refusal_after_an_unknown_attempt_is_settled_by_reading(fake):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    fake.answer = lambda request: (
        fake_ingress.NOT_READY if "output" in request.path
        else (200, {}, b'{"invocationId":"' + fake_ingress.INVOCATION_ID.encode() + b'"}') if "lookup" in request.path
        else fake_ingress.error(400, "bad")
    )  # fmt: skip
    assert deliver(row).status == "accepted"
    assert row.invocation_id == fake_ingress.INVOCATION_ID


def test_an_unknown_service_has_a_grace(fake, caplog):
    def answer(request):
        if request.path == "/restate/health":
            return 200, {"Content-Type": "application/json"}, b'{"services":[]}'
        return fake_ingress.UNKNOWN_SERVICE

    fake.answer = answer
    row = deliver(send("Greeter", "greet"))
    assert (row.status, row.unregistered_since is not None) == ("unsent", True)
    assert deliver(row).status == "unsent"
    assert deliver(row, unregistered_since=timezone.now() - dt.timedelta(minutes=6)).status == "rejected"
    assert "Greeter" in row.delivery_error


def test_the_grace_starts_anew_after_another_answer(fake):
    fake.answer = lambda request: fake_ingress.UNKNOWN_SERVICE
    row = deliver(send("Greeter", "greet"))
    fake.answer = lambda request: fake_ingress.error(429, "later")
    assert deliver(row).unregistered_since is None


def test_an_unknown_service_is_not_believed_of_an_ingress_that_is_unwell(fake):
    fake.answer = lambda request: (
        fake_ingress.error(503, "starting") if request.path == "/restate/health" else fake_ingress.UNKNOWN_SERVICE
    )
    row = send("Greeter", "greet")
    assert deliver(row, unregistered_since=timezone.now() - dt.timedelta(days=1)).status == "unsent"


def test_a_wrong_setting_is_said_loudly(fake, caplog):
    fake.answer = lambda request: fake_ingress.error(401, "who are you?")
    deliver(send("Greeter", "greet"))
    assert any(record.levelname == "ERROR" and "misconfigured" in record.message for record in caplog.records)


def test_what_the_old_paths_can_not_say_waits_for_another_server(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "PATH_STYLE": "legacy"}}
    row = deliver(send("Greeter", "greet", scope="tenant-a"))
    assert (row.status, row.unknown_since) == ("unsent", None)
    assert "scope" in row.delivery_error
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "PATH_STYLE": "restate"}}
    assert deliver(row).status == "accepted"


def test_a_connection_that_left_the_settings_keeps_its_rows(settings, fake):
    row = send("Greeter", "greet")
    Invocation.objects.filter(pk=row.pk).update(connection="other-one")
    row = deliver(row)
    assert (row.status, row.unknown_since) == ("unsent", None)
    assert "other-one" in row.delivery_error
    assert not fake.requests


# ---------------------------------------------------------------- the window


def test_after_the_window_a_row_is_read_about_and_never_sent(fake):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    sends = len(fake.sends())
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    long_ago = timezone.now() - dt.timedelta(hours=24)
    assert deliver(row, unknown_since=long_ago).status == "unsent"
    assert row.missing_since is not None
    assert deliver(row).status == "unsent"
    assert deliver(row, missing_since=timezone.now() - dt.timedelta(seconds=6)).status == "undeliverable"
    assert "may have run" in row.delivery_error
    assert (row.next_attempt_at, row.recorded_at) == (None, None)
    assert len(fake.sends()) == sends


def test_after_the_window_what_restate_knows_is_accepted(fake):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    fake.answer = lambda request: (
        (200, {}, b'{"invocationId":"' + fake_ingress.INVOCATION_ID.encode() + b'"}')
        if "lookup" in request.path
        else fake_ingress.NOT_READY
    )
    assert deliver(row, unknown_since=timezone.now() - dt.timedelta(hours=24)).status == "accepted"


def test_the_window_of_a_delayed_one_counts_from_its_time(fake):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet", delay=dt.timedelta(hours=2)))
    sends = len(fake.sends())
    fake.answer = lambda request: fake_ingress.accepted(previously=True)
    assert deliver(row, unknown_since=timezone.now() - dt.timedelta(hours=25)).status == "accepted"
    assert len(fake.sends()) == sends + 1


@pytest.mark.parametrize(("before_the_end", "sends_again"), [(12, False), (25, True)])
def test_the_window_ends_before_a_long_request_could_outlast_it(settings, fake, before_the_end, sends_again):
    """Nothing is sent again where the time that Restate remembers may be over before the request is: 2 x TIMEOUT."""
    long_waits = {"TIMEOUT": 600, "LEASE": dt.timedelta(minutes=30), "IDEMPOTENCY_RETENTION": dt.timedelta(hours=24)}
    settings.RESTATE = {"default": {**settings.RESTATE["default"], **long_waits}}
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    sends = len(fake.sends())
    fake.answer = lambda request: fake_ingress.accepted() if "/send/" in request.path else fake_ingress.NOT_FOUND
    end = dt.timedelta(hours=24) - dt.timedelta(minutes=before_the_end)
    assert deliver(row, unknown_since=timezone.now() - end).status == ("accepted" if sends_again else "unsent")
    assert len(fake.sends()) == sends + sends_again


def test_a_retention_of_nothing_is_never_sent_again(settings, fake):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "IDEMPOTENCY_RETENTION": dt.timedelta(0)}}
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    assert len(fake.sends()) == 1, "not even a connection that just broke is tried once more"
    assert deliver(row).status == "unsent"
    assert len(fake.sends()) == 1


def test_the_remaining_delay_is_sent(fake):
    row = send("Greeter", "greet", delay=dt.timedelta(hours=2))
    deliver(row, run_at=timezone.now() + dt.timedelta(minutes=1))
    assert "delay=" in fake.sends()[0].path
    row = send("Greeter", "greet", delay=dt.timedelta(hours=2))
    deliver(row, run_at=timezone.now() - dt.timedelta(minutes=1))
    assert "delay=" not in fake.sends()[1].path


# ---------------------------------------------------------------- leases


def test_a_claimed_row_is_nobody_elses(fake):
    send("Greeter", "greet")
    (row,) = Invocation.objects.claim_for_delivery(limit=5, lease=dt.timedelta(seconds=60))
    assert row.attempts == 1
    assert row.unknown_since == row.claimed_at
    assert Invocation.objects.claim_for_delivery(limit=5, lease=dt.timedelta(seconds=60)) == []
    assert delivery.deliver_due() == {}
    assert not fake.requests


def test_a_lease_that_ran_out_is_taken_and_its_owner_loses_quietly(fake):
    send("Greeter", "greet")
    (late,) = Invocation.objects.claim_for_delivery(limit=5, lease=dt.timedelta(seconds=60))
    deliver(Invocation.objects.get())
    assert not Invocation.objects.write_back(late, lease=late.lease_token, status="rejected")
    assert Invocation.objects.get().status == "accepted"


def test_a_lease_too_short_for_a_request_is_given_back(fake):
    send("Greeter", "greet")
    (row,) = Invocation.objects.claim_for_delivery(limit=5, lease=dt.timedelta(seconds=3))
    assert delivery._deliver([row], "default") == {"retry": 1}
    assert not fake.requests
    row.refresh_from_db()
    assert (row.unknown_since, row.lease_token) == (None, None)
    assert row.next_attempt_at <= timezone.now() + dt.timedelta(seconds=1)


@pytest.mark.parametrize("way", ["on_commit", "relay"])
def test_a_short_lease_is_long_enough_to_send(fake, settings, way):
    """Three times TIMEOUT is all that the check asks for: no row may wait for ever under such a lease."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "TIMEOUT": 1, "LEASE": 3, "DELIVERY": way}}
    row = send("Greeter", "greet")
    if way == "relay":
        assert delivery.deliver_due() == {"accepted": 1}
        row.refresh_from_db()
    assert (row.status, row.delivery_error) == ("accepted", "")


def test_a_transaction_that_outlives_its_lease_claims_again(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "on_commit"}}
    with transaction.atomic():
        row = send("Greeter", "greet")
        row.lease_until = timezone.now() - dt.timedelta(seconds=1)
    assert row.status == "accepted"
    assert len(fake.sends()) == 1


def test_a_row_that_the_relay_took_meanwhile_is_left_to_it(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "on_commit"}}
    with transaction.atomic():
        row = send("Greeter", "greet")
        row.lease_until = timezone.now() - dt.timedelta(seconds=1)
        Invocation.objects.filter(pk=row.pk).update(lease_token="0" * 32)
    assert row.status == "unsent"
    assert not fake.sends()


def test_two_relays_share_the_rows(fake):
    send_many([Outgoing("Greeter", "greet", n) for n in range(60)])
    threads = []

    def work() -> None:
        try:
            delivery.deliver_due()
        finally:
            databases.close_all()

    for _ in range(4):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert Invocation.objects.filter(status="accepted").count() == 60
    keys = [request.headers["idempotency-key"] for request in fake.sends()]
    assert len(keys) == len(set(keys)) == 60


def test_limit_and_budget(fake):
    send_many([Outgoing("Greeter", "greet", n) for n in range(5)])
    assert delivery.deliver_due(limit=2) == {"accepted": 2}
    assert delivery.deliver_due(budget=0) == {}
    assert delivery.deliver_due() == {"accepted": 3}


def test_jobs_refuse_to_run_inside_a_transaction(fake):
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        delivery.deliver_due()
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        poll_due()
    row = send("Greeter", "greet")
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        row.cancel()


# ---------------------------------------------------------------- signals


def test_signals_are_sent_once_by_the_write_that_won(fake):
    heard: list[tuple[str, object]] = []

    def accepted(invocation, **kwargs):
        heard.append(("accepted", invocation.pk))

    def changed(invocation, old, new, **kwargs):
        heard.append((old, new))

    def broken(**kwargs):
        raise ZeroDivisionError

    signals.invocation_accepted.connect(broken)
    signals.invocation_accepted.connect(accepted)
    signals.invocation_status_changed.connect(changed)
    try:
        row = deliver(send("Greeter", "greet"))
    finally:
        signals.invocation_accepted.disconnect(broken)
        signals.invocation_accepted.disconnect(accepted)
        signals.invocation_status_changed.disconnect(changed)
    assert heard == [("accepted", row.pk), ("unsent", "accepted")]


# ---------------------------------------------------------------- cancel before acceptance


def test_an_unsent_row_is_cancelled_here(fake):
    row = send("Greeter", "greet").cancel()
    assert (row.status, row.cancel_requested_at is not None) == ("cancelled", True)
    assert delivery.deliver_due() == {}
    assert not fake.requests


def test_without_an_admin_api_a_row_that_may_be_under_way_can_not_be_cancelled(fake):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    with pytest.raises(OperationRefused, match="ADMIN_URL"):
        row.cancel()
    assert row.cancel_requested_at is None


def test_a_row_that_may_be_under_way_is_cancelled_when_restate_knows_it(fake, admin_away):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    row.cancel()
    assert (row.status, row.cancel_requested_at is not None) == ("unsent", True)
    sends = len(fake.sends())
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    assert deliver(row).status == "unsent"
    assert deliver(row, missing_since=timezone.now() - dt.timedelta(seconds=6)).status == "cancelled"
    assert len(fake.sends()) == sends


def test_a_leased_row_is_not_cancelled_under_its_owner(fake, admin_away):
    send("Greeter", "greet")
    (row,) = Invocation.objects.claim_for_delivery(limit=1, lease=dt.timedelta(seconds=60))
    asked = Invocation.objects.get().cancel()
    assert asked.status == "unsent"
    assert asked.cancel_requested_at is not None
    # Its owner's answer comes: it is accepted, and the cancellation is still asked for.
    assert delivery._deliver([row], "default") == {"accepted": 1}
    asked.refresh_from_db()
    assert (asked.status, asked.cancel_sent_at) == ("accepted", None)
    assert asked.next_poll_at <= timezone.now() + dt.timedelta(seconds=1)


# ---------------------------------------------------------------- calls


def test_a_call_that_ran_nothing_is_rejected(settings):
    settings.RESTATE = {"default": {"INGRESS_URL": NOBODY, "ADMIN_URL": None}}
    with pytest.raises(Unavailable):
        call("Greeter", "greet")
    row = Invocation.objects.get()
    assert (row.status, row.next_attempt_at) == ("rejected", None)


def test_a_call_that_is_refused_is_rejected(fake):
    fake.answer = lambda request: fake_ingress.error(400, "bad")
    with pytest.raises(Refused):
        call("Greeter", "greet")
    assert Invocation.objects.get().status == "rejected"


def test_a_call_of_unknown_outcome_is_resolved_by_reading_alone(fake):
    fake.answer = lambda request: None
    with pytest.raises(OutcomeUnknown) as caught:
        call("Greeter", "greet", timeout=1)
    row = caught.value.invocation
    assert (row.status, row.verb) == ("unsent", "call")
    calls = len([request for request in fake.requests if "/call/" in request.path])
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    assert deliver(row).status == "unsent"
    assert deliver(row, missing_since=timezone.now() - dt.timedelta(seconds=6)).status == "rejected"
    assert not fake.sends()
    assert len([request for request in fake.requests if "/call/" in request.path]) == calls


@pytest.mark.parametrize("verb", ["call", "cancelled send"])
def test_where_nothing_is_remembered_not_found_does_not_prove_that_nothing_ran(fake, settings, verb):
    settings.RESTATE = {
        "default": {**settings.RESTATE["default"], "IDEMPOTENCY_RETENTION": dt.timedelta(0), "ADMIN_URL": NOBODY}
    }
    fake.answer = lambda request: None
    if verb == "call":
        with pytest.raises(OutcomeUnknown) as caught:
            call("Greeter", "greet", timeout=1)
        row = caught.value.invocation
    else:
        row = deliver(send("Greeter", "greet", idempotency_key="k")).cancel()
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    assert deliver(row).status == "unsent"
    assert deliver(row, missing_since=timezone.now() - dt.timedelta(seconds=6)).status == "undeliverable"
    assert "may have run" in row.delivery_error
    assert row.dedupe_digest or verb == "call"


def test_while_the_admin_api_does_not_tell_the_retention_nothing_is_sent_again(fake, admin_away):
    fake.answer = lambda request: None
    row = deliver(send("Greeter", "greet"))
    assert len(fake.sends()) == 1, "the service may remember nothing"
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    assert deliver(row).status == "unsent"
    assert "remembered" in row.delivery_error
    assert len(fake.sends()) == 1
    # What Restate knows is accepted all the same.
    fake.answer = lambda request: (
        (200, {}, b'{"invocationId":"' + fake_ingress.INVOCATION_ID.encode() + b'"}')
        if "lookup" in request.path
        else fake_ingress.NOT_READY
    )
    assert deliver(row).status == "accepted"


def test_a_bulk_that_outlives_its_lease_is_renewed_whole(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "on_commit"}}
    with transaction.atomic():
        rows = send_many([Outgoing("Greeter", "greet", n) for n in range(4)], batch_size=2)
        for row in rows:
            row.lease_until = timezone.now() - dt.timedelta(seconds=1)
    assert {row.status for row in rows} == {"accepted"}


def test_a_handler_that_a_served_service_lacks_is_refused_after_the_grace(fake):
    def answer(request):
        if request.path == "/restate/health":
            return 200, {"Content-Type": "application/json"}, b'{"services":["Greeter"]}'
        return said

    said = fake_ingress.UNKNOWN_SERVICE
    fake.answer = answer
    long_ago = timezone.now() - dt.timedelta(minutes=6)
    row = send("Greeter", "greet")
    assert deliver(row, unregistered_since=long_ago).status == "unsent", "it is served: it has just registered"
    said = fake_ingress.error(404, "the service 'Greeter' exists, but the handler 'greet' doesn't exist")
    assert deliver(row, unregistered_since=long_ago).status == "rejected"


def test_a_server_that_hangs_does_not_starve_another(fake, settings):
    other = FakeIngress()
    try:
        base = {**settings.RESTATE["default"], "TIMEOUT": 0.5, "CONCURRENCY": 4}
        settings.RESTATE = {"default": base, "healthy": {**base, "INGRESS_URL": other.url}}
        hangs = threading.Event()
        fake.answer = lambda request: hangs.wait(20) and None
        slow = send_many([Outgoing("Greeter", "greet", n) for n in range(60)])
        healthy = send("Greeter", "greet", connection="healthy")
        start = time.monotonic()
        delivery.deliver_due(limit=61)
        healthy.refresh_from_db()
        assert healthy.status == "accepted"
        assert time.monotonic() - start < 10
        assert len(fake.sends()) < len(slow) / 2, "after some that were waited for in vain the rest was given back"
    finally:
        hangs.set()
        other.close()


def test_a_visitor_waits_no_longer_for_several_requests_than_for_one(fake, settings):
    """What is asked after a refusal hangs: the whole attempt has the visitor's few seconds, not each request of it."""
    settings.RESTATE = {
        "default": {**settings.RESTATE["default"], "DELIVERY": "on_commit", "ON_COMMIT_TIMEOUT": 1.5, "TIMEOUT": 20}
    }
    hangs = threading.Event()

    def answer(request):
        if request.path == "/restate/health":
            hangs.wait(15)
        return fake_ingress.UNKNOWN_SERVICE

    fake.answer = answer
    start = time.monotonic()
    try:
        row = send("Greeter", "greet", 1)
    finally:
        hangs.set()
    assert row.status == "unsent"
    assert any(request.path == "/restate/health" for request in fake.requests)
    assert time.monotonic() - start < 5


def test_a_person_decides_where_restate_remembers_nothing(fake, settings):
    """Sent once, because somebody said so. After that the window is what it was: over."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "IDEMPOTENCY_RETENTION": dt.timedelta(0)}}
    row = send("Greeter", "greet", 1)
    undecided = {"status": "undeliverable", "unknown_since": timezone.now() - dt.timedelta(days=2), "attempts": 7}
    Invocation.objects.filter(pk=row.pk).update(**undecided, next_attempt_at=None)
    row.refresh_from_db()
    fake.answer = lambda request: fake_ingress.NOT_FOUND if "/output" in request.path else None
    row.resend()
    assert len(fake.sends()) == 1
    assert (row.status, row.attempts) == ("unsent", 1)
    for _again in range(2):
        row = deliver(row, missing_since=timezone.now() - dt.timedelta(seconds=6))
    assert row.status == "undeliverable"
    assert len(fake.sends()) == 1
    fake.answer = lambda request: fake_ingress.accepted()
    row.resend()
    assert row.status == "accepted"
    assert len(fake.sends()) == 2


def test_what_a_person_decides_outlasts_a_server_that_is_away(fake, settings):
    right = {"default": {**settings.RESTATE["default"], "IDEMPOTENCY_RETENTION": dt.timedelta(0)}}
    settings.RESTATE = {"default": {**right["default"], "INGRESS_URL": NOBODY}}
    row = send("Greeter", "greet", 1)
    undecided = {"status": "undeliverable", "unknown_since": timezone.now() - dt.timedelta(days=2), "attempts": 7}
    Invocation.objects.filter(pk=row.pk).update(**undecided, next_attempt_at=None)
    row.refresh_from_db()
    row.resend()
    for _again in range(3):
        row = deliver(row)
        assert row.status == "unsent"
    settings.RESTATE = right
    assert deliver(row).status == "accepted"
    assert row.previously_accepted is False


def test_what_restate_never_saw_is_not_told_as_accepted(fake):
    told = []

    def note(sender, invocation, **kwargs):
        told.append(invocation.pk)

    signals.invocation_accepted.connect(note)
    try:
        row = send("Greeter", "greet", 1)
        row.cancel()
        assert row.status == "cancelled"
        other = deliver(send("Greeter", "greet", 2))
    finally:
        signals.invocation_accepted.disconnect(note)
    assert told == [other.pk]


def test_a_surprise_with_one_row_leaves_the_others_alone(fake, monkeypatch, caplog):
    rows = [send("Greeter", "greet", n) for n in range(3)]
    sending = submitting.sending_of

    def surprised(row, **kwargs):
        if row.pk == rows[1].pk:
            raise ZeroDivisionError
        return sending(row, **kwargs)

    monkeypatch.setattr(submitting, "sending_of", surprised)
    assert delivery.deliver_due() == {"accepted": 2, "retry": 1}
    assert "ZeroDivisionError" in caplog.text
    rows[1].refresh_from_db()
    assert (rows[1].status, rows[1].unknown_since is not None) == ("unsent", True)


def test_jobs_refuse_to_run_with_autocommit_off(fake):
    transaction.set_autocommit(False)
    try:
        with pytest.raises(RuntimeError, match="transaction"):
            delivery.deliver_due()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


# ---------------------------------------------------------------- Celery and the command


def test_celery_delivery_gives_the_row_to_a_task(fake, settings, monkeypatch):
    from celery import current_app

    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}
    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **kwargs: sent.append((name, args)))
    assert_enqueued(fake, sent)


def assert_enqueued(fake, sent) -> None:
    """A row's commit makes its task, and the task sends it, once."""
    with transaction.atomic():
        row = send("Greeter", "greet")
        assert sent == []
    assert sent == [("restate_django.send_one", [str(row.pk), "default"])]
    from restate_django.tasks import send_one

    assert send_one(*sent[0][1]) == {"accepted": 1}
    assert send_one(*sent[0][1]) == {}
    assert len(fake.sends()) == 1


def test_the_tasks_go_to_the_app_that_is_current_for_the_caller(fake, settings):
    """Another thread publishes, and Celery's current app is each thread's own."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}
    with current_app_put_back():
        # Not by the environment: Celery would make the app that Django's settings configure every thread's default.
        app = Celery("here", set_as_current=False, fixups=[])
        sent: list[str] = []
        app.send_task = lambda name, **kwargs: sent.append(name)
        app.set_current()
        send("Greeter", "greet")
    assert sent == ["restate_django.send_one"]


def test_without_a_broker_the_relay_delivers(fake, settings, monkeypatch, caplog):
    from celery import current_app

    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}

    def no_broker(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(current_app, "send_task", no_broker)
    row = send("Greeter", "greet")
    assert row.status == "unsent"
    assert any("No Celery broker" in record.message for record in caplog.records)
    assert delivery.deliver_due() == {"accepted": 1}


def test_many_rows_are_one_sweep(fake, settings, monkeypatch):
    from celery import current_app

    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}
    sent: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **kwargs: sent.append(name))
    send_many([Outgoing("Greeter", "greet", n) for n in range(30)])
    assert sent == ["restate_django.deliver"]
    assert delivery.deliver_due() == {"accepted": 30}


def test_eager_celery_sends_at_once(fake, settings):
    from celery import current_app

    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}
    current_app.conf.task_always_eager = True
    try:
        row = send("Greeter", "greet")
    finally:
        current_app.conf.task_always_eager = False
    row.refresh_from_db()
    assert row.status == "accepted"


def test_a_broker_that_hangs_costs_a_view_a_second_at_most(fake, settings, monkeypatch, caplog):
    from celery import current_app

    from restate_django import broker

    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "celery"}}
    hangs = threading.Event()
    monkeypatch.setattr(broker, "PATIENCE", 0.2)
    monkeypatch.setattr(current_app, "send_task", lambda *args, **kwargs: hangs.wait(20))
    try:
        start = time.monotonic()
        rows = [send("Greeter", "greet", n) for n in range(5)]
        assert time.monotonic() - start < 5
        assert caplog.text.count("did not answer") == 1, "it is waited for once, then left alone"
    finally:
        hangs.set()
    assert delivery.deliver_due() == {"accepted": len(rows)}


# ---------------------------------------------------------------- a server that hangs


def test_a_server_that_hangs_is_left_to_the_relay_for_a_while(fake, settings, caplog):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "on_commit", "ON_COMMIT_TIMEOUT": 0.6}}
    hangs = threading.Event()

    def answer(request):
        hangs.wait(20)
        return fake_ingress.accepted()

    fake.answer = answer
    try:
        rows = [send("Greeter", "greet", n) for n in range(8)]
        assert {row.status for row in rows} == {"unsent"}
        assert len(fake.sends()) == 3, "three waited in vain, then nobody did"
        assert caplog.text.count("left to the relay") == 1
        given_back = rows[-1]
        given_back.refresh_from_db()
        assert (given_back.unknown_since, given_back.lease_token) == (None, None)
        assert "relay" in given_back.delivery_error
        assert rows[0].unknown_since is not None
    finally:
        hangs.set()
    fake.answer = lambda request: fake_ingress.accepted(previously=True)
    make_due(*rows)
    assert delivery.deliver_due() == {"accepted": 8}
    assert len({request.headers["idempotency-key"] for request in fake.sends()}) == 8


def test_a_server_that_is_away_is_asked_each_time(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "on_commit", "INGRESS_URL": NOBODY}}
    rows = [send("Greeter", "greet", n) for n in range(5)]
    assert all("refused" in row.delivery_error for row in rows), "a quick no costs nobody anything"


def test_the_relay_command_once(fake, capsys):
    send("Greeter", "greet")
    management.call_command("restate_relay", "--once")
    out = capsys.readouterr().out
    assert "delivered: 1 accepted" in out
    assert "polled: nothing" in out


@pytest.mark.parametrize("pause", ["0", "-1", "x", "inf"])
def test_the_relay_command_refuses_a_pause_that_is_none(pause):
    with pytest.raises(management.CommandError, match="positive"):
        management.call_command("restate_relay", f"--poll={pause}")


# ---------------------------------------------------------------- a real server that goes and comes


def test_an_outage_costs_nothing(make_restate, settings):
    restate = make_restate()
    settings.RESTATE = {"default": {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}}
    restate.server.kill()
    row = send("Ledger", "write", {"row": "outage"})
    assert (row.status, row.unknown_since) == ("unsent", None)
    assert row.delivery_error
    restate.server.start()

    def delivered() -> bool:
        make_due(row)
        delivery.deliver_due()
        refresh(row)
        return row.status == "succeeded"

    wait_for(delivered, timeout=30, what="the row to succeed")
    assert [entry["row"] for entry in restate.ledger()] == ["outage"]


def test_an_unregistered_service_is_waited_for(make_restate, settings):
    restate = make_restate(handlers=False)
    settings.RESTATE = {"default": {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}}
    row = send("Greeter", "greet", {"name": "x"})
    assert (row.status, row.unregistered_since is not None) == ("unsent", True)
    row = deliver(row, unregistered_since=timezone.now() - dt.timedelta(minutes=6))
    assert row.status == "rejected"
