"""Many new rows by the shortest way that a database has: ``COPY`` on PostgreSQL, one prepared INSERT elsewhere.

Django's ``bulk_create`` compiles an expression for each value of each row, which costs more than the database takes to
store it. Here a column that says the same in every row is prepared once, and a nullable one that says nothing is left
out. Imports the model, and nothing else of the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import connections, router, transaction

from restate_django.models import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

# Whose drivers make something of executemany(). Another database takes Django's own way.
_PREPARES: Final = frozenset({"sqlite", "mysql"})


def insert_many(rows: Sequence[Invocation], using: str | None = None) -> None:
    """Write new rows, all of them or none. No ``save`` signals are sent, as by ``bulk_create``.

    Args:
        rows: Unsaved rows, complete with their primary keys.
        using: The database alias; the router's for writing by default.

    Raises:
        DatabaseError: One of them was refused, by a constraint say. None was written.
    """
    if not rows:
        return
    alias = using or router.db_for_write(Invocation)
    database = connections[alias]
    with transaction.atomic(using=alias, savepoint=False):
        if len(rows) == 1 or not _insert(rows, database):
            Invocation.objects.using(alias).bulk_create(rows)
    for row in rows:
        row._state.adding = False
        row._state.db = alias


def _insert(rows: Sequence[Invocation], database: BaseDatabaseWrapper) -> bool:
    """Write rows by the database's own way. Tells whether there is one."""
    copies = database.vendor == "postgresql" and _has_copy(database)
    if not copies and database.vendor not in _PREPARES:
        return False
    names, columns = _prepared(rows, database)
    quote = database.ops.quote_name
    table = quote(Invocation._meta.db_table)
    into = f"{table} ({', '.join(map(quote, names))})"
    if copies:
        with database.cursor() as cursor, database.wrap_database_errors:
            statement: Any = cursor.cursor
            with statement.copy(f"COPY {into} FROM STDIN") as copy:
                for values in zip(*columns, strict=True):
                    copy.write_row(values)
        return True
    marks = ", ".join(["%s"] * len(names))
    with database.cursor() as cursor:
        # The names are the model's own, and every value is a parameter.
        cursor.executemany(f"INSERT INTO {into} VALUES ({marks})", list(zip(*columns, strict=True)))  # noqa: S608 - as said
    return True


def _has_copy(database: BaseDatabaseWrapper) -> bool:
    """Tell whether the driver is psycopg 3: psycopg2 copies from files."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    database.ensure_connection()
    return bool(is_psycopg3)


def _prepared(rows: Sequence[Invocation], database: BaseDatabaseWrapper) -> tuple[list[str], list[Iterable[Any]]]:
    """Return the names of the columns that have something to say, and for each the values of all rows."""
    names: list[str] = []
    columns: list[Iterable[Any]] = []
    for field in Invocation._meta.concrete_fields:
        values = [row.__dict__[field.attname] for row in rows]
        first = values[0]
        if all(value is first for value in values):
            if first is None:
                continue
            prepared = field.get_db_prep_save(first, database)
            columns.append([prepared] * len(rows))
        else:
            columns.append(_each(field, values, database))
        names.append(str(field.column))
    return names, columns


def _each(field: Any, values: list[Any], database: BaseDatabaseWrapper) -> Iterator[Any]:
    prepare = field.get_db_prep_save
    return (prepare(value, database) for value in values)
