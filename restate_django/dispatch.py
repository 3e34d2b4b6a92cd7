"""``send``, ``call``, ``send_many`` and their async twins: from a view to a row, and from the row's commit to Restate.

A request that could never be served is refused before anything is written. The row is written in the caller's own
transaction; nothing is sent before it is committed. Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import sync_to_async
from celery import current_app
from django.db import models, transaction
from django.utils import timezone

from restate_django import delivery, measuring, outbox, payload_schemas, transactions, waiting
from restate_django.broker import publish
from restate_django.calling import calling
from restate_django.client import NO_PAYLOAD
from restate_django.conf import get_settings
from restate_django.exceptions import InvalidRequest
from restate_django.logs import get_logger
from restate_django.measuring import Kind
from restate_django.models import Invocation
from restate_django.outgoing import (
    Outgoing,
    build,
    carry_trace,
    check_payloads,
    commits_are_seen,
    database_for,
    target_of,
)
from restate_django.workers import is_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from restate_django.conf import ConnectionSettings

# With DELIVERY "celery": rows up to which each has a task of its own; more are swept up by one.
_MOST_TASKS: Final = 20
# Primary keys in one statement.
_MOST_AT_ONCE: Final = 500

__all__ = ["Outgoing", "acall", "asend", "call", "send", "send_many"]

logger = get_logger("restate_django.dispatch")

# ---------------------------------------------------------------- the public verbs


def send(
    service: Any,
    handler: Any = NO_PAYLOAD,
    payload: Any = NO_PAYLOAD,
    *,
    key: str | None = None,
    delay: dt.timedelta | None = None,
    eta: dt.datetime | None = None,
    idempotency_key: str | None = None,
    requested_by: Any = None,
    related_to: models.Model | None = None,
    headers: Mapping[str, str] | None = None,
    content_type: str | None = None,
    scope: str | None = None,
    limit_key: str | None = None,
    connection: str = "default",
    using: str | None = None,
) -> Invocation:
    """Hand an invocation to Restate: recorded now, in the caller's transaction; sent once that is committed.

    Args:
        service: A service's, virtual object's or workflow's name, or the official SDK's object for it. A handler
            function that the SDK has decorated names service and handler in one.
        handler: The handler's name. After a handler function this is the payload: ``send(greet, {"name": "Mary"})``.
        payload: What the handler takes: anything that ``DjangoJSONEncoder`` encodes (None is JSON ``null``), ``bytes``
            with a ``content_type``, or ``NO_PAYLOAD`` for a handler without input.
        key: The key of a virtual object or workflow.
        delay: How long Restate is to wait before it runs.
        eta: The aware moment at which it is to run, instead of a delay.
        idempotency_key: 1 to 255 visible ASCII characters that make it one invocation however often it is asked for.
        requested_by: The user who asked; an anonymous one is recorded as nobody.
        related_to: A saved object that it is about; found again by ``Invocation.objects.for_object(obj)``.
        headers: Headers for the handler. They are stored: put no secret here.
        content_type: The payload's type; JSON unless the payload is ``bytes``.
        scope: The scope it runs in.
        limit_key: The limit key within the scope, of at most two levels (``free/user42``).
        connection: The alias in ``RESTATE``.
        using: The database alias whose transaction the caller is in; the router's for writing by default.

    Returns:
        The saved row. Outside a transaction it is already ``accepted`` when Restate could be reached. With an
        idempotency key that a row for the same target has, that row, with ``created`` False.

    Raises:
        InvalidRequest: It could never be served. Nothing was written. With ``VALIDATE_PAYLOADS`` it is a
            ``PayloadInvalid`` for a payload that does not fit the handler's JSON schema.
        IdempotencyConflict: The key is bound to another payload.
    """
    outgoing = Outgoing(
        service,
        handler,
        payload,
        key=key,
        delay=delay,
        eta=eta,
        idempotency_key=idempotency_key,
        requested_by=requested_by,
        related_to=related_to,
        headers=headers,
        content_type=content_type,
        scope=scope,
        limit_key=limit_key,
    )
    settings = get_settings(connection)
    alias = database_for(settings, using)
    row = build(outgoing, settings, Invocation.Verb.SEND, alias)
    check_payloads([row], settings, alias)
    with measuring.work(Kind.SEND, connection, [row]) as work:
        carry_trace([row], work, settings)
        leased = _lease_for_delivery([row], settings, alias, uuid.uuid4())
        recorded = outbox.record(row, alias)
        if recorded is row:
            outbox.measure_sends([row], alias)
            _deliver_after_commit([row], settings, alias, leased=leased)
    return recorded


def send_many(
    outgoing: Iterable[Outgoing],
    *,
    batch_size: int = 1000,
    progress: Callable[[int, int | None], None] | None = None,
    connection: str = "default",
    using: str | None = None,
) -> list[Invocation]:
    """Hand many invocations to Restate, recorded in one transaction: all of them, or none.

    Args:
        outgoing: What to send; an iterator is read batch by batch.
        batch_size: Rows per INSERT.
        progress: Called after each batch with the number recorded so far and the total (None when unknown).
        connection: The alias in ``RESTATE``.
        using: The database alias whose transaction the caller is in; the router's for writing by default.

    Returns:
        A row for each, in order. One whose idempotency key a row has already is that row, with ``created`` False.

    Raises:
        InvalidRequest: One of them could never be served. None was written. (With ``VALIDATE_PAYLOADS`` the schemas
            that a list needs are read first; what an iterator names is checked by those that are known.)
        IdempotencyConflict: A key is bound to another payload. None was written.
    """
    if batch_size < 1:
        raise InvalidRequest(f"batch_size must be at least 1, not {batch_size!r}.")
    settings = get_settings(connection)
    alias = database_for(settings, using)
    total = len(outgoing) if isinstance(outgoing, Sized) else None
    recorded: list[Invocation] = []
    new: list[Invocation] = []
    leased = False
    token = uuid.uuid4()
    if settings.validate_payloads and isinstance(outgoing, list | tuple) and not is_inside_transaction(alias):
        # Within the transaction below nothing is asked for any more.
        payload_schemas.learn(settings.alias, *{target_of(item)[0] for item in outgoing})
    with measuring.work(Kind.SEND, connection, size=total or 0) as work, transaction.atomic(using=alias):
        items = iter(outgoing)
        while batch := list(islice(items, batch_size)):
            rows = [build(item, settings, Invocation.Verb.SEND, alias) for item in batch]
            check_payloads(rows, settings, alias)
            carry_trace(rows, work, settings)
            leased = _lease_for_delivery(rows, settings, alias, token)
            kept = outbox.record_batch(rows, alias)
            new += [row for row, result in zip(rows, kept, strict=True) if row is result]
            recorded += kept
            if progress is not None:
                progress(len(recorded), total)
        work.size = len(recorded)
        outbox.measure_sends(new, alias)
        _deliver_after_commit(new, settings, alias, leased=leased)
    return recorded


def call(
    service: Any,
    handler: Any = NO_PAYLOAD,
    payload: Any = NO_PAYLOAD,
    *,
    timeout: float | None = None,
    key: str | None = None,
    idempotency_key: str | None = None,
    requested_by: Any = None,
    related_to: models.Model | None = None,
    headers: Mapping[str, str] | None = None,
    content_type: str | None = None,
    scope: str | None = None,
    limit_key: str | None = None,
    connection: str = "default",
    using: str | None = None,
    **refused: Any,
) -> Any:
    """Invoke a handler and wait for its output. The row is recorded first and carries the outcome afterwards.

    Inside a transaction the network is waited for with its locks held, and a roll-back takes the row away although the
    handler ran: promises 1 and 4 don't hold there. Call outside one, or use :func:`send`.

    Args:
        service: As for :func:`send`.
        handler: As for :func:`send`.
        payload: As for :func:`send`.
        timeout: Seconds to wait for the output; the connection's ``CALL_TIMEOUT`` by default.
        key: As for :func:`send`.
        idempotency_key: As for :func:`send`. A call with a key that a row has already waits for that row's outcome.
        requested_by: As for :func:`send`.
        related_to: As for :func:`send`.
        headers: As for :func:`send`.
        content_type: As for :func:`send`.
        scope: As for :func:`send`.
        limit_key: As for :func:`send`.
        connection: As for :func:`send`.
        using: As for :func:`send`.
        refused: Nothing else is taken; ``delay`` and ``eta`` are refused with a reason.

    Returns:
        The decoded output.

    Raises:
        InvalidRequest: It could never be served. Nothing was written.
        IdempotencyConflict: The key is bound to another payload.
        InvocationFailed: The handler's terminal error.
        CallTimeout: Waiting ended first. The invocation goes on, and its row is polled like any other.
        Unavailable: Nothing ran. The row ends ``rejected``.
        Refused: The server refused the request: nothing ran. The row ends ``rejected``.
        OutcomeUnknown: It may have run. The row is resolved by reading alone.
    """
    _refuse_for_call(refused)
    outgoing = Outgoing(
        service,
        handler,
        payload,
        key=key,
        idempotency_key=idempotency_key,
        requested_by=requested_by,
        related_to=related_to,
        headers=headers,
        content_type=content_type,
        scope=scope,
        limit_key=limit_key,
    )
    return waiting.drive(calling(outgoing, timeout, connection, using))


async def asend(*args: Any, **kwargs: Any) -> Invocation:
    """Do what :func:`send` does, from a coroutine."""
    return await sync_to_async(send)(*args, **kwargs)


async def acall(
    service: Any,
    handler: Any = NO_PAYLOAD,
    payload: Any = NO_PAYLOAD,
    *,
    timeout: float | None = None,
    key: str | None = None,
    idempotency_key: str | None = None,
    requested_by: Any = None,
    related_to: models.Model | None = None,
    headers: Mapping[str, str] | None = None,
    content_type: str | None = None,
    scope: str | None = None,
    limit_key: str | None = None,
    connection: str = "default",
    using: str | None = None,
    **refused: Any,
) -> Any:
    """Do what :func:`call` does, from a coroutine: no thread waits for the output.

    It sends, and then waits as ``aattach`` does. A service that remembers nothing (an idempotency retention of 0) is
    called in one request: without httpx (the extra ``async``) a thread waits for that one.
    """
    _refuse_for_call(refused)
    outgoing = Outgoing(
        service,
        handler,
        payload,
        key=key,
        idempotency_key=idempotency_key,
        requested_by=requested_by,
        related_to=related_to,
        headers=headers,
        content_type=content_type,
        scope=scope,
        limit_key=limit_key,
    )
    return await waiting.adrive(calling(outgoing, timeout, connection, using, apart=True))


def _refuse_for_call(given: dict[str, Any]) -> None:
    """Refuse what a call does not take."""
    for name in ("delay", "eta"):
        if given.pop(name, None) is not None:
            raise InvalidRequest(f"call() takes no {name}: it waits for the output. Use send({name}=...).")
    if given:
        raise TypeError(f"call() got an unexpected keyword argument {next(iter(given))!r}")


# ---------------------------------------------------------------- from arguments to a row


# ---------------------------------------------------------------- recording


def _lease_for_delivery(rows: list[Invocation], settings: ConnectionSettings, using: str, token: uuid.UUID) -> bool:
    """Prepare rows for the way in which the connection delivers. Tells whether this process is to send them."""
    if settings.delivery == "on_commit" and commits_are_seen(using):
        outbox.lease_rows(rows, settings.lease, token)
        return True
    # A task needs a moment to arrive; should it never, the relay takes the row then.
    wait = settings.lease if settings.delivery == "celery" else dt.timedelta(0)
    due = timezone.now() + wait
    for row in rows:
        row.next_attempt_at = due
    return False


# ---------------------------------------------------------------- what is told of it


# ---------------------------------------------------------------- after the commit


def _deliver_after_commit(rows: list[Invocation], settings: ConnectionSettings, using: str, *, leased: bool) -> None:
    if not rows:
        return
    # Functions and no partials: Django names a robust callback by its __qualname__ when it logs an error.
    if leased:
        deliver = transactions.named(lambda: delivery.deliver_leased(rows, using), rows[0].transaction_id)
        transaction.on_commit(deliver, using=using, robust=True)
    elif settings.delivery == "celery" and commits_are_seen(using):
        enqueue = transactions.named(lambda: _enqueue(rows, using), rows[0].transaction_id)
        transaction.on_commit(enqueue, using=using, robust=True)


def _enqueue(rows: list[Invocation], using: str) -> None:
    """Give the rows to Celery workers; without a broker, or when there are many, the relay's sweep has them."""
    pks = [row.pk for row in rows]
    if current_app.conf.task_always_eager:
        delivery.deliver_now(pks, using)
        return
    many = len(rows) > _MOST_TASKS
    one_each = [("restate_django.send_one", [str(pk), using]) for pk in pks]
    if publish([("restate_django.deliver", [])] if many else one_each) and not many:
        return
    for start in range(0, len(pks), _MOST_AT_ONCE):
        some = pks[start : start + _MOST_AT_ONCE]
        waiting = Invocation.objects.using(using).filter(pk__in=some, status=Invocation.Status.UNSENT, attempts=0)
        waiting.update(next_attempt_at=timezone.now())


# ---------------------------------------------------------------- a call
