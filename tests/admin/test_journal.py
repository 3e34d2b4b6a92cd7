"""The journal as a picture: read from a real server, and what is made of its rows."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from restate_django import send
from restate_django.admin import journal, object_state
from restate_django.admin.masking import masked
from restate_django.polling import refresh
from tests.admin.pages import page_of
from tests.admin.rows import make_row
from tests.wait import wait_for

START = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)


def entry(index, kind, body, *, at=0.0, name="", failure=None):
    """A row of ``sys_journal``, as 1.7.12 writes it."""
    group, _colon, what = kind.partition(": ")
    lite = {group: {what: body} if group == "Command" else body}
    row = {
        "index": index,
        "entry_type": kind,
        "name": name,
        "appended_at": (START + dt.timedelta(seconds=at)).isoformat().replace("+00:00", "Z"),
        "entry_lite_json": json.dumps(lite),
    }
    if failure:
        row["failure_json"] = json.dumps({group: {"Completion": {what: {"result": {"Failure": failure}}}}})
    return row


def done(index, what, completion, *, at, result="Success", failure=None):
    """A notification that completes a command."""
    body = {"ty": {"Completion": what}, "id": {"CompletionId": completion}, "result": result}
    return entry(index, f"Notification: {what}", body, at=at, failure=failure)


def target(service, key, handler):
    return {"VirtualObject": {"name": service, "key": key, "handler": handler}}


def test_commands_are_paired_with_what_completes_them():
    call = {
        "invocation_id": "inv_1a",
        "invocation_target": target("Cart", "c1", "add"),
        "invocation_id_completion_id": 2,
        "result_completion_id": 3,
    }
    found = journal.arrange(
        [
            entry(0, "Command: Input", {}),
            entry(1, "Command: Run", {"completion_id": 1}, name="charge the card"),
            done(2, "Run", 1, at=1),
            entry(3, "Command: Call", call, at=1),
            done(4, "CallInvocationId", 2, at=1, result="InvocationId"),
            entry(5, "Command: SetState", {"key": "status"}, at=2),
            done(6, "Call", 3, at=3, result="Failure", failure={"code": 404, "message": "no such cart"}),
            entry(7, "Command: Sleep", {"completion_id": 4, "wake_up_time": 1767268810000}, at=3),
        ],
        [],
        ended_at=START + dt.timedelta(seconds=4),
    )
    assert [(step.kind, step.name, step.state, step.took) for step in found.steps] == [
        ("input", "", "done", ""),
        ("step", "charge the card", "done", "1.0 s"),
        ("call", "Cart/c1/add", "failed", "2.0 s"),
        ("write state", "status", "done", ""),
        ("sleep", "", "left", "1.0 s"),
    ]
    assert found.steps[2].note == "[404] no such cart"
    assert found.steps[2].invocation_id == "inv_1a"
    assert found.steps[4].note == "until Jan. 1, 2026, 12:00:10"
    assert [(step.x, step.width) for step in found.steps] == [(0, 4), (0, 250), (250, 500), (500, 4), (750, 250)]
    assert found.ticks == ["0 ms", "1.0 s", "2.0 s", "3.0 s", "4.0 s"]


def test_what_is_waited_for_reaches_to_now():
    found = journal.arrange([entry(0, "Command: Sleep", {"completion_id": 1})], [], ended_at=None)
    (step,) = found.steps
    assert (step.state, step.took, step.x, step.width) == ("open", "", 0, journal.WIDTH)


def test_signals_and_failed_tries():
    found = journal.arrange(
        [
            entry(0, "Command: Input", {}),
            entry(1, "Command: Run", {"completion_id": 1}, name="flaky"),
            entry(2, "Notification: Signal", {"id": {"SignalIndex": 1}, "result": "Void"}, at=1),
            entry(3, "Notification: Signal", {"id": {"SignalIndex": 17}, "result": "Success"}, at=1),
        ],
        [
            {
                "after_journal_entry_index": 1,
                "appended_at": "2026-01-01T12:00:00Z",
                "event_json": '{"error_message": "no"}',
            },
            {"after_journal_entry_index": 1, "event_type": "Paused", "event_json": "{"},
        ],
        ended_at=START,
    )
    assert [(step.kind, step.name) for step in found.steps][2:] == [
        ("signal", "cancellation"),
        ("awakeable resolved", ""),
    ]
    assert [trouble.text for trouble in found.steps[1].troubles] == ["no", "Paused"]


def test_rows_that_nobody_knows_are_no_error():
    odd = [
        {},
        {"index": 1, "entry_type": "Command: Brand new", "entry_lite_json": "[]"},
        {"index": 2, "entry_type": "Command: Run", "entry_lite_json": "{", "appended_at": "soon"},
        {
            "index": 3,
            "entry_type": "Notification: Run",
            "entry_lite_json": '{"Notification": {"id": {"CompletionId": 9}}}',
        },
        {"index": 4, "entry_type": "Event"},
    ]
    found = journal.arrange(odd, [{}, {"after_journal_entry_index": 1, "event_json": "[1]"}], ended_at=None)
    assert [step.kind for step in found.steps] == ["Brand new", "step"]
    assert found.ticks == []
    assert journal.arrange([], [], ended_at=None).steps == []


def test_a_long_journal_is_cut():
    entries = [entry(index, "Command: SetState", {"key": "a"}) for index in range(journal.LIMIT + 1)]
    found = journal.arrange(entries, [], ended_at=START)
    assert len(found.steps) == journal.LIMIT
    assert found.is_cut


# ---------------------------------------------------------------- on a real server


def journal_of(client, row):
    return client.get(page_of(row).replace("change", "journal"))


def until(row, *statuses):
    def there():
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=20, what=f"{row.target} to be {statuses}, it is {row.status}")
    return row


@pytest.mark.django_db(transaction=True)
def test_the_steps_of_a_workflow(restate, viewer):
    row = until(send("Signup", "run", {"email": "a@b.c", "seconds": 0.2}, key="journal"), "succeeded")
    response = journal_of(viewer, row)
    assert [(step.kind, step.name) for step in response.context["journal"].steps] == [
        ("input", ""),
        ("write state", "status"),
        ("sleep", ""),
        ("write state", "status"),
        ("output", ""),
    ]
    text = response.content.decode()
    assert "a@b.c" not in text  # a journal's payloads are no business of who may only view
    assert text.count('<svg class="restate-bar"') == 5
    assert "<html" in text
    part = viewer.get(page_of(row).replace("change", "journal"), {"_live": "1"}).content.decode()
    assert "<html" not in part
    assert "restate-journal-body" in part


@pytest.mark.django_db(transaction=True)
def test_the_steps_of_a_cancelled_one_and_the_invocations_that_it_made(restate, viewer):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "journal"}), "running", "suspended")
    row.cancel()
    until(row, "cancelled")
    response = journal_of(viewer, row)
    steps = {step.kind: step for step in response.context["journal"].steps}
    assert steps["signal"].name == "cancellation"
    assert steps["sleep"].state == "left"
    assert steps["send"].name == "Notes/journal/append"
    assert steps["output"].note == "[409] cancelled"
    made = make_row("succeeded", invocation_id=steps["send"].invocation_id)
    assert page_of(made) in journal_of(viewer, row).content.decode()


@pytest.mark.django_db(transaction=True)
def test_the_state_of_the_object(restate, viewer, operator):
    key = "it's a \\ 'key' -- é"
    row = until(send("Counter", "add", 5, key=key), "succeeded")
    until(send("Notes", "append", "<script>alert(1)</script>", key=key), "succeeded")
    (entry,) = journal_of(operator, row).context["state"]
    assert entry.value == "5"
    notes = until(send("Notes", "append", "more", key=key), "succeeded")
    text = journal_of(operator, notes).content.decode()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert journal_of(viewer, row).context["state"] == []


def test_state_that_is_secret_long_or_no_json():
    class Admin:
        def query(self, sql, timeout):
            return [
                {"key": "api_token", "value": '"hunter2"', "size": 9},
                {"key": "password", "value": "hunter2", "size": 7},
                {"key": "user", "value": '{"secret": "hunter2", "name": "Mary"}', "size": 37},
                {"key": "long", "value": '{"secret": "hunter2', "size": 9999},
                {"key": "bytes", "size": 0},
                {"key": "plain", "value": "not json", "size": 8},
            ]

    entries = object_state.read(Admin(), "Box", "a", masked)
    assert "hunter2" not in str(entries)
    assert {entry.key: entry.value for entry in entries}["plain"] == "not json"
    assert "Mary" in str(entries)
    assert [entry.key for entry in entries if entry.is_cut] == ["long"]


@pytest.mark.django_db(transaction=True)
def test_failed_tries_are_told(restate, viewer):
    row = until(send("Fail", "always", {}), "paused")
    steps = journal_of(viewer, row).context["journal"].steps
    assert any(step.troubles for step in steps)
    row.kill()


@pytest.mark.django_db(transaction=True)
def test_the_last_release_before(legacy_restate_server, settings, viewer):
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": legacy_restate_server.ingress_url,
            "ADMIN_URL": legacy_restate_server.admin_url,
        }
    }
    row = until(send("Signup", "run", {"email": "a@b.c", "seconds": 0.2}, key="journal"), "succeeded")
    response = journal_of(viewer, row)
    assert [step.kind for step in response.context["journal"].steps][-1] == "output"


@pytest.mark.django_db
def test_no_journal_and_why(viewer, settings):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:9"}, "bare": {"ADMIN_URL": None}}
    for row, note in {
        make_row("unsent"): "Restate has not taken it",
        make_row("running"): "Restate can&#x27;t be asked for it now",
        make_row("running", connection="bare"): "this connection has none",
        make_row("running", connection="left"): "left",
        make_row("gone", invocation_id="no id"): "Restate can&#x27;t be asked for it now",
    }.items():
        assert note in journal_of(viewer, row).content.decode()


@pytest.mark.django_db
def test_who_may_see_it(client_of, user_with):
    row = make_row("unsent")
    assert journal_of(client_of(None), row).status_code == 302
    assert journal_of(client_of(user_with(name="staff")), row).status_code == 403
    viewer = client_of(user_with("view_invocation", name="viewer"))
    assert viewer.post(page_of(row).replace("change", "journal")).status_code == 405
