"""Every claim, list and clean-up reads what it returns, on each database, however large the table is."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django import retention, vitals
from restate_django.contrib.notify.mails import newest
from restate_django.ids import uuid7_floor
from restate_django.lifecycle import Status
from restate_django.management.subcommands import selecting
from restate_django.management.subcommands.base import find_row
from restate_django.models import Invocation, JobRun
from tests.admin.work import analyze, work_done
from tests.models import Order

if TYPE_CHECKING:
    from restate_django.querysets import PollClaim

ROWS = 6000


def few() -> int:
    """What may be done for 20 rows: rows touched, or on SQLite its machine's steps (some dozens to a row)."""
    return 6000 if connection.vendor == "sqlite" else 200


@pytest.fixture(scope="module")
def table(django_db_setup, django_db_blocker):
    """A table of finished rows in which a few are due, open, related, or old."""
    with django_db_blocker.unblock():
        order = Order.objects.create(number="plans")
        now = timezone.now()
        kind = ContentType.objects.get_for_model(Order)
        Invocation.objects.bulk_create(_rows(now, kind, order), batch_size=1000)
        analyze()
        yield order
        Invocation.objects.all().delete()
        order.delete()


def _rows(now: dt.datetime, kind: ContentType, order: Order):
    for n in range(ROWS):
        then = now - dt.timedelta(minutes=ROWS - n)
        row = Invocation(
            id=uuid.UUID(int=uuid7_floor(then).int + n),
            service=f"Service{n % 7}",
            handler=f"handler{n % 3}",
            key=f"key-{n}",
            idempotency_key=f"key-{n}",
            connection="default",
            status="succeeded",
            created_at=then,
            recorded_at=then,
            finished_at=then,
            invocation_id=f"inv_1{n}",
        )
        if n % 300 == 7:
            row.status, row.recorded_at, row.finished_at = "running", None, None
            row.next_poll_at = now - dt.timedelta(seconds=1)
        elif n % 300 == 8:
            row.status, row.recorded_at, row.finished_at = "unsent", None, None
            row.next_attempt_at = now - dt.timedelta(seconds=1)
        elif n % 300 == 9:
            row.connection, row.related_content_type, row.related_id = "rare", kind, str(order.pk)
        yield row


QUERIES = {
    "what a mail counts": lambda order: newest(Status.RUNNING, "default"),
    "due for delivery": lambda order: Invocation.objects.filter(next_attempt_at__lte=timezone.now()).order_by(
        "next_attempt_at"
    ),
    "due for a poll": lambda order: Invocation.objects.filter(next_poll_at__lte=timezone.now()).order_by(
        "next_poll_at"
    ),
    "one status": lambda order: Invocation.objects.filter(status="running"),
    "newest": lambda order: Invocation.objects.all()[:20],
    "one service": lambda order: Invocation.objects.for_target("Service3")[:20],
    "a rare connection": lambda order: Invocation.objects.filter(connection="rare"),
    "an object key": lambda order: Invocation.objects.filter(key="key-77"),
    "an idempotency key": lambda order: Invocation.objects.filter(idempotency_key="key-77"),
    "an invocation id": lambda order: Invocation.objects.filter(invocation_id="inv_177"),
    "a related object": lambda order: Invocation.objects.for_object(order)[:20],
    "nobody's": lambda order: Invocation.objects.filter(requested_by=1),
    "a digest": lambda order: Invocation.objects.filter(dedupe_digest="a").order_by()[:1],
    "finished since": lambda order: Invocation.objects.finished_since(timezone.now() - dt.timedelta(minutes=100))[:20],
    "finished since a row": lambda order: Invocation.objects.finished_since(
        Invocation.objects.filter(status="succeeded")[100]
    )[:20],
    "a span of time": lambda order: Invocation.objects.recorded_between(
        timezone.now() - dt.timedelta(minutes=90), timezone.now() - dt.timedelta(minutes=60)
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_query_reads_what_it_returns(table, query):
    rows = query(table)
    with work_done() as work:
        found = list(rows)
    assert len(found) <= 30
    assert work.amount <= few()


def rows_of(taken: PollClaim | list[Invocation]) -> list[Any]:
    return taken if isinstance(taken, list) else taken.rows


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["delivery", "poll"])
def test_a_claim_reads_and_writes_what_it_takes(table, kind):
    claim = getattr(Invocation.objects, f"claim_for_{kind}")
    with work_done() as work, CaptureQueriesContext(connection) as captured:
        taken = claim(limit=20, lease=dt.timedelta(minutes=1))
    assert len(rows_of(taken)) == 20
    # A poll looks beyond the front first, where another worker is not likely to look: here nothing is.
    assert len(captured) <= (4 if kind == "poll" else 3)
    assert work.amount <= 2 * few()
    assert rows_of(claim(limit=20, lease=dt.timedelta(minutes=1))) == []


@pytest.mark.django_db
@pytest.mark.parametrize(("kind", "due"), [("delivery", "next_attempt_at"), ("poll", "next_poll_at")])
def test_a_claim_of_one_connection_passes_over_the_backlog_of_another(table, kind, due):
    """All of another connection's rows are due, and have been for longer."""
    now = timezone.now()
    status = {"delivery": "unsent", "poll": "running"}[kind]
    claim = getattr(Invocation.objects, f"claim_for_{kind}")
    Invocation.objects.filter(connection="default").update(status=status, **{due: now - dt.timedelta(hours=1)})
    Invocation.objects.filter(connection="rare").update(status=status, **{due: now})
    with work_done() as work:
        taken = claim(limit=20, lease=dt.timedelta(minutes=1), connection="rare")
    assert {row.connection for row in rows_of(taken)} == {"rare"}
    assert len(rows_of(taken)) == 20
    assert work.amount <= 2 * few()
    assert rows_of(claim(limit=20, lease=dt.timedelta(minutes=1), connection="rare")) == []


@pytest.mark.django_db
def test_a_clean_up_reads_what_is_old(table):
    with work_done() as work:
        done = retention.prune(older_than=dt.timedelta(minutes=ROWS - 20), batch_size=50)
    assert 10 <= sum(done.values()) <= 20
    # It reads the rows, reads them again to delete them, and looks for what points at them: there an analysed SQLite
    # prefers one pass over the table to twenty look-ups in an index that is mostly null.
    assert work.amount <= 4 * few() + (6 * ROWS if connection.vendor == "sqlite" else 0)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "filters",
    [{}, {"service": "Service3"}, {"status": ["running", "unsent"]}, {"key": "key-77"}, {"connection": "rare"}],
    ids=["all", "a service", "statuses", "a key", "a connection"],
)
def test_the_commands_list_reads_what_it_shows(table, filters):
    with work_done() as work:
        found = selecting.newest(filters, "default", 20)
    assert 1 <= len(found) <= 20
    assert work.amount <= 2 * few()


@pytest.mark.django_db
def test_a_command_walks_what_its_filter_finds(table):
    newest = Invocation.objects.first().pk
    with work_done() as work, CaptureQueriesContext(connection) as captured:
        ranges = selecting.ranges({"status": ["running", "unsent"]}, "default")
        walked = [row.pk for batch in selecting.batches(ranges, 15, newest) for row in batch]
    assert walked == sorted(walked)
    assert len(walked) == 40
    # Two ranges of keys and the rows, for each of three batches; and the end.
    assert len(captured) == 3 * 3 + 2
    assert work.amount <= 4 * few()


@pytest.mark.django_db
def test_a_command_finds_a_row_by_restates_id(table):
    with work_done() as work:
        assert find_row("inv_177", "default").key == "key-77"
    assert work.amount <= few()


@pytest.mark.django_db
def test_how_things_stand_is_read_from_a_bounded_part(table):
    JobRun.objects.create(job="poll", succeeded_at=timezone.now())
    with work_done() as work, CaptureQueriesContext(connection) as captured:
        found = vitals.look("default")
    assert (found.counts["running"], found.counts["unsent"], found.counts["succeeded"]) == (20, 20, vitals.COUNTED)
    assert found.oldest_unsent.key == "key-8"
    assert found.poll_due_since is not None
    assert set(found.runs) == {"poll"}
    assert len(captured) == 4
    # Each count stops where it is capped: one entry of the index for each row that is counted, a few times over.
    assert work.amount <= few() + (40 if connection.vendor == "sqlite" else 4) * vitals.COUNTED
