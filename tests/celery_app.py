"""A project's ``celery.py``, for the workers that ``test_celery`` starts and for the test itself.

A queue of the test's own, on RabbitMQ or in a folder: that broker every machine has.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue

import folder_broker


def make_app(broker: str, folder: str, queue: str, **conf: Any) -> Celery:
    """Make an app.

    Args:
        broker: The broker's URL.
        folder: Where messages lie if it is ``filesystem://``.
        queue: The default queue.
        conf: What a project would put into its configuration.
    """
    app = Celery("tests", broker=broker, include=["restate_django.tasks"], set_as_current=False)
    if broker.startswith("filesystem"):
        app.conf.broker_transport = "folder_broker:Transport"
        app.conf.broker_transport_options = folder_broker.options(Path(folder))
    app.conf.update(
        broker_connection_retry_on_startup=True,
        task_default_queue=queue,
        # RabbitMQ removes it by itself, a while after its last user.
        task_queues=[Queue(name, name, expires=120) for name in (queue, f"{queue}-restate")],
        worker_enable_remote_control=False,
    )
    app.conf.update(conf)
    return app


if "CELERY_TEST_APP" in os.environ:
    app = make_app(**json.loads(os.environ["CELERY_TEST_APP"]))
    app.set_default()
