"""A cancellation is sent once, whoever wants it and whatever breaks: a second one would cancel the compensation."""

from __future__ import annotations

import datetime as dt
import json
import threading

import pytest
from django.db import connections as databases
from django.utils import timezone

from restate_django import cancelling, operations, send
from restate_django.client import AdminClient
from restate_django.models import Invocation
from restate_django.polling import poll_due, refresh
from tests import fake_ingress
from tests.fake_ingress import FakeIngress
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class FakeRestate(FakeIngress):
    """Both APIs at one address; it counts the cancellations."""

    def __init__(self) -> None:
        super().__init__()
        self.cancel_answer = (202, {}, b"")
        self.signals: list[dict[str, object]] = []
        self.during_cancel = lambda: None
        self.answer = self._answer

    def cancels(self) -> int:
        return len([request for request in self.requests if request.path.endswith("/cancel")])

    def _answer(self, request):
        if request.path.endswith("/cancel"):
            self.during_cancel()
            return self.cancel_answer
        if request.path == "/query":
            rows = self.signals if b"sys_journal" in request.body else [_running()]
            return 200, {"Content-Type": "application/json"}, json.dumps({"rows": rows}).encode()
        if "/output/" in request.path:
            return fake_ingress.NOT_READY
        return fake_ingress.accepted()


def _running() -> dict[str, object]:
    return {"id": fake_ingress.INVOCATION_ID, "status": "running", "target": "Greeter/greet"}


@pytest.fixture
def fake(settings):
    server = FakeRestate()
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": server.url,
            "ADMIN_URL": server.url,
            "PATH_STYLE": "restate",
            "DATABASES": ["default"],
        }
    }
    yield server
    server.close()


def accepted() -> Invocation:
    row = send("Greeter", "greet")
    assert row.status == "accepted"
    return row


def due(row: Invocation, **changes: object) -> None:
    Invocation.objects.filter(pk=row.pk).update(next_poll_at=timezone.now(), lease_until=None, **changes)


def test_the_poll_does_not_send_what_an_operator_is_sending(fake):
    row = accepted()

    def poll_meanwhile() -> None:
        def work() -> None:
            try:
                due(row)
                poll_due()
            finally:
                databases.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)

    fake.during_cancel = poll_meanwhile
    row.cancel()
    # The poll saw it running meanwhile, and that it was sent is written down all the same.
    row.refresh_from_db()
    assert (row.status, row.cancel_sent_at is not None) == ("running", True)
    due(row)
    poll_due()
    assert fake.cancels() == 1


def test_nobody_else_sends_while_a_long_request_may_still_be_on_its_way(fake, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "TIMEOUT": 100, "LEASE": dt.timedelta(minutes=5)}}
    row = accepted()
    assert cancelling.claim(row, "default")
    for seconds, is_free in ((190, False), (210, True)):
        claimed = timezone.now() - dt.timedelta(seconds=seconds)
        Invocation.objects.filter(pk=row.pk).update(cancel_claimed_at=claimed)
        assert cancelling.claim(Invocation.objects.get(pk=row.pk), "default") is is_free


def test_two_operators_at_once_send_one(fake):
    row = accepted()
    reports: list[operations.OperationReport] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        try:
            barrier.wait()
            reports.append(operations.cancel(Invocation.objects.get(pk=row.pk)))
        finally:
            databases.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(len(report.done) for report in reports) == 1
    assert sum(len(report.passed_over) for report in reports) == 3
    assert fake.cancels() == 1


def test_what_nobody_knows_is_looked_up_in_the_journal_before_it_is_sent_again(fake):
    row = accepted()
    fake.cancel_answer = None
    report = operations.cancel(row)
    assert report.done == []
    row.refresh_from_db()
    assert (row.cancel_sent_at, row.cancel_claimed_at is not None) == (None, True)
    sent = fake.cancels()
    due(row)
    poll_due()
    assert fake.cancels() == sent, "its claim is young: it may be on its way"
    signal = {"entry_lite_json": '{"Notification":{"ty":"Signal","id":{"SignalIndex":1},"result":"Void"}}'}
    fake.signals = [signal]
    due(row, cancel_claimed_at=timezone.now() - 2 * cancelling.LEASE)
    poll_due()
    row.refresh_from_db()
    assert row.cancel_sent_at is not None
    assert fake.cancels() == sent


def test_what_did_not_arrive_is_sent_again(fake):
    row = accepted()
    fake.cancel_answer = None
    operations.cancel(row)
    sent = fake.cancels()
    fake.cancel_answer = (202, {}, b"")
    due(row, cancel_claimed_at=timezone.now() - 2 * cancelling.LEASE)
    poll_due()
    row.refresh_from_db()
    assert row.cancel_sent_at is not None
    assert fake.cancels() == sent + 1


def test_a_delayed_one_whose_cancellation_did_not_arrive_is_soon_tried_again(fake, settings):
    """Not at its own time, when it would run: Restate was away for seconds."""
    row = send("Greeter", "greet", delay=dt.timedelta(hours=3))
    url = fake.url
    away = {**settings.RESTATE["default"], "ADMIN_URL": "http://127.0.0.1:9", "INGRESS_URL": "http://127.0.0.1:9"}
    settings.RESTATE = {"default": away}
    report = operations.cancel(row)
    assert "It is written down, and passed on as soon as Restate takes it." in report.refused[0][1]
    due(row)
    poll_due()
    row.refresh_from_db()
    assert row.cancel_sent_at is None
    assert row.next_poll_at < timezone.now() + dt.timedelta(seconds=31)
    settings.RESTATE = {"default": {**away, "ADMIN_URL": url, "INGRESS_URL": url}}
    due(row)
    poll_due()
    assert fake.cancels() == 1


def test_done_at_once_is_written_down_whatever_the_status_became(fake):
    row = accepted()
    fake.cancel_answer = (200, {}, b"")
    fake.during_cancel = lambda: Invocation.objects.filter(pk=row.pk).update(status="running")
    # The answer comes from a thread of the fake's own, with a connection of its own.
    fake.during_cancel = _in_its_own_connection(fake.during_cancel)
    row.cancel()
    assert row.status == "cancelled"
    assert Invocation.objects.get().status == "cancelled"


def _in_its_own_connection(work):
    def done() -> None:
        try:
            work()
        finally:
            databases.close_all()

    return done


def test_the_journal_tells_a_real_cancellation(restate):
    row = send("Slow", "sleep", {"seconds": 60})
    wait_for(lambda: refresh(row) and row.status in {"suspended", "running"}, what="it to run")
    with AdminClient(restate.admin_url) as admin:
        assert admin.has_cancel_signal(row.invocation_id) is False
        row.cancel()
        wait_for(lambda: admin.has_cancel_signal(row.invocation_id), what="the signal in the journal")


def test_an_admin_api_that_is_away_does_not_keep_the_outcome_away(fake, settings):
    row = accepted()
    Invocation.objects.filter(pk=row.pk).update(cancel_requested_at=timezone.now())
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": "http://127.0.0.1:9"}}
    fake.answer = lambda request: fake_ingress.output("hi")
    due(row)
    assert poll_due() == {"succeeded": 1}


def test_a_lease_is_longer_than_a_request(settings):
    from restate_django.conf import get_settings

    assert dt.timedelta(seconds=get_settings().timeout) < cancelling.LEASE
