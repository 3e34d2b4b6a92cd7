"""The outbox: how a row gets into the table, under its key, once.

It is written in the caller's own transaction, with the lease of its first attempt where this process sends it. Imports
the records and the floors below.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.utils import timezone

from restate_django import measuring
from restate_django.connections import connections
from restate_django.dedupe import bound_digest
from restate_django.exceptions import IdempotencyConflict
from restate_django.inserting import insert_many
from restate_django.models import Invocation
from restate_django.querysets import after_commit
from restate_django.statements import insert

if TYPE_CHECKING:
    import datetime as dt
    import uuid
    from collections.abc import Iterable

    from restate_django.querysets import InvocationQuerySet


def lease_rows(rows: Iterable[Invocation], lease: dt.timedelta, token: uuid.UUID) -> None:
    """Let the INSERT be the claim of the first attempt: nobody else takes the row while this process lives."""
    now = timezone.now()
    for row in rows:
        row.attempts = 1
        row.unknown_since = now
        row.lease_token = token
        row.lease_until = row.next_attempt_at = now + lease


def _digests(row: Invocation) -> list[str]:
    """Return the digests under which a row may be bound already, and set the one under which this row binds."""
    digests = [row.dedupe_digest] if row.dedupe_digest is not None else []
    if not row.key:
        return digests
    # No network here: this runs in the caller's transaction. What is not known now, the first delivery writes down.
    known = connections[row.connection].services.is_workflow_main(row.service, row.handler, network=False)
    if known is not False:
        workflow = bound_digest(row, idempotency_key=None)
        digests.append(workflow)
        if known:
            row.dedupe_digest = workflow
    return digests


def record(row: Invocation, using: str) -> Invocation:
    """Write the row, or return the one that holds its key."""
    digests = _digests(row)
    if not digests:
        insert(row, using)
        return row
    rows = Invocation.objects.using(using)
    conflict = IntegrityError()
    for _attempt in range(3):
        if (holder := _holder(rows, digests)) is not None:
            return _bound(holder, row)
        try:
            with transaction.atomic(using=using):
                insert(row, using)
        except IntegrityError as error:
            conflict = error
            # Somebody was faster. A plain read sees that row, but for REPEATABLE READ, where only a locking one does;
            # locking at once would deadlock three that want the same key on InnoDB, which keeps the INSERTs' locks.
            holder = _holder(rows, digests)
            if holder is None:
                with transaction.atomic(using=using):
                    holder = _holder(rows.select_for_update(), digests)
            if holder is not None:
                return _bound(holder, row)
            row._state.adding = True
        else:
            return row
    # No row holds the key: it was something else that the database refused.
    raise conflict


def record_batch(rows: list[Invocation], using: str) -> list[Invocation]:
    """Write rows by one INSERT; those whose key is bound already are replaced by the row that holds it."""
    digests = {row.pk: _digests(row) for row in rows}
    keyed = {digest for found in digests.values() for digest in found}
    holders: dict[str, Invocation] = {}
    if keyed:
        found = Invocation.objects.using(using).filter(dedupe_digest__in=sorted(keyed))
        holders = {str(holder.dedupe_digest): holder for holder in found}
    kept: list[Invocation] = []
    for row in rows:
        holder = next((holders[digest] for digest in digests[row.pk] if digest in holders), None)
        if holder is not None:
            kept.append(_bound(holder, row))
            continue
        kept.append(row)
        if row.dedupe_digest is not None:
            # The same key twice in one batch is one invocation too.
            holders[row.dedupe_digest] = row
    new = [row for row, result in zip(rows, kept, strict=True) if row is result]
    try:
        with transaction.atomic(using=using):
            insert_many(new, using)
    except IntegrityError:
        if not keyed:
            raise
        # A key of this batch was taken by somebody else meanwhile: one by one, each in its savepoint.
        for row in new:
            row._state.adding = True
        written = {row.pk: record(row, using) for row in new}
        kept = [written.get(row.pk, row) for row in kept]
    return kept


def _holder(rows: InvocationQuerySet, digests: list[str]) -> Invocation | None:
    # One by one and unordered: for an IN, or for the default order, an analysed SQLite takes the index of a column that
    # is mostly null for useless, and walks the table.
    found = (holder for digest in digests for holder in rows.filter(dedupe_digest=digest).order_by()[:1])
    return next(found, None)


def _bound(holder: Invocation, row: Invocation) -> Invocation:
    """Return the row that holds the key, if it was asked for the same thing."""
    if holder.payload_digest != row.payload_digest:
        raise IdempotencyConflict(
            f"The key {holder.idempotency_key if not holder.key else holder.key!r} of {holder.target} is bound to "
            f"invocation {holder.pk}, which has another payload. Use another key, or send the same payload.",
            invocation=holder,
        )
    if holder is not row and holder._state.adding is False:
        holder.created = False
    return holder


def bind_again(row: Invocation, using: str) -> None:
    """Let a key that was taken for free bind its row again, if no other row has taken it meanwhile."""
    if row.dedupe_digest is None and row.idempotency_key != row.pk.hex:
        _bind(row, bound_digest(row, idempotency_key=row.idempotency_key), using)


def bind_workflow_key(row: Invocation, using: str) -> None:
    """Let a workflow's key bind its main handler, where that was not known when the row was recorded."""
    digest = bound_digest(row, idempotency_key=None)
    if row.dedupe_digest != digest:
        # Another row may hold the key: this one was PreviouslyAccepted.
        _bind(row, digest, using)


def _bind(row: Invocation, digest: str, using: str) -> None:
    """Let a row hold a key, unless another one does."""
    try:
        with transaction.atomic(using=using):
            Invocation.objects.using(using).filter(pk=row.pk).update(dedupe_digest=digest)
    except IntegrityError:
        return
    row.dedupe_digest = digest


def measure_sends(rows: list[Invocation], using: str) -> None:
    """Count rows that were recorded, when that is committed."""
    if not measuring.is_on():
        return

    def count() -> None:
        targets = Counter((row.connection, row.service, row.handler, row.verb) for row in rows)
        for (connection, service, handler, verb), number in targets.items():
            target = {"connection": connection, "service": service, "handler": handler}
            measuring.add(measuring.SENDS, number, **target, verb=verb)

    after_commit(count, using)
