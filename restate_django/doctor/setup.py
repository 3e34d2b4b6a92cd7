"""The settings, by the system checks, and Celery: whether it starts the jobs, and whether its broker is there.

Imports the checks, the settings, ``schedules`` and ``contrib.beat``.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from typing import TYPE_CHECKING, Final

from django.core import checks as django_checks
from django.db import DatabaseError

from restate_django.checks import TAG
from restate_django.conf import all_settings
from restate_django.contrib import beat
from restate_django.doctor.lines import Level, Line
from restate_django.logs import trouble
from restate_django.schedules import missing_tasks, project_app, schedule_is_seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

#: Seconds that a broker may take to let somebody in.
BROKER_TIMEOUT: Final = 3


def settings() -> Iterator[Line]:
    """Yield what the system checks of the app find."""
    found = [each for each in django_checks.run_checks(tags=[TAG]) if not each.is_silenced()]
    for each in found:
        level = Level.ERROR if each.level >= django_checks.ERROR else Level.WARNING
        yield Line(level, "settings", f"{each.msg} ({each.id})", str(each.hint or ""))
    if not found:
        every = all_settings()
        names = ", ".join(every)
        yield Line(Level.OK, "settings", f"RESTATE is fine, as far as it can be read. Connections: {names}.")


def celery() -> Iterator[Line]:
    """Yield how Celery is, where the project uses it."""
    app = project_app()
    if app is None:
        yield Line(Level.NOTE, "celery", "This project has no Celery app. restate_relay or cron runs the jobs.")
        return
    # That the schedule lacks them, the checks have said; whether they run, the database has.
    if beat.is_installed():
        yield from _entries()
    elif not schedule_is_seen(app):
        yield Line(Level.NOTE, "celery", f"The beat schedule of the app {app.main!r} can't be seen from here.")
    elif not missing_tasks(app):
        yield Line(Level.OK, "celery", f"The beat schedule of the app {app.main!r} has all jobs.")
    fault = _broker_fault(app)
    if fault:
        yield Line(
            Level.ERROR,
            "celery",
            f"The broker does not let us in: {fault}",
            "Start it, or correct the broker's URL. Rows are safe, and wait.",
        )
    else:
        yield Line(Level.OK, "celery", "The broker answers.")


def _entries() -> Iterator[Line]:
    """Yield how the entries in django-celery-beat's tables are."""
    try:
        missing = beat.missing_tasks()
    except DatabaseError as error:
        yield Line(
            Level.ERROR, "celery", f"django-celery-beat's tables can't be read: {trouble(error)}.", "Run migrate."
        )
        return
    if missing:
        text = f"django-celery-beat has no entry that is switched on for {', '.join(missing)}."
        yield Line(Level.WARNING, "celery", text, "Run manage.py restate beat, unless restate_relay or cron runs them.")
    else:
        yield Line(Level.OK, "celery", "django-celery-beat has an entry for each of the jobs.")


def _broker_fault(app: Celery) -> str:
    """Return what keeps us from the broker. A thread asks: some transports know no time-out."""
    done: Future[None] = Future()

    def connect() -> None:
        try:
            with app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
        except BaseException as error:  # noqa: BLE001 - each transport raises its own
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=connect, name="restate-django-doctor", daemon=True).start()
    try:
        done.result(BROKER_TIMEOUT + 1)
    except NotDone:
        return f"no answer within {BROKER_TIMEOUT} s."
    except Exception as error:  # noqa: BLE001 - as above. An error may name the URL with its password: its kind alone.
        return f"{type(error).__name__}."
    return ""
