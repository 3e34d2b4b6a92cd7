"""Many rows at once: what is stored is what Django's own bulk insert stores, and a refused row takes all with it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django.ids import uuid7
from restate_django.inserting import insert_many
from restate_django.models import Invocation

pytestmark = pytest.mark.django_db

_NOW = dt.datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=dt.UTC)


def odd_rows() -> list[Invocation]:
    user = get_user_model().objects.create(username="mary")
    kind = ContentType.objects.get_for_model(user)
    columns: list[dict[str, Any]] = [
        {},
        {"payload": {"name": "Mary", "deep": [1, None, {"ä": "\t\\N\n\r"}]}, "payload_bytes": b"\x00\xff\\N\n\t"},
        {"key": 'tab\\t"quoted", back\\slash; é 日本 \\N', "headers": {"X-A": "b\\c\t"}, "run_at": _NOW},
        {"requested_by": user, "related_content_type": kind, "related_id": str(user.pk), "failure_code": 2**63 - 1},
        {"has_output": True, "output": "text", "output_size": 2**40, "lease_token": uuid.uuid4(), "attempts": 7},
        {"output": False, "delivery_error": "'; DROP TABLE", "dedupe_digest": "d" * 64, "previously_accepted": True},
    ]
    return [
        Invocation(service="Greeter", handler=f"greet{number}", idempotency_key=uuid7().hex, **each)
        for number, each in enumerate(columns)
    ]


def stored(rows: list[Invocation]) -> list[dict[str, Any]]:
    found = Invocation.objects.filter(pk__in=[row.pk for row in rows]).order_by("pk")
    return [
        {**each, "payload_bytes": each["payload_bytes"] and bytes(each["payload_bytes"])} for each in found.values()
    ]


def test_each_column_is_stored_as_django_stores_it():
    rows = odd_rows()
    insert_many(rows)
    ours = stored(rows)
    assert len(ours) == len(rows)
    assert all(not row._state.adding and row._state.db == "default" for row in rows)
    Invocation.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for row in rows:
        row._state.adding = True
    Invocation.objects.bulk_create(rows)
    assert stored(rows) == ours


def test_nothing_and_one():
    insert_many([])
    (row, *_others) = odd_rows()
    insert_many([row])
    assert Invocation.objects.get().pk == row.pk


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_refused_takes_all_with_it_as_djangos_own_error():
    rows = odd_rows()
    rows[0].dedupe_digest = rows[1].dedupe_digest = "e" * 64
    with pytest.raises(IntegrityError):
        insert_many(rows)
    assert Invocation.objects.count() == 0
    # The connection is as usable as after any error of a statement.
    rows[0].dedupe_digest = None
    insert_many(rows)
    assert Invocation.objects.count() == len(rows)


def test_few_statements_for_many_rows():
    rows = [
        Invocation(service="Greeter", handler="greet", idempotency_key=uuid7().hex, created_at=timezone.now())
        for _ in range(1000)
    ]
    with CaptureQueriesContext(connection) as asked:
        insert_many(rows)
    assert len([each for each in asked.captured_queries if "SAVEPOINT" not in each["sql"]]) <= 1
    assert Invocation.objects.count() == 1000
