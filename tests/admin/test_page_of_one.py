"""The page of one invocation: what it tells, what it hides, and what it makes of hostile text."""

from __future__ import annotations

import datetime as dt
import json
import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django import Outgoing, send, send_many
from restate_django.admin import bodies
from restate_django.admin.masking import MASK, is_secret, masked
from restate_django.lifecycle import Status
from tests.admin.pages import page_of
from tests.admin.rows import make_row
from tests.models import Order
from tests.wait import wait_for

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def page(client, row):
    """The page as text."""
    response = client.get(page_of(row))
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_page(operator, status):
    text = page(operator, make_row(status))
    assert f"</svg>{status.label}</span>" in text


def test_it_says_in_words_what_happened(operator):
    order = Order.objects.create(number="A-17")
    mary = get_user_model().objects.create_user("mary")
    row = make_row(
        "running",
        age=600,
        started_at=timezone.now() - dt.timedelta(seconds=125),
        retry_count=3,
        cancel_requested_at=timezone.now() - dt.timedelta(seconds=61),
        requested_by=mary,
        related_content_type=ContentType.objects.get_for_model(Order),
        related_id=str(order.pk),
    )
    text = page(operator, row)
    assert f"Recorded 10 min ago by mary for order {order.pk}. It has been running for 2 min 5 s." in text
    assert "Retried 3 times so far." in text
    assert "Its cancellation was requested 1 min ago and is not confirmed yet." in text
    assert "cancel requested" in text


def test_an_unsent_row_says_why(operator):
    row = make_row(
        "unsent",
        attempts=4,
        unknown_since=timezone.now(),
        next_attempt_at=timezone.now() + dt.timedelta(seconds=30),
        delivery_error="connection refused",
    )
    text = page(operator, row)
    assert "Restate has not taken it in 4 attempts." in text
    assert "Why it is not delivered yet" in text
    assert "connection refused" in text
    assert "First attempt of unknown outcome" in text


def test_an_unsent_row_that_was_not_tried_yet(operator):
    assert "It was not sent yet." in page(operator, make_row("unsent"))
    due = make_row("unsent", next_attempt_at=timezone.now() + dt.timedelta(minutes=5))
    assert "It was not sent yet; it is due in 4 min." in page(operator, due)


def test_somebody_elses_invocation_is_said_to_be_so(operator):
    assert "Its payload was not used." in page(operator, make_row("running", previously_accepted=True))
    assert "Its payload was not used." not in page(operator, make_row("running"))


def test_the_timeline_is_in_order(operator):
    start = timezone.now() - dt.timedelta(hours=1)
    after = [start + dt.timedelta(seconds=seconds) for seconds in range(9)]
    row = make_row(
        "succeeded",
        created_at=after[0],
        unknown_since=after[1],
        accepted_at=after[2],
        execution_at=after[3],
        started_at=after[4],
        cancel_requested_at=after[5],
        cancel_sent_at=after[6],
        finished_at=after[7],
        recorded_at=after[8],
        result_expires_at=timezone.now() + dt.timedelta(days=1),
    )
    events = operator.get(page_of(row)).context["detail"].timeline
    assert [event.title for event in events] == [
        "Recorded",
        "First attempt of unknown outcome",
        "Acceptance received",
        "Scheduled for",
        "Started",
        "Cancellation requested",
        "Cancellation taken by Restate",
        "Finished",
        "End recorded here",
        "Restate may forget the result",
    ]
    assert [event.offset for event in events][1:4] == ["+1.0 s", "+2.0 s", "+3.0 s"]
    assert [event.ahead for event in events] == [False] * 9 + [True]


def test_hostile_text_is_text(operator):
    row = make_row(
        "failed",
        service=HOSTILE,
        key=HOSTILE,
        handler=HOSTILE,
        idempotency_key=HOSTILE,
        payload_bytes=json.dumps({HOSTILE: HOSTILE}).encode(),
        headers={"x-evil": HOSTILE},
        failure_code=500,
        failure_message=HOSTILE,
        failure_metadata={HOSTILE: HOSTILE},
        delivery_error=HOSTILE,
        last_failure=HOSTILE,
        related_id=HOSTILE,
    )
    backing_off = make_row("backing-off", last_failure=HOSTILE, service=HOSTILE)
    ended = make_row(output={HOSTILE: HOSTILE}, output_content_type=HOSTILE, content_type=HOSTILE)
    for address in (page_of(row), page_of(backing_off), page_of(ended), "/admin/restate_django/invocation/"):
        text = operator.get(address).content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize(
    ("body", "content_type", "seen"),
    [
        (b'{"b": 1, "a": [true, null]}', "application/json", '{\n  "b": 1,\n  "a": [\n    true,\n    null\n  ]\n}'),
        ('"Grüße"'.encode(), "application/json", '"Grüße"'),
        (b'{"bad', "application/json", '{"bad'),
        (b'"a\\u0000b"', "application/json", '"a\\u0000b"'),
        (b'"\\ud800"', "application/json", "\ufffd"),
        (b"NaN", "application/json", "NaN"),
        (b"1" * 6000, "application/json", "1111"),
        (b"a\x00b\x1b[31m", "text/plain", "a\u2400b\u241b[31m"),
        (b"\xff\xfe", "text/plain", "\ufffd"),
        (b"plain", "application/x-own", "plain"),
    ],
)
def test_a_body_is_readable_whatever_it_is(operator, body, content_type, seen):
    row = make_row(payload_bytes=body, content_type=content_type)
    shown = operator.get(page_of(row)).context["detail"].bodies.payload
    assert seen in shown.text
    assert shown.downloadable


@pytest.mark.parametrize("depth", [2000, 5000])
def test_a_body_that_is_nested_too_deeply(operator, depth):
    """Its secrets can't be masked: it is shown nowhere, nor downloaded."""
    row = make_row(payload_bytes=b"[" * depth + b'{"password": "hunter2"}' + b"]" * depth)
    assert "nested too deeply" in (text := page(operator, row))
    assert "hunter2" not in text
    answer = operator.get(page_of(row).replace("change", "payload"))
    assert answer.status_code == 404
    assert b"hunter2" not in answer.content


def test_bodies_that_are_not_there_or_no_text(operator):
    def shown(**columns):
        return operator.get(page_of(make_row(**columns))).context["detail"].bodies

    assert shown(payload_bytes=None, content_type="").payload.note == "It was sent without a body."
    assert shown(payload_bytes=b"", content_type="text/plain").payload.note == "It is empty."
    assert shown(payload_bytes=b"\x89PNG\xff", content_type="image/png").payload.note.startswith("It is binary")
    assert shown(has_output=False, output=None, output_size=None).output.note == "It returned nothing."
    assert shown(output=None, output_size=0, output_content_type="text/plain").output.note == "It is empty."
    assert shown(output=None, output_bytes=b"null").output.text == "null"
    assert shown(output=None, output_bytes=None, output_size=9_000_000).output.downloadable


def test_a_long_body_is_cut_by_the_database_and_there_is_a_way_to_the_whole(operator):
    long_text = b"x" * (bodies.SHOWN * 4)
    row = make_row(payload_bytes=long_text, content_type="text/plain", output="y" * (bodies.SHOWN * 2))
    with CaptureQueriesContext(connection) as queries:
        response = operator.get(page_of(row))
    shown = response.context["detail"].bodies
    assert len(shown.payload.text) == bodies.SHOWN
    assert shown.payload.note.startswith("Only the first")
    assert len(shown.output.text) <= bodies.SHOWN
    assert shown.output.note.startswith("Only the first")
    assert len(response.content) < bodies.SHOWN * 3
    assert not [query for query in queries if '"payload_bytes" FROM' in query["sql"]]
    assert operator.get(page_of(row).replace("change", "payload")).content == long_text


def test_a_long_json_payload_is_not_shown_half_masked(operator):
    body = json.dumps({"password": "hunter2", "rest": "x" * bodies.SHOWN}).encode()
    row = make_row(payload_bytes=body)
    assert "hunter2" not in page(operator, row)
    assert b"hunter2" not in operator.get(page_of(row).replace("change", "payload")).content


@pytest.mark.parametrize(
    ("content_type", "served"),
    [
        ("application/json", "application/json"),
        ("text/html", "text/plain; charset=utf-8"),
        ("image/svg+xml", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_a_download_is_never_a_page(operator, content_type, served):
    row = make_row(payload_bytes=b'{"a": 1}', content_type=content_type)
    response = operator.get(page_of(row).replace("change", "payload"))
    assert response.content == b'{"a": 1}'
    assert response["Content-Type"] == served
    assert response["Content-Disposition"].startswith("attachment")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]


def test_downloads_of_what_is_not_there(operator):
    row = make_row(payload_bytes=None, has_output=False, output=None)
    for what in ("payload", "output"):
        assert operator.get(page_of(row).replace("change", what)).status_code == 404
        assert operator.post(page_of(row).replace("change", what)).status_code == 405
        assert operator.get(f"/admin/restate_django/invocation/{uuid.uuid4()}/{what}/").status_code == 404


def test_downloads_of_outputs(operator):
    def downloaded(**columns):
        return operator.get(page_of(make_row(**columns)).replace("change", "output"))

    assert json.loads(downloaded(output={"token": "hunter2", "n": 1}).content) == {"token": MASK, "n": 1}
    stored = {"output": None, "output_content_type": "text/plain"}
    assert downloaded(output_bytes=b"\xffplain", **stored).content == b"\xffplain"
    assert downloaded(output_size=0, **stored).content == b""
    name = downloaded(output_bytes=b"null", output=None)["Content-Disposition"]
    assert name.startswith('attachment; filename="output-')
    assert name.endswith('.json"')


@pytest.mark.django_db(transaction=True)
def test_an_output_that_stayed_in_restate(restate, operator, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "MAX_OUTPUT_SIZE": 100}}
    row = send("Echo", "json", {"text": "x" * 500})

    def ended():
        return row.refresh().status == "succeeded"

    wait_for(ended, timeout=20, what="it to end")
    assert row.output is row.output_bytes is None
    assert "Restate still has it" in page(operator, row)
    response = operator.get(page_of(row).replace("change", "output"))
    assert json.loads(response.content) == {"text": "x" * 500}


def test_an_output_that_stayed_in_restate_and_can_not_be_read(operator, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None, "TIMEOUT": 1}}
    row = make_row(output=None, output_size=9_000_000)
    response = operator.get(page_of(row).replace("change", "output"), follow=True)
    assert response.redirect_chain[-1][0] == page_of(row)
    assert [message.level_tag for message in response.context["messages"]] == ["error"]


def test_secrets_are_masked(operator):
    row = make_row(
        payload_bytes=b'{"user": {"password": "hunter2", "max_tokens": 5}, "apiKey": "hunter2", "token": ["hunter2"]}',
        output={"accessToken": "hunter2", "pin": 5, "cvv": 123},
        headers={"x-api-key": "hunter2", "x-tenant": "acme"},
    )
    text = page(operator, row)
    assert "hunter2" not in text
    assert "acme" in text
    assert "&quot;max_tokens&quot;: 5" in text
    assert MASK in text
    download = operator.get(page_of(row).replace("change", "payload"))
    assert b"hunter2" not in download.content
    assert json.loads(download.content)["user"]["max_tokens"] == 5


def test_what_looks_like_a_secret():
    for name in (
        "password",
        "Passwd",
        "X-Api-Key",
        "Authorization",
        "set-cookie",
        "client_secret",
        "refreshToken",
        "CVV",
    ):
        assert is_secret(name), name
    for name in ("name", "key", "author", "pass", "order_id", "compass"):
        assert not is_secret(name), name
    assert masked({"secret": {"a": ["x", 1, None, True, ""]}}) == {"secret": {"a": [MASK, MASK, None, True, ""]}}
    assert masked([{"a": 1}, "secret"]) == [{"a": 1}, "secret"]


def test_the_hook_for_secrets(operator, monkeypatch):
    from restate_django.admin import InvocationAdmin

    monkeypatch.setattr(InvocationAdmin, "mask", lambda self, value: {"only": "this"})
    row = make_row(payload_bytes=b'{"iban": "DE02"}', output={"iban": "DE02"})
    assert "DE02" not in page(operator, row)
    assert "DE02" not in operator.get(page_of(row).replace("change", "payload")).content.decode()


def test_the_way_to_restates_own_page(operator, settings):
    row = make_row("running")
    settings.RESTATE = {"default": {"ADMIN_URL": "http://restate:9070"}}
    assert f'href="http://restate:9070/ui/invocations/{row.invocation_id}"' in page(operator, row)
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    assert "Open in Restate" not in page(operator, row)
    # An alias that left the settings: the row is still shown.
    assert "Open in Restate" not in page(operator, make_row("running", connection="gone"))


def test_restarts_are_linked_both_ways(operator):
    first = make_row("failed")
    second = make_row("running", restarted_from=first)
    assert page_of(second) in page(operator, first)
    assert page_of(first) in page(operator, second)


def test_buttons_are_those_of_the_status_and_of_the_user(operator, user_with, client_of):
    canceller = client_of(user_with("view_invocation", "cancel_invocation", name="canceller"))

    def buttons(client, row):
        return {str(button.label) for button in client.get(page_of(row)).context["detail"].buttons}

    running, succeeded, rejected, gone = (make_row(status) for status in ("running", "succeeded", "rejected", "gone"))
    assert {"Cancel", "Kill", "Pause"} <= buttons(operator, running)
    assert buttons(operator, succeeded) == {"Restart as new", "Purge", "Purge journal", "Send with a new key"}
    assert buttons(operator, rejected) == {"Send again", "Send with a new key"}
    assert buttons(operator, gone) == {"Send with a new key"}
    assert buttons(canceller, running) == {"Cancel", "Ask Restate now"}
    assert buttons(canceller, succeeded) == set()
    sent = make_row("running", cancel_requested_at=timezone.now(), cancel_sent_at=timezone.now())
    assert "Cancel" not in buttons(operator, sent)


def test_an_unknown_row(operator):
    for key in (uuid.uuid4(), "nonsense"):
        response = operator.get(f"/admin/restate_django/invocation/{key}/change/", follow=True)
        (message,) = response.context["messages"]
        assert str(key) in str(message)
        assert response.redirect_chain[-1][0] == "/admin/"


def test_the_number_of_queries(operator):
    first = make_row("failed")
    for _ in range(12):
        make_row("succeeded", restarted_from=first)
    operator.get(page_of(first))
    with CaptureQueriesContext(connection) as queries:
        operator.get(page_of(first))
    assert len(queries) <= 10, [query["sql"][:120] for query in queries]


def test_deleting_a_user_or_an_order_leaves_the_rows(client):
    root = get_user_model().objects.create_superuser("root")
    client.force_login(root)
    mary = get_user_model().objects.create_user("mary")
    row = make_row("running", requested_by=mary)
    address = f"/admin/auth/user/{mary.pk}/delete/"
    assert "Yes, I" in client.get(address).content.decode()
    assert client.post(address, {"post": "yes"}).status_code == 302
    row.refresh_from_db()
    assert row.requested_by_id is None


# ---------------------------------------------------------------- its transaction, and copying


@pytest.mark.django_db(transaction=True)
def test_it_names_what_its_transaction_recorded(operator, settings):
    settings.RESTATE = {"default": {"DELIVERY": "relay"}}
    with transaction.atomic():
        row = send("Cart", "add", {}, key="cart-1")
        others = send_many([Outgoing("Mailer", "remind", {}) for _ in range(7)])
    alone = send("Greeter", "greet", {})
    response = operator.get(page_of(row))
    detail = response.context["detail"]
    assert [url for _target, url, _badge in detail.together] == [page_of(other) for other in others[:5]]
    assert detail.is_more_together
    text = response.content.decode()
    assert "Recorded with it" in text
    assert str(row.transaction_id) in text
    assert "the caller&#x27;s transaction" in text
    text = page(operator, alone)
    assert "Recorded with it" not in text
    assert "the caller&#x27;s transaction" not in text


def test_what_can_be_copied_has_a_button(operator):
    text = page(operator, make_row("failed", failure_message="no", failure_code=500))
    # The payload, the failure, the two lines that repeat it, and the ids.
    assert text.count('class="restate-copy"') >= 6
    assert "restate_django/copy.js" in text
