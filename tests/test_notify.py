"""Paused and undeliverable invocations: the signals, and the mails to ADMINS."""

from __future__ import annotations

import datetime as dt
import socket
import sys
import threading
import time
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace

import django
import pytest
from django.core import mail
from django.core.cache import cache
from django.db import transaction
from django.test import override_settings
from django.utils import timezone, translation

from restate_django import delivery, polling, recording, send_many, signals
from restate_django.contrib.notify import mails
from restate_django.dispatch import Outgoing
from restate_django.models import Invocation
from restate_django.polling import poll_due
from tests import fake_ingress
from tests.admin.rows import build_row, make_row
from tests.fake_ingress import FakeIngress
from tests.require import require_bulk
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

ADMINS = ["ops@example.com"] if django.VERSION >= (6, 0) else [("Ops", "ops@example.com")]


@pytest.fixture(autouse=True)
def _as_new(settings):
    settings.ADMINS = ADMINS
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "notify"}}
    settings.RESTATE = {"default": {"SITE_URL": "https://shop.example.com"}}
    cache.clear()
    mails.told.forget()


@pytest.fixture
def heard():
    """What the two signals told."""
    told: list[tuple[str, Invocation]] = []

    def paused(invocation, **kwargs):
        told.append(("paused", invocation))

    def undeliverable(invocation, **kwargs):
        told.append(("undeliverable", invocation))

    with ExitStack() as stack:
        for signal, receiver in (
            (signals.invocation_paused, paused),
            (signals.invocation_undeliverable, undeliverable),
        ):
            signal.connect(receiver)
            stack.callback(signal.disconnect, receiver)
        yield told


def smtp(port):
    """Settings that lead mails to a port of this machine."""
    backend = "django.core.mail.backends.smtp.EmailBackend"
    if django.VERSION >= (6, 1):
        mailer = {"BACKEND": backend, "OPTIONS": {"host": "127.0.0.1", "port": port}}
        return override_settings(MAILERS={"default": mailer})
    return override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=port)


def pause(*rows):
    return Invocation.objects.write_back_many([(row, {"status": "paused"}) for row in rows])


def running(number=1, **columns):
    rows = [build_row("running", **columns) for _ in range(number)]
    return Invocation.objects.bulk_create(rows)


# ---------------------------------------------------------------- the signals


@pytest.mark.parametrize("number", [1, 3], ids=["a row", "rows together"])
def test_each_is_told_once_by_the_write_that_won(heard, number):
    rows = running(number)
    late = list(Invocation.objects.all())
    assert pause(*rows) == [True] * number
    assert pause(*late) == [False] * number
    assert [(word, row.status) for word, row in heard] == [("paused", "paused")] * number
    assert {row.pk for _word, row in heard} == {row.pk for row in rows}


def test_nothing_is_told_of_what_is_rolled_back(heard):
    (row,) = running()
    with transaction.atomic():
        Invocation.objects.write_back(row, status="paused")
        assert heard == []
        transaction.set_rollback(True)
    assert heard == []


@pytest.mark.parametrize("way", ["one by one", "in bulk"])
def test_a_poll_tells_of_a_pause(restate, heard, monkeypatch, way):
    if way == "in bulk":
        require_bulk()
    monkeypatch.setattr("restate_django.connections.BULK_FROM", 1 if way == "in bulk" else 10**9)
    rows = send_many([Outgoing("Fail", "always", {})] * 3)
    wait_for(lambda: poll_due() is not None and len(heard) == 3, timeout=20, what="all to be paused")
    poll_due()
    assert {(word, row.pk) for word, row in heard} == {("paused", row.pk) for row in rows}
    wait_for(lambda: mail.outbox, what="the mail")
    assert len(mail.outbox) == 1, "one handler, one mail"
    assert "Fail/always is paused" in mail.outbox[0].subject
    for row in rows:
        row.refresh_from_db()
        row.kill()


def test_a_delivery_tells_of_an_undeliverable_one(settings, heard, monkeypatch):
    server = FakeIngress()
    try:
        settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
        monkeypatch.setattr(recording, "CONFIRM_AFTER", dt.timedelta(0))
        server.answer = lambda request: fake_ingress.error(404, "invocation not found")
        then = timezone.now() - dt.timedelta(days=9)
        rows = [make_row("unsent", unknown_since=then, attempts=3) for _ in range(3)]
        for _ in range(2):
            Invocation.objects.update(next_attempt_at=then)
            delivery.deliver_due()
    finally:
        server.close()
    assert {(word, row.pk, row.status) for word, row in heard} == {
        ("undeliverable", row.pk, "undeliverable") for row in rows
    }
    assert len(heard) == 3


# ---------------------------------------------------------------- the mails


def test_a_mail_says_how_many_and_where_and_nothing_of_the_work():
    rows = running(
        3, service="Order", handler="ship", key="mary@home", payload_bytes=b'"s3cret"', last_failure="s3cret"
    )
    pause(*rows)
    (sent,) = mail.outbox
    assert sent.to == ["ops@example.com"]
    assert "Restate: Order/ship is paused" in sent.subject
    assert "there are 3 now" in sent.body
    base = "https://shop.example.com/admin/restate_django/invocation/"
    assert f"{base}?connection=default&service=Order&handler=ship&status=paused" in sent.body
    assert f"{base}{rows[0].pk}/change/" in sent.body
    assert "s3cret" not in sent.body
    assert "mary" not in sent.body


def test_its_links_lead_to_those_rows(admin_client):
    rows = running(2, service="Order", handler="ship")
    pause(*rows)
    make_row("paused", service="Other")
    links = [line for line in mail.outbox[0].body.splitlines() if line.startswith("https://")]
    listed, one = (admin_client.get(link.removeprefix("https://shop.example.com")) for link in links)
    assert listed.status_code == one.status_code == 200
    assert {row.pk for row in listed.context["cl"].result_list} == {row.pk for row in rows}


def test_once_for_each_handler_status_and_hour(monkeypatch):
    def subjects():
        return [sent.subject.partition("Restate: ")[2] for sent in mail.outbox]

    pause(*running(2))
    pause(*running(2))
    assert subjects() == ["Greeter/greet is paused"]
    pause(*running(1, handler="other"))
    pause(*running(1, connection="elsewhere"))
    (row,) = [make_row("unsent")]
    Invocation.objects.write_back(row, **recording.undeliverable("why"))
    assert subjects()[1:] == ["Greeter/other is paused", "Greeter/greet is paused", "Greeter/greet is undeliverable"]
    # Another process has the cache, and not this one's memory.
    mails.told.forget()
    pause(*running())
    assert len(mail.outbox) == 4
    # An hour later both have forgotten.
    mails.told.forget()
    cache.clear()
    pause(*running())
    assert len(mail.outbox) == 5


def test_the_hour_is_kept_by_cache_and_process(monkeypatch):
    kept = []
    monkeypatch.setattr(mails, "cache", SimpleNamespace(add=lambda *args: not kept.append(args)))
    now = time.monotonic()
    monkeypatch.setattr(mails.time, "monotonic", lambda: now)
    pause(*running())
    ((key, _value, seconds),) = kept
    assert seconds == 3600
    assert len(key) < 100
    now += 3599
    pause(*running())
    assert len(kept) == 1
    now += 2
    pause(*running())
    assert len(kept) == 2


def test_it_speaks_the_sites_language(settings):
    settings.LANGUAGE_CODE = "de"
    with translation.override("zh-hans"):
        pause(*running())
    assert "angehalten" in mail.outbox[0].subject


@pytest.mark.parametrize("sites", [True, False])
def test_without_a_base_the_sites_framework_is_asked(settings, sites, monkeypatch):
    settings.RESTATE = {}
    if sites:
        module = ModuleType("django.contrib.sites.models")
        module.Site = SimpleNamespace(objects=SimpleNamespace(get_current=lambda: SimpleNamespace(domain="a.example")))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(mails.apps, "is_installed", lambda name: name == "django.contrib.sites")
    pause(*running())
    assert ("https://a.example/admin/" in mail.outbox[0].body) is sites
    assert ("https://" in mail.outbox[0].body) is sites


def test_without_admins_nothing_is_done(settings, monkeypatch):
    settings.ADMINS = []
    monkeypatch.setattr(mails, "mail_admins", pytest.fail)
    pause(*running())
    assert not mails.told._until


# ---------------------------------------------------------------- what breaks


class BrokenCache:
    def __init__(self, *args):
        pass

    def add(self, *args, **kwargs):
        raise ConnectionError("no cache")

    set = close = clear = add


def test_a_broken_cache_breaks_nothing_and_mails_once_per_process(monkeypatch, caplog):
    monkeypatch.setattr(mails, "cache", BrokenCache())
    assert pause(*running(2)) == [True, True]
    assert pause(*running(2)) == [True, True]
    assert len(mail.outbox) == 1
    assert caplog.text.count("the cache is away") == 1


@pytest.mark.parametrize("broken_cache", [False, True])
def test_a_broken_mail_server_breaks_nothing_and_is_tried_again_a_minute_later(monkeypatch, caplog, broken_cache):
    if broken_cache:
        monkeypatch.setattr(mails, "cache", BrokenCache())
    with smtp(9):
        assert pause(*running(2)) == [True, True]
        assert pause(*running(2)) == [True, True]
    assert caplog.text.count("No mail could be sent about Greeter/greet, which is paused (ConnectionRefusedError)") == 1
    now = time.monotonic()
    monkeypatch.setattr(mails.time, "monotonic", lambda: now + mails.PAUSE_AFTER_FAILURE + 1)
    cache.clear()
    pause(*running())
    assert len(mail.outbox) == 1


def test_a_mail_server_that_hangs_costs_a_job_its_patience_and_no_more(monkeypatch, caplog):
    monkeypatch.setattr(mails, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with smtp(port):
            start = time.monotonic()
            pause(*running(5))
            assert time.monotonic() - start < 3
            assert "no answer within 0.3 s" in caplog.text
    # It hung on the socket, which is closed now.
    wait_for(lambda: all(t.name != "restate-django-mail" for t in threading.enumerate()), what="the thread to end")


def test_a_mail_that_a_slow_server_sends_yet_is_the_only_one(monkeypatch, caplog):
    monkeypatch.setattr(mails, "PATIENCE", 0.3)
    monkeypatch.setattr(mails, "cache", BrokenCache())  # so that this process's own memory decides
    goes_on = threading.Event()

    def slowly(*arguments):
        goes_on.wait(20)
        mail.mail_admins(*arguments)

    monkeypatch.setattr(mails, "mail_admins", slowly)
    pause(*running())
    assert "no answer within 0.3 s" in caplog.text
    now = time.monotonic()
    monkeypatch.setattr(mails.time, "monotonic", lambda: now + mails.PAUSE_AFTER_FAILURE + 1)
    pause(*running())
    goes_on.set()
    wait_for(lambda: all(t.name != "restate-django-mail" for t in threading.enumerate()), what="the mail to be sent")
    assert len(mail.outbox) == 1


def test_a_broken_count_is_a_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(mails, "newest", lambda *args: 1 / 0)
    assert pause(*running()) == [True]
    assert "ZeroDivisionError" in caplog.text
    assert polling.poll_due() is not None
