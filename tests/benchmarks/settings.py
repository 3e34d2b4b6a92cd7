"""The settings that the benchmarks run with: the tests' own, on databases of this run, which children find again."""

from __future__ import annotations

import copy
import importlib.util
import json
import os

from tests.settings import *  # noqa: F403 - these are the tests' settings, and some more
from tests.settings import DATABASES, INSTALLED_APPS, RUN, RUN_FILES

RESTATE = json.loads(os.environ.get("BENCHMARKS_RESTATE", "{}"))

# Two tables of different sizes stand beside each other, so that rounds on one and the other can take turns.
for _name in ("small", "large"):
    DATABASES[_name] = copy.deepcopy(DATABASES["default"])
    _is_file = DATABASES["default"]["ENGINE"].endswith("sqlite3")
    DATABASES[_name]["TEST"]["NAME"] = str(RUN_FILES / f"{RUN}_test_{_name}.sqlite3") if _is_file else f"{RUN}_{_name}"

# A peer for recording, where it is installed.
if importlib.util.find_spec("django_tasks_db") and (
    importlib.util.find_spec("django.tasks") or importlib.util.find_spec("django_tasks")
):
    INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks_db"]
    if not importlib.util.find_spec("django.tasks"):
        INSTALLED_APPS.append("django_tasks")
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

# What every row would write into the log is not what is measured.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"restate_django": {"level": "ERROR"}}}
