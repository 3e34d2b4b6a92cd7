"""Retention: what is pruned, what never is, and that deleting around a row harms nothing."""

from __future__ import annotations

import datetime as dt

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from restate_django import retention, send, tasks
from restate_django.exceptions import InvalidRequest
from restate_django.lifecycle import FINISHED, Status
from restate_django.models import Invocation

pytestmark = pytest.mark.django_db(transaction=True)

DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def relay_only(settings):
    settings.RESTATE = {"default": {"DELIVERY": "relay", "ADMIN_URL": None}}


def row(status: str, age: dt.timedelta, **columns: object) -> Invocation:
    """A row that took its status some time ago."""
    made = send("Greeter", "greet")
    then = timezone.now() - age
    recorded = then if status in FINISHED else None
    Invocation.objects.filter(pk=made.pk).update(status=status, recorded_at=recorded, created_at=then, **columns)
    return made


def left() -> set[str]:
    return set(Invocation.objects.values_list("status", flat=True))


def test_old_finished_rows_go_and_no_others():
    for status in Status:
        row(status, 40 * DAY)
    fresh = row("succeeded", 5 * DAY)
    done = retention.prune()
    assert done == dict.fromkeys(FINISHED, 1)
    assert set(Invocation.objects.exclude(pk=fresh.pk).values_list("status", flat=True)) == set(Status) - FINISHED


def test_age_statuses_batches_and_progress():
    for age in range(7):
        row("succeeded", age * DAY)
        row("failed", age * DAY)
    seen: list[tuple[int, int | None]] = []
    done = retention.prune(
        older_than=3 * DAY, statuses=["failed"], batch_size=2, progress=lambda n, total: seen.append((n, total))
    )
    assert done == {"failed": 4}
    assert seen == [(2, None), (4, None)]
    assert Invocation.objects.filter(status="succeeded").count() == 7


def test_dry_run_counts_and_deletes_nothing():
    row("succeeded", 40 * DAY)
    assert retention.prune(dry_run=True) == {"succeeded": 1}
    assert left() == {"succeeded"}


def test_a_row_whose_key_binds_is_kept():
    hour = dt.timedelta(hours=1)
    row("succeeded", 5 * hour, dedupe_digest="a")
    row("succeeded", 30 * hour, dedupe_digest="b", result_expires_at=timezone.now() + hour)
    old = row("succeeded", 30 * hour, dedupe_digest="c", result_expires_at=timezone.now() - hour)
    row("succeeded", 5 * hour)
    assert retention.prune(older_than=hour) == {"succeeded": 2}
    assert not Invocation.objects.filter(pk=old.pk).exists()
    assert set(Invocation.objects.values_list("dedupe_digest", flat=True)) == {"a", "b"}


def test_undeliverable_rows_go_only_when_named():
    old = row("undeliverable", 40 * DAY)
    assert retention.prune(older_than=DAY) == {}
    assert retention.prune(older_than=dt.timedelta(0), statuses=["undeliverable"]) == {"undeliverable": 1}
    assert not Invocation.objects.filter(pk=old.pk).exists()


@pytest.mark.parametrize("status", sorted(set(Status) - retention.PRUNABLE))
def test_open_rows_are_refused_by_name(status):
    with pytest.raises(InvalidRequest, match="open"):
        retention.prune(statuses=[status])


def test_nonsense_is_refused():
    for bad in (
        {"batch_size": 0},
        {"older_than": -DAY},
        {"older_than": 7},
        {"statuses": ["finished"]},
        {"statuses": "succeeded"},
        {"using": "nope"},
    ):
        with pytest.raises(InvalidRequest):
            retention.prune(**bad)


def test_a_connection_that_keeps_its_rows(settings):
    settings.RESTATE = {"default": {"RETENTION": None, "ADMIN_URL": None}}
    row("succeeded", 400 * DAY)
    assert retention.prune() == {}
    assert retention.prune(older_than=DAY) == {"succeeded": 1}


def test_a_restarted_row_outlives_the_one_it_came_from():
    old = row("succeeded", 40 * DAY)
    new = row("succeeded", DAY, restarted_from=old)
    assert retention.prune() == {"succeeded": 1}
    assert Invocation.objects.get(pk=new.pk).restarted_from is None


def test_what_leaves_the_database_by_a_cascade_of_others(django_user_model):
    user = django_user_model.objects.create(username="mary")
    made = send("Greeter", "greet", requested_by=user, related_to=user)
    user.delete()
    made = Invocation.objects.get(pk=made.pk)
    assert (made.requested_by, made.related_to) == (None, None)


def test_the_command(capsys):
    for _ in range(3):
        row("succeeded", 40 * DAY)
    row("failed", 2 * DAY)
    call_command("restate_prune", "--dry-run")
    assert capsys.readouterr().out == "3 rows would be deleted: 3 succeeded.\n"
    call_command("restate_prune", "--batch-size=2")
    assert capsys.readouterr().out == "2 deleted so far\n3 deleted so far\n3 rows deleted: 3 succeeded.\n"
    call_command("restate_prune", "--older-than=1", "--status=failed", verbosity=0)
    assert capsys.readouterr().out == "1 rows deleted: 1 failed.\n"
    call_command("restate_prune", "--database=default")
    assert "none is old enough" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--batch-size=0", "--older-than=-1", "--older-than=1e300", "--status=running"])
def test_the_command_refuses_nonsense(option):
    with pytest.raises(CommandError):
        call_command("restate_prune", option)


def test_the_task():
    row("succeeded", 40 * DAY)
    assert tasks.prune() == {"succeeded": 1}
