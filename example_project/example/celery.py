"""The Celery app: a worker and a beat for the jobs of restate_django, and nothing else. The settings have the schedule.

``celery -A example worker`` and ``celery -A example beat`` run it.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

app = Celery("example")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
