"""The settings of a process that a fault is done to: the tests' own, with the wire led through a test's proxies.

All of it comes by the environment, as it would in production; nothing of the app is changed.
"""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403 - these are the tests' settings, and some more
from tests.settings import DATABASES

RESTATE = json.loads(os.environ["FAULTS_RESTATE"])

if port := os.environ.get("FAULTS_DATABASE_PORT"):
    DATABASES["default"] |= {"HOST": "127.0.0.1", "PORT": port}
if seconds := os.environ.get("FAULTS_SQLITE_TIMEOUT"):
    DATABASES["default"]["OPTIONS"]["timeout"] = float(seconds)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"restate_django": {"handlers": ["console"], "level": "WARNING"}},
}
