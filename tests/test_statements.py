"""The statements that are written once and kept say what Django's own would."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.signals import post_save, pre_save
from django.forms.models import model_to_dict
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django.models import Invocation
from restate_django.statements import insert, update_where

pytestmark = pytest.mark.django_db


def row(**given):
    values = {
        "service": "Greeter",
        "handler": "greet",
        "payload": {"name": "Mary", "nothing": None},
        "payload_bytes": b'{"name": "Mary"}',
        "headers": {"x-tenant": "%s"},
        "idempotency_key": uuid.uuid4().hex,
        "run_at": timezone.now() + dt.timedelta(hours=1),
        "lease_token": uuid.uuid4(),
        "attempts": 1,
    }
    return Invocation(**(values | given))


def stored(pk):
    """Return a row as the database has it, without what no two rows share."""
    values = model_to_dict(Invocation.objects.get(pk=pk), fields=[f.name for f in Invocation._meta.concrete_fields])
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in values.items()}


def test_an_insert_stores_what_save_stores():
    ours = row()
    django = row(**{f.attname: getattr(ours, f.attname) for f in Invocation._meta.concrete_fields if f.attname != "id"})
    insert(ours, "default")
    django.idempotency_key = uuid.uuid4().hex
    django.save(force_insert=True)
    mine, theirs = stored(ours.pk), stored(django.pk)
    assert mine.pop("idempotency_key") == ours.idempotency_key
    assert theirs.pop("idempotency_key")
    assert mine == theirs
    assert mine["payload"] == {"name": "Mary", "nothing": None}
    assert mine["delivery_error"] == ""


def test_an_inserted_row_is_saved_and_signals_tell_of_it():
    told = []

    def hear(signal, sender, instance, using, **kwargs):
        told.append((signal is pre_save, instance._state.adding, using, kwargs.get("created")))

    ours = row()
    pre_save.connect(hear, sender=Invocation)
    post_save.connect(hear, sender=Invocation)
    try:
        insert(ours, "default")
    finally:
        pre_save.disconnect(hear, sender=Invocation)
        post_save.disconnect(hear, sender=Invocation)
    assert told == [(True, True, "default", None), (False, False, "default", True)]
    assert ours._state.db == "default"
    ours.service = "Other"
    ours.save()
    assert Invocation.objects.get(pk=ours.pk).service == "Other"


def test_the_text_is_django_s_to_see_and_the_same_for_each_row():
    with CaptureQueriesContext(
        connection,
    ) as queries:
        insert(row(), "default")
        insert(row(), "default")
    assert len(queries) == 2
    assert all("INSERT INTO" in query["sql"] for query in queries)


def test_a_refused_insert_marks_the_transaction():
    first = row(dedupe_digest="d" * 64)
    insert(first, "default")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(row(dedupe_digest="d" * 64), "default")
    assert Invocation.objects.count() == 1
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            insert(row(dedupe_digest="d" * 64), "default")
        assert transaction.get_rollback()
        transaction.set_rollback(True)


def test_an_update_compares_what_was_read():
    ours = row()
    insert(ours, "default")
    changes = {"status": "accepted", "lease_token": None, "invocation_id": "inv_1", "output": {"a": [1, None]}}
    as_read = [("id", ours.pk), ("status", "unsent"), ("lease_token", uuid.uuid4())]
    assert update_where(Invocation, "default", changes, as_read) == 0
    as_read[-1] = ("lease_token", ours.lease_token)
    assert update_where(Invocation, "default", changes, as_read) == 1
    ours.refresh_from_db()
    assert (ours.status, ours.lease_token, ours.invocation_id) == ("accepted", None, "inv_1")
    assert ours.output == {"a": [1, None]}
    as_read = [("id", ours.pk), ("status", "accepted"), ("lease_token", None)]
    assert update_where(Invocation, "default", {"last_failure": "100%s"}, as_read) == 1
    ours.refresh_from_db()
    assert ours.last_failure == "100%s"


def test_a_refused_update_marks_the_transaction():
    ours = row()
    insert(ours, "default")
    insert(row(dedupe_digest="d" * 64), "default")
    with transaction.atomic():
        with pytest.raises(DatabaseError):
            update_where(Invocation, "default", {"dedupe_digest": "d" * 64}, [("id", ours.pk)])
        assert transaction.get_rollback()
        transaction.set_rollback(True)
