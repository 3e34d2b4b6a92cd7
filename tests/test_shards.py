"""Workers that take the rows of some connections alone: what they take, what they leave, and how they are told."""

from __future__ import annotations

import datetime as dt

import pytest
from django.core import management
from django.core.management import CommandError
from django.utils import timezone

from restate_django import delivery, polling, send, tasks
from restate_django.conf import ConnectionDoesNotExist
from restate_django.models import Invocation
from restate_django.tasks import beat_schedule
from tests.fake_ingress import FakeIngress

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fake(settings):
    """One server that two connections name, each with rows for the jobs alone."""
    server = FakeIngress()
    of_it = {"INGRESS_URL": server.url, "ADMIN_URL": None, "DELIVERY": "relay", "PATH_STYLE": "restate"}
    settings.RESTATE = {"default": {**of_it, "LEASE": 90}, "second": {**of_it, "LEASE": 45}, "third": of_it}
    yield server
    server.close()


def recorded() -> None:
    for name in ("default", "second", "third"):
        send("Greeter", "greet", {"name": name}, connection=name)


def taken() -> set[str]:
    return set(Invocation.objects.exclude(status="unsent").values_list("connection", flat=True))


def test_deliver_due_takes_what_it_is_told_to(fake):
    recorded()
    assert delivery.deliver_due(connections=["second"]) == {"accepted": 1}
    assert taken() == {"second"}
    assert delivery.deliver_due(connections=("second", "third", "third")) == {"accepted": 1}
    assert taken() == {"second", "third"}
    assert delivery.deliver_due(connections=[]) == {}
    assert delivery.deliver_due() == {"accepted": 1}


def test_poll_due_asks_about_what_it_is_told_to(fake):
    recorded()
    delivery.deliver_due()
    rows = Invocation.objects.all()
    rows.update(next_poll_at=timezone.now())
    assert polling.poll_due(connections=["default", "third"]).total() == 2
    still_due = rows.filter(next_poll_at__lte=timezone.now())
    assert set(still_due.values_list("connection", flat=True)) == {"second"}
    assert polling.poll_due().total() == 1


@pytest.mark.parametrize("sweep", [delivery.deliver_due, polling.poll_due])
def test_the_bounds_hold_for_all_connections_together(fake, sweep):
    recorded()
    if sweep is polling.poll_due:
        delivery.deliver_due()
        Invocation.objects.update(next_poll_at=timezone.now())
    assert sweep(budget=0, connections=["default", "second"]).total() == 0
    assert sweep(limit=1, connections=["default", "second"]).total() == 1
    assert sweep(limit=5, connections=["default", "second"]).total() == 1


@pytest.mark.parametrize("sweep", [delivery.deliver_due, polling.poll_due])
def test_a_connection_that_is_not_there_is_refused(fake, sweep):
    with pytest.raises(ConnectionDoesNotExist, match="'fourth'"):
        sweep(connections=["default", "fourth"])


def test_only_the_databases_of_a_connection_are_swept(fake, settings, django_assert_num_queries):
    settings.RESTATE = {**settings.RESTATE, "second": {**settings.RESTATE["second"], "DATABASES": ["other"]}}
    # The test's own database is not asked: the other one has no rows, and this test may not even look at it.
    with django_assert_num_queries(0), pytest.raises(Exception, match="other"):
        delivery.deliver_due(connections=["second"])


def test_a_lease_is_that_of_the_connection(fake):
    recorded()
    now = timezone.now()
    part = Invocation.objects.claim_for_delivery(limit=5, lease=dt.timedelta(seconds=45), connection="second")
    assert [row.connection for row in part] == ["second"]
    row = Invocation.objects.get(connection="second")
    assert dt.timedelta(seconds=44) < row.lease_until - now < dt.timedelta(seconds=50)


def test_tasks_hand_it_on(fake):
    recorded()
    assert tasks.deliver(connections=["second"]) == {"accepted": 1}
    Invocation.objects.exclude(status="unsent").update(next_poll_at=timezone.now())
    assert tasks.poll(connections=["default"]) == {}
    assert sum(tasks.poll(connections=["second"]).values()) == 1


def test_the_relay_takes_some_connections(fake, capsys):
    recorded()
    management.call_command("restate_relay", "--once", "--connection", "second", "--connection", "third")
    assert "delivered: 2 accepted" in capsys.readouterr().out
    assert taken() == {"second", "third"}


def test_the_relay_refuses_what_is_not_there(fake):
    with pytest.raises(CommandError, match="'fourth'"):
        management.call_command("restate_relay", "--once", "--connection", "fourth")


def test_a_schedule_for_each_part():
    schedule = {
        **beat_schedule(connections=["eu"], queue="restate-eu"),
        **beat_schedule(poll=5, connections=("us", "us-old"), queue="restate-us"),
    }
    assert schedule.keys() == {
        "restate_django.deliver[eu]", "restate_django.poll[eu]",
        "restate_django.deliver[us,us-old]", "restate_django.poll[us,us-old]",
        "restate_django.prune",
    }  # fmt: skip
    assert schedule["restate_django.poll[us,us-old]"] == {
        "task": "restate_django.poll",
        "schedule": 5,
        "kwargs": {"connections": ["us", "us-old"]},
        "options": {"expires": 60, "queue": "restate-us"},
    }
    assert "kwargs" not in schedule["restate_django.prune"]


def test_a_schedule_for_all():
    assert beat_schedule().keys() == {"restate_django.deliver", "restate_django.poll", "restate_django.prune"}
    assert all(set(entry) == {"task", "schedule", "options"} for entry in beat_schedule().values())
    assert all("queue" not in entry["options"] for entry in beat_schedule().values())
