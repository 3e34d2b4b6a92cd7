"""``VALIDATE_PAYLOADS``: what is refused before a row is written, and what must never stop a send."""

from __future__ import annotations

import dataclasses
import logging
import uuid

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from restate_django import Outgoing, VirtualObject, call, checks, conf, payload_schemas, send, send_many, service_info
from restate_django.client import EncodedPayload, HandlerInfo, Target, encode_payload
from restate_django.connections import connections
from restate_django.exceptions import InvalidRequest, PayloadInvalid, RequestTimeout
from restate_django.models import Invocation
from restate_django.testing.process import free_port

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def checked(typed_restate_server, settings):
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": typed_restate_server.ingress_url,
            "ADMIN_URL": typed_restate_server.admin_url,
            "VALIDATE_PAYLOADS": True,
        }
    }
    payload_schemas._say_once.cache_clear()
    return typed_restate_server


def depot():
    return VirtualObject("Depot")[uuid.uuid4().hex]


@pytest.fixture
def asked(monkeypatch):
    """How often the server was asked about a service."""
    from restate_django.client import AdminClient

    questions = []
    real = AdminClient.get_service

    def get_service(self, service, **options):
        questions.append(service)
        return real(self, service, **options)

    monkeypatch.setattr(AdminClient, "get_service", get_service)
    return questions


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("payload", "path", "reason"),
    [
        ({"quantity": 1}, "$", "'sku' is a required property"),
        ({"sku": 3}, "$.sku", "must be of type string, not integer"),
        ({"sku": "mug", "quantity": "a secret"}, "$.quantity", "must be of type integer, not string"),
        ({"sku": "mug", "quantity": 100}, "$.quantity", "breaks the rule maximum: 99"),
        ([], "$", "must be of type object, not array"),
        (EncodedPayload(b"{bad", "application/json"), "$", "is not JSON"),
        (None, "$", "must be of type object, not null"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_before_a_row_is_written(checked, payload, path, reason):
    with pytest.raises(PayloadInvalid) as caught:
        depot().add.send(payload)
    error = caught.value
    assert error.path == path
    assert error.reason.startswith(reason)
    assert isinstance(error, InvalidRequest)
    assert str(error).startswith("Depot/")
    assert reason in str(error)
    assert "a secret" not in str(error)
    assert not Invocation.objects.exists()


def test_a_place_deep_within_is_named(checked):
    parcel = {
        "number": str(uuid.uuid4()),
        "to": {"street": "Main"},
        "lines": [{"sku": "a"}, {"sku": "b", "quantity": 0}],
    }
    with pytest.raises(PayloadInvalid) as caught:
        depot().handler("class").call(parcel)
    assert caught.value.path == "$.lines[1].quantity"
    parcel["lines"].pop()
    assert depot().handler("class").call(parcel) == "home"


def test_what_fits_goes_through(checked):
    row = depot().add.send({"sku": "mug", "quantity": 2})
    assert row.attach(timeout=10)["total"] == 1
    assert depot().clear.call() is None
    assert send("com.example.Odd-Ones", "anything", [1, {"a": None}]).attach(timeout=10)


def test_a_handler_without_input_takes_none(checked):
    with pytest.raises(PayloadInvalid, match="takes no input"):
        depot().clear.send(None)


def test_a_call_and_each_of_many_are_checked(checked):
    with pytest.raises(PayloadInvalid):
        call("Depot", "add", {"sku": ""}, key="x")
    right, wrong = {"sku": "mug"}, {"sku": "mug", "quantity": 0}
    with pytest.raises(PayloadInvalid):
        send_many([Outgoing("Depot", "add", payload, key="many") for payload in (right, right, wrong)])
    assert not Invocation.objects.exists()
    assert len(send_many([depot().add.outgoing(right) for _ in range(3)])) == 3


def test_without_the_setting_nothing_is_asked_or_refused(checked, settings, asked):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "VALIDATE_PAYLOADS": False, "DELIVERY": "relay"}}
    depot().add.send({"sku": 3})
    assert asked == []


# ---------------------------------------------------------------- what is asked, and when


def test_the_schema_is_read_once(checked, asked):
    for _ in range(3):
        depot().add.send({"sku": "mug"})
    assert asked == ["Depot"]


def test_nothing_is_asked_inside_a_transaction(checked, settings, asked):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "relay"}}
    with transaction.atomic():
        depot().add.send({"sku": 3})  # nobody can know
        send_many([depot().add.outgoing({"sku": 3})])
        assert asked == []
    assert asked == ["Depot"], "it is learnt right after the commit"
    with transaction.atomic(), pytest.raises(PayloadInvalid):
        depot().add.send({"sku": 3})
    assert asked == ["Depot"]


def test_a_rolled_back_transaction_asks_nothing(checked, asked):
    with transaction.atomic():
        depot().add.send({"sku": 3})
        transaction.set_rollback(True)
    assert asked == []


def test_many_are_checked_though_their_transaction_asks_nothing(checked, asked):
    with pytest.raises(PayloadInvalid):
        send_many([depot().add.outgoing({"sku": 3})])
    assert asked == ["Depot"]
    connections["default"].services.forget("Depot")
    # An iterator is read within the transaction: what it names can't be known before.
    assert len(send_many(depot().add.outgoing({"sku": 3}) for _ in range(1))) == 1


def test_a_changed_schema_is_noticed_before_a_refusal(checked, asked, monkeypatch):
    """A deployment may have come since the schema was read."""
    depot().add.send({"sku": "mug"})
    answers = connections["default"]._answers
    (key,) = [key for key in answers._answers if "Depot" in key]
    old = answers._answers[key].value
    handlers = [dataclasses.replace(each, input_json_schema={"type": "array"}) for each in old.handlers]
    stale = dataclasses.replace(old, handlers=tuple(handlers))

    def keep(age):
        until = service_info.monotonic() + service_info.KEPT_FOR - age
        answers._answers[key] = service_info._Answer(stale, until)

    keep(age=11)
    assert depot().add.send({"sku": "mug"}).status == "accepted"
    assert asked == ["Depot", "Depot"]
    # Within ten seconds, and inside a transaction, it is believed.
    keep(age=5)
    with pytest.raises(PayloadInvalid, match="of type array"):
        depot().add.send({"sku": "mug"})
    keep(age=11)
    with transaction.atomic(), pytest.raises(PayloadInvalid, match="of type array"):
        depot().add.send({"sku": "mug"})
    assert asked == ["Depot", "Depot"]


# ---------------------------------------------------------------- what must not stop a send


def test_an_admin_api_that_is_away_stops_nothing(checked, settings):
    settings.RESTATE = {
        "default": {
            **settings.RESTATE["default"],
            "ADMIN_URL": f"http://127.0.0.1:{free_port()}",
            "PATH_STYLE": "restate",
        }
    }
    assert depot().add.send({"sku": 3}).status == "accepted"


def test_an_admin_api_that_goes_away_before_a_refusal_stops_nothing(checked, monkeypatch):
    """The schema that is known is old, and whether it still holds nobody can say."""
    from restate_django.client import AdminClient

    depot().add.send({"sku": "mug"})
    answers = connections["default"]._answers
    (key,) = [key for key in answers._answers if "Depot" in key]
    answers._answers[key] = dataclasses.replace(
        answers._answers[key], fresh_until=service_info.monotonic() + service_info.KEPT_FOR - 60
    )

    def silent(self, service, **options):
        raise RequestTimeout("no answer")

    monkeypatch.setattr(AdminClient, "get_service", silent)
    assert depot().add.send({"sku": 3}).status == "accepted"
    # What was known is not forgotten for it: a repeated send still goes by it.
    assert answers.last(key) is not None


def test_no_admin_api_stops_nothing_and_is_told_by_a_check(checked, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None}}
    assert depot().add.send({"sku": 3}).status == "accepted"
    assert "restate_django.W006" in {message.id for message in checks.check_settings()}


def test_an_unknown_service_or_handler_is_restates_to_refuse(checked):
    assert send("Nobody", "knows", {}).status == "unsent"
    assert send("Depot", "nothing", {}, key="k").status == "unsent"


def fault(schema, payload, **options):
    handler = HandlerInfo("add", input_json_schema=schema, **options)
    return payload_schemas._fault(handler, Target("Cart", "add"), encode_payload(payload))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 3},
        {"$ref": "https://example.com/elsewhere.json"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "string", "pattern": "("},
        {"$ref": "#"},
        {"$schema": 3},
        "object",
    ],
    ids=str,
)
def test_a_schema_that_can_not_be_used_stops_nothing_and_is_told_once(schema, caplog):
    payload_schemas._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "restate_django.payloads"):
        assert fault(schema, "a") is None
        assert fault(schema, "a") is None
    assert caplog.text.count("can't be used") == 1


def test_what_no_schema_is_about_is_not_refused():
    assert fault({"type": "object"}, b"\x00\xff") is None
    assert fault({"type": "string"}, EncodedPayload(b"[" * 100_000, "application/json")) is None
    assert fault(True, 3) is None
    assert fault(None, 3) is None
    assert fault({}, 3) is None
    assert fault({"type": "string", "format": "uuid"}, "no uuid") is None, "a format is a note, until a handler says so"
    assert fault({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array"}, 3) is not None


def test_a_reason_shows_rules_and_no_values():
    assert fault({"enum": ["a", "b"]}, "secret").reason == "breaks the rule enum: ['a', 'b']"
    assert fault({"type": ["integer", "null"]}, "secret").reason == "must be of type integer or null, not string"
    assert fault({"additionalProperties": False}, {"x": "secret"}).reason.endswith("('x' was unexpected)")
    assert "secret" not in fault({"anyOf": [{"type": "integer"}, {"maxLength": 2}]}, "secret").reason
    assert "secret" not in fault({"dependentRequired": {"a": ["b"]}}, {"a": "secret"}).reason


# ---------------------------------------------------------------- the setting


def test_without_jsonschema_the_setting_names_the_extra(settings, monkeypatch):
    monkeypatch.setattr(conf, "find_spec", lambda name: None)
    settings.RESTATE = {"default": {"VALIDATE_PAYLOADS": True}}
    with pytest.raises(ImproperlyConfigured, match=r"restate-django\[validate\]"):
        conf.get_settings()
    settings.RESTATE = {"default": {"VALIDATE_PAYLOADS": False}}
    assert conf.get_settings().validate_payloads is False
