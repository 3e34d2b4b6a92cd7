"""A sweep over many rows: few statements, whole rows for those alone that have news, and nobody's wish passed over."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from typing import Any

import pytest
from django.db import connection as database
from django.db import connections as databases
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django import intervals, operations, polling, querysets, send
from restate_django.client import AdminClient
from restate_django.ids import uuid7
from restate_django.inserting import insert_many
from restate_django.models import Invocation
from restate_django.polling import poll_due
from tests import fake_ingress
from tests.fake_ingress import FakeIngress

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def states(monkeypatch, settings):
    """An Admin API that says of every invocation that it is scheduled, but for what a test says of it."""
    settings.RESTATE = {"default": {"DELIVERY": "relay", "PATH_STYLE": "restate", "INGRESS_URL": "http://127.0.0.1:9"}}
    told: dict[str, dict[str, Any] | None] = {}
    asked: list[str] = []

    def answer(self: AdminClient, ids: list[str], **_: Any) -> dict[str, dict[str, Any]]:
        asked.extend(ids)
        found = {each: told.get(each, {"id": each, "status": "scheduled"}) for each in ids}
        return {each: row for each, row in found.items() if row is not None}

    monkeypatch.setattr(AdminClient, "states", answer)
    told_and_asked = Counter()
    told_and_asked.told, told_and_asked.asked = told, asked  # type: ignore[attr-defined] # two names for a test
    return told_and_asked


def scheduled(count: int, *, hours: float = 5, **columns: Any) -> list[Invocation]:
    """Rows that Restate has, that start in some hours, and that are due to be asked about."""
    now = timezone.now()
    rows = [
        Invocation(
            service="Greeter",
            handler="greet",
            idempotency_key=uuid7().hex,
            status="scheduled",
            invocation_id=f"inv_{number}",
            accepted_at=now,
            execution_at=now + dt.timedelta(hours=hours),
            next_poll_at=now - dt.timedelta(seconds=1),
            **columns,
        )
        for number in range(count)
    ]
    insert_many(rows)
    return rows


def test_rows_without_news_are_written_once(states, monkeypatch):
    monkeypatch.setattr(polling, "BATCH", 500)
    scheduled(1000)
    with CaptureQueriesContext(database) as captured:
        assert poll_due() == {"unchanged": 1000}
    updates = [query["sql"] for query in captured.captured_queries if query["sql"].startswith("UPDATE")]
    assert len(updates) == 2
    assert len(captured) <= 8
    assert sorted(states.asked) == sorted(f"inv_{n}" for n in range(1000))
    row = Invocation.objects.first()
    # Put off to its start, and held by nobody: an operator who asks now need not wait.
    assert row.next_poll_at > timezone.now() + dt.timedelta(hours=3)
    assert (row.lease_until, row.status) == (None, "scheduled")
    assert row.polled_at is not None
    assert poll_due() == {}


def test_young_rows_are_held_by_a_lease_while_they_are_asked_about(states, monkeypatch):
    scheduled(3, hours=-0.01)
    seen = []
    answer = AdminClient.states
    monkeypatch.setattr(
        AdminClient,
        "states",
        lambda self, ids, **options: (
            (
                seen.append(Invocation.objects.filter(lease_until__gt=timezone.now()).count())
                if threading.current_thread() is threading.main_thread()
                else None
            )
            or answer(self, ids, **options)
        ),
    )
    claim = Invocation.objects.claim_for_poll(
        limit=10, lease=dt.timedelta(seconds=60), next_in=intervals.stepped_interval()
    )
    assert claim.held == {row.pk for row in claim.rows}
    assert Invocation.objects.filter(lease_until__gt=timezone.now()).count() == 3
    assert polling._begin(claim, "default")() == {"unchanged": 3}
    row = Invocation.objects.first()
    assert (row.lease_until, row.lease_token) == (None, None)
    assert row.next_poll_at < timezone.now() + dt.timedelta(seconds=30)


def test_news_among_many_is_found(states):
    rows = scheduled(100)
    now = timezone.now().isoformat()
    states.told["inv_7"] = {"id": "inv_7", "status": "running", "running_at": now}
    states.told["inv_8"] = {"id": "inv_8", "status": "backing-off", "retry_count": 4, "last_failure": "no"}
    states.told["inv_9"] = {"id": "inv_9", "status": "scheduled", "retry_count": 3}
    with CaptureQueriesContext(database) as captured:
        assert poll_due() == {"unchanged": 97, "running": 1, "backing-off": 1}
    whole = [query["sql"] for query in captured.captured_queries if "output_content_type" in query["sql"]]
    assert len(whole) == 1
    for row in rows[7:10]:
        row.refresh_from_db()
    assert [row.status for row in rows[7:10]] == ["running", "backing-off", "scheduled"]
    assert rows[7].started_at is not None
    assert (rows[8].retry_count, rows[8].last_failure) == (3, "no")
    assert rows[9].retry_count == 2


def test_many_ends_are_written_by_few_statements(states, settings):
    fake = FakeIngress()

    def answer(request: fake_ingress.Request) -> tuple[int, dict[str, str], bytes]:
        invocation_id = request.path.rpartition("/")[2]
        return fake_ingress.output({"n": invocation_id}, invocation_id)

    fake.answer = answer
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "INGRESS_URL": fake.url}}
    try:
        scheduled(200)
        for number in range(200):
            states.told[f"inv_{number}"] = {
                "id": f"inv_{number}",
                "status": "completed",
                "completion_result": "success",
            }
        with CaptureQueriesContext(database) as captured:
            assert poll_due() == {"succeeded": 200}
        assert len([query for query in captured.captured_queries if query["sql"].startswith("UPDATE")]) <= 4
    finally:
        fake.close()
    for row in Invocation.objects.all():
        assert row.output == {"n": row.invocation_id}
        assert row.recorded_at is not None


@pytest.mark.parametrize("sent", [None, timezone.now()])
def test_a_cancellation_that_is_asked_for_in_between_is_not_put_off(states, monkeypatch, sent):
    """The claim reads, then takes. A wish that comes between the two waits for no later poll."""
    (row,) = scheduled(1)
    window = querysets.InvocationQuerySet._window

    def then_somebody_cancels(self: Any, *args: Any) -> Any:
        found = window(self, *args)
        # As operations.cancel writes it, by a clock that is behind ours.
        Invocation.objects.filter(pk=row.pk).update(cancel_requested_at=timezone.now(), cancel_sent_at=sent)
        return found

    monkeypatch.setattr(querysets.InvocationQuerySet, "_window", then_somebody_cancels)
    claim = Invocation.objects.claim_for_poll(
        limit=5, lease=dt.timedelta(seconds=60), next_in=intervals.stepped_interval()
    )
    assert claim.rows == []
    row.refresh_from_db()
    assert row.next_poll_at <= timezone.now()


def test_a_row_that_is_put_off_can_be_asked_about_by_hand(states):
    (row,) = scheduled(1)
    poll_due()
    states.told["inv_0"] = {"id": "inv_0", "status": "paused"}
    assert row.refresh().status == "paused"


def test_a_late_poller_loses_to_one_that_asked_by_hand(states):
    (row,) = scheduled(1)
    claim = Invocation.objects.claim_for_poll(
        limit=5, lease=dt.timedelta(seconds=60), next_in=intervals.stepped_interval()
    )
    states.told["inv_0"] = {"id": "inv_0", "status": "running"}
    row.refresh()
    states.told["inv_0"] = {"id": "inv_0", "status": "paused"}
    assert polling._begin(claim, "default")() == {}
    row.refresh_from_db()
    assert row.status == "running"


def test_workers_at_once_ask_about_each_row_once(states, monkeypatch):
    monkeypatch.setattr(polling, "BATCH", 50)
    scheduled(600)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while poll_due(limit=100):
                pass
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)
        finally:
            databases.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    # Those that one worker could not get hold of for the others are there for the next sweep.
    while poll_due():
        pass
    assert sorted(states.asked) == sorted(f"inv_{n}" for n in range(600))


def test_a_limit_holds_though_batches_overlap(states, monkeypatch):
    monkeypatch.setattr(polling, "BATCH", 10)
    scheduled(100)
    assert poll_due(limit=35) == {"unchanged": 35}
    assert len(states.asked) == 35


def test_a_cancelled_row_among_many_is_cancelled(restate):
    rows = [send("Greeter", "greet", {"name": str(n)}, delay=dt.timedelta(hours=1)) for n in range(10)]
    operations.cancel(rows[3])
    Invocation.objects.filter(status__in=["accepted", "scheduled"]).update(next_poll_at=timezone.now())
    poll_due()
    assert [row.refresh().status for row in rows].count("cancelled") == 1
