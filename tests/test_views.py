"""The status of an invocation as JSON and its cancellation by POST: who may, what is told, and what waiting learns."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection, connections, transaction
from django.test import Client, TestCase
from django.urls import resolve, reverse
from django.utils import timezone

from restate_django import links, send, signatures
from restate_django.conf import get_settings
from restate_django.exceptions import CallTimeout
from restate_django.models import Invocation
from restate_django.reporting import REPORT_HEADER, report_headers
from tests.admin.rows import make_row
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def status_of(row):
    return reverse("restate_django:status", args=[row.pk])


def cancel_of(row):
    return reverse("restate_django:cancel", args=[row.pk])


def user_with(*codenames, name="somebody"):
    user = get_user_model().objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def client_of(user=None, **options):
    client = Client(**options)
    if user is not None:
        client.force_login(user)
    return client


def running_row(**options):
    """An invocation that sleeps on the real server."""
    row = send("Slow", "sleep", {"seconds": 60}, **options)
    wait_for(lambda: row.refresh().status in {"running", "suspended"}, timeout=20, what="it to run")
    return row


# ---------------------------------------------------------------- who may


def test_a_site_that_asks_everybody_to_log_in_does_not_ask_for_these(settings):
    """A shop's visitor and a handler have no account: what they hold is signed."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    settings.RESTATE = {"default": {"REPORT_URL": "https://shop.example/restate"}}
    row = make_row("succeeded")
    assert Client().get(links.status_url(row)).status_code == 200
    assert Client().get(status_of(row)).status_code == 404
    assert Client().post(links.cancel_url(row)).status_code == 409
    assert Client().get(links.events_url(row)).status_code == 501
    address = report_headers(row, get_settings("default"))[REPORT_HEADER].removeprefix("https://shop.example")
    assert Client().post(address).status_code == 200
    assert Client().post(address.partition("?")[0]).status_code == 404


#: Whom it is about; whether they see it, and whether they cancel it.
PEOPLE = {
    "nobody": (False, False),
    "another user": (False, False),
    "who may see": (True, False),
    "who may cancel": (False, True),
    "who may see payloads": (False, False),
    "who asked": (True, True),
    "a link to see": (True, False),
    "a link to cancel": (True, True),
    "a link that is over": (False, False),
    "a link of another row": (False, False),
    "a link that was changed": (False, False),
}


PERMISSIONS = {
    "another user": [],
    "who may see": ["view_invocation"],
    "who may cancel": ["cancel_invocation"],
    "who may see payloads": ["view_invocation_payload"],
}


def arrive(whom, row, other):
    """Return a client of this kind and the query that it brings."""
    if whom in PERMISSIONS:
        return client_of(user_with(*PERMISSIONS[whom])), ""
    if whom == "who asked":
        return client_of(row.requested_by), ""
    signed = {
        "a link to see": links.status_url(row),
        "a link to cancel": links.cancel_url(row),
        "a link that is over": links.cancel_url(row, expires=0.001),
        "a link of another row": links.cancel_url(other),
        "a link that was changed": links.cancel_url(row).replace("sig=", "sig=f"),
    }
    query = urlsplit(signed[whom]).query if whom in signed else ""
    if whom == "a link that is over":
        end = int(parse_qs(query)["sig"][0].split(".")[0], 16)
        wait_for(lambda: time.time() > end, what="the link's end")
    return client_of(), query


@pytest.mark.parametrize("whom", PEOPLE, ids=lambda name: name.replace(" ", "-"))
def test_who_may_see_and_who_may_cancel(whom):
    row = make_row("failed", requested_by=get_user_model().objects.create_user("mary"), failure_message="inner secret")
    client, query = arrive(whom, row, make_row("running"))
    sees, cancels = PEOPLE[whom]
    nowhere = reverse("restate_django:status", args=[uuid.uuid4()])
    missing = client.get(f"{nowhere}?{query}")
    assert (missing.status_code, missing.json()) == (404, {"error": "There is no such invocation."})

    answer = client.get(f"{status_of(row)}?{query}")
    assert answer.status_code == (200 if sees else 404)
    if not sees:
        assert answer.content == missing.content
        assert answer.headers.items() >= {"Cache-Control": "no-store, private"}.items()
    assert (b"inner secret" in answer.content) is (whom == "who may see")

    answer = client.post(f"{cancel_of(row)}?{query}")
    assert answer.status_code == (409 if cancels else 404), "it has ended: there is nothing to cancel"
    if not cancels:
        assert answer.content == missing.content


def test_nobodys_row_is_not_everybodys():
    """A row of an anonymous visitor has no user, and neither has the next visitor."""
    row = make_row("running", requested_by=None)
    assert client_of().get(status_of(row)).status_code == 404
    assert client_of(user_with()).get(status_of(row)).status_code == 404


def test_without_sessions_and_users_the_link_alone_counts(settings):
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
    row = make_row("running")
    assert client_of().get(status_of(row)).status_code == 404
    assert client_of().get(links.status_url(row)).status_code == 200


def test_a_link_ends_when_it_says(monkeypatch):
    row = make_row("running")
    url = links.status_url(row, expires=timedelta(hours=2))
    now = time.time()
    for seconds, code in ((7190, 200), (7200 + 7200 / 24 + 2, 404)):
        monkeypatch.setattr(signatures.time, "time", lambda seconds=seconds: now + seconds)
        assert client_of().get(url).status_code == code


def test_a_page_that_is_rendered_twice_has_the_same_link(monkeypatch):
    row = make_row("running")
    monkeypatch.setattr(signatures.time, "time", lambda: 1_800_000_001.0)
    first = links.status_url(row)
    monkeypatch.setattr(signatures.time, "time", lambda: 1_800_001_000.0)
    assert links.status_url(row) == first
    assert links.cancel_url(row) != first


@pytest.mark.parametrize("expires", [0, -1, float("inf"), float("nan"), timedelta(0)])
def test_a_link_without_a_time_is_refused(expires):
    with pytest.raises(ValueError, match="above zero"):
        links.status_url(Invocation(), expires=expires)


def test_only_its_methods_are_allowed_and_a_post_needs_its_token():
    row = make_row("running")
    assert client_of().post(links.status_url(row)).status_code == 405
    assert client_of().get(links.cancel_url(row)).status_code == 405
    assert client_of(enforce_csrf_checks=True).post(links.cancel_url(row)).status_code == 403
    row.refresh_from_db()
    assert row.cancel_requested_at is None


# ---------------------------------------------------------------- what is told


def test_what_the_status_says():
    row = make_row("running", service="Cart", handler="add", key="mary", cancel_requested_at=timezone.now())
    answer = client_of().get(links.status_url(row))
    assert answer.json() == {
        "id": str(row.pk),
        "service": "Cart",
        "handler": "add",
        "status": "running",
        "label": "running",
        "finished": False,
        "succeeded": False,
        "cancel_requested": True,
    }
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store, private"
    done = client_of().get(links.status_url(make_row("succeeded"))).json()
    assert (done["finished"], done["succeeded"], done["cancel_requested"]) == (True, True, False)


def test_why_it_was_rejected_is_told_to_those_who_may_see():
    row = make_row("rejected", delivery_error="no such handler")
    assert "failure_message" not in client_of().get(links.status_url(row)).json()
    viewer = client_of(user_with("view_invocation"))
    assert viewer.get(status_of(row)).json()["failure_message"] == "no such handler"


def test_who_knows_it_already_is_told_so():
    row = make_row("running")
    url = links.status_url(row)
    first = client_of().get(url)
    again = client_of().get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == "no-store, private"
    Invocation.objects.filter(pk=row.pk).update(status="suspended")
    news = client_of().get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (news.status_code, news.json()["status"]) == (200, "suspended")
    assert client_of().head(url).status_code == 200


def test_a_link_costs_one_query(django_assert_num_queries):
    url = links.status_url(make_row("running"))
    with django_assert_num_queries(1):
        assert client_of().get(url).status_code == 200


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_row_of_another_database_is_found(settings):
    settings.RESTATE = {"default": {"DATABASES": ["default", "other"]}}
    row = make_row("running")
    Invocation.objects.using("default").all()._raw_delete("default")
    row.save(using="other", force_insert=True)
    assert client_of().get(links.status_url(row)).json()["status"] == "running"


# ---------------------------------------------------------------- waiting


def test_waiting_ends_with_the_invocation(restate):
    row = send("Greeter", "slowly", {"name": "Mary", "seconds": 1})
    url = links.status_url(row)
    first = client_of().get(url)
    assert first.json()["finished"] is False
    began = time.monotonic()
    answer = client_of().get(f"{url}&wait=20", headers={"If-None-Match": first.headers["ETag"]})
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    row.refresh_from_db()
    assert (row.status, row.output) == ("succeeded", "Hello, Mary!"), "the end that was seen is written down"


def test_a_failure_is_an_end_too(restate):
    row = send("Fail", "terminal", {"message": "no", "code": 422})
    answer = client_of().get(f"{links.status_url(row)}&wait=20").json()
    assert (answer["status"], answer["finished"], answer["succeeded"]) == ("failed", True, False)
    assert "failure_message" not in answer


def test_waiting_in_vain_tells_what_is_known(restate):
    row = send("Slow", "sleep", {"seconds": 60})
    url = links.status_url(row)
    etag = client_of().get(url).headers["ETag"]
    began = time.monotonic()
    assert client_of().get(f"{url}&wait=0.5", headers={"If-None-Match": etag}).status_code == 304
    assert 0.4 < time.monotonic() - began < 5


def test_what_the_jobs_learned_meanwhile_is_told_after_the_wait(restate, monkeypatch):
    row = send("Slow", "sleep", {"seconds": 60})

    def attach(self, timeout):
        Invocation.objects.filter(pk=self.pk).update(status="suspended")
        raise CallTimeout

    monkeypatch.setattr(Invocation, "attach", attach)
    assert client_of().get(f"{links.status_url(row)}&wait=1").json()["status"] == "suspended"


def test_a_row_that_is_pruned_while_somebody_waits_is_not_there(monkeypatch):
    def attach(self, timeout):
        Invocation.objects.filter(pk=self.pk).delete()
        self.refresh_from_db()

    row = make_row("running")
    monkeypatch.setattr(Invocation, "attach", attach)
    assert client_of().get(f"{links.status_url(row)}&wait=1").status_code == 404


@pytest.mark.parametrize(("asked", "call_timeout", "waited"), [("600", 60, 30), ("600", 7, 7), ("2.5", 60, 2.5)])
def test_the_wait_has_an_end(settings, monkeypatch, asked, call_timeout, waited):
    settings.RESTATE = {"default": {"CALL_TIMEOUT": call_timeout}}
    waits = []
    monkeypatch.setattr(Invocation, "attach", lambda self, timeout: waits.append(timeout))
    client_of().get(f"{links.status_url(make_row('running'))}&wait={asked}")
    client_of().get(f"{links.status_url(make_row('succeeded'))}&wait={asked}")
    assert waits == [waited], "and none for what has ended"


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "inf", ""])
def test_a_wait_that_is_no_number_is_refused(wait):
    answer = client_of().get(f"{links.status_url(make_row('running'))}&wait={wait}")
    assert (answer.status_code, answer.json()) == (400, {"error": "wait must be a number of seconds."})


def test_a_connection_that_left_the_settings_is_not_waited_for():
    row = make_row("running", connection="elsewhere")
    answer = client_of().get(f"{links.status_url(row)}&wait=5")
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


# ---------------------------------------------------------------- cancelling


def test_a_running_invocation_is_cancelled(restate):
    row = running_row()
    url = links.cancel_url(row)
    answer = client_of().post(url)
    assert (answer.status_code, answer.json()["cancel_requested"]) == (200, True)
    again = client_of().post(url)
    assert again.status_code == 200, "a second click finds that it was asked for"
    end = client_of().get(f"{links.status_url(row)}&wait=20").json()
    assert end["status"] == "cancelled"
    assert client_of().post(url).status_code == 200, "it is cancelled: that is what was wanted"


def test_what_has_ended_is_not_cancelled(restate):
    row = make_row("succeeded")
    answer = client_of().post(links.cancel_url(row))
    assert (answer.status_code, answer.json()["reason"]) == (409, "It is succeeded.")


def test_what_restate_says_is_not_told_to_a_visitor(restate, settings):
    row = running_row()
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": None}}
    answer = client_of().post(links.cancel_url(row))
    assert (answer.status_code, answer.json()["reason"]) == (409, "It can't be cancelled now.")
    assert "ADMIN_URL" not in answer.content.decode()


def test_a_cancellation_is_kept_while_restate_is_away(restate, settings):
    row = running_row()
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "ADMIN_URL": "http://127.0.0.1:1"}}
    answer = client_of().post(links.cancel_url(row))
    assert (answer.status_code, answer.json()["cancel_requested"]) == (200, True), "the jobs will send it"


def test_a_plain_form_leads_back_with_a_message():
    row = make_row("unsent")
    answer = client_of().post(links.cancel_url(row), {"next": "/admin/login/"}, follow=True)
    assert answer.redirect_chain == [("/admin/login/", 302)]
    assert [str(message) for message in answer.context["messages"]] == ["The cancellation is on its way."]
    row.refresh_from_db()
    assert row.status == "cancelled"
    other = make_row("succeeded")
    answer = client_of().post(links.cancel_url(other), {"next": "/admin/login/"}, follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["Not cancelled. It is succeeded."]


def test_nobody_is_led_to_another_site():
    row = make_row("unsent")
    answer = client_of().post(links.cancel_url(row), {"next": "https://evil.example.com/"})
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


# ---------------------------------------------------------------- transactions


def test_no_view_runs_in_the_requests_transaction(restate, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    row = running_row()
    for url in (status_of(row), cancel_of(row)):
        assert resolve(url).func._non_atomic_requests == set(connections)
    assert client_of().post(links.cancel_url(row)).status_code == 200
    assert client_of().get(f"{links.status_url(row)}&wait=20").json()["status"] == "cancelled"


def test_inside_somebodys_transaction_nobody_waits_and_nothing_is_cancelled(restate):
    row = running_row()
    with transaction.atomic():
        began = time.monotonic()
        assert client_of().get(f"{links.status_url(row)}&wait=20").status_code == 200
        assert time.monotonic() - began < 2
        assert client_of().post(links.cancel_url(row)).status_code == 503
    row.refresh_from_db()
    assert row.cancel_requested_at is None


class InATestCase(TestCase):
    """The transaction around a test is not the request's."""

    def test_both_views_work(self):
        row = make_row("unsent")
        assert self.client.get(f"{links.status_url(row)}&wait=0.2").status_code == 200
        assert self.client.post(links.cancel_url(row)).json()["status"] == "cancelled"
