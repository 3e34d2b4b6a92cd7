"""Many rows, made by the shortest way: invocations that the server knows, and tables that are full of others."""

from __future__ import annotations

import datetime as dt
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from restate_django.ids import uuid7
from tests.benchmarks.wire import BODY, DELAY_HOURS, PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from restate_django.models import Invocation


def columns() -> dict[str, Any]:
    """Return the columns that ``send`` fills in, as somebody would write them who makes the row without it."""
    from django.utils import timezone

    now = timezone.now()
    pk = uuid7()
    return {
        "pk": pk,
        "service": "Greeter",
        "handler": "greet",
        "payload": PAYLOAD,
        "payload_bytes": BODY,
        "payload_digest": sha256(BODY).hexdigest(),
        "content_type": "application/json",
        "idempotency_key": pk.hex,
        "run_at": now + dt.timedelta(hours=DELAY_HOURS),
        "attempts": 1,
        "unknown_since": now,
        "lease_token": uuid4(),
        "lease_until": now,
        "next_attempt_at": now,
    }


def plain_row() -> Invocation:
    """Make an unsaved row by the model alone."""
    from restate_django.models import Invocation

    return Invocation(**columns())


def _accepted_row() -> Invocation:
    """Make an unsaved row as it is when Restate has it: nothing is due, nobody holds it."""
    row = plain_row()
    row.next_attempt_at = row.lease_until = row.lease_token = row.unknown_since = None
    row.accepted_at = row.polled_at = row.created_at
    row.execution_at = row.run_at
    return row


def scheduled_rows(ids: list[str], using: str) -> None:
    """Record rows that Restate has accepted and that were polled once: open, scheduled, nothing due."""
    from django.db import connections

    from restate_django.models import Invocation

    def row(invocation_id: str) -> Invocation:
        made = _accepted_row()
        made.status, made.invocation_id = Invocation.Status.SCHEDULED, invocation_id
        return made

    first, *others = ids
    row(first).save(force_insert=True, using=using)
    if connections[using].vendor == "postgresql":
        _copy(
            using, first, {"invocation_id": "given"}, "unnest(%s::text[]) WITH ORDINALITY AS them (given, i)", [others]
        )
        return
    for batch in _batched(map(row, others)):
        Invocation.objects.using(using).bulk_create(batch)


def fill(using: str, count: int) -> None:
    """Add rows that are not due: nine in ten finished, the others open and to be asked about in some hours."""
    from django.db import connections

    from restate_django.models import Invocation

    if connections[using].vendor != "postgresql":
        for batch in _batched(map(_filler, range(count))):
            Invocation.objects.using(using).bulk_create(batch)
        return
    first = _filler(1)
    first.save(force_insert=True, using=using)
    made = {
        "invocation_id": "'inv_' || md5(i::text)",
        "status": "CASE WHEN i %% 10 = 0 THEN 'scheduled' WHEN i %% 97 = 3 THEN 'failed' ELSE 'succeeded' END",
        "service": "'Service' || i %% 20",
        "handler": "'handler' || i / 20 %% 3",
        "key": "'key-' || i %% 100",
        "next_poll_at": "CASE WHEN i %% 10 = 0 THEN now() + interval '5 hours' + i * interval '1 ms' END",
        "recorded_at": "CASE WHEN i %% 10 <> 0 THEN now() - i * interval '1 ms' END",
    }
    with connections[using].schema_editor() as editor:
        for index in Invocation._meta.indexes:
            editor.remove_index(Invocation, index)
    _copy(using, first.invocation_id, made, "generate_series(2, %s) AS them (i)", [count])
    with connections[using].schema_editor() as editor:
        for index in Invocation._meta.indexes:
            editor.add_index(Invocation, index)


def _copy(using: str, invocation_id: str, made: dict[str, str], source: str, params: list[Any]) -> None:
    """Let PostgreSQL itself copy a row: a million of them by INSERT would take longer than all that is measured.

    Args:
        using: The database alias.
        invocation_id: Of the row to copy.
        made: Columns that differ, as SQL over a number ``i``.
        source: What ``i`` comes from, as SQL.
        params: Its parameters.
    """
    from django.db import connections

    from restate_django.models import Invocation

    connection = connections[using]
    quote = connection.ops.quote_name
    table = quote(Invocation._meta.db_table)
    names = [field.column for field in Invocation._meta.concrete_fields]
    # As version 7 has them: in the order in which they are made.
    made = {
        "id": "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + i), 12, '0') || '7' || "
        "substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid",
        "idempotency_key": "md5(i::text)",
        **made,
    }
    copied = ", ".join(made.get(name, f"template.{quote(name)}") for name in names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(map(quote, names))}) "
            f"SELECT {copied} FROM {table} AS template, {source} WHERE template.invocation_id = %s",
            [*params, invocation_id],
        )


def _filler(number: int) -> Invocation:
    from restate_django.models import Invocation

    row = _accepted_row()
    row.invocation_id = f"inv_{row.pk.hex}"
    row.service, row.handler, row.key = f"Service{number % 20}", f"handler{number // 20 % 3}", f"key-{number % 100}"
    if number % 10 == 0:
        row.status = Invocation.Status.SCHEDULED
        row.next_poll_at = row.created_at + dt.timedelta(hours=5, milliseconds=number)
        return row
    row.status, row.has_output, row.output = Invocation.Status.SUCCEEDED, True, "Hello, Mary!"
    if number % 97 == 3:
        row.status = Invocation.Status.FAILED
    row.output_content_type, row.output_size = "application/json", 14
    row.finished_at = row.recorded_at = row.created_at - dt.timedelta(milliseconds=number)
    return row


def _batched(rows: Iterable[Invocation]) -> Iterator[list[Invocation]]:
    """Yield lists of rows, so that a million of them are never in memory at once."""
    iterator = iter(rows)
    while batch := list(islice(iterator, 1000)):
        yield batch
