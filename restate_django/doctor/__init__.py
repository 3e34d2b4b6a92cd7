"""``restate doctor``: goes through all that must be right for invocations to reach Restate and to come back.

Each module looks at one thing and yields its lines: ``setup`` at the settings and Celery, ``servers`` at a connection's
Restate, ``storage`` at a database. All reads are bounded, nothing is changed, and what can't be looked at is a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.utils import translation

from restate_django.conf import all_settings
from restate_django.doctor import servers, setup, storage
from restate_django.doctor.lines import Level, Line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Level", "Line", "examine"]


def examine(connection: str | None = None) -> Iterator[Line]:
    """Look at everything, one thing after the other, and yield what is found.

    Args:
        connection: A connection of ``RESTATE``; all of them, with all the databases that they sweep, by default.
    """
    yield from _in_english(setup.settings())
    try:
        chosen = [each for each in all_settings().values() if connection in {None, each.alias}]
    except ImproperlyConfigured:
        # That was the first line.
        return
    for each in chosen:
        yield from _in_english(servers.connection(each))
    for using in dict.fromkeys(alias for each in chosen for alias in each.databases):
        yield from _in_english(storage.database(using))
    yield from _in_english(setup.celery())


def _in_english(lines: Iterator[Line]) -> Iterator[Line]:
    """Make lines in one language: a log, and whoever is asked for help, should not need the site's own."""
    while True:
        with translation.override("en"):
            line = next(lines, None)
        if line is None:
            return
        yield line
