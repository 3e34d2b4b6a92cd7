"""Ways to run Celery, each with a real worker: solo and gevent pools, acks_late, a router and beat; and eager tasks."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
from contextlib import ExitStack

import celery
import kombu
import pytest
from django.db import transaction
from django.utils import timezone

from restate_django import send, send_many, tasks
from restate_django.client import IngressClient
from restate_django.dispatch import Outgoing
from restate_django.models import Invocation
from restate_django.testing.process import ChildProcess
from tests import fake_ingress
from tests.celery_app import make_app
from tests.conftest import EXAMPLE, ROOT
from tests.current_app import current_app_put_back
from tests.fake_ingress import FakeIngress
from tests.require import require, require_bulk
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"


class Workers:
    """A Celery app, which is the current one here too, and the workers that a test starts."""

    def __init__(self, folder, settings, stack, broker, conf):
        self.folder, self.settings, self.stack = folder, settings, stack
        (folder / "broker").mkdir(exist_ok=True)
        self.queue = f"restate-django-{secrets.token_hex(4)}"
        self.made_of = {"broker": broker, "folder": str(folder / "broker"), "queue": self.queue, **conf}
        self.app = make_app(**self.made_of)

    def start(self, *options, program="worker"):
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat") if program == "worker" else ()
        child = ChildProcess(
            [sys.executable, "-m", "celery", "-A", "tests.celery_app", program, "-l", "INFO", *quiet, *options],
            name=program,
            log_file=self.folder / f"{program}-{secrets.token_hex(2)}.log",
            cwd=ROOT,
            env={
                "DJANGO_SETTINGS_MODULE": "tests.celery_settings",
                "PYTHONPATH": str(EXAMPLE),
                "CELERY_TEST_APP": json.dumps(self.made_of),
                "CELERY_TEST_RESTATE": json.dumps(self.settings.RESTATE),
            },
        )
        self.stack.callback(child.stop)
        child.start()
        return child

    def said(self, child, words):
        return words in child.log_tail(1000)


@pytest.fixture
def workers(tmp_path, settings):
    """A function that makes them: ``workers(broker="filesystem://", **conf)``."""
    with current_app_put_back(), ExitStack() as stack:

        def make(broker="filesystem://", **conf):
            made = Workers(tmp_path, settings, stack, broker, conf)
            stack.callback(made.app.close)
            # That of every thread: one publishes for the others.
            made.app.set_current()
            made.app.set_default()
            return made

        yield make


@pytest.fixture
def fake(settings):
    """A server that answers as a test says."""
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    yield server
    server.close()


def deliver_by(way, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": way}}


def statuses():
    return set(Invocation.objects.values_list("status", flat=True))


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize("pool", ["solo", "gevent"])
def test_a_pool_delivers_and_polls(restate, workers, settings, pool):
    if pool == "gevent":
        require(importlib.util.find_spec("gevent"), "gevent is not installed")
    deliver_by("celery", settings)
    made = workers()
    worker = made.start("--pool", pool, *(["--concurrency", "20"] if pool == "gevent" else []))
    # More than a task each, so that one sweep has them all; then a few of which each has its own.
    send_many([Outgoing("Greeter", "greet", {"name": str(n)}) for n in range(60)])
    for n in range(3):
        send("Greeter", "greet", {"name": str(n)})
    wait_for(lambda: "unsent" not in statuses() or not worker.running, timeout=30, what="the rows to be sent")

    def ended():
        made.app.send_task("restate_django.poll")
        try:
            wait_for(lambda: statuses() == {"succeeded"}, timeout=1)
        except pytest.fail.Exception:
            return False
        return True

    wait_for(ended, timeout=30, what="the rows to end")
    assert Invocation.objects.filter(attempts=1).count() == 63
    assert worker.running
    log = worker.log_tail(1000)
    assert "Traceback" not in log
    assert log.count("Task restate_django.send_one[") >= 3


HELD_UP = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from restate_django.client import IngressClient
from restate_django.client.bulk import holds_up_greenlets, is_installed
from restate_django.workers import in_threads
client = IngressClient(sys.argv[1], path_style="restate")
turns = []
def other():
    while True:
        gevent.sleep(0.005)
        turns.append(time.monotonic())
gevent.spawn(other)
done = list(in_threads(lambda n: client.send("S", "h", idempotency_key=f"k{n}"), range(24), concurrency=8))
print(is_installed(), holds_up_greenlets(), client.sends_in_bulk, len(done), len(turns))
"""


def test_with_gevent_the_other_greenlets_have_their_turns(fake):
    """libcurl would hold them up: there, each request goes by itself."""
    require(importlib.util.find_spec("gevent"), "gevent is not installed")
    require_bulk()
    pause = threading.Event()

    def slowly(request):
        pause.wait(0.1)
        return fake_ingress.accepted()

    fake.answer = slowly
    done = subprocess.run(
        [sys.executable, "-c", HELD_UP, fake.url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    installed, holds_up, in_bulk, sent, turns = done.stdout.split()
    assert (installed, holds_up, in_bulk, sent) == ("True", "True", "False", "24")
    assert int(turns) > 10
    # Here, where threads are threads:
    with IngressClient(fake.url) as client:
        assert client.sends_in_bulk


HANGING = """
import time
import restate_django.broker as broker
broker._send = lambda app, tasks: time.sleep(60)
broker.PATIENCE = 0.2
print(broker.publish([("a.task", [])]), flush=True)
"""


def test_a_broker_that_hangs_keeps_no_process_alive():
    """A web worker that is told to end does, and a command comes to its end."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- a router, beat


def test_a_router_leads_all_tasks_to_a_queue(restate, workers, settings):
    deliver_by("celery", settings)
    made = workers()
    made.made_of |= {"task_routes": {"restate_django.*": {"queue": f"{made.queue}-restate"}}}
    made.made_of |= {"beat_schedule": tasks.beat_schedule(deliver=1, poll=1)}
    made.app.conf.update(task_routes=made.made_of["task_routes"])
    other = made.start("--pool", "solo", "-Q", made.queue)
    ours = made.start("--pool", "solo", "-Q", f"{made.queue}-restate")
    beat = made.start("--schedule", str(made.folder / "schedule"), "--pidfile=", program="beat")
    row = send("Greeter", "greet", {"name": "Mary"})
    wait_for(lambda: statuses() == {"succeeded"}, timeout=30, what="it to be sent by a task, and polled by beat's")
    assert made.said(ours, "restate_django.send_one[")
    assert made.said(ours, "restate_django.poll[")
    assert not made.said(other, "restate_django.poll[")
    assert not made.said(other, "restate_django.send_one[")
    assert beat.running
    row.refresh_from_db()
    assert row.attempts == 1


# ---------------------------------------------------------------- acks_late


def test_with_acks_late_a_worker_that_is_killed_does_no_harm(fake, workers, settings):
    """The broker gives the task to another worker, which finds the row taken; the next sweep sends it, by its key."""
    try:
        with kombu.Connection(RABBITMQ, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
    except (OSError, kombu.exceptions.OperationalError) as error:
        require(condition=False, reason=f"there is no broker at {RABBITMQ}: {error}")
    deliver_by("celery", settings)
    made = workers(RABBITMQ, task_acks_late=True, worker_prefetch_multiplier=1)
    try:
        hang = threading.Event()

        def answer(request):
            hang.wait(30)
            return fake_ingress.accepted()

        fake.answer = answer
        first = made.start("--pool", "solo")
        row = send("Greeter", "greet", {"name": "Mary"})
        wait_for(fake.sends, timeout=20, what="the first worker to send it")
        first.kill()
        second = made.start("--pool", "solo")
        # It has the same task, and leaves the row to its lease.
        wait_for(lambda: made.said(second, "succeeded in"), timeout=20, what="the task to be delivered again")
        assert made.said(second, "restate_django.send_one[")
        assert len(fake.sends()) == 1
        hang.set()
        fake.answer = lambda request: fake_ingress.accepted(previously=True)
        # The lease's time is over.
        now = timezone.now()
        Invocation.objects.filter(pk=row.pk).update(lease_until=now, next_attempt_at=now)
        made.app.send_task("restate_django.deliver")
        wait_for(lambda: statuses() == {"accepted"}, timeout=20, what="the sweep to send it")
        assert {request.headers["idempotency-key"] for request in fake.sends()} == {row.pk.hex}
        row.refresh_from_db()
        assert (row.attempts, row.previously_accepted) == (2, False)
    finally:
        hang.set()
        with kombu.Connection(RABBITMQ) as connection:
            for name in (made.queue, f"{made.queue}-restate"):
                connection.default_channel.queue_delete(name)
                connection.default_channel.exchange_delete(name)


# ---------------------------------------------------------------- eager


@pytest.fixture
def eager(fake, settings):
    """Eager Celery, as a project's tests have it."""
    deliver_by("celery", settings)
    with current_app_put_back():
        app = celery.Celery("eager")
        app.set_default()
        app.conf.task_always_eager = True
        yield fake


def test_eager_tasks_talk_to_nobody_inside_a_transaction(eager):
    with transaction.atomic():
        row = send("Greeter", "greet")
        with transaction.atomic():
            send_many([Outgoing("Greeter", "greet", n) for n in range(25)])
        assert eager.requests == []
        assert statuses() == {"unsent"}
    assert len(eager.sends()) == 26
    assert statuses() == {"accepted"}
    assert Invocation.objects.get(pk=row.pk).attempts == 1


def test_an_eager_task_refuses_to_run_inside_a_transaction(eager):
    with transaction.atomic():
        row = send("Greeter", "greet")
        for task, args in ((tasks.send_one, [str(row.pk), "default"]), (tasks.deliver, []), (tasks.poll, [])):
            result = task.apply(args)
            assert isinstance(result.result, RuntimeError)
            assert "inside a transaction" in str(result.result)
        assert eager.requests == []


@pytest.mark.django_db(transaction=False)
def test_eager_tasks_run_in_a_testcase_with_the_callbacks_of_the_commit(eager, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        send("Greeter", "greet")
        assert eager.requests == []
    assert len(eager.sends()) == 1
    assert statuses() == {"accepted"}
