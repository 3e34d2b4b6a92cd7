"""Deployments are looked at first, then registered and removed: by the real server, in both lines."""

from __future__ import annotations

import http.server
import json
import threading
from datetime import timedelta

import pytest

from restate_django import deployments, send
from restate_django.client import AdminClient
from restate_django.connections import connections
from restate_django.exceptions import InvalidRequest, OperationRefused, OutcomeUnknown
from restate_django.testing import HandlerServer
from tests.conftest import ROOT
from tests.wait import wait_for

# Transactions of their own: registering refuses to run inside one.
pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "hunter2-never-shown"


@pytest.fixture(params=[None, "1.6.2"], ids=["newest", "1.6"])
def server(request, make_restate, settings):
    """A server that knows no handlers yet, with ``settings.RESTATE`` pointing at it."""
    running = make_restate(request.param, handlers=False)
    settings.RESTATE = {"default": {"INGRESS_URL": running.ingress_url, "ADMIN_URL": running.admin_url}}
    return running


@pytest.fixture
def serve():
    """A function that serves one of the apps of ``tests/versions.py``."""
    started = []

    def start(app, port=None):
        started.append(HandlerServer(f"tests.versions:{app}", cwd=ROOT, port=port).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


def registered():
    return {each.id: each for each in connections["default"].admin.list_deployments()}


def test_a_check_tells_what_is_new_and_changes_nothing(server, serve):
    plan = deployments.check("default", serve("first").url)
    assert [(change.name, change.before, change.added) for change in plan.changes] == [
        ("Desk", None, ["greet", "nap"]),
    ]
    assert plan.found.sdk_version.startswith("restate-sdk-python/")
    assert plan.replaces is None
    assert not plan.does_nothing
    assert registered() == {}


def test_what_was_checked_is_registered_and_what_is_removed_falls_back(server, serve):
    first = deployments.register("default", serve("first").url, headers={"x-api-key": SECRET})
    assert registered()[first.id].header_names == ("x-api-key",)
    second_url = serve("second").url
    plan = deployments.check("default", second_url, breaking=True)
    desk, shelf = plan.changes
    assert (desk.added, desk.removed, desk.altered, desk.kind_changes) == ([], ["nap"], ["greet"], False)
    assert (shelf.before, shelf.added) == (None, ["put"])
    second = deployments.register("default", second_url, breaking=True)
    assert dict(registered()[second.id].revisions) == {"Desk": 2, "Shelf": 1}

    told = deployments.consequences("default", second.id)
    assert [(loss.name, loss.is_latest, loss.ends) for loss in told.losses] == [
        ("Desk", True, False),
        ("Shelf", True, True),
    ]
    assert told.losses[0].falls_back_to.id == first.id
    old = deployments.consequences("default", first.id)
    assert [(loss.is_latest, loss.ends) for loss in old.losses] == [(False, False)]

    with pytest.raises(OperationRefused, match="by force alone"):
        deployments.remove("default", second.id)
    assert second.id in registered()
    deployments.remove("default", second.id, force=True)
    services = {each.name: each.deployment_id for each in connections["default"].admin.list_services()}
    assert services == {"Desk": first.id}


def test_open_invocations_are_counted(server, serve):
    deployment = deployments.register("default", serve("first").url)
    send("Desk", "nap", 600)
    send("Desk", "nap", 600, delay=timedelta(hours=1))

    def seen():
        told = deployments.consequences("default", deployment.id)
        return (told.running, told.waiting) == (1, 1)

    wait_for(seen, what="one to run and one to wait")


def test_an_address_that_is_registered_is_asked_again_only_by_force(server, serve):
    handlers = serve("second")
    deployment = deployments.register("default", handlers.url)
    handlers.stop()
    handlers = serve("first", port=handlers.port)
    plan = deployments.check("default", handlers.url)
    assert plan.does_nothing
    assert plan.replaces.id == deployment.id
    plan = deployments.check("default", handlers.url, force=True)
    assert not plan.does_nothing
    assert plan.running == 0
    assert [(change.name, change.added, change.after is None) for change in plan.changes] == [
        ("Desk", ["nap"], False),
        ("Shelf", [], True),
    ]
    assert plan.changes[1].falls_back_to is None
    again = deployments.register("default", handlers.url, force=True)
    assert again.id == deployment.id
    assert registered()[again.id].services == ("Desk",)
    assert [each.name for each in connections["default"].admin.list_services()] == ["Desk"]


def test_a_service_that_becomes_an_object_is_refused_and_can_be_forced(server, serve):
    deployments.register("default", serve("first").url)
    other = serve("as_object").url
    for verb in (deployments.check, deployments.register):
        with pytest.raises(OperationRefused, match="do not fit those that are registered") as caught:
            verb("default", other)
        assert caught.value.status == 409
        assert "META" not in caught.value.reason
    assert deployments.check("default", other, breaking=True).changes[0].kind_changes


def test_this_process_asks_about_a_changed_service_anew(server, serve):
    deployments.register("default", serve("first").url)
    services = connections["default"].services
    assert services.get("Desk").ty == "Service"
    deployment = deployments.register("default", serve("as_object").url, breaking=True)
    assert services.get("Desk").ty == "VirtualObject"
    deployments.remove("default", deployment.id, force=True)
    assert services.get("Desk").ty == "Service"


@pytest.fixture
def parrot():
    """A server that is no handlers' and says back what it was sent."""

    class Parrot(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"echo": dict(self.headers)}).encode()
            self.send_response(404 if "404" in self.path else 200)
            kind = "application/json" if "json" in self.path else "application/vnd.restate.endpointmanifest.v3+json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Said", self.headers["X-Api-Key"])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as peer:
        threading.Thread(target=peer.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{peer.server_port}"
        peer.shutdown()


@pytest.mark.parametrize("path", ["/404", "/json", "/manifest"])
def test_what_an_address_answered_is_not_shown(server, parrot, path, caplog):
    """It may be the token that it was sent, or what only the Restate server can read."""
    for verb in (deployments.check, deployments.register):
        with pytest.raises(Exception, match=r"served there|did not tell|Nobody knows") as caught:
            verb("default", parrot + path, headers={"x-api-key": SECRET}, use_http_11=True)
        assert SECRET not in str(caught.value)
        assert "echo" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    assert SECRET not in caplog.text
    assert registered() == {}


def test_an_address_that_nobody_serves(server):
    with pytest.raises(OperationRefused, match="Restate can't reach it"):
        deployments.check("default", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "uri",
    ["ftp://host", "file:///etc/passwd", "http://", "http://user:pass@host", "http://host/?a=b", "http://host/#a",
     "http://ho st", "http://host\r\nx: y", "javascript:alert(1)", "http://host:99999", "http://bücher.example",
     "http://host/" + "a" * 2000, ""],
)  # fmt: skip
def test_an_address_that_could_never_be_one_is_not_sent(settings, uri):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:1"}}
    for verb in (deployments.check, deployments.register):
        with pytest.raises(InvalidRequest, match="The address") as caught:
            verb("default", uri)
        assert "pass@" not in str(caught.value)


def test_a_header_that_can_not_be_sent_is_refused_without_its_value(settings):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:1"}}
    for name, value in (("x key", SECRET), ("x-key", f"{SECRET}\r\n"), ("content-length", SECRET)):
        with pytest.raises(InvalidRequest) as caught:
            deployments.register("default", "http://127.0.0.1:1", headers={name: value})
        assert SECRET not in str(caught.value)


def test_a_deployment_that_is_none(server):
    for gone in ("dp_13stImv72zfl5MBYmh7FjxX", "../services", ""):
        with pytest.raises(OperationRefused, match="knows no such deployment"):
            deployments.consequences("default", gone)
        with pytest.raises(OperationRefused, match="knows no such deployment"):
            deployments.remove("default", gone, force=True)


def test_without_an_admin_api_it_says_which_setting_is_missing(settings):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    with pytest.raises(OperationRefused, match="ADMIN_URL"):
        deployments.check("default", "http://127.0.0.1:1")
    with pytest.raises(OperationRefused, match="other"):
        deployments.remove("other", "dp_1", force=True)


def test_a_server_that_is_away(settings):
    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:1"}}
    with pytest.raises(OperationRefused, match="can't be reached now"):
        deployments.register("default", "http://127.0.0.1:2")
    with pytest.raises(OperationRefused, match="can't be reached now"):
        deployments.remove("default", "dp_1", force=True)


def test_a_removal_that_was_cut_off_is_told_from_one_that_never_began(server, serve, monkeypatch):
    deployment = deployments.register("default", serve("first").url)

    def cut_off(*_args, **_options):
        raise OutcomeUnknown("The connection broke.")

    with monkeypatch.context() as broken:
        broken.setattr(AdminClient, "get_deployment", cut_off)
        with pytest.raises(OperationRefused, match="The connection broke"):
            deployments.remove("default", deployment.id, force=True)
    monkeypatch.setattr(AdminClient, "delete_deployment", cut_off)
    with pytest.raises(OutcomeUnknown, match="Nobody knows whether it was removed"):
        deployments.remove("default", deployment.id, force=True)


def test_a_transaction_is_no_place_for_it(settings):
    from django.db import transaction

    settings.RESTATE = {"default": {"ADMIN_URL": "http://127.0.0.1:1"}}
    with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
        deployments.register("default", "http://127.0.0.1:2")
