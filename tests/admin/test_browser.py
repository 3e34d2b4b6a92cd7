"""The pages in a real browser, under a policy that breaks inline code: what the operator presses is what happens."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from restate_django import send
from restate_django.models import Invocation
from restate_django.polling import refresh
from restate_django.testing import HandlerServer
from tests.admin.conftest import EVERYTHING
from tests.admin.pages import LIST, WIDTHS, operate, page_of, too_wide_for
from tests.admin.rows import make_row
from tests.conftest import ROOT
from tests.wait import wait_for

OVERVIEW = f"{LIST}overview/"

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def site(page, live_server, settings, user_with):
    """A browser's page, logged in as somebody who may do everything."""
    settings.MIDDLEWARE = ["tests.admin.strict_csp.strict_csp", *settings.MIDDLEWARE]
    user = user_with(*EVERYTHING, name="operator")
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    session["_auth_user_hash"] = user.get_session_auth_hash()
    session.create()
    page.context.add_cookies([{"name": "sessionid", "value": session.session_key, "url": live_server.url}])
    page.set_default_timeout(30_000)  # a busy machine is slow
    return page


def running_row(note):
    """An invocation that sleeps on the real server."""
    row = send("Slow", "sleep", {"seconds": 60, "note": note})

    def started():
        refresh(row)
        return row.status in {"running", "suspended"}

    wait_for(started, timeout=20, what="it to run")
    return row


def test_cancel_from_the_list(restate, site, live_server):
    row = running_row("browser-list")
    site.goto(live_server.url + LIST)
    site.check(f'input[value="{row.pk}"]')
    site.select_option('select[name="action"]', "cancel")
    site.click(".actions button")
    site.wait_for_selector(".messagelist .success")
    assert "Asked for the cancellation of 1 invocation." in site.inner_text(".messagelist")
    assert site.url == live_server.url + LIST
    assert "cancel requested" in site.inner_text("#result_list")


def test_kill_from_the_page_of_one(restate, site, live_server):
    row = running_row("browser-page")
    site.goto(live_server.url + page_of(row))
    site.click(".restate-buttons >> text=Kill")
    assert "No compensation runs" in site.inner_text("#content")
    site.fill("#restate-reason", "seen in the browser")
    site.click('input[type="submit"][value="Kill"]')
    site.wait_for_selector(".messagelist .success")
    assert site.url == live_server.url + page_of(row)
    assert "killed" in site.inner_text(".restate-state")
    site.click("text=History")
    assert "Killed it. Reason: seen in the browser" in site.inner_text("#content")


def push(site, label, reason=""):
    """Press a button of the page of one, with a reason."""
    if reason:
        site.fill(".restate-why input", reason)
    site.click(f'.restate-buttons button:text-is("{label}")')


def answer(site, label):
    """Answer the question, and return what is said."""
    button = f'input[type="submit"][value="{label}"]'
    site.wait_for_selector(button)
    # Until its styles are there the page moves under the pointer.
    site.wait_for_load_state()
    site.click(button)
    site.wait_for_selector(".messagelist .success")
    return site.inner_text(".messagelist")


def wait_until(row, *statuses):
    wait_for(lambda: refresh(row) and row.status in statuses, timeout=20, what=f"{row.target} to be {statuses}")


def test_pause_and_resume_on_a_deployment(restate, site, live_server):
    # One with a step behind it: until then Restate has not pinned it to a deployment, and can't move it.
    row = running_row("browser-pause")
    site.goto(live_server.url + page_of(row))
    push(site, "Pause", "the smtp server is down")
    assert "Paused 1 invocation." in site.inner_text(".messagelist")
    wait_until(row, "paused")
    site.goto(live_server.url + page_of(row))
    push(site, "Resume", "it is up again")
    assert site.input_value("#restate-reason") == "it is up again"
    site.wait_for_load_state()
    site.check('input[name="deployment"][value^="dp_"]')
    assert "Resumed 1 invocation." in answer(site, "Resume")
    wait_until(row, "running", "suspended")
    site.click("text=History")
    text = site.inner_text("#content")
    assert "Paused it. Reason: the smtp server is down" in text
    assert "Resumed it. Reason: it is up again" in text
    row.kill()


def test_what_is_done_to_an_ended_one(restate, site, live_server):
    row = send("Greeter", "greet", {"name": "Mary"})
    wait_until(row, "succeeded")
    address = live_server.url + page_of(row)
    for label, said, leads_on in (
        ("Restart as new", "Restarted 1 invocation as new.", True),
        ("Send with a new key", "Sent 1 invocation with a new key.", True),
        ("Purge journal", "Purged the journal of 1 invocation.", False),
        ("Purge", "Purged 1 invocation.", False),
    ):
        site.goto(address)
        push(site, label)
        assert said in answer(site, label)
        assert (site.url != address) == leads_on, label
    assert Invocation.objects.filter(restarted_from=row).count() == 2
    site.goto(address)
    assert site.locator("text=Repeated by").count() == 2


def test_send_again_and_ask_now(restate, site, live_server):
    row = send("Greeter", "greet", {"name": "Mary"}, delay=dt.timedelta(hours=1))
    Invocation.objects.filter(pk=row.pk).update(status="rejected", run_at=None, invocation_id="")
    site.goto(live_server.url + page_of(row))
    push(site, "Send again", "the handler is there now")
    assert "1 invocation is sent again." in answer(site, "Send again")
    push(site, "Ask Restate now")
    site.wait_for_selector(".messagelist >> text=Asked Restate about 1 invocation.")


def test_payloads_and_ids_are_copied(site, live_server):
    row = make_row(payload_bytes=b'"copied"')
    site.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    site.goto(live_server.url + page_of(row))
    site.click("[aria-labelledby=restate-payload] .restate-copy")
    site.wait_for_selector("[aria-labelledby=restate-payload] .restate-copy >> text=Copied")
    assert site.evaluate("navigator.clipboard.readText()") == '"copied"'


def waiting_row(note):
    """An invocation that waits for an awakeable on the real server."""
    row = send("Approval", "ask", {"note": note})
    wait_for(lambda: refresh(row) and row.status == "suspended", timeout=20, what="it to be suspended")
    return row


def test_an_approval_from_the_page_of_one(restate, site, live_server):
    row = waiting_row("browser-approve")
    site.goto(live_server.url + page_of(row))
    site.click(".restate-waits a >> text=Resolve")
    site.fill("#restate-value", "{yes}")
    site.click('input[type="submit"][value="Resolve"]')
    assert "This is no JSON" in site.inner_text(".errornote")
    assert site.input_value("#restate-value") == "{yes}"
    assert too_wide_for(site) == []
    site.fill("#restate-value", '"yes"')
    site.click('input[type="submit"][value="Resolve"]')
    site.wait_for_selector(".messagelist .success")
    assert site.url == live_server.url + page_of(row)
    site.click("text=History")
    assert "Resolved the awakeable sign_1" in site.inner_text("#content")
    wait_for(lambda: refresh(row) and row.output == "yes", timeout=20, what="the handler to get it")


def test_an_approval_is_refused_without_scripts(restate, site, live_server, browser):
    row = waiting_row("browser-reject")
    context = browser.new_context(java_script_enabled=False, storage_state=site.context.storage_state())
    plain = context.new_page()
    plain.goto(live_server.url + page_of(row))
    plain.click("text=Show its steps")
    plain.click(".restate-waits a >> text=Reject")
    plain.fill("#restate-reason", "not today")
    plain.click('input[type="submit"][value="Reject"]')
    assert "Rejected the awakeable" in plain.inner_text(".messagelist")
    context.close()
    wait_for(lambda: refresh(row) and row.failure_message == "not today", timeout=20, what="the handler to fail")


@pytest.fixture
def handlers():
    """Handlers that no server knows yet."""
    with HandlerServer("tests.versions:first", cwd=ROOT) as served:
        yield served


def test_a_deployment_is_registered_and_removed(make_restate, settings, site, live_server, handlers):
    server = make_restate(handlers=False)
    settings.RESTATE = {"default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url}}
    site.goto(live_server.url + LIST + "servers/")
    site.click("text=Register a deployment")
    assert too_wide_for(site) == []
    site.fill("#id_uri", handlers.url)
    site.fill("#id_headers", "x-api-key: " + "k" * 300)
    site.click("text=Show what it would do")
    assert "It is new." in site.inner_text("#content")
    assert too_wide_for(site) == []
    site.click('input[name="_register"]')
    site.wait_for_selector(".messagelist .success")
    assert handlers.url in site.inner_text("#content")
    assert too_wide_for(site) == []
    site.click("th a >> text=Desk")
    assert "JSON integer" in site.inner_text("#content")
    assert too_wide_for(site) == []
    site.go_back()
    site.click("a.deletelink")
    assert "Nobody serves then" in site.inner_text("#content")
    assert too_wide_for(site) == []
    site.click('input[type="submit"][value="Remove"]')
    assert "by force alone" in site.inner_text(".errornote")
    site.check("#restate-force")
    site.click('input[type="submit"][value="Remove"]')
    site.wait_for_selector(".messagelist .success")
    assert "Removed it by force." in site.inner_text("#content")
    assert site.locator("a.deletelink").count() == 0
    assert too_wide_for(site) == []


def test_the_steps_come_when_restate_has_taken_it(restate, settings, site, live_server):
    settings.RESTATE = {"default": {**settings.RESTATE["default"], "DELIVERY": "relay"}}
    row = send("Greeter", "greet", {"name": "Mary"})
    site.goto(live_server.url + page_of(row))
    assert not site.is_visible("text=Journal")
    wait_for(lambda: refresh(row) and row.status == "succeeded", timeout=20, what="it to be sent and run")
    site.wait_for_selector("#restate-journal-body")


def test_the_page_of_one_renews_itself_while_it_is_open(site, live_server):
    row = make_row("running")
    site.goto(live_server.url + page_of(row))
    site.focus("text=Kill")
    Invocation.objects.filter(pk=row.pk).update(cancel_requested_at=timezone.now())
    site.wait_for_selector(".restate-state >> text=cancel requested")
    ended = {"status": "failed", "failure_code": 500, "failure_message": "boom", "finished_at": timezone.now()}
    Invocation.objects.filter(pk=row.pk).update(**ended)
    site.wait_for_selector(".restate-state >> text=failed")
    assert "boom" in site.inner_text("[data-live=failure]")
    # The reader has the focus on a button: it is not taken away from under them.
    assert site.evaluate("document.activeElement.innerText") == "Kill"
    site.evaluate("document.activeElement.blur()")
    site.wait_for_selector(".restate-buttons >> text=Restart as new")
    site.wait_for_selector("#restate-detail:not([data-open])", state="attached")


def test_the_page_of_one_without_scripts(site, live_server, browser):
    row = make_row("running")
    context = browser.new_context(java_script_enabled=False, storage_state=site.context.storage_state())
    plain = context.new_page()
    plain.goto(live_server.url + page_of(row))
    plain.click(".restate-buttons >> text=Kill")
    assert "No compensation runs" in plain.inner_text("#content")
    context.close()


def test_a_large_selection_goes_on_by_itself(site, live_server, monkeypatch):
    from restate_django import operations
    from restate_django.admin import operate

    monkeypatch.setattr(operate, "BATCH", 3)
    monkeypatch.setattr(
        operations, "cancel", lambda rows: operations.OperationReport(done=[(row, "Done.") for row in rows])
    )
    for _ in range(8):
        make_row("running")
    site.goto(live_server.url + LIST)
    site.check("#action-toggle")
    site.select_option('select[name="action"]', "cancel")
    site.click(".actions button")
    site.wait_for_selector(".messagelist .success")
    assert "Asked for the cancellation of 8 invocations." in site.inner_text(".messagelist")


def test_hostile_text_runs_nowhere(site, live_server):
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    row = make_row(
        "failed", service=evil, key=evil, handler=evil, payload_bytes=evil.encode(), content_type="text/html",
        failure_code=500, failure_message=evil, delivery_error=evil, headers={"x-evil": evil},
    )  # fmt: skip
    for address in (LIST, page_of(row), OVERVIEW):
        site.goto(live_server.url + address)
        assert "onerror" in site.inner_text("#content")
        assert site.title() != "owned"


@pytest.mark.parametrize(("scheme", "language"), [("light", "en"), ("dark", "en"), ("light", "ar")])
def test_nothing_is_wider_than_the_screen(site, live_server, settings, scheme, language):
    row = make_row(
        "failed", service="S" * 255, handler="h" * 255, key="k" * 512, idempotency_key="i" * 255,
        payload_bytes=b'"' + b"p" * 5000 + b'"', failure_message="f" * 5000, headers={"x-long": "v" * 2000},
    )  # fmt: skip
    site.emulate_media(color_scheme=scheme)
    settings.LANGUAGE_CODE = language
    for address in (
        LIST,
        f"{LIST}?on={timezone.now():%Y}",
        page_of(row),
        OVERVIEW,
        "/admin/",
        "/admin/restate_django/",
    ):
        site.goto(live_server.url + address)
        assert too_wide_for(site) == [], address
    site.goto(live_server.url + page_of(row))
    site.click(f'.restate-buttons button[formaction="{operate("restart_as_new")}"], button[value="restart_as_new"]')
    site.wait_for_selector("#restate-reason")
    assert too_wide_for(site) == [], "the question"


@pytest.mark.parametrize("language", ["en", "ar"])
def test_the_chart_fits_in_either_direction_and_needs_no_inline_style(site, live_server, settings, language):
    settings.LANGUAGE_CODE = language
    complaints = []
    site.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for status in ("succeeded", "failed", "killed", "running"):
        make_row(status)
    for span in ("1h", "24h", "7d"):
        site.goto(f"{live_server.url}{OVERVIEW}?span={span}")
        assert too_wide_for(site) == [], span
        for width in WIDTHS:
            site.set_viewport_size({"width": width, "height": 800})
            chart = site.locator(".restate-columns-chart").bounding_box()
            for part in site.locator("[class^=restate-part]:visible").all()[4:]:  # four stand in the legend
                box = part.bounding_box()
                assert chart["x"] <= box["x"] + 1
                assert box["x"] + box["width"] <= chart["x"] + chart["width"] + 1
            scale = site.locator(".restate-scale").bounding_box()
            assert scale["x"] + scale["width"] <= chart["x"] + 1
        site.click("summary")
        assert site.locator("details table tbody tr").count() == {"1h": 60, "24h": 24, "7d": 28}[span]
        assert too_wide_for(site) == [], span
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_background(site, live_server, scheme):
    """WCAG's contrast of 4.5 for every badge, in both themes."""
    from restate_django.lifecycle import Status

    for status in Status:
        make_row(status)
    site.emulate_media(color_scheme=scheme)
    site.goto(live_server.url + LIST)
    colours = site.eval_on_selector_all(
        "#result_list .restate-badge",
        "badges => badges.map(b => [b.innerText, getComputedStyle(b).color, getComputedStyle(b).backgroundColor])",
    )
    assert len(colours) == len(Status)
    weak = {text: contrast(front, back) for text, front, back in colours if contrast(front, back) < 4.5}
    assert weak == {}


def contrast(front, back):
    """The ratio of two colours as CSS writes them."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
