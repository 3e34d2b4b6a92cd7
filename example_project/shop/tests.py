"""The shop's own tests, without a Restate server: ``python example_project/manage.py test``.

``FakeRestate`` stands in for the server below everything that the shop uses, so what is tested is the shop's own code
and the rows that come of it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from unittest import mock

from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.test import TestCase, TransactionTestCase
from django.urls import reverse

from restate_django import NO_PAYLOAD
from restate_django.models import Invocation
from restate_django.testing import FakeRestate
from shop.models import Order, Question, Reminder, Report


@FakeRestate()
class OrderTests(TransactionTestCase):
    """An order is a workflow: recorded with the order itself, sent once, cancelled by asking."""

    fake_restate: FakeRestate

    def form(self, **fields: str) -> dict[str, str]:
        """Return the shelf's form, with the key that makes it one order however often it is sent."""
        shelf = self.client.get(reverse("shop:shelf")).content.decode()
        key = re.search(r'name="idempotency_key" value="([^"]+)"', shelf)
        assert key is not None
        return {"idempotency_key": key[1], **fields}

    def order(self) -> Order:
        """Place an order for two mugs."""
        response = self.client.post(reverse("shop:orders"), self.form(sku="mug", quantity="2"))
        order = Order.objects.get()
        self.assertRedirects(response, order.get_absolute_url())
        return order

    def test_an_order_is_sent_with_its_key(self) -> None:
        order = self.order()
        sent = self.fake_restate.assert_sent("OrderWorkflow", "run", key=str(order.pk), times=1)
        self.assertEqual(sent.payload["lines"], [{"sku": "mug", "quantity": 2}])
        self.assertEqual(sent.payload["total"], order.total)
        self.assertEqual(sent.row, order.invocation)

    def test_a_form_that_is_sent_twice_is_one_order(self) -> None:
        form = self.form(sku="mug", quantity="1")
        pages = {self.client.post(reverse("shop:orders"), form).url for _ in range(2)}
        self.assertEqual(pages, {Order.objects.get().get_absolute_url()})
        self.fake_restate.assert_sent("OrderWorkflow", times=1)

    def test_an_order_that_can_not_be_kept_is_never_sent(self) -> None:
        form = self.form(sku="mug", quantity="1")
        with (
            mock.patch("restate_django.dispatch.send", side_effect=DatabaseError("full")),
            self.assertRaises(DatabaseError),
        ):
            self.client.post(reverse("shop:orders"), form)
        self.fake_restate.assert_nothing_sent()
        self.assertFalse(Order.objects.exists())

    def test_the_page_follows_the_workflow_to_its_end(self) -> None:
        order = self.order()
        live = f"{order.get_absolute_url()}?live"
        self.assertTrue(self.client.get(live).json()["open"])
        self.fake_restate.finish(order.invocation, {"parcel": "P-1"})
        page = self.client.get(live).json()
        self.assertFalse(page["open"])
        self.assertIn("succeeded", page["html"])

    def test_a_cancelled_order_ends_when_its_workflow_does(self) -> None:
        order = self.order()
        self.client.post(reverse("shop:cancel-order", args=[order.pk]))
        self.fake_restate.sweep()
        self.assertEqual(order.invocation.status, "cancelled")

    def test_an_order_that_has_ended_is_not_cancelled(self) -> None:
        order = self.order()
        self.fake_restate.finish(order.invocation, {"parcel": "P-1"})
        response = self.client.post(reverse("shop:cancel-order", args=[order.pk]), follow=True)
        self.assertContains(response, "Not cancelled: It is succeeded.")

    def test_an_order_waits_while_restate_is_down(self) -> None:
        self.fake_restate.on("OrderWorkflow").breaks("refused")
        order = self.order()
        self.assertEqual(order.invocation.status, "unsent")
        self.fake_restate.on("OrderWorkflow").accepts()
        self.fake_restate.sweep()
        self.assertEqual(order.invocation.status, "accepted")

    def test_what_is_in_the_cart_is_ordered_and_the_cart_emptied(self) -> None:
        self.fake_restate.on("Cart", "add").returns({"items": {"plant": 3}, "changed_at": 1})
        self.client.post(reverse("shop:cart"), {"sku": "plant", "quantity": "3"})
        added = self.fake_restate.assert_sent("Cart", "add", {"sku": "plant", "quantity": 3})
        self.fake_restate.sweep()
        self.client.post(reverse("shop:orders"), self.form())
        self.assertEqual(Order.objects.get().items, {"plant": 3})
        self.fake_restate.assert_sent("Cart", "clear", NO_PAYLOAD, key=added.key)

    def test_nobody_sees_the_order_of_another_visitor(self) -> None:
        order = self.order()
        self.client.cookies.clear()
        self.assertEqual(self.client.get(order.get_absolute_url()).status_code, 404)


@FakeRestate()
class OtherPages(TestCase):
    """In a ``TestCase`` nothing is committed: what a commit would send is sent when the callbacks are run."""

    fake_restate: FakeRestate

    def post(self, name: str, *args: str, **fields: str) -> None:
        """Post a form, and let its transaction be committed."""
        with self.captureOnCommitCallbacks(execute=True):
            response = self.client.post(reverse(f"shop:{name}", args=args), fields, headers={"accept": "text/html"})
        self.assertEqual(response.status_code, 302)

    def test_a_reminder_comes_in_its_time(self) -> None:
        self.post("reminders", email="mary@example.com", text="Water the plant", seconds="90")
        mail = {"to": "mary@example.com", "text": "Water the plant"}
        self.fake_restate.assert_sent("Mailer", "remind", mail, delay=timedelta(seconds=90))
        self.fake_restate.on("Mailer", "remind").returns("sent")
        self.fake_restate.sweep()
        self.assertEqual(Reminder.objects.get().invocation.status, "scheduled")
        self.fake_restate.advance(90)
        self.assertEqual(Reminder.objects.get().invocation.status, "succeeded")

    def test_a_report_that_pauses_says_so(self) -> None:
        self.post("reports")
        report = Report.objects.get()
        self.fake_restate.assert_sent("Report", "build", {"report": str(report.pk)})
        self.fake_restate.pause(report.invocation, "the warehouse does not answer")
        self.assertContains(self.client.get(reverse("shop:reports")), "paused")
        self.assertEqual(list(Invocation.objects.needs_attention()), [report.invocation])

    def test_a_question_is_asked_for_its_visitor(self) -> None:
        self.client.force_login(get_user_model().objects.create_user("mary"))
        self.post("agent", "mugs", question="Are they round?")
        question = Question.objects.get()
        sent = self.fake_restate.assert_sent("Agent", "ask")
        self.assertEqual(sent.payload["question"], "Are they round?")
        row = self.fake_restate.fail(sent, "The model is gone.", 503)
        self.assertEqual(row.requested_by.username, "mary")
        self.assertContains(self.client.get(reverse("shop:agent", args=["mugs"])), "The model is gone.")
        self.assertEqual(row, question.invocation)


@FakeRestate()
class GreetingTests(TransactionTestCase):
    """The one page that waits for an answer."""

    fake_restate: FakeRestate

    def said(self) -> str:
        """Ask for a greeting and return the page."""
        return self.client.post(reverse("shop:hello"), {"name": "Mary"}).content.decode()

    def test_the_answer_is_shown(self) -> None:
        self.fake_restate.on("Greeter", "greet").returns(lambda request: f"Hello, {request['name']}!")
        self.assertIn("Hello, Mary!", self.said())

    def test_a_greeter_that_refuses(self) -> None:
        self.fake_restate.on("Greeter", "greet").fails("not you again", 403)
        self.assertIn("The greeter refused: not you again", self.said())

    def test_a_greeter_that_is_not_there(self) -> None:
        self.fake_restate.on("Greeter").breaks("refused")
        self.assertIn("The greeter is not there now", self.said())

    def test_a_greeter_that_takes_its_time(self) -> None:
        self.fake_restate.on("Greeter").takes(60).returns("Hello")
        self.assertIn("The greeter takes its time", self.said())
        self.fake_restate.advance(60)
        self.assertEqual(Invocation.objects.get().output_value, "Hello")
