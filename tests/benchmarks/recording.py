"""Recording alone: ``send_many`` inside a transaction, with nothing sent by this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks import peers
from tests.benchmarks.lab import rate
from tests.benchmarks.rows import plain_row
from tests.benchmarks.sending import outgoing
from tests.benchmarks.tables import Goal, Line

if TYPE_CHECKING:
    from tests.benchmarks.lab import Lab


def record(lab: Lab) -> list[Line]:
    """Rows per second, against Django's own bulk insert and what else would record a piece of work."""
    from django.db import transaction
    from django.test import override_settings

    from restate_django import send_many
    from restate_django.models import Invocation

    vendor = lab.database()
    count = lab.size(10_000, at_least=100)

    def ours() -> float:
        lab.empty()

        def job() -> None:
            with transaction.atomic():
                send_many(outgoing(count))

        return rate(count, job)

    def bulk_create() -> float:
        lab.empty()

        def job() -> None:
            with transaction.atomic():
                Invocation.objects.bulk_create([plain_row() for _ in range(count)], batch_size=1000)

        return rate(count, job)

    with override_settings(RESTATE={"default": {"DELIVERY": "relay"}}):
        figures = lab.rounds_of(
            "record",
            {
                "bulk_create": bulk_create,
                "send_many": ours,
                "django-tasks-db": lambda: peers.django_tasks_db(lab.size(1000)),
                "Celery": lambda: peers.celery_delay(lab.size(1000)),
            },
        )
    lab.empty()
    lines = {
        "bulk_create": ("bulk_create of the same rows", 2.0 if vendor == "postgresql" else 1.0),
        "django-tasks-db": ("django-tasks-db, enqueue()", 1.0),
        "Celery": ("Celery on Redis, delay()", 1.0),
    }
    return [
        Line(
            "record",
            f"send_many of {count:,} inside a transaction, recorded only",
            unit="/s",
            against=against,
            goal=Goal(bound),
            **figures.against("send_many", name),
        )
        for name, (against, bound) in lines.items()
    ]
