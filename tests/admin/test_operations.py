"""The buttons on a real server: from both pages, each with its question, its message and its entry in the history."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.db import connection, transaction

from restate_django import operations, send
from restate_django.admin import operate as operate_module
from restate_django.admin import reach, search
from restate_django.lifecycle import Status
from restate_django.models import Invocation
from restate_django.polling import refresh
from tests.admin.pages import LIST, confirm, messages_of, operate, page_of, press
from tests.admin.rows import make_row
from tests.models import Order
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def until(row, *statuses, timeout=20):
    """Refresh a row until it has one of these statuses."""

    def there():
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=timeout, what=f"{row.target} to be {statuses}, it is {row.status}")
    return row


def history(row):
    """What the admin history says of a row, oldest first."""
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [(entry.user.get_username(), entry.action_flag, entry.change_message) for entry in entries]


def push(client, row, name, **fields):
    """Push a button on the page of one, as that page's form does."""
    buttons = client.get(page_of(row)).context["detail"].buttons
    # Django 6.1's change form takes the action itself; before, the button posts to our view.
    button = next(button for button in buttons if button.value == name or button.url == operate(name))
    data = {"_selected_action": str(row.pk), "_from": "detail", **fields}
    if button.field:
        data[button.field] = button.value
    return client.post(button.url or page_of(row), data, follow=True)


def test_cancel_from_the_list(restate, operator):
    running = until(send("Slow", "sleep", {"seconds": 60, "note": "list"}), "running", "suspended")
    later = send("Greeter", "greet", {"name": "Mary"}, delay=dt.timedelta(hours=1))
    ended = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    response = press(operator, "cancel", running, later, ended)
    assert response.redirect_chain[-1][0] == LIST
    levels = dict.fromkeys(level for level, _text in messages_of(response))
    assert list(levels) == ["success", "warning"]
    texts = [text for _level, text in messages_of(response)]
    assert "Asked for the cancellation of 1 invocation." in texts
    assert "1 invocation was cancelled before it started." in texts
    assert "1 was passed over. It is succeeded." in texts
    running.refresh_from_db()
    assert running.cancel_requested_at is not None
    assert "cancel requested" in operator.get(page_of(running)).content.decode()
    until(running, "cancelled")
    assert "cancel requested" not in operator.get(page_of(running)).content.decode()
    assert history(running) == [("operator", CHANGE, "Asked for its cancellation.")]
    assert history(later) == [("operator", CHANGE, "Cancelled it before it started.")]
    assert history(ended) == []
    assert "Asked for its cancellation." in operator.get(page_of(running).replace("change", "history")).content.decode()


def test_cancel_from_the_page_of_one(restate, operator):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "page"}), "running", "suspended")
    response = push(operator, row, "cancel")
    assert response.redirect_chain[-1][0] == page_of(row)
    assert messages_of(response) == [("success", "Asked for the cancellation of 1 invocation.")]
    until(row, "cancelled")
    assert history(row) == [("operator", CHANGE, "Asked for its cancellation.")]


def test_kill_asks_first_and_says_what_will_happen(restate, operator):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "kill"}), "running", "suspended")
    ended = make_row("succeeded")
    for question in (push(operator, row, "kill"), press(operator, "kill", row, ended)):
        text = question.content.decode()
        assert "No compensation runs" in text
        assert "It will be done to <strong>1</strong> invocation." in text
        row.refresh_from_db()
        assert row.is_in_restate
    assert "1 will be passed over" in text
    answer = confirm(operator, question, reason="the order was a joke")
    assert messages_of(answer) == [
        ("success", "Killed 1 invocation."),
        ("warning", "1 was passed over. It is succeeded."),
    ]
    row.refresh_from_db()
    assert row.status == "killed"
    assert history(row) == [("operator", CHANGE, "Killed it. Reason: the order was a joke")]


def test_pause_and_resume(restate, operator):
    row = until(send("Fail", "backoff", {}), "backing-off")
    push(operator, row, "pause")
    until(row, "paused")
    question = push(operator, row, "resume")
    complaint = confirm(operator, question, deployment="id", deployment_id="nonsense")
    assert "begins with dp_" in complaint.content.decode()
    answer = confirm(operator, complaint, deployment="latest")
    assert messages_of(answer) == [("success", "Resumed 1 invocation.")]
    assert answer.redirect_chain[-1][0] == page_of(row)
    until(row, "backing-off", "running")
    assert [text for _user, _flag, text in history(row)] == ["Paused it.", "Resumed it."]
    confirm(operator, push(operator, row, "kill"))


def test_resume_on_one_of_the_deployments_that_are_offered(restate, operator):
    # One with a step behind it: until then Restate has not pinned it to a deployment, and can't move it.
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "pinned"}), "running", "suspended")
    push(operator, row, "pause")
    until(row, "paused")
    question = push(operator, row, "resume")
    deployment, _words = question.context["deployments"][0]
    answer = confirm(operator, question, deployment=deployment)
    assert messages_of(answer) == [("success", "Resumed 1 invocation.")]
    row.kill()


def test_a_reason_goes_along_from_either_page(restate, operator):
    row = until(send("Slow", "sleep", {"seconds": 60, "note": "why"}), "running", "suspended")
    push(operator, row, "cancel", reason=" the order is void ")
    assert history(row) == [("operator", CHANGE, "Asked for its cancellation. Reason: the order is void")]
    other = until(send("Slow", "sleep", {"seconds": 60, "note": "why too"}), "running", "suspended")
    assert 'name="reason"' in operator.get(LIST).content.decode()
    question = press(operator, "kill", other, reason="from the list")
    assert question.context["given"]["reason"] == "from the list"
    assert 'value="from the list"' in question.content.decode()
    confirm(operator, question, reason="from the list")
    assert history(other)[-1][2] == "Killed it. Reason: from the list"


def test_the_deployments_that_can_be_chosen_are_offered(restate, operator):
    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    deployment, words = push(operator, row, "restart_as_new").context["deployments"][0]
    assert deployment.startswith("dp_")
    assert words.startswith("http://")
    assert words.endswith("revision 1")
    away = make_row("succeeded", connection="left")
    assert push(operator, away, "restart_as_new").context["deployments"] == []
    both = press(operator, "restart_as_new", row, away)
    assert both.context["deployments"] == [], "they are of two servers"


def test_restart_as_new_leads_to_the_new_row(restate, operator):
    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    answer = confirm(operator, push(operator, row, "restart_as_new"), reason="again")
    new = Invocation.objects.get(restarted_from=row)
    assert answer.redirect_chain[-1][0] == page_of(new)
    assert history(new) == [("operator", ADDITION, f"Restarted from invocation {row.pk}. Reason: again")]
    assert history(row) == [("operator", CHANGE, f"Restarted it as new. The new invocation is {new.pk}. Reason: again")]
    until(new, "succeeded")
    assert new.output == "Hello, Mary!"


def test_restart_from_an_entry_and_on_a_deployment(restate, operator, monkeypatch):
    given = []

    def restart_as_new(rows, **options):
        given.append(options)
        return operations.OperationReport(passed_over=[(row, "No.") for row in rows])

    monkeypatch.setattr(operations, "restart_as_new", restart_as_new)
    row = make_row("succeeded")
    question = push(operator, row, "restart_as_new")
    for entry in ("-1", "one", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000):
        complaint = confirm(operator, question, from_entry=entry, reason="kept")
        assert "A journal entry is a number" in complaint.content.decode()
        assert 'value="kept"' in complaint.content.decode()
    for deployment in ("newest", "dp_; DROP"):
        assert "begins with dp_" in confirm(operator, question, deployment=deployment).content.decode()
    assert given == []
    confirm(operator, question, from_entry="3", deployment="id", deployment_id=" dp_12aB ")
    confirm(operator, push(operator, row, "restart_as_new"), deployment="keep")
    assert given == [{"deployment": "dp_12aB", "from_entry": 3}, {"deployment": "keep"}]


def test_purge_journal_and_purge(restate, operator):
    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    answer = confirm(operator, push(operator, row, "purge_journal"))
    assert messages_of(answer) == [("success", "Purged the journal of 1 invocation.")]
    answer = confirm(operator, push(operator, row, "purge"))
    assert messages_of(answer) == [("success", "Purged 1 invocation.")]
    answer = confirm(operator, push(operator, row, "purge"))
    assert messages_of(answer) == [("error", "1 was not done. Restate no longer knows the invocation.")]
    assert history(row)[-1] == ("operator", CHANGE, "Purge was not done. Restate no longer knows the invocation.")


def test_send_again(restate, operator):
    row = send("Greeter", "greet", {"name": "Mary"}, delay=dt.timedelta(hours=1))
    Invocation.objects.filter(pk=row.pk).update(status="rejected", run_at=None, invocation_id="")
    question = push(operator, row, "resend")
    assert "runs a second time" in question.content.decode()
    answer = confirm(operator, question)
    assert messages_of(answer) == [("success", "1 invocation is sent again.")]
    row.refresh_from_db()
    assert row.status == "accepted"


def test_ask_restate_now(restate, operator, user_with, client_of):
    row = send("Greeter", "greet", {"name": "Mary"})
    ended = make_row("succeeded")
    viewer = client_of(user_with("view_invocation", name="viewer"))

    def asked():
        push(viewer, row, "refresh")
        row.refresh_from_db()
        return row.status == "succeeded"

    wait_for(asked, timeout=20, what="the page to show the end")
    response = press(viewer, "refresh", make_row("unsent", lease_until=dt.datetime.max.replace(tzinfo=dt.UTC)), ended)
    assert messages_of(response) == [
        ("success", "Asked Restate about 1 invocation."),
        ("warning", "1 was passed over. It is succeeded."),
    ]
    assert history(row) == []


def test_send_with_a_new_key(restate, operator):
    order = Order.objects.create(number="A-5")
    row = send("Echo", "json", {"order": 5}, headers={"x-tenant": "acme"}, related_to=order)
    until(row, "succeeded")
    answer = confirm(operator, push(operator, row, "send_anew"))
    new = Invocation.objects.get(restarted_from=row)
    assert answer.redirect_chain[-1][0] == page_of(new)
    assert new.idempotency_key != row.idempotency_key
    assert new.requested_by.get_username() == "operator"
    assert (new.related_content_type_id, new.related_id) == (row.related_content_type_id, row.related_id)
    assert new.headers == {"x-tenant": "acme"}
    until(new, "succeeded")
    assert new.output == {"order": 5}
    assert history(new) == [("operator", ADDITION, f"Sent with the payload of invocation {row.pk}.")]
    assert history(row)[0][2].endswith(f"The new invocation is {new.pk}.")


def test_send_with_a_new_key_what_can_not_be(restate, operator):
    workflow = until(send("Signup", "run", {"email": "a@b.c"}, key="send-anew"), "succeeded")
    answer = confirm(operator, press(operator, "send_anew", workflow, make_row("failed", connection="left")))
    assert [level for level, _text in messages_of(answer)] == ["warning", "error"]
    assert messages_of(answer)[0][1] == "1 was passed over. A workflow runs once for its key, and has run."


def test_restates_refusal_is_a_sentence(restate, operator):
    row = until(send("Signup", "run", {"email": "a@b.c"}, key="restart-me"), "succeeded")
    answer = confirm(operator, push(operator, row, "restart_as_new"))
    ((level, text),) = messages_of(answer)
    assert level == "error"
    assert text.startswith("1 was not done. Restate refused")


def test_a_server_that_can_not_be_reached(operator, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": "http://127.0.0.1:9"}}
    row = make_row("running")
    answer = confirm(operator, press(operator, "kill", row))
    ((level, text),) = messages_of(answer)
    assert (level, text.split(" (")[0]) == ("error", "1 was not done. The Admin API can't be reached now")
    row.refresh_from_db()
    assert row.status == "running"


def test_a_reason_that_no_database_takes_still_leaves_an_entry(operator, monkeypatch):
    fake(monkeypatch, "cancel")
    row = make_row("running")
    push(operator, row, "cancel", reason="a\0b")
    assert history(row) == [("operator", CHANGE, "Asked for its cancellation. Reason: ab")]


def test_what_can_not_be_asked_is_said(operator, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:1", "ADMIN_URL": None}}
    row = make_row("running", invocation_id="inv_1aaa", attempts=1)
    ((level, text),) = messages_of(press(operator, "refresh", row))
    assert level == "error"
    assert text.startswith("1 was not done.")
    assert "connection" in text.lower()


def test_hostile_reasons_are_text(operator, monkeypatch):
    row = make_row("running")
    refused = operations.OperationReport(refused=[(row, "<script>alert(1)</script>")])
    monkeypatch.setattr(operations, "kill", lambda rows: refused)
    answer = confirm(operator, press(operator, "kill", row), reason="<script>alert(2)</script>")
    pages = answer.content.decode() + operator.get(page_of(row).replace("change", "history")).content.decode()
    assert "<script>alert" not in pages
    assert "&lt;script&gt;alert(1)" in pages
    assert "&lt;script&gt;alert(2)" in pages


def test_operations_run_outside_any_transaction(operator, monkeypatch):
    """Also where the project wraps each request in one."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    seen = []

    def cancel(rows):
        seen.append(transaction.get_connection().in_atomic_block)
        return operations.OperationReport(done=[(row, str(operations.DONE["cancel"])) for row in rows])

    monkeypatch.setattr(operations, "cancel", cancel)
    row = make_row("running")
    assert messages_of(press(operator, "cancel", row))[0][0] == "success"
    push(operator, row, "cancel")
    assert seen == [False, False]
    assert len(history(row)) == 2


def fake(monkeypatch, name):
    """Replace an operation by one that says that it was done, and return the rows that it was given, by call."""
    calls = []

    def operation(rows, **options):
        calls.append([row.pk for row in rows])
        return operations.OperationReport(done=[(row, str(operations.DONE["cancel"])) for row in rows])

    monkeypatch.setattr(operations, name, operation)
    return calls


def test_all_that_match_goes_on_in_batches(operator, monkeypatch):
    monkeypatch.setattr(operate_module, "BATCH", 10)
    calls = fake(monkeypatch, "cancel")
    rows = [make_row("running", service="Cart", age=100 - index) for index in range(25)]
    make_row("succeeded", service="Cart")
    make_row("running", service="Mailer")
    response = operator.post(
        f"{LIST}?service=Cart",
        {"action": "cancel", "_selected_action": str(rows[0].pk), "select_across": "1", "index": "0"},
        follow=True,
    )
    text = response.content.decode()
    assert "It will be done to <strong>25</strong> invocations." in text
    assert "1 will be passed over" in text
    late = make_row("running", service="Cart", age=-5)
    seen = 0
    while "state" in (response.context or {}):
        response = confirm(operator, response, reason="all of them")
        seen += 1
        if seen == 1:
            assert "10 invocations handled so far." in response.content.decode()
            assert "15 are left." in response.content.decode()
    assert seen == 3
    assert messages_of(response) == [("success", "Asked for the cancellation of 25 invocations.")]
    assert response.redirect_chain[-1][0] == f"{LIST}?service=Cart"
    # The newest first, each once, and none that came after the question.
    assert [pk for call in calls for pk in call] == [row.pk for row in reversed(rows)]
    assert history(late) == []
    assert history(rows[7]) == [("operator", CHANGE, "Asked for its cancellation. Reason: all of them")]


@pytest.mark.parametrize("term", ["Cart", "order_id=5"])
def test_all_that_a_search_finds_goes_on_further_back(operator, monkeypatch, term):
    monkeypatch.setattr(operate_module, "BATCH", 3)
    monkeypatch.setattr(search, "LIMIT", 5)
    monkeypatch.setattr(reach, "SEARCHED", 10)
    calls = fake(monkeypatch, "cancel")
    rows = [
        make_row("running", service="Cart" if found else "Mailer", payload={"order_id": 5 if found else 6}, age=index)
        for index in range(40)
        for found in [index in {1, 2, 3, 4} or index > 34]
    ]
    data = {"action": "cancel", "_selected_action": str(rows[1].pk), "select_across": "1", "index": "0"}
    response = operator.post(f"{LIST}?q={term}", data, follow=True)
    assert "the search has not looked through all rows yet" in response.content.decode()
    pages = []
    while "state" in (response.context or {}):
        response = confirm(operator, response)
        pages.append(response.content.decode())
    assert messages_of(response) == [("success", "Asked for the cancellation of 9 invocations.")]
    assert [pk for call in calls for pk in call] == [rows[index].pk for index in (1, 2, 3, 4, 35, 36, 37, 38, 39)]
    if term == "order_id=5":
        assert any("The search goes on further back." in page for page in pages)


def test_a_server_that_refuses_all_is_not_asked_on_and_on(operator, monkeypatch):
    monkeypatch.setattr(operate_module, "BATCH", 3)
    calls = []

    def kill(rows):
        calls.append(rows)
        return operations.OperationReport(refused=[(row, "No.") for row in rows])

    monkeypatch.setattr(operations, "kill", kill)
    answer = confirm(operator, press(operator, "kill", *[make_row("running") for _ in range(10)]))
    assert messages_of(answer) == [
        ("error", "It was stopped: of the last 3, none was done."),
        ("error", "3 were not done. No."),
    ]
    assert len(calls) == 1


def test_all_that_match_ends_with_the_last_batch(operator, monkeypatch):
    monkeypatch.setattr(operate_module, "BATCH", 10)
    fake(monkeypatch, "cancel")
    rows = [make_row("running") for _ in range(20)]
    data = {"action": "cancel", "_selected_action": str(rows[0].pk), "select_across": "1", "index": "0"}
    response = operator.post(f"{LIST}?status=open", data, follow=True)
    response = confirm(operator, confirm(operator, response))
    assert messages_of(response) == [("success", "Asked for the cancellation of 20 invocations.")]


@pytest.mark.parametrize("count", [20, 21])
def test_a_large_selection_goes_on_in_batches(operator, monkeypatch, count):
    monkeypatch.setattr(operate_module, "BATCH", 10)
    calls = fake(monkeypatch, "cancel")
    rows = [make_row("running") for _ in range(count)]
    response = press(operator, "cancel", *rows)
    while "state" in (response.context or {}):
        response = confirm(operator, response)
    assert messages_of(response) == [("success", f"Asked for the cancellation of {count} invocations.")]
    assert sorted(pk for call in calls for pk in call) == sorted(row.pk for row in rows)


def test_reasons_are_grouped(operator, monkeypatch):
    rows = [make_row("running") for _ in range(9)]

    def cancel(given):
        given = list(given)
        return operations.OperationReport(
            done=[(given[0], "Asked.")],
            passed_over=[(row, "It is paused.") for row in given[1:4]],
            refused=[(row, f"No, {index}.") for index, row in enumerate(given[4:])],
        )

    monkeypatch.setattr(operations, "cancel", cancel)
    monkeypatch.setattr(operate_module, "_REASONS", 3)
    assert messages_of(press(operator, "cancel", *rows)) == [
        ("success", "Asked for the cancellation of 1 invocation."),
        ("warning", "3 were passed over. It is paused."),
        ("error", "1 was not done. No, 0."),
        ("error", "1 was not done. No, 1."),
        ("error", "1 was not done. No, 2."),
        ("error", "2 were not done. The reasons differ."),
    ]


def test_selections_that_are_nothing(operator):
    row = make_row("running")
    gone = make_row("running")
    gone_pk = gone.pk
    gone.delete()
    for data in ({}, {"_selected_action": "nonsense"}):
        response = operator.post(operate("cancel"), data, follow=True)
        assert messages_of(response) == [("warning", "Nothing was selected, so nothing was done.")]
    response = operator.post(operate("cancel"), {"_selected_action": str(gone_pk)}, follow=True)
    assert messages_of(response) == [("warning", "Nothing was done: the selected invocations are not there any more.")]
    forged = {"_selected_action": str(row.pk), "state": "forged", "confirmed": "yes"}
    assert operator.post(operate("kill"), forged).status_code == 404
    assert operator.post(operate("explode"), {"_selected_action": str(row.pk)}).status_code == 404
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_all_that_match_what_is_no_filter(operator):
    data = {"select_across": "1", "confirmed": "yes"}
    assert operator.post(f"{operate('cancel')}?id__lt=nonsense", data).status_code == 404
    assert operator.post(f"{operate('cancel')}?payload__a=1", data).status_code == 400


def test_it_is_protected_against_forged_requests(operator, user_with):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(user_with("view_invocation", "cancel_invocation", name="careful"))
    row = make_row("running")
    assert client.post(operate("cancel"), {"_selected_action": str(row.pk)}).status_code == 403


@pytest.mark.parametrize("name", ["send_anew", "restart_as_new"])
def test_a_question_that_is_answered_twice_makes_one(restate, operator, name):
    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    question = push(operator, row, name)
    assert "sure" in question.context["title"]
    first, second = confirm(operator, question), confirm(operator, question)
    assert [level for level, _text in messages_of(first)] == ["success"]
    assert messages_of(second) == [("warning", "This page was sent before, so nothing was done again.")]
    assert Invocation.objects.filter(restarted_from=row).count() == 1


def test_a_cache_that_is_away_holds_nobody_up(restate, operator, monkeypatch, caplog):
    def away(*_args):
        raise ConnectionError("no cache")

    row = until(send("Greeter", "greet", {"name": "Mary"}), "succeeded")
    question = push(operator, row, "send_anew")
    monkeypatch.setattr(operate_module.cache, "add", away)
    assert [level for level, _text in messages_of(confirm(operator, question))] == ["success"]
    assert "the cache is away" in caplog.text
