"""The notes that the jobs leave: who writes them, how often, and that nothing comes of one that can't be written."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections import Counter

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django import jobs, polling, tasks
from restate_django.models import JobRun

Job = JobRun.Job

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_server(settings, nothing_noted):
    """A process that has not noted anything yet, and no server."""
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}


def run_of(job: str, using: str = "default") -> JobRun:
    return JobRun.objects.using(using).get(pk=job)


def fail(error: Exception):
    def work() -> Counter[str]:
        raise error

    return work


# ---------------------------------------------------------------- who writes them


@pytest.mark.parametrize(
    ("edge", "noted"),
    [
        (tasks.deliver, {"deliver"}),
        (tasks.poll, {"poll"}),
        (tasks.prune, {"prune"}),
        (lambda: call_command("restate_relay", "--once"), {"deliver", "poll", "prune"}),
        (lambda: call_command("restate", "relay", "--once"), {"deliver", "poll", "prune"}),
        (lambda: call_command("restate_prune"), {"prune"}),
        # Less than the job does: none of these is a run of it.
        (lambda: call_command("restate_prune", "--dry-run"), set()),
        (lambda: call_command("restate_prune", "--older-than=1"), set()),
        (lambda: call_command("restate_prune", "--status=failed"), set()),
        (lambda: call_command("restate_prune", "--database=default"), set()),
    ],
)
def test_every_edge_notes_its_jobs(edge, noted):
    before = timezone.now()
    edge()
    runs = list(JobRun.objects.all())
    assert {run.job for run in runs} == noted
    for run in runs:
        assert before <= run.started_at <= run.ended_at == run.succeeded_at <= timezone.now()
        assert (run.failed_at, run.error, run.is_failing) == (None, "", False)


def test_a_run_says_what_became_of_the_rows(monkeypatch):
    monkeypatch.setattr(polling, "poll_due", lambda **_bounds: Counter(succeeded=2, unchanged=1))
    assert tasks.poll() == {"succeeded": 2, "unchanged": 1}
    assert run_of("poll").counts == {"succeeded": 2, "unchanged": 1}


@pytest.mark.django_db(databases=["default", "other"])
def test_each_swept_database_has_its_own(settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DATABASES": ["default", "other"]}}
    tasks.deliver()
    assert run_of("deliver", "default").succeeded_at == run_of("deliver", "other").succeeded_at


# ---------------------------------------------------------------- how often


def test_a_process_notes_a_job_once_in_a_while_and_sums_up_what_it_did(monkeypatch):
    jobs.noted(Job.POLL, lambda: Counter(succeeded=1))
    first = run_of("poll")
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            jobs.noted(Job.POLL, lambda: Counter(succeeded=1, failed=2))
    assert len(queries) == 0
    assert run_of("poll").succeeded_at == first.succeeded_at
    jobs.noted(Job.PRUNE, Counter)
    assert run_of("prune").counts == {}, "each job has its own time"
    monkeypatch.setattr(jobs, "NOTED_EVERY", 0.0)
    monkeypatch.setitem(jobs._notes._due, "poll", 0.0)
    with CaptureQueriesContext(connection) as queries:
        jobs.noted(Job.POLL, lambda: Counter(succeeded=1))
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 1, "one UPDATE"
    assert run_of("poll").counts == {"succeeded": 4, "failed": 6}
    jobs.noted(Job.POLL, lambda: Counter(succeeded=1))
    assert run_of("poll").counts == {"succeeded": 1}


def test_that_it_fails_and_that_it_does_not_any_more_is_noted_at_once():
    jobs.noted(Job.POLL, Counter)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such thing"):
            jobs.noted(Job.POLL, fail(RuntimeError("no such thing\nand a trace")))
    run = run_of("poll")
    assert run.is_failing
    assert run.ended_at == run.failed_at > run.succeeded_at
    assert run.error == "RuntimeError: no such thing"
    jobs.noted(Job.POLL, Counter)
    run = run_of("poll")
    assert not run.is_failing
    assert run.error == "RuntimeError: no such thing", "the last one stays, with its time"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationalError("the server closed the connection"), "OperationalError: the server closed the connection"),
        # A database says in its error which value it refused.
        (DatabaseError("invalid input: {'card': '4111 1111'}"), "DatabaseError"),
        (ImproperlyConfigured("no such connection\x00"), "ImproperlyConfigured: no such connection"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 488),
        (ValueError(), "ValueError:"),
    ],
)
def test_what_is_kept_of_an_error(error, told):
    with pytest.raises(type(error)):
        jobs.noted(Job.DELIVER, fail(error))
    assert run_of("deliver").error == told


# ---------------------------------------------------------------- what it must not do


@pytest.mark.django_db(transaction=True)
def test_nothing_is_written_in_somebodys_transaction():
    with transaction.atomic():
        retention_done = tasks.prune()
    assert retention_done == {}
    assert not JobRun.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_may_be_the_first_at_once():
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            start.wait(10)
            for _ in range(5):
                jobs._write_on("default", "poll", {"succeeded_at": timezone.now(), "seconds": 0.1, "counts": {}})
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert JobRun.objects.count() == 1


@pytest.mark.parametrize("where", ["update", "bulk_create"])
def test_a_note_that_can_not_be_written_breaks_nothing(where, monkeypatch, caplog):
    """In a transaction of a TestCase too, which an error would otherwise end."""
    rows = type(JobRun.objects.all())

    def broken(self, *args, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")

    monkeypatch.setattr(rows, where, broken)
    with caplog.at_level(logging.WARNING, "restate_django"):
        assert jobs.noted(Job.POLL, lambda: Counter(succeeded=1)) == {"succeeded": 1}
        with pytest.raises(RuntimeError, match="the job's own"):
            jobs.noted(Job.POLL, fail(RuntimeError("the job's own")))
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "That the job poll ran can't be noted in the database 'default'"
    ] * 2
    monkeypatch.undo()
    assert not JobRun.objects.exists()


def test_a_wrong_argument_is_no_run():
    with pytest.raises(CommandError, match="batch_size"):
        call_command("restate_prune", "--batch-size=0")
    assert not JobRun.objects.exists()


def test_settings_that_can_not_be_read_are_the_jobs_own_error(settings):
    settings.RESTATE = {"default": {"NONSENSE": 1}}
    with pytest.raises(ImproperlyConfigured, match="NONSENSE"):
        jobs.deliver()


def test_a_database_that_is_not_there_is_the_jobs_own_error(settings, caplog):
    settings.RESTATE = {"default": {"DATABASES": ["nowhere"]}}
    with pytest.raises(Exception, match="nowhere"):
        jobs.deliver()
    assert "can't be noted in the database 'nowhere'" in caplog.text


def test_a_run_that_is_named():
    run = JobRun(job="poll", seconds=2.0)
    assert (str(run), run.ended_at, run.started_at, run.is_failing) == ("polling", None, None, False)
    now = timezone.now()
    run.failed_at, run.succeeded_at = now, now - dt.timedelta(hours=1)
    assert (run.ended_at, run.started_at, run.is_failing) == (now, now - dt.timedelta(seconds=2), True)
