"""Deployments in the admin: what they are, what registering and removing one would do, and who did it."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape
from django.views.debug import ExceptionReporter

from restate_django import deployments, send
from restate_django.admin import deploying, deployment_history
from restate_django.client import AdminClient
from restate_django.connections import connections
from restate_django.exceptions import OutcomeUnknown
from restate_django.models import Invocation
from restate_django.testing import HandlerServer
from tests.admin.pages import LIST, messages_of
from tests.conftest import ROOT
from tests.wait import wait_for

# Transactions of their own: registering refuses to run inside one.
pytestmark = pytest.mark.django_db(transaction=True)
SERVERS, SERVICE = f"{LIST}servers/", f"{LIST}servers/service/"
REGISTER, REMOVE = f"{LIST}servers/register/", f"{LIST}servers/remove/"
SECRET = "hunter2-never-stored"


@pytest.fixture
def empty(make_restate, settings):
    """A server of the test's own that knows no handlers."""
    running = make_restate(handlers=False)
    settings.RESTATE = {"default": {"INGRESS_URL": running.ingress_url, "ADMIN_URL": running.admin_url}}
    return running


@pytest.fixture
def serve():
    """A function that serves one of the apps of ``tests/versions.py``, and returns where."""
    started = []

    def start(app):
        started.append(HandlerServer(f"tests.versions:{app}", cwd=ROOT).start())
        return started[-1].url

    yield start
    for each in started:
        each.stop()


def known():
    return [each.id for each in connections["default"].admin.list_deployments()]


def fields_of(response):
    """What the form of a page would post, without its buttons."""
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', response.content.decode())
    fields = dict(hidden)
    fields.pop("csrfmiddlewaretoken", None)
    headers = response.context["form"].cleaned_data["headers"]
    return fields | {"headers": "\n".join(f"{name}: {value}" for name, value in headers.items())}


def ask(client, uri, **fields):
    return client.post(REGISTER, {"connection": "default", "uri": uri, "_check": "1", **fields})


def removal_of(deployment_id):
    return f"{REMOVE}?{urlencode({'connection': 'default', 'deployment': deployment_id})}"


# ---------------------------------------------------------------- what is there


def test_the_page_of_the_servers_tells_who_serves_what(empty, serve, viewer, operator):
    old = deployments.register("default", serve("first"), headers={"x-api-key": SECRET})
    new = deployments.register("default", serve("second"), breaking=True)
    send("Shelf", "put", 1, key="a").attach(timeout=10)
    response = viewer.get(SERVERS)
    (server,) = response.context["servers"]
    rows = {row["deployment"].id: row for row in server.deployment_rows}
    assert rows[new.id]["services"] == [("Desk", 2, True), ("Shelf", 1, True)]
    assert rows[old.id]["services"] == [("Desk", 1, False)]
    assert "protocol" in rows[new.id]["protocol"]
    assert [row["open"] for row in server.rows] == [0, 0]
    text = response.content.decode()
    for words in ("revision 2, the latest", "x-api-key", "exclusive", "restate-sdk-python/"):
        assert words in text
    assert SECRET not in text
    assert "Register a deployment" not in text
    assert REMOVE not in text
    text = operator.get(SERVERS).content.decode()
    assert REGISTER in text
    assert REMOVE in text


def test_the_page_of_a_service_tells_what_its_handlers_take_and_give(empty, serve, viewer):
    old = deployments.register("default", serve("first"))
    new = deployments.register("default", serve("second"), breaking=True)
    response = viewer.get(SERVICE, {"connection": "default", "name": "Desk"})
    text = response.content.decode()
    for words in ("JSON integer", "JSON string", "Input schema", "1 d", "Greet by number.", old.id, new.id):
        assert words in text
    assert [row["is_latest"] for row in response.context["deployments"]] == [True, False]
    assert (
        "exclusive: one at a time" in viewer.get(SERVICE, {"connection": "default", "name": "Shelf"}).content.decode()
    )
    for nobody in ({"connection": "default", "name": "Nobody"}, {"connection": "other", "name": "Desk"}, {}):
        assert viewer.get(SERVICE, nobody).status_code == 404
    assert viewer.post(SERVICE, {}).status_code == 405


def test_the_page_of_a_service_says_why_there_is_nothing(viewer, settings):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:9"}, "bare": {"ADMIN_URL": None}}
    assert "be asked for it now" in viewer.get(SERVICE, {"connection": "default", "name": "A"}).content.decode()
    assert "has none" in viewer.get(SERVICE, {"connection": "bare", "name": "A"}).content.decode()


def test_subscriptions_and_kafka_clusters_are_shown_without_their_secrets(empty, serve, viewer):
    deployments.register("default", serve("first"))
    admin = connections["default"].admin
    admin.create_kafka_cluster(
        "events", {"bootstrap.servers": "127.0.0.1:1", "sasl.username": SECRET, "sasl.password": SECRET}
    )
    admin.create_subscription("kafka://events/orders", "service://Desk/greet", options={"group.id": "g", "x": SECRET})
    text = viewer.get(SERVERS).content.decode()
    for words in ("kafka://events/orders", "service://Desk/greet", "group.id = g", "bootstrap.servers = 127.0.0.1:1"):
        assert words in text
    assert "sasl.password" in text
    assert SECRET not in text


# ---------------------------------------------------------------- registering


def test_a_deployment_is_looked_at_and_then_registered(empty, serve, operator, caplog):
    uri = serve("first")
    assert "Show what it would do" in operator.get(REGISTER).content.decode()
    response = ask(operator, uri, headers=f"x-api-key: {SECRET}\n\nx-other: b", reason="release 7")
    assert "It is new." in response.content.decode()
    assert known() == []
    assert not LogEntry.objects.exists()
    response = operator.post(REGISTER, {**fields_of(response), "_register": "1"}, follow=True)
    (registered,) = connections["default"].admin.list_deployments()
    assert messages_of(response) == [("success", f"Registered {registered.id}, which serves Desk.")]
    assert set(registered.header_names) == {"x-api-key", "x-other"}
    entry = LogEntry.objects.get()
    assert entry.action_flag == ADDITION
    assert entry.object_repr == f"deployment {registered.id} of default"
    assert entry.change_message == f"Registered {uri}, which serves Desk. Reason: release 7"
    assert entry.get_admin_url() is None
    text = operator.get(SERVERS).content.decode()
    assert "release 7" in text
    assert SECRET not in text + caplog.text + str(list(LogEntry.objects.values()))


def test_what_was_not_seen_is_not_registered(empty, serve, operator):
    """The page that asks is the only way: a form that skips it, or an answer that has changed, goes not through."""
    uri, other = serve("first"), serve("second")
    response = operator.post(REGISTER, {"connection": "default", "uri": uri, "_register": "1"})
    assert "look again" in response.content.decode()
    seen = fields_of(ask(operator, uri))
    for changed in ({"uri": other}, {"headers": "x-new: 1"}, {"breaking": "on"}, {"seal": "x"}):
        response = operator.post(REGISTER, {**seen, **changed, "_register": "1"})
        assert "look again" in response.content.decode()
    deployments.register("default", other)
    response = operator.post(REGISTER, {**seen, "breaking": "on", "_register": "1"})
    assert "look again" in response.content.decode()
    assert len(known()) == 1


def test_what_was_asked_can_be_changed(empty, serve, operator):
    response = ask(operator, serve("first"), headers="x-api-key: abc", force="on")
    response = operator.post(REGISTER, {**fields_of(response), "_edit": "1"})
    text = response.content.decode()
    assert "Show what it would do" in text
    assert "x-api-key: abc" in text
    assert response["Cache-Control"].count("no-store") == 1
    assert known() == []


def test_an_address_that_is_registered_is_told_apart(empty, serve, operator):
    uri = serve("first")
    deployment = deployments.register("default", uri)
    send("Desk", "nap", 600)

    def runs():
        return deployments.consequences("default", deployment.id).running == 1

    wait_for(runs, what="it to run")
    response = ask(operator, uri)
    text = response.content.decode()
    assert "Nothing would change." in text
    assert 'name="_register"' not in text
    response = ask(operator, uri, force="on")
    text = response.content.decode()
    assert "1 open invocation has started on it" in text
    assert operator.post(REGISTER, {**fields_of(response), "_register": "1"}).status_code == 302
    assert LogEntry.objects.get().action_flag == CHANGE
    assert LogEntry.objects.get().change_message.endswith("By force.")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"uri": "ftp://host"}, "must start with http:// or https://"),
        ({"uri": "http://user:pass@host"}, "must not hold a user name or password"),
        ({"uri": "http://host/<script>alert(1)</script>?"}, "must not have a query"),
        ({"uri": ""}, "required"),
        ({"headers": SECRET}, "Line 1 is no header"),
        ({"headers": f"a: b\na: {SECRET}"}, "names a header again"),
        ({"headers": f"content-length: {SECRET}"}, "is reserved"),
        ({"connection": "other"}, "Select a valid choice"),
        ({"uri": "http://127.0.0.1:1"}, "Restate can't reach it"),
    ],
)
def test_a_wrong_form_is_shown_again_with_what_is_wrong(empty, operator, fields, complaint):
    response = ask(operator, **{"uri": "http://127.0.0.1:1", **fields})
    text = response.content.decode()
    assert escape(complaint) in text or complaint in text
    assert "<script>alert" not in text
    for errors in response.context["form"].errors.values():
        assert SECRET not in str(errors)
    assert not LogEntry.objects.exists()


def test_nobody_knows_whether_it_was_registered(empty, serve, operator, monkeypatch):
    seen = fields_of(ask(operator, serve("first")))

    def vanish(*_args, **_options):
        raise OutcomeUnknown("Nobody knows.")

    monkeypatch.setattr(deployments, "register", vanish)
    response = operator.post(REGISTER, {**seen, "_register": "1"}, follow=True)
    assert messages_of(response) == [("warning", "Nobody knows.")]
    assert "Nobody knows whether it did." in LogEntry.objects.get().change_message


def test_a_connection_without_an_admin_api_is_not_offered(operator, settings):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    assert "set ADMIN_URL" in operator.get(REGISTER).content.decode()
    assert REGISTER not in operator.get(SERVERS).content.decode()


def test_a_report_of_an_error_shows_no_header(rf, user_with, monkeypatch, settings):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:9"}}
    monkeypatch.setattr(AdminClient, "create_deployment", lambda *_, **__: 1 / 0)
    asked = {"connection": "default", "uri": "http://127.0.0.1:1", "headers": f"x-api-key: {SECRET}"}
    request = rf.post(REGISTER, asked)
    request.user = user_with("view_invocation", "manage_deployments", name="manager")
    with pytest.raises(ZeroDivisionError) as caught:
        deploying.register(site.get_model_admin(Invocation), request)
    report = ExceptionReporter(request, caught.type, caught.value, caught.tb.tb_next)  # without this function
    for text in (report.get_traceback_text(), report.get_traceback_html()):
        assert "create_deployment" in text
        assert SECRET not in text


# ---------------------------------------------------------------- removing


def test_a_removal_says_what_is_lost_and_needs_force(empty, serve, operator):
    old = deployments.register("default", serve("first"))
    new = deployments.register("default", serve("second"), breaking=True)
    text = operator.get(removal_of(new.id)).content.decode()
    for words in ("Nobody serves then", "Shelf", "Falls back", old.id, "No open invocation needs it."):
        assert words in text
    asked = {"connection": "default", "deployment": new.id, "reason": "a mistake"}
    text = operator.post(REMOVE, asked).content.decode()
    assert "removes a deployment by force alone" in text
    assert "a mistake" in text
    assert sorted(known()) == sorted([old.id, new.id])
    assert "was not done" in LogEntry.objects.get().change_message
    response = operator.post(REMOVE, {**asked, "force": "on"}, follow=True)
    assert messages_of(response) == [("success", f"Removed {new.id}.")]
    assert known() == [old.id]
    entry = LogEntry.objects.order_by("-pk").first()
    assert (entry.action_flag, entry.change_message) == (DELETION, "Removed it by force. Reason: a mistake")
    assert entry.object_repr == f"deployment {new.id} of default"


def test_open_invocations_are_named_before_a_removal(empty, serve, operator):
    deployment = deployments.register("default", serve("first"))
    for _ in range(2):
        send("Desk", "nap", 600)

    def runs():
        return deployments.consequences("default", deployment.id).running == 2

    wait_for(runs, what="both to run")
    text = operator.get(removal_of(deployment.id)).content.decode()
    assert "2 have started on it" in text


def test_a_deployment_that_is_none_is_not_removed(empty, operator):
    for gone in ("dp_13stImv72zfl5MBYmh7FjxX", "../../services", ""):
        response = operator.get(removal_of(gone), follow=True)
        assert messages_of(response) == [("error", "Restate knows no such deployment (any more).")]
    response = operator.get(f"{REMOVE}?connection=other&deployment=dp_1", follow=True)
    assert messages_of(response)[0][0] == "error"


def test_nobody_knows_whether_it_was_removed(empty, operator, monkeypatch):
    def vanish(*_args, **_options):
        raise OutcomeUnknown("Nobody knows.")

    monkeypatch.setattr(deployments, "remove", vanish)
    response = operator.post(REMOVE, {"connection": "default", "deployment": "dp_1", "force": "on"}, follow=True)
    assert messages_of(response) == [("warning", "Nobody knows.")]
    assert LogEntry.objects.get().action_flag == CHANGE


# ---------------------------------------------------------------- who, and at what cost


@pytest.mark.parametrize("address", [REGISTER, REMOVE])
def test_a_post_from_elsewhere_is_refused(address, user_with):
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_with("view_invocation", "manage_deployments", name="manager"))
    assert client.post(address, {"connection": "default", "deployment": "dp_1", "force": "on"}).status_code == 403


def test_the_history_costs_the_same_with_any_log(viewer, user_with, rf, settings):
    settings.RESTATE = {"default": {"ADMIN_URL": None, "INGRESS_URL": "http://127.0.0.1:9"}}
    request = rf.get("/")
    request.user = user_with(name="someone")

    def cost():
        with CaptureQueriesContext(connection) as queries:
            viewer.get(SERVERS)
        return len(queries)

    few = cost()
    for number in range(30):
        deployment_history.write(request, ADDITION, "default", f"dp_{number}", "Registered it.")
    assert cost() <= few + 1
    assert len(deployment_history.latest()) == 10
    assert Invocation.objects.count() == 0
