"""A project's Celery app, for tests that run a beat and a worker. Its broker is a folder, named by ``BEAT_FOLDER``."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

import folder_broker
from restate_django.tasks import beat_schedule

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.asgi_settings")
FOLDER = Path(os.environ["BEAT_FOLDER"])

app = Celery("tests", broker="filesystem://")
app.conf.update(
    broker_transport="folder_broker:Transport",
    beat_schedule=beat_schedule(deliver=0.5, poll=0.5, prune=5),
    beat_schedule_filename=str(FOLDER / "schedule"),
    broker_connection_retry_on_startup=True,
    broker_transport_options=folder_broker.options(FOLDER),
    worker_enable_remote_control=False,
)
app.autodiscover_tasks()
