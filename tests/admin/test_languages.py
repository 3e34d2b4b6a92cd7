"""Every page in every language: nothing that could not be translated, nothing left in English, the reader's time."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.template import Context, Template
from django.test import Client
from django.utils import timezone, translation

from restate_django import send
from restate_django.admin import journal, operate, wording
from restate_django.admin.buttons import BUTTONS
from restate_django.connections import connections
from restate_django.lifecycle import Status
from restate_django.polling import refresh
from tests.admin.pages import LIST, awakeable, confirm, page_of, press
from tests.admin.rows import make_row
from tests.admin.spoken import marked_translations, spoken, unmarked
from tests.catalogues import compiled, path_of
from tests.models import Order
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

APP, OVERVIEW, SERVERS = "/admin/restate_django/", f"{LIST}overview/", f"{LIST}servers/"
REGISTER, REMOVE, SERVICE = f"{SERVERS}register/", f"{SERVERS}remove/", f"{SERVERS}service/"
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w+\}|</?\w+>")
LATE = "The call never reached Restate. Nothing ran."


@pytest.fixture
def root():
    """A client of somebody who may do everything."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


@pytest.fixture
def rows():
    """A row of each status and then some, so that the pages have something of each kind to say."""
    user = get_user_model().objects.create_user("mary")
    order = Order.objects.create(number="77")
    mine = {
        "requested_by": user,
        "related_content_type": ContentType.objects.get_for_model(Order),
        "related_id": str(order.pk),
    }
    made = [make_row(status, key="7", **mine, attempts=3, retry_count=2) for status in Status]
    made += [make_row(status) for status in Status]
    made += [
        make_row("running", requested_by=user, cancel_requested_at=timezone.now(), retry_count=1, last_failure="#"),
        make_row("suspended", related_content_type=mine["related_content_type"], related_id="404"),
        make_row("failed", failure_code=500, failure_message="#", failure_metadata={"#": 1}, previously_accepted=True),
        make_row("rejected", delivery_error=LATE),
        make_row("unsent", delivery_error=LATE, attempts=2, unknown_since=timezone.now(), missing_since=timezone.now()),
        make_row("unsent", next_attempt_at=timezone.now() + dt.timedelta(hours=1)),
        make_row("succeeded", output=None, output_bytes=b"\xff", output_content_type="image/png", output_size=1),
        make_row("succeeded", output=None, output_bytes=b"", output_content_type="", output_size=0),
        make_row("succeeded", output=None, output_size=10**7, age=10**6, headers={"#": "#"}),
        make_row("succeeded", has_output=False, payload_bytes=None, content_type="", restarted_from=made[-1]),
        make_row("scheduled", run_at=timezone.now() + dt.timedelta(days=3)),
    ]
    return made


def of_the_database(client, rows, monkeypatch):
    """Yield the pages that ask no server, by name."""
    yield "list", client.get(LIST)
    yield "search", client.get(LIST, {"q": "Greeter"})
    yield (
        "filtered",
        client.get(LIST, {"status": "attention", "recorded_from": "2026-01-01T00:00", "service": "Greeter"}),
    )
    for row in rows:
        yield f"page of {row.status}", client.get(page_of(row))
    yield "app", client.get(APP)
    for span in ("1h", "24h", "7d"):
        yield "overview", client.get(OVERVIEW, {"span": span})
    for name, button in BUTTONS.items():
        if button.confirm:
            yield f"confirm {name}", press(client, name, *rows)
            yield f"confirm one {name}", press(client, name, next(row for row in rows if row.status in button.statuses))
    yield "complaint", confirm(client, press(client, "resume", *rows), deployment="id", deployment_id="#")
    monkeypatch.setattr(operate, "COUNTED", 2)
    across = press(client, "cancel", rows[0], select_across="1")
    yield "confirm across", across
    monkeypatch.setattr(operate, "BATCH", 1)
    unsent = press(client, "cancel", *(row for row in rows if row.status == Status.UNSENT))
    yield "progress", unsent
    yield "progress goes on", confirm(client, unsent)
    monkeypatch.undo()
    yield "messages", press(client, "cancel", *(row for row in rows if row.status in {"unsent", "succeeded", "failed"}))
    yield "nothing selected", client.post(LIST, {"action": "cancel", "index": "0"}, follow=True)
    yield "question of an awakeable", client.get(awakeable(rows[0], "sign_1x", "resolve"))
    yield "question of an awakeable", client.get(awakeable(rows[0], "sign_1x", "reject"))


def of_a_server(client):
    """Yield the pages that a real server has a part in, by name."""
    row = send("Approval", "ask", {"note": "languages"})
    wait_for(lambda: refresh(row) and row.status == "suspended", timeout=20, what="it to be suspended")
    page = f"{page_of(row).removesuffix('change/')}journal/"
    yield "journal", client.get(page)
    (waiting,) = client.get(page).context["waits"]
    yield "resolve", client.post(awakeable(row, waiting.id, "resolve"), {"confirmed": "yes", "value": "{"})
    yield "reject", client.post(awakeable(row, waiting.id, "reject"), {"confirmed": "yes"})
    yield (
        "rejected",
        client.post(awakeable(row, waiting.id, "reject"), {"confirmed": "yes", "reason": "#"}, follow=True),
    )
    yield "another's", client.post(awakeable(row, "sign_1x", "resolve"), {"confirmed": "yes", "value": "1"})
    yield "servers", client.get(SERVERS)
    for name in ("Approval", "Counter", "Signup"):
        yield "service", client.get(SERVICE, {"connection": "default", "name": name})
    yield "register", client.get(REGISTER)
    yield "register nonsense", client.post(REGISTER, {"connection": "default", "uri": "ftp://h", "headers": "a"})
    (deployment, *_others) = connections["default"].admin.list_deployments()
    for force in ({}, {"force": "on"}):
        asked = {"connection": "default", "uri": deployment.uri, "_check": "1", **force}
        yield "plan", client.post(REGISTER, asked)
    yield "remove", client.get(REMOVE, {"connection": "default", "deployment": deployment.id})
    yield "removed", client.post(REMOVE, {"connection": "default", "deployment": deployment.id}, follow=True)
    yield "unknown", client.get(REMOVE, {"connection": "default", "deployment": "dp_1"}, follow=True)


def badges(rows):
    """Yield the badges that a site shows its visitors."""
    template = Template("{% load restate_django %}{% invocation_status row cancel=True assets=False %}")
    for row in rows:
        yield f"badge of {row.status}", template.render(Context({"row": row}))


def checked(pages):
    """Yield names and texts of pages that are there."""
    for name, response in pages:
        if isinstance(response, str):
            yield name, response
        else:
            assert response.status_code == 200, name
            yield name, response.content.decode()


# What is no message: names and values of these tests' rows, and of what they are about.
WORDS = {
    *("Greeter", "greet", "Approval", "ask", "Counter", "Signup", "order", "root", "mary", "default", "cancelled"),
    *("Django", "Restate", "JSON", "json", "HTTP", "http", "https", "application", "octet", "stream", "text", "image"),
    *("png", "sha", "dp", "Cart", "cart", "add"),
}


def not_marked(pages, values=frozenset()):
    """The texts of pages that are no messages, by the pages' names."""
    found = {}
    for name, html in checked(pages):
        if bad := unmarked(html, WORDS, values):
            found.setdefault(name, []).extend(bad)
    return found


def test_every_text_of_a_page_of_the_database_is_a_message(root, rows, monkeypatch, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}
    with marked_translations(monkeypatch):
        assert not_marked(of_the_database(root, rows, monkeypatch)) == {}
        assert not_marked(badges(rows)) == {}


def test_every_text_of_ours_on_another_models_page_is_a_message(root, rows, monkeypatch, settings):
    settings.ROOT_URLCONF = "tests.admin.test_related"
    order = Order.objects.get()
    Order.objects.create(number="78")
    of_the_model = {"Order", "Orders", "orders", "Number", "Note", "Tests", "tests"}
    with marked_translations(monkeypatch):
        pages = [root.get(f"/own/tests/order/{order.pk}/change/"), root.get("/own/tests/order/")]
        pages.append(root.get(f"/own/tests/order/{order.pk + 1}/change/"))
        for page in pages:
            assert unmarked(page.content.decode(), WORDS | of_the_model, set()) == []


def told_by(admin):
    """What a server says of its services and deployments in its own words, and in their handlers' ones."""
    found = {"Notes/languages/append"}  # what ``Approval`` calls: a step of the journal
    for service in admin.list_services():
        found |= {service.name, service.documentation}
        for handler in service.handlers:
            found |= {handler.name, handler.documentation, handler.input_description, handler.output_description}
    return {" ".join(each.split()) for each in found | {each.sdk_version for each in admin.list_deployments()} if each}


def test_every_text_of_a_page_with_a_server_is_a_message(root, restate, monkeypatch):
    values = told_by(connections["default"].admin)
    with marked_translations(monkeypatch):
        assert not_marked(of_a_server(root), values) == {}


def english(html, language, values):
    """The texts of a page that are messages of ours, in English although they have a translation."""
    ours = {text: forms for (_context, text), forms in compiled(path_of(language, "mo")).items()}
    untranslated = {text for text, forms in ours.items() if forms[0] != text and text not in WORDS}
    long = [part for text in untranslated for part in PLACEHOLDER.split(text) if part.count(" ") > 3]
    texts = (text for text in spoken(html) if text not in values)
    return [text for text in texts if text in untranslated or any(part in text for part in long)]


@pytest.mark.parametrize(("name", "locale"), [("de", "de"), ("zh-hans", "zh_Hans")])
def test_no_sentence_of_ours_stays_english(root, rows, restate, monkeypatch, name, locale):
    values = told_by(connections["default"].admin)
    with translation.override(name):
        pages = [*of_the_database(root, rows, monkeypatch), *of_a_server(root), *badges(rows)]
        found = {page: bad for page, html in checked(pages) if (bad := english(html, locale, values))}
    assert found == {}


def test_a_page_in_german(root, rows):
    with translation.override("de"):
        text = " ".join(spoken(root.get(page_of(rows[0])).content.decode()))
        for words in (
            "nicht gesendet",
            "Zeitleiste",
            "Erfasst vor 1 min von mary für 77.",
            "Idempotenzschlüssel",
        ):
            assert words in text
        late = next(row for row in rows if row.status == "rejected" and row.delivery_error)
        text = " ".join(spoken(root.get(page_of(late)).content.decode()))
        assert "Der Aufruf hat Restate nie erreicht. Nichts wurde ausgeführt." in text
        # What a server said is shown as it said it, and nothing makes a catalogue's header of it.
        assert wording.recorded_reason("Greeter/greet: gone") == "Greeter/greet: gone"
        assert wording.recorded_reason("") == ""


# ---------------------------------------------------------------- the reader's time


MOMENTS = (
    *("created_at", "accepted_at", "started_at", "finished_at", "recorded_at", "result_expires_at", "unknown_since"),
    *("unregistered_since", "cancel_requested_at", "cancel_sent_at", "missing_since", "run_at"),
)


def test_every_time_is_the_readers(root, restate, monkeypatch):
    """What happened at 23:30 in Greenwich happened the next morning in Tokyo, wherever a page tells of it."""
    moment = dt.datetime(2026, 3, 1, 23, 30, 15, tzinfo=dt.UTC)
    times = dict.fromkeys(MOMENTS, moment)
    row = make_row("failed", **times)
    waiting = make_row("unsent", created_at=moment, next_attempt_at=moment, cancel_requested_at=moment)
    steps = (
        [
            {"index": 0, "entry_type": "Command: Sleep", "appended_at": "2026-03-01T23:30:15Z",
             "entry_lite_json": '{"Command": {"Sleep": {"wake_up_time": 1772407815000, "completion_id": 1}}}'},
        ],
        [{"after_journal_entry_index": 0, "appended_at": "2026-03-01T23:30:15Z", "event_json": "{}"}],
    )  # fmt: skip
    monkeypatch.setattr(journal, "read", lambda *_args, ended_at: journal.arrange(*steps, ended_at=ended_at))
    with timezone.override("Asia/Tokyo"):
        journal_page = root.get(f"{page_of(row).removesuffix('change/')}journal/")
        pages = [root.get(page_of(row)), root.get(page_of(waiting)), root.get(LIST), journal_page]
        texts = ["\n".join(spoken(page.content.decode())) for page in pages]
    for text in texts:
        assert "23:30" not in text
        assert "08:30:15" in text
    assert texts[0].count("March 2, 2026, 08:30:15") >= len(times)
    assert "until March 2, 2026, 08:30:15" in texts[3]


def test_the_overviews_times_and_its_links_are_the_readers(root):
    now = timezone.now()
    make_row("succeeded", age=60)
    with timezone.override("Asia/Kathmandu"):  # 5:45 ahead of Greenwich: no hour fits by chance
        trends = root.get(OVERVIEW, {"span": "1h"}).context["overview"].trends
        rows = [row for row in trends.table if row.numbers[0] != "0"]
        (row,) = rows
        local = timezone.localtime(now - dt.timedelta(seconds=60))
    hours = {f"{local + dt.timedelta(minutes=minutes):%H:%M}" for minutes in (-1, 0, 1)}
    assert re.search(r">(\d\d:\d\d)</time>", row.time)[1] in hours
    assert any(f"recorded_from={local:%Y-%m-%d}T{hour.replace(':', '%3A')}" in row.url for hour in hours)
