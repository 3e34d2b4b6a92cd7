"""``restate doctor``: each thing that it looks at, well and broken on purpose, against real servers and databases."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone, translation

from restate_django import send
from restate_django.client.results import ServiceInfo, Version
from restate_django.doctor import Level, examine, servers, setup, storage
from restate_django.models import Invocation, JobRun
from restate_django.tasks import beat_schedule
from tests.admin.rows import make_row
from tests.wait import wait_for

if TYPE_CHECKING:
    from restate_django.doctor import Line

pytestmark = pytest.mark.django_db

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def jobs_run():
    """The jobs ran just now."""
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now(), seconds=0.02, counts={"succeeded": 3})


def doctor(*words: str) -> tuple[str, int]:
    out = io.StringIO()
    try:
        call_command("restate", "doctor", *words, stdout=out)
    except CommandError as error:
        return out.getvalue(), error.returncode
    return out.getvalue(), 0


def wrong(lines) -> list[tuple[str, str]]:
    return [(line.about, line.text) for line in lines if line.level in {Level.WARNING, Level.ERROR}]


# ---------------------------------------------------------------- the command


def test_when_all_is_well(restate, jobs_run):
    send("Greeter", "greet", {"name": "Mary"})
    said, code = doctor()
    assert code == 0, said
    lines = said.splitlines()
    assert all(line.startswith(("ok ", "note ")) for line in lines[:-1]), said
    assert lines[-1].startswith("0 wrong, 0 to be looked at, of ")
    for words in (
        "settings: RESTATE is fine",
        "answers: Restate 1.",
        "Paths are 'restate'",
        "The server's clock and ours are",
        "The ingress at http://127.0.0.1:",
        "Restate serves what the newest rows name.",
        "its migrations are complete",
        "The job polling ran",
        "for 20 ms: 3 succeeded",
        "No row waits for too long, or for a person. Open: 1 ",
        "what is due is found by them",
        "Nobody has been holding locks for long",
    ):
        assert words in said


def test_what_is_wrong_has_a_remedy_and_an_exit_code(settings):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": NOWHERE}}
    said, code = doctor()
    assert code == 1
    lines = said.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("ERROR", "WARNING")):
            assert lines[number + 1].startswith("         -> "), line
    assert "The Admin API at http://127.0.0.1:9 does not answer" in said
    assert "The ingress at http://127.0.0.1:9 does not answer" in said
    assert "The job delivery has never run." in said
    assert lines[-1].startswith("4 wrong, 0 to be looked at")


def test_a_warning_fails_where_it_is_asked_to(restate, jobs_run):
    make_row("paused")
    assert doctor()[1] == 0
    said, code = doctor("--fail-level", "warning")
    assert code == 1
    assert "WARNING  database default: 1 invocation is paused" in said


def test_json_is_one_document(restate, jobs_run, settings):
    make_row("unsent", age=900, service="Nobody", delivery_error="no such service")
    said, code = doctor("--json")
    assert code == 1
    document = json.loads(said)
    assert (document["errors"], document["warnings"]) == (2, 0)
    errors = [each for each in document["findings"] if each["level"] == "error"]
    assert [each["about"] for each in errors] == ["connection default", "database default"]
    assert errors[0]["text"] == "Rows wait for handlers that Restate does not serve: Nobody/greet (1)."
    assert errors[1]["text"].endswith("The last attempt: no such service")
    assert all(each["remedy"] for each in errors)


def test_one_connection_alone(restate, jobs_run, settings):
    settings.RESTATE = {**settings.RESTATE, "second": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    assert doctor("--connection", "default")[1] == 0
    said, code = doctor("--connection", "second")
    assert code == 1
    assert "connection default" not in said
    with pytest.raises(CommandError, match="no connection 'third'"):
        call_command("restate", "doctor", "--connection", "third")


def test_settings_that_can_not_be_read_are_the_first_line(settings):
    settings.RESTATE = {"default": {"NONSENSE": 1}}
    said, code = doctor()
    assert code == 1
    assert said.startswith('ERROR    settings: RESTATE["default"]["NONSENSE"]: unknown key.')
    assert len(list(examine())) == 1


def test_what_the_checks_say_is_a_line_unless_it_is_silenced(settings, jobs_run):
    settings.RESTATE = {"default": {"INGRESS_URL": "https://h.invalid", "ADMIN_URL": None, "TOKEN": "s3cret"}}
    (line,) = setup.settings()
    assert line.level is Level.WARNING
    assert line.text.endswith("(restate_django.W002)")
    settings.SILENCED_SYSTEM_CHECKS = ["restate_django.W002"]
    assert [line.level for line in setup.settings()] == [Level.OK]


def test_it_speaks_english_whatever_the_site_does(settings):
    settings.RESTATE = {"default": {"INGRESS_URL": NOWHERE, "ADMIN_URL": None}}
    with translation.override("de"):
        said = doctor()[0]
    assert "The job delivery has never run." in said
    assert "Zustellung" not in said


# ---------------------------------------------------------------- servers


def of_server(settings) -> list[Line]:
    from restate_django.conf import get_settings

    return list(servers.connection(get_settings()))


@pytest.mark.parametrize(("style", "level"), [("auto", Level.OK), ("restate", Level.OK), ("legacy", Level.WARNING)])
def test_path_styles_on_a_server_of_today(restate, settings, style, level):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "PATH_STYLE": style}}
    assert max(line.level == level for line in of_server(settings) if "ath" in line.text)
    assert not [line for line in of_server(settings) if line.level is Level.ERROR]


def test_path_styles_on_a_server_of_yesterday(legacy_restate_server, settings):
    urls = {"INGRESS_URL": legacy_restate_server.ingress_url, "ADMIN_URL": legacy_restate_server.admin_url}
    settings.RESTATE = {"default": urls}
    assert wrong(of_server(settings)) == []
    settings.RESTATE = {"default": {**urls, "PATH_STYLE": "restate"}}
    first, second = (text for _about, text in wrong(of_server(settings)))
    assert first == "PATH_STYLE is 'restate', and Restate 1.6.2 does not know these paths: nothing can be sent."
    assert "The server answered 404" in second
    # Without an Admin API nobody tells the version, and the ingress tells that the paths are wrong.
    settings.RESTATE = {"default": {**urls, "ADMIN_URL": None}}
    ((_about, text),) = wrong(of_server(settings))
    assert "path style" in text
    settings.RESTATE = {"default": {**urls, "ADMIN_URL": None, "PATH_STYLE": "legacy"}}
    assert wrong(of_server(settings)) == []


def test_an_address_of_something_else(settings, live_server):
    settings.RESTATE = {"default": {"INGRESS_URL": live_server.url, "ADMIN_URL": live_server.url, "TOKEN": "s3cret"}}
    lines = of_server(settings)
    assert len(wrong(lines)) == 2
    assert "s3cret" not in str(lines)


def test_an_old_version_is_told(restate, settings, monkeypatch):
    from restate_django.client import AdminClient

    monkeypatch.setattr(AdminClient, "version", lambda self, timeout=None: Version("1.5.3"))
    texts = [text for _about, text in wrong(of_server(settings))]
    assert "The server is Restate 1.5.3." in texts


@pytest.mark.parametrize(
    ("ahead", "level", "text"),
    [
        (dt.timedelta(milliseconds=20), Level.OK, "The clock and ours are 20 ms apart at most."),
        (dt.timedelta(seconds=-4), Level.OK, "The clock and ours are 4 s apart at most."),
        (dt.timedelta(seconds=7), Level.WARNING, "The clock is 7 s ahead of ours."),
        (dt.timedelta(minutes=-6), Level.ERROR, "The clock is 6 min behind ours."),
    ],
)
def test_clocks(ahead, level, text):
    line = servers.clock_line("x", "The clock", ahead)
    assert (line.level, line.text.replace("4.0 s", "4 s").replace("7.0 s", "7 s")) == (level, text)


def test_a_server_whose_clock_is_off(restate, settings, monkeypatch):
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() - dt.timedelta(hours=1))
    ((_about, text),) = wrong(of_server(settings))
    assert re.fullmatch(r"The server's clock is (59 min 59 s|1 h.*) ahead of ours\.", text)


def test_rows_for_what_nobody_serves(restate, settings, monkeypatch):
    for _ in range(3):
        make_row("unsent", service="Gone", handler="a")
    make_row("succeeded", service="Greeter", handler="no_more")
    for n in range(7):
        make_row("failed", service="Old", handler=f"h{n}")
    # Of another connection: no matter of this server's.
    make_row("unsent", service="Else", connection="other")
    (_, first), (_, second) = wrong(of_server(settings))
    assert first == "Rows wait for handlers that Restate does not serve: Gone/a (3)."
    assert second.startswith(
        "Some of the newest rows were for handlers that Restate does not serve now: Greeter/no_more"
    )
    assert second.endswith("and 3 more.")
    monkeypatch.setattr(servers, "_LOOKED_AT", 1)
    assert [text.partition(": ")[2] for _about, text in wrong(of_server(settings))] == ["Gone/a (1)."], "it is bounded"


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (dt.timedelta(0), "Restate keeps no result of Greeter: a send of unknown outcome is not made again."),
        (
            dt.timedelta(minutes=1),
            "Restate keeps results of Greeter for 1 min, and a row may be asked about later.",
        ),
    ],
)
def test_a_short_memory_is_told(settings, kept, text):
    settings.RESTATE = {}
    from restate_django.conf import get_settings

    def services(ty: str, **retention) -> list[ServiceInfo]:
        return [ServiceInfo(name="Greeter", ty=ty, public=True, handlers=(), **retention)]

    for used in (
        services("Service", idempotency_retention=kept),
        services("Workflow", workflow_completion_retention=kept, idempotency_retention=dt.timedelta(days=1)),
    ):
        assert wrong(servers._retentions("x", get_settings(), used)) == [("x", text)]
    assert wrong(servers._retentions("x", get_settings(), services("Service"))) == []


# ---------------------------------------------------------------- databases


def test_jobs_that_stand_still(settings):
    long_ago = timezone.now() - dt.timedelta(days=3)
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=long_ago)
    assert [text for _, text in wrong(storage.database("default"))] == [
        "The job delivery last ran 3 d ago.",
        "The job polling last ran 3 d ago.",
        "The job clean-up last ran 3 d ago.",
    ]
    settings.RESTATE = {"default": {"RETENTION": None, "ALERT_AFTER": dt.timedelta(days=4)}}
    assert wrong(storage.database("default")) == [], "nothing is to be cleaned up, and there is time"


def test_a_clean_up_that_never_ran_matters_once_there_is_something_old(jobs_run):
    JobRun.objects.filter(job="prune").delete()
    make_row("succeeded")
    assert wrong(storage.database("default")) == []
    make_row("succeeded", age=3 * 24 * 3600)
    assert [text for _, text in wrong(storage.database("default"))] == ["The job clean-up has never run."]


def test_a_job_that_fails(jobs_run):
    JobRun.objects.filter(job="poll").update(failed_at=timezone.now(), error="RuntimeError: no such thing")
    assert wrong(storage.database("default")) == [
        ("database default", "The job polling last ended in an error: RuntimeError: no such thing")
    ]


def test_rows_that_wait(jobs_run):
    make_row("unsent", age=1000, delivery_error="connection refused")
    make_row("undeliverable")
    found = [(line.level, line.text) for line in storage.database("default") if "invocation" in line.text.lower()]
    assert [level for level, _ in found] == [Level.ERROR, Level.WARNING]
    assert found[0][1].endswith("The last attempt: connection refused")


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_was_not_run(jobs_run):
    try:
        call_command("migrate", "restate_django", "0003", verbosity=0)
        ((about, text),) = wrong(storage.database("default"))
        assert about == "database default"
        assert text.startswith("Migrations are missing: 0004_")
    finally:
        call_command("migrate", "restate_django", verbosity=0)


@pytest.mark.django_db(transaction=True)
def test_an_index_that_is_not_there(jobs_run):
    index = next(index for index in Invocation._meta.indexes if index.name == "restate_inv_next_poll")
    with connection.schema_editor() as editor:
        editor.remove_index(Invocation, index)
    try:
        texts = [text for _, text in wrong(storage.database("default"))]
        assert texts == ["Indexes are missing: restate_inv_next_poll."]
    finally:
        with connection.schema_editor() as editor:
            editor.add_index(Invocation, index)
    assert wrong(storage.database("default")) == []


def test_an_index_that_is_not_used(jobs_run, monkeypatch):
    monkeypatch.setattr(storage, "_CLAIMS", (("delivery", "created_at", "restate_inv_next_attempt"),))
    ((_, text),) = wrong(storage.database("default"))
    assert text == "The database uses no index to find what is due: delivery (restate_inv_next_attempt)."


@pytest.mark.django_db(transaction=True)
def test_somebody_who_holds_locks(jobs_run, monkeypatch):
    """Another connection writes to the table and does not come to an end."""
    monkeypatch.setattr(storage, "LONG", dt.timedelta(seconds=-1))
    monkeypatch.setattr(storage, "_SQLITE_WAIT", 1)
    row = make_row("unsent")
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Invocation.objects.filter(pk=row.pk).update(attempts=7)
            holds.set()
            done.wait(60)
        connections.close_all()

    def seen() -> list[str]:
        # MariaDB makes its table of transactions anew only where nobody has asked for it for a tenth of a second.
        time.sleep(0.15)
        return [text for _, text in wrong(storage._locks("x", connection))]

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holds.wait(30)
        texts = wait_for(seen, timeout=20, what="the lock to be seen")
    finally:
        done.set()
        thread.join(60)
    assert len(texts) == 1
    assert texts[0].startswith(("A transaction has been holding", "Somebody has been writing"))
    monkeypatch.undo()
    assert wrong(storage._locks("x", connection)) == []
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            assert cursor.fetchone()[0] == 30_000, "it waits as long as before"


def test_a_user_who_may_not_see_locks(jobs_run, monkeypatch):
    def refused(database):
        with database.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")

    monkeypatch.setattr(storage, f"_held_{connection.vendor}", refused)
    lines = list(storage.database("default"))
    assert wrong(lines) == []
    assert "this database user may not" in lines[-1].text
    assert JobRun.objects.count() == 3, "the transaction goes on"


def test_a_database_that_is_away(monkeypatch):
    def away(database):
        raise OperationalError("could not connect to server\nDETAIL: and more")

    monkeypatch.setattr(storage, "_pending_migrations", away)
    (line,) = storage.database("default")
    assert line.level is Level.ERROR
    assert line.text == "It does not answer as it should: OperationalError: could not connect to server"
    assert list(storage.database("nowhere")) == []


# ---------------------------------------------------------------- Celery


def test_a_project_without_celery(monkeypatch):
    monkeypatch.setattr(setup, "project_app", lambda: None)
    (line,) = setup.celery()
    assert line.level is Level.NOTE


def test_celery_with_all_jobs(make_celery_app):
    make_celery_app(beat_schedule=beat_schedule())
    schedule, broker = setup.celery()
    assert (schedule.level, schedule.text) == (Level.OK, "The beat schedule of the app 'mysite' has all jobs.")
    assert (broker.level, broker.text) == (Level.OK, "The broker answers.")


def test_a_schedule_that_is_elsewhere(make_celery_app):
    make_celery_app(beat_scheduler="redbeat.RedBeatScheduler")
    assert next(setup.celery()).level is Level.NOTE


def test_a_broker_that_is_away(make_celery_app):
    make_celery_app(beat_schedule=beat_schedule(), broker_url="amqp://user:s3cret@127.0.0.1:9//")
    line = list(setup.celery())[-1]
    assert line.level is Level.ERROR
    assert "s3cret" not in line.text
    assert line.text.startswith("The broker does not let us in: ")


def test_a_broker_that_hangs(make_celery_app, monkeypatch):
    monkeypatch.setattr(setup, "BROKER_TIMEOUT", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        make_celery_app(beat_schedule=beat_schedule(), broker_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        line = list(setup.celery())[-1]
    assert line.level is Level.ERROR
