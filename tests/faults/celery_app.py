"""A project's ``celery.py``, with queues of this run's own: two runs on one broker do not meet."""

from __future__ import annotations

import os

from celery import Celery
from kombu import Queue

from restate_django.tasks import beat_schedule

NAME = os.environ.get("FAULTS_QUEUE", "faults")

app = Celery("faults", broker=os.environ.get("FAULTS_BROKER"))
app.conf.update(
    task_default_queue=NAME,
    # RabbitMQ removes it by itself, a while after its last user.
    task_queues=[Queue(NAME, NAME, expires=120)],
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"global_keyprefix": f"{NAME}:"} if "redis" in str(app.conf.broker_url) else {},
    beat_schedule=beat_schedule(deliver=0.5, poll=0.5),
)
app.set_default()
