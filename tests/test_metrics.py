"""Metrics: what each instrument is told, what the databases are asked, who may see it, and the example's rules."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from django.urls import path
from django.utils import timezone
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from restate_django import Outgoing, call, gauges, measuring, polling, send, send_many, tasks, vitals
from restate_django.breaker import LEFT_ALONE_FOR
from restate_django.connections import BULK_FROM
from restate_django.connections import connections as servers
from restate_django.contrib.otel import metrics as otel
from restate_django.contrib.prometheus import metrics as prometheus
from restate_django.contrib.prometheus.views import MetricsView
from restate_django.models import Invocation, JobRun
from tests import monitoring
from tests.admin.rows import make_row
from tests.conftest import ROOT
from tests.fake_ingress import FakeIngress
from tests.require import require
from tests.wait import wait_for


class Prometheus:
    """The values of a test, as Prometheus would read them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.listener = prometheus.Metrics(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"restate_django_{name}", labels)

    def labels(self, name: str) -> list[dict[str, str]]:
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return [sample.labels for sample in samples if sample.name == f"restate_django_{name}"]


@pytest.fixture
def told():
    made = Prometheus()
    measuring.listen(made.listener)
    yield made
    measuring.stop(made.listener)


@pytest.fixture
def fake(settings):
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _read_anew(monkeypatch):
    """A reading of the databases serves for a second: each test has its own."""
    monkeypatch.setattr(gauges, "_FRESH_FOR", 0)


GREET = {"connection": "default", "service": "Greeter", "handler": "greet"}


# ---------------------------------------------------------------- what is told while work is done


@pytest.mark.django_db(transaction=True)
class TestWork:
    """What each instrument is told."""

    def test_an_invocation_from_its_send_to_its_recorded_end(self, restate, told):
        row = send("Greeter", "greet", {"name": "Mary"})
        assert told.value("sends_total", **GREET, verb="send") == 1
        assert told.value("delivery_duration_seconds_count", connection="default", result="ok") == 1
        assert told.value("acceptance_delay_seconds_count", connection="default") == 1

        def ended() -> bool:
            tasks.poll()
            row.refresh_from_db()
            return row.status == "succeeded"

        wait_for(ended, what="the end")
        assert told.value("outcomes_total", **GREET, status="succeeded") == 1
        assert told.value("recording_delay_seconds_count", connection="default") == 1
        late = (row.recorded_at - row.finished_at).total_seconds()
        assert told.value("recording_delay_seconds_sum", connection="default") == pytest.approx(max(0, late))
        waited = (row.accepted_at - row.created_at).total_seconds()
        assert told.value("acceptance_delay_seconds_sum", connection="default") == pytest.approx(waited)
        assert told.value("job_duration_seconds_count", job_name="poll", result="ok") >= 1
        assert told.value("http_duration_seconds_count", kind="send", status="202") == 1
        assert told.value("http_duration_seconds_count", kind="admin.query", status="200") >= 1
        assert told.value("http_duration_seconds_count", kind="output", status="200") == 1

    def test_a_call(self, restate, told):
        call("Greeter", "greet", {"name": "Mary"})
        assert told.value("sends_total", **GREET, verb="call") == 1
        assert told.value("outcomes_total", **GREET, status="succeeded") == 1
        assert told.value("http_duration_seconds_count", kind="call", status="200") == 1

    def test_what_is_rolled_back_was_no_send(self, fake, told):
        with transaction.atomic():
            send("Greeter", "greet", 1)
            transaction.set_rollback(True)
        assert told.value("sends_total", **GREET, verb="send") is None
        with transaction.atomic():
            send("Greeter", "greet", 1, idempotency_key="k")
            send("Greeter", "greet", 1, idempotency_key="k")
            assert told.value("sends_total", **GREET, verb="send") is None
        assert told.value("sends_total", **GREET, verb="send") == 1

    def test_many_by_libcurl(self, fake, told):
        size = BULK_FROM + 1
        send_many([Outgoing("Greeter", "greet", number) for number in range(size)])
        assert told.value("sends_total", **GREET, verb="send") == size
        assert told.value("delivery_duration_seconds_count", connection="default", result="ok") == size
        assert told.value("http_duration_seconds_count", kind="send", status="202") == size

    def test_an_attempt_that_fails(self, fake, told):
        fake.answer = lambda _request: (400, {"x-restate-error-source": "ingress"}, b'{"message":"no"}')
        send("Greeter", "greet", 1)
        assert told.value("delivery_duration_seconds_count", connection="default", result="Refused") == 1
        assert told.value("outcomes_total", **GREET, status="rejected") == 1
        fake.answer = lambda _request: None
        send("Greeter", "greet", 2)
        assert told.value("delivery_duration_seconds_count", connection="default", result="OutcomeUnknown") == 1
        assert told.value("http_duration_seconds_count", kind="send", status="none") >= 1
        assert told.value("acceptance_delay_seconds_count", connection="default") is None

    def test_a_server_that_hangs_opens_the_breaker(self, settings, told, monkeypatch):
        settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}
        monkeypatch.setattr("restate_django.breaker.SLOW", 0)
        for number in range(3):
            assert told.value("breaker_open_until_timestamp_seconds", connection="default") is None
            send("Greeter", "greet", number)
        until = told.value("breaker_open_until_timestamp_seconds", connection="default")
        assert until == pytest.approx(time.time() + LEFT_ALONE_FOR, abs=5)
        assert servers["default"].breaker.is_open

    def test_a_job_that_fails(self, restate, told, monkeypatch):
        def broken(**_):
            raise RuntimeError

        monkeypatch.setattr(polling, "poll_due", broken)
        with pytest.raises(RuntimeError):
            tasks.poll()
        assert told.value("job_duration_seconds_count", job_name="poll", result="error") == 1

    def test_no_label_holds_what_has_many_values(self, fake, told):
        """A key, an id or a text would make a series of its own each."""
        row = send("Greeter", "greet", {"name": "Mary"}, key="mary@example.com", idempotency_key="k-1")
        values = {value for metric in told.registry.collect() for s in metric.samples for value in s.labels.values()}
        assert values.isdisjoint({"mary@example.com", "k-1", str(row.pk), row.pk.hex, row.invocation_id})


# ---------------------------------------------------------------- what the databases are asked


@pytest.mark.django_db(transaction=True)
class TestDatabases:
    """The gauges, by either way."""

    def test_each_is_read_from_the_rows(self, django_assert_max_num_queries):
        make_row("unsent", age=400)
        make_row("paused")
        make_row("undeliverable")
        make_row("succeeded")
        JobRun.objects.create(job="poll", succeeded_at=timezone.now() - dt.timedelta(seconds=900))
        JobRun.objects.create(job="deliver", failed_at=timezone.now(), error="RuntimeError")
        with django_assert_max_num_queries(4, connection=connection):
            readings = list(gauges.read())
        values = {(each.gauge, *each.labels.values()): each.value for each in readings}
        assert values[gauges.INVOCATIONS, "default", "paused"] == 1
        assert values[gauges.INVOCATIONS, "default", "undeliverable"] == 1
        assert values[gauges.INVOCATIONS, "default", "running"] == 0
        assert (gauges.INVOCATIONS, "default", "succeeded") not in values
        assert values[gauges.OLDEST_UNSENT, "default"] == pytest.approx(400, abs=30)
        assert values[gauges.LAST_RUN, "default", "poll"] == pytest.approx(time.time() - 900, abs=30)
        assert values[gauges.LAST_RUN, "default", "deliver"] == 0
        assert values[gauges.FAILING, "default", "deliver"] == 1
        assert values[gauges.READABLE, "default"] == 1
        assert {each.gauge for each in readings} == set(gauges.GAUGES)

    def test_one_that_does_not_answer_says_so_and_holds_up_nothing(self, monkeypatch, caplog):
        def away(using):
            raise OperationalError("server closed the connection")

        monkeypatch.setattr(vitals, "look", away)
        assert list(gauges.read()) == [(gauges.READABLE, {"database": "default"}, 0.0)]
        assert "The database 'default' can't be measured" in caplog.text

    def test_opentelemetry_is_told_the_same_by_the_same_names(self, restate):
        reader = InMemoryMetricReader()
        listener = otel.Metrics(MeterProvider([reader], shutdown_on_exit=False).get_meter("tests"))
        measuring.listen(listener)
        try:
            send("Greeter", "greet", {"name": "Mary"})
            tasks.poll()
            make_row("paused")
            (resource,) = reader.get_metrics_data().resource_metrics
        finally:
            measuring.stop(listener)
        found = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
        assert set(found) == {
            each.full_name
            for each in (*measuring.INSTRUMENTS, *gauges.GAUGES)
            if each not in {measuring.BREAKER, measuring.RECORDING, measuring.OUTCOMES} or each.full_name in found
        }
        (sends,) = found["restate_django.sends"].data.data_points
        assert (sends.value, dict(sends.attributes)) == (1, GREET | {"verb": "send"})
        (accepted,) = found["restate_django.acceptance.delay"].data.data_points
        assert (accepted.count, tuple(accepted.explicit_bounds)) == (1, measuring.BUCKETS)
        points = found["restate_django.invocations"].data.data_points
        assert [point.value for point in points if point.attributes["status"] == "paused"] == [1]


def test_an_exporters_thread_leaves_no_connection_open(transactional_db):
    import threading

    seen = []

    def export() -> None:
        gauges.lately()
        seen.append([each.connection for each in connections.all(initialized_only=True)])

    thread = threading.Thread(target=export)
    thread.start()
    thread.join()
    assert seen == [[None] * len(seen[0])]


# ---------------------------------------------------------------- the page

urlpatterns = [
    path("metrics/", MetricsView.as_view(token="a-long-token")),
    path("closed/", MetricsView.as_view()),
    path("empty/", MetricsView.as_view(token="")),
]


@pytest.mark.django_db
@pytest.mark.urls(__name__)
class TestView:
    """Who may see the metrics."""

    def test_the_token_opens_it(self):
        answer = Client().get("/metrics/", headers={"Authorization": "Bearer a-long-token"})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert 'restate_django_database_up{database="default"} 1.0' in answer.text
        assert "# TYPE restate_django_sends_total counter" in answer.text
        accept = "application/openmetrics-text; version=1.0.0"
        answer = Client().get("/metrics/", headers={"Authorization": "Bearer a-long-token", "Accept": accept})
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")

    @pytest.mark.parametrize("url", ["/metrics/", "/closed/", "/empty/"])
    @pytest.mark.parametrize("given", [None, "Bearer ", "Bearer wrong", "Basic a-long-token", "a-long-token"])
    def test_it_is_closed_to_everybody_else(self, url, given, django_assert_num_queries):
        with django_assert_num_queries(0):
            answer = Client().get(url, headers={"Authorization": given} if given else {})
        assert answer.status_code == 403

    def test_who_may_view_invocations_may_see_it(self):
        user = User.objects.create_user("viewer")
        client = Client()
        client.force_login(user)
        assert client.get("/closed/").status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="view_invocation"))
        assert client.get("/closed/").status_code == 200
        assert client.post("/closed/").status_code == 405


@pytest.mark.django_db(transaction=True)
def test_the_processes_of_a_host_are_counted_together(settings, tmp_path):
    """Two processes that share a folder: either of them tells what both did."""
    fake = FakeIngress()
    code = (
        "import django; django.setup()\n"
        "from restate_django import send\n"
        "from restate_django.contrib.prometheus.apps import PrometheusConfig\n"
        "from restate_django.contrib.prometheus import metrics\n"
        "from prometheus_client import generate_latest\n"
        "from restate_django import measuring\n"
        "measuring.listen(metrics.listener)\n"
        "send('Greeter', 'greet', 1)\n"
        "print(generate_latest(metrics.registry()).decode())"
    )
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.asgi_settings",
        "ASGI_RESTATE": json.dumps({"default": {"INGRESS_URL": fake.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    for number in (1, 2):
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        (sends,) = re.findall(r"^restate_django_sends_total\{.*\} (.*)$", done.stdout, re.MULTILINE)
        assert float(sends) == number
        assert 'restate_django_database_up{database="default"} 1.0' in done.stdout
    fake.close()
    assert Invocation.objects.count() == 2


# ---------------------------------------------------------------- the example's dashboard and rules


def names_of(text: str) -> set[str]:
    return set(re.findall(r"restate_django_\w+", text))


def every_name() -> set[str]:
    """Each name that a series may have."""
    found = set()
    for each in (*measuring.INSTRUMENTS, *gauges.GAUGES):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}[each.shape]
        found |= {each.prometheus_name + ending for ending in endings}
    return found


def test_each_rule_and_panel_asks_for_what_there_is():
    rules = monitoring.rules()
    board = json.loads((monitoring.FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in [*asked, *(rule["expr"] for rule in rules)]:
        assert names_of(expression), expression
        assert names_of(expression) <= every_name(), expression
    used = {re.sub("_(total|bucket|count)$", "", name) for expression in asked for name in names_of(expression)}
    kept = {each.prometheus_name for each in (*measuring.INSTRUMENTS, *gauges.GAUGES)}
    assert kept - used == {gauges.OVERDUE_POLL.prometheus_name}, "the dashboard shows all, but what a rule alone asks"
    assert {trouble.value for trouble in vitals.Trouble} == {
        rule["labels"]["trouble"] for rule in rules if "trouble" in rule["labels"]
    }


def test_labels_that_are_asked_for_are_labels_of_the_metric():
    by_name = {each.prometheus_name: each.labels for each in (*measuring.INSTRUMENTS, *gauges.GAUGES)}
    text = "".join(file.read_text(encoding="utf-8") for file in monitoring.FOLDER.iterdir())
    for name, labels in re.findall(r"(restate_django_\w+)\{(.*?)\}", text.replace('\\"', '"')):
        for label in re.findall(r"(\w+)=~?", labels):
            assert label in by_name[re.sub("_(total|bucket|count|sum)$", "", name)]
    reserved = {"job", "instance", "le", "quantile"}
    assert not [each.name for each in (*measuring.INSTRUMENTS, *gauges.GAUGES) if reserved & set(each.labels)]


def test_promtool_takes_the_rules():
    tool = shutil.which("promtool")
    require(tool, "there is no promtool: it comes with Prometheus")
    command = [str(tool), "check", "rules", str(monitoring.FOLDER / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
