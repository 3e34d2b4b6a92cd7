"""How a database of invocations is, in the words that the health view, the doctor, the admin and the metrics share."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from restate_django import vitals
from restate_django.lifecycle import Status
from restate_django.models import Invocation, JobRun
from tests.admin.rows import make_row

pytestmark = pytest.mark.django_db


def ago(**span) -> dt.datetime:
    return timezone.now() - dt.timedelta(**span)


def test_an_empty_database():
    found = vitals.look("default")
    assert set(found.counts.values()) == {0}
    assert (found.oldest_unsent, found.unsent_for, found.delivery_error) == (None, dt.timedelta(0), "")
    assert found.since_run("poll") is None


def test_rows_are_counted_by_status_and_up_to_a_limit():
    for status in Status:
        make_row(status)
    make_row("backing-off", age=7200)
    found = vitals.look("default")
    assert found.counts == {status.value: 1 for status in Status} | {"backing-off": 2, "backing-off-for-long": 1}
    assert sum(found.open.values()) == 10
    assert set(found.open) == {
        "unsent",
        "accepted",
        "scheduled",
        "pending",
        "ready",
        "running",
        "backing-off",
        "suspended",
        "paused",
    }
    assert vitals.counts_by_status(Invocation.objects.all(), 1)["backing-off"] == 1


def test_what_waits_longest_and_why():
    make_row("unsent", age=50)
    oldest = make_row("unsent", age=500)
    make_row("unsent", age=400, delivery_error="connection refused")
    make_row("succeeded", age=900)
    found = vitals.look("default")
    assert found.oldest_unsent == oldest
    assert 500 <= found.unsent_for.total_seconds() < 560
    assert found.delivery_error == "connection refused"


def test_what_waits_longest_to_be_asked_about():
    make_row("running", next_poll_at=ago(minutes=-5))
    assert vitals.look("default").poll_overdue_for == dt.timedelta(0)
    make_row("running", next_poll_at=ago(minutes=7))
    make_row("running", next_poll_at=ago(minutes=2))
    assert 420 <= vitals.look("default").poll_overdue_for.total_seconds() < 480


def test_when_a_job_last_ran_to_a_good_end():
    JobRun.objects.create(job="poll", succeeded_at=ago(minutes=10), failed_at=ago(minutes=1))
    JobRun.objects.create(job="deliver", failed_at=ago(minutes=1))
    found = vitals.look("default")
    assert 600 <= found.since_run("poll").total_seconds() < 660
    assert found.since_run("deliver") is None
    # A worker whose clock is ahead has not run in the future.
    JobRun.objects.update(succeeded_at=timezone.now() + dt.timedelta(minutes=1))
    assert vitals.look("default").since_run("poll") == dt.timedelta(0)


def test_the_shortest_patience_of_those_who_have_rows_there(settings):
    settings.RESTATE = {
        "default": {"ALERT_AFTER": 300},
        "hasty": {"ALERT_AFTER": 60, "DATABASES": ["other"]},
    }
    assert vitals.alert_after("default") == dt.timedelta(minutes=5)
    assert vitals.alert_after("other") == dt.timedelta(minutes=1)


# ---------------------------------------------------------------- what is wrong


def troubles(after: dt.timedelta | None = None) -> list[str]:
    return [str(fault.trouble) for fault in vitals.faults(vitals.look("default"), after)]


@pytest.fixture
def jobs_run():
    """The jobs ran a minute ago."""
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=ago(minutes=1))


def test_nothing_is_wrong_with_work_in_hand(jobs_run):
    for status in set(Status) - {Status.PAUSED, Status.UNDELIVERABLE}:
        make_row(status)
    assert troubles() == []


def test_each_trouble_has_its_sentence_and_its_remedy(jobs_run):
    make_row("unsent", age=400, delivery_error="connection refused")
    make_row("undeliverable")
    make_row("paused")
    make_row("paused")
    JobRun.objects.filter(job="poll").update(succeeded_at=ago(hours=2))
    JobRun.objects.filter(job="prune").update(failed_at=ago(seconds=1), error="RuntimeError: no")
    JobRun.objects.filter(job="deliver").delete()
    found = vitals.faults(vitals.look("default"))
    assert [(str(fault.trouble), fault.text, fault.detail) for fault in found] == [
        ("unsent", "An invocation has been waiting for 6 min 40 s to be sent.", "connection refused"),
        ("no-delivery", "The job delivery has never run.", ""),
        ("no-poll", "The job polling last ran 2 h ago.", ""),
        ("job-failing", "The job clean-up ends in an error.", "RuntimeError: no"),
        ("undeliverable", "1 invocation is undeliverable: nobody knows whether it ran.", ""),
        ("paused", "2 invocations are paused: their handlers failed too often.", ""),
    ]
    assert all(fault.remedy for fault in found)
    assert [fault.trouble for fault in found if fault.is_for_a_person] == ["undeliverable", "paused"]


def test_how_long_is_too_long(jobs_run):
    make_row("unsent", age=100)
    assert troubles() == []
    assert troubles(dt.timedelta(seconds=30)) == ["unsent", "no-delivery", "no-poll"]


def test_a_job_that_runs_and_does_not_come_to_a_row(jobs_run):
    """Nobody polls its connection, say, while others are polled."""
    make_row("running", next_poll_at=ago(minutes=4))
    assert troubles() == []
    make_row("running", next_poll_at=ago(minutes=6))
    (fault,) = vitals.faults(vitals.look("default"))
    assert fault.trouble == "no-poll"
    assert fault.text == "An invocation has been waiting for 6 min to be asked about."
    JobRun.objects.filter(job="poll").delete()
    assert troubles() == ["no-poll"], "it is said once"


def test_a_job_that_fails_beside_one_that_does_not_is_told_until_it_does_not(jobs_run):
    run = JobRun.objects.get(pk="deliver")
    run.failed_at = ago(seconds=30)
    run.save()
    assert troubles() == ["job-failing"]
    run.succeeded_at = ago(seconds=10)
    run.save()
    assert troubles() == []


def test_more_than_are_counted(jobs_run, monkeypatch):
    monkeypatch.setattr(vitals, "COUNTED", 2)
    for _ in range(3):
        make_row("paused")
    (fault,) = vitals.faults(vitals.look("default"))
    assert fault.text.startswith("2+ invocations are paused")
