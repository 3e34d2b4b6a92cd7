"""The testing kit's fake: what it records and says, and that rows go through the real lifecycle against it."""

from __future__ import annotations

import datetime as dt
import socket
import sqlite3
from unittest import mock

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from restate_django import NO_PAYLOAD, Outgoing, call, delivery, operations, polling, send, send_many
from restate_django.client import AdminClient, IngressClient
from restate_django.connections import connections
from restate_django.exceptions import (
    AdminRefused,
    CallTimeout,
    InvalidRequest,
    InvocationFailed,
    NotSupported,
    OperationRefused,
    OutcomeUnknown,
    Unavailable,
)
from restate_django.models import Invocation
from restate_django.signals import invocation_finished
from restate_django.testing import FakeRestate
from tests import handlers


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_is_recorded_and_accepted(fake_restate):
    row = send("Greeter", "greet", {"name": "Mary", "born": dt.date(1999, 12, 31)}, headers={"X-Tenant": "acme"})
    assert row.status == "accepted"
    sent = fake_restate.assert_sent("Greeter", "greet", {"name": "Mary", "born": dt.date(1999, 12, 31)}, key=None)
    assert sent.invocation_id == row.invocation_id
    assert sent.payload == {"name": "Mary", "born": "1999-12-31"}
    assert sent.headers == {"x-tenant": "acme"}
    assert sent.row == row
    fake_restate.assert_sent("Greeter", payload={"name": mock.ANY, "born": mock.ANY}, headers={"X-Tenant": "acme"})
    fake_restate.assert_not_sent("Greeter", "greet", {"name": "Joe"})
    fake_restate.assert_not_sent("Mailer")


@pytest.mark.django_db(transaction=True)
def test_a_row_goes_through_its_statuses(fake_restate):
    finished = mock.Mock()
    invocation_finished.connect(finished)
    row = send("Report", "build", {"month": 5})
    assert fake_restate.back_off(row, "no paper", retries=2).status == "backing-off"
    assert (row.retry_count, row.last_failure) == (2, "no paper")
    assert fake_restate.pause(row, "out of paper").status == "paused"
    assert "out of paper" in row.last_failure
    assert row.resume().refresh().status == "running"
    assert fake_restate.suspend(row).status == "suspended"
    assert fake_restate.run(row).status == "running"
    assert fake_restate.finish(row, {"pages": 3}).status == "succeeded"
    assert row.output_value == {"pages": 3}
    assert [each.kwargs["invocation"].pk for each in finished.call_args_list] == [row.pk]
    with pytest.raises(AssertionError, match="has ended already"):
        fake_restate.fail(row, "late")
    invocation_finished.disconnect(finished)


# ---------------------------------------------------------------- what it answers


@pytest.mark.django_db(transaction=True)
def test_a_target_answers_as_it_was_told_and_the_last_word_holds(fake_restate):
    fake_restate.on("Cart").returns("all handlers")
    fake_restate.on("Cart", "add", key="cart-1").fails("sold out", 409, metadata={"sku": "mug"})
    assert call("Cart", "clear", key="cart-1") == "all handlers"
    with pytest.raises(InvocationFailed, match="sold out") as failure:
        call("Cart", "add", key="cart-1")
    assert (failure.value.code, failure.value.metadata) == (409, {"sku": "mug"})
    assert call("Cart", "add", key="cart-2") == "all handlers"
    fake_restate.on("Cart", "add").returns(lambda payload: payload["quantity"] * 2)
    assert call("Cart", "add", {"quantity": 2}, key="cart-1") == 4
    fake_restate.on("Cart", "raw").returns(b"\x00\xff")
    assert call("Cart", "raw", key="cart-1") == b"\x00\xff"


@pytest.mark.django_db(transaction=True)
def test_a_call_of_which_nothing_is_said_is_a_mistake_of_the_test(fake_restate):
    with pytest.raises(AssertionError, match=r'on\("Greeter", "greet"\)\.returns'):
        call("Greeter", "greet", {"name": "Mary"})


@pytest.mark.django_db(transaction=True)
def test_time_passes_when_it_is_told_to(fake_restate):
    fake_restate.on("Report", "build").takes(dt.timedelta(minutes=5)).returns("done")
    row = send("Report", "build", delay=dt.timedelta(hours=1))
    fake_restate.assert_sent("Report", "build", NO_PAYLOAD, delay=dt.timedelta(hours=1))
    fake_restate.sweep()
    row.refresh_from_db()
    assert row.status == "scheduled"
    fake_restate.advance(dt.timedelta(hours=1))
    row.refresh_from_db()
    assert row.status == "running"
    with pytest.raises(CallTimeout):
        row.attach(timeout=30)
    assert row.attach(timeout=301) == "done"
    row.refresh_from_db()
    assert row.status == "succeeded"


@pytest.mark.django_db(transaction=True)
def test_a_call_that_takes_longer_than_its_timeout_ends_at_once(fake_restate):
    fake_restate.on("Report", "build").takes(3600).returns("done")
    with pytest.raises(CallTimeout) as timeout:
        call("Report", "build", timeout=60)
    row = timeout.value.invocation
    assert row.refresh().status == "running"
    fake_restate.advance(3600)
    row.refresh_from_db()
    assert row.output_value == "done"


@pytest.mark.django_db(transaction=True)
def test_the_network_breaks(fake_restate):
    fake_restate.on("Greeter").breaks("refused")
    row = send("Greeter", "greet", {"name": "Mary"})
    assert (row.status, row.unknown_since) == ("unsent", None)
    assert "Nothing was sent" in row.delivery_error
    with pytest.raises(Unavailable):
        call("Greeter", "greet", {"name": "Mary"})
    fake_restate.assert_nothing_sent()
    fake_restate.on("Greeter").accepts()
    assert row.refresh().status == "accepted"
    fake_restate.on("Mailer").breaks("busy")
    assert send("Mailer", "remind").unknown_since is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["reset", "timeout"])
def test_a_send_of_unknown_outcome_is_found_to_be_our_own(fake_restate, how):
    fake_restate.on("Greeter").breaks(how, taken=True)
    row = send("Greeter", "greet", {"name": "Mary"})
    assert row.status == "unsent"
    assert row.unknown_since is not None
    fake_restate.on("Greeter").accepts()
    assert row.refresh().status == "accepted"
    assert not row.previously_accepted
    fake_restate.assert_sent("Greeter", times=1)
    fake_restate.on("Greeter").breaks(how)
    with pytest.raises(OutcomeUnknown):
        call("Greeter", "greet", {"name": "Joe"})
    fake_restate.assert_not_sent("Greeter", "greet", {"name": "Joe"})


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_breaks_once_is_repaired_by_the_client(fake_restate):
    fake_restate.on("Greeter").breaks("reset", taken=True, times=1)
    row = send("Greeter", "greet", {"name": "Mary"})
    assert (row.status, row.previously_accepted) == ("accepted", False)


@pytest.mark.django_db(transaction=True)
def test_a_target_that_is_not_found(fake_restate):
    fake_restate.on("Nope").is_not_found()
    fake_restate.on("Greeter", "nope").is_not_found()
    assert "service 'Nope' not found" in send("Nope", "greet").delivery_error
    assert "handler 'nope' was not found" in send("Greeter", "nope").delivery_error
    assert send("Greeter", "greet").status == "accepted"


@pytest.mark.django_db(transaction=True)
def test_a_workflow_by_convention_and_by_what_is_served(fake_restate):
    row = send("Signup", "run", {"email": "m@example.com"}, key="mary")
    assert row.status == "accepted"
    assert fake_restate.assert_sent("Signup", "run", key="mary").idempotency_key is None
    assert send("Signup", "run", {"email": "m@example.com"}, key="mary") == row
    fake_restate.assert_sent("Signup", times=1)


@pytest.mark.django_db(transaction=True)
def test_operations_are_the_real_ones(fake_restate):
    row = send("Slow", "sleep")
    assert row.cancel().refresh().status == "cancelled"
    killed = send("Slow", "sleep")
    assert killed.kill().status == "killed"
    new = killed.restart_as_new()
    assert fake_restate.finish(new, "slept").output_value == "slept"
    killed.purge()
    with pytest.raises(OperationRefused):
        killed.pause()
    forgotten = send("Slow", "sleep")
    assert fake_restate.forget(forgotten).status == "gone"
    other = send("Slow", "sleep")
    assert fake_restate.cancel(other).status == "cancelled"
    assert fake_restate.kill(send("Slow", "sleep")).status == "killed"


@pytest.mark.django_db(transaction=True)
def test_celery_is_not_needed_and_several_connections_are_told_apart(fake_restate, settings):
    settings.RESTATE = {
        "default": {},
        "other": {"INGRESS_URL": "https://restate.example.com/ingress", "TOKEN": "secret-word"},
    }
    send("Greeter", "greet", connection="other")
    send("Greeter", "greet")
    assert [each.connection for each in fake_restate.sent] == ["other", "default"]
    fake_restate.assert_sent("Greeter", connection="other", times=1)


@pytest.mark.django_db(transaction=True)
def test_rows_of_delivery_by_celery_are_sent_after_the_commit(settings):
    settings.RESTATE = {"default": {"DELIVERY": "celery", "PATH_STYLE": "legacy"}}
    with FakeRestate() as fake_restate:
        rows = send_many([Outgoing("Greeter", "greet", {"number": number}) for number in range(30)])
        assert {row.status for row in rows} == {"accepted"}
        fake_restate.assert_sent("Greeter", "greet", times=30)
        assert settings.RESTATE["default"]["DELIVERY"] == "on_commit"
    assert settings.RESTATE["default"]["DELIVERY"] == "celery"


@pytest.mark.django_db(transaction=True)
def test_many_at_once_go_to_the_fake_whatever_they_travel_by(settings):
    """Where the jobs have a faster way than the session's, it must not lead around the fake."""
    with socket.create_server(("127.0.0.1", 0)) as listener, FakeRestate(handlers.greeter, handlers.slow) as fake:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings.RESTATE = {"default": {"INGRESS_URL": url, "ADMIN_URL": url, "ON_COMMIT_TIMEOUT": 0.5, "TIMEOUT": 0.5}}
        fake.on("Greeter", "greet").returns("Hello")
        rows = send_many([Outgoing("Greeter", "greet", {"number": number}) for number in range(30)])
        fake.assert_sent("Greeter", times=30)
        fake.sweep()
        assert {row.refresh().status for row in rows} == {"succeeded"}
        fake.on("Slow").breaks("refused")
        waiting = send_many([Outgoing("Slow", "sleep") for _ in range(30)])
        assert {row.status for row in waiting} == {"unsent"}
        fake.on("Slow").accepts()
        Invocation.objects.unsent().update(next_attempt_at=timezone.now())
        assert delivery.deliver_due() == {"accepted": 30}
        fake.assert_sent("Slow", times=30)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_when_the_transaction_is_rolled_back(fake_restate):
    with transaction.atomic():
        send("Greeter", "greet", {"name": "Mary"})
        transaction.set_rollback(True)
    fake_restate.assert_nothing_sent()


@pytest.mark.django_db(transaction=True)
def test_the_sdks_objects_are_taken_in_place_of_names():
    with FakeRestate(handlers.greeter, handlers.signup) as fake:
        fake.on(handlers.greeter).returns("Hello")
        assert call(handlers.greet, {"name": "Mary"}) == "Hello"
        fake.assert_sent(handlers.greet, {"name": "Mary"})
        fake.assert_sent(handlers.greet)
        fake.assert_sent(handlers.greeter, "greet", {"name": "Mary"}, verb="call")
        fake.assert_sent(handlers.greeter, times=1)
        fake.assert_not_sent(handlers.slowly)
        fake.on(handlers.greet).fails("no")
        with pytest.raises(InvocationFailed):
            call(handlers.greet, {"name": "Mary"})
        assert "not found" in send("Cart", "add", key="cart-1").delivery_error
    with pytest.raises(InvalidRequest, match="serves the SDK's services"):
        FakeRestate("Greeter")


def test_without_a_database_the_difference_is_told_all_the_same(fake_restate):
    with IngressClient("http://localhost:8080") as ingress, AdminClient("http://localhost:9070") as admin:
        receipt = ingress.send("Greeter", "greet", {"name": "Mary"})
        assert admin.version().version.startswith("1.7")
        assert [row.id for row in admin.sys_invocations([receipt.invocation_id])] == [receipt.invocation_id]
        with pytest.raises(AdminRefused, match="no such table"):
            admin.query("SELECT * FROM nowhere")
        with pytest.raises(NotSupported):
            admin.list_subscriptions()
    with pytest.raises(AssertionError, match="Mailer was not sent"):
        fake_restate.assert_sent("Mailer")


@pytest.mark.django_db(transaction=True)
def test_a_server_of_its_own_is_the_fakes_too(fake_restate, settings):
    settings.RESTATE = {
        "default": {"INGRESS_URL": "https://example.com/restate/", "ADMIN_URL": "https://example.com/admin/"}
    }
    row = send("Greeter", "greet")
    assert row.cancel().refresh().status == "cancelled"
    assert fake_restate.sent[0].connection == "default"


# ---------------------------------------------------------------- what it says


@pytest.mark.django_db(transaction=True)
def test_the_difference_is_readable(fake_restate):
    with pytest.raises(AssertionError) as nothing:
        fake_restate.assert_sent("Greeter", "greet")
    assert str(nothing.value) == "Greeter/greet was not sent.\nNothing was sent."
    send("Cart", "add", {"sku": "mug", "quantity": 2, "note": "x" * 60, "gift": False}, key="cart-1")
    send("Greeter", "greet", {"name": "Mary"})
    with pytest.raises(AssertionError) as short:
        fake_restate.assert_sent("Greeter", "greet", {"name": "Joe"}, key=None)
    assert str(short.value).splitlines() == [
        "Greeter/greet was not sent like this.",
        "payload: wanted {'name': 'Joe'}, sent {'name': 'Mary'}",
        "Sent:",
        f"  send Cart/cart-1/add {{'sku': 'mug', 'quantity': 2, 'note': '{'x' * 60}', 'gift': False}}",
        "  send Greeter/greet {'name': 'Mary'}",
    ]
    with pytest.raises(AssertionError) as long:
        fake_restate.assert_sent(
            "Cart", "add", {"sku": "mug", "quantity": 3, "note": "x" * 60, "gift": False}, key="cart-2"
        )
    lines = [line.replace(" ", "").rstrip(",") for line in str(long.value).splitlines()]
    assert "-'quantity':3" in lines
    assert "+'quantity':2" in lines
    assert "key: wanted 'cart-2', sent 'cart-1'" in str(long.value)
    with pytest.raises(AssertionError, match="was sent once, not twice"):
        fake_restate.assert_sent("Greeter", times=2)
    with pytest.raises(AssertionError, match="This was sent:\n  send Greeter/greet"):
        fake_restate.assert_not_sent("Greeter", "greet", {"name": "Mary"})
    with pytest.raises(AssertionError, match="Sent:\n  send Cart/cart-1/add"):
        fake_restate.assert_nothing_sent()


@pytest.mark.django_db(transaction=True)
@FakeRestate()
def test_a_function_is_decorated_and_takes_fixtures_beside_it(settings, fake):
    assert settings.RESTATE["default"]["DELIVERY"] == "on_commit"
    row = send("Greeter", "greet")
    assert fake.finish(row, "Hello").status == "succeeded"
    # Purged by somebody else: the row keeps what it has.
    assert fake.forget(row).status == "succeeded"
    with pytest.raises(OperationRefused):
        row.fetch_output()


def test_a_test_that_does_not_take_the_fake_is_told_so():
    with pytest.raises(TypeError, match="must take the fake"):
        FakeRestate()(lambda: None)


class InATestCase(TestCase):
    """Where nothing is committed, and the callbacks of a commit run when they are asked to."""

    @FakeRestate()
    def test_what_is_not_committed_is_not_sent_and_the_message_says_why(self, fake):
        with self.captureOnCommitCallbacks() as callbacks:
            row = send("Greeter", "greet", {"name": "Mary"})
        with pytest.raises(AssertionError, match="captureOnCommitCallbacks"):
            fake.assert_sent("Greeter", "greet")
        with pytest.raises(AssertionError, match="was not sent yet"):
            fake.finish(row, "Hello")
        fake.assert_nothing_sent()
        for callback in callbacks:
            callback()
        fake.assert_sent("Greeter", "greet", {"name": "Mary"})

    @FakeRestate()
    def test_a_row_goes_to_its_end_with_its_signals(self, fake):
        received = mock.Mock()
        invocation_finished.connect(received)
        with self.captureOnCommitCallbacks(execute=True):
            row = send("Greeter", "greet", {"name": "Mary"})
        assert row.status == "accepted"
        sent = fake.assert_sent("Greeter", "greet", {"name": "Mary"}, key=None)
        assert fake.finish(sent, "Hello, Mary!") == row
        row.refresh_from_db()
        assert (row.status, row.output_value) == ("succeeded", "Hello, Mary!")
        assert received.call_count == 1
        invocation_finished.disconnect(received)

    @FakeRestate()
    def test_calls_operations_and_sweeps_are_the_same_here(self, fake):
        fake.on("Greeter", "greet").returns("Hello")
        assert call("Greeter", "greet") == "Hello"
        with self.captureOnCommitCallbacks(execute=True):
            rows = [send("Slow", "sleep", delay=dt.timedelta(hours=1)) for _ in range(3)]
            rows += [send("Slow", "sleep") for _ in range(2)]
        report = operations.cancel(Invocation.objects.filter(service="Slow"))
        assert len(report.done) == 5
        fake.sweep()
        assert {row.status for row in Invocation.objects.filter(service="Slow")} == {"cancelled"}
        with self.captureOnCommitCallbacks(execute=True):
            row = send("Slow", "sleep")
        assert row.kill().status == "killed"
        again = row.restart_as_new()
        fake.assert_sent("Slow", times=6)  # a restart is Restate's, not your code's
        assert fake.finish(again, "slept").status == "succeeded"
        assert polling.poll_due() == {}

    @FakeRestate()
    async def test_a_coroutine(self, fake):
        from restate_django import acall

        fake.on("Greeter", "greet").returns("Hello")
        assert await acall("Greeter", "greet") == "Hello"


@FakeRestate()
class OfAClass(TransactionTestCase):
    """Each test has a fake of its own."""

    def test_one(self):
        send("Greeter", "greet", {"name": "Mary"})
        self.fake_restate.assert_sent("Greeter", times=1)

    def test_another(self):
        self.fake_restate.assert_nothing_sent()
        assert call_with_answer(self.fake_restate) == "pong"


def call_with_answer(fake: FakeRestate) -> object:
    """Call what was told to answer."""
    fake.on("NoInput", "ping").returns("pong")
    return call("NoInput", "ping")


@pytest.mark.django_db(transaction=True)
def test_no_socket_is_opened(fake_restate, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket")

    fake_restate.on("Greeter", "greet").returns("Hello")
    for row in Invocation.objects.all():
        row.refresh()
    with monkeypatch.context() as patch:
        patch.setattr("socket.getaddrinfo", refuse)
        patch.setattr("socket.create_connection", refuse)
        assert call("Greeter", "greet") == "Hello"
        row = send("Greeter", "greet")
        row.refresh()
        row.purge()
    assert row.status == "succeeded"


def test_the_tables_that_are_asked_by_sql_are_closed(fake_restate, monkeypatch):
    made = []

    def connect(*args, **kwargs):
        made.append(sqlite3.Connection(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    admin_client = connections["default"].require_admin("a test")
    assert admin_client.query("SELECT 1 AS one") == [{"one": 1}]
    with pytest.raises(AdminRefused, match="no such table"):
        admin_client.query("SELECT 1 FROM sys_nothing")
    assert len(made) == 2
    for tables in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            tables.execute("SELECT 1")
