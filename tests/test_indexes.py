"""The indexes that leave out, on PostgreSQL, the rows that have nothing in a column."""

from __future__ import annotations

import pytest
from django.db import connection, models

from restate_django.indexes import SparseIndex
from restate_django.models import Invocation


def made(index):
    # Not entered: nothing is changed.
    return str(index.create_sql(Invocation, connection.schema_editor(collect_sql=True)))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("index", "condition"),
    [
        (SparseIndex(fields=["scope", "id"], name="a"), "\"scope\" > ''"),
        (SparseIndex(fields=["next_poll_at"], name="a"), '"next_poll_at" IS NOT NULL'),
        (SparseIndex(fields=["connection", "next_poll_at"], by="next_poll_at", name="a"), '"next_poll_at" IS NOT NULL'),
    ],
)
def test_its_rows(index, condition):
    whole = made(models.Index(fields=index.fields, name="a"))
    if connection.vendor == "postgresql":
        assert made(index) == f"{whole} WHERE {condition}"
    else:
        assert made(index) == whole


def test_a_migration_can_write_it_down():
    index = SparseIndex(fields=["connection", "next_poll_at"], by="next_poll_at", name="a")
    path, args, kwargs = index.deconstruct()
    assert path == "restate_django.indexes.SparseIndex"
    assert SparseIndex(*args, **kwargs) == index
    assert "by" not in SparseIndex(fields=["scope"], name="a").deconstruct()[2]
