"""The Celery tasks: each is one call of a verb, may run twice at once, and may be lost without harm.

Can be imported before the app registry is ready (a project's ``celery.py`` does): the verbs are imported when a task
runs. Imports nothing else of the package.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from celery import shared_task

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds that one run of a sweep may take, so that a queue of them does not build up behind a slow server.
SWEEP_BUDGET: Final = 50.0
# Celery compares an entry's expiry with the worker's clock: narrower than this, a skewed clock would drop every run.
_MIN_EXPIRES: Final = 60


@shared_task(name="restate_django.deliver", ignore_result=True)
def deliver(connections: list[str] | None = None) -> dict[str, int]:
    """Send the rows that are due. See ``jobs.deliver``.

    Args:
        connections: Of these connections alone; of all by default.
    """
    from restate_django import jobs

    return dict(jobs.deliver(budget=SWEEP_BUDGET, connections=connections))


@shared_task(name="restate_django.poll", ignore_result=True)
def poll(connections: list[str] | None = None) -> dict[str, int]:
    """Ask about the rows that are due. See ``jobs.poll``.

    Args:
        connections: Of these connections alone; of all by default.
    """
    from restate_django import jobs

    return dict(jobs.poll(budget=SWEEP_BUDGET, connections=connections))


@shared_task(name="restate_django.prune", ignore_result=True)
def prune() -> dict[str, int]:
    """Delete old finished rows. See ``jobs.prune``."""
    from restate_django import jobs

    return dict(jobs.prune())


@shared_task(name="restate_django.send_one", ignore_result=True)
def send_one(pk: str, using: str) -> dict[str, int]:
    """Send one row now, for ``"DELIVERY": "celery"``. Does nothing if another worker has it. See ``deliver_now``.

    Args:
        pk: The row's primary key.
        using: Its database alias.
    """
    from restate_django import delivery

    return dict(delivery.deliver_now([uuid.UUID(pk)], using))


def beat_schedule(
    *,
    deliver: float = 2,
    poll: float = 2,
    prune: float = 3600,
    connections: Iterable[str] | None = None,
    queue: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the entries for ``app.conf.beat_schedule``.

    Reads no settings, so it can be called while Celery's app is being made::

        app.conf.beat_schedule = {**beat_schedule(), ...}

    Workers can be given a part of the connections each, by entries of their own on a queue of their own::

        {
            **beat_schedule(connections=["eu"], queue="restate-eu"),
            **beat_schedule(connections=["us"], queue="restate-us"),
        }

    Args:
        deliver: Seconds between two sweeps for rows to send.
        poll: Seconds between two sweeps for rows to ask about.
        prune: Seconds between two clean-ups. They are always of all connections.
        connections: Whose rows are sent and asked about; all by default. Each must be in one schedule at least.
        queue: Where the tasks are put; by default where Celery routes them.

    Returns:
        Entries by the names of the tasks, and of the connections where they are given. Each expires, so that a stopped
        worker does not find a day of them.
    """
    shard = None if connections is None else list(connections)
    entries: dict[str, dict[str, Any]] = {}
    for name, seconds in (("deliver", deliver), ("poll", poll), ("prune", prune)):
        task = f"restate_django.{name}"
        entry: dict[str, Any] = {
            "task": task,
            "schedule": seconds,
            "options": {"expires": max(_MIN_EXPIRES, int(2 * seconds))},
        }
        if queue is not None:
            entry["options"]["queue"] = queue
        if shard is None or name == "prune":
            entries[task] = entry
        else:
            entries[f"{task}[{','.join(shard)}]"] = {**entry, "kwargs": {"connections": shard}}
    return entries
