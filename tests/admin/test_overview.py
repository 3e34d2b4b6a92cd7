"""How things stand, and the servers behind it."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django.admin import overview
from restate_django.lifecycle import Status
from restate_django.models import Invocation, JobRun
from tests.admin.pages import LIST, page_of
from tests.admin.rows import make_row

pytestmark = pytest.mark.django_db

OVERVIEW, SERVERS, APP = f"{LIST}overview/", f"{LIST}servers/", "/admin/restate_django/"


def test_it_counts_and_leads_to_what_it_counted(viewer, monkeypatch):
    monkeypatch.setattr(overview, "COUNTED", 4)
    for status in Status:
        make_row(status)
    for _ in range(5):
        make_row("succeeded")
    found = viewer.get(OVERVIEW).context["overview"]
    assert [(count.label, count.number) for count in found.groups] == [
        ("Needs attention", "3"),
        ("Open", "9"),
        ("Finished", "9+"),
    ]
    numbers = {str(count.label): count.number for count in found.statuses}
    assert numbers == {str(status.label): "1" for status in Status} | {"succeeded": "4+"}
    for count in [*found.groups, *found.statuses]:
        rows = len(viewer.get(count.url).context["cl"].result_list)
        assert rows == int(count.number.rstrip("+")) or count.number.endswith("+")


def test_it_names_what_waits(viewer):
    old = make_row("unsent", age=500, delivery_error="connection refused")
    make_row("unsent", age=50)
    paused = make_row("paused", last_failure="<script>alert(1)</script>\nTraceback: of no use at a glance")
    rejected = make_row("rejected", delivery_error="bad path")
    make_row("failed")
    response = viewer.get(OVERVIEW)
    found = response.context["overview"]
    assert found.oldest_unsent.url == page_of(old)
    assert [line.url for line in found.attention] == [page_of(rejected), page_of(paused)]
    text = response.content.decode()
    assert "connection refused" in text
    assert "bad path" in text
    assert "<script>alert" not in text
    assert "Traceback" not in text


def test_it_says_what_is_wrong_and_leads_there(viewer):
    now = timezone.now()
    for job, minutes in (("deliver", 1), ("poll", 130), ("prune", 30)):
        JobRun.objects.create(job=job, succeeded_at=now - dt.timedelta(minutes=minutes), seconds=0.04)
    JobRun.objects.filter(job="prune").update(failed_at=now, error="RuntimeError: <script>alert(1)</script>")
    waits = make_row("unsent", age=900, delivery_error="connection refused")
    make_row("paused")
    make_row("undeliverable")
    response = viewer.get(OVERVIEW)
    found = response.context["overview"]
    assert [(alert.text, alert.detail, alert.tone, alert.url) for alert in found.alerts] == [
        ("An invocation has been waiting for 15 min to be sent.", "connection refused", "bad", page_of(waits)),
        ("The job polling last ran 2 h 10 min ago.", "", "bad", ""),
        ("The job clean-up ends in an error.", "RuntimeError: <script>alert(1)</script>", "bad", ""),
        ("1 invocation is undeliverable: nobody knows whether it ran.", "", "warning", f"{LIST}?status=undeliverable"),
        ("1 invocation is paused: its handler failed too often.", "", "warning", f"{LIST}?status=paused"),
    ]
    assert all(alert.remedy for alert in found.alerts)
    assert [(job.label, job.took) for job in found.jobs] == [
        ("delivery", "40 ms"),
        ("polling", "40 ms"),
        ("clean-up", "40 ms"),
    ]
    text = response.content.decode()
    assert "Start Celery beat and a worker, or restate_relay." in text
    assert "<script>alert" not in text


def test_it_says_nothing_where_nothing_is_wrong(viewer):
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now())
    make_row("succeeded")
    response = viewer.get(OVERVIEW)
    assert response.context["overview"].alerts == []
    assert "restate-alerts" not in response.content.decode()


@pytest.mark.django_db(databases=["default", "other"])
def test_the_jobs_of_every_swept_database(viewer, settings):
    settings.RESTATE = {"default": {"DATABASES": ["default", "other"]}}
    for job in JobRun.Job:
        JobRun.objects.create(job=job, succeeded_at=timezone.now())
    found = viewer.get(OVERVIEW).context["overview"]
    assert [alert.text for alert in found.alerts] == [
        "other: The job delivery has never run.",
        "other: The job polling has never run.",
    ]
    assert [(job.label, job.ran == "never") for job in found.jobs[2:4]] == [
        ("clean-up (default)", False),
        ("delivery (other)", True),
    ]


def test_when_nothing_waits(viewer):
    make_row("succeeded")
    assert "Nothing waits for a person." in viewer.get(OVERVIEW).content.decode()


def test_it_stands_on_the_apps_page_for_who_may_see_it(viewer, client_of, user_with):
    make_row("paused")
    assert "restate-groups" in viewer.get(APP).content.decode()
    assert viewer.get(f"{APP}?span=7d").context["overview"].trends.span.name == "7d"
    deleter = client_of(user_with("delete_invocation", name="deleter"))
    assert "restate-groups" not in deleter.get(APP).content.decode()


def test_it_stands_on_the_admins_index_unless_the_site_has_one_of_its_own(viewer, monkeypatch):
    make_row("paused", service="Held")
    text = viewer.get("/admin/").content.decode()
    assert "Recent actions" in text, "Django's own index is there"
    assert "Held" in text
    assert f'href="{OVERVIEW}"' in text
    assert "restate-columns-chart" in text
    # The site itself: ``admin.site`` stands for it, and what is patched there does not come back.
    site = admin.site.get_model_admin(Invocation).admin_site
    monkeypatch.setattr(site, "index_template", "admin/index.html")
    assert "Held" not in viewer.get("/admin/").content.decode()


@pytest.mark.parametrize("address", [OVERVIEW, SERVERS])
def test_who_may_see_it(address, client_of, user_with, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None}}
    assert client_of(None).get(address).status_code == 302
    assert client_of(user_with("cancel_invocation", name="canceller")).get(address).status_code == 403
    viewer = client_of(user_with("view_invocation", name="looker"))
    assert viewer.get(address).status_code == 200
    assert viewer.post(address).status_code == 405


def test_the_number_of_queries(viewer):
    def cost():
        with CaptureQueriesContext(connection) as queries:
            viewer.get(OVERVIEW)
        return len(queries)

    make_row("paused")
    make_row("unsent")
    few = cost()
    for status in Status:
        make_row(status)
    assert cost() <= few <= 13


def test_the_servers(restate, viewer, settings):
    settings.RESTATE = {
        **settings.RESTATE,
        "nowhere": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": "http://127.0.0.1:9"},
        "bare": {"INGRESS_URL": restate.ingress_url, "ADMIN_URL": None},
    }
    response = viewer.get(SERVERS)
    default, nowhere, bare = response.context["servers"]
    assert (default.ingress.answers, default.admin.answers) == (True, True)
    assert default.version.startswith("1.")
    rows = {row["service"].name: row for row in default.rows}
    assert rows["Greeter"]["kind"] == "service"
    assert rows["Counter"]["kind"] == "virtual object"
    assert rows["Signup"]["kind"] == "workflow"
    assert (nowhere.ingress.answers, nowhere.admin.answers) == (False, False)
    assert (bare.ingress.answers, bare.admin.answers) == (True, None)
    text = response.content.decode()
    for word in ("Greeter", "slowly", "dp_", "does not answer", "none is set"):
        assert word in text
    part = viewer.get(SERVERS, {"_live": "1"}).content.decode()
    assert "restate-servers-body" in part
    assert "<html" not in part


def test_settings_that_can_not_be_read(viewer, settings):
    settings.RESTATE = {"default": {"NONSENSE": 1}}
    assert "see manage.py check" in viewer.get(SERVERS).content.decode()
    assert viewer.get(OVERVIEW).status_code == 200
