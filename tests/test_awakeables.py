"""Approvals on real servers: what an invocation waits for, resolved, rejected, or refused for a reason."""

from __future__ import annotations

import json

import pytest
from django.db import transaction
from django.utils import timezone

from restate_django import awakeables, send
from restate_django.client.awakeable_ids import make_awakeable_id
from restate_django.connections import connections
from restate_django.exceptions import InvalidRequest, NotSupported, OperationRefused, RequestError
from restate_django.models import Invocation
from restate_django.polling import refresh
from tests.fake_ingress import FakeIngress, error
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def until(row, *statuses):
    def there():
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=20, what=f"{row.target} to be {statuses}, it is {row.status}")
    return row


def waiting(row, count=1):
    """Wait until Restate knows what an invocation waits for."""
    return wait_for(
        lambda: len(found := awakeables.pending(row)) == count and found, timeout=20, what=f"{count} awakeables"
    )


def point_at(settings, server, **more):
    settings.RESTATE = {"default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url, **more}}


@pytest.fixture(params=["restate_server", "legacy_restate_server", "scoped_restate_server"])
def any_restate(request, settings):
    """Each line of servers: the scoped one speaks the newest protocol with the handlers, and tells waits otherwise."""
    server = request.getfixturevalue(request.param)
    point_at(settings, server)
    return server


# ---------------------------------------------------------------- on real servers


def test_resolve_what_is_waited_for(any_restate):
    before = timezone.now()
    row = send("Approval", "ask", {"note": "verb-resolve"})
    (awakeable,) = waiting(row)
    assert connections["default"].ingress.call("Notes", "get", key="verb-resolve").value == [awakeable.id]
    assert before <= awakeable.since <= timezone.now()
    Invocation.objects.filter(pk=row.pk).update(next_poll_at=None)
    awakeables.resolve(row, awakeable.id, {"approved": True, "by": "é"})
    row.refresh_from_db()
    assert row.next_poll_at is not None, "the jobs look at once"
    assert until(row, "succeeded").output == {"approved": True, "by": "é"}
    assert awakeables.pending(row) == []


def test_resolve_without_a_value(any_restate):
    row = send("Approval", "ask", {"note": "verb-empty"})
    (awakeable,) = waiting(row)
    awakeables.resolve(row, awakeable.id)
    assert until(row, "succeeded").output_value is None


def test_reject(any_restate):
    row = send("Approval", "ask", {"note": "verb-reject"})
    (awakeable,) = waiting(row)
    awakeables.reject(row, awakeable.id, "too expensivé")
    assert until(row, "failed").failure_message == "too expensivé"


def test_several_at_once_and_each_once(any_restate):
    row = send("Approval", "ask_two", {})
    first, second = waiting(row, 2)
    awakeables.resolve(row, second.id, 2)
    wait_for(lambda: [one.id for one in awakeables.pending(row)] == [first.id], timeout=20, what="one to be left")
    with pytest.raises(OperationRefused, match="resolved or rejected already"):
        awakeables.reject(row, second.id, "no")
    awakeables.resolve(row, first.id, 1)
    assert until(row, "succeeded").output == [1, 2]
    with pytest.raises(OperationRefused, match="resolved or rejected already"):
        awakeables.resolve(row, first.id, 3)


def test_one_that_is_not_waited_for_yet(restate):
    """Restate keeps the completion until the handler asks for it."""
    row = send("Approval", "ask", {"note": "verb-early"})
    awakeables.resolve(row, make_awakeable_id(row.invocation_id, 17), "early")
    assert until(row, "succeeded").output == "early"


def test_a_sleep_is_no_awakeable(restate):
    row = until(send("Slow", "sleep", {"seconds": 60}), "running", "suspended")
    assert awakeables.pending(row) == []
    row.kill()


def test_of_an_invocation_that_has_ended(restate):
    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    awakeable = make_awakeable_id(row.invocation_id, 17)
    with pytest.raises(OperationRefused, match="has ended"):
        awakeables.resolve(row, awakeable, 1)
    row.purge()
    with pytest.raises(OperationRefused, match="no longer knows"):
        awakeables.resolve(row, awakeable, 1)
    assert awakeables.pending(row) == []


def test_only_the_rows_own(restate):
    one, other = send("Approval", "ask", {"note": "mine"}), send("Approval", "ask", {"note": "other"})
    (awakeable,) = waiting(other)
    for wrong in (awakeable.id, "sign_1xyz", ""):
        with pytest.raises(OperationRefused, match="no awakeable of this invocation"):
            awakeables.resolve(one, wrong, 1)
    assert awakeables.pending(other) == [awakeable]
    one.kill()
    other.kill()


# ---------------------------------------------------------------- what we do when


def test_a_value_that_can_not_be_sent(restate, settings):
    point_at(settings, restate, MAX_PAYLOAD_SIZE=100)
    row = send("Approval", "ask", {"note": "verb-large"})
    awakeable = make_awakeable_id(row.invocation_id, 17)
    with pytest.raises(InvalidRequest, match="MAX_PAYLOAD_SIZE"):
        awakeables.resolve(row, awakeable, "x" * 100)
    with pytest.raises(InvalidRequest, match="not JSON"):
        awakeables.resolve(row, awakeable, object())
    row.kill()


def test_it_refuses_to_run_inside_a_transaction(restate):
    row = send("Approval", "ask", {"note": "verb-transaction"})
    with transaction.atomic(), pytest.raises(RuntimeError, match="can't run inside a transaction"):
        awakeables.resolve(row, make_awakeable_id(row.invocation_id, 17), 1)
    row.kill()


def test_before_it_was_accepted():
    row = Invocation.objects.create(service="Greeter", handler="greet", idempotency_key="k")
    assert awakeables.pending(row) == []
    with pytest.raises(OperationRefused, match="no awakeable of this invocation"):
        awakeables.resolve(row, "sign_10Ezw_yUw2KmbnxigNITCrTUiH1GeGHWfAAAAEQ", 1)


INVOCATION_ID = "inv_1eA4QCON61Mc4QTiaD7swDC0lxlBLBigfp"
AWAKEABLE_ID = make_awakeable_id(INVOCATION_ID, 17)


@pytest.fixture
def row():
    """A row that Restate has taken."""
    return Invocation.objects.create(
        service="Approval", handler="ask", idempotency_key="k", invocation_id=INVOCATION_ID, status="suspended"
    )


@pytest.fixture
def fake(settings):
    """Both APIs at one address, with an invocation that waits for nothing that is known."""
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": server.url, "PATH_STYLE": "restate"}}
    server.found = {"status": "suspended"}
    server.completed = lambda: (202, {}, b"")

    def answer(request):
        if request.path == "/query":
            rows = [] if b"sys_journal" in request.body else [server.found]
            return 200, {"Content-Type": "application/json"}, json.dumps({"rows": rows}).encode()
        return server.completed()

    server.answer = answer
    yield server
    server.close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "Nobody knows whether Restate took it"),
        (error(400, "bad awakeable id 'x'"), "check the awakeable's id"),
        ((401, {"Content-Type": "text/plain"}, b""), "Check the token"),
    ],
)
def test_a_completion_that_is_not_taken_is_a_sentence(fake, row, answer, sentence):
    fake.completed = lambda: answer
    with pytest.raises(OperationRefused, match=sentence):
        awakeables.resolve(row, AWAKEABLE_ID, 1)


def test_an_ingress_that_can_not_be_reached(fake, row, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": fake.url}}
    with pytest.raises(OperationRefused, match="Restate can't be reached now"):
        awakeables.resolve(row, AWAKEABLE_ID, 1)


@pytest.mark.parametrize("found", [{}, {"suspended_waiting_for_signals": "17"}, {"suspended_waiting_future_json": "{"}])
def test_answers_that_nobody_knows_are_no_error(fake, row, found):
    fake.found = found
    assert awakeables.pending(row) == []


def test_a_server_that_can_not_be_reached(settings, row):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": "http://127.0.0.1:9"}}
    with pytest.raises(RequestError):
        awakeables.pending(row)
    with pytest.raises(OperationRefused, match="can't be asked about it now"):
        awakeables.reject(row, AWAKEABLE_ID, "no")


def test_without_the_admin_api(settings, row):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    with pytest.raises(NotSupported, match="ADMIN_URL"):
        awakeables.pending(row)
    with pytest.raises(OperationRefused, match="ADMIN_URL"):
        awakeables.resolve(row, AWAKEABLE_ID, 1)
    Invocation.objects.filter(pk=row.pk).update(connection="left")
    row.refresh_from_db()
    with pytest.raises(OperationRefused, match="left"):
        awakeables.resolve(row, AWAKEABLE_ID, 1)
