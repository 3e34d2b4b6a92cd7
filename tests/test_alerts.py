"""Each alert, produced once on purpose: health view, doctor, admin and metrics tell it, and when it is over."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from restate_django import gauges, send, tasks
from restate_django.models import Invocation, JobRun
from restate_django.testing.process import ChildProcess
from tests import fake_ingress, monitoring
from tests.admin.rows import make_row
from tests.conftest import ROOT
from tests.fake_ingress import FakeIngress
from tests.wait import wait_for

if TYPE_CHECKING:
    from pytest_django.fixtures import SettingsWrapper

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nothing_noted")]

#: ``ALERT_AFTER`` in seconds: longer than a process keeps a run of a job to itself.
PATIENCE = 10


@pytest.fixture(autouse=True)
def _measured_anew(monkeypatch):
    """What the metrics say of a database serves for a second otherwise."""
    monkeypatch.setattr(gauges, "_FRESH_FOR", 0)


@pytest.fixture
def operator() -> Client:
    """Somebody who may see everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def fake():
    """A server that answers as a test says."""
    server = FakeIngress()
    yield server
    server.close()


def health(operator: Client) -> dict[str, str]:
    """What the health view finds wrong, with its reasons."""
    answer = operator.get("/restate/health/").json()
    assert answer["status"] == ("ok" if set(answer["checks"].values()) == {"ok"} else answer["status"])
    return {each["check"]: each["message"] for each in answer["details"] if each["status"] != "ok"}


def doctor() -> tuple[list[str], int]:
    """What the doctor finds wrong, and its exit code."""
    out = io.StringIO()
    code = 0
    try:
        call_command("restate", "doctor", "--json", stdout=out)
    except CommandError as error:
        code = error.returncode
    findings = json.loads(out.getvalue())["findings"]
    return [each["text"] for each in findings if each["level"] in {"error", "warning"}], code


def dashboard(operator: Client) -> list[str]:
    """What the first page of the admin finds wrong."""
    return [
        alert.text for alert in operator.get("/admin/restate_django/invocation/overview/").context["overview"].alerts
    ]


def all_is_well(operator: Client) -> bool:
    """Nobody has anything to say."""
    tasks.prune()
    return (health(operator), doctor(), dashboard(operator), monitoring.firing(PATIENCE)) == ({}, ([], 0), [], set())


def run_jobs() -> None:
    """Do what beat starts."""
    tasks.deliver()
    tasks.poll()


def patient(settings: SettingsWrapper, seconds: float) -> None:
    """Set ``ALERT_AFTER``."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ALERT_AFTER": seconds}}


def test_the_server_is_stopped(make_restate, settings, operator):
    running = make_restate()
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": running.ingress_url,
            "ADMIN_URL": running.admin_url,
            "POLL_MIN_INTERVAL": 0.1,
            "ALERT_AFTER": PATIENCE,
        }
    }
    wait_for(lambda: run_jobs() or all_is_well(operator), timeout=60, what="all to be well")
    running.server.kill()
    row = send("Greeter", "greet", {"name": "Mary"})
    # It was sent a while ago, and the jobs have been trying since.
    Invocation.objects.filter(pk=row.pk).update(created_at=timezone.now() - dt.timedelta(minutes=2))
    run_jobs()
    found = health(operator)
    assert found["ingress"] == "The ingress does not answer."
    assert found["admin"] == "The Admin API does not answer."
    assert found["delivery"].startswith("An invocation has been waiting for 2 min")
    assert operator.get("/restate/health/").status_code == 503
    texts, code = doctor()
    assert code == 1
    assert [text for text in texts if text.startswith("The ingress at")]
    (waits,) = [text for text in texts if text.startswith("An invocation has been waiting for 2 min")]
    assert "The last attempt: Greeter/greet: Nothing was sent" in waits
    assert [text for text in dashboard(operator) if text.startswith("An invocation has been waiting for 2 min")]
    assert "does not answer" in operator.get("/admin/restate_django/invocation/servers/").text
    assert monitoring.firing(PATIENCE) == {"RestateUnsent"}

    running.server.start()

    def recovered() -> bool:
        run_jobs()
        row.refresh_from_db()
        return row.status == "succeeded"

    wait_for(recovered, timeout=60, what="the row to be delivered after all")
    wait_for(lambda: run_jobs() or all_is_well(operator), timeout=60, what="all to be well again")


def test_a_handler_is_broken(restate, settings, operator):
    run_jobs()
    row = send("Fail", "always", {})

    def paused() -> bool:
        tasks.poll()
        row.refresh_from_db()
        return row.status == "paused"

    wait_for(paused, timeout=30, what="it to be paused")
    text = "1 invocation is paused: its handler failed too often."
    assert health(operator) == {"attention": text}
    assert operator.get("/restate/health/").status_code == 200, "everything else works"
    tasks.prune()
    assert doctor() == ([text], 0)
    assert dashboard(operator) == [text]
    assert monitoring.firing() == {"RestatePaused"}
    row.kill()
    wait_for(lambda: run_jobs() or all_is_well(operator), timeout=30, what="all to be well again")


def test_nobody_knows_whether_it_ran(fake, settings, operator):
    """A server cuts the connection, and after its window it knows of nothing: a person must decide."""
    settings.RESTATE = {"default": {"INGRESS_URL": fake.url, "ADMIN_URL": None}}
    fake.answer = lambda request: None
    row = send("Greeter", "greet")
    fake.answer = lambda request: fake_ingress.NOT_FOUND
    long_ago = timezone.now() - dt.timedelta(hours=25)
    rows = Invocation.objects.filter(pk=row.pk)

    def undeliverable() -> bool:
        rows.update(next_attempt_at=timezone.now(), lease_until=None, unknown_since=long_ago, missing_since=long_ago)
        run_jobs()
        row.refresh_from_db()
        return row.status == "undeliverable"

    wait_for(undeliverable, what="it to be given up")
    text = "1 invocation is undeliverable: nobody knows whether it ran."
    assert health(operator)["attention"] == text
    assert text in doctor()[0]
    assert text in dashboard(operator)
    assert monitoring.firing() == {"RestateUndeliverable"}


def test_beat_is_stopped(restate, settings, operator, tmp_path):
    """A real beat and a real worker run the jobs. When they are stopped, everybody says so after ``ALERT_AFTER``."""
    patient(settings, PATIENCE)
    beat = ChildProcess(
        [sys.executable, "-m", "celery", "-A", "tests.beat_app", "worker", "--beat", "--pool", "solo"],
        name="beat",
        log_file=tmp_path / "log",
        cwd=ROOT,
        env={
            "DJANGO_SETTINGS_MODULE": "tests.asgi_settings",
            "ASGI_RESTATE": json.dumps(settings.RESTATE),
            "BEAT_FOLDER": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example_project")]),  # the latter has the broker
        },
    )
    assert set(dashboard(operator)) == {"The job delivery has never run.", "The job polling has never run."}
    assert monitoring.firing(PATIENCE) == {"RestateNoDelivery", "RestateNoPoll"}
    beat.start()
    try:
        row = send("Greeter", "greet", {"name": "Mary"})

        def well() -> bool:
            assert beat.running, beat.log_tail()
            row.refresh_from_db()
            return row.status == "succeeded" and JobRun.objects.count() == 3 and health(operator) == {}

        wait_for(well, timeout=90, what="beat to start the jobs, and a worker to run them")
        assert dashboard(operator) == []
        assert doctor() == ([], 0)
        assert monitoring.firing(PATIENCE) == set()
    finally:
        beat.stop()
    wait_for(lambda: {"delivery", "polling"} <= set(health(operator)), timeout=60, what="somebody to miss the jobs")
    assert set(health(operator)) == {"delivery", "polling"}
    assert operator.get("/restate/health/").status_code == 503
    told = [health(operator)["delivery"], health(operator)["polling"]]
    assert [text[: text.index(" last ran")] for text in told] == ["The job delivery", "The job polling"]
    texts, code = doctor()
    assert code == 1
    assert [text[: text.index(" last ran")] for text in texts] == ["The job delivery", "The job polling"]
    alerts = dashboard(operator)
    assert [text[: text.index(" last ran")] for text in alerts] == ["The job delivery", "The job polling"]
    assert monitoring.firing(PATIENCE) == {"RestateNoDelivery", "RestateNoPoll"}
    # Somebody starts them again, by whatever means.
    call_command("restate_relay", "--once", stdout=io.StringIO())
    assert all_is_well(operator)


def test_a_job_that_always_fails(restate, settings, operator, monkeypatch):
    run_jobs()
    tasks.prune()

    def broken(**_: object) -> None:
        raise RuntimeError("a bug of the worker's")

    with monkeypatch.context() as patch:
        patch.setattr("restate_django.polling.poll_due", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            tasks.poll()
    assert doctor() == (["The job polling last ended in an error: RuntimeError: a bug of the worker's"], 1)
    assert dashboard(operator) == ["The job polling ends in an error."]
    assert monitoring.firing() == {"RestateJobFailing"}
    assert health(operator) == {}, "it ran well not long ago"
    tasks.poll()
    assert all_is_well(operator)


def test_the_job_runs_and_comes_to_no_row(restate, settings, operator):
    """A worker that polls one connection alone, say: another one's rows are due, and nobody comes."""
    patient(settings, PATIENCE)
    run_jobs()
    assert all_is_well(operator)
    late = timezone.now() - dt.timedelta(minutes=2)
    row = make_row("running", next_poll_at=late)
    assert health(operator).keys() == {"polling"}
    assert doctor()[1] == 1
    assert "asked about" in str(dashboard(operator)), dashboard(operator)
    assert monitoring.firing(PATIENCE) == {"RestatePollOverdue"}
    row.delete()
    assert all_is_well(operator)


def test_a_database_does_not_answer(restate, settings, operator, monkeypatch):
    run_jobs()
    assert all_is_well(operator)
    with monkeypatch.context() as patch:
        patch.setattr("restate_django.vitals.look", away)
        assert monitoring.firing() == {"RestateDatabaseDown"}
        settings.RESTATE = {"default": {"DATABASES": 7}}
        assert monitoring.firing() == {"RestateNotMeasured"}


def away(*_: object) -> None:
    raise OperationalError("away")


def test_every_rule_is_produced_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [rule["alert"] for rule in monitoring.rules() if f'"{rule["alert"]}"' not in source] == []
