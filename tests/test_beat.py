"""The entries in django-celery-beat's tables: made, kept in step, and read by a real beat."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from restate_django.testing.process import ChildProcess
from tests.conftest import EXAMPLE, ROOT
from tests.require import require
from tests.wait import wait_for

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
from tests.settings import *
from pathlib import Path
INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_beat"]
FOLDER = Path(__file__).parent
DATABASES = {"default": {**DATABASES["other"], "NAME": str(FOLDER / "db.sqlite3"), "TEST": {}}}
RESTATE = {"default": {"INGRESS_URL": "@ingress", "ADMIN_URL": "@admin", "DELIVERY": "relay", "POLL_MIN_INTERVAL": 0.1}}
"""
APP = """
import os
from pathlib import Path
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "own_settings")
import folder_broker
from celery import Celery
app = Celery("own", broker="filesystem://", include=["restate_django.tasks"])
app.conf.update(
    broker_transport="folder_broker:Transport",
    beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler",
    beat_max_loop_interval=1,
    broker_transport_options=folder_broker.options(Path(__file__).parent / "broker"),
)
app.set_default()
"""
#: A shell of the project: each line is a JSON list of words for `manage.py`, or a text of code; each answer is what it
#: said and how it went wrong. To start Django for each of them takes a second every time.
SHELL = """
import contextlib, io, json, sys, traceback
import django
django.setup()
from django.core.management import call_command
for line in sys.stdin:
    asked, said, wrong = json.loads(line), io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(said):
            exec(asked, {}) if isinstance(asked, str) else call_command(*asked)
    except BaseException:
        wrong = traceback.format_exc()
    sys.__stdout__.write(json.dumps([said.getvalue(), wrong]) + chr(10))
    sys.__stdout__.flush()
"""
LOOK = """
import json
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks
{code}
fields = ("name", "task", "enabled", "queue", "kwargs", "expire_seconds")
entries = [
    {{**{{field: getattr(row, field) for field in fields}}, "schedule": str(row.scheduler)}}
    for row in PeriodicTask.objects.order_by("name")
]
print(json.dumps({{"entries": entries, "changed": str(PeriodicTasks.last_change())}}))
"""


class Project:
    """A project with django-celery-beat and a database of its own."""

    def __init__(self, folder: Path, ingress: str = "http://localhost:8080", admin: str = "http://localhost:9070"):
        self.folder = folder
        self.shell: subprocess.Popen[str] | None = None
        settings = SETTINGS.replace("@ingress", ingress).replace("@admin", admin)
        (folder / "own_settings.py").write_text(settings, encoding="utf-8")
        (folder / "own_celery.py").write_text(APP, encoding="utf-8")
        self.env = {
            "DJANGO_SETTINGS_MODULE": "own_settings",
            "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, EXAMPLE))),
        }

    def run(self, asked: str | list[str]) -> str:
        """Run code, or the words of a command, and return what it said."""
        if self.shell is None:
            self.shell = subprocess.Popen(
                [sys.executable, "-c", SHELL],
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(json.dumps(asked) + "\n")
        self.shell.stdin.flush()
        said, wrong = json.loads(self.shell.stdout.readline())
        assert not wrong, said + wrong
        return str(said)

    def close(self) -> None:
        """End the shell."""
        if self.shell is not None:
            self.shell.communicate(timeout=60)

    def beat(self, *options: str) -> dict[str, dict[str, object]]:
        """Run the command, and return its entries by name."""
        said = json.loads(self.run(["restate", "beat", "--json", *options]))
        return {entry["name"].removeprefix("restate_django."): entry for entry in said["entries"]}

    def look(self, code: str = "") -> tuple[dict[str, dict[str, object]], str]:
        """Do something as an operator would in the admin, and return what the tables have and when they changed."""
        said = json.loads(self.run(LOOK.format(code=code)))
        return {entry["name"].removeprefix("restate_django."): entry for entry in said["entries"]}, said["changed"]


def require_beat() -> None:
    """Go on where django-celery-beat is installed, which it is not on every Python: it holds Django below 6.1."""
    if importlib.util.find_spec("django_celery_beat") is None and sys.version_info >= (3, 12):
        pytest.skip("django-celery-beat holds Django below 6.1, so the extra `test` has it on Python 3.11 alone")
    require(importlib.util.find_spec("django_celery_beat"), "there is no django-celery-beat")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with the tables and no rows, to be copied."""
    require_beat()
    project = Project(tmp_path_factory.mktemp("tables"))
    with contextlib.closing(project):
        project.run(["migrate", "-v0"])
    return project.folder / "db.sqlite3"


@pytest.fixture
def project(tables, tmp_path):
    shutil.copy(tables, tmp_path)
    with contextlib.closing(Project(tmp_path)) as project:
        yield project


def steps(entries):
    return {name: entry["step"] for name, entry in entries.items()}


def test_entries_are_made_once_and_then_left_alone(project):
    would = project.beat("--dry-run")
    assert set(steps(would).values()) == {"created"}
    assert project.look()[0] == {}
    assert steps(project.beat()) == {"deliver": "created", "poll": "created", "prune": "created"}
    entries, changed = project.look()
    assert {name: entry["schedule"] for name, entry in entries.items()} == {
        "deliver": "every 2 seconds",
        "poll": "every 2 seconds",
        "prune": "every 3600 seconds",
    }
    assert {entry["task"] for entry in entries.values()} == {f"restate_django.{name}" for name in entries}
    assert entries["poll"]["expire_seconds"] == 60
    assert set(steps(project.beat()).values()) == {"unchanged"}
    assert project.look() == (entries, changed), "a beat that runs has nothing to read again"


def test_what_an_operator_decided_stays_until_it_is_said_otherwise(project):
    project.beat()
    project.look(
        "PeriodicTask.objects.filter(name='restate_django.poll').update(enabled=False)\n"
        "row = PeriodicTask.objects.get(name='restate_django.prune')\n"
        "row.interval, row.crontab = None, CrontabSchedule.objects.create(hour='3', minute='0')\n"
        "row.save()\n"
    )
    before, _changed = project.look()
    entries = project.beat()
    assert set(steps(entries).values()) == {"unchanged"}
    assert (entries["poll"]["kept"], entries["prune"]["kept"]) == (["disabled"], ["schedule"])
    assert project.look()[0] == before
    # By name.
    entries = project.beat("--prune", "600", "--deliver", "0.5", "--enable", "--queue", "restate")
    assert set(steps(entries).values()) == {"changed"}
    after, _changed = project.look()
    assert {entry["queue"] for entry in after.values()} == {"restate"}
    assert all(entry["enabled"] for entry in after.values())
    assert (after["prune"]["schedule"], after["prune"]["expire_seconds"]) == ("every 600 seconds", 1200)
    assert after["deliver"]["schedule"] == "every 500000 microseconds"
    # A queue that nobody names stays where it was put.
    assert set(steps(project.beat()).values()) == {"unchanged"}


def test_what_has_no_task_any_more_goes_and_what_is_somebodys_own_stays(project):
    project.beat()
    project.look(
        "every = PeriodicTask.objects.first().interval\n"
        "PeriodicTask.objects.create(name='restate_django.sweep', task='restate_django.sweep', interval=every)\n"
        "PeriodicTask.objects.create(name='nightly', task='restate_django.prune', interval=every)\n"
        "PeriodicTask.objects.filter(name='restate_django.poll').update(task='restate_django.ask', kwargs='{')\n"
    )
    assert steps(project.beat()) == {
        "deliver": "unchanged",
        "poll": "changed",
        "prune": "unchanged",
        "sweep": "removed",
    }
    entries, _changed = project.look()
    assert (entries["poll"]["task"], entries["poll"]["kwargs"]) == ("restate_django.poll", "{}")
    assert set(steps(project.beat("--remove", "--dry-run")).values()) == {"removed"}
    assert project.look()[0] == entries
    project.beat("--remove")
    assert set(project.look()[0]) == {"nightly"}
    assert "There are no entries." in project.run(["restate", "beat", "--remove"])


def test_a_part_of_the_connections_has_entries_of_its_own(project):
    entries = project.beat("--connection", "default", "--queue", "eu")
    assert set(entries) == {"deliver[default]", "poll[default]", "prune"}
    assert json.loads(project.look()[0]["poll[default]"]["kwargs"]) == {"connections": ["default"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "not in INSTALLED_APPS"),
        (("--remove",), "restate-django\\[beat\\]"),
        (("--connection", "x"), "no connection"),
    ],
)
def test_without_the_tables_it_says_what_to_do(options, words):
    with pytest.raises(CommandError, match=words):
        call_command("restate", "beat", *options)


def test_a_real_beat_runs_the_entries(restate_server, tables, tmp_path):
    shutil.copy(tables, tmp_path)
    project = Project(tmp_path, restate_server.ingress_url, restate_server.admin_url)
    with contextlib.closing(project):
        project.run(["restate", "beat", "--deliver", "1", "--poll", "1"])
        project.run(
            "from restate_django import send\nassert send('Greeter', 'greet', {'name': 'Mary'}).status == 'unsent'"
        )
    command = [sys.executable, "-m", "celery", "-A", "own_celery"]
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    with ExitStack() as stack:
        for words in (("beat", "--pidfile="), ("worker", "--pool", "solo", *quiet)):
            child = ChildProcess(
                [*command, *words, "-l", "INFO"],
                name=words[0],
                log_file=tmp_path / f"{words[0]}.log",
                env=project.env,
                cwd=tmp_path,
            )
            stack.callback(child.stop)
            child.start()
        with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
            status = "SELECT status FROM restate_django_invocation"
            wait_for(
                lambda: database.execute(status).fetchall() == [("succeeded",)],
                timeout=30,
                what="beat to have it delivered and polled",
            )


DOCTOR = """
import json
import own_celery
from restate_django.doctor import setup
print(json.dumps([[line.level, line.text, line.remedy] for line in setup.celery()]))
"""


def test_the_doctor_reads_the_entries(project):
    def doctor():
        return json.loads(project.run(DOCTOR))[0]

    level, text, remedy = doctor()
    assert level == "warning"
    assert text.endswith("for restate_django.deliver, restate_django.poll, restate_django.prune.")
    assert remedy.startswith("Run manage.py restate beat")
    project.beat()
    assert doctor() == ["ok", "django-celery-beat has an entry for each of the jobs.", ""]
    project.look('PeriodicTask.objects.filter(name="restate_django.poll").update(enabled=False)')
    assert doctor()[1] == "django-celery-beat has no entry that is switched on for restate_django.poll."
    with contextlib.closing(sqlite3.connect(project.folder / "db.sqlite3")) as database:
        database.execute("ALTER TABLE django_celery_beat_periodictask RENAME TO gone")
    assert doctor()[0] == "error"
