"""``connections``: one per alias and process, and what it knows of the server behind it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from django.test import override_settings

from restate_django import service_info
from restate_django.conf import ConnectionDoesNotExist
from restate_django.connections import Connection, connections
from restate_django.exceptions import NotSupported, OutcomeUnknown, Unavailable
from tests.client.wire import WireServer, answer, hang_up, response
from tests.require import require

DAY = timedelta(days=1)


# ---------------------------------------------------------------- an Admin API that counts, breaks and heals


class Admin:
    """An Admin API of the tests' own: it answers as told, and notes what it was asked."""

    def __init__(self):
        self.asked: list[str] = []
        self.answers: dict[str, object] = {"/version": self.version("1.7.12")}
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()
        admin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                admin.asked.append(self.path)
                admin.gate.wait(10)
                status, answer = 200, admin.answers.get(self.path)
                if admin.broken:
                    status, answer = 503, {"message": "broken"}
                elif answer is None:
                    status, answer = 404, {"message": "does not exist", "restate_code": None}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @staticmethod
    def version(version: str) -> dict[str, object]:
        return {"version": version, "min_admin_api_version": 2, "max_admin_api_version": 4, "ingress_endpoint": None}

    def service(self, name: str, ty: str = "Service", *, handlers: dict[str, dict] | None = None, **fields) -> None:
        """Tell of a service, in the shape that 1.7.12 answers with."""
        self.answers[f"/services/{name}"] = {
            "name": name,
            "ty": ty,
            "handlers": [
                {"name": handler, "public": True, "input_description": "none", "output_description": "none", **more}
                for handler, more in (handlers or {"greet": {}}).items()
            ],
            "deployment_id": "dp_15DyBID0kgHe6CS3TFOvWZb",
            "revision": 1,
            "public": True,
            "idempotency_retention": "1d",
            "journal_retention": "1d",
            **fields,
        }

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def admin(settings):
    """An Admin API, and a connection ``default`` that uses it."""
    admin = Admin()
    settings.RESTATE = {"default": {"ADMIN_URL": admin.url, "TIMEOUT": 5, "LEASE": 15}}
    yield admin
    connections.close_all()
    admin.stop()


@pytest.fixture
def clock(monkeypatch):
    """The clock by which answers grow old, in the test's hands."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(service_info, "monotonic", lambda: clock.now)
    return clock


# ---------------------------------------------------------------- the handler


def test_an_alias_has_one_connection_that_makes_no_request_when_it_is_made(settings):
    settings.RESTATE = {"default": {}, "cloud": {"INGRESS_URL": "https://cloud.example.com", "TOKEN": "t"}}
    assert connections["default"] is connections["default"]
    assert connections["cloud"].settings.ingress_url == "https://cloud.example.com"
    assert list(connections) == ["default", "cloud"]
    assert [connection.alias for connection in connections.all()] == ["default", "cloud"]
    assert "cloud" in connections
    assert "clowd" not in connections
    assert repr(connections["cloud"]) == "<Connection 'cloud': https://cloud.example.com>"


def test_an_alias_that_is_not_there():
    with pytest.raises(ConnectionDoesNotExist, match="RESTATE has no connection 'nope'"):
        _ = connections["nope"]


def test_another_setting_makes_another_connection_and_closes_the_one_before(admin, monkeypatch):
    before = connections["default"]
    assert before.path_style == "restate"
    closed = []
    monkeypatch.setattr(Connection, "close", lambda self: closed.append(self))  # noqa: PLW0108 - append binds no self
    with override_settings(RESTATE={"default": {"ADMIN_URL": None}}):
        assert closed == [before]
        within = connections["default"]
        assert within is not before
        assert within.admin is None
    assert closed == [before, within]
    assert connections["default"].settings.admin_url == admin.url
    monkeypatch.undo()
    before.close()


def test_other_settings_leave_the_connections_alone(settings):
    before = connections["default"]
    settings.DEBUG = True
    assert connections["default"] is before


def test_the_clients_get_what_the_settings_say(settings, tmp_path, monkeypatch):
    made = []

    def client(kind):
        return lambda *args, **kwargs: made.append((kind, args, kwargs)) or SimpleNamespace(close=lambda: None)

    monkeypatch.setattr("restate_django.connections.AdminClient", client("admin"))
    monkeypatch.setattr("restate_django.connections.IngressClient", client("ingress"))
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": "https://h/in",
            "ADMIN_URL": "https://h/admin",
            "TOKEN": "t",
            "HEADERS": {"X-A": "b"},
            "TIMEOUT": 3,
            "CONNECT_TIMEOUT": 2,
            "TRUST_ENV": True,
            "CA_BUNDLE": str(tmp_path / "ca.pem"),
            "PATH_STYLE": "legacy",
        }
    }
    _ = connections["default"].ingress
    same = {"headers": {"X-A": "b"}, "timeout": 3.0, "connect_timeout": 2.0, "trust_env": True, "retries": 1}
    same["ca_bundle"] = str(tmp_path / "ca.pem")
    assert made == [
        ("admin", ("https://h/admin", "t"), same),
        ("ingress", ("https://h/in", "t"), {**same, "path_style": "legacy"}),
    ]


def test_a_read_that_broke_is_tried_again_and_a_change_is_not(settings):
    """A request that Restate may have carried out is never repeated behind a person's back."""
    rows = response(200, b'{"rows":[]}', content_type="application/json")
    with WireServer(hang_up, answer(rows)) as wire:
        settings.RESTATE = {"default": {"ADMIN_URL": wire.url}}
        assert connections["default"].admin.query("SELECT 1") == []
        assert len(wire.requests) == 2
    with WireServer(hang_up) as wire:
        settings.RESTATE = {"default": {"ADMIN_URL": wire.url}}
        with pytest.raises(OutcomeUnknown):
            connections["default"].admin.restart_as_new_invocation("inv_1")
        assert len(wire.requests) == 1


def test_a_closed_connection_works_again(admin):
    connection = connections["default"]
    assert connection.admin.version().version == "1.7.12"
    connections.close_all()
    assert connection.admin.version().version == "1.7.12"


def test_without_an_admin_api_there_is_none_and_what_needs_it_says_so(settings):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    connection = connections["default"]
    assert connection.admin is None
    with pytest.raises(NotSupported, match=r'cancel needs the Admin API: set RESTATE\["default"\]\["ADMIN_URL"\]'):
        connection.require_admin("cancel")


def test_with_one_it_is_what_is_returned(admin):
    assert connections["default"].require_admin("cancel") is connections["default"].admin


# ---------------------------------------------------------------- the style of the paths


@pytest.mark.parametrize("style", ["restate", "legacy"])
def test_a_style_that_is_set_is_not_asked_for(admin, settings, style):
    settings.RESTATE = {"default": {"ADMIN_URL": admin.url, "PATH_STYLE": style}}
    assert connections["default"].path_style == style
    assert connections["default"].ingress is connections["default"].ingress
    assert admin.asked == []


@pytest.mark.parametrize(
    ("version", "style"), [("1.6.2", "legacy"), ("1.7.0", "restate"), ("1.7.12", "restate"), ("2.0.0", "restate")]
)
def test_auto_asks_the_server_for_its_version_once(admin, version, style):
    admin.answers["/version"] = admin.version(version)
    connection = connections["default"]
    assert connection.path_style == style
    assert connection.ingress is connection.ingress
    assert admin.asked == ["/version"]


def test_auto_without_an_admin_api_takes_the_paths_of_today(settings):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    assert connections["default"].path_style == "restate"


def test_an_upgraded_server_is_noticed(admin, clock):
    admin.answers["/version"] = admin.version("1.6.2")
    connection = connections["default"]
    legacy = connection.ingress
    assert connection.path_style == "legacy"
    admin.answers["/version"] = admin.version("1.7.12")
    clock.now += service_info.KEPT_FOR - 1
    assert connection.ingress is legacy
    clock.now += 1
    assert connection.path_style == "restate"
    assert connection.ingress is not legacy
    assert admin.asked == ["/version"] * 2


def test_a_server_that_does_not_tell_is_asked_again_in_ten_seconds(admin, clock, caplog):
    admin.broken = True
    admin.answers["/version"] = admin.version("1.6.2")
    connection = connections["default"]
    with caplog.at_level(logging.WARNING, "restate_django.connections"):
        assert [connection.path_style for _ in range(5)] == ["restate"] * 5
    assert admin.asked == ["/version"] * 2  # a read is tried once more at once
    (record,) = caplog.records
    assert "Restate connection 'default' did not tell its version" in record.getMessage()
    admin.broken = False
    clock.now += service_info.LEFT_ALONE_FOR - 0.1
    assert connection.path_style == "restate"
    clock.now += 0.1
    assert connection.path_style == "legacy"


def test_the_last_known_style_holds_while_the_server_does_not_tell(admin, clock):
    admin.answers["/version"] = admin.version("1.6.2")
    connection = connections["default"]
    assert connection.path_style == "legacy"
    admin.broken = True
    clock.now += service_info.KEPT_FOR + 1
    assert [connection.path_style for _ in range(3)] == ["legacy"] * 3
    assert admin.asked == ["/version"] * 3


# ---------------------------------------------------------------- what is known of services


def test_a_service_is_asked_for_once_in_five_minutes(admin, clock):
    admin.service("Greeter")
    services = connections["default"].services
    assert services.get("Greeter").name == "Greeter"
    clock.now += service_info.KEPT_FOR - 1
    assert services.get("Greeter").ty == "Service"
    assert admin.asked == ["/services/Greeter"]
    clock.now += 1
    assert services.get("Greeter").name == "Greeter"
    assert admin.asked == ["/services/Greeter"] * 2


def test_an_unknown_service_is_asked_for_again_in_ten_seconds(admin, clock):
    services = connections["default"].services
    assert [services.get("Late") for _ in range(3)] == [None] * 3
    assert admin.asked == ["/services/Late"]
    admin.service("Late")
    clock.now += service_info.ABSENT_FOR
    assert services.get("Late").name == "Late"


def test_an_admin_api_that_fails_is_left_alone_for_every_service(admin, clock, caplog):
    admin.broken = True
    services = connections["default"].services
    with caplog.at_level(logging.WARNING, "restate_django.connections"):
        assert [services.get(f"S{number}") for number in range(50)] == [None] * 50
        assert connections["default"].path_style == "restate"
    assert admin.asked == ["/services/S0"] * 2
    assert len(caplog.records) == 1
    admin.broken = False
    admin.service("S1")
    clock.now += service_info.LEFT_ALONE_FOR
    assert services.get("S1").name == "S1"


def test_an_admin_api_that_is_not_there_raises_nothing(admin, settings):
    admin.stop()
    settings.RESTATE = {"default": {"ADMIN_URL": admin.url}}
    services = connections["default"].services
    assert services.get("Greeter") is None
    assert services.is_workflow_main("Greeter", "greet") is None
    assert services.idempotency_retention("Greeter", "greet") == DAY


def test_without_network_only_memory_is_looked_into(admin):
    admin.service("Signup", "Workflow", handlers={"run": {"ty": "Workflow"}}, workflow_completion_retention="2d")
    services = connections["default"].services
    assert services.get("Signup", network=False) is None
    assert services.is_workflow_main("Signup", "run", network=False) is None
    assert services.idempotency_retention("Signup", "run", network=False) == DAY
    assert admin.asked == []
    services.get("Signup")
    assert services.is_workflow_main("Signup", "run", network=False) is True
    assert services.idempotency_retention("Signup", "run", network=False) == 2 * DAY
    assert admin.asked == ["/services/Signup"]


def test_what_is_kept_has_a_bound_and_the_oldest_goes_first(admin, monkeypatch):
    monkeypatch.setattr(service_info, "MOST_KEPT", 3)
    services = connections["default"].services
    for name in "ABCD":
        admin.service(name)
        services.get(name)
        services.remember_workflow_main("W", name)
    del admin.asked[:]
    for name in "DCB":
        assert services.get(name, network=False) is not None
        assert services.is_workflow_main("W", name, network=False) is True
    assert services.get("A", network=False) is None
    assert services.is_workflow_main("W", "A", network=False) is None


def test_threads_that_want_the_same_wait_for_one_request(admin):
    admin.service("Greeter")
    admin.gate.clear()
    services = connections["default"].services
    with ThreadPoolExecutor(8) as pool:
        wanted = [pool.submit(services.get, "Greeter") for _ in range(8)]
        admin.gate.set()
        assert [future.result(10).name for future in wanted] == ["Greeter"] * 8
    assert admin.asked == ["/services/Greeter"]


# ---------------------------------------------------------------- main handlers of workflows


def test_the_admin_api_tells_a_main_handler_from_the_others(admin):
    admin.service("Signup", "Workflow", handlers={"run": {"ty": "Workflow"}, "status": {"ty": "Shared"}})
    admin.service("Cart", "VirtualObject", handlers={"run": {"ty": "Exclusive"}})
    admin.service("Greeter", handlers={"run": {}})
    services = connections["default"].services
    assert services.is_workflow_main("Signup", "run") is True
    assert services.is_workflow_main("Signup", "status") is False
    assert services.is_workflow_main("Signup", "new") is None  # a deployment that has it may be about to register
    assert services.is_workflow_main("Cart", "run") is False
    assert services.is_workflow_main("Greeter", "run") is False
    assert services.is_workflow_main("Nope", "run") is None


def test_what_the_ingress_taught_holds_for_five_minutes(settings, clock):
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    services = connections["default"].services
    assert services.is_workflow_main("Signup", "run") is None
    services.remember_workflow_main("Signup", "run")
    assert services.is_workflow_main("Signup", "run") is True
    assert services.is_workflow_main("Signup", "status") is None
    clock.now += service_info.KEPT_FOR
    # Another deployment may have made something else of the name: a request without a key could run twice.
    assert services.is_workflow_main("Signup", "run") is None


def test_what_the_ingress_taught_wins_over_what_the_admin_api_said_before(admin):
    admin.service("Signup", handlers={"run": {}})
    services = connections["default"].services
    assert services.is_workflow_main("Signup", "run") is False
    admin.service("Signup", "Workflow", handlers={"run": {"ty": "Workflow"}}, workflow_completion_retention="3d")
    services.remember_workflow_main("Signup", "run")
    assert services.is_workflow_main("Signup", "run") is True
    assert services.idempotency_retention("Signup", "run") == 3 * DAY


# ---------------------------------------------------------------- how long keys are remembered


def test_the_retention_is_the_handlers_else_the_services(admin):
    handlers = {"greet": {}, "brief": {"idempotency_retention": "4s"}, "never": {"idempotency_retention": "0s"}}
    admin.service("Greeter", handlers=handlers, idempotency_retention="2h")
    services = connections["default"].services
    assert services.idempotency_retention("Greeter", "greet") == timedelta(hours=2)
    assert services.idempotency_retention("Greeter", "brief") == timedelta(seconds=4)
    assert services.idempotency_retention("Greeter", "never") == timedelta(0)


def test_a_workflows_main_handler_has_a_retention_of_its_own(admin):
    handlers = {"run": {"ty": "Workflow"}, "status": {"ty": "Shared"}}
    admin.service(
        "Signup", "Workflow", handlers=handlers, idempotency_retention="1h", workflow_completion_retention="7d"
    )
    services = connections["default"].services
    assert services.idempotency_retention("Signup", "run") == 7 * DAY
    assert services.idempotency_retention("Signup", "status") == timedelta(hours=1)


@pytest.mark.parametrize("hours", [0, 2, 48])
def test_where_the_server_cant_be_asked_the_setting_holds(settings, hours):
    settings.RESTATE = {"default": {"ADMIN_URL": None, "IDEMPOTENCY_RETENTION": timedelta(hours=hours)}}
    assert connections["default"].services.idempotency_retention("Greeter", "greet") == timedelta(hours=hours)


@pytest.mark.parametrize(("told", "expected"), [("4s", timedelta(seconds=4)), ("0s", timedelta(0)), ("9d", DAY)])
def test_where_it_cant_be_asked_any_more_the_shorter_of_the_two_holds(admin, clock, told, expected):
    admin.service("Greeter", idempotency_retention=told)
    services = connections["default"].services
    services.get("Greeter")
    admin.broken = True
    clock.now += service_info.KEPT_FOR
    assert services.get("Greeter") is None
    assert services.idempotency_retention("Greeter", "greet") == expected


# ---------------------------------------------------------------- processes


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12; meant here
def test_a_forked_child_waits_for_no_thread_of_its_parent(admin):
    require(hasattr(os, "fork"), "this system has no fork")
    admin.service("Greeter")
    connection = connections["default"]
    assert connection.path_style == "restate"
    locks = [connections._lock, connection._lock, connection._answers._lock, connection.services._lock]
    for lock in locks:
        lock.acquire()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a child that waits for ever ends too, and the parent reads nothing
        try:
            told = connections["default"].services.get("Greeter")
            connections["default"].services.remember_workflow_main("Greeter", "greet")
            _ = connections["default"].ingress
            os.write(writer, told.name.encode())
        finally:
            os._exit(0)
    for lock in locks:
        lock.release()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"Greeter"
    assert os.waitpid(pid, 0) == (pid, 0)
    # The parent goes on with the connection that it had.
    assert connections["default"] is connection
    assert connection.services.get("Greeter").name == "Greeter"


# ---------------------------------------------------------------- real servers


def test_on_a_real_server(restate):
    connection = connections["default"]
    assert connection.path_style == "restate"
    assert "Greeter" in connection.ingress.health()
    services = connection.services
    assert services.is_workflow_main("Signup", "run") is True
    assert services.is_workflow_main("Signup", "status") is False
    assert services.is_workflow_main("Counter", "add") is False
    assert services.is_workflow_main("Nope", "run") is None
    assert services.idempotency_retention("Greeter", "greet") == DAY
    assert services.idempotency_retention("Signup", "run") == DAY
    assert services.idempotency_retention("Brief", "greet") == timedelta(seconds=2)
    assert services.idempotency_retention("Forgetful", "greet") == timedelta(0)


def test_on_a_real_server_of_before(legacy_restate_server, settings):
    urls = {"INGRESS_URL": legacy_restate_server.ingress_url, "ADMIN_URL": legacy_restate_server.admin_url}
    settings.RESTATE = {"default": urls}
    connection = connections["default"]
    assert connection.path_style == "legacy"
    assert "Greeter" in connection.ingress.health()
    assert connection.services.is_workflow_main("Signup", "run") is True
    assert connection.services.idempotency_retention("Brief", "greet") == timedelta(seconds=2)


def test_a_wrong_guess_of_the_paths_is_told_as_a_wrong_setting(legacy_restate_server, settings):
    """Without an Admin API the guess is wrong for a server of before: nothing may run, and nothing be believed."""
    settings.RESTATE = {"default": {"INGRESS_URL": legacy_restate_server.ingress_url, "ADMIN_URL": None}}
    ingress = connections["default"].ingress
    with pytest.raises(Unavailable):
        ingress.send("Greeter", "greet", {"name": "Mary"})
    with pytest.raises(Unavailable):
        ingress.output("inv_1cu22QEP0BX52AaerLxQFN790q0adcQD7J")
