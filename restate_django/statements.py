"""The two statements that every send waits for: the INSERT of a row and the UPDATE that writes back what became of it.

Django compiles each anew, expression by expression, which takes as long as the database takes to do it. Their texts are
few, so each is written once and kept. They run on Django's own cursor: logged, counted, wrapped and marked for a
roll-back as every other. A nullable column that has nothing to say is left out. Imports nothing of the package.
"""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from typing import TYPE_CHECKING, Any, Final

from django.db import connections, models, transaction
from django.db.models import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

# Columns whose plain values every driver takes as they are.
_PLAIN: Final = (models.CharField, models.TextField, models.IntegerField, models.BooleanField)
_PLAIN_VALUES: Final = frozenset({str, int, bool})
# PostgreSQL has types for these as well.
_NATIVE: Final = (*_PLAIN, models.DateTimeField, models.UUIDField)
_NATIVE_VALUES: Final = _PLAIN_VALUES | {dt.datetime, uuid.UUID}


def insert(row: models.Model, using: str) -> None:
    """Write a new row, with the signals of ``save``.

    Args:
        row: An unsaved row, complete with its primary key, whose columns have values and no expressions.
        using: The database alias.

    Raises:
        DatabaseError: It was refused.
    """
    model = type(row)
    signals.pre_save.send(sender=model, instance=row, raw=False, using=using, update_fields=None)
    database = connections[using]
    prepare = _preparer(database)
    names, values = [], []
    for name, field in _columns(model):
        value = row.__dict__[name]
        if value is None:
            continue
        is_blank = value == ""
        names.append((name, is_blank))
        if not is_blank:
            values.append(prepare(field, value))
    with transaction.mark_for_rollback_on_error(using=using), database.cursor() as cursor:
        cursor.execute(_insert(database.vendor, model, tuple(names)), values)
    row._state.adding = False
    row._state.db = using
    signals.post_save.send(sender=model, instance=row, created=True, raw=False, using=using, update_fields=None)


def update_where(
    model: type[models.Model], using: str, changes: dict[str, Any], where: Sequence[tuple[str, Any]]
) -> int:
    """Write columns of the rows that are as they were read. Tells how many there were.

    Args:
        model: Whose table.
        using: The database alias.
        changes: Names of fields and their new values, none of them an expression.
        where: Names of fields and the values that are compared, None for null.

    Raises:
        DatabaseError: A value was refused.
    """
    database = connections[using]
    prepare = _preparer(database)
    meta = model._meta
    compared = tuple((name, value is None) for name, value in where)
    values = [prepare(meta.get_field(name), value) for name, value in changes.items()]
    values += [prepare(meta.get_field(name), value) for name, value in where if value is not None]
    with transaction.mark_for_rollback_on_error(using=using), database.cursor() as cursor:
        cursor.execute(_update(database.vendor, model, tuple(changes), compared), values)
        return int(cursor.rowcount)


def _preparer(database: BaseDatabaseWrapper) -> Callable[[Any, Any], Any]:
    """Return what makes a column's value one that the driver takes."""
    is_native = database.vendor == "postgresql"
    fields, types = (_NATIVE, _NATIVE_VALUES) if is_native else (_PLAIN, _PLAIN_VALUES)

    def prepare(field: Any, value: Any) -> Any:
        if value is None or (type(value) in types and isinstance(field, fields)):
            return value
        return field.get_db_prep_save(value, database)

    return prepare


@functools.cache
def _columns(model: type[models.Model]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.attname, field) for field in model._meta.concrete_fields)


# The names are the model's own, quoted as its database does; every value is a parameter.


@functools.lru_cache(maxsize=256)
def _insert(vendor: str, model: type[models.Model], names: tuple[tuple[str, bool], ...]) -> str:
    columns = ", ".join(_column(vendor, model, name) for name, _is_blank in names)
    # A parameter costs a driver more than the database, and a third of them are empty texts.
    marks = ", ".join("''" if is_blank else "%s" for _name, is_blank in names)
    return f"INSERT INTO {_quote(vendor)(model._meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608 - as said


@functools.lru_cache(maxsize=256)
def _update(vendor: str, model: type[models.Model], names: tuple[str, ...], where: tuple[tuple[str, bool], ...]) -> str:
    written = ", ".join(f"{_column(vendor, model, name)} = %s" for name in names)
    compared = " AND ".join(f"{_column(vendor, model, name)} {'IS NULL' if null else '= %s'}" for name, null in where)
    return f"UPDATE {_quote(vendor)(model._meta.db_table)} SET {written} WHERE {compared}"  # noqa: S608 - as said


def _column(vendor: str, model: type[models.Model], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return _quote(vendor)(field.column)


def _quote(vendor: str) -> Callable[[str], str]:
    """Return how a database's names are quoted, as any connection to one of its kind says."""
    return next(database.ops.quote_name for database in connections.all() if database.vendor == vendor)
