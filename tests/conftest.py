"""Fixtures that all tests share: real Restate servers with the tests' handlers, and a real browser.

One server per session serves most tests; a test that kills, stops or wipes one makes its own with ``make_restate``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from django.test import TransactionTestCase

from restate_django.testing import SCOPES_ENV, HandlerServer, NoServerError, RestateServer
from tests import chromium, told
from tests.current_app import current_app_put_back
from tests.emptying import empty_tables_that_were_written_to
from tests.require import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from playwright.sync_api import Browser, ConsoleMessage, Page
    from pytest_django.fixtures import SettingsWrapper

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "example_project"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in four processes, for it mostly waits, and named tests in this one (or as ``-n`` says)."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # which runs this hook as well
    if is_worker or not config.pluginmanager.hasplugin("xdist") or config.option.dist != "no":
        return
    if config.option.numprocesses is None and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.option.numprocesses = 0 if config.option.usepdb else min(4, 2 * (os.cpu_count() or 1))
    if config.option.numprocesses:
        # A process that is done takes over another's tests: some take as long as five hundred others.
        config.option.dist = "worksteal"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what opens the suite's database, before ``-m`` chooses."""
    fixtures = {"db", "transactional_db", "django_db_setup", "live_server"}
    for item in items:
        cls = getattr(item, "cls", None)
        if (
            item.get_closest_marker("django_db")
            or (cls is not None and issubclass(cls, TransactionTestCase))
            or not fixtures.isdisjoint(getattr(item, "fixturenames", ()))
        ):
            item.add_marker("database")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Keep what a test told with its report."""
    if call.when == "call":
        item.user_properties += told.taken()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Hear what a test told, in this process or in another."""
    if report.when == "call":
        told.heard(report.user_properties)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the tables: which server has which operation, and what became of the rows of each fault."""
    found = told.tables()
    operations: dict[str, dict[str, str]] = {}
    for operation, server, answer in found.get("operations", []):
        operations.setdefault(operation, {})[server] = answer
    if operations:
        terminalreporter.section("operations of the client, by server")
        servers = sorted({server for row in operations.values() for server in row})
        rows = [[name, *(row.get(server, "") for server in servers)] for name, row in operations.items()]
        terminalreporter.write_line("\n".join(told.lines(["", *servers], rows)))
    if "faults" in found:
        terminalreporter.section("faults")
        heads = ["", "invocations", "once", "says why", "lost", "twice", "left open", "wrong"]
        terminalreporter.write_line("\n".join(told.lines(heads, found["faults"])))


@pytest.fixture(scope="session", autouse=True)
def _quick_emptying() -> None:
    """After a test with real transactions, empty only what it wrote to."""
    TransactionTestCase._fixture_teardown = empty_tables_that_were_written_to


@dataclasses.dataclass
class Running:
    """A Restate server that knows the handlers of ``tests/handlers.py``.

    Attributes:
        server: The server.
        handlers: The process that serves the handlers, None when the test wants none.
        ledger_file: Where ``Ledger.write`` notes what ran.
    """

    server: RestateServer
    handlers: HandlerServer | None
    ledger_file: Path

    @property
    def ingress_url(self) -> str:
        """The server's ingress."""
        return self.server.ingress_url

    @property
    def admin_url(self) -> str:
        """The server's Admin API."""
        return self.server.admin_url

    def ledger(self) -> list[dict[str, Any]]:
        """Return what ``Ledger.write`` noted: a dict with ``row`` and ``invocation_id`` for each time that it ran."""
        if not self.ledger_file.exists():
            return []
        return [json.loads(line) for line in self.ledger_file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def _start_restate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Running]:
    """Return the function that starts a server; whoever calls it stops it by the stack that it hands over."""

    def start(
        stack: ExitStack, version: str | None = None, env: Mapping[str, str] | None = None, *, handlers: bool = True
    ) -> Running:
        server = RestateServer(version, env=env)
        stack.callback(server.stop)
        try:
            server.start()
        except NoServerError as error:
            require(condition=False, reason=f"there is no Restate server: {error}")
        ledger_file = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
        if not handlers:
            return Running(server, None, ledger_file)
        app = HandlerServer("tests.handlers:app", cwd=ROOT, env={"LEDGER_FILE": str(ledger_file)})
        stack.callback(app.stop)
        app.start()
        app.register(server.admin_url)
        return Running(server, app, ledger_file)

    return start


@pytest.fixture(scope="session")
def restate_server(_start_restate: Callable[..., Running]) -> Iterator[Running]:
    """The session's server, with the tests' handlers."""
    with ExitStack() as stack:
        yield _start_restate(stack)


@pytest.fixture(scope="session")
def legacy_restate_server(_start_restate: Callable[..., Running]) -> Iterator[Running]:
    """The same on the last release before the paths under ``/restate/``."""
    with ExitStack() as stack:
        yield _start_restate(stack, "1.6.2")


@pytest.fixture(scope="session")
def scoped_restate_server(_start_restate: Callable[..., Running]) -> Iterator[Running]:
    """The same with scopes, limit keys and scoped objects."""
    with ExitStack() as stack:
        yield _start_restate(stack, None, SCOPES_ENV)


@pytest.fixture(scope="session")
def typed_restate_server(_start_restate: Callable[..., Running]) -> Iterator[Running]:
    """A server with the handlers of ``tests/typed_handlers.py``, which have JSON schemas, in place of the others."""
    with ExitStack() as stack:
        running = _start_restate(stack, handlers=False)
        handlers = stack.enter_context(HandlerServer("tests.typed_handlers:app", cwd=ROOT))
        handlers.register(running.admin_url)
        yield dataclasses.replace(running, handlers=handlers)


@pytest.fixture
def make_restate(_start_restate: Callable[..., Running]) -> Iterator[Callable[..., Running]]:
    """A function that starts a server of the test's own, which it may kill, stop and wipe.

    Its arguments: ``version=None, env=None, handlers=True``.
    """
    with ExitStack() as stack:

        def make(version: str | None = None, env: Mapping[str, str] | None = None, *, handlers: bool = True) -> Running:
            return _start_restate(stack, version, env, handlers=handlers)

        yield make


@pytest.fixture
def restate(restate_server: Running, settings: SettingsWrapper) -> Running:
    """The session's server, with ``settings.RESTATE`` pointing at it."""
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": restate_server.ingress_url,
            "ADMIN_URL": restate_server.admin_url,
            # A test waits for what a person would wait for, ten times as often.
            "POLL_MIN_INTERVAL": 0.1,
        },
    }
    return restate_server


@pytest.fixture
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not noted any run of a job yet: one that has, keeps the next ones to itself for a while."""
    from restate_django import jobs

    monkeypatch.setattr(jobs, "_notes", jobs._Notes())


@pytest.fixture
def make_celery_app() -> Iterator[Callable[..., Celery]]:
    """A function that makes a Celery app the project's, with this configuration, until the end of the test."""
    made: list[Celery] = []

    def make(**conf: Any) -> Celery:
        app = Celery("mysite", broker="memory://")
        app.conf.update(conf)
        made.append(app)
        return app

    with current_app_put_back():
        yield make
    for app in made:
        app.close()


# ---------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the machine's own, else the one that Playwright brought.

    A module's, not the session's: while it lives, an event loop runs in this thread, which tests of other modules
    would trip over.
    """
    require(importlib.util.find_spec("playwright"), "playwright is not installed")
    from playwright import sync_api

    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    with sync_api.sync_playwright() as playwright:
        program = chromium.installed() or playwright.chromium.executable_path
        require(Path(program).exists(), "there is no Chromium on this machine")
        launched = playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        # Playwright's synchronous API keeps an event loop running in this thread, and Django then takes every query
        # for one made inside a coroutine. None is: the tests and their queries are plain functions.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        try:
            yield launched
        finally:
            launched.close()
            os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE")
            if before is not None:
                os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh session of the browser; what its scripts get wrong fails the test."""
    errors: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))

    def heard(message: ConsoleMessage) -> None:
        # The sites have no icon, and a browser's own wish for one is no error of the page's.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            errors.append(message.text)

    page.on("console", heard)
    yield page
    context.close()
    assert errors == [], "the page's console shows errors"
