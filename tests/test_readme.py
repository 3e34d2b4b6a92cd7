"""The README is held to the code: every block of it is run, every name and link of it is looked up.

A block is run by what its fence says: its language, and a title that tells what it is (``title="settings.py"``). One
that nothing here can run fails, so a new kind of block needs a runner first. Blocks of one section share their names,
as a reader would type them one after the other. In a Python block, ``expression  # -> value`` is checked, and so is
``print(...)  # text``.
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import os
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
import types
import unittest
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import transaction
from django.db.utils import ConnectionHandler
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory

import folder_broker
import restate_django
from restate_django import checks, exceptions, gauges, lifecycle, measuring, send
from restate_django.conf import all_settings
from restate_django.connections import connections
from restate_django.management.subcommands import SUBCOMMANDS
from restate_django.models import Invocation
from restate_django.polling import refresh
from restate_django.testing import Answers, FakeRestate, HandlerServer
from restate_django.testing.process import ChildProcess, free_port
from tests.conftest import ROOT
from tests.models import Order
from tests.readme_settings import replaced
from tests.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SHOP = ROOT / "example_project"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

COMMANDS = [
    "pip install -e '.[demo]' && python example_project/manage.py demo",
    "pip install -e '.[test]' && pytest",
]
#: What the section "Add it to your project" and the one about Celery have in common: files of one project.
PROJECT_FILES = re.compile(r"mysite/\w+\.py|mysite/templates/\w+\.html|services\.py|register")
#: What runs a block that names a file, by its language and the file's folder. A browser's is run by test_asgi.
FOLDERS = {
    ("python", "pages"): "page",
    ("html", "pages"): "page",
    ("js", "pages"): "browser",
    ("python", "handlers"): "handlers",
    ("python", "shop"): "snippet",
}
#: The lines that the project's test runs, each found by how it begins.
PROJECT_COMMANDS = ("python manage.py migrate", "python manage.py restate_relay", "hypercorn ", "celery ")
#: Those that need an app more than the tests have: test_beat runs the command.
ELSEWHERE = ("python manage.py restate beat",)

#: Files of tests, and what runs them.
TESTS = {"tests.py": "tests", "test_greetings.py": "pytest", "pyproject.toml": "pytest"}


# ---------------------------------------------------------------- the README, taken apart


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        section: The heading that it stands under.
        line: Where it begins.
        language: The first word of its fence.
        title: What its fence says it is; empty for a bare one.
        code: Its text.
    """

    section: str
    line: int
    language: str
    title: str
    code: str

    @property
    def kind(self) -> str:
        """What runs it: the name of a runner, ``"unknown"`` where there is none."""
        match self.language, TESTS.get(self.title, self.title):
            case "", "":
                return "command"
            case "shell", "":
                return "shell"
            case "text", "exceptions":
                return "exceptions"
            case "python" | "html", title if PROJECT_FILES.fullmatch(title):
                return "project"
            case "python", "settings.py":
                return "settings"
            case "python", "script.py":
                return "script"
            case _, ("tests" | "pytest") as kind:
                return kind
            case "python", "" | "two connections":
                return "snippet"
            case language, title:
                return FOLDERS.get((language, title.partition("/")[0]), "unknown")

    def __str__(self) -> str:
        return f"README.md:{self.line}"


def _take_apart(text: str) -> tuple[list[Block], list[str]]:
    """Return the blocks of a text and its headings."""
    blocks: list[Block] = []
    headings: list[str] = []
    fence: re.Match[str] | None = None
    body: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if fence is not None:
            if line.strip() == "```":
                indent = len(fence["indent"])
                code = "\n".join(each[indent:] for each in body)
                blocks.append(Block(headings[-1], start, fence["language"], fence["title"] or "", code))
                fence = None
            else:
                body.append(line)
        elif found := re.fullmatch(r'(?P<indent> *)```(?P<language>\S*)(?: title="(?P<title>[^"]*)")?', line):
            fence, body, start = found, [], number
        elif line.lstrip().startswith("```"):
            raise AssertionError(f"README.md:{number} has a fence that is not understood: {line}")
        elif line.startswith("#"):
            headings.append(line.lstrip("#").strip())
    assert fence is None, "the last block of the README does not end"
    return blocks, headings


BLOCKS, HEADINGS = _take_apart(TEXT)
#: The text without its blocks: what links, tables and names are looked up in.
PROSE = re.sub(r"(?ms)^ *```.*?^ *```$", "", TEXT)


def blocks(*kinds: str, section: str | None = None) -> list[Block]:
    """Return the blocks that these runners run."""
    return [block for block in BLOCKS if block.kind in kinds and section in {None, block.section}]


def sections(*kinds: str) -> list[str]:
    """Return the headings above such blocks, each once."""
    return list(dict.fromkeys(block.section for block in blocks(*kinds)))


def shell_lines() -> list[str]:
    """Return the lines of all shell blocks."""
    return [line for block in blocks("shell") for line in block.code.splitlines()]


def table(section: str, first: str = "") -> list[list[str]]:
    """Return the cells of a section's table, without its head.

    Args:
        section: The heading it stands under.
        first: How the head's first cell begins, where the section has several tables.
    """
    part = re.search(rf"(?ms)^## {re.escape(section)}$(.*?)(?=^## |\Z)", PROSE)
    assert part, f"the README has no section {section!r}"
    for found in re.findall(r"(?m)(?:^ *\|.*\n)+", part[1]):
        lines = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in found.splitlines()]
        if lines[0][0].startswith(first):
            return lines[2:]
    raise AssertionError(f"the section {section!r} has no table that begins with {first!r}")


def code_in(cell: str) -> list[str]:
    """Return what is written as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# ---------------------------------------------------------------- a server with the shop's handlers


@pytest.fixture(scope="module")
def shop(_start_restate, tmp_path_factory) -> Iterator[dict[str, str]]:
    """A Restate server with the handlers that the README speaks of. Gives what its addresses stand for here."""
    with ExitStack() as stack:
        server = _start_restate(stack, handlers=False).server
        books = str(tmp_path_factory.mktemp("books"))
        handlers = stack.enter_context(HandlerServer("services.app:app", cwd=SHOP, env={"SHOP_BOOKS": books}))
        handlers.register(server.admin_url)
        yield {
            "http://localhost:8080": server.ingress_url,
            "http://localhost:9070": server.admin_url,
            "http://localhost:9080": handlers.url,
            "https://restate.example.com/ingress": server.ingress_url,
        }


@pytest.fixture
def on_shop(shop, settings) -> dict[str, str]:
    """The same, with ``settings.RESTATE`` pointing at it."""
    urls = {"INGRESS_URL": shop["http://localhost:8080"], "ADMIN_URL": shop["http://localhost:9070"]}
    settings.RESTATE = {"default": urls}
    return shop


def here(code: str, places: Mapping[str, str]) -> str:
    """Put this run's addresses in the place of the README's."""
    for theirs, ours in places.items():
        code = code.replace(theirs, ours)
    return code


# ---------------------------------------------------------------- every block can be run


def test_every_block_has_a_runner():
    assert [f"{block}: {block.language} {block.title}" for block in blocks("unknown")] == []


def test_the_two_commands_stand_alone_and_word_for_word():
    assert [block.code for block in blocks("command")] == COMMANDS
    assert [line for line in TEXT.splitlines() if line.startswith("pip ")] == COMMANDS


# ---------------------------------------------------------------- snippets


def run_snippet(block: Block, names: dict[str, Any], places: Mapping[str, str], printed: Callable[[], str]) -> None:
    """Run a block, check what it says of itself, and call the views that it defines."""
    code = re.sub(r"(?m)^( *)(\S.*?)  # -> (.+)$", r"\1_check(\2, \3)", here(block.code, places))
    before = set(names)
    lines = "\n" * block.line  # so that a traceback shows the README's own lines
    exec(compile(lines + code, ROOT / "README.md", "exec", dont_inherit=True), names)
    output = printed()
    for text in re.findall(r"(?m)^ *print\(.*\)  # (.+)$", block.code):
        assert text in output, f"{block} does not print {text!r}"
    for name in set(names) - before:
        view = names[name]
        if inspect.isfunction(view) and list(inspect.signature(view).parameters)[:1] == ["request"]:
            response = (async_to_sync(view) if inspect.iscoroutinefunction(view) else view)(names["request"])
            assert isinstance(response, HttpResponseBase), name
            assert response.status_code in {200, 302}, name


def _check(value: object, wanted: object) -> None:
    assert value == wanted


def _rolled_back(names: dict[str, Any]) -> None:
    request, place_order = names["request"], names["place_order"]
    assert Invocation.objects.for_object(Order.objects.get(number="A-1001")).get().service == "OrderWorkflow"
    rows = Invocation.objects.count()
    request.POST = {"number": "A-1002"}
    with transaction.atomic():
        place_order(request)
        transaction.set_rollback(True)
    assert Invocation.objects.count() == rows


def _received(names: dict[str, Any]) -> None:
    order = names["order"]
    send("Greeter", "greet", {"name": "Mary"}, related_to=order).attach(timeout=10)
    order.refresh_from_db()
    assert order.note == "succeeded"
    assert Invocation.objects.finished_since(None).count() >= 2


def _cancelled(names: dict[str, Any]) -> None:
    ((row, _what),) = names["report"].done
    wait_for(lambda: row.refresh().status == "cancelled", what="the order to be cancelled")


def _masked(names: dict[str, Any]) -> None:
    mask = admin.site.get_model_admin(Invocation).mask
    assert mask({"iban": "DE02", "token": "x", "name": "Mary"}) == {
        "iban": "hidden",
        "token": "••••••••",
        "name": "Mary",
    }


#: What else must hold when a section's blocks have run.
AFTERWARDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "Views and transactions": _rolled_back,
    "Results": _received,
    "Cancel, kill, resume": _cancelled,
    "The admin": _masked,
}


@pytest.fixture
def registered_admin() -> Iterator[None]:
    """The admin of invocations, put back as it was."""
    before = type(admin.site.get_model_admin(Invocation))
    yield
    admin.site.unregister(Invocation)
    admin.site.register(Invocation, before)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("registered_admin")
@pytest.mark.parametrize("section", sections("snippet"), ids=lambda name: name.lower().replace(" ", "-"))
def test_the_snippets_of(section, on_shop, settings, capsys, monkeypatch):
    """Each block does what it says on a real server, and nothing that it sends goes wrong there."""
    monkeypatch.syspath_prepend(SHOP)
    user = get_user_model().objects.create_user("mary")
    request = RequestFactory().post("/", {"number": "A-1001"})
    request.user = user
    names = {
        "__name__": "readme",
        "_check": _check,
        "Order": Order,
        # Workflows of the same key would be one, and the server outlives each test's database.
        "order": Order.objects.create(pk=secrets.randbelow(10**9), number="1001"),
        "request": request,
        "user": user,
    }
    for block in blocks("snippet", "settings", section=section):
        if block.kind == "settings":
            # What the section says of the settings holds for the blocks below.
            given = evaluated(block, monkeypatch, on_shop)
            settings.RESTATE = given.get("RESTATE", settings.RESTATE)
        else:
            run_snippet(block, names, on_shop, lambda: capsys.readouterr().out)
    AFTERWARDS.get(section, lambda _names: None)(names)

    well = {"scheduled", "running", "suspended", "succeeded", "cancelled", "unsent" if "delivery" in names else ""}
    for using in ("default", "other"):
        for row in Invocation.objects.using(using).all():
            wait_for(lambda row=row: refresh(row) is not None and row.status in well, what=f"{row} to go well")
            if row.is_open and "OrderWorkflow" in row.target:
                row.kill()
    names.clear()
    gc.collect()  # receivers of signals live as long as their blocks' names


def test_a_block_that_says_something_wrong_fails():
    wrong = Block("Idempotency", 1, "python", "", "1 + 1  # -> 3")
    with pytest.raises(AssertionError):
        run_snippet(wrong, {"_check": _check}, {}, lambda: "")
    silent = Block("Idempotency", 1, "python", "", "print('a')  # b")
    with pytest.raises(AssertionError, match="does not print 'b'"):
        run_snippet(silent, {"_check": _check}, {}, lambda: "a")


# ---------------------------------------------------------------- pages


@pytest.fixture
def pages(on_shop, settings, monkeypatch) -> None:
    """A site that is made of the README's URLs, views, forms and templates."""
    templates: dict[str, str] = {}
    code: dict[str, str] = {}
    for block in blocks("page"):
        if block.language == "html":
            templates[block.title] = block.code
        else:
            code[block.title] = f"{code.get(block.title, '')}\n{block.code}\n"
    package = types.ModuleType("pages")
    monkeypatch.setitem(sys.modules, "pages", package)
    assert sorted(code) == ["pages/forms.py", "pages/urls.py", "pages/views.py"]
    for title in ("pages/forms.py", "pages/views.py", "pages/urls.py"):  # each imports those before it
        name = title.removesuffix(".py").removeprefix("pages/")
        module = types.ModuleType(f"pages.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        setattr(package, name, module)
        exec(compile(code[title], title, "exec", dont_inherit=True), module.__dict__)
    (engine,) = settings.TEMPLATES
    loaders = [
        ("django.template.loaders.locmem.Loader", templates),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {**engine["OPTIONS"], "loaders": loaders}
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": options}]
    settings.ROOT_URLCONF = "pages.urls"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("pages")
def test_the_pages_of_the_readme_send_once_and_show_the_end(client):
    client.force_login(get_user_model().objects.create_user("mary"))

    def form(address):
        key = re.search(r'name="idempotency_key" value="([^"]+)"', client.get(address).content.decode())
        assert key, address
        return {"idempotency_key": key[1], "email": "mary@example.com"}

    sent = form("/remind/")
    first, again = (client.post("/remind/", sent).url for _ in range(2))
    assert first == again
    row = Invocation.objects.get()
    page = client.get(first).content.decode()
    assert page.count('role="status"') == 2
    assert "Call it off" in page
    address = re.search(r'data-url="([^"]+)"', page)
    assert address
    # Whoever has the page's address needs no login.
    assert Client().get(f"{address[1]}&wait=10").json()["succeeded"] is True
    assert Client().get(address[1].partition("?")[0]).status_code == 404

    sent = form("/remind-me/")
    assert [client.post("/remind-me/", sent).status_code for _ in range(2)] == [302, 302]
    assert Invocation.objects.exclude(pk=row.pk).get().attach(timeout=10)
    answer = client.post("/remind-me/", {**sent, "email": "joe@example.com"})
    assert "with other content" in answer.content.decode()


# ---------------------------------------------------------------- settings


def evaluated(block: Block, monkeypatch: pytest.MonkeyPatch, places: Mapping[str, str]) -> dict[str, Any]:
    """Return what a block of settings assigns."""
    for name in re.findall(r'os\.environ\["(\w+)"\]', block.code):
        monkeypatch.setenv(name, "given")
    names: dict[str, Any] = {"os": os, "BASE_DIR": Path("project")}
    exec(here(block.code, places), names)
    return {name: value for name, value in names.items() if name.isupper() and name != "BASE_DIR"}


@pytest.mark.parametrize("block", blocks("settings"), ids=str)
def test_settings_can_be_read_and_the_checks_find_nothing(block, settings, monkeypatch):
    given = evaluated(block, monkeypatch, {})
    assert given.keys() <= {"RESTATE", "DATABASES"}
    settings.RESTATE = given.get("RESTATE", {})
    assert all_settings()
    if "DATABASES" in given:
        monkeypatch.setattr(checks, "database_connections", ConnectionHandler(given["DATABASES"]))
    assert checks.check_settings() == []


def test_the_table_of_settings_is_the_one_in_conf():
    assert replaced(TEXT) == TEXT, "python -m tests.readme_settings"


# ---------------------------------------------------------------- handlers


@pytest.fixture
def served(make_restate, settings, tmp_path) -> Iterator[Callable[[str], None]]:
    """A function that serves a block's handlers, on a Restate server that knows nothing else."""
    with ExitStack() as stack:
        server = make_restate(handlers=False)
        urls = {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url, "POLL_MIN_INTERVAL": 0.1}
        settings.RESTATE = {"default": urls}

        def serve(title: str) -> None:
            (block,) = [block for block in blocks("handlers") if block.title == title]
            (tmp_path / "readme_handlers.py").write_text(block.code, encoding="utf-8")
            path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
            stack.enter_context(HandlerServer("readme_handlers:app", cwd=tmp_path, env=path)).register(server.admin_url)

        yield serve


@pytest.mark.django_db(transaction=True)
def test_the_compensation_of_the_readme_undoes_backwards(served):
    served("handlers/compensation.py")
    done = send("Trip", "run", {"seconds": 0}, key="a")
    assert done.attach(timeout=10) == ["flight booked", "hotel booked"]
    row = send("Trip", "run", {"seconds": 60}, key="b")
    admin_client = connections["default"].require_admin("the journal")

    def steps():
        mine = f"id = '{row.invocation_id}' AND entry_type = 'Command: Run'"
        return [
            step["name"] for step in admin_client.query(f"SELECT name FROM sys_journal WHERE {mine} ORDER BY index")
        ]

    # Both are booked, or one of them would have nothing to undo.
    wait_for(lambda: len(steps()) == 2, what="its steps to be taken")
    row.cancel()
    wait_for(lambda: row.refresh().status == "cancelled", what="it to be cancelled")
    assert steps() == ["book flight", "book hotel", "release hotel", "release flight"]


@pytest.mark.django_db(transaction=True)
def test_the_reports_of_the_readme_are_heeded(served, settings, live_server):
    (block,) = blocks("settings", section="Hearing of an end at once")
    assert block.code.count('"REPORT_URL"') == 1
    served("handlers/reports.py")
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "REPORT_URL": f"{live_server.url}/restate"}}
    row = send("Greeter", "greet", {"name": "Mary"})
    rows = Invocation.objects.filter(pk=row.pk, status="succeeded")
    wait_for(rows.exists, timeout=15, what="the report to be heeded, for nobody polls")


def test_every_block_of_handlers_is_served():
    assert {block.title for block in blocks("handlers")} == {"handlers/compensation.py", "handlers/reports.py"}


# ---------------------------------------------------------------- scripts, tests, commands


@pytest.mark.parametrize("block", blocks("script"), ids=str)
def test_a_script_runs_without_django_settings(block, shop, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(here(block.code, shop), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Hello, Mary!"
    assert "OrderWorkflow" in done.stdout


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("block", blocks("tests"), ids=str)
def test_the_tests_of_the_readme_pass(block, monkeypatch):
    monkeypatch.chdir(SHOP)
    module = types.ModuleType("readme_tests")
    exec(compile("\n" * block.line + block.code, ROOT / "README.md", "exec", dont_inherit=True), module.__dict__)
    classes = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == "readme_tests"
    ]
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(each) for each in classes)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= 1
    assert [text for _test, text in [*result.errors, *result.failures, *result.skipped]] == []


def test_the_pytest_tests_of_the_readme_pass(tmp_path):
    """With the fixtures of the plugin alone, in a folder of their own."""
    (settings,) = [block for block in blocks("pytest") if block.language == "toml"]
    own = (
        f'DJANGO_SETTINGS_MODULE = "tests.settings"\npythonpath = {[str(ROOT), str(SHOP)]}\nfilterwarnings = ["error"]'
    )
    (tmp_path / settings.title).write_text(f"{settings.code}\n{own}\n", encoding="utf-8")
    tests = [block for block in blocks("pytest") if block.language == "python"]
    for number, block in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(block.code, encoding="utf-8")
    unset = {"RESTATE_DJANGO_TEST_RUN", "DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in unset},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_every_method_of_the_fake_is_one():
    said = "\n".join(cell for row in table("Testing your code") for cell in row)
    fake = set(re.findall(r"`(?:on\([^)]*\)\.)?(\w+)\(", said)) | set(re.findall(r"`\.(\w+)\(", said))
    assert fake == {name for name in fake if hasattr(FakeRestate, name) or hasattr(Answers, name)}
    public = {name for kind in (FakeRestate, Answers) for name in vars(kind) if not name.startswith("_")}
    # What the fake's own parts say to each other.
    inner = {"answer", "fits", "unknown_part", "broken", "ending", "now"}
    assert public - inner - {"sent"} == fake - {"on"} | {"on"}


def test_every_subcommand_is_in_the_table_in_order():
    assert [code_in(cell)[0] for cell, _ in table("Commands")] == [kind.name for kind in SUBCOMMANDS]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "line", [line for line in shell_lines() if "--once" in line or not line.startswith(PROJECT_COMMANDS + ELSEWHERE)]
)
def test_a_command_works(line, on_shop, capsys, monkeypatch, tmp_path, nothing_noted):
    """Those that are not run in the project below. What they write to is a copy."""
    (tmp_path / "shop").mkdir()
    shutil.copy(SHOP / "shop" / "targets.py", tmp_path / "shop")
    monkeypatch.chdir(tmp_path)
    python, manage, *words = shlex.split(line)
    assert (python, manage) == ("python", "manage.py"), f"nothing runs {line!r}"
    if "doctor" in words:
        # The reader's jobs run.
        call_command("restate_relay", "--once")
    call_command(*words)
    assert capsys.readouterr().out


# ---------------------------------------------------------------- the way of a newcomer


@dataclass
class Project:
    """A project in a folder, made of what the README says and nothing else."""

    folder: Path
    places: dict[str, str]
    stack: ExitStack

    @property
    def env(self) -> dict[str, str]:
        # The package need not be installed where the tests run.
        return {"DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def run(self, *words: str) -> str:
        """Run a program to its end, and return what it printed."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def line(self, beginning: str) -> list[str]:
        """Return the README's line that begins so, as a command of this machine."""
        assert beginning in PROJECT_COMMANDS
        line = next(line for line in shell_lines() if line.startswith(beginning))
        program, *words = shlex.split(here(line, self.places))
        return [sys.executable, *words] if program == "python" else [sys.executable, "-m", program, *words]

    def start(self, beginning: str, *more: str) -> ChildProcess:
        """Start one of the README's lines, to be stopped at the end."""
        argv = [*self.line(beginning), *more]
        child = ChildProcess(argv, name=beginning, log_file=self.folder / "log", env=self.env, cwd=self.folder)
        self.stack.callback(child.stop)
        child.start()
        return child

    def write(self, block: Block) -> None:
        """Put a block into the file that it names: at the end of one that is there."""
        file = self.folder / block.title
        file.parent.mkdir(exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(f"{before}\n{here(block.code, self.places)}\n", encoding="utf-8")

    def shell(self, code: str) -> str:
        """Run code in the project's own shell."""
        return self.run(sys.executable, "manage.py", "shell", "-c", code)

    def statuses(self) -> list[tuple[str, str]]:
        """Return status and output of each row, oldest first."""
        database = sqlite3.connect(self.folder / "db.sqlite3")
        try:
            return list(database.execute("SELECT status, output FROM restate_django_invocation ORDER BY id"))
        finally:
            database.close()


#: A visitor opens the page and presses the button twice.
VISIT = """
import re
from html import unescape
from django.test import Client
client = Client(headers={"host": "localhost"}, enforce_csrf_checks=True)
page = client.get("/hello/").content.decode()
fields = {name: unescape(value) for name, value in re.findall(r'name="(\\w+)" value="([^"]*)"', page)}
shown = [client.post("/hello/", fields).content.decode() for click in range(2)]
print(*(re.search(r'data-status="([a-z-]+)"', text)[1] for text in shown))
print(unescape(re.search(r'data-url="([^"]+)"', shown[0])[1]))
"""
#: What the badge's script asks for, who is anybody, and holds the address alone.
BADGE = """
from django.test import Client
print(Client(headers={"host": "localhost"}).get("@address").json()["status"])
"""
ADMIN = """
import re
from html import unescape
from django.contrib.auth import get_user_model
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(get_user_model().objects.create_superuser("admin"))
page = client.get("/admin/restate_django/invocation/").content.decode()
link = re.search(r'href="(/admin/restate_django/invocation/[0-9a-f-]{36}/change/[^"]*)"', page)[1]
shown = unescape(client.get(unescape(link)).content.decode())
print("Greeter" in page, "succeeded" in page, "succeeded" in shown, "Hello, Mary!" in shown)
"""
DONE = ("succeeded", json.dumps("Hello, Mary!"))
#: The lines that a newcomer writes: imports are not counted.
TEN_LINES = ("mysite/settings.py", "mysite/views.py", "mysite/templates/hello.html", "mysite/urls.py")


@pytest.mark.once
def test_a_new_project_that_follows_the_readme_works(make_restate, tmp_path):
    """From ``startproject`` to an invocation that succeeded, with the README's own lines: by the relay, then Celery."""
    with ExitStack() as stack:
        server = make_restate(handlers=False)
        port = free_port()
        places = {
            "http://localhost:8080": server.ingress_url,
            "http://localhost:9070": server.admin_url,
            "http://localhost:9080": f"http://127.0.0.1:{port}",
            "127.0.0.1:9080": f"127.0.0.1:{port}",
            "redis://localhost:6379/0": "filesystem://",  # a broker that every machine has
        }
        project = Project(tmp_path, places, stack)
        project.run(sys.executable, "-m", "django", "startproject", "mysite", ".")
        first = {block.title: block for block in blocks("project", section="Add it to your project")}
        assert list(first) == [*TEN_LINES, "services.py", "register"]
        for title, block in first.items():
            if title != "register":
                project.write(block)
        own = [line for title in TEN_LINES for line in first[title].code.splitlines()]
        statements = [line for line in own if line.strip(" {}[]():,") and not line.startswith(("from ", "import "))]
        assert len(statements) <= 10, "the README promises ten lines"

        # The handlers, and the word to Restate that they are there.
        project.start("hypercorn ")
        project.run(*project.line("python manage.py migrate"))
        project.shell(here(first["register"].code, places))

        # Without Celery.
        relay = project.start("python manage.py restate_relay")
        states, address = project.shell(VISIT).splitlines()[-2:]
        assert states.split()[0] == "accepted"
        wait_for(lambda: project.statuses() == [DONE], timeout=15, what="the relay to bring the result")
        relay.stop()
        assert "succeeded" in project.shell(BADGE.replace("@address", address)), "the badge moves"
        assert "True True True True" in project.shell(ADMIN), "the admin shows it, with its output"

        # With Celery, which takes nothing but the section's own lines.
        for block in blocks("project", section="Celery"):
            project.write(block)
        # As Redis does, and kombu's own broker in a folder does not, this one gives each message whole.
        shutil.copy(ROOT / "example_project" / "folder_broker.py", project.folder)
        options = folder_broker.options(project.folder / "broker")
        with (project.folder / "mysite" / "settings.py").open("a", encoding="utf-8") as settings_file:
            settings_file.write(
                f"CELERY_BROKER_TRANSPORT = 'folder_broker:Transport'\nCELERY_BROKER_TRANSPORT_OPTIONS = {options!r}\n"
            )
        # Its last line says what a worker takes that has the tasks' own queue.
        *_, queues = (shlex.split(line)[4:] for line in shell_lines() if line.startswith("celery "))
        assert queues[0] == "--queues"
        worker = project.start("celery ", "--concurrency", "1", *queues)
        project.shell(VISIT)
        wait_for(
            lambda: project.statuses() == [DONE, DONE] or not worker.running,
            timeout=25,
            what="Celery to bring the result",
        )
        assert project.statuses() == [DONE, DONE], worker.log_tail()


# ---------------------------------------------------------------- logs


LOG = """
import logging.config
from mysite import settings
logging.config.dictConfig(settings.LOGGING)
from restate_django.logs import get_logger
logger = get_logger("restate_django.delivery")
logger.debug("too quiet")
logger.warning("%s is rejected", "it", row=7, connection="default", target="Greeter/greet")
def handle(order):
    raise KeyError(order)
try:
    # Not in the words of a line of code: a traceback shows those.
    handle(" ".join(["a", "payload"]))
except KeyError:
    logger.exception("It could not be sent")
logging.getLogger("restate_django.elsewhere").error("without fields")
"""


def test_the_logs_of_the_readme_are_json(tmp_path):
    (tmp_path / "mysite").mkdir()
    for block in blocks("project", section="Logs"):
        (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOG],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    rejected, surprise, elsewhere = map(json.loads, done.stderr.splitlines())
    told = {"restate_row": "7", "restate_connection": "default", "restate_target": "Greeter/greet"}
    assert rejected.items() >= {**told, "message": "it is rejected", "level": "WARNING"}.items()
    assert "restate_invocation_id" not in rejected
    assert "KeyError" in surprise["traceback"]
    assert "a payload" not in done.stderr
    assert elsewhere["message"] == "without fields"


LISTENING = """
import django
django.setup()
from restate_django import measuring
print(sorted(type(each).__module__ for each in measuring._listeners))
"""


def test_one_line_switches_traces_and_metrics_on(tmp_path):
    (block,) = blocks("project", section="Tracing and metrics")
    (tmp_path / "measured.py").write_text(f"from tests.settings import *\n{block.code}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LISTENING],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "DJANGO_SETTINGS_MODULE": "measured"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    listening = [f"restate_django.contrib.{name}" for name in ("otel.metrics", "otel.tracing", "prometheus.metrics")]
    assert done.stdout.strip() == str(listening), done.stderr


def test_the_table_of_metrics_is_what_there_is():
    """Names and labels, those of the work and those that are read from the database."""
    told = {}
    for name, labels, _what in table("Tracing and metrics", "metric"):
        told[code_in(name)[0].removesuffix("_total")] = tuple(code_in(labels))
    assert told == {each.prometheus_name: each.labels for each in (*measuring.INSTRUMENTS, *gauges.GAUGES)}


def _log_calls() -> Iterator[tuple[str, str]]:
    """Return the level and the text of every call of a logger in the package."""
    for file in (ROOT / "restate_django").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(ast.Name("logger"), method), args=[text, *_]):
                    name = "ERROR" if method == "exception" else method.upper()
                    # A text that is made elsewhere has no place in the table.
                    yield name, text.value if isinstance(text, ast.Constant) else ""


def test_each_level_means_what_the_readme_says():
    calls = list(_log_calls())
    assert len(calls) > 25
    told = {code_in(level)[0]: code_in(such) for level, _meaning, such in table("Logs")}
    assert list(told) == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert {level for level, _text in calls} == set(told)
    for level, quoted in told.items():
        for words in quoted:
            # The first one is shown as it is filled in.
            filled_in = words == "deliver_due(): 3 accepted"
            found = {known for known, text in calls if (text == "%s: %s" if filled_in else words in text)}
            assert found == {level}, words


# ---------------------------------------------------------------- names, tables and links


def _anchor(heading: str) -> str:
    """Return a heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    anchors = [_anchor(heading) for heading in HEADINGS]
    assert len(anchors) == len(set(anchors))
    links = re.findall(r"\]\(([^)\s]+)\)", PROSE)
    assert len(links) > 30
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert (ROOT / link).is_file(), link


def test_every_section_is_in_the_table_of_contents():
    contents = TEXT.partition("\n## ")[0]
    for heading in re.findall(r"(?m)^## (.+)$", TEXT):
        assert f"(#{_anchor(heading)})" in contents, heading


def test_every_public_name_is_in_the_table_of_functions_and_every_name_there_exists():
    row = Invocation(service="Greeter", handler="greet", recorded_at=None)
    homes: dict[str, Any] = {"a row": row, "`Invocation.objects`": Invocation.objects}
    home: Any = None
    listed: set[str] = set()
    for where, what in table("Functions"):
        if where:
            home = homes[where] if where in homes else __import__(code_in(where)[0], fromlist=["x"])
        for code in code_in(what):
            name = re.match(r"\w+", code)
            if name is None or name[0] == "a":
                continue  # ".ingress", and the letter that makes a method's twin
            names = dir(type(home)) if home is row else dir(home)
            assert name[0] in names or hasattr(type(row), name[0]), code
            if home is restate_django:
                listed.add(name[0])
            callable_ = None if home is row and "(" not in code else getattr(home, name[0])
            if "(" in code and callable(callable_):
                wanted = set(re.findall(r"\w+", code.partition("(")[2]))
                assert wanted <= set(inspect.signature(callable_).parameters), code
    assert listed == set(restate_django.__all__)
    for method in re.findall(r"`(\w+)\([^`]*\)`", next(what for where, what in table("Functions") if where == "a row")):
        assert hasattr(Invocation, f"a{method}"), method


def test_the_tree_of_exceptions_is_the_one_in_the_code():
    (block,) = blocks("exceptions")
    written: list[tuple[int, str, set[str]]] = []
    for line in block.code.splitlines():
        found = re.match(r"(?P<branch>[│├└─ ]*)(?P<name>\w+)(?: \((?P<also>[\w., ]+)\))?(?:  |$)", line)
        assert found, line
        written.append((len(found["branch"]) // 4, found["name"], set((found["also"] or "").split(", ")) - {""}))
    names = {
        name: value
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, exceptions.RestateError)
    }
    assert sorted(name for _, name, _ in written) == sorted(names)
    path: list[str] = []
    for depth, name, also in written:
        path[depth:] = [name]
        ancestors = names[name].__mro__
        if depth:
            assert names[path[depth - 1]] in names[name].__bases__, name
        for other in also:
            assert other.rpartition(".")[2] in {each.__name__ for each in ancestors}, f"{name} is no {other}"


def test_every_status_is_in_the_table_in_order_and_its_ways_are_legal():
    rows = table("Statuses")
    assert [code_in(name)[0] for name, *_ in rows] == [status.value for status in lifecycle.Status]
    for name, _meaning, ways in rows:
        status = code_in(name)[0]
        following = [way for way in code_in(ways) if way in list(lifecycle.Status)]
        assert all(lifecycle.may_become(status, way) for way in following)
        assert (ways == "the end") is (status in lifecycle.ENDED), status
    unsent = {way for way in lifecycle.Status if way != "unsent" and lifecycle.may_become("unsent", way)}
    assert set(code_in(rows[0][2])) == unsent


def test_every_check_is_in_the_table():
    source = (ROOT / "restate_django" / "checks.py").read_text(encoding="utf-8")
    ids = sorted(set(re.findall(r'id="(restate_django\.[EW]\d{3})"', source)))
    assert [code_in(cell)[0] for cell, _ in table("System checks")] == ids


def test_every_permission_is_in_the_table():
    ours = {codename for codename, _ in Invocation._meta.permissions}
    listed = {code_in(cell)[0] for cell, _ in table("The admin", "permission")}
    assert listed == ours | {"view_invocation", "delete_invocation"}


def test_every_operation_and_every_way_of_delivery_is_in_its_table():
    from restate_django.operations import ALLOWED

    assert {name for cell, _ in table("Cancel, kill, resume") for name in code_in(cell)} == set(ALLOWED)
    assert {code_in(cell)[0] for cell, *_ in table("Celery", "`DELIVERY`")} == {'"on_commit"', '"celery"', '"relay"'}


def _texts_of_the_package() -> str:
    """Return every string of the package's code, with what is filled in left out."""
    found: list[str] = []
    for file in (ROOT / "restate_django").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_message_that_troubleshooting_quotes_is_one_of_ours():
    texts = _texts_of_the_package()
    quoted = [code_in(cell)[0] for cell, _ in table("Troubleshooting") if cell.startswith("`")]
    assert len(quoted) > 10
    for message in quoted:
        if message != "database is locked":  # SQLite's own
            for part in message.split("…"):
                assert part.strip() in texts, message
