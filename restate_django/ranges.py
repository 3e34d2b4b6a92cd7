"""Counts up to a limit and the newest keys of ranges of an index: never a count or a sort of the whole table.

Rows of several statuses are merged from one index range per status: an index on (status, id) gives each range in order,
where ``status IN (...) ORDER BY id`` makes a database sort everything that matches. Such ranges are given as
conditions, one for each. Imports nothing of the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Mapping, Sequence

    from django.db.models import Q

    from restate_django.querysets import InvocationQuerySet


def count_up_to(rows: InvocationQuerySet, limit: int, ranges: Sequence[Q] = ()) -> int:
    """Count rows, and stop at a limit. One query.

    Args:
        rows: The rows.
        limit: Where to stop.
        ranges: The ranges of an index that they are narrowed to, where there are several.
    """
    unordered = rows.order_by()
    sql, params = _merged([unordered.filter(each) for each in ranges] or [unordered], limit)
    if not sql:
        return 0
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM (SELECT 1 FROM ({sql}) merged LIMIT {int(limit)}) counted", params)  # noqa: S608 - the ORM's SQL and integers
        return int(cursor.fetchone()[0])


def counts_up_to(rows: InvocationQuerySet, limit: int, ranges: Mapping[str, Q]) -> dict[str, int]:
    """Count the rows of several ranges of an index, each to a limit. One query.

    Args:
        rows: The rows.
        limit: Where each count stops.
        ranges: The ranges, by the names that the counts are returned under.
    """
    parts: list[str] = []
    params: list[Any] = []
    names = list(ranges)
    for index, each in enumerate(ranges.values()):
        sql, range_params = _merged([rows.order_by().filter(each)], limit)
        parts.append(f"SELECT {index}, COUNT(*) FROM ({sql}) range_{index}" if sql else f"SELECT {index}, 0")  # noqa: S608 - the ORM's SQL and integers
        params.extend(range_params)
    with connections[rows.db].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), params)
        return {names[index]: count for index, count in cursor.fetchall()}


def newest_keys(rows: InvocationQuerySet, limit: int, ranges: Sequence[Q], *, skip: int = 0) -> list[uuid.UUID]:
    """Return the primary keys of the newest rows, in order, merged from ranges of an index. One query.

    Args:
        rows: The rows.
        limit: Keys to return at most.
        ranges: The ranges; a row is in one of them at most.
        skip: Keys to leave out at the beginning.
    """
    end = skip + limit
    sql, params = _merged([rows.filter(each).order_by("-pk") for each in ranges], end)
    if not sql:
        return []
    query = f"SELECT merged.id FROM ({sql}) merged ORDER BY merged.id DESC LIMIT {int(limit)} OFFSET {int(skip)}"  # noqa: S608 - as above
    to_python = rows.model._meta.pk.to_python
    with connections[rows.db].cursor() as cursor:
        cursor.execute(query, params)
        return [to_python(value) for (value,) in cursor.fetchall()]


def _merged(branches: Iterable[InvocationQuerySet], limit: int) -> tuple[str, tuple[Any, ...]]:
    """Join queries by UNION ALL, each with its own limit, in a form that SQLite takes as well."""
    parts: list[str] = []
    params: list[Any] = []
    for index, branch in enumerate(branches):
        # Deferred columns and joins play no part in the choice of keys.
        query = branch.defer(None).select_related(None).values("id")[:limit].query
        try:
            branch_sql, branch_params = query.get_compiler(using=branch.db).as_sql()
        except EmptyResultSet:
            # The ORM knows already that nothing matches (a search that found no key).
            continue
        parts.append(f"SELECT id FROM ({branch_sql}) branch_{index}")  # noqa: S608 - the ORM's own SQL
        params.extend(branch_params)
    return " UNION ALL ".join(parts), tuple(params)
