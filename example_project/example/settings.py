"""Settings of the example project. Each one that a machine may want otherwise is read from the environment.

``DATABASE_URL``, ``CELERY_BROKER_URL``, ``RESTATE_INGRESS_URL`` and ``RESTATE_ADMIN_URL`` point it at real servers;
without them it keeps everything under ``.demo`` and looks for Restate on its default ports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ

import folder_broker
from restate_django.tasks import beat_schedule

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.str("SHOP_DATA", default=str(BASE_DIR / ".demo")))
DATA_DIR.mkdir(parents=True, exist_ok=True)

# ---------------------------------------------------------------- Django

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env.str("SECRET_KEY", default="this-shop-sells-nothing")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "restate_django",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "example.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"
ASGI_APPLICATION = "example.asgi.application"
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
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES: dict[str, Any] = {"default": env.db("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'shop.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes write: take the lock at a transaction's begin, wait for it, and let readers read meanwhile.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

# ---------------------------------------------------------------- Restate

RESTATE = {
    "default": {
        "INGRESS_URL": env.str("RESTATE_INGRESS_URL", default="http://localhost:8080"),
        "ADMIN_URL": env.str("RESTATE_ADMIN_URL", default="http://localhost:9070"),
        "TOKEN": env.str("RESTATE_TOKEN", default="") or None,
        "DELIVERY": env.str("RESTATE_DELIVERY", default="on_commit"),
    },
}

# ---------------------------------------------------------------- Celery

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="filesystem://")
if CELERY_BROKER_URL.startswith("filesystem:"):
    CELERY_BROKER_TRANSPORT = "folder_broker:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = folder_broker.options(DATA_DIR / "broker")
CELERY_TASK_IGNORE_RESULT = True
# Nobody steers this worker from elsewhere, and its mailbox would only be more files to look at.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
# Every second: in a demo, people watch. The default of two is fine elsewhere.
CELERY_BEAT_SCHEDULE = beat_schedule(deliver=1, poll=1)

# ---------------------------------------------------------------- the shop

# Seconds that each step of an order or an answer takes, so that people can watch, and cancel in time.
SHOP_PACE = env.float("SHOP_PACE", default=3.0)
