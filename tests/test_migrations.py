"""The table's migrations: complete, reversible with rows in the table, and quiet in a project of any kind."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from restate_django.models import Invocation


@pytest.mark.django_db
@pytest.mark.parametrize("auto_field", ["AutoField", "BigAutoField", "SmallAutoField"])
def test_no_migration_is_missing(settings, auto_field):
    settings.DEFAULT_AUTO_FIELD = f"django.db.models.{auto_field}"
    call_command("makemigrations", "restate_django", check=True, dry_run=True, verbosity=0)


def leaves() -> list[tuple[str, str]]:
    """The newest migration of the app."""
    loader = MigrationExecutor(connection).loader
    return [key for key in loader.graph.leaf_nodes() if key[0] == "restate_django"]


@pytest.mark.django_db(transaction=True)
def test_every_migration_runs_back_and_forth_with_rows_in_the_table():
    """Each migration after the first is undone and done again with rows there; the first one then makes the table."""
    names = [name for app, name in MigrationExecutor(connection).loader.graph.nodes if app == "restate_django"]
    names.sort()
    row = Invocation.objects.create(service="Greeter", handler="greet", idempotency_key="k", payload={"a": 1})
    for name in reversed(names[:-1]):
        MigrationExecutor(connection).migrate([("restate_django", name)])
        assert _count() == 1
    MigrationExecutor(connection).migrate(leaves())
    assert Invocation.objects.get().pk == row.pk
    MigrationExecutor(connection).migrate([("restate_django", None)])
    assert Invocation._meta.db_table not in connection.introspection.table_names()
    MigrationExecutor(connection).migrate(leaves())
    assert not Invocation.objects.exists()


def _count() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM restate_django_invocation")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db
def test_the_table_has_its_indexes_by_name():
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Invocation._meta.db_table)
    names = {index.name for index in Invocation._meta.indexes} | {c.name for c in Invocation._meta.constraints}
    unique = [c for c in constraints.values() if c["unique"] and c["columns"] == ["dedupe_digest"]]
    assert unique
    if connection.vendor == "sqlite":
        # SQLite names a table's own unique constraints itself.
        names -= {"restate_inv_dedupe"}
    assert names <= set(constraints)
    assert all(len(name) <= 30 for name in names), "MySQL, and Oracle's habit, want short names"
