"""The settings that the tests run with, on any database that ``DATABASE_URL`` names; SQLite without one.

Two runs at once never share a database: the databases of a run are named after ``RESTATE_DJANGO_TEST_RUN``, which its
first process makes up. A subprocess inherits it, and so finds itself on the test databases of the run without a word.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import environ  # type: ignore[import-untyped]  # django-environ ships no types

env = environ.Env()

if env.bool("WITHOUT_BULK", default=False):
    # As where the extra `bulk` is not installed, in this process and in those that it starts.
    sys.modules["pycurl"] = None  # type: ignore[assignment] # that is how Python is told that there is none

INHERITED_RUN = os.environ.get("RESTATE_DJANGO_TEST_RUN")
RUN = INHERITED_RUN or f"restate_django_tests_{secrets.token_hex(4)}"
RUN_FILES = Path(tempfile.gettempdir())


def _remove_files(maker: int) -> None:
    """Remove the run's files when the process that made up the run ends."""
    # A forked child that ends by itself goes through its parent's exit handlers: it must leave the files alone.
    if os.getpid() == maker:
        for path in RUN_FILES.glob(f"{RUN}*"):
            path.unlink(missing_ok=True)


if not INHERITED_RUN:
    os.environ["RESTATE_DJANGO_TEST_RUN"] = RUN
    atexit.register(_remove_files, os.getpid())

SECRET_KEY = "only-for-the-tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
# The real hashers are slow on purpose, and a test that logs in pays for it each time.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "restate_django",
    "restate_django.contrib.notify",  # mails nobody as long as a test names no ADMINS
    "django_htmx",  # for its copy of htmx: a badge may be renewed by it
    "tests",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _for_this_run(database: dict[str, Any], test_name: str) -> dict[str, Any]:
    """Give the test database a name of this run's own, and a subprocess of the run that very database."""
    database["TEST"] = {"NAME": test_name}
    if INHERITED_RUN:
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        database["NAME"] = f"{test_name}_{worker}" if worker else test_name  # as pytest-django names it
    return database


def _sqlite(alias: str) -> dict[str, Any]:
    """Return a file database with the options that the app asks of SQLite.

    The test database is a file too (Django's default is in memory), so that several processes can use it.
    """
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(RUN_FILES / f"{RUN}_{alias}.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
    return _for_this_run(database, str(RUN_FILES / f"{RUN}_test_{alias}.sqlite3"))


def _default_database() -> dict[str, Any]:
    """Return SQLite, or PostgreSQL or MariaDB where ``DATABASE_URL`` names one."""
    if not env.str("DATABASE_URL", default=""):
        return _sqlite("default")
    database: dict[str, Any] = _for_this_run(env.db_url("DATABASE_URL"), RUN)
    if database["ENGINE"] == "django.db.backends.postgresql":
        # No test cuts the power: a commit need not wait for the disk.
        database["OPTIONS"] = {"options": "-c synchronous_commit=off"}
    if database["ENGINE"] == "django.db.backends.mysql":
        database["TEST"]["CHARSET"] = "utf8mb4"
    if database["ENGINE"] == "django.db.backends.sqlite3":
        database.update({key: value for key, value in _sqlite("default").items() if key != "NAME" or INHERITED_RUN})
    return database


DATABASES = {"default": _default_database(), "other": _sqlite("other")}

# Django 6.1 warns where it is not there; before that nobody reads it.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

# The app's defaults: a local server on its default ports. A test that talks to a server overrides this.
RESTATE: dict[str, Any] = {}
