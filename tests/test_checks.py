"""The system checks: each setting that they warn of, beside one like it that is fine."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from celery import signature
from django.core import checks as django_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from restate_django import checks, schedules
from restate_django.tasks import beat_schedule

CLOUD = "https://201hy10cd3h6426jy80tb32n6en.env.us.restate.cloud:8080"
CLOUD_ADMIN = "https://201hy10cd3h6426jy80tb32n6en.env.us.restate.cloud:9070"
GOOD_SQLITE = {"transaction_mode": "IMMEDIATE", "timeout": 20}


def ids(entry: object = None, **others: object) -> list[str]:
    with override_settings(RESTATE={"default": entry or {}, **others}):
        found = checks.check_settings()
    for message in found:
        assert message.hint, message.id
        assert message.msg.startswith(("RESTATE", "DATABASES", "USE_TZ")), message.id
    return [message.id for message in found]


def fake_databases(monkeypatch, databases):
    """Put databases in the place of Django's handler: a handler of another engine needs its driver."""

    class Handler(dict):
        settings = databases

    handler = Handler(
        {
            alias: SimpleNamespace(
                vendor=entry["vendor"],
                settings_dict={"NAME": entry.get("NAME", ""), "OPTIONS": entry.get("OPTIONS", {})},
            )
            for alias, entry in databases.items()
        }
    )
    monkeypatch.setattr(checks, "database_connections", handler)


@pytest.fixture(autouse=True)
def _good_database(monkeypatch):
    """Hold the settings of a connection apart from the database that the suite runs on."""
    fake_databases(monkeypatch, {"default": {"vendor": "postgresql", "NAME": "x"}, "other": {"vendor": "mysql"}})


def test_the_defaults_are_fine():
    assert ids() == []


@pytest.mark.django_db(databases=["default", "other"])  # from Django 6.1 on, its own checks look into the databases
def test_the_checks_are_registered_and_show_in_manage_py_check():
    with override_settings(RESTATE={"default": {"INGRES_URL": "http://h"}}):
        with pytest.raises(SystemCheckError) as caught:
            call_command("check", stdout=StringIO(), stderr=StringIO())
        assert "restate_django.E001" in str(caught.value)
        assert 'RESTATE["default"]["INGRES_URL"]: unknown key. Did you mean INGRESS_URL?' in str(caught.value)
    assert checks.TAG in django_checks.registry.registry.tags_available()


def test_all_checks_run_without_a_database():
    """They are no ``Tags.database`` checks, which run only where a command names a database."""
    with override_settings(RESTATE={"default": {"DATABASES": ["nope"]}}):
        found = django_checks.run_checks(tags=[checks.TAG])
    assert [message.id for message in found] == ["restate_django.E002"]


def test_e002_names_an_alias_that_databases_lacks():
    with override_settings(RESTATE={"default": {"DATABASES": ["default", "archive"]}}):
        (found,) = checks.check_settings()
    assert found.id == "restate_django.E002"
    assert "'archive'" in found.msg
    assert "'default', 'other'" in found.hint
    assert ids({"DATABASES": ["default", "other"]}) == []


def test_e003_a_ca_bundle_that_is_not_there(tmp_path):
    bundle = tmp_path / "ca.pem"
    assert ids({"CA_BUNDLE": bundle}) == ["restate_django.E003"]
    bundle.touch()
    assert ids({"CA_BUNDLE": bundle}) == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"LEASE": 30, "TIMEOUT": 10}, []),
        ({"LEASE": 29.9, "TIMEOUT": 10}, ["restate_django.E004"]),
        ({"TIMEOUT": 20}, []),
        ({"TIMEOUT": 21}, ["restate_django.E004"]),
        ({"LEASE": 3, "TIMEOUT": 1}, []),
        ({"LEASE": 2.9, "TIMEOUT": 1}, ["restate_django.E004"]),
        ({"LEASE": 1.4, "TIMEOUT": 1}, ["restate_django.E001"]),  # refused by conf: nothing could be sent
    ],
)
def test_e004_a_lease_under_three_times_the_timeout(entry, expected):
    assert ids(entry) == expected


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mysql"])
def test_e005_times_without_a_zone(monkeypatch, engine):
    """On every database: what Restate tells can't be compared with the rows' times."""
    fake_databases(monkeypatch, {"default": {"vendor": engine, "NAME": "x", "OPTIONS": GOOD_SQLITE}})
    with override_settings(USE_TZ=False):
        assert ids() == ["restate_django.E005"]
        # It is told beside what else is wrong, and not only once that is mended.
        assert ids({"LEASE": "?"}) == ["restate_django.E005", "restate_django.E001"]
    assert ids() == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"TOKEN": "t", "INGRESS_URL": CLOUD, "ADMIN_URL": CLOUD_ADMIN}, []),
        ({"TOKEN": "t", "INGRESS_URL": CLOUD, "ADMIN_URL": None}, []),
        ({"TOKEN": "t", "INGRESS_URL": CLOUD.replace("https", "http"), "ADMIN_URL": None}, ["W001"]),
        ({"TOKEN": "t", "INGRESS_URL": CLOUD, "ADMIN_URL": "http://admin.example.com"}, ["W001"]),
        ({"TOKEN": "t", "INGRESS_URL": "https://restate.example.com", "ADMIN_URL": None}, ["W002"]),
        ({"TOKEN": "t", "INGRESS_URL": "https://not-restate.cloud", "ADMIN_URL": None}, ["W002"]),
        ({"TOKEN": "t"}, ["W002"]),
        ({"TOKEN": "t", "INGRESS_URL": "http://127.0.0.2:8080", "ADMIN_URL": "http://[::1]:9070"}, ["W002"]),
        ({"TOKEN": "t", "INGRESS_URL": "http://a.localhost", "ADMIN_URL": None}, ["W002"]),
        ({"TOKEN": "t", "INGRESS_URL": "http://10.0.0.1", "ADMIN_URL": "http://h"}, ["W001", "W001", "W002"]),
        ({"HEADERS": {"authorization": "Basic x"}, "INGRESS_URL": "http://h", "ADMIN_URL": None}, ["W001", "W002"]),
        ({"HEADERS": {"X-Trace": "x"}, "INGRESS_URL": "http://h", "ADMIN_URL": None}, []),
        ({"INGRESS_URL": "http://h", "ADMIN_URL": "http://h"}, []),
    ],
)
def test_w001_and_w002_a_token_that_others_can_read_or_the_server_would_store(entry, expected):
    assert ids(entry) == [f"restate_django.{name}" for name in expected]


def test_no_finding_shows_the_token():
    entry = {"TOKEN": "s3cr3t", "INGRESS_URL": "http://h"}
    with override_settings(RESTATE={"default": entry}):
        assert "s3cr3t" not in str(checks.check_settings())


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"IDEMPOTENCY_RETENTION": 300}, ["restate_django.W005"]),
        ({"IDEMPOTENCY_RETENTION": 301}, []),
        ({"IDEMPOTENCY_RETENTION": 0}, []),
        ({"POLL_MAX_INTERVAL": timedelta(days=2)}, ["restate_django.W005"]),
    ],
)
def test_w005_a_poll_interval_that_is_not_shorter_than_the_retention(entry, expected):
    assert ids(entry) == expected


def test_w006_payloads_are_to_be_checked_and_no_schema_can_be_read():
    assert ids({"VALIDATE_PAYLOADS": True, "ADMIN_URL": None}) == ["restate_django.W006"]
    assert ids({"VALIDATE_PAYLOADS": True}) == ids({"ADMIN_URL": None}) == []


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("db.sqlite3", GOOD_SQLITE, []),
        ("db.sqlite3", {"transaction_mode": "exclusive", "timeout": 30.5}, []),
        ("db.sqlite3", {}, ["W003", "W004"]),
        ("db.sqlite3", {"transaction_mode": None, "timeout": 20}, ["W003"]),
        ("db.sqlite3", {"transaction_mode": "DEFERRED", "timeout": 20}, ["W003"]),
        ("db.sqlite3", {"transaction_mode": "IMMEDIATE"}, ["W004"]),
        ("db.sqlite3", {"transaction_mode": "IMMEDIATE", "timeout": 19.9}, ["W004"]),
        (":memory:", {}, []),
        ("file:memorydb_default?mode=memory&cache=shared", {}, []),
    ],
)
def test_w003_and_w004_a_file_of_sqlites_that_several_processes_write(monkeypatch, name, options, expected):
    fake_databases(
        monkeypatch,
        {
            "default": {"vendor": "sqlite", "NAME": name, "OPTIONS": options},
            "unused": {"vendor": "sqlite", "NAME": "db.sqlite3"},
        },
    )
    assert ids() == [f"restate_django.{item}" for item in expected]
    # Two connections that share a database say it once.
    assert ids(cloud={}) == [f"restate_django.{item}" for item in expected]


# ---------------------------------------------------------------- Celery


def of_celery(entry: object = None) -> list[str]:
    with override_settings(RESTATE={"default": entry or {}}):
        found = checks.check_celery()
    for message in found:
        assert message.hint, message.id
    return [message.id for message in found]


def test_a_project_without_celery_is_told_nothing(monkeypatch):
    """Its jobs are run by restate_relay or cron, which no setting tells of."""
    monkeypatch.setattr(checks, "project_app", lambda: None)
    assert of_celery() == []
    assert of_celery({"DELIVERY": "relay"}) == []


def test_w007_a_celery_app_that_starts_no_job(make_celery_app):
    make_celery_app()
    assert of_celery() == ["restate_django.W007"]
    make_celery_app(beat_schedule={"mine": {"task": "mine", "schedule": 5}})
    assert of_celery() == ["restate_django.W007"]


def test_w008_a_celery_app_that_starts_some_of_the_jobs(make_celery_app):
    entries = beat_schedule()
    make_celery_app(beat_schedule={name: entry for name, entry in entries.items() if "poll" not in name})
    with override_settings(RESTATE={}):
        (found,) = checks.check_celery()
    assert found.id == "restate_django.W008"
    assert "and not restate_django.poll." in found.msg


def test_w009_tasks_for_a_project_without_celery(monkeypatch):
    monkeypatch.setattr(checks, "project_app", lambda: None)
    assert of_celery({"DELIVERY": "celery"}) == ["restate_django.W009"]


def test_w010_a_connection_that_no_entry_takes(make_celery_app):
    three = {"default": {}, "second": {}, "third": {}}
    first, second = beat_schedule(connections=["default"]), beat_schedule(connections=["second"])
    make_celery_app(beat_schedule=first | second)
    with override_settings(RESTATE=three):
        (found,) = checks.check_celery()
    assert found.id == "restate_django.W010"
    assert "'third'" in found.msg
    # Sent, and never asked about.
    polls_nothing = {name: entry for name, entry in second.items() if "poll" not in name}
    make_celery_app(beat_schedule=first | polls_nothing)
    with override_settings(RESTATE=three):
        assert [("'second'" in found.msg, "'third'" in found.msg) for found in checks.check_celery()] == [
            (True, False),
            (False, True),
        ]
    make_celery_app(beat_schedule=first | beat_schedule())
    with override_settings(RESTATE=three):
        assert checks.check_celery() == []


def test_a_schedule_with_all_jobs_under_any_name_is_fine(make_celery_app):
    app = make_celery_app(beat_schedule={f"my {name}": entry for name, entry in beat_schedule().items()})
    assert of_celery() == of_celery({"DELIVERY": "celery"}) == []
    app.conf.beat_schedule = {}
    for entry in beat_schedule().values():
        app.add_periodic_task(entry["schedule"], signature(entry["task"], app=app))
    assert of_celery() == []


def test_a_schedule_that_is_elsewhere_is_not_judged(make_celery_app, monkeypatch):
    make_celery_app(beat_scheduler="redbeat.RedBeatScheduler")
    assert of_celery() == []
    make_celery_app()
    monkeypatch.setattr(schedules.apps, "is_installed", lambda name: name == "django_celery_beat")
    assert of_celery() == []


def test_celery_is_not_asked_about_settings_that_can_not_be_read(make_celery_app):
    make_celery_app()
    assert of_celery({"NONSENSE": 1}) == []


def test_the_app_that_celery_makes_up_is_nobodys():
    code = (
        "from restate_django.schedules import project_app; import sys; assert project_app() is None; "
        "assert 'celery' not in sys.modules; import celery; celery.current_app.conf; assert project_app() is None; "
        "app = celery.Celery('mine'); assert project_app() is app; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "fine\n", done.stderr


def test_other_databases_have_options_of_their_own(monkeypatch):
    fake_databases(monkeypatch, {"default": {"vendor": "postgresql", "NAME": "x", "OPTIONS": {"timeout": 1}}})
    assert ids() == []


def test_the_checks_open_no_database(monkeypatch):
    monkeypatch.undo()
    # Without the django_db mark, pytest-django raises for whatever opens a connection.
    assert ids({"DATABASES": ["default", "other"]}) == []
