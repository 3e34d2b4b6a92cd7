"""Which transaction this is: a name for the open one, so that what it recorded can be told from its neighbours.

No database's own number serves: SQLite and MySQL tell none, and asking would cost each ``send`` a query. Imports Django
and ``ids``; it registers nothing, so a test that counts ``on_commit`` callbacks finds no more of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import transaction

from restate_django.ids import uuid7

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

#: Where a database connection and a callback keep the name.
_NAME: Final = "_restate_django_transaction"


def current(using: str) -> uuid.UUID | None:
    """Return the name of the open transaction; None where there is none, and each statement commits by itself.

    It is a version 7 UUID made when it was first asked for, so it sorts before the primary keys that are made after it.
    Django replaces the list of a connection's callbacks with each transaction's end, so that very list tells one from
    the next. It does so when a savepoint is rolled back as well: the callbacks that are left know the name then.

    Args:
        using: The database alias.
    """
    database = transaction.get_connection(using)
    if not database.in_atomic_block:
        return None
    callbacks = database.run_on_commit
    held: tuple[list[Any], uuid.UUID] | None = getattr(database, _NAME, None)
    if held is not None and held[0] is callbacks:
        return held[1]
    names = (getattr(callback, _NAME, None) for _savepoints, callback, *_robust in callbacks)
    name: uuid.UUID = next((name for name in names if name is not None), None) or uuid7()
    setattr(database, _NAME, (callbacks, name))
    return name


def named(callback: Callable[[], object], name: uuid.UUID | None) -> Callable[[], object]:
    """Let a callback carry the name of the transaction that it waits for."""
    if name is not None:
        setattr(callback, _NAME, name)
    return callback
