"""Operations: what each does on a real server, what it passes over, and what it says when it is refused."""

from __future__ import annotations

import datetime as dt

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone, translation

from restate_django import Outgoing, asend, operations, send, send_many
from restate_django.exceptions import OperationRefused
from restate_django.lifecycle import Status
from restate_django.models import Invocation
from restate_django.polling import poll_due, refresh
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def until(row: Invocation, *statuses: str) -> Invocation:
    """Refresh a row until it has one of these statuses."""

    def there() -> bool:
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=20, what=f"{row.target} to be {' or '.join(statuses)}")
    return row


def notes(key: str) -> list[str]:
    """What the handlers wrote down about it."""
    return send("Notes", "get", key=key).attach(timeout=10)


def test_cancel_runs_the_compensation(restate):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "cancelled"}), "suspended", "running")
    assert row.cancel() is row
    assert row.cancel_requested_at is not None
    assert row.cancel_sent_at is not None
    until(row, "cancelled")
    wait_for(lambda: notes("cancelled") == ["compensated"], what="the compensation")


def test_the_report_says_what_was_done(restate):
    runs = until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    waits = send("Slow", "sleep", {"seconds": 60}, delay=dt.timedelta(hours=1))
    unsent = send("Slow", "sleep", {"seconds": 60})
    Invocation.objects.filter(pk=unsent.pk).update(status="unsent", lease_until=None, unknown_since=None)
    asked = {row.pk: what for row, what in operations.refresh([runs, waits]).done}
    assert asked == {runs.pk: "Asked Restate about it.", waits.pk: "Asked Restate about it."}
    said = {row.pk: what for row, what in operations.cancel([runs, waits, unsent]).done}
    assert said == {
        runs.pk: "Asked for its cancellation.",
        waits.pk: "Cancelled it before it started.",
        unsent.pk: "Cancelled it before it started.",
    }
    other = until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    with translation.override("de"):
        assert operations.kill(other).done == [(other, "Sofort beendet.")]


def test_kill_runs_none(restate):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "killed"}), "suspended", "running")
    row.kill()
    assert (row.status, row.failure_message) == ("killed", "killed")
    assert row.finished_at is not None
    refresh(row)
    assert row.status == "killed"
    assert notes("killed") == []


def test_a_second_cancel_is_not_sent(restate):
    row = until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running").cancel()
    report = operations.cancel(row)
    assert report.done == []
    assert "sent already" in report.passed_over[0][1]


def test_cancel_before_the_start_ends_the_row_at_once(restate):
    row = send("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1), idempotency_key="not-yet")
    row.cancel()
    assert (row.status, row.next_poll_at, row.dedupe_digest) == ("cancelled", None, None)
    again = send("Greeter", "greet", {"name": "y"}, idempotency_key="not-yet")
    assert again.created
    assert until(again, "succeeded").output == "Hello, y!"


def test_a_cancellation_that_could_not_be_sent_is_sent_by_the_poll(restate, settings):
    row = until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    right = settings.RESTATE
    settings.RESTATE = {"default": {**right["default"], "ADMIN_URL": "http://127.0.0.1:9", "PATH_STYLE": "restate"}}
    report = operations.cancel(row)
    assert report.done == []
    assert "reached" in report.refused[0][1]
    row.refresh_from_db()
    assert row.cancel_requested_at is not None
    assert row.cancel_sent_at is None
    settings.RESTATE = right

    def cancelled() -> bool:
        poll_due()
        row.refresh_from_db()
        return row.status == "cancelled"

    wait_for(cancelled, timeout=20, what="the poll to send the cancellation and see it")
    assert row.cancel_sent_at is not None


def test_without_an_admin_api_it_says_so(restate, settings):
    row = until(send("Slow", "sleep", {"seconds": 60}), "suspended", "running")
    right = settings.RESTATE
    settings.RESTATE = {"default": {**right["default"], "ADMIN_URL": None}}
    for operate in (row.cancel, row.kill, row.pause):
        with pytest.raises(OperationRefused, match="ADMIN_URL"):
            operate()
    settings.RESTATE = right
    row.kill()


def test_pause_and_resume(restate):
    row = until(send("Fail", "backoff", {}), "backing-off")
    row.pause()
    until(row, "paused")
    row.resume()
    until(row, "running", "backing-off")
    row.kill()


def test_resume_with_a_deployment(restate):
    row = until(send("Fail", "always", {}), "paused")
    row.resume(deployment="latest")
    until(row, "paused", "running", "backing-off")
    with pytest.raises(OperationRefused):
        row.resume(deployment="dp_0000000000000000000000")
    row.kill()


def test_purge_and_purge_journal(restate):
    row = until(send("Greeter", "greet", {"name": "x"}, idempotency_key="purge-me"), "succeeded")
    row.purge_journal()
    assert row.fetch_output().value == "Hello, x!"
    row.purge()
    assert (row.status, row.output, row.dedupe_digest) == ("succeeded", "Hello, x!", None)
    with pytest.raises(OperationRefused, match="no longer"):
        row.fetch_output()
    assert send("Greeter", "greet", {"name": "y"}, idempotency_key="purge-me").created


def test_restart_as_new(restate):
    row = until(send("Greeter", "greet", {"name": "x"}), "succeeded")
    new = row.restart_as_new()
    assert (new.restarted_from, new.status) == (row, "accepted")
    assert new.invocation_id != row.invocation_id
    assert list(row.restarts.all()) == [new]
    assert until(new, "succeeded").output == "Hello, x!"


def test_a_workflow_is_not_restarted(restate):
    row = until(send("Signup", "run", {"email": "a@b.c"}, key="no-restart"), "succeeded")
    with pytest.raises(OperationRefused, match="does not allow") as caught:
        row.restart_as_new()
    assert caught.value.status == 422


def test_resend_of_a_rejected_row(make_restate, settings):
    from tests.test_delivery import deliver

    restate = make_restate()
    settings.RESTATE = {"default": {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": restate.admin_url}}
    row = send("NoInput", "ping", {"not": "wanted"}, idempotency_key="r")
    assert (row.status, row.dedupe_digest) == ("rejected", None)
    row.resend()
    assert row.status == "rejected", "the server refuses it again"
    other = send("NoInput", "ping", idempotency_key="r")
    assert other.created
    with pytest.raises(OperationRefused, match="idempotency key"):
        row.resend()
    assert deliver(other).status == "accepted"


def test_a_killed_rows_key_binds(restate):
    row = send("Slow", "sleep", {"seconds": 60}, idempotency_key="killed-key").kill()
    assert row.result_expires_at > timezone.now() + dt.timedelta(hours=1), "as long as the server keeps the key"
    assert row.status == "killed"
    assert send("Slow", "sleep", {"seconds": 60}, idempotency_key="killed-key") == row


def test_resend_of_a_calls_row_sends_it(restate):
    row = send("Greeter", "greet", {"name": "x"})
    Invocation.objects.filter(pk=row.pk).update(status="rejected", verb="call")
    row.resend()
    assert (row.status, row.verb) == ("accepted", "send")


def test_resend_touches_its_own_rows_alone(restate, settings, monkeypatch):
    monkeypatch.setattr(operations, "BATCH", 5)
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "INGRESS_URL": "http://127.0.0.1:9"}}
    rows = send_many([Outgoing("Greeter", "greet", {"name": "x"}) for _ in range(15)])
    Invocation.objects.update(status="rejected", attempts=0)
    operations.resend(Invocation.objects.all())
    assert set(Invocation.objects.values_list("attempts", flat=True)) == {1}
    assert len(rows) == 15


def test_resend_of_an_undeliverable_row(restate):
    row = send("Greeter", "greet", {"name": "x"})
    Invocation.objects.filter(pk=row.pk).update(status="undeliverable")
    row.resend()
    assert row.status == "accepted"
    assert row.previously_accepted is False, "it may have run before: that was our own send"


@pytest.mark.parametrize("name", sorted(operations.ALLOWED))
def test_statuses_that_do_not_allow_it_are_passed_over(restate, name):
    row = send("Greeter", "greet", {"name": "x"})
    for status in sorted(set(Status) - operations.ALLOWED[name]):
        Invocation.objects.filter(pk=row.pk).update(status=status)
        report = getattr(operations, name)(row)
        assert (report.done, report.refused) == ([], [])
        assert str(Status(status).label) in report.passed_over[0][1]
        with pytest.raises(OperationRefused, match=str(Status(status).label)):
            getattr(row, name)()


def test_many_rows_by_queryset_and_by_list(restate):
    send_many([Outgoing("Greeter", "greet", {"name": "x"}, delay=dt.timedelta(hours=1)) for _ in range(12)])
    seen: list[tuple[int, int | None]] = []
    rows = list(Invocation.objects.all()[:5])
    report = operations.cancel(rows, progress=lambda done, total: seen.append((done, total)))
    assert len(report.done) == 5
    assert seen == [(5, 5)]
    report = operations.cancel(Invocation.objects.open().order_by("-pk")[:2])
    assert len(report.done) == 2
    report = operations.cancel(Invocation.objects.all())
    assert report.refused == []
    assert len(report.done) + len(report.passed_over) == 12
    assert set(Invocation.objects.values_list("status", flat=True)) == {"cancelled"}


def test_a_stale_instance_decides_nothing(restate):
    stale = send("Greeter", "greet", {"name": "x"})
    until(Invocation.objects.get(pk=stale.pk), "succeeded")
    assert stale.status == "accepted"
    with pytest.raises(OperationRefused, match="succeeded"):
        stale.cancel()


def test_the_async_twins(restate):
    async def story() -> Invocation:
        row = await asend("Fail", "backoff", {})
        assert row.status == "accepted"
        await row.apause()
        await row.aresume()
        await row.arefresh()
        await row.akill()
        with pytest.raises(OperationRefused):
            await row.acancel()
        return row

    assert async_to_sync(story)().status == "killed"
