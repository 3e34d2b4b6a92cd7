"""How much work a database does for some queries: what is held is the work, not the name of a plan.

SQLite counts the steps of its virtual machine, MariaDB and MySQL the rows that its handlers read, PostgreSQL the rows
that the nodes of each plan touched.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

from django.db import connection
from django.test.utils import CaptureQueriesContext

_SQLITE_STEP = 20


class Work:
    """The work of a block, readable after it."""

    amount = 0


@contextmanager
def work_done():
    """Measure the work that the block's queries make for the default database."""
    work = Work()
    measure = {"sqlite": _sqlite, "mysql": _mysql, "postgresql": _postgresql}[connection.vendor]
    with measure(work):
        yield work


@contextmanager
def _sqlite(work):
    connection.ensure_connection()

    def count():
        work.amount += _SQLITE_STEP
        return 0

    connection.connection.set_progress_handler(count, _SQLITE_STEP)
    try:
        yield
    finally:
        connection.connection.set_progress_handler(None, 0)


@contextmanager
def _mysql(work):
    def rows_read():
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%%'")
            return sum(int(value) for _name, value in cursor.fetchall())

    before = rows_read()
    yield
    work.amount = rows_read() - before


@contextmanager
def _postgresql(work):
    with CaptureQueriesContext(connection) as queries:
        yield
    for query in list(queries.captured_queries):
        if not query["sql"].lstrip().upper().startswith(("SELECT", "WITH")):
            continue
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + query["sql"].replace("%", "%%"))
            plan = cursor.fetchone()[0]
        work.amount += _rows_of((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])


def _rows_of(node):
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return rows * node["Actual Loops"] + sum(_rows_of(child) for child in node.get("Plans", ()))


def analyze():
    """Let the database learn what is in its tables, as it does by itself in time."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Of a disk that need not turn. With the cost of one that does, a small table is best read as a whole.
            cursor.execute("SET random_page_cost = 1.1")
        if connection.vendor == "mysql":
            cursor.execute("ANALYZE TABLE restate_django_invocation")
            cursor.fetchall()
        else:
            cursor.execute("ANALYZE restate_django_invocation")
