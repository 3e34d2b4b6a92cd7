"""Approvals through the pages, on a real server: what is waited for, the question, the message, and the history."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import connection, transaction
from django.test import Client

from restate_django import awakeables, send
from restate_django.admin import journal
from restate_django.client import EncodedPayload
from restate_django.exceptions import OperationRefused, Unavailable
from restate_django.polling import refresh
from tests.admin.pages import awakeable, messages_of, page_of
from tests.admin.rows import make_row
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

ID = "sign_10Ezw_yUw2KmbnxigNITCrTUiH1GeGHWfAAAAEQ"


def until(row, *statuses):
    def there():
        refresh(row)
        return row.status in statuses

    wait_for(there, timeout=20, what=f"{row.target} to be {statuses}, it is {row.status}")
    return row


def journal_of(client, row):
    """What the page of one takes in, and a reader without scripts follows a link to."""
    return client.get(page_of(row).replace("change", "journal"))


def waits_of(client, row, count=1):
    """What the page says that an invocation waits for."""

    def there():
        refresh(row)
        found = journal_of(client, row).context["waits"]
        return len(found) == count and found

    return wait_for(there, timeout=20, what=f"{count} awakeables on the page")


def history(row):
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [(entry.user.get_username(), entry.action_flag, entry.change_message) for entry in entries]


def answer(client, url, **fields):
    return client.post(url, {"confirmed": "yes", **fields}, follow=True)


# ---------------------------------------------------------------- on real servers


@pytest.mark.parametrize("server", ["restate_server", "legacy_restate_server"])
def test_resolve(request, settings, server, operator):
    running = request.getfixturevalue(server)
    settings.RESTATE = {"default": {"INGRESS_URL": running.ingress_url, "ADMIN_URL": running.admin_url}}
    row = send("Approval", "ask", {"note": "page-resolve"})
    (waiting,) = waits_of(operator, row)
    (label, url), _reject = waiting.links
    text = journal_of(operator, row).content.decode()
    assert f"<code>{waiting.id}</code>" in text
    assert f'href="{url}"' in text
    assert "ago</time>" in text
    question = operator.get(url).content.decode()
    assert label == "Resolve"
    assert "goes on with the value that you give" in question
    assert waiting.id in question
    response = answer(operator, url, value='{"approved": true, "secret": "hush"}')
    assert response.redirect_chain[-1][0] == page_of(row)
    assert messages_of(response) == [("success", "Resolved the awakeable: the handler goes on.")]
    assert until(row, "succeeded").output == {"approved": True, "secret": "hush"}
    assert history(row) == [("operator", CHANGE, f"Resolved the awakeable {waiting.id}.")]
    assert journal_of(operator, row).context["waits"] == []


def test_reject(restate, operator):
    row = send("Approval", "ask", {"note": "page-reject"})
    (waiting,) = waits_of(operator, row)
    _resolve, (label, url) = waiting.links
    assert label == "Reject"
    assert "terminal error with your reason" in operator.get(url).content.decode()
    response = answer(operator, url, reason=" too expensive ")
    assert messages_of(response) == [("success", "Rejected the awakeable: the handler gets the error.")]
    assert until(row, "failed").failure_message == "too expensive"
    assert history(row) == [("operator", CHANGE, f"Rejected the awakeable {waiting.id}. Reason: too expensive")]


def test_it_is_not_done_twice(restate, operator):
    row = send("Approval", "ask_two", {})
    first, second = waits_of(operator, row, 2)
    answer(operator, second.links[0][1], value="2")
    response = answer(operator, second.links[0][1], value="22")
    assert "It was resolved or rejected already." in response.content.decode()
    assert history(row)[-1][2].startswith("Resolve an awakeable was not done. It was resolved or rejected already.")
    waits_of(operator, row, 1)
    answer(operator, first.links[0][1], value=" ")
    assert until(row, "succeeded").output == [None, 2]


def test_who_may_only_view_sees_what_is_waited_for_and_no_buttons(restate, operator, viewer):
    row = send("Approval", "ask", {"note": "page-viewer"})
    (waiting,) = waits_of(viewer, row)
    assert waiting.links == []
    text = journal_of(viewer, row).content.decode()
    assert waiting.id in text
    assert "/awakeable/" not in text
    row.kill()


def test_what_it_is_known_to_wait_for_is_no_awakeable(restate, operator):
    row = until(send("Slow", "sleep", {"seconds": 60}), "running", "suspended")
    context = journal_of(operator, row).context
    assert (context["waits"], context["waits_note"]) == ([], "")
    row.kill()


# ---------------------------------------------------------------- what we do when


def test_while_it_runs_and_does_nothing_the_page_says_that_it_may_wait(operator, viewer, monkeypatch):
    row = make_row("running")
    found = journal.Journal([journal.Step(0, "input")])
    monkeypatch.setattr(journal, "read", lambda *args, **kwargs: found)
    monkeypatch.setattr(awakeables, "pending", lambda row: [])
    assert "once Restate has suspended it" in journal_of(operator, row).content.decode()
    assert journal_of(viewer, row).context["waits_note"] == ""
    found.steps[0].state = "open"
    assert journal_of(operator, row).context["waits_note"] == ""


def test_where_restate_does_not_say_what_is_waited_for(operator, monkeypatch):
    def fail(row):
        raise Unavailable("it is <b>away</b>")

    monkeypatch.setattr(journal, "read", lambda *args, **kwargs: journal.Journal([journal.Step(0, "input")]))
    monkeypatch.setattr(awakeables, "pending", fail)
    text = journal_of(operator, make_row("suspended")).content.decode()
    assert "Restate can&#x27;t be asked what it waits for now: it is &lt;b&gt;away&lt;/b&gt;" in text
    ended = journal_of(operator, make_row("succeeded"))
    assert ended.context["waits_note"] == "", "it is not asked"


@pytest.fixture
def given(monkeypatch):
    """What the verbs are given, in place of doing it."""
    calls = []
    monkeypatch.setattr(awakeables, "resolve", lambda row, each, value: calls.append(value))
    monkeypatch.setattr(awakeables, "reject", lambda row, each, reason: calls.append(reason))
    return calls


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{approved}", "This is no JSON: Expecting property name enclosed in double quotes (line 1, column 2)."),
        ("yes", "This is no JSON: Expecting value (line 1, column 1)."),
        ("NaN", "This is no JSON: NaN."),
        ("[" * 100_000, "This is no JSON:"),
    ],
)
def test_what_is_no_json_is_said_in_the_form_and_kept(operator, given, text, complaint):
    response = answer(operator, awakeable(make_row("suspended"), ID, "resolve"), value=text)
    assert response.context["complaint"].startswith(complaint)
    assert response.context["given"]["value"] == text
    assert 'aria-invalid="true"' in response.content.decode()
    assert given == []


def test_the_value_goes_as_it_was_typed(operator, given):
    row = make_row("suspended")
    answer(operator, awakeable(row, ID, "resolve"), value='{"b": 1.10,\r\n "a": "é"}')
    assert given == [EncodedPayload('{"b": 1.10,\r\n "a": "é"}'.encode(), "application/json")]
    assert "1.10" not in str(history(row)), "values are for those who may see payloads"


def test_a_reason_is_needed(operator, given):
    response = answer(operator, awakeable(make_row("suspended"), ID, "reject"), reason="  ")
    assert "Give a reason" in response.content.decode()
    assert given == []


def test_a_post_that_was_not_asked_about_is_asked_about(operator, given):
    response = operator.post(awakeable(make_row("suspended"), ID, "resolve"), {"value": "1"})
    assert "goes on with the value" in response.content.decode()
    assert given == []


def test_a_refusal_keeps_what_was_typed(operator, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": "http://127.0.0.1:9"}}
    row = make_row("suspended", invocation_id="inv_1eA4QCON61Mc4QTiaD7swDC0lxlBLBigfp")
    response = answer(operator, awakeable(row, ID, "resolve"), value='"<script>alert(1)</script>"')
    text = response.content.decode()
    assert "Restate can&#x27;t be asked about it now" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    ((user, flag, said),) = history(row)
    assert (user, flag) == ("operator", CHANGE)
    assert said.startswith("Resolve an awakeable was not done. Restate can't be asked about it now")
    assert "alert" not in said


def test_hostile_reasons_are_text(operator, monkeypatch):
    def refuse(row, each, reason):
        raise OperationRefused(f"<b>no</b>\0 {reason}")

    monkeypatch.setattr(awakeables, "reject", refuse)
    row = make_row("suspended")
    response = answer(operator, awakeable(row, ID, "reject"), reason="<script>alert(1)</script>\0")
    pages = response.content.decode() + operator.get(page_of(row).replace("change", "history")).content.decode()
    assert "<script>alert" not in pages
    assert "<b>no</b>" not in pages


def test_it_runs_outside_any_transaction(operator, monkeypatch):
    """Also where the project wraps each request in one."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    seen = []
    monkeypatch.setattr(awakeables, "resolve", lambda *args: seen.append(transaction.get_connection().in_atomic_block))
    answer(operator, awakeable(make_row("suspended"), ID, "resolve"), value="1")
    assert seen == [False]


def test_it_is_protected_against_forged_requests(user_with):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_with("view_invocation", "resolve_awakeable", name="careful"))
    url = awakeable(make_row("suspended"), ID, "resolve")
    assert client.post(url, {"confirmed": "yes", "value": "1"}).status_code == 403


def test_addresses_that_are_none(operator):
    row = make_row("suspended")
    assert operator.get(awakeable(row, ID, "explode")).status_code == 404
    assert operator.put(awakeable(row, ID, "resolve")).status_code == 405
    url = awakeable(row, ID, "resolve")
    row.delete()
    assert operator.get(url).status_code == 404
