"""What the app adds to the start of a project: ``django.setup()`` with it and without."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from restate_django.testing.binary import cache_dir
from tests.benchmarks.lab import ROOT
from tests.benchmarks.tables import Goal, Line

if TYPE_CHECKING:
    from tests.benchmarks.lab import Lab

# Celery and requests are there already, as in any project that uses them.
_SETUP = """
import sys, time
import requests
from celery import current_app, shared_task
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", *sys.argv[1:],
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)
start = time.perf_counter()
django.setup()
print((time.perf_counter() - start) * 1000)
"""


def setups(lab: Lab) -> list[Line]:
    """Milliseconds, in processes that find everything compiled."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(cache_dir() / "benchmarks" / "pycache")

    def setup(*apps: str) -> float:
        answer = subprocess.run(
            [sys.executable, "-c", _SETUP, *apps], env=env, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return float(answer.stdout)

    setup("restate_django")
    figures = lab.rounds_of(
        "imports",
        {"without": setup, "with": lambda: setup("restate_django")},
        # Short ones: more of them make up for it.
        rounds=lab.rounds * 3,
    )
    return [
        Line(
            "imports",
            "django.setup() with restate_django",
            unit=" ms",
            against="without it (Celery and requests imported before)",
            kind="difference",
            goal=Goal(30, at_most=True),
            **figures.against("with", "without"),
        )
    ]
