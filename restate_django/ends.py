"""Writing down how invocations ended, many at a time; no answer of a handler can leave its row open.

Imports the records and the floors below.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.transaction import get_connection as connection_of

from restate_django.logs import get_logger, trouble
from restate_django.models import Invocation
from restate_django.querysets import unless_deadlocked

logger = get_logger("restate_django.polling")

# Bytes of an output above which it is written alone and at once, so that no statement gets large, nor this process.
LARGE: Final = 16 * 1024


def end(row: Invocation, changes: dict[str, Any], using: str) -> str:
    """Write the end of a row whose lease is ours. Returns its status, or ``""`` where somebody else was faster."""
    return str(row.status) if write_end(row, changes, using, leased=True) else ""


def write_ends(ended: list[tuple[Invocation, dict[str, Any]]], using: str) -> Counter[str]:
    """Write ends, many at a time; what the database refuses among them, one by one."""
    done: Counter[str] = Counter()
    alone = [each for each in ended if (each[1].get("output_size") or 0) > LARGE]
    small = [each for each in ended if (each[1].get("output_size") or 0) <= LARGE]
    for group, together in Invocation.objects.using(using).write_groups(small):
        if together:
            done.update(str(row.status) for row, _changes in group)
        else:
            alone += group
    for row, changes in alone:
        if status := end(row, changes, using):
            done[status] += 1
    return done


def write_end(row: Invocation, changes: dict[str, Any], using: str, *, leased: bool) -> bool:
    """Write an end; where the database refuses a value that we held for storable, without that value."""
    lease: dict[str, Any] = {"lease": row.lease_token} if leased else {}
    try:
        return _write_unless_deadlocked(row, using, lease | changes)
    except (DatabaseError, ValueError, OverflowError) as error:
        if isinstance(error, OperationalError | InterfaceError) and not _is_usable(using):
            raise
        # Drivers refuse some values themselves, before the database sees them.
        words = trouble(error) if isinstance(error, DatabaseError) else type(error).__name__
        logger.error("The outcome of invocation %s could not be stored as it is: %s", row.pk, words, row=row)
        bare = {
            "output": None,
            "output_bytes": None,
            "failure_metadata": None,
            "failure_message": "",
            "last_failure": "",
        }
        kept = {name: bare.get(name, value) for name, value in changes.items()}
        return Invocation.objects.using(using).write_back(row, **lease, **kept)


def _write_unless_deadlocked(row: Invocation, using: str, changes: dict[str, Any]) -> bool:
    return bool(unless_deadlocked(lambda: int(Invocation.objects.using(using).write_back(row, **changes)), using))


def _is_usable(using: str) -> bool:
    """Tell a database that refuses a value from one that is not there."""
    return bool(connection_of(using).is_usable())
