"""``send``, ``call`` and ``send_many``: what is refused, what is recorded, which row holds a key."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import signal
import threading
import uuid
from decimal import Decimal

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection, connections, transaction
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from restate_django import NO_PAYLOAD, Outgoing, acall, asend, call, send, send_many
from restate_django.exceptions import IdempotencyConflict, InvalidRequest, InvocationFailed, RestateError
from restate_django.models import Invocation
from tests.models import Order, Tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def relay_only(settings):
    """Nothing is sent here: what is recorded is looked at."""
    settings.RESTATE = {
        "default": {
            "DELIVERY": "relay",
            "INGRESS_URL": "http://127.0.0.1:9",
            "ADMIN_URL": None,
            "HEADERS": {"X-Proxy-Key": "secret"},
        }
    }


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


class LongKey(Tenant):
    """A saved object whose primary key is longer than a row keeps."""

    class Meta:
        proxy = True
        app_label = "tests"

    def __init__(self) -> None:
        super().__init__(slug="k" * 256)
        self._state.adding = False


# ---------------------------------------------------------------- refused before a row is written

REFUSED = {
    "no service": (("", "greet"), {}, "service"),
    "a service too long": (("s" * 256, "greet"), {}, "service"),
    "no handler": (("Greeter", ""), {}, "handler"),
    "a handler too long": (("Greeter", "h" * 256), {}, "handler"),
    "an empty key": (("Cart", "add"), {"key": ""}, "key"),
    "a key that is a folder": (("Cart", "add"), {"key": "."}, "key"),
    "a key that is the folder above": (("Cart", "add"), {"key": ".."}, "key"),
    "a key too long": (("Cart", "add"), {"key": "k" * 513}, "key"),
    "a key with a control character": (("Cart", "add"), {"key": "a\nb"}, "key"),
    "a key that is no text": (("Cart", "add"), {"key": 5}, "key"),
    "an empty idempotency key": (("Greeter", "greet"), {"idempotency_key": ""}, "idempotency key"),
    "an idempotency key with a blank": (("Greeter", "greet"), {"idempotency_key": "k "}, "idempotency key"),
    "an idempotency key outside ASCII": (("Greeter", "greet"), {"idempotency_key": "ké"}, "idempotency key"),
    "an idempotency key too long": (("Greeter", "greet"), {"idempotency_key": "k" * 256}, "idempotency key"),
    "an empty scope": (("Greeter", "greet"), {"scope": ""}, "scope"),
    "a scope too long": (("Greeter", "greet"), {"scope": "s" * 37}, "scope"),
    "a scope with a slash": (("Greeter", "greet"), {"scope": "a/b"}, "scope"),
    "a limit key of three levels": (("Greeter", "greet"), {"scope": "s", "limit_key": "a/b/c"}, "limit key"),
    "a limit key without a scope": (("Greeter", "greet"), {"limit_key": "a"}, "scope"),
    "a naive eta": (("Greeter", "greet"), {"eta": dt.datetime(2030, 1, 1)}, "eta"),  # noqa: DTZ001 - the point
    "an eta that is no moment": (("Greeter", "greet"), {"eta": dt.date(2030, 1, 1)}, "eta"),
    "an eta of centuries": (("Greeter", "greet"), {"eta": timezone.now() + dt.timedelta(days=36500)}, "eta"),
    "the last eta of all": (("Greeter", "greet"), {"eta": dt.datetime.max.replace(tzinfo=dt.UTC)}, "eta 9999"),
    "a negative delay": (("Greeter", "greet"), {"delay": dt.timedelta(seconds=-1)}, "delay"),
    "a delay of centuries": (("Greeter", "greet"), {"delay": dt.timedelta(days=293_000)}, "delay"),
    "a delay that is a number": (("Greeter", "greet"), {"delay": 5}, "delay"),
    "delay and eta": (("Greeter", "greet"), {"delay": dt.timedelta(1), "eta": timezone.now()}, "delay or eta"),
    "a payload that is no JSON": (("Greeter", "greet", object()), {}, "object"),
    "a payload that is a set": (("Greeter", "greet", {1, 2}), {}, "set"),
    "a payload nested too deep": (("Greeter", "greet", nested(5000)), {}, "nest"),
    "a payload over the limit": (("Greeter", "greet", "x" * (10 * 2**20 + 1)), {}, "MAX_PAYLOAD_SIZE"),
    "a header that is no token": (("Greeter", "greet"), {"headers": {"a b": "c"}}, "a b"),
    "a reserved header": (("Greeter", "greet"), {"headers": {"Authorization": "x"}}, "Authorization"),
    "a cookie": (("Greeter", "greet"), {"headers": {"cookie": "x"}}, "cookie"),
    "a host": (("Greeter", "greet"), {"headers": {"Host": "x"}}, "Host"),
    "an idempotency key as a header": (("Greeter", "greet"), {"headers": {"idempotency-key": "x"}}, "idempotency-key"),
    "a content type as a header": (("Greeter", "greet"), {"headers": {"Content-Type": "x"}}, "Content-Type"),
    "a hop-by-hop header": (("Greeter", "greet"), {"headers": {"Connection": "close"}}, "Connection"),
    "a header of Restate's": (("Greeter", "greet"), {"headers": {"x-restate-id": "x"}}, "x-restate-id"),
    "a header with a line break": (("Greeter", "greet"), {"headers": {"x-a": "b\r\nc: d"}}, "x-a"),
    "a header outside ASCII": (("Greeter", "greet"), {"headers": {"x-a": "é"}}, "x-a"),
    "an unsaved object": (("Greeter", "greet"), {"related_to": Order(number="1")}, "related_to"),
    "an unsaved object with a key": (("Greeter", "greet"), {"related_to": Tenant(slug="t")}, "related_to"),
    "no object": (("Greeter", "greet"), {"related_to": "order 5"}, "related_to"),
    "an object whose key is too long": (("Greeter", "greet"), {"related_to": LongKey()}, "related_to"),
    "a user that is a number": (("Greeter", "greet"), {"requested_by": 5}, "requested_by"),
    "a user that is something else": (("Greeter", "greet"), {"requested_by": Order(pk=1)}, "requested_by"),
    "a header of the connection's": (("Greeter", "greet"), {"headers": {"x-proxy-key": "mine"}}, "x-proxy-key"),
    "a database nobody sweeps": (("Greeter", "greet"), {"using": "other"}, "other"),
}


@pytest.mark.parametrize(("args", "kwargs", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_by_name_and_writes_no_row(args, kwargs, named):
    with pytest.raises(InvalidRequest) as caught:
        send(*args, **kwargs)
    assert named in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RestateError)
    assert not Invocation.objects.exists()


@pytest.mark.parametrize("option", [{"delay": dt.timedelta(seconds=1)}, {"eta": timezone.now()}])
def test_call_takes_no_delay(option):
    with pytest.raises(InvalidRequest, match=next(iter(option))):
        call("Greeter", "greet", **option)
    assert not Invocation.objects.exists()


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "5", True])
def test_call_takes_only_a_timeout_that_ends(timeout):
    with pytest.raises(InvalidRequest, match="timeout"):
        call("Greeter", "greet", timeout=timeout)


def test_call_names_an_argument_that_it_does_not_know():
    with pytest.raises(TypeError, match="dleay"):
        call("Greeter", "greet", dleay=5)


# ---------------------------------------------------------------- what a row says


def test_a_row_says_what_was_asked(django_user_model):
    user = django_user_model.objects.create(username="mary")
    order = Order.objects.create(number="A-1")
    row = send(
        "Cart",
        "add",
        {"sku": "x", "price": Decimal("1.20")},
        key="cart/1 é",
        requested_by=SimpleLazyObject(lambda: user),
        related_to=order,
        headers={"x-a": "b"},
        scope="tenant-a",
        limit_key="free/user42",
    )
    row = Invocation.objects.get(pk=row.pk)
    assert (row.service, row.key, row.handler, row.verb) == ("Cart", "cart/1 é", "add", "send")
    assert (row.scope, row.limit_key, row.connection, row.status) == ("tenant-a", "free/user42", "default", "unsent")
    assert row.payload == {"sku": "x", "price": "1.20"}
    assert json.loads(bytes(row.payload_bytes)) == row.payload == row.payload_value
    assert row.content_type == "application/json"
    assert row.headers == {"x-a": "b"}
    assert row.idempotency_key == row.pk.hex
    assert row.pk.version == 7
    assert row.requested_by == user
    assert row.related_to == order
    assert list(Invocation.objects.for_object(order)) == [row]
    assert row.target == "Cart/cart/1 é/add"


def test_an_anonymous_user_is_nobody():
    assert send("Greeter", "greet", requested_by=AnonymousUser()).requested_by is None


def test_related_by_text():
    tenant = Tenant.objects.create(slug="acme")
    row = send("Greeter", "greet", related_to=tenant)
    assert Invocation.objects.get(pk=row.pk).related_to == tenant
    tenant.delete()
    assert Invocation.objects.get(pk=row.pk).related_to is None


def test_deleting_the_user_keeps_the_row(django_user_model):
    user = django_user_model.objects.create(username="mary")
    row = send("Greeter", "greet", requested_by=user)
    user.delete()
    row.refresh_from_db()
    assert row.requested_by is None


def test_no_payload_and_null_are_two_things():
    nothing, null = send("Greeter", "greet"), send("Greeter", "greet", None)
    for row in (nothing, null):
        row.refresh_from_db()
    assert (nothing.payload_bytes, nothing.content_type, nothing.payload_value) == (None, "", NO_PAYLOAD)
    assert (bytes(null.payload_bytes), null.content_type, null.payload_value) == (b"null", "application/json", None)


ODD = {
    "NUL": "a\u0000b",
    "a lone surrogate": "\ud800",
    "NaN": math.nan,
    "a huge float": 1e300,
    "a huge integer": 10**40,
    "deep": nested(60),
    "key order": {"bb": 1, "a": 2, "ccc": {"z": 1, "y": 2}},
    "large": "x" * 300_000,
}


@pytest.mark.parametrize("payload", ODD.values(), ids=ODD.keys())
def test_every_attempt_sends_the_bytes_that_were_given(payload):
    row = Invocation.objects.get(pk=send("Echo", "json", payload).pk)
    sent = row.encoded_payload.body
    assert sent is not None
    assert json.loads(sent) == payload or math.isnan(payload)
    if isinstance(payload, dict):
        assert list(json.loads(sent)) == list(payload)


def test_bytes_go_as_they_are():
    row = Invocation.objects.get(pk=send("Echo", "raw", b"\x00\xff", content_type="image/png").pk)
    assert (bytes(row.payload_bytes), row.content_type, row.payload) == (b"\x00\xff", "image/png", None)


def test_delay_and_eta_become_a_moment():
    before = timezone.now()
    hour = dt.timedelta(hours=1)
    delayed = send("Greeter", "greet", delay=hour)
    assert before + hour <= delayed.run_at <= timezone.now() + hour
    eta = timezone.now() + hour
    assert abs(send("Greeter", "greet", eta=eta).run_at - eta) < dt.timedelta(milliseconds=50)
    assert send("Greeter", "greet", eta=before - hour).run_at is None


# ---------------------------------------------------------------- keys


def test_the_same_key_is_the_same_row():
    first = send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    again = send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    assert again == first
    assert (first.created, again.created) == (True, False)
    assert Invocation.objects.count() == 1


def test_a_key_belongs_to_its_target():
    rows = [
        send("Greeter", "greet", idempotency_key="k"),
        send("Greeter", "other", idempotency_key="k"),
        send("Other", "greet", idempotency_key="k"),
        send("Cart", "add", key="1", idempotency_key="k"),
        send("Cart", "add", key="2", idempotency_key="k"),
        send("Greeter", "greet", scope="s", idempotency_key="k"),
    ]
    assert all(row.created for row in rows)


@pytest.mark.parametrize(
    "other", [({"a": 2}, None), ({"a": 1, "b": 1}, None), (b'{"a": 1}', "text/plain"), (NO_PAYLOAD, None)]
)
def test_another_payload_under_a_key_is_a_conflict(other):
    first = send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match="another payload") as caught:
        send("Greeter", "greet", other[0], content_type=other[1], idempotency_key="k")
    assert caught.value.invocation == first
    assert Invocation.objects.count() == 1


@pytest.mark.parametrize("status", ["rejected", "gone"])
def test_a_key_is_free_again_when_nothing_ran_or_all_is_forgotten(status):
    from restate_django import recording

    first = send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    if status == "gone":
        Invocation.objects.filter(pk=first.pk).update(status="accepted")
        first.refresh_from_db()
    changes = recording.gone() if status == "gone" else recording.rejected("no")
    assert Invocation.objects.write_back(first, **changes)
    again = send("Greeter", "greet", {"a": 2}, idempotency_key="k")
    assert again.created
    assert again != first


def test_a_key_is_free_again_after_a_cancellation_before_the_start():
    first = send("Greeter", "greet", {"a": 1}, idempotency_key="k").cancel()
    assert first.status == "cancelled"
    assert send("Greeter", "greet", {"a": 2}, idempotency_key="k").created


def test_a_key_binds_after_the_end():
    first = send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    Invocation.objects.filter(pk=first.pk).update(status="succeeded")
    assert send("Greeter", "greet", {"a": 1}, idempotency_key="k") == first


def test_two_at_once_make_one_row():
    barrier = threading.Barrier(6)
    rows: list[Invocation] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            barrier.wait()
            with transaction.atomic():
                rows.append(send("Greeter", "greet", {"a": 1}, idempotency_key="k"))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len({row.pk for row in rows}) == 1
    assert sum(row.created for row in rows) == 1
    assert Invocation.objects.count() == 1


def test_a_conflict_leaves_the_callers_transaction_usable():
    send("Greeter", "greet", {"a": 1}, idempotency_key="k")
    with transaction.atomic():
        with pytest.raises(IdempotencyConflict):
            send("Greeter", "greet", {"a": 2}, idempotency_key="k")
        Order.objects.create(number="1")
    assert Order.objects.count() == 1


# ---------------------------------------------------------------- transactions and deliveries


def test_a_row_is_the_callers_transactions(settings):
    with transaction.atomic():
        send("Greeter", "greet")
        transaction.set_rollback(True)
    assert not Invocation.objects.exists()


def test_the_insert_carries_a_lease(settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}
    with transaction.atomic():
        row = send("Greeter", "greet")
        stored = Invocation.objects.get(pk=row.pk)
        assert stored.is_leased
        assert stored.attempts == 1
        assert stored.next_attempt_at == stored.lease_until
        assert stored.unknown_since is not None
        assert Invocation.objects.claim_for_delivery(limit=10, lease=dt.timedelta(1)) == []


def test_the_relays_rows_carry_none():
    row = send("Greeter", "greet")
    assert (row.attempts, row.lease_token, row.unknown_since) == (0, None, None)
    assert row.next_attempt_at <= timezone.now()


def test_with_autocommit_off_the_relay_has_it(settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}
    transaction.set_autocommit(False)
    try:
        row = send("Greeter", "greet")
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    row.refresh_from_db()
    assert (row.status, row.lease_token) == ("unsent", None)
    assert row.next_attempt_at <= timezone.now()


def test_a_plain_save_leaves_the_lifecycle_alone():
    row = send("Greeter", "greet")
    stale = Invocation.objects.get(pk=row.pk)
    Invocation.objects.filter(pk=row.pk).update(status="accepted", invocation_id="inv_1a", dedupe_digest="d")
    stale.related_id = "7"
    stale.save()
    row.refresh_from_db()
    assert (row.status, row.invocation_id, row.dedupe_digest, row.related_id) == ("accepted", "inv_1a", "d", "7")


# ---------------------------------------------------------------- many


def test_send_many():
    seen: list[tuple[int, int | None]] = []
    rows = send_many(
        [Outgoing("Greeter", "greet", {"n": n}) for n in range(25)],
        batch_size=10,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [row.payload["n"] for row in rows] == list(range(25))
    assert seen == [(10, 25), (20, 25), (25, 25)]
    assert Invocation.objects.count() == 25
    assert sorted(row.pk for row in rows) == [row.pk for row in rows]


def test_send_many_takes_an_iterator_and_few_statements(django_assert_max_num_queries):
    with django_assert_max_num_queries(6):
        rows = send_many(Outgoing("Greeter", "greet", n) for n in range(30))
    assert len(rows) == 30


def test_send_many_is_all_or_nothing():
    with pytest.raises(InvalidRequest):
        send_many([Outgoing("Greeter", "greet"), Outgoing("Greeter", "greet", key="")], batch_size=1)
    assert not Invocation.objects.exists()


def test_send_many_knows_its_keys():
    old = send("Greeter", "greet", 1, idempotency_key="a")
    rows = send_many(
        [
            Outgoing("Greeter", "greet", 1, idempotency_key="a"),
            Outgoing("Greeter", "greet", 2, idempotency_key="b"),
            Outgoing("Greeter", "greet", 2, idempotency_key="b"),
            Outgoing("Greeter", "greet", 3),
        ]
    )
    assert rows[0] == old
    assert rows[1] == rows[2]
    assert Invocation.objects.count() == 3
    with pytest.raises(IdempotencyConflict):
        send_many([Outgoing("Greeter", "greet", 9, idempotency_key="b")])


def test_send_many_takes_outgoing_alone():
    with pytest.raises(InvalidRequest, match="Outgoing"):
        send_many([{"service": "Greeter"}])


def test_send_many_of_nothing():
    assert send_many([]) == []
    with pytest.raises(InvalidRequest):
        send_many([], batch_size=0)


def test_ids_are_made_in_a_forked_child_whose_parent_was_making_one():
    from restate_django import ids

    with ids._lock:
        child = os.fork()
        if not child:
            signal.alarm(10)
            ids.uuid7()
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


# ---------------------------------------------------------------- against a real server


def test_on_commit_costs_one_request_and_one_update(restate, django_assert_num_queries):
    send("Greeter", "greet", {"name": "x"})
    with django_assert_num_queries(2):
        row = send("Greeter", "greet", {"name": "Mary"})
    assert row.status == "accepted"


@pytest.mark.parametrize("payload", ODD.values(), ids=ODD.keys())
def test_odd_payloads_arrive(restate, payload):
    row = send("Echo", "describe", payload)
    assert row.status == "accepted"
    import base64

    body = base64.b64decode(row.attach(timeout=20)["body"])
    assert body == bytes(row.payload_bytes)


def test_headers_and_the_key_arrive(restate):
    described = call("EchoObject", "describe", {"a": 1}, key="a/b c%2Fé+", headers={"x-a": "b"})
    assert described["key"] == "a/b c%2Fé+"
    assert described["headers"]["x-a"] == "b"


def test_the_official_sdks_objects_are_targets(restate):
    from tests.handlers import greet, greeter

    assert send(greet, {"name": "Ann"}).attach(timeout=20) == "Hello, Ann!"
    assert call(greet, payload={"name": "Bob"}) == "Hello, Bob!"
    assert call(greeter, "greet", {"name": "Cid"}) == "Hello, Cid!"
    (row,) = send_many([Outgoing(greet, {"name": "Dan"})])
    assert (row.service, row.handler, row.payload) == ("Greeter", "greet", {"name": "Dan"})


async def _async_pair() -> tuple[Invocation, object]:
    row = await asend("Greeter", "greet", {"name": "Ann"})
    return row, await acall("Greeter", "greet", {"name": "Bob"})


def test_the_async_twins(restate):
    from asgiref.sync import async_to_sync

    row, greeting = async_to_sync(_async_pair)()
    assert row.status == "accepted"
    assert greeting == "Hello, Bob!"


def test_a_call_waits_for_the_row_that_has_the_key(restate):
    first = call("Counter", "add", 5, key=uuid.uuid4().hex, idempotency_key="once")
    target = Invocation.objects.get()
    assert call("Counter", "add", 5, key=target.key, idempotency_key="once") == first
    assert Invocation.objects.count() == 1


def test_a_calls_failure_is_on_the_row_too(restate):
    with pytest.raises(InvocationFailed) as caught:
        call("Fail", "terminal", {"code": 409, "message": "cancelled by hand", "metadata": {"a": "b"}})
    row = Invocation.objects.get()
    assert (caught.value.code, caught.value.message, caught.value.metadata) == (409, "cancelled by hand", {"a": "b"})
    assert (row.status, row.failure_code, row.failure_message) == ("failed", 409, "cancelled by hand")
    assert row.failure_metadata == {"a": "b"}
    assert caught.value.invocation == row


def test_users_of_a_transaction_test_see_it_after_the_commit(restate):
    with transaction.atomic():
        row = send("Greeter", "greet", {"name": "Mary"})
        assert row.status == "unsent"
    assert row.status == "accepted"
    assert connection.in_atomic_block is False
