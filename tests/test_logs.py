"""Log records: their fields, how loud they are when all is well and when it is not, and what they never hold."""

from __future__ import annotations

import datetime as dt
import io
import logging
import traceback
from pathlib import Path

import pytest
from django.db import DatabaseError, OperationalError, connection
from pythonjsonlogger.json import JsonFormatter

import restate_django
from restate_django import attempts, call, delivery, recording, send, send_many
from restate_django.dispatch import Outgoing
from restate_django.exceptions import InvocationFailed
from restate_django.ids import uuid7
from restate_django.logs import FIELDS, get_logger, trouble
from restate_django.models import Invocation
from restate_django.polling import poll_due
from tests import fake_ingress
from tests.admin.rows import build_row, make_row
from tests.fake_ingress import FakeIngress
from tests.wait import wait_for

PAYLOAD, TOKEN, HEADER = "p-s3cret", "t-s3cret", "h-s3cret"


@pytest.fixture
def records(caplog):
    """Every record of the package, whatever its level; at the end each must have the fields, and no secret."""
    caplog.set_level(logging.DEBUG, "restate_django")

    def ours():
        return [record for record in caplog.records if record.name.partition(".")[0] == "restate_django"]

    yield ours
    for record in ours():
        assert all(isinstance(getattr(record, name), str) for name in FIELDS), record.name
        said = [record.getMessage(), repr(record.args), repr(vars(record))]
        if record.exc_info:
            said += traceback.format_exception(record.exc_info[1])
        for secret in (PAYLOAD, TOKEN, HEADER):
            assert secret not in "\n".join(said), record.getMessage()


@pytest.fixture
def fake(settings):
    """A server that answers as a test says, and rows that only the relay sends."""
    server = FakeIngress()
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": server.url,
            "ADMIN_URL": None,
            "DELIVERY": "relay",
            "PATH_STYLE": "restate",
            "TOKEN": TOKEN,
            "HEADERS": {"X-Proxy": HEADER},
        }
    }
    yield server
    server.close()


def sent(number=1):
    """Record sends with something in them that must not be told."""
    return send_many([Outgoing("Greeter", "greet", {"name": PAYLOAD}, headers={"X-Own": HEADER})] * number)


def at(records, level):
    return [record.getMessage() for record in records() if record.levelname == level]


# ---------------------------------------------------------------- fields


def test_a_row_fills_all_fields(records):
    row = build_row("running", service="Cart", handler="add", key="c/1")
    get_logger("restate_django.tests").info("about %s", "it", row=row)
    get_logger("restate_django.tests").info("about it", row=row.pk, connection="other", extra={"more": 1})
    get_logger("restate_django.tests").info("about nothing")
    whole, some, none = records()
    assert whole.restate_row == some.restate_row == str(row.pk)
    assert (whole.restate_connection, whole.restate_target) == ("default", row.target)
    assert whole.restate_invocation_id == row.invocation_id
    assert (some.restate_connection, some.restate_target, some.more) == ("other", "", 1)
    assert [getattr(none, name) for name in FIELDS] == [""] * 4
    assert whole.funcName == "test_a_row_fills_all_fields", "it points to its caller"


def test_the_json_logger_that_people_use_shows_the_fields():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = get_logger("restate_django.tests.json")
    logger.logger.addHandler(handler)
    try:
        logger.warning("it", invocation_id="inv_1x")
    finally:
        logger.logger.removeHandler(handler)
    assert '"restate_invocation_id": "inv_1x"' in stream.getvalue()


def test_every_logger_of_the_package_has_them():
    package = Path(restate_django.__file__).parent
    bare = [file.name for file in package.rglob("*.py") if "logging.getLogger(" in file.read_text(encoding="utf-8")]
    assert bare == ["logs.py"]


# ---------------------------------------------------------------- levels


@pytest.mark.django_db(transaction=True)
def test_when_all_is_well_nothing_is_above_debug(restate, records, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "relay"}}
    sent(20)
    delivery.deliver_due()
    wait_for(lambda: poll_due() and not Invocation.objects.open().exists(), timeout=20, what="all rows to end")
    assert call("Greeter", "greet", {"name": PAYLOAD}) == f"Hello, {PAYLOAD}!"
    assert {record.levelname for record in records()} == {"DEBUG"}
    assert "deliver_due(): 20 accepted" in at(records, "DEBUG")
    with pytest.raises(InvocationFailed):
        call("Fail", "terminal", {"code": 418, "message": PAYLOAD})
    assert {record.levelname for record in records()} == {"DEBUG"}, "a handler's failure is an outcome, and no trouble"


@pytest.mark.django_db(transaction=True)
def test_a_paused_one_is_a_warning_without_the_handlers_words(restate, records):
    row = send("Fail", "always", {})
    wait_for(lambda: poll_due() is not None and at(records, "WARNING"), timeout=20, what="it to be told")
    (record,) = [record for record in records() if record.levelname == "WARNING"]
    assert "is paused" in record.getMessage()
    assert (record.restate_row, record.restate_invocation_id) == (str(row.pk), row.invocation_id)
    row.refresh_from_db()
    assert row.last_failure not in record.getMessage()
    row.kill()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bulk", [1, 10**9], ids=["in bulk", "one by one"])
def test_why_rows_wait_is_said_once_for_all(fake, records, monkeypatch, bulk):
    monkeypatch.setattr("restate_django.connections.BULK_FROM", bulk)
    for answer, level, words in [
        (fake_ingress.error(401, f"no {TOKEN}"), "ERROR", "looks misconfigured, its rows wait (12 in this round)"),
        (fake_ingress.error(429, "later"), "INFO", "is unavailable on connection 'default', its rows wait (12"),
    ]:
        fake.answer = lambda request, answer=answer: answer
        Invocation.objects.all().delete()
        sent(12)
        delivery.deliver_due(limit=12)  # one that was told to wait a tenth of a second may be due again by then
        (told,) = at(records, level)
        assert words in told or "Restate " + words in told
        record = next(record for record in records() if record.levelname == level)
        assert record.restate_connection == "default"


@pytest.mark.django_db(transaction=True)
def test_a_refusal_is_a_warning_and_an_undeliverable_one_an_error(fake, records, monkeypatch):
    monkeypatch.setattr(recording, "CONFIRM_AFTER", dt.timedelta(0))
    fake.answer = lambda request: fake_ingress.error(415, "no")
    (row,) = sent()
    delivery.deliver_due()
    (told,) = at(records, "WARNING")
    assert f"{row.pk} of Greeter/greet is rejected" in told
    fake.answer = lambda request: fake_ingress.error(404, "invocation not found")
    lost = make_row(
        "unsent", next_attempt_at=row.created_at, unknown_since=row.created_at - dt.timedelta(9), attempts=3
    )
    for _ in range(2):
        Invocation.objects.filter(pk=lost.pk).update(next_attempt_at=row.created_at)
        delivery.deliver_due()
    (told,) = at(records, "ERROR")
    assert f"{lost.pk} of Greeter/greet is undeliverable" in told


@pytest.mark.django_db(transaction=True)
def test_a_bug_shows_where_and_not_what_was_said(fake, records, monkeypatch):
    def broken(connection, row, timeout=None):
        raise LookupError(f"{row.payload}")

    monkeypatch.setattr(attempts, "_ask", broken)
    sent()
    delivery.deliver_due()
    (record,) = [record for record in records() if record.levelname == "ERROR"]
    text = "".join(traceback.format_exception(record.exc_info[1]))
    assert "LookupError" in text
    assert "in broken" in text


# ---------------------------------------------------------------- a database's words


@pytest.mark.django_db(transaction=True)
def test_what_a_database_refuses_is_not_quoted():
    row = make_row("succeeded")
    again = build_row("succeeded", pk=row.pk, handler=PAYLOAD)
    errors = []
    for columns in ({}, {"pk": uuid7(), "service": None}, {"pk": uuid7(), "attempts": 10**30}):
        for name, value in columns.items():
            setattr(again, name, value)
        try:
            Invocation.objects.bulk_create([again])
        except (DatabaseError, OverflowError, ValueError) as error:
            errors.append(error)
    assert len(errors) == 3
    told = [trouble(error) for error in errors]
    assert all(told)
    assert PAYLOAD not in str(told)
    if connection.vendor == "postgresql":
        assert PAYLOAD in str(errors), "this is what it is for"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationalError("connection to server failed\nmore"), "OperationalError: connection to server failed"),
        (OperationalError(2006, "Server has gone away"), "OperationalError (2006): Server has gone away"),
        (OperationalError(1366, f"Incorrect string value: '{PAYLOAD}'"), "OperationalError (1366)"),
        (DatabaseError(f"value {PAYLOAD}"), "DatabaseError"),
    ],
)
def test_a_database_that_is_away_is_told_in_its_words(error, told):
    assert trouble(error) == told
