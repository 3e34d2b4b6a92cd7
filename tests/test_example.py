"""The example project's pages and services, on a real server with the shop's own handlers."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import kombu
import pytest
from django.conf import settings as django_settings
from django.contrib import admin
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

import folder_broker
from restate_django import operations, polling
from restate_django.lifecycle import Status
from restate_django.models import Invocation
from restate_django.testing import HandlerServer
from restate_django.testing.process import free_port
from tests.conftest import EXAMPLE
from tests.current_app import current_app_put_back
from tests.wait import comes_to, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kombu.simple import SimpleQueue


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module", autouse=True)
def shop_installed(django_db_setup, django_db_blocker):
    """Add the shop to the tests' settings, with its tables, for this module."""
    # The example's package has a Celery app of its own, which makes itself the current one.
    with (
        current_app_put_back(),
        override_settings(
            INSTALLED_APPS=[*django_settings.INSTALLED_APPS, "shop"],
            MIDDLEWARE=[*django_settings.MIDDLEWARE, "example.middleware.content_security_policy"],
            ROOT_URLCONF="example.urls",
            SHOP_PACE=0.3,
        ),
    ):
        with django_db_blocker.unblock():
            call_command("migrate", "shop", verbosity=0)
        yield
        with django_db_blocker.unblock():
            call_command("migrate", "shop", "zero", verbosity=0)
        # The pages of the tests' own site would look for an app that is gone.
        admin.site.unregister([model for model in admin.site._registry if model._meta.app_label == "shop"])
        # They register and take in what is registered when they are imported: the next time that is here, anew.
        for module in ("shop.admin", "example.urls"):
            sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def books_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("books")


@pytest.fixture(scope="module")
def shop_server(_start_restate, books_folder):
    """A Restate server that knows the shop's handlers and nothing else."""
    with ExitStack() as stack:
        running = _start_restate(stack, handlers=False)
        handlers = HandlerServer("services.app:app", cwd=EXAMPLE, env={"SHOP_BOOKS": str(books_folder)})
        stack.callback(handlers.stop)
        handlers.start()
        handlers.register(running.admin_url)
        yield dataclasses.replace(running, handlers=handlers)


@pytest.fixture
def shop(shop_server, books_folder, settings, monkeypatch):
    settings.RESTATE = {
        "default": {
            "INGRESS_URL": shop_server.ingress_url,
            "ADMIN_URL": shop_server.admin_url,
            "POLL_MIN_INTERVAL": 0.1,
        }
    }
    monkeypatch.setenv("SHOP_BOOKS", str(books_folder))
    return shop_server


def ended(row, *, timeout=20):
    """Poll as the Celery worker does, until the row has ended."""

    def look():
        polling.poll_due()
        row.refresh_from_db()
        return row.is_finished

    wait_for(look, timeout=timeout, what=f"{row} to end")
    return row


def order_form(client, **changes):
    """Fill in a form of the shelf."""
    shelf = client.get("/").content.decode()
    key = re.search(r'name="idempotency_key" value="([^"]+)"', shelf)[1]
    return {"idempotency_key": key, "sku": "mug", "quantity": "2", **changes}


def place(client, **changes):
    """Place an order and return it with its invocation."""
    from shop.models import Order

    answer = client.post("/orders/", order_form(client, **changes))
    assert answer.status_code == 302
    order = Order.objects.get(pk=answer.url.split("/")[2])
    return order, Invocation.objects.for_object(order).get()


def test_the_targets_are_what_the_services_make_of_them(shop, capsys):
    """Whoever changes a handler writes them anew: ``manage.py restate_codegen --output shop/targets.py``."""
    call_command("restate_codegen", output=EXAMPLE / "shop" / "targets.py", check=True)
    assert "is what the server says" in capsys.readouterr().out


def entries(order):
    from services import books

    return [line["entry"] for line in books.read(f"order-{order.pk}")]


# ---------------------------------------------------------------- orders


def test_an_order_runs_through_its_steps(shop, client):
    order, row = place(client)
    assert (row.status, row.service, row.handler, row.key) == ("accepted", "OrderWorkflow", "run", str(order.pk))
    assert row.related_to == order
    assert row.requested_by is None
    assert ended(row).status == "succeeded"
    page = client.get(order.get_absolute_url()).content.decode()
    assert entries(order) == ["Stock reserved", "Card charged", "Parcel packed", "Shipped"]
    assert all(entry in page for entry in entries(order))
    assert row.output["parcel"] in page
    assert "€ 36.00" in page


def test_who_asked_is_recorded(shop, client, django_user_model):
    user = django_user_model.objects.create_user("mary")
    client.force_login(user)
    _, row = place(client)
    assert row.requested_by == user


def test_a_second_click_finds_the_same_order(shop, client):
    form = order_form(client)
    first, second = (client.post("/orders/", form).url for _ in range(2))
    assert first == second
    assert Invocation.objects.count() == 1


def test_a_double_click_at_the_same_moment_is_one_order(shop, client):
    from shop.models import Order

    client.get("/orders/")  # the visitor, whom all clicks share
    form, answers, barrier = order_form(client), [], threading.Barrier(4)

    def click():
        browser = Client()
        browser.cookies = client.cookies
        barrier.wait()
        try:
            answers.append(browser.post("/orders/", form).url)
        finally:
            connection.close()

    clicks = [threading.Thread(target=click) for _ in range(4)]
    for thread in clicks:
        thread.start()
    for thread in clicks:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert (Order.objects.count(), Invocation.objects.count()) == (1, 1)


def test_somebody_elses_form_makes_no_order(shop, client):
    form = order_form(client)
    client.post("/orders/", form)
    answer = Client().post("/orders/", form, follow=True)
    assert answer.redirect_chain == [("/", 302)]
    assert "Send it again." in answer.content.decode()
    assert Invocation.objects.count() == 1


def test_a_view_that_fails_after_its_send_has_sent_nothing(shop, client, monkeypatch):
    from restate_django import dispatch
    from shop.models import Order

    def send_and_fail(*args, **kwargs):
        send(*args, **kwargs)
        sent.append(kwargs["key"])
        raise RuntimeError("something after the send")

    send, sent = dispatch.send, []
    monkeypatch.setattr(dispatch, "send", send_and_fail)
    client.raise_request_exception = False
    assert client.post("/orders/", order_form(client)).status_code == 500
    assert (Order.objects.count(), Invocation.objects.count()) == (0, 0)
    polling.poll_due()
    from restate_django.connections import connections

    sql = f"SELECT id FROM sys_invocation WHERE target_service_key = '{sent[0]}'"
    assert connections["default"].admin.query(sql) == []


def test_while_restate_is_down_the_page_answers_at_once_and_says_why(shop, client, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": f"http://127.0.0.1:{free_port()}", "ADMIN_URL": None}}
    before = timezone.now()
    order, row = place(client)
    assert timezone.now() - before < timedelta(seconds=2)
    assert row.status == "unsent"
    page = client.get(order.get_absolute_url()).content.decode()
    assert "waiting to be sent" in page
    assert "no connection came about" in page


def test_a_cancelled_order_is_undone(shop, client, settings):
    settings.SHOP_PACE = 30
    order, row = place(client)
    wait_for(lambda: "Stock reserved" in entries(order), what="the first step")
    assert client.post(f"/orders/{order.pk}/cancel/", follow=True).status_code == 200
    assert ended(row).status == "cancelled"
    assert entries(order) == ["Stock reserved", "Stock released"]
    page = client.get(order.get_absolute_url()).content.decode()
    assert "Stock released" in page
    assert "Cancel the order" not in page
    assert "Not cancelled" in client.post(f"/orders/{order.pk}/cancel/", follow=True).content.decode()


def test_more_than_the_shelf_holds_fails_for_good(shop, client):
    order, row = place(client, quantity="11")
    assert ended(row).status == "failed"
    assert row.failure_code == 422
    page = client.get(order.get_absolute_url()).content.decode()
    assert "sold out" in page
    assert "Nothing was done for this order." in page


@pytest.mark.parametrize(
    "changes", [{"quantity": "0"}, {"quantity": "100"}, {"sku": "yacht"}, {"idempotency_key": "1"}, {"quantity": "two"}]
)
def test_a_bad_order_is_refused_with_a_message(shop, client, changes):
    answer = client.post("/orders/", order_form(client, **changes), follow=True)
    assert 'class="error"' in answer.content.decode()
    assert Invocation.objects.count() == 0


def test_a_visitor_sees_only_what_is_his(shop, client):
    order, _ = place(client)
    stranger = Client()
    assert stranger.get(order.get_absolute_url()).status_code == 404
    assert stranger.post(f"/orders/{order.pk}/cancel/").status_code == 404
    assert str(order) not in stranger.get("/orders/").content.decode()
    assert str(order) in client.get("/orders/").content.decode()


# ---------------------------------------------------------------- the other pages


def test_the_cart_fills_and_is_ordered_and_is_empty_then(shop, client):
    from shop.models import Order

    def cart():
        return client.get("/cart/").context["lines"]

    def settle():
        for row in Invocation.objects.open():
            ended(row)

    client.post("/cart/", {"sku": "mug", "quantity": "2"})
    client.post("/cart/", {"sku": "plant", "quantity": "1"})
    settle()
    assert {line["product"].sku: line["quantity"] for line in cart()} == {"mug": 2, "plant": 1}
    client.post("/cart/remove/", {"sku": "plant"})
    settle()
    assert [line["product"].sku for line in cart()] == ["mug"]
    form = order_form(client, sku="")
    placed = client.post("/orders/", form)
    assert Order.objects.get().items == {"mug": 2}
    settle()
    assert cart() == []
    assert client.post("/orders/", form).url == placed.url, "the same form again finds the order"
    assert client.post("/orders/", order_form(client, sku="")).url == "/cart/", "there is nothing left to order"
    assert Client().get("/cart/").context["lines"] == []


def test_a_bad_item_is_refused(shop, client):
    for url in ("/cart/", "/cart/remove/"):
        assert 'class="error"' in client.post(url, {"sku": "yacht", "quantity": "1"}, follow=True).content.decode()
    assert Invocation.objects.count() == 0


def test_a_reminder_waits_for_its_time_and_can_be_called_off(shop, client):
    form = {"email": "mary@example.com", "text": "Water the plant", "seconds": "600"}
    assert client.post("/reminders/", form).status_code == 302
    row = Invocation.objects.get()
    assert timedelta(seconds=590) < row.run_at - timezone.now() <= timedelta(seconds=600)
    assert "Water the plant" in client.get("/reminders/").content.decode()
    assert Client().post(f"/restate/{row.pk}/cancel/").status_code == 404
    link = re.search(r'action="(/restate/[^"]+)"', client.get("/reminders/").content.decode())[1]
    assert client.post(link, {"next": "/reminders/"}).url == "/reminders/"
    assert ended(row).status == "cancelled"


def test_a_reminder_is_sent(shop, client):
    from services import books

    client.post("/reminders/", {"email": "now@example.com", "text": "Now", "seconds": "0"})
    assert ended(Invocation.objects.get()).status == "succeeded"
    assert [line["text"] for line in books.read("mail") if line["to"] == "now@example.com"] == ["Now"]


def test_a_bad_reminder_says_what_is_wrong(shop, client):
    page = client.post("/reminders/", {"email": "nobody", "text": "", "seconds": "-1"}).content.decode()
    assert page.count("errorlist") == 3
    assert Invocation.objects.count() == 0


def test_a_report_is_paused_until_the_line_is_repaired_and_somebody_resumes_it(shop, client):
    client.post("/reports/")
    row = Invocation.objects.get()

    def paused():
        polling.poll_due()
        row.refresh_from_db()
        return row.status == "paused"

    wait_for(paused, timeout=20, what="the report to be paused")
    page = client.get("/reports/").content.decode()
    assert "paused" in page
    assert "the warehouse does not answer" in page
    assert "Traceback" not in page
    client.post(f"/reports/{row.related_id}/repair/")
    operations.resume(row)
    assert ended(row).status == "succeeded"
    assert "128 parcels, 3 returns" in client.get("/reports/").content.decode()


def test_a_front_end_gets_ok_and_the_page_shows_the_answer(shop, client):
    answer = client.post("/agent/returns/", {"question": "Can I send a mug back?"}, content_type="application/json")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert ended(Invocation.objects.get()).status == "succeeded"
    page = client.get("/agent/returns/").content.decode()
    assert "Look up: returns" in page
    assert "Everything can be sent back within thirty days" in page
    assert "Can I send a mug back?" not in client.get("/agent/shipping/").content.decode()
    assert "Can I send a mug back?" not in Client().get("/agent/returns/").content.decode()


@pytest.mark.parametrize(
    ("data", "content_type"),
    [("", "text/plain"), ("{}", "application/json"), ("{broken", "application/json"), ("[1]", "application/json")],
)
def test_whoever_says_nothing_asks_about_the_topic_itself(shop, client, data, content_type):
    answer = client.post("/agent/tea-pots/", data, content_type=content_type)
    assert answer.json() == {"ok": True}
    assert Invocation.objects.get().payload["question"] == "What should I know about tea-pots?"


def test_a_browser_without_javascript_gets_the_page_again(shop, client):
    answer = client.post("/agent/mugs/", {"question": "How big?"}, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.url) == (302, "/agent/mugs/")


def test_a_question_too_long_is_refused(shop, client):
    answer = client.post("/agent/mugs/", {"question": "x" * 501})
    assert answer.status_code == 400
    assert answer.json()["ok"] is False
    assert Invocation.objects.count() == 0


def test_hello_waits_for_the_answer(shop, client):
    assert "Hello, Mary!" in client.post("/hello/", {"name": "Mary"}).content.decode()
    row = Invocation.objects.get()
    assert (row.verb, row.status) == ("call", "succeeded")


def test_hello_says_so_when_nobody_is_there(shop, client, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": f"http://127.0.0.1:{free_port()}", "ADMIN_URL": None}}
    assert "Nothing was done" in client.post("/hello/", {"name": "Mary"}).content.decode()


# ---------------------------------------------------------------- all pages

PAGES = ("/", "/orders/", "/cart/", "/reminders/", "/reports/", "/agent/mugs/", "/hello/")


def test_every_page_works_under_a_strict_policy(shop, client):
    order, _ = place(client)
    client.post("/cart/", {"sku": "mug", "quantity": "1"})
    client.post("/reports/")
    for url in (*PAGES, order.get_absolute_url()):
        answer = client.get(url)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        page = answer.content.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page), url
        assert page.count("<h1") == 1


def test_the_live_part_is_told_as_json(shop, client):
    order, row = place(client)
    live = client.get(order.get_absolute_url(), {"live": ""})
    assert live.json()["open"] is True
    ended(row)
    live = client.get(order.get_absolute_url(), {"live": ""}).json()
    assert live["open"] is False
    assert 'data-status="succeeded"' in live["html"]
    assert "csrf" not in live["html"]
    assert live["html"] == client.get(order.get_absolute_url(), {"live": ""}).json()["html"]


def test_forms_are_protected(shop):
    browser = Client(enforce_csrf_checks=True)
    for url in ("/orders/", "/cart/", "/cart/remove/", "/reminders/", "/reports/", "/agent/mugs/", "/hello/"):
        assert browser.post(url, {}).status_code == 403
    assert Invocation.objects.count() == 0


def test_what_changes_something_is_not_a_link(shop, client):
    order, _ = place(client)
    for url in (f"/orders/{order.pk}/cancel/", f"/reports/{order.pk}/repair/"):
        assert client.get(url).status_code == 405


def test_staff_find_the_row_in_the_admin(shop, client, admin_client):
    _, row = place(admin_client)
    link = reverse("admin:restate_django_invocation_change", args=[row.pk])
    assert link in admin_client.get("/orders/").content.decode()
    assert link not in client.get("/orders/").content.decode()
    for model in ("order", "reminder", "report", "question"):
        assert admin_client.get(f"/admin/shop/{model}/").status_code == 200


@pytest.mark.browser
def test_an_order_moves_before_the_visitors_eyes(shop, live_server, page, settings):
    """A browser places an order, sees it move, is asked for nothing, and cancels another one."""
    settings.SHOP_PACE = 1  # slower than the page looks
    page.goto(live_server.url)
    page.get_by_role("button", name="Buy now one Stoneware mug").dblclick()
    comes_to(page, r"/orders/[^/]+/$")
    row = Invocation.objects.get()
    badge = page.locator(".badge").first
    seen = []

    def watch(status):
        polling.poll_due()
        seen.append(badge.get_attribute("data-status"))
        return seen[-1] == status

    wait_for(lambda: watch("succeeded"), timeout=20, what="the page to say that it succeeded")
    assert "running" in seen
    assert page.get_by_text("Parcel packed").is_visible()
    assert Invocation.objects.get() == row, "the double click made one invocation"

    page.goto(live_server.url)
    settings.SHOP_PACE = 30
    page.get_by_role("button", name="Buy now one Pilea").click()
    page.wait_for_url("**/orders/*/")
    wait_for(lambda: page.get_by_text("Stock reserved").is_visible(), what="the first step")
    page.get_by_role("button", name="Cancel the order").click()
    page.wait_for_load_state()
    wait_for(lambda: watch("cancelled"), timeout=20, what="the page to say that it was cancelled")
    assert page.get_by_text("Stock released").is_visible()


@pytest.mark.browser
def test_the_agent_is_asked_without_leaving_the_page(shop, live_server, page):
    page.goto(f"{live_server.url}/agent/plants/")
    page.get_by_label("Your question").fill("How often?")
    page.get_by_role("button", name="Ask about plants").click()
    answer = page.get_by_text("You asked: “How often?”")
    wait_for(lambda: (polling.poll_due(), answer.is_visible())[1], timeout=20, what="the answer")
    assert page.get_by_label("Your question").input_value() == ""


# ---------------------------------------------------------------- what the demo checks with


def story_of(statuses):
    """Make a story whose row goes through the statuses."""

    def story(run):
        run.row = Invocation(service="Greeter", handler="greet")
        for status in statuses:
            run.row.status = status
            yield

    return story


def test_a_run_that_ends_as_it_should_has_no_problem():
    from shop.kinds import Run

    run = Run("service", Status.SUCCEEDED, story_of(["running", "succeeded"]))
    assert [run.step() for _ in range(3)] == [False, False, True]
    assert run.problem == ""


@pytest.mark.parametrize("how", ["wrong status", "broken", "never"])
def test_one_wrong_end_makes_the_check_fail(monkeypatch, how):
    from shop.kinds import Run
    from shop.management.commands import demo_check

    def broken(run):
        run.expect(condition=False, problem="the mail was sent twice")
        yield

    def never(run):
        while True:
            yield

    stories = {"wrong status": story_of(["failed"]), "broken": broken, "never": never}
    runs = [
        Run("service", Status.SUCCEEDED, story_of(["succeeded"])),
        Run("workflow", Status.SUCCEEDED, stories[how]),
    ]
    monkeypatch.setattr(demo_check, "all_runs", lambda: runs)
    out = io.StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command(demo_check.Command(), deadline=0.5, stdout=out, no_color=True)
    assert stopped.value.code == 1
    assert "ok    service" in out.getvalue()
    assert "WRONG workflow" in out.getvalue()
    assert "1 of 2 went wrong: workflow" in out.getvalue()


# ---------------------------------------------------------------- the services by themselves


def test_a_book_has_each_entry_once(tmp_path, monkeypatch):
    from services import books

    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path / "new"))
    assert books.read("order-1") == []
    first = books.note("order-1", "Card charged", amount=5)
    assert books.note("order-1", "Card charged", amount=7) == first
    assert books.read("order-1") == [first]
    with pytest.raises(ValueError, match="can't be the name of a book"):
        books.read("../secrets")


@pytest.fixture
def language_model(monkeypatch):
    """A language model's server that notes what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers, body))
            status, reply = replies.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args):
            """Say nothing."""

    asked, replies = [], []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AGENT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    yield asked, replies
    server.shutdown()
    server.server_close()
    thread.join()


def test_without_a_key_the_built_in_model_answers_always_the_same(language_model):
    from services import model

    assert model.name() == "built-in"
    assert model.plan("mugs", "and how do I cancel?") == ["cancelling", "mugs"]
    assert model.plan("nonsense", "?") == ["shipping"]
    assert model.look_up("mugs") in model.answer("How big?", {"mugs": model.look_up("mugs")})
    assert language_model[0] == []


def test_a_key_in_the_environment_switches_to_a_real_model(language_model, monkeypatch):
    from services import model

    asked, replies = language_model
    monkeypatch.setenv("ANTHROPIC_API_KEY", "one")
    replies.append((200, {"content": [{"type": "text", "text": "Returns, lamps and yachts"}]}))
    assert model.plan("lamps", "Can I give it back?") == ["returns", "lamps"]
    path, headers, body = asked[-1]
    assert (path, headers["x-api-key"], body["model"]) == ("/v1/messages", "one", model.name())

    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "two")
    monkeypatch.setenv("AGENT_MODEL", "my-model")
    replies.append((200, {"choices": [{"message": {"content": "Yes."}}]}))
    assert model.answer("Can I?", {"returns": "Yes, within thirty days."}) == "Yes."
    path, headers, body = asked[-1]
    assert (path, headers["Authorization"], body["model"]) == ("/v1/chat/completions", "Bearer two", "my-model")


def test_a_model_that_refuses_ends_the_question_and_one_that_is_busy_does_not(language_model, monkeypatch):
    import urllib.error

    from restate.exceptions import TerminalError

    from services import model

    _, replies = language_model
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    replies.append((401, {"error": "no such key"}))
    with pytest.raises(TerminalError, match="no such key"):
        model.answer("?", {})
    replies.append((529, {"error": "busy"}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        model.answer("?", {})
    caught.value.close()


def test_the_shops_own_tests_pass(tmp_path):
    """They need no server: the testing kit stands in for it."""
    unset = {"RESTATE_DJANGO_TEST_RUN", "DJANGO_SETTINGS_MODULE", "DATABASE_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "manage.py"), "test", "shop"],
        env={**environment, "SHOP_DATA": str(tmp_path), "RESTATE_SERVER": "none"},
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran [1-9]\d+ tests", done.stderr), done.stderr


# ---------------------------------------------------------------- the broker in a folder


@contextlib.contextmanager
def queue_in(folder: Path) -> Iterator[SimpleQueue]:
    """Open a queue of the example's broker."""
    options = {**folder_broker.options(folder), "polling_interval": 0}
    with kombu.Connection("filesystem://", transport="folder_broker:Transport", transport_options=options) as broker:
        yield broker.SimpleQueue("jobs")


def test_a_worker_reads_no_message_that_is_being_written(tmp_path):
    """With kombu's own transport a worker that looks at the wrong moment takes a part of a file away, and ends."""
    # Long ones, which are not written at one stroke.
    messages = [str(number) * 1_500_000 for number in range(10)] * 2

    def write() -> None:
        with queue_in(tmp_path) as queue:
            for message in messages:
                queue.put(message)

    with queue_in(tmp_path) as queue, ThreadPoolExecutor() as pool:
        writer = pool.submit(write)
        received = [queue.get(timeout=30).payload for _message in messages]
        writer.result()
    assert received == messages
