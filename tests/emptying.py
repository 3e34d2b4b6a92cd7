"""Empty the tables after a test with real transactions, and only those that it wrote to.

Django's ``flush`` truncates every table and then makes each content type and permission anew. That took two thirds of
the time of such a test on PostgreSQL, and there are a thousand of them.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction

# What migrations put there, and every test finds.
_KEPT = {"django_migrations", "django_content_type", "auth_permission"}


def empty_tables_that_were_written_to(test_case: Any) -> None:
    """Stand in for ``TransactionTestCase._fixture_teardown``."""
    for alias in test_case._databases_names(include_mirrors=False):
        connection = connections[alias]
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        tables = [connection.ops.quote_name(name) for name in names if name not in _KEPT]
        with connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables))
            written = [table for table, is_filled in zip(tables, cursor.fetchone(), strict=True) if is_filled]
        if not written:
            continue
        # Foreign keys are checked at the end (PostgreSQL, SQLite) or not at all (MariaDB): any order does.
        with connection.constraint_checks_disabled(), transaction.atomic(using=alias), connection.cursor() as cursor:
            for table in written:
                cursor.execute(f"DELETE FROM {table}")
