"""``demo_samples``: a few real invocations of the staff user, so that the admin has something to show."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from shop import catalogue, targets
from shop.models import Order, Question, Reminder, Report

VISITOR = "samples"


class Command(BaseCommand):
    """Send one of each kind."""

    help = "Sends a handful of invocations on behalf of the user admin."

    def handle(self, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Send them, in one transaction, as a view would."""
        admin = get_user_model()._default_manager.filter(username="admin").first()
        pace = settings.SHOP_PACE
        items = {"mug": 2, "plant": 1}
        with transaction.atomic():
            order = Order.objects.create(
                visitor=VISITOR, token=uuid.uuid4().hex, items=items, total=catalogue.total(items)
            )
            reminder = Reminder.objects.create(
                visitor=VISITOR, email="mary@example.com", text="Water the plant", seconds=600
            )
            report = Report.objects.create(visitor=VISITOR)
            question = Question.objects.create(visitor=VISITOR, topic="shipping", text="How long does a mug take?")
            targets.Greeter().greet.send(targets.Person(name="Mary"), requested_by=admin)
            targets.Greeter().greet.send(targets.Person(name=""), requested_by=admin)
            targets.Cart(f"cart-{VISITOR}").add.send(targets.Item(sku="lamp"), requested_by=admin)
            lines = [targets.Line(sku=sku, quantity=quantity) for sku, quantity in items.items()]
            targets.OrderWorkflow(str(order.pk)).run.send(
                targets.OrderedGoods(lines=lines, total=order.total, pace=pace), related_to=order, requested_by=admin
            )
            targets.Mailer().remind.send(
                targets.Mail(to=reminder.email, text=reminder.text),
                delay=timedelta(seconds=reminder.seconds),
                related_to=reminder,
                requested_by=admin,
            )
            wanted = targets.ReportOrder(report=str(report.pk))
            targets.Report().build.send(wanted, related_to=report, requested_by=admin)
            targets.Agent().ask.send(
                targets.AgentQuestion(
                    topic=question.topic, question=question.text, book=f"question-{question.pk}", pace=pace / 3
                ),
                related_to=question,
                requested_by=admin,
            )
        self.stdout.write("Sent seven invocations for the user admin.")
