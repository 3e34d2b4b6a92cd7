"""The different values of an indexed column, found by jumping from one to the next.

``SELECT DISTINCT`` reads the whole index on SQLite and PostgreSQL; this costs as many look-ups as there are values.
Imports the records alone.
"""

from __future__ import annotations

from typing import Final

from django.db import connections, router

from restate_django.models import Invocation

#: Values that a filter lists at most. More would not help a reader; the search finds the others.
LIMIT: Final = 50


def distinct_values(column: str, using: str | None = None, limit: int = LIMIT) -> list[str]:
    """Return the values of a text column that begins an index, in order, without the empty one. One query.

    Args:
        column: The field's name.
        using: The database alias; the router's for reading by default.
        limit: Values at most.
    """
    connection = connections[using or router.db_for_read(Invocation)]
    quote = connection.ops.quote_name
    name = quote(str(getattr(Invocation._meta.get_field(column), "column")))  # noqa: B009 - a relation has none
    table = quote(Invocation._meta.db_table)
    if connection.vendor == "mysql":
        # Its optimizer jumps by itself where it groups by an index, and does not inside a recursive query.
        sql = f"SELECT DISTINCT {name} FROM {table} WHERE {name} > '' ORDER BY {name} LIMIT {int(limit)}"  # noqa: S608 - names from the model, and an integer
    else:
        sql = (
            f"WITH RECURSIVE jump(value) AS (SELECT MIN({name}) FROM {table} WHERE {name} > ''"  # noqa: S608 - as above
            f" UNION ALL SELECT (SELECT MIN({name}) FROM {table} WHERE {name} > jump.value AND {name} > '') FROM jump"
            f" WHERE jump.value IS NOT NULL) SELECT value FROM jump WHERE value IS NOT NULL LIMIT {int(limit)}"
        )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [value for (value,) in cursor.fetchall()]
