"""The health view and the checks for django-health-check: what each says, to whom, and that nothing holds them up."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
import time

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from restate_django import health, vitals
from restate_django.contrib import health_check
from restate_django.health import Check, State
from restate_django.models import JobRun
from tests.admin.rows import make_row

HEALTH = "/restate/health/"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def jobs_run(db):
    """The jobs ran just now."""
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now())


@pytest.fixture
def viewer(db):
    user = User.objects.create_user("viewer")
    user.user_permissions.add(Permission.objects.get(codename="view_invocation"))
    client = Client()
    client.force_login(user)
    return client


def told(client: Client | None = None, **query) -> dict:
    response = (client or Client()).get(HEALTH, query)
    answer = response.json()
    assert response.status_code == (503 if answer["status"] == "fault" else 200)
    assert "no-store" in response.headers["Cache-Control"]
    return answer


# ---------------------------------------------------------------- the view


def test_when_all_is_well(restate, jobs_run, viewer, django_assert_num_queries):
    assert told() == {"status": "ok", "checks": dict.fromkeys(Check, "ok")}
    details = told(viewer)["details"]
    assert {(each["check"], each["of"], each["status"]) for each in details} == {
        (check.value, "default", "ok") for check in Check
    }
    assert all(0 <= each["seconds"] < 3 and "message" not in each for each in details)


def test_nobody_is_told_where_a_server_is(jobs_run, viewer, settings, caplog):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": NOWHERE}}
    answer = told()
    assert answer["status"] == "fault"
    assert answer["checks"]["ingress"] == answer["checks"]["admin"] == "fault"
    assert answer["checks"]["database"] == answer["checks"]["polling"] == "ok"
    assert "127.0.0.1" not in str(answer)
    details = {each["check"]: each for each in told(viewer)["details"]}
    assert details["ingress"]["message"] == "The ingress does not answer."
    assert "127.0.0.1:9" in details["ingress"]["detail"]
    assert not [record for record in caplog.records if record.name == "django.request"], "ADMINS get no mail per probe"


def test_a_part_is_asked_for_by_name(jobs_run, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    assert told(only="database") == {"status": "ok", "checks": {"database": "ok"}}
    assert told(only="database,polling")["checks"] == {"database": "ok", "polling": "ok"}
    assert told(only=["ingress", "admin"]) == {"status": "fault", "checks": {"ingress": "fault"}}
    response = Client().get(HEALTH, {"only": "database,ingres"})
    assert response.status_code == 400
    assert "['ingres']" in response.json()["error"]


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_it_is_read(method):
    assert getattr(Client(), method)(HEALTH).status_code == 405


def test_a_probe_needs_no_account(jobs_run, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert told(only="database")["status"] == "ok"


def test_without_jobs_nothing_is_delivered_or_read(db, settings, viewer):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None, "ALERT_AFTER": 60}}
    only = "database,delivery,polling"
    never = told(viewer, only=only)
    assert never["checks"] == {"database": "ok", "delivery": "fault", "polling": "fault"}
    assert never["details"][-1]["message"] == "The job polling has never run."
    JobRun.objects.create(job="deliver", succeeded_at=timezone.now() - dt.timedelta(seconds=50))
    JobRun.objects.create(job="poll", succeeded_at=timezone.now() - dt.timedelta(seconds=3700))
    stale = told(viewer, only=only)
    assert stale["checks"] == {"database": "ok", "delivery": "ok", "polling": "fault"}
    assert stale["details"][-1]["message"] == "The job polling last ran 1 h 1 min ago."


def test_a_row_that_waits_for_long_is_a_fault_with_its_reason(jobs_run, settings, viewer):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    make_row("unsent", age=290)
    assert told(only="delivery")["status"] == "ok"
    make_row("unsent", age=610, delivery_error="restate.internal: connection refused")
    answer = told(viewer, only="delivery")
    assert answer["status"] == "fault"
    assert answer["details"][0]["message"].startswith("An invocation has been waiting for 10 min")
    assert answer["details"][0]["detail"] == "restate.internal: connection refused"
    assert "internal" not in str(told(only="delivery"))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("paused", "1 invocation is paused: its handler failed too often."),
        ("undeliverable", "1 invocation is undeliverable: nobody knows whether it ran."),
    ],
)
def test_what_waits_for_a_person_is_a_warning(jobs_run, settings, viewer, status, message):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    make_row(status)
    answer = told(viewer, only="attention,delivery,polling")
    assert answer["status"] == "warning"
    assert answer["checks"] == {"delivery": "ok", "polling": "ok", "attention": "warning"}
    assert answer["details"][-1]["message"] == message


def test_settings_that_can_not_be_read(db, settings):
    settings.RESTATE = {"default": {"NONSENSE": 1}}
    assert told()["checks"] == dict.fromkeys(Check, "fault")


@pytest.mark.django_db(databases=["default", "other"])
def test_every_database_and_every_connection_counts(jobs_run, settings, restate):
    ours = settings.RESTATE["default"]
    settings.RESTATE = {
        "default": {**ours, "DATABASES": ["default", "other"]},
        "second": {**ours, "INGRESS_URL": NOWHERE},
    }
    answer = told()
    assert answer["checks"]["database"] == answer["checks"]["admin"] == "ok"
    assert answer["checks"]["ingress"] == "fault", "the second one's"
    assert answer["checks"]["polling"] == "fault", "no job ran on the other database"


# ---------------------------------------------------------------- nothing holds it up


@pytest.mark.django_db(transaction=True)
def test_what_hangs_holds_up_nothing_else_and_is_asked_once(monkeypatch, settings, restate):
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now())
    hanging = threading.Event()
    asked = []

    def look(using):
        asked.append(using)
        hanging.wait(30)
        raise OperationalError("it comes back too late")

    monkeypatch.setattr(vitals, "look", look)
    try:
        start = time.monotonic()
        for _ in range(3):
            found = {each.check: each for each in health.examine(timeout=0.5)}
        assert time.monotonic() - start < 3
        assert found[Check.INGRESS].state is State.OK
        assert found[Check.DATABASE].state is found[Check.POLLING].state is State.FAULT
        assert found[Check.DATABASE].detail == "There was no answer in time."
        assert asked == ["default"], "it still hangs: nobody else needs to find out"
        started = threading.active_count()
    finally:
        hanging.set()
    monkeypatch.undo()
    deadline = time.monotonic() + 10
    while health.ask(Check.DATABASE, "default").state is not State.OK:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert threading.active_count() <= started


def test_a_server_that_hangs_costs_the_timeout(jobs_run, settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.RESTATE = {
            "default": {"INGRESS_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "ADMIN_URL": None},
        }
        start = time.monotonic()
        found = {each.check: each.state for each in health.examine(timeout=0.5)}
        assert time.monotonic() - start < 2
    assert found[Check.INGRESS] is State.FAULT
    assert found[Check.POLLING] is State.OK


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_an_answer_too(monkeypatch, settings, restate):
    """Whoever asks with a session is then nobody in particular: who it is can't be looked up."""
    user = User.objects.create_superuser("root")
    client = Client()
    client.force_login(user)

    def look(using):
        raise OperationalError("connection to server at db.internal failed")

    monkeypatch.setattr(vitals, "look", look)
    answer = told(client)
    assert answer["checks"]["database"] == answer["checks"]["attention"] == "fault"
    assert answer["checks"]["ingress"] == "ok"
    assert "details" not in answer


# ---------------------------------------------------------------- django-health-check


def result_of(check):
    return asyncio.run(check.get_result())


@pytest.mark.django_db(transaction=True)
def test_its_checks_ask_the_same(restate, settings):
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now() - dt.timedelta(minutes=2))
    make_row("paused")
    checks = [
        health_check.Database(),
        health_check.Ingress(),
        health_check.AdminAPI(),
        health_check.Delivery(),
        health_check.Polling(),
    ]
    assert [result_of(check).error for check in checks] == [None] * 5
    assert repr(checks[0]) == "Database(alias='default')"
    error = result_of(health_check.Attention()).error
    assert isinstance(error, ServiceWarning)
    assert error.message == "1 invocation is paused: its handler failed too often."
    for check in (health_check.Delivery, health_check.Polling):
        error = result_of(check(after=dt.timedelta(minutes=1))).error
        assert isinstance(error, ServiceUnavailable)
        assert "last ran 2 min" in error.message


@pytest.mark.django_db(transaction=True)
def test_its_page_names_no_host(settings, client, caplog):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    response = client.get("/health-check/", {"format": "json"})
    assert response.status_code == 500
    answer = response.json()
    assert answer["Ingress(alias='default')"] == "Unavailable: The ingress does not answer."
    assert answer["Database(alias='default')"] == "OK"
    assert "127.0.0.1" not in response.text
    assert "127.0.0.1:9" in caplog.text
