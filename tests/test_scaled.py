"""The example's configuration for several hosts can be read, and its processes are commands that there are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import EXAMPLE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

SHOWS_SETTINGS = """
import django, json
django.setup()
from celery import current_app
from restate_django.conf import all_settings
from example.celery import app
print(json.dumps({
    "urls": {name: settings.ingress_url for name, settings in all_settings().items()},
    "delivery": {name: settings.delivery for name, settings in all_settings().items()},
    "queues": sorted({entry["options"]["queue"] for entry in app.conf.beat_schedule.values()}),
    "swept": sorted(
        name for entry in app.conf.beat_schedule.values() for name in entry.get("kwargs", {}).get("connections", [])
    ),
    "route": app.amqp.router.route({}, "restate_django.send_one")["queue"].name,
}))
"""


def run(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run something in the example's folder as on one of its hosts."""
    ours = ("DJANGO_", "RESTATE_", "PYTEST_", "CELERY_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env |= {
        "DJANGO_SETTINGS_MODULE": "example.scaled",
        "SHOP_DATA": str(tmp_path),
        "SECRET_KEY": "of this test",
        "ALLOWED_HOSTS": "shop.example.com",
        # They are named, and nothing here asks them.
        "DATABASE_URL": "postgres://shop@127.0.0.1:1/shop",
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        "RESTATE_INGRESS_URL": "http://restate.internal:8080",
        "RESTATE_ADMIN_URL": "http://restate.internal:9070",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLE)]),
    }
    return subprocess.run(
        [sys.executable, *argv], cwd=EXAMPLE, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def processes() -> dict[str, list[str]]:
    """Return the commands of the Procfile by the names of their processes."""
    lines = (EXAMPLE / "Procfile").read_text(encoding="utf-8").splitlines()
    named = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: shlex.split(command) for name, _, command in named}


def test_the_settings_are_read(tmp_path):
    answer = run(tmp_path, "-c", SHOWS_SETTINGS)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {
        "urls": dict.fromkeys(("default", "bulk"), "http://restate.internal:8080"),
        "delivery": {"default": "celery", "bulk": "relay"},
        "queues": ["restate", "restate-bulk"],
        "swept": ["bulk", "bulk", "default", "default"],
        "route": "restate",
    }


def test_the_checks_find_nothing(tmp_path):
    answer = run(tmp_path, "manage.py", "check", "--tag", "restate", "--fail-level", "WARNING")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", [name for name in processes() if name != "restate"])
def test_each_process_is_a_command_that_takes_its_options(tmp_path, name):
    program, *arguments = processes()[name]
    if program == "python":
        answer = run(tmp_path, *arguments, "--help")
        assert "--connection ALIAS" in answer.stdout
    else:
        # As the shell would find it; with --help nothing is started, and an option that it does not know is an error.
        answer = run(tmp_path, "-m", program, *arguments, "--help")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_queue_has_a_worker_and_every_connection_a_relay():
    commands = processes()
    queues = {
        queue
        for name in ("worker", "worker_bulk")
        for queue in commands[name][commands[name].index("--queues") + 1].split(",")
    }
    assert queues == {"restate", "restate-bulk", "celery"}
    assert {commands[name][-1] for name in ("relay", "relay_bulk")} == {"default", "bulk"}
