"""The entries of the periodic tasks in django-celery-beat's tables (extra ``beat``), made and kept in step.

What an operator decided there stays: an entry that is switched off stays off, and one that has another schedule keeps
it, unless that is asked for by name. The tables are reached by the app registry: nothing is imported without them.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from restate_django.tasks import beat_schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

APP: Final = "django_celery_beat"
SCHEDULER: Final = "django_celery_beat.schedulers:DatabaseScheduler"
_PREFIX: Final = "restate_django."


class Step(enum.Enum):
    """What is done with an entry."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, and what was done with it.

    Attributes:
        name: Its name.
        step: What was done.
        schedule: When it runs, in words.
        enabled: Whether beat runs it.
        kept: What an operator decided, and was left alone: ``"disabled"``, ``"schedule"``.
    """

    name: str
    step: Step
    schedule: str
    enabled: bool
    kept: tuple[str, ...] = ()


def is_installed() -> bool:
    """Tell whether the tables are there to be written to."""
    return bool(apps.is_installed(APP))


def synchronize(
    *,
    seconds: Mapping[str, float] | None = None,
    connections: Iterable[str] | None = None,
    queue: str | None = None,
    enable: bool = False,
    dry_run: bool = False,
) -> list[Entry]:
    """Make the entries that are missing, and bring the others up to date.

    Args:
        seconds: Between two runs, by the task (``deliver``, ``poll``, ``prune``). What is named here is also set where
            an entry has another schedule; the others get ``beat_schedule``'s when they are made.
        connections: Whose rows are sent and asked about; all by default.
        queue: Where the tasks are put; where Celery routes them by default.
        enable: Switch on what is switched off.
        dry_run: Tell, and change nothing.

    Returns:
        The entries, then what was removed: entries for tasks that this version does not have.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed.
    """
    table = _table("PeriodicTask")
    given = dict(seconds or {})
    wanted = beat_schedule(**given, connections=connections, queue=queue)
    tasks = {str(entry["task"]) for entry in beat_schedule().values()}
    found: list[Entry] = []
    with transaction.atomic(using=table._default_manager.db):
        for name, entry in wanted.items():
            retimed = str(entry["task"]).removeprefix(_PREFIX) in given
            found.append(_one(table, name, entry, retimed=retimed, enable=enable, dry_run=dry_run))
        ours = table.objects.filter(name__startswith=_PREFIX, task__startswith=_PREFIX).order_by("name")
        found += [_removed(row, dry_run=dry_run) for row in ours.exclude(task__in=tasks)]
    return found


def remove(*, dry_run: bool = False) -> list[Entry]:
    """Remove all entries that :func:`synchronize` made, whatever became of them.

    Args:
        dry_run: Tell, and change nothing.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed.
    """
    table = _table("PeriodicTask")
    ours = table.objects.filter(name__startswith=_PREFIX, task__startswith=_PREFIX).order_by("name")
    with transaction.atomic(using=table._default_manager.db):
        return [_removed(row, dry_run=dry_run) for row in ours]


def missing_tasks() -> list[str]:
    """Return which of the jobs' tasks no entry starts: there is none, or it is switched off.

    Raises:
        ImproperlyConfigured: django-celery-beat is not installed.
    """
    tasks = [str(entry["task"]) for entry in beat_schedule().values()]
    there = _table("PeriodicTask").objects.filter(task__in=tasks, enabled=True).values_list("task", flat=True)
    return [task for task in tasks if task not in set(there)]


def _table(name: str) -> Any:
    if not is_installed():
        raise ImproperlyConfigured(
            f"{APP} is not in INSTALLED_APPS: pip install 'restate-django[beat]', and add it. Without it the entries "
            "are those of app.conf.beat_schedule: see restate_django.tasks.beat_schedule."
        )
    return apps.get_model(APP, name)


def _one(table: Any, name: str, entry: Mapping[str, Any], *, retimed: bool, enable: bool, dry_run: bool) -> Entry:
    period, every = _interval_of(entry["schedule"])
    options = entry["options"]
    wanted: dict[str, Any] = {"task": entry["task"], "args": "[]", "kwargs": json.dumps(entry.get("kwargs", {}))}
    if "queue" in options:
        wanted["queue"] = options["queue"]
    row = table.objects.select_for_update().filter(name=name).first()
    step = Step.CHANGED
    if row is None:
        row, step, retimed = table(name=name), Step.CREATED, True
    kept: list[str] = []
    is_timed = row.interval is not None and (row.interval.period, row.interval.every) == (period, every)
    if not is_timed and retimed:
        wanted |= {
            "interval": _interval(period, every, dry_run=dry_run),
            "crontab": None,
            "solar": None,
            "clocked": None,
        }
        # They expire, so that a stopped worker does not find a day of them.
        wanted["expire_seconds"] = options["expires"]
    elif not is_timed:
        kept.append("schedule")
    if not row.enabled and enable:
        wanted["enabled"] = True
    elif not row.enabled:
        kept.append("disabled")
    changed = [column for column, value in wanted.items() if not _is_same(column, getattr(row, column), value)]
    for column in changed:
        setattr(row, column, wanted[column])
    if changed and not dry_run:
        # By save(): that tells a beat that runs to read its entries again.
        row.save()
    return Entry(name, step if changed else Step.UNCHANGED, _when(row), row.enabled, tuple(kept))


def _removed(row: Any, *, dry_run: bool) -> Entry:
    entry = Entry(row.name, Step.REMOVED, _when(row), row.enabled)
    if not dry_run:
        row.delete()
    return entry


def _is_same(column: str, old: Any, new: Any) -> bool:
    if column in {"args", "kwargs"}:
        try:
            return bool(json.loads(old or "null") == json.loads(new))
        except ValueError:
            return False
    return bool(old == new)


def _interval_of(seconds: float) -> tuple[str, int]:
    """Return an interval in the words of django-celery-beat, which counts whole periods."""
    if float(seconds).is_integer():
        return "seconds", int(seconds)
    return "microseconds", round(seconds * 1_000_000)


def _interval(period: str, every: int, *, dry_run: bool) -> Any:
    table = _table("IntervalSchedule")
    # Nothing keeps two rows from saying the same.
    found = table.objects.filter(period=period, every=every).first()
    return found or (table(period=period, every=every) if dry_run else table.objects.create(period=period, every=every))


def _when(row: Any) -> str:
    return str(row.scheduler) if row.scheduler is not None else "never"
