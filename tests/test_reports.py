"""A handler's report of its end: believed as far as it is safe, and the row is final at once."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.urls import resolve, reverse
from django.utils import timezone

from restate_django import links, reporting, send, signatures
from restate_django.conf import get_settings
from restate_django.handlers import REPORT_HEADER
from restate_django.models import Invocation
from tests.admin.rows import make_row
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def site(restate, settings, live_server):
    """A site that handlers reach."""
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "REPORT_URL": f"{live_server.url}/restate"}}
    return live_server


def address_of(row):
    """The address that goes along with a row, as a path of the site."""
    settings = get_settings(row.connection)
    headers = reporting.report_headers(row, settings)
    return headers[REPORT_HEADER].removeprefix(settings.report_url.removesuffix("/restate"))


def status_in_database(row):
    return Invocation.objects.values_list("status", flat=True).get(pk=row.pk)


# ---------------------------------------------------------------- from the handler to the row


@pytest.mark.parametrize(
    ("handler", "payload", "status"),
    [
        ("slowly", {"name": "Mary", "seconds": 1}, "succeeded"),
        ("slowly", {"name": "Mary", "seconds": 0}, "succeeded"),
        ("terminal", {"code": 422, "message": "no"}, "failed"),
    ],
)
def test_a_row_is_final_at_once_though_nobody_polls(site, handler, payload, status):
    row = send("Reporter", handler, payload)
    wait_for(lambda: status_in_database(row) == status, timeout=15, what="the report to be heeded")
    row.refresh_from_db()
    if status == "succeeded":
        assert row.output == "Hello, Mary!"
    else:
        assert row.failure_message == "no"


def test_a_cancelled_one_reports_too(site):
    row = send("Reporter", "sleep", {"seconds": 60})
    wait_for(lambda: row.refresh().status in {"running", "suspended"}, what="it to run")
    row.cancel()
    wait_for(lambda: status_in_database(row) == "cancelled", timeout=15, what="the report to be heeded")


def test_without_the_setting_nobody_is_told(restate, monkeypatch):
    row = send("Reporter", "slowly", {"name": "Mary", "seconds": 0})
    told = send("Echo", "describe", b"x", content_type="application/octet-stream").attach(timeout=10)
    assert REPORT_HEADER not in told["headers"]
    assert row.attach(timeout=10) == "Hello, Mary!"


def test_the_address_goes_along_and_is_not_in_the_row(site):
    row = send("Echo", "describe", b"x", content_type="application/octet-stream", headers={"X-Tenant": "acme"})
    told = row.attach(timeout=10)["headers"]
    assert told["x-tenant"] == "acme"
    assert re.fullmatch(rf"http://\S+/restate/{row.pk}/report/\?sig=\S+", told[REPORT_HEADER])
    assert row.headers == {"X-Tenant": "acme"}


def test_a_handler_may_say_where_it_reports(site, monkeypatch):
    """And posts nowhere else, whatever the invocation asks for."""
    heeded = []
    monkeypatch.setattr("restate_django.views.attaching.heed_report", lambda row, seconds: heeded.append(row.pk))
    assert send("Elsewhere", "report", {}).attach(timeout=10) == "done"
    later = send("Reporter", "slowly", {"name": "Mary", "seconds": 0})
    wait_for(lambda: heeded, what="a report that came later")
    assert heeded == [later.pk]


# ---------------------------------------------------------------- what is believed


def test_a_report_about_what_still_runs_changes_nothing_but_when_it_is_asked_for(site):
    row = send("Slow", "sleep", {"seconds": 60})
    Invocation.objects.filter(pk=row.pk).update(next_poll_at=timezone.now() + timedelta(minutes=5))
    began = time.monotonic()
    answer = Client().post(address_of(row), {"status": "succeeded", "output": "forged"})
    assert (answer.status_code, answer.json()) == (202, {"id": str(row.pk), "finished": False})
    assert 0.9 < time.monotonic() - began < 5
    fresh = Invocation.objects.get(pk=row.pk)
    assert fresh.is_open
    assert fresh.output is None
    assert fresh.next_poll_at <= timezone.now(), "the jobs ask next"
    began = time.monotonic()
    assert Client().post(address_of(row)).status_code == 202
    assert time.monotonic() - began < 0.9, "one report of a row waits at a time"
    row.kill()


def test_a_report_may_come_twice(site):
    row = send("Greeter", "greet", {"name": "Mary"})
    answers = [Client().post(address_of(row)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert status_in_database(row) == "succeeded"


def test_a_report_that_overtakes_the_acceptance_waits_for_it(site, settings):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "relay"}}
    row = send("Greeter", "greet", {"name": "Mary"})
    assert Client().post(address_of(row)).status_code == 202
    assert status_in_database(row) == "unsent", "nobody sends it because of a report"


@pytest.mark.parametrize("wrong", ["none", "of another row", "changed", "one to see", "one to cancel", "over"])
def test_only_its_own_address_is_heeded(site, wrong, monkeypatch):
    row, other = make_row("running"), make_row("running")
    path = reverse("restate_django:report", args=[row.pk])
    query = {
        "none": "",
        "of another row": address_of(other).partition("?")[2],
        "changed": address_of(row).partition("?")[2].replace("sig=", "sig=f"),
        "one to see": links.status_url(row).partition("?")[2],
        "one to cancel": links.cancel_url(row).partition("?")[2],
        "over": address_of(row).partition("?")[2],
    }[wrong]
    if wrong == "over":
        later = time.time() + 32 * 24 * 3600
        monkeypatch.setattr(signatures.time, "time", lambda: later)
    answer = Client().post(f"{path}?{query}")
    assert (answer.status_code, answer.json()) == (404, {"error": "There is no such invocation."})


def test_what_it_lets_is_nothing_else(site):
    row = make_row("running")
    query = address_of(row).partition("?")[2]
    assert Client().get(f"{reverse('restate_django:status', args=[row.pk])}?{query}").status_code == 404
    assert Client().post(f"{reverse('restate_django:cancel', args=[row.pk])}?{query}").status_code == 404
    assert Client().get(f"{reverse('restate_django:report', args=[row.pk])}?{query}").status_code == 405


def test_an_address_lasts_as_long_as_a_delay(site):
    row = make_row("scheduled", run_at=timezone.now() + timedelta(days=300))
    end = int(re.search(r"sig=([0-9a-f]+)\.", address_of(row))[1], 16)
    assert end > time.time() + 329 * 24 * 3600


def test_a_report_needs_no_token_of_a_form_and_no_body(site):
    row = make_row("succeeded")
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(address_of(row)).status_code == 200
    request = RequestFactory().post(address_of(row), b"x" * 100, content_type="application/json")
    match = resolve(request.path)
    assert match.func(request, **match.kwargs).status_code == 200
    assert not hasattr(request, "_body"), "nobody read it"


def test_a_report_about_a_row_that_is_gone(site):
    row = make_row("running")
    address = address_of(row)
    row.delete()
    assert Client().post(address).status_code == 404


def test_a_report_is_not_heeded_inside_a_transaction(site, monkeypatch):
    row = send("Greeter", "greet", {"name": "Mary"})
    with transaction.atomic():
        assert Client().post(address_of(row)).status_code == 503
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert Client().post(address_of(row)).status_code == 200
