"""Rows in every status, made without a server: what the pages show does not depend on who wrote it."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid

from django.utils import timezone

from restate_django.ids import uuid7_floor
from restate_django.lifecycle import ENDED, FINISHED, IN_RESTATE, Status
from restate_django.models import Invocation

#: Rows of one moment have keys of their own.
_numbers = itertools.count(1)


def build_row(status="succeeded", *, age=60.0, **columns):
    """Build a row that was recorded ``age`` seconds ago and looks as one in this status does."""
    status = Status(status)
    recorded = timezone.now() - dt.timedelta(seconds=age)
    pk = uuid.UUID(int=uuid7_floor(recorded).int + next(_numbers))
    values = {
        "pk": pk,
        "created_at": recorded,
        "status": status,
        "service": "Greeter",
        "handler": "greet",
        "payload_bytes": b'{"name": "Mary"}',
        "content_type": "application/json",
        "idempotency_key": pk.hex,
    }
    if status in IN_RESTATE | ENDED:
        values |= {"invocation_id": f"inv_1{pk.hex}", "accepted_at": recorded, "attempts": 1}
    if status in ENDED:
        values |= {"started_at": recorded, "finished_at": recorded + dt.timedelta(seconds=2)}
    if status in FINISHED:
        values |= {"recorded_at": recorded + dt.timedelta(seconds=3)}
    if status == Status.SUCCEEDED:
        values |= {
            "has_output": True,
            "output": "Hello, Mary!",
            "output_content_type": "application/json",
            "output_size": 14,
        }
    return Invocation(**values | columns)


def make_row(status="succeeded", **columns):
    """Save such a row."""
    row = build_row(status, **columns)
    row.save(force_insert=True)
    return row
