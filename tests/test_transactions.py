"""Transactions of every kind around ``send``: what is committed is sent once, what is rolled back never."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from django.db import DatabaseError, connection, transaction
from django.http import HttpResponse
from django.test import Client, TestCase
from django.test.utils import override_settings
from django.urls import path

from restate_django import Outgoing, call, delivery, send, send_many
from restate_django.exceptions import InvalidRequest
from restate_django.models import Invocation
from restate_django.polling import poll_due
from tests import fake_ingress
from tests.conftest import ROOT
from tests.fake_ingress import FakeIngress
from tests.models import Order


@pytest.fixture
def fake(settings):
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    yield server
    server.close()


def sent(fake: FakeIngress) -> list[bytes]:
    """The bodies that arrived."""
    return [request.body for request in fake.sends()]


@pytest.mark.django_db(transaction=True)
class TestAtomic:
    """Nested blocks and savepoints."""

    def test_nothing_is_sent_before_the_outermost_commit(self, fake):
        with transaction.atomic():
            with transaction.atomic():
                row = send("Greeter", "greet", 1)
            assert sent(fake) == []
            assert row.status == "unsent"
        assert sent(fake) == [b"1"]
        assert row.status == "accepted"

    def test_a_savepoint_that_is_rolled_back_takes_its_row_along(self, fake):
        with transaction.atomic():
            send("Greeter", "greet", 1)
            with transaction.atomic():
                send("Greeter", "greet", 2)
                transaction.set_rollback(True)
            with transaction.atomic():
                send("Greeter", "greet", 3)
        assert sent(fake) == [b"1", b"3"]
        assert Invocation.objects.count() == 2

    def test_a_roll_back_of_all(self, fake):
        with transaction.atomic():
            send("Greeter", "greet", 1)
            Order.objects.create(number="1")
            transaction.set_rollback(True)
        assert sent(fake) == []
        assert not Invocation.objects.exists()
        assert delivery.deliver_due() == {}

    def test_a_callback_that_fails_before_ours_leaves_the_row_to_the_relay(self, fake):
        def fails() -> None:
            raise ZeroDivisionError

        def block() -> None:
            with transaction.atomic():
                transaction.on_commit(fails)
                send("Greeter", "greet", 1)

        with pytest.raises(ZeroDivisionError):
            block()
        row = Invocation.objects.get()
        assert (row.status, row.is_leased) == ("unsent", True)
        assert sent(fake) == []
        # Its lease runs out, and the relay takes it.
        Invocation.objects.update(next_attempt_at=row.created_at, lease_until=row.created_at)
        assert delivery.deliver_due() == {"accepted": 1}
        assert sent(fake) == [b"1"]

    def test_an_answer_that_never_comes_does_not_break_the_callers_commit(self, fake):
        fake.answer = lambda request: None
        with transaction.atomic():
            Order.objects.create(number="1")
            send("Greeter", "greet", 1)
        assert Order.objects.count() == 1
        assert Invocation.objects.get().status == "unsent"

    def test_select_for_update_around_it(self, fake):
        Order.objects.create(number="1")
        with transaction.atomic():
            order = Order.objects.select_for_update().get()
            first = send("Greeter", "greet", 1, related_to=order, idempotency_key="k")
            again = send("Greeter", "greet", 1, related_to=order, idempotency_key="k")
            assert first == again
        assert sent(fake) == [b"1"]

    def test_a_durable_block(self, fake):
        with transaction.atomic(durable=True):
            row = send("Greeter", "greet", 1)
        assert row.status == "accepted"

    def test_call_inside_a_transaction_runs_at_once(self, fake):
        fake.answer = lambda request: fake_ingress.output("hi")
        with transaction.atomic():
            assert call("Greeter", "greet") == "hi"
        assert Invocation.objects.get().status == "succeeded"


# ---------------------------------------------------------------- requests


def place_order(request):
    """A view that sends, and fails when it is asked to."""
    order = Order.objects.create(number=request.POST["number"])
    row = send("Greeter", "greet", order.number, related_to=order)
    if "fail" in request.POST:
        raise DatabaseError("no")
    return HttpResponse(row.status)


urlpatterns = [path("order/", place_order)]


@pytest.mark.django_db(transaction=True)
def test_atomic_requests(fake, settings):
    settings.ROOT_URLCONF = __name__
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        client = Client(raise_request_exception=False)
        assert client.post("/order/", {"number": "1"}).content == b"unsent"
        assert sent(fake) == [b'"1"']
        assert client.post("/order/", {"number": "2", "fail": "yes"}).status_code == 500
        assert sent(fake) == [b'"1"']
        assert list(Order.objects.values_list("number", flat=True)) == ["1"]
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


# ---------------------------------------------------------------- a second database


class ToOther:
    """A router that keeps invocations in the second database."""

    def db_for_write(self, model, **hints):
        return "other" if model is Invocation else None

    db_for_read = db_for_write


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_second_database(fake, settings, restate):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DATABASES": ["default", "other"]}}
    settings.DATABASE_ROUTERS = [f"{__name__}.ToOther"]
    with transaction.atomic(using="other"):
        row = send("Greeter", "greet", {"name": "x"})
        assert row._state.db == "other"
        assert row.status == "unsent"
    assert row.status == "accepted"
    here = send("Greeter", "greet", {"name": "y"}, using="default")
    assert here._state.db == "default"
    for each in (row, here):
        assert each.attach(timeout=20).startswith("Hello")
        each.refresh()
    assert Invocation.objects.using("other").get().status == "succeeded"
    assert Invocation.objects.using("default").get().status == "succeeded"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_who_asked_and_what_it_is_about_go_along_to_a_second_database(fake, settings, django_user_model):
    """No constraint holds them across databases, and no router has to allow them."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DATABASES": ["default", "other"]}}
    user = django_user_model.objects.create_user("mary")
    order = Order.objects.create(number="A-17")
    row = send("Greeter", "greet", 1, requested_by=user, related_to=order, using="other")
    (many,) = send_many([Outgoing("Greeter", "greet", 2, requested_by=user, related_to=order)], using="other")
    for pk in (row.pk, many.pk):
        found = Invocation.objects.using("other").get(pk=pk)
        assert (found.requested_by_id, found.related_to) == (user.pk, order)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_jobs_sweep_every_database_that_is_named(fake, settings):
    settings.RESTATE = {
        "default": {**settings.RESTATE["default"], "DATABASES": ["default", "other"], "DELIVERY": "relay"}
    }
    send("Greeter", "greet", 1, using="default")
    send("Greeter", "greet", 2, using="other")
    assert delivery.deliver_due() == {"accepted": 2}
    fake.answer = lambda request: fake_ingress.output("hi")
    for alias in ("default", "other"):
        Invocation.objects.using(alias).update(next_poll_at=Invocation.objects.using(alias).get().created_at)
    assert poll_due() == {"succeeded": 2}


@pytest.mark.django_db(databases=["default", "other"])
def test_a_database_that_nobody_sweeps_is_refused(fake):
    with pytest.raises(InvalidRequest, match="other"):
        send("Greeter", "greet", using="other")


# ---------------------------------------------------------------- a user's own tests


class InATestCase(TestCase):
    """What a user's ``TestCase`` sees: callbacks run when it captures them, and nothing breaks its transaction."""

    def setUp(self):
        self.fake = FakeIngress()
        self.addCleanup(self.fake.close)
        connection = {"INGRESS_URL": self.fake.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}
        changed = override_settings(RESTATE={"default": connection})
        changed.enable()
        self.addCleanup(changed.disable)

    def test_nothing_is_sent_by_itself(self):
        row = send("Greeter", "greet")
        assert row.status == "unsent"
        assert self.fake.requests == []

    def test_captured_callbacks_send(self):
        with self.captureOnCommitCallbacks(execute=True):
            row = send("Greeter", "greet")
        assert row.status == "accepted"
        row.refresh_from_db()
        assert row.status == "accepted"

    def test_an_error_in_a_callback_leaves_the_tests_transaction_whole(self):
        self.fake.answer = lambda request: None
        with self.captureOnCommitCallbacks(execute=True):
            row = send("Greeter", "greet")
        row.refresh_from_db()
        assert row.status == "unsent"
        Order.objects.create(number="1")

    def test_the_jobs_run(self):
        with override_settings(RESTATE={"default": {**_settings(), "DELIVERY": "relay"}}):
            send("Greeter", "greet")
            assert delivery.deliver_due() == {"accepted": 1}


def _settings() -> dict[str, object]:
    from django.conf import settings

    return dict(settings.RESTATE["default"])


# ---------------------------------------------------------------- several processes on one database

WRITER = """
import json, os, sys, django
from django.conf import settings
settings.RESTATE = json.loads(os.environ["WRITER_RESTATE"])
django.setup()
from django.db import transaction
from restate_django import send
from restate_django.models import Invocation
for n in range(40):
    with transaction.atomic():
        Invocation.objects.filter(service="nobody").exists()
        send("Greeter", "greet", n % 30, idempotency_key=f"{sys.argv[1]}-{n % 30}")
"""


@pytest.mark.django_db(transaction=True)
def test_several_processes_write_at_once(fake, settings):
    """On SQLite with the options that the check asks for, nobody is told "database is locked"."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
        "WRITER_RESTATE": json.dumps(settings.RESTATE),
    }
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(n)], env=environment, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    errors = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, errors
    assert Invocation.objects.count() == 4 * 30
    assert set(Invocation.objects.values_list("status", flat=True)) == {"accepted"}
    assert len({request.headers["idempotency-key"] for request in fake.sends()}) == 4 * 30


# ---------------------------------------------------------------- which transaction it was


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("delivery", ["on_commit", "relay"])
def test_what_one_transaction_recorded_has_its_name(fake, settings, delivery):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": delivery}}
    with transaction.atomic():
        first = send("Greeter", "greet", {})
        with transaction.atomic():
            nested = send("Greeter", "greet", {})
        many = send_many([Outgoing("Greeter", "greet", {}), Outgoing("Greeter", "greet", {})])
    with transaction.atomic():
        second = send("Greeter", "greet", {})
    alone = send("Greeter", "greet", {})
    assert first.transaction_id is not None
    assert {row.transaction_id for row in [first, nested, *many]} == {first.transaction_id}
    assert first.transaction_id < first.pk
    assert second.transaction_id not in {None, first.transaction_id}
    assert alone.transaction_id is None
    first.refresh_from_db()
    assert first.transaction_id == nested.transaction_id, "it is kept"


@pytest.mark.django_db(transaction=True)
def test_a_transaction_keeps_its_name_when_a_savepoint_is_rolled_back_and_loses_it_with_itself(fake):
    with transaction.atomic():
        before = send("Greeter", "greet", {})
        with contextlib.suppress(RuntimeError), transaction.atomic():
            send("Greeter", "greet", {})
            raise RuntimeError
        after = send("Greeter", "greet", {})
    assert before.transaction_id == after.transaction_id
    with contextlib.suppress(RuntimeError), transaction.atomic():
        lost = send("Greeter", "greet", {})
        raise RuntimeError
    with transaction.atomic():
        new = send("Greeter", "greet", {})
    assert new.transaction_id not in {lost.transaction_id, before.transaction_id}
