"""The fake is held to the real server: each story is told to both, and must end in the same rows and answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from restate_django import NO_PAYLOAD, call, send
from restate_django.client import OutputState, Target
from restate_django.connections import connections
from restate_django.exceptions import (
    CallTimeout,
    InvocationFailed,
    NotFound,
    OperationRefused,
    Refused,
    UnknownTarget,
    WorkflowAlreadyRun,
)
from restate_django.models import Invocation
from restate_django.testing import FakeRestate
from tests import handlers
from tests.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(transaction=True)

SERVICES = (handlers.greeter, handlers.counter, handlers.signup, handlers.fail, handlers.slow, handlers.no_input)


def fake_with_the_same_handlers(settings: Any) -> FakeRestate:
    """A fake that answers as the handlers of ``tests/handlers.py`` do."""
    fake = FakeRestate(*SERVICES)
    fake.on("Greeter", "greet").returns(lambda request: f"Hello, {request['name']}!")
    fake.on("Signup", "run").takes(lambda request: request.get("seconds", 0)).returns(
        lambda request: {"email": request["email"], "confirmed": True}
    )
    fake.on("Signup", "status").returns("confirmed")
    fake.on("Counter", "add").returns(lambda number: number)
    fake.on("Slow", "sleep").takes(lambda request: request["seconds"]).returns("slept")
    fake.on("NoInput", "ping").returns("pong")
    fake.on("NoInput", "quiet").returns()

    def terminal(request: dict[str, Any]) -> None:
        raise InvocationFailed(request["code"], request["message"], request.get("metadata"))

    fake.on("Fail", "terminal").returns(terminal)

    def override(value: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
        settings.RESTATE = value
        return contextlib.nullcontext()

    fake.override = override
    return fake


@pytest.fixture(params=["real", "fake"])
def either(request, settings) -> Iterator[FakeRestate | None]:
    """A real server with the tests' handlers, or the fake that answers as they do. Gives the fake."""
    if request.param == "real":
        request.getfixturevalue("restate")
        yield None
        return
    with fake_with_the_same_handlers(settings) as fake:
        yield fake


def until(row: Invocation, *statuses: str) -> Invocation:
    """Refresh a row until it has one of these statuses."""
    wait_for(lambda: row.refresh().status in statuses, timeout=15, what=f"{row.target} to be {statuses}")
    return row


def key() -> str:
    """A key that no other run has used: the real server outlives each test."""
    return secrets.token_hex(6)


def test_a_send_is_accepted_and_succeeds(either):
    row = send("Greeter", "greet", {"name": "Mary"})
    assert row.status == "accepted"
    assert row.attempts == 1
    until(row, "succeeded")
    assert row.output_value == "Hello, Mary!"
    assert row.output_content_type == "application/json"
    assert row.finished_at >= row.started_at
    assert abs((row.result_expires_at - row.finished_at) - dt.timedelta(days=1)) < dt.timedelta(minutes=1)
    assert not row.previously_accepted
    assert row.attach(timeout=5) == "Hello, Mary!"
    assert row.fetch_output().value == "Hello, Mary!"


def test_a_call_gives_the_output_and_its_row(either):
    assert call("Greeter", "greet", {"name": "Joe"}, timeout=10) == "Hello, Joe!"
    row = Invocation.objects.get()
    assert (row.status, row.output_value, row.verb) == ("succeeded", "Hello, Joe!", "call")
    assert row.invocation_id.startswith("inv_1")


@pytest.mark.parametrize("metadata", [None, {"shelf": "b"}])
def test_a_failure_is_the_handlers_own(either, metadata):
    asked = {"code": 418, "message": "a teapot", "metadata": metadata}
    with pytest.raises(InvocationFailed) as failure:
        call("Fail", "terminal", asked, timeout=10)
    assert (failure.value.code, failure.value.message) == (418, "a teapot")
    assert failure.value.metadata == (metadata or {})
    row = send("Fail", "terminal", asked)
    until(row, "failed")
    assert (row.failure_code, row.failure_message, row.failure_metadata) == (418, "a teapot", metadata)
    with pytest.raises(InvocationFailed, match="a teapot"):
        row.attach(timeout=5)


def test_a_409_of_the_handlers_own_is_no_cancellation(either):
    row = until(send("Fail", "terminal", {"code": 409, "message": "sold out"}), "failed", "cancelled")
    assert (row.status, row.failure_code) == ("failed", 409)


def test_a_handler_without_input_and_one_without_output(either):
    assert call("NoInput", "ping", timeout=10) == "pong"
    assert call("NoInput", "quiet", NO_PAYLOAD, timeout=10) is None
    row = until(send("NoInput", "quiet"), "succeeded")
    assert (row.has_output, row.output_size, row.output_content_type) == (False, 0, "")
    row = send("NoInput", "ping", {"x": 1})
    assert row.status == "rejected"
    assert "input validation error" in row.delivery_error


def test_a_delayed_send_waits_and_is_gone_when_it_is_cancelled(either):
    row = send("Slow", "sleep", {"seconds": 0}, delay=dt.timedelta(hours=1))
    assert row.status == "accepted"
    assert abs(row.execution_at - row.run_at) < dt.timedelta(seconds=2)
    assert until(row, "scheduled").started_at is None
    for refused in (row.pause, row.purge):
        with pytest.raises(OperationRefused):
            refused()
    with pytest.raises(CallTimeout):
        row.attach(timeout=0.3)
    row.cancel()
    assert row.status == "cancelled"
    ingress = connections["default"].ingress
    assert ingress.output(row.invocation_id).state is OutputState.UNKNOWN
    assert ingress.attach(row.invocation_id, timeout=3).state is OutputState.UNKNOWN


def test_a_running_one_is_paused_resumed_and_cancelled(either):
    row = until(send("Slow", "sleep", {"seconds": 600}), "running", "suspended")
    with pytest.raises(OperationRefused):
        row.restart_as_new()
    with pytest.raises(CallTimeout) as timeout:
        row.attach(timeout=0.5)
    assert timeout.value.invocation == row
    row.pause()
    until(row, "paused")
    row.resume()
    until(row, "running", "suspended")
    row.cancel()
    until(row, "cancelled")
    assert (row.failure_code, row.failure_message) == (409, "cancelled")
    assert row.cancel_sent_at is not None


def test_a_running_one_is_killed_and_can_be_restarted_and_purged(either):
    row = until(send("Slow", "sleep", {"seconds": 600}), "running", "suspended")
    row.kill()
    assert row.status == "killed"
    output = row.fetch_output()
    assert (output.failure.code, output.failure.message) == (409, "killed")
    again = row.restart_as_new()
    assert (again.restarted_from, again.payload_value) == (row, {"seconds": 600})
    until(again, "running", "suspended")
    again.kill()
    row.purge_journal()
    row.purge()
    with pytest.raises(OperationRefused) as refused:
        row.fetch_output()
    assert refused.value.status == 404
    with pytest.raises(OperationRefused, match="no longer knows"):
        row.purge()


def test_one_that_is_paused_by_somebody_is_cancelled(either):
    row = until(send("Slow", "sleep", {"seconds": 600}), "running", "suspended")
    row.pause()
    until(row, "paused")
    row.cancel()
    assert until(row, "cancelled").failure_message == "cancelled"


def test_one_whose_tries_are_used_up_sees_no_cancellation(either):
    row = send("Fail", "always", {})
    if either:
        either.back_off(row, "broken at every attempt", retries=2)
        either.pause(row, "broken at every attempt")
    until(row, "paused")
    assert "broken at every attempt" in row.last_failure
    with pytest.raises(CallTimeout):
        row.attach(timeout=0.3)
    row.cancel()
    assert row.cancel_sent_at is not None
    assert row.refresh().is_open
    # The real one is tried again for it, in vain; the fake's stays where it is.
    until(row, "paused")
    row.kill()
    assert row.status == "killed"


def test_one_that_backs_off_sees_no_cancellation_and_is_killed(either):
    row = send("Fail", "backoff", {})
    if either:
        either.back_off(row, "broken, and to be tried again")
    until(row, "backing-off")
    assert "broken, and to be tried again" in row.last_failure
    row.cancel()
    assert row.refresh().is_open
    until(row, "backing-off")
    row.kill()
    assert row.fetch_output().failure.message == "killed"


def test_a_repeated_delayed_send_keeps_its_first_time(either):
    ingress, name = connections["default"].ingress, key()
    first = ingress.send("Slow", "sleep", {"seconds": 0}, idempotency_key=name, delay=dt.timedelta(hours=1))
    again = ingress.send("Slow", "sleep", {"seconds": 0}, idempotency_key=name)
    assert (again.invocation_id, again.execution_time) == (first.invocation_id, first.execution_time)
    assert (first.previously_accepted, again.previously_accepted) == (False, True)
    connections["default"].admin.cancel_invocation(first.invocation_id)
    assert not ingress.send("Slow", "sleep", {"seconds": 0}, idempotency_key=name).previously_accepted


def test_the_admin_api_refuses_in_the_same_words_and_numbers(either):
    admin = connections["default"].admin
    done = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded").invocation_id
    told = []
    for operation in (
        admin.cancel_invocation,
        admin.kill_invocation,
        admin.pause_invocation,
        admin.resume_invocation,
    ):
        with pytest.raises(Exception) as error:  # noqa: PT011 - whatever it is, it is compared
            operation(done)
        told.append((type(error.value).__name__, error.value.status, error.value.message.replace(done, "ID")))
    assert told == [
        ("AdminRefused", 409, "The invocation 'ID' was already completed."),
        ("AdminRefused", 409, "The invocation 'ID' was already completed."),
        ("AdminRefused", 409, "The invocation 'ID' is not running, cannot be paused."),
        ("AdminRefused", 409, "The invocation 'ID' is completed, cannot be resumed."),
    ]
    admin.purge_invocation(done)
    with pytest.raises(NotFound):
        admin.cancel_invocation(done)


def test_the_same_key_is_one_invocation(either):
    name = key()
    first = send("Greeter", "greet", {"name": "Mary"}, idempotency_key=name)
    again = send("Greeter", "greet", {"name": "Mary"}, idempotency_key=name)
    assert again == first
    # The row is gone, and Restate remembers: another payload is not used.
    until(first, "succeeded")
    Invocation.objects.all().delete()
    other = send("Greeter", "greet", {"name": "Joe"}, idempotency_key=name)
    assert other.previously_accepted
    assert other.invocation_id == first.invocation_id
    assert until(other, "succeeded").output_value == "Hello, Mary!"
    Invocation.objects.all().delete()
    assert call("Greeter", "greet", {"name": "Ann"}, idempotency_key=name, timeout=10) == "Hello, Mary!"


def test_a_purged_key_runs_again(either):
    name = key()
    first = until(send("Greeter", "greet", {"name": "Mary"}, idempotency_key=name), "succeeded")
    first.purge()
    again = send("Greeter", "greet", {"name": "Joe"}, idempotency_key=name)
    assert again != first
    assert not again.previously_accepted
    assert again.invocation_id == first.invocation_id
    assert until(again, "succeeded").output_value == "Hello, Joe!"


def test_a_workflow_runs_once_for_its_key(either):
    name = key()
    row = send("Signup", "run", {"email": "m@example.com"}, key=name)
    assert row.attempts == 1
    assert send("Signup", "run", {"email": "m@example.com"}, key=name) == row
    assert until(row, "succeeded").output_value == {"email": "m@example.com", "confirmed": True}
    ingress = connections["default"].ingress
    assert ingress.send("Signup", "run", {"email": "j@example.com"}, key=name).previously_accepted
    with pytest.raises(WorkflowAlreadyRun):
        ingress.call("Signup", "run", {"email": "j@example.com"}, key=name)
    assert ingress.output(target=Target.workflow("Signup", name)).value == row.output_value
    assert ingress.output(target=Target.workflow("Signup", key())).state is OutputState.UNKNOWN
    assert call("Signup", "status", key=name, timeout=10) == "confirmed"
    with pytest.raises(OperationRefused) as refused:
        row.restart_as_new()
    assert refused.value.status == 422


def test_a_workflow_is_called(either):
    name = key()
    assert call("Signup", "run", {"email": "m@example.com"}, key=name, timeout=10)["confirmed"]
    assert Invocation.objects.get().status == "succeeded"


def test_a_call_that_takes_too_long_goes_on(either):
    with pytest.raises(CallTimeout) as timeout:
        call("Slow", "sleep", {"seconds": 600}, timeout=0.5)
    row = timeout.value.invocation
    until(row, "running", "suspended")
    row.kill()


@pytest.mark.parametrize(("service", "handler"), [("Nope", "greet"), ("Greeter", "nope")])
def test_an_unknown_target_waits_and_then_is_rejected(either, settings, service, handler):
    row = send(service, handler, {})
    assert row.status == "unsent"
    assert "Register the deployment that has it" in row.delivery_error
    assert row.unregistered_since is not None
    assert row.unknown_since is None
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "REGISTRATION_GRACE": 0}}
    row.refresh()
    assert row.status == "rejected"
    with pytest.raises(UnknownTarget):
        call(service, handler, {}, timeout=5)


def test_a_key_for_a_service_and_none_for_an_object_are_refused(either):
    assert send("Greeter", "greet", {"name": "Mary"}, key="k").status == "rejected"
    assert "bad path" in send("Counter", "add", 1).delivery_error
    with pytest.raises(Refused):
        call("Counter", "add", 1, timeout=5)


def test_an_object_is_called_by_its_key(either):
    assert call("Counter", "add", 3, key=key(), timeout=10) == 3
    row = until(send("Counter", "add", 4, key=key()), "succeeded")
    assert row.output_value == 4


def test_what_is_asked_by_sql_and_by_the_ingress(either):
    connection = connections["default"]
    row = until(send("Slow", "sleep", {"seconds": 600}, idempotency_key=key()), "running", "suspended")
    unknown = connection.ingress.lookup(Target.idempotent("Greeter", "greet", key()))
    (seen,) = connection.admin.sys_invocations([row.invocation_id, unknown])
    assert (seen.target, seen.idempotency_key, seen.target_service_ty) == ("Slow/sleep", row.idempotency_key, "service")
    assert seen.running_at is not None
    assert seen.completed_at is None
    assert connection.ingress.status(row.invocation_id).stage == "started"
    target = Target.idempotent("Slow", "sleep", row.idempotency_key)
    assert connection.ingress.output(target=target).state is OutputState.NOT_READY
    assert connection.ingress.lookup(target) == row.invocation_id
    row.cancel()
    until(row, "cancelled")
    (seen,) = connection.admin.sys_invocations([row.invocation_id])
    assert (seen.status, seen.completion_result, seen.failure) == ("completed", "failure", (409, "cancelled"))
    assert connection.ingress.status(row.invocation_id).error.message == "cancelled"
    assert connection.admin.get_service("Signup").is_workflow_run("run")
    assert connection.admin.get_service("NoInput").handler("ping").takes_no_input
    with pytest.raises(NotFound):
        connection.admin.get_service("Nope")
    assert {"Greeter", "Signup"} <= set(connection.ingress.health())


def test_without_an_admin_api_the_rows_end_alike(either, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None}}
    row = send("Greeter", "greet", {"name": "Mary"})
    assert until(row, "succeeded").output_value == "Hello, Mary!"
    later = send("Slow", "sleep", {"seconds": 0}, delay=dt.timedelta(hours=1))
    assert until(later, "scheduled").execution_at is not None
    running = send("Slow", "sleep", {"seconds": 600})
    until(running, "running")
    name = key()
    workflow = send("Signup", "run", {"email": "m@example.com"}, key=name)
    until(workflow, "succeeded")
    with pytest.raises(OperationRefused, match="Admin API"):
        running.cancel()
