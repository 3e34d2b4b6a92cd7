"""What the project's Celery app schedules of the periodic jobs. Nothing is imported where the project has no such app.

Imports nothing of the package.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery

#: The tasks that somebody must start again and again.
TASKS: Final = ("restate_django.deliver", "restate_django.poll", "restate_django.prune")
# Those of them that can be told to take the rows of some connections.
_SWEEPS: Final = TASKS[:2]
# The one that reads ``app.conf.beat_schedule``. Others keep their entries elsewhere, and may have more.
_PLAIN_SCHEDULER: Final = "celery.beat:PersistentScheduler"


def project_app() -> Celery | None:
    """Return the project's Celery app, None where it has none: nobody has made one current."""
    celery: Any = sys.modules.get("celery")
    if celery is None:
        return None
    app = celery.current_app
    # The one that Celery makes up where there is none.
    is_made_up = app.main == "default" and not app.set_as_current
    return None if is_made_up else app._get_current_object()


def schedule_is_seen(app: Celery) -> bool:
    """Tell whether an app's schedule is in its configuration, and not in a database, say.

    Args:
        app: The app. Its configuration is read.
    """
    return app.conf.beat_scheduler == _PLAIN_SCHEDULER and not apps.is_installed("django_celery_beat")


def missing_tasks(app: Celery) -> list[str]:
    """Return which of the jobs' tasks an app's own schedule lacks.

    Args:
        app: The app. Its configuration is read.

    Returns:
        Their names; none where the schedule can't be seen.
    """
    if not schedule_is_seen(app):
        return []
    there = {entry.get("task") for entry in (app.conf.beat_schedule or {}).values()}
    return [task for task in TASKS if task not in there]


def connections_left_out(app: Celery, aliases: Iterable[str]) -> list[str]:
    """Return the connections whose rows no entry sends, or none asks about: each entry may be for some of them alone.

    Args:
        app: The app. Its configuration is read.
        aliases: The connections that there are.

    Returns:
        Their names; none where the schedule can't be seen.
    """
    if not schedule_is_seen(app):
        return []
    named: dict[str, list[Any]] = {}
    for entry in (app.conf.beat_schedule or {}).values():
        named.setdefault(str(entry.get("task")), []).append((entry.get("kwargs") or {}).get("connections"))
    sweeps = [named.get(task, []) for task in _SWEEPS]
    return [alias for alias in aliases if not all(any(_takes(part, alias) for part in parts) for parts in sweeps)]


def _takes(connections: Any, alias: str) -> bool:
    # Without the argument it takes those of all.
    return connections is None or alias in connections
