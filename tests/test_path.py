"""The whole path on a real server: a row is recorded, delivered, polled, and carries what became of it."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db import transaction
from django.utils import timezone

from restate_django import NO_PAYLOAD, call, send
from restate_django.client import AdminClient, IngressClient, OutputState, Target
from restate_django.connections import connections
from restate_django.exceptions import CallTimeout, IdempotencyConflict, InvocationFailed
from restate_django.models import Invocation
from restate_django.polling import poll_due, refresh
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def until(row, *statuses, timeout=20):
    """Refresh a row until it has one of these statuses."""

    def there():
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=timeout, what=f"{row.target} to be {statuses}, it is {row.status}")
    return row


def test_a_sent_invocation_is_accepted_and_succeeds(restate):
    row = send("Greeter", "greet", {"name": "Mary"})
    assert row.status == "accepted"
    assert row.invocation_id.startswith("inv_")
    until(row, "succeeded")
    assert row.output == "Hello, Mary!"


def test_call(restate):
    assert call("Greeter", "greet", {"name": "Mary"}) == "Hello, Mary!"
    row = Invocation.objects.get()
    assert (row.status, row.output, row.verb) == ("succeeded", "Hello, Mary!", "call")


def test_call_fails(restate):
    with pytest.raises(InvocationFailed) as caught:
        call("Fail", "terminal", {"code": 418, "message": "teapot", "metadata": {"a": "b"}})
    assert caught.value.code == 418
    assert caught.value.invocation.status == "failed"


def test_workflow(restate):
    row = send("Signup", "run", {"email": "a@b.c"}, key="k1")
    assert row.status == "accepted", row.delivery_error
    again = send("Signup", "run", {"email": "a@b.c"}, key="k1")
    assert again == row
    assert again.created is False
    assert call("Signup", "run", {"email": "x@b.c"}, key="k2") == {"email": "x@b.c", "confirmed": True}
    until(row, "succeeded")


@pytest.mark.parametrize("admin", [True, False], ids=["with the Admin API", "without it"])
def test_a_workflows_key_binds_its_main_handler(restate, settings, admin):
    if not admin:
        settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None}}
    key = uuid.uuid4().hex
    first = send("Signup", "run", {"email": "a@b.c"}, key=key)
    assert first.status == "accepted"
    # In another process nothing is known of the service yet: what the first delivery wrote down binds all the same.
    settings.RESTATE = dict(settings.RESTATE)
    assert connections["default"].services.is_workflow_main("Signup", "run", network=False) is None
    again = send("Signup", "run", {"email": "a@b.c"}, key=key)
    assert (again, again.created) == (first, False)
    with pytest.raises(IdempotencyConflict) as caught:
        send("Signup", "run", {"email": "other@b.c"}, key=key)
    assert caught.value.invocation == first
    assert send("Signup", "status", key=key).created, "its other handlers take requests of their own"
    assert call("Signup", "run", {"email": "a@b.c"}, key=key) == {"email": "a@b.c", "confirmed": True}
    assert Invocation.objects.filter(handler="run").count() == 1


def test_cancel(restate):
    row = send("Slow", "sleep", {"seconds": 60, "note": "cancel-me"})
    until(row, "running", "suspended")
    row.cancel()
    assert row.cancel_requested_at is not None
    assert row.cancel_sent_at is not None
    until(row, "cancelled")


def test_cancel_before_start(restate):
    row = send("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1))
    assert row.execution_at
    until(row, "scheduled")
    row.cancel()
    assert row.status == "cancelled"


def test_paused(restate):
    row = send("Fail", "always", {})
    until(row, "paused")
    assert "broken at every attempt" in row.last_failure
    row.kill()
    assert row.status == "killed"


def test_without_the_admin_api(restate, settings):
    settings.RESTATE = {"default": settings.RESTATE["default"] | {"ADMIN_URL": None}}
    row = send("Greeter", "greet", {"name": "Mary"})
    until(row, "succeeded")
    row = send("NoInput", "quiet", NO_PAYLOAD)
    until(row, "succeeded")
    assert not row.has_output
    row = send("Signup", "run", {"email": "a@b.c"}, key="k9")
    assert row.status == "accepted", row.delivery_error
    until(row, "succeeded")


WAYS = {
    "1.7 as it is": ("restate_server", True, "auto"),
    "1.7 without the Admin API": ("restate_server", False, "auto"),
    "1.7 by the old paths": ("restate_server", True, "legacy"),
    "1.6 as it is": ("legacy_restate_server", True, "auto"),
    "1.6 without the Admin API": ("legacy_restate_server", False, "legacy"),
}


@pytest.mark.parametrize(("server", "admin", "style"), WAYS.values(), ids=WAYS.keys())
def test_every_way_ends_in_the_same_statuses(request, settings, server, admin, style):
    """Versions, path styles, with SQL and without: what became of an invocation does not depend on how it is asked."""
    server = request.getfixturevalue(server)
    urls = {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url if admin else None}
    settings.RESTATE = {"default": {**urls, "PATH_STYLE": style, "POLL_MIN_INTERVAL": 0.1}}
    key = uuid.uuid4().hex
    rows = {
        "a service": send("Greeter", "greet", {"name": "Mary"}),
        "an object": send("Counter", "add", 2, key=key),
        "a workflow": send("Signup", "run", {"email": "a@b.c"}, key=key),
        "a failure": send("Fail", "terminal", {"code": 404, "message": "not found"}),
        "a delay": send("Greeter", "greet", {"name": "Joe"}, delay=dt.timedelta(seconds=1)),
        "no output": send("NoInput", "quiet"),
        "cancelled by somebody": send("Slow", "sleep", {"seconds": 60}),
        "killed by somebody": send("Slow", "sleep", {"seconds": 60}),
        "called off by somebody": send("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1)),
    }
    assert {row.status for row in rows.values()} == {"accepted"}, [row.delivery_error for row in rows.values()]
    assert call("Greeter", "greet", {"name": "Ann"}) == "Hello, Ann!"
    assert call("Signup", "run", {"email": "a@b.c"}, key=key) == {"email": "a@b.c", "confirmed": True}
    assert call("Signup", "run", {"email": "b@b.c"}, key=f"{key}-2") == {"email": "b@b.c", "confirmed": True}
    # Time enough for a busy server to hear of it.
    with pytest.raises(CallTimeout) as caught:
        call("Greeter", "slowly", {"name": "Pat", "seconds": 4}, timeout=2)
    rows["a call that took longer"] = caught.value.invocation
    with AdminClient(server.admin_url) as somebody:
        somebody.cancel_invocation(rows["cancelled by somebody"].invocation_id)
        somebody.kill_invocation(rows["killed by somebody"].invocation_id)
        somebody.cancel_invocation(rows["called off by somebody"].invocation_id)
    Invocation.objects.filter(pk=rows["called off by somebody"].pk).update(next_poll_at=timezone.now())

    def ended():
        poll_due()
        return not Invocation.objects.open().exists()

    wait_for(ended, timeout=30, what="all rows to end")
    for row in rows.values():
        row.refresh_from_db()
    assert {name: (row.status, row.output_value, row.failure_code) for name, row in rows.items()} == {
        "a service": ("succeeded", "Hello, Mary!", None),
        "an object": ("succeeded", 2, None),
        "a workflow": ("succeeded", {"email": "a@b.c", "confirmed": True}, None),
        "a failure": ("failed", None, 404),
        "a delay": ("succeeded", "Hello, Joe!", None),
        "no output": ("succeeded", None, None),
        "cancelled by somebody": ("cancelled", None, 409),
        "killed by somebody": ("killed", None, 409),
        "called off by somebody": ("gone", None, None),
        "a call that took longer": ("succeeded", "Hello, Pat!", None),
    }


@pytest.mark.parametrize("prefix", ["Greeter", "Counter", "restate/send/Greeter"])
@pytest.mark.parametrize(("server", "admin", "style"), WAYS.values(), ids=WAYS.keys())
def test_a_prefix_that_is_the_name_of_a_service_destroys_no_row(request, settings, server, admin, style, prefix):
    """Restate takes the prefix for the service, and refuses the path as it would one with a key too many."""
    server = request.getfixturevalue(server)
    urls = {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url if admin else None}
    right = {**urls, "PATH_STYLE": style, "IDEMPOTENCY_RETENTION": 3600}
    settings.RESTATE = {"default": {**right, "INGRESS_URL": f"{server.ingress_url}/{prefix}"}}
    key = uuid.uuid4().hex
    rows = [
        send("Greeter", "greet", {"name": "Mary"}),
        send("Counter", "add", 2, key=key),
        send("Signup", "run", {"email": "a@b.c"}, key=key),
    ]
    assert [row.status for row in rows] == ["unsent"] * 3, [row.delivery_error for row in rows]
    settings.RESTATE = {"default": right}
    for row in rows:
        row.refresh()
        assert row.is_in_restate, row.delivery_error
    wrong = send("Greeter", "greet", {"name": "Mary"}, key="a service has none")
    assert wrong.status == "rejected"
    assert "has none" in wrong.delivery_error


def test_scopes_and_limit_keys(scoped_restate_server, settings):
    server = scoped_restate_server
    settings.RESTATE = {
        "default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url, "POLL_MIN_INTERVAL": 0.1}
    }
    key = uuid.uuid4().hex
    within = {"scope": "tenant-a", "limit_key": "free/user42"}
    for target in (("Echo", "describe", b"x"), ("EchoObject", "describe", b"x")):
        named = {"key": key} if target[0] == "EchoObject" else {}
        arrived = until(send(*target, **named, **within), "succeeded").output
        assert {name: arrived[name] for name in within} == within
        assert call(*target, **named, **within)["scope"] == "tenant-a"
    # One workflow's key in two scopes is two workflows, here and in Restate.
    first = send("Signup", "run", {"email": "a@b.c"}, key=key, scope="tenant-a")
    second = send("Signup", "run", {"email": "b@b.c"}, key=key, scope="tenant-b")
    assert (first.attach(10)["email"], second.attach(10)["email"]) == ("a@b.c", "b@b.c")
    assert send("Signup", "run", {"email": "a@b.c"}, key=key, scope="tenant-a") == first
    slow = send("Slow", "sleep", {"seconds": 60}, scope="tenant-a")
    until(slow, "running", "suspended")
    until(slow.cancel(), "cancelled")


def test_rollback(restate):
    key = uuid.uuid4().hex
    with transaction.atomic():
        row = send("Greeter", "greet", {"name": "Mary"}, idempotency_key=key)
        transaction.set_rollback(True)
    assert not Invocation.objects.exists()
    with IngressClient(restate.ingress_url) as ingress:
        known = ingress.output(target=Target.idempotent("Greeter", "greet", key))
    assert known.state is OutputState.UNKNOWN, "nothing reached the server"
    assert row.invocation_id == ""


def test_poll_due(restate):
    rows = [send("Greeter", "greet", {"name": str(i)}) for i in range(20)]
    wait_for(lambda: poll_due() and not Invocation.objects.open().exists(), timeout=20, what="all rows to end")
    for row in rows:
        row.refresh_from_db()
        assert row.output == f"Hello, {rows.index(row)}!"
