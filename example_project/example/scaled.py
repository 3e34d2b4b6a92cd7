"""The example on several hosts: PostgreSQL, Redis, a cluster of Restate servers, and workers with a part of it each.

``DJANGO_SETTINGS_MODULE=example.scaled`` on every host, with the same environment. ``Procfile`` has the processes, and
``restate.toml`` what each Restate server reads. Nothing has a default here that would be another thing on each host.
"""

from __future__ import annotations

from typing import Any

from example.settings import *  # noqa: F403 - these are the example's settings, and some more
from example.settings import env
from restate_django.tasks import beat_schedule

DEBUG = False
SECRET_KEY = env.str("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS")

DATABASES: dict[str, Any] = {"default": env.db("DATABASE_URL")}
# A process keeps its connection for a while, and finds out in time that it is dead.
DATABASES["default"] |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}

# ---------------------------------------------------------------- Restate

# The balancer before the ingresses of all nodes, and the one before their Admin APIs: any node answers for all.
_CLUSTER = {
    "INGRESS_URL": env.str("RESTATE_INGRESS_URL"),
    "ADMIN_URL": env.str("RESTATE_ADMIN_URL"),
}
RESTATE = {
    # What pages send: a task for each row, so that no page waits for Restate.
    "default": {**_CLUSTER, "DELIVERY": "celery"},
    # The same cluster by another name. Its rows are taken by workers of their own: a night's import of a million does
    # not stand before what somebody waits for.
    "bulk": {**_CLUSTER, "DELIVERY": "relay", "CONCURRENCY": 16},
}

# ---------------------------------------------------------------- Celery

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL")
# The pages' own tasks go where the sweeps of their connection go.
CELERY_TASK_ROUTES = {"restate_django.send_one": {"queue": "restate"}}
CELERY_BEAT_SCHEDULE = {
    **beat_schedule(connections=["bulk"], queue="restate-bulk"),
    **beat_schedule(connections=["default"], queue="restate"),
}
