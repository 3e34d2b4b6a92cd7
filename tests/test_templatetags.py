"""The tags for a project's own pages: what they write, and what a browser makes of it under a strict policy."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.template import Context, Template
from django.test import Client, RequestFactory
from django.utils import timezone

from restate_django import send
from restate_django.lifecycle import FINISHED, OPEN, Status
from restate_django.models import Invocation
from restate_django.polling import refresh
from tests.admin.rows import build_row, make_row
from tests.admin.test_browser import contrast
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def rendered(text, **context):
    """Render a template with our tags, for a page at ``/page/?a=1``."""
    context.setdefault("request", RequestFactory().get("/page/?a=1"))
    return Template("{% load restate_django %}" + text).render(Context({"csrf_token": "f" * 64, **context}))


# ---------------------------------------------------------------- the badge


@pytest.mark.parametrize("status", Status)
def test_without_script_the_badge_is_the_word(status):
    html = rendered("{% invocation_status row assets=False %}", row=build_row(status))
    words = re.sub(r"<[^>]*hidden>.*?</span>|<[^>]+>", "", html).strip()
    assert words == status.label
    assert 'role="status" aria-live="polite"' in html
    assert ("data-url" in html) is (status not in FINISHED)


def test_nothing_is_shown_for_no_invocation():
    assert rendered("{% invocation_status nothing %}", nothing=None).strip() == ""


def test_there_is_a_button_only_while_it_can_be_cancelled():
    for status in Status:
        html = rendered("{% invocation_status row cancel=True %}", row=build_row(status))
        assert ("<form" in html) is (status in OPEN), status
    asked = build_row("running", cancel_requested_at=timezone.now())
    html = rendered("{% invocation_status row cancel=True %}", row=asked)
    assert "<form" not in html
    assert 'note">cancel requested' in html
    assert "<form" not in rendered("{% invocation_status row %}", row=build_row("running"))


def test_the_button_has_the_label_that_was_given_and_the_way_back():
    html = rendered("{% invocation_status row cancel='Call <it> off' %}", row=build_row("running"))
    assert "<button>Call <it> off</button>" in html, "a text of the template's own is taken as it stands"
    html = rendered("{% invocation_status row cancel=label %}", row=build_row("running"), label="<b>")
    assert "<button>&lt;b&gt;</button>" in html
    assert 'name="next" value="/page/?a=1"' in html
    assert 'name="csrfmiddlewaretoken"' in html


def test_the_addresses_are_signed_and_end():
    row = make_row("running")
    html = rendered("{% invocation_status row cancel=True expires=60 %}", row=row)
    see = re.search(r'data-url="([^"]+)"', html)[1]
    cancel = re.search(r'action="([^"]+)"', html)[1]
    assert Client().get(see).status_code == 200
    assert Client().post(cancel.replace("/cancel/", "/")).status_code == 405
    assert Client().post(see.replace("/?", "/cancel/?")).status_code == 404, "the one that lets see lets not cancel"
    assert int(re.search(r"sig=([0-9a-f]+)\.", see)[1], 16) <= timezone.now().timestamp() + 65


def test_script_and_style_are_named_once_in_a_page():
    rows = [build_row("running"), build_row("running")]
    twice = "{% for row in rows %}{% invocation_status row %}{% endfor %}"
    for template in (twice, twice + "{% with row=rows.0 %}{% invocation_status row %}{% endwith %}"):
        html = rendered(template, rows=rows)
        assert (html.count("<script"), html.count("<link")) == (1, 1)
    assert "<script" not in rendered("{% invocation_status row assets=False %}", row=rows[0])
    for name in re.findall(r'(?:href|src)="/static/([^"]+)"', rendered(twice, rows=rows)):
        assert finders.find(name), name


def test_a_badge_for_htmx_asks_by_itself_and_names_no_script():
    row = make_row("running")
    html = rendered("{% invocation_status row htmx=True %}", row=row)
    asked = re.search(r'hx-get="([^"]+)" hx-trigger="load delay:2s" hx-swap="outerHTML"', html)[1]
    assert "data-url" not in html
    assert "<script" not in html
    assert "<link" in html, "it is in colour all the same"
    answer = Client().get(asked, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert f'hx-get="{asked}"' in answer.content.decode(), "the same address: what it lets does not last longer"
    assert "HX-Request" in answer.headers["Vary"]
    assert answer.headers["Cache-Control"] == "no-store, private"
    Invocation.objects.filter(pk=row.pk).update(status="succeeded")
    last = Client().get(asked, headers={"HX-Request": "true"})
    assert last.status_code == 286
    assert "hx-get" not in last.content.decode()
    told = {"restate:finished": {"id": str(row.pk), "status": "succeeded", "succeeded": True}}
    assert json.loads(last.headers["HX-Trigger"]) == told
    assert "hx-get" not in rendered("{% invocation_status row htmx=True %}", row=Invocation.objects.get())
    stranger = asked.partition("?")[0]
    assert Client().get(stranger, headers={"HX-Request": "true"}).status_code == 404


def test_nothing_in_it_is_inline():
    html = rendered("{% invocation_status row cancel=True %}", row=build_row("running"))
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", html)


def test_a_badge_needs_neither_a_request_nor_a_query(django_assert_num_queries):
    row = make_row("running")
    with django_assert_num_queries(0):
        assert "running" in rendered("{% invocation_status row cancel=True %}", row=row, request=None)


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def site(page, settings):
    """A browser's page on a site of a project's own, under a policy that forbids everything inline."""
    settings.ROOT_URLCONF = "tests.own_site"
    settings.MIDDLEWARE = ["tests.admin.strict_csp.strict_csp", *settings.MIDDLEWARE]
    page.set_default_timeout(15_000)
    return page


def poll_until(site, row, text):
    """Poll as the jobs do, until the page says so."""

    def said():
        refresh(row)
        return site.locator(".restate-status-label").inner_text() == text

    wait_for(said, timeout=20, what=f"the page to say {text}")


@pytest.mark.browser
def test_the_badge_moves_from_accepted_to_succeeded(restate, site, live_server):
    row = send("Greeter", "slowly", {"name": "Mary", "seconds": 3})
    site.goto(f"{live_server.url}/invocations/{row.pk}/")
    assert site.locator(".restate-status-label").inner_text() == "accepted"
    site.evaluate(
        "document.addEventListener('restate:finished', event => { document.title = event.detail.status; });"
        "window.badge = document.querySelector('.restate-status')"
    )
    poll_until(site, row, "succeeded")
    site.wait_for_function("document.title === 'succeeded'")
    assert site.evaluate("window.badge.isConnected"), "the page was not loaded anew"
    assert not site.locator("form.restate-cancel").is_visible()
    asked = []
    site.on("request", lambda request: asked.append(request.url))
    site.wait_for_timeout(2500)
    assert asked == [], "nobody asks about what has ended"


@pytest.mark.browser
@pytest.mark.parametrize("version", [2, 4])
def test_htmx_renews_the_badge_until_the_end(site, live_server, version):
    row = make_row("running")
    site.goto(f"{live_server.url}/htmx/{version}/{row.pk}/")
    site.evaluate("document.addEventListener('restate:finished', event => { document.title += event.detail.status; })")
    Invocation.objects.filter(pk=row.pk).update(status="suspended")
    site.wait_for_selector("[data-status=suspended]")
    Invocation.objects.filter(pk=row.pk).update(status="succeeded")
    site.wait_for_selector("[data-status=succeeded]")
    asked = []
    site.on("request", lambda request: asked.append(request.url))
    site.wait_for_timeout(3000)
    assert asked == [], "nobody asks about what has ended"
    assert site.title() == "Ownsucceeded", "it was told once"


@pytest.mark.browser
def test_the_button_cancels_without_leaving_the_page(restate, site, live_server):
    row = send("Slow", "sleep", {"seconds": 60})
    site.goto(f"{live_server.url}/invocations/{row.pk}/")
    site.evaluate("window.stays = true")
    site.click(".restate-cancel button")
    site.wait_for_selector(".restate-status-note:visible")
    assert site.locator(".restate-status-note").first.inner_text() == "cancel requested"
    poll_until(site, row, "cancelled")
    assert site.evaluate("window.stays")


@pytest.mark.browser
def test_without_script_the_button_leads_back_to_the_page(restate, site, live_server, browser):
    row = send("Slow", "sleep", {"seconds": 60})
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    address = f"{live_server.url}/invocations/{row.pk}/?from=list"
    plain.goto(address)
    plain.click(".restate-cancel button")
    assert plain.url == address
    assert plain.locator(".message").inner_text() == "The cancellation is on its way."
    assert "cancel requested" in plain.inner_text("body")
    context.close()
    wait_for(lambda: row.refresh().status == "cancelled", what="it to be cancelled")


@pytest.mark.browser
def test_another_users_invocation_is_not_there(site, live_server, client):
    mary, joe = (get_user_model().objects.create_user(name) for name in ("mary", "joe"))
    address = f"{live_server.url}/restate/{make_row('running', requested_by=mary).pk}/"
    for user, code in ((mary, 200), (joe, 404)):
        client.force_login(user)
        session = client.cookies["sessionid"].value
        site.context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        # A browser's own request, without a page whose console would show the 404.
        answer = site.context.request.get(address)
        assert (answer.status, "running" in answer.text()) == (code, code == 200)


@pytest.mark.browser
def test_a_badge_that_comes_later_is_live_too(site, live_server):
    first, later = make_row("running"), make_row("running")
    site.goto(f"{live_server.url}/invocations/{first.pk}/")
    html = rendered("{% invocation_status row assets=False %}", row=later)
    site.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", html)
    Invocation.objects.filter(pk=later.pk).update(status="suspended")
    site.wait_for_selector(f"[data-invocation='{later.pk}'][data-status='suspended']")


@pytest.mark.browser
def test_the_badge_waits_longer_while_there_is_no_news(site, live_server):
    row = make_row("running")
    site.clock.install()
    site.goto(f"{live_server.url}/invocations/{row.pk}/")
    asked = []
    site.on("response", lambda response: asked.append(response.status))
    for _second in range(60):
        site.clock.run_for(1000)
        site.wait_for_timeout(20)
    assert 3 <= len(asked) <= 9
    assert asked[0] == 200
    assert set(asked[1:]) == {304}


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_background(site, live_server, scheme):
    """WCAG's contrast of 4.5 for every status, in both schemes."""
    row = make_row("running")
    site.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    site.goto(f"{live_server.url}/invocations/{row.pk}/")
    weak = {}
    for status in Status:
        site.evaluate("status => { document.querySelector('.restate-status').dataset.status = status; }", status.value)
        front, back = site.eval_on_selector(
            ".restate-status-label", "label => [getComputedStyle(label).color, getComputedStyle(label).backgroundColor]"
        )
        if contrast(front, back) < 4.5:
            weak[status] = contrast(front, back)
    assert weak == {}
