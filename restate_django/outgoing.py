"""From the arguments of ``send`` and ``call`` to a row that could be served, or to a refusal that names the value.

Imports the connections and the records, and the floors below.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import models, router, transaction
from django.utils import timezone
from django.utils.functional import LazyObject, empty

from restate_django import measuring, payload_schemas, recording, transactions
from restate_django.client import NO_PAYLOAD, Target, encode_payload, resolve_target
from restate_django.client.targets import arguments, validate_delay, validate_headers, validate_target
from restate_django.dedupe import bound_digest
from restate_django.exceptions import InvalidRequest
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.workers import is_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from restate_django.conf import ConnectionSettings

logger = get_logger("restate_django.dispatch")

_RELATED_ID_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One invocation of a ``send_many``. The arguments are those of :func:`send`."""

    service: Any
    handler: Any = NO_PAYLOAD
    payload: Any = NO_PAYLOAD
    key: str | None = field(default=None, kw_only=True)
    delay: dt.timedelta | None = field(default=None, kw_only=True)
    eta: dt.datetime | None = field(default=None, kw_only=True)
    idempotency_key: str | None = field(default=None, kw_only=True)
    requested_by: Any = field(default=None, kw_only=True)
    related_to: models.Model | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    content_type: str | None = field(default=None, kw_only=True)
    scope: str | None = field(default=None, kw_only=True)
    limit_key: str | None = field(default=None, kw_only=True)


def database_for(settings: ConnectionSettings, using: str | None) -> str:
    """Return the database alias that a row is written to, or refuse one that the connection's jobs never see."""
    alias = using or router.db_for_write(Invocation)
    if alias not in settings.databases:
        raise InvalidRequest(
            f"The database {alias!r} is not swept by the jobs of the connection {settings.alias!r}: a row there would "
            f'wait for ever. Add it to RESTATE["{settings.alias}"]["DATABASES"], which has {list(settings.databases)}.'
        )
    return alias


def build(outgoing: Outgoing, settings: ConnectionSettings, verb: Invocation.Verb, using: str) -> Invocation:
    """Make the row, or refuse it by a message that names the value."""
    service, handler, payload = target_of(outgoing)
    target = validate_target(
        service,
        handler,
        key=outgoing.key,
        scope=outgoing.scope,
        limit_key=outgoing.limit_key,
        idempotency_key=outgoing.idempotency_key,
    )
    encoded = encode_payload(payload, outgoing.content_type)
    if encoded.body is not None and len(encoded.body) > settings.max_payload_size:
        raise InvalidRequest(
            f"The payload for {target} has {len(encoded.body):,} bytes; MAX_PAYLOAD_SIZE allows "
            f"{settings.max_payload_size:,}. Send a reference to it instead, or raise the limit."
        )
    row = Invocation(
        connection=settings.alias,
        scope=target.scope or "",
        limit_key=target.limit_key or "",
        service=target.service,
        key=target.key or "",
        handler=target.handler,
        verb=verb,
        payload=recording.payload_copy(encoded.body, encoded.content_type),
        payload_bytes=encoded.body,
        payload_digest=encoded.digest,
        content_type=encoded.content_type,
        headers=_headers(outgoing, settings),
        run_at=_run_at(outgoing, settings),
        **_asker(outgoing.requested_by, using),
        transaction_id=transactions.current(using),
        **_related(outgoing.related_to, using),
    )
    row.idempotency_key = target.idempotency_key or row.pk.hex
    if target.idempotency_key is not None:
        row.dedupe_digest = bound_digest(row, idempotency_key=target.idempotency_key)
    return row


def target_of(outgoing: Outgoing) -> tuple[str, str, Any]:
    """Return the names of service and handler, and the payload."""
    if not isinstance(outgoing, Outgoing):
        raise InvalidRequest(f"send_many() takes Outgoing objects, not {type(outgoing).__name__}.")
    service, handler, payload = arguments(outgoing.service, outgoing.handler, outgoing.payload)
    return *resolve_target(service, handler), payload


def check_payloads(rows: list[Invocation], settings: ConnectionSettings, using: str) -> None:
    """Refuse a payload that is known not to fit its handler. See ``payload_schemas`` for what is known when."""
    if not settings.validate_payloads:
        return
    # A call waits for the network anyway, wherever it is made.
    inside = is_inside_transaction(using) and rows[0].verb != Invocation.Verb.CALL
    unknown: set[str] = set()
    for row in rows:
        target = Target(row.service, row.handler, row.key or None)
        if not payload_schemas.check(target, row.encoded_payload, settings.alias, network=not inside):
            unknown.add(row.service)
    if inside and unknown and commits_are_seen(using):
        transaction.on_commit(lambda: payload_schemas.learn(settings.alias, *unknown), using=using, robust=True)


def _run_at(outgoing: Outgoing, settings: ConnectionSettings) -> dt.datetime | None:
    delay, eta = outgoing.delay, outgoing.eta
    if delay is None and eta is None:
        return None
    if delay is not None and eta is not None:
        raise InvalidRequest("Give delay or eta, not both.")
    now = timezone.now()
    if eta is not None:
        if not isinstance(eta, dt.datetime) or timezone.is_naive(eta):
            raise InvalidRequest(f"eta must be an aware datetime, not {eta!r}.")
        if eta <= now:
            return None
        delay = eta - now
        if delay > settings.max_delay:
            raise InvalidRequest(f"eta {eta.isoformat()} is over the limit of {settings.max_delay} from now.")
    return now + validate_delay(delay, settings.max_delay)


def _user(user: Any) -> Any:
    if isinstance(user, LazyObject):
        # request.user: a foreign key takes the user behind it.
        if user._wrapped is empty:
            user._setup()
        user = user._wrapped
    if user is None or getattr(user, "is_anonymous", False):
        return None
    if not isinstance(user, get_user_model()):
        raise InvalidRequest(f"requested_by must be a user, not {type(user).__name__}.")
    if user.pk is None:
        raise InvalidRequest(f"requested_by must be a saved user, not the unsaved {user!r}.")
    return user


def _asker(given: Any, using: str) -> dict[str, Any]:
    """Return the columns of who asked: their number alone where they are kept in another database."""
    user = _user(given)
    if user is not None and user._state.db != using:
        return {"requested_by_id": user.pk}
    return {"requested_by": user}


def _headers(outgoing: Outgoing, settings: ConnectionSettings) -> dict[str, str]:
    headers = validate_headers(outgoing.headers)
    own = {name.lower() for name in settings.headers}
    for name in headers:
        if name.lower() in own:
            raise InvalidRequest(
                f'The header {name!r} is set by RESTATE["{settings.alias}"]["HEADERS"] for every request.'
            )
    return headers


def _related(obj: models.Model | None, using: str) -> dict[str, Any]:
    if obj is None:
        return {}
    if not isinstance(obj, models.Model):
        raise InvalidRequest(f"related_to must be a model instance, not {type(obj).__name__}.")
    if obj.pk is None or obj._state.adding:
        raise InvalidRequest(f"related_to must be saved first: this {obj._meta.label} is not in the database.")
    related_id = str(obj.pk)
    if len(related_id) > _RELATED_ID_LENGTH:
        raise InvalidRequest(f"related_to has a primary key of {len(related_id)} characters; 255 can be kept.")
    # A content type's number is its database's own. Given as a number: no router has to allow what no constraint holds.
    kind = ContentType.objects.db_manager(using).get_for_model(obj)
    return {"related_content_type_id": kind.pk, "related_id": related_id}


def commits_are_seen(using: str) -> bool:
    """With autocommit switched off and no atomic block, Django runs no on_commit callback: the relay delivers then."""
    database = transaction.get_connection(using)
    return bool(database.in_atomic_block or database.get_autocommit())


def carry_trace(rows: list[Invocation], work: measuring.Work, settings: ConnectionSettings) -> None:
    """Let the trace of this moment travel with the rows: whoever sends them may be another process.

    It is among the row's headers, so every attempt and a later ``resend`` carry the same. No digest counts headers.
    """
    if not (trace := work.headers()):
        return
    try:
        trace = validate_headers(trace)
    except InvalidRequest:
        logger.warning("The headers of a trace are left out: HTTP can't carry them", connection=settings.alias)
        return
    for row in rows:
        row.headers = measuring.with_headers(row.headers, trace, settings.headers)
