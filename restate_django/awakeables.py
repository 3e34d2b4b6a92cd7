"""Approvals: which awakeables an invocation waits for, and resolving or rejecting one in a person's name.

Restate takes the completion of any awakeable, also of one that is completed already or that nobody waits for, and
answers the same to all. So what it knows is asked for first, and a refusal is ours. Imports the records and the floors
below.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from restate_django.client import NO_PAYLOAD, encode_payload
from restate_django.client.awakeable_ids import FIRST_INDEX, index_in, make_awakeable_id
from restate_django.client.targets import validate_invocation_id
from restate_django.connections import connections
from restate_django.exceptions import (
    InvalidRequest,
    Misconfigured,
    NotSupported,
    OperationRefused,
    OutcomeUnknown,
    RestateError,
    Unavailable,
)
from restate_django.lifecycle import IN_RESTATE
from restate_django.models import Invocation
from restate_django.querysets import write_alias
from restate_django.workers import refuse_inside_transaction

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from restate_django.client import AdminClient
    from restate_django.connections import Connection

#: Seconds that each of the queries may take: somebody waits for the page.
TIMEOUT: Final = 3.0
# Two columns of it are not there before 1.7, and all of them are small.
_INVOCATION_SQL: Final = "SELECT * FROM sys_invocation WHERE id = '{id}'"
# A row for each signal that has come, and one for all the other steps.
_STEPS_SQL: Final = (
    "SELECT CASE WHEN entry_type = 'Notification: Signal' THEN entry_lite_json ELSE '' END AS signal,"
    " max(appended_at) AS appended_at FROM sys_journal WHERE id = '{id}' GROUP BY 1"
)


@dataclass(frozen=True, slots=True)
class Awakeable:
    """An awakeable that an invocation waits for.

    Attributes:
        id: Its id, as the handler knows it.
        since: The invocation's last step before it began to wait; None where Restate does not tell.
    """

    id: str
    since: dt.datetime | None = None


def pending(invocation: Invocation) -> list[Awakeable]:
    """Return the awakeables that an invocation waits for, oldest first. Two queries of the Admin API.

    Restate knows of them while the invocation is suspended, which comes after its service's inactivity timeout (a
    minute by default) without a step. Before that the list is empty.

    Args:
        invocation: The invocation.

    Raises:
        NotSupported: The connection has no Admin API.
        RestateError: Restate can't be asked now.
        ImproperlyConfigured: The connection is not in the settings.
    """
    if not invocation.invocation_id:
        return []
    known = _ask(connections[invocation.connection].require_admin("This"), invocation.invocation_id)
    return [
        Awakeable(make_awakeable_id(invocation.invocation_id, index), known.since(index))
        for index in sorted(known.waits_for - known.completed.keys())
    ]


def resolve(invocation: Invocation, awakeable_id: str, value: Any = NO_PAYLOAD) -> None:
    """Complete an awakeable: the handler goes on with the value.

    It need not be a pending one yet, as long as it is this invocation's. Of two who complete the same awakeable within
    the same moment, the first one counts, and Restate tells neither.

    Args:
        invocation: The invocation that it belongs to.
        awakeable_id: Its id.
        value: What the handler gets; see :func:`~restate_django.client.encode_payload`. Without one, it gets null.

    Raises:
        InvalidRequest: The value can't be sent.
        OperationRefused: It was not done, with the reason as a sentence.
        RuntimeError: A transaction is open.
    """
    encoded = encode_payload(value)

    def complete(connection: Connection) -> None:
        limit = connection.settings.max_payload_size
        if encoded.body is not None and len(encoded.body) > limit:
            text = _("The value has %(size)s bytes, which is over the limit (MAX_PAYLOAD_SIZE) of %(limit)s.")
            sizes = (number_format(size, force_grouping=True) for size in (len(encoded.body), limit))
            raise InvalidRequest(text % dict(zip(("size", "limit"), sizes, strict=True)))
        connection.ingress.resolve_awakeable(awakeable_id, encoded)

    _complete(invocation, awakeable_id, "resolve()", complete)


def reject(invocation: Invocation, awakeable_id: str, reason: str) -> None:
    """Complete an awakeable with a failure: the handler gets a terminal error where it waits.

    Args:
        invocation: The invocation that it belongs to.
        awakeable_id: Its id.
        reason: The error's message.

    Raises:
        OperationRefused: It was not done, with the reason as a sentence.
        RuntimeError: A transaction is open.
    """
    _complete(
        invocation,
        awakeable_id,
        "reject()",
        lambda connection: connection.ingress.reject_awakeable(awakeable_id, reason),
    )


def _complete(row: Invocation, awakeable_id: str, verb: str, complete: Callable[[Connection], None]) -> None:
    using = write_alias(row)
    refuse_inside_transaction(verb, using)
    try:
        connection = connections[row.connection]
        admin = connection.require_admin("This")
    except NotSupported as error:
        text = _('This needs the Admin API: set RESTATE["%(alias)s"]["ADMIN_URL"].') % {"alias": row.connection}
        raise OperationRefused(text, target=row.target) from error
    except ImproperlyConfigured as error:
        raise OperationRefused(str(error), target=row.target) from error
    _refuse_what_is_not_waited_for(row, awakeable_id, admin)
    try:
        complete(connection)
    except InvalidRequest:
        raise
    except RestateError as error:
        raise OperationRefused(_sentence(error), error.status, target=row.target) from error
    # It goes on now: let the jobs look.
    rows = Invocation.objects.using(using).filter(pk=row.pk, status__in=sorted(IN_RESTATE))
    rows.update(next_poll_at=timezone.now())


def _refuse_what_is_not_waited_for(row: Invocation, awakeable_id: str, admin: AdminClient) -> None:
    index = index_in(row.invocation_id, awakeable_id)
    if index is None:
        raise OperationRefused(_("This is no awakeable of this invocation."), target=row.target)
    try:
        known = _ask(admin, row.invocation_id)
    except RestateError as error:
        text = _("Restate can't be asked about it now (%(message)s).") % {"message": error}
        raise OperationRefused(text, error.status, target=row.target) from error
    if known.status is None:
        raise OperationRefused(_("Restate no longer knows the invocation."), target=row.target)
    if index in known.completed:
        raise OperationRefused(_("It was resolved or rejected already."), target=row.target)
    if known.status == "completed":
        raise OperationRefused(_("The invocation has ended: it waits for nothing."), target=row.target)


def _sentence(error: RestateError) -> str:
    """Say what came of a completion that was not taken."""
    if isinstance(error, OutcomeUnknown):
        text = _("Nobody knows whether Restate took it (%(message)s). Do it again: only the first one counts.")
    elif isinstance(error, Unavailable) and not isinstance(error, Misconfigured):
        text = _("Restate can't be reached now (%(message)s).")
    else:
        return str(error)
    return text % {"message": str(error).rstrip(".")}


# ---------------------------------------------------------------- what Restate knows


@dataclass(frozen=True, slots=True)
class _Known:
    """What Restate tells of an invocation's awakeables, by their numbers.

    Attributes:
        status: The invocation's status, None where Restate has none.
        waits_for: The awakeables that it was suspended for.
        completed: When those were completed that are.
        last_step: When its last step was that is no signal.
    """

    status: str | None
    waits_for: frozenset[int]
    completed: dict[int, dt.datetime | None]
    last_step: dt.datetime | None

    def since(self, index: int) -> dt.datetime | None:
        """When the last step was before an awakeable was waited for: later ones may have come while it was."""
        earlier = [moment for other, moment in self.completed.items() if other < index]
        return max((moment for moment in [self.last_step, *earlier] if moment is not None), default=None)


def _ask(admin: AdminClient, invocation_id: str) -> _Known:
    valid = validate_invocation_id(invocation_id)
    rows = admin.query(_INVOCATION_SQL.format(id=valid), timeout=TIMEOUT)
    if not rows:
        return _Known(None, frozenset(), {}, None)
    row = rows[0]
    found = row.get("suspended_waiting_for_signals")
    # What is combined with other waits is a tree with newer SDKs (service protocol 7), and the list lacks it.
    indices = {
        *(found if isinstance(found, list) else ()),
        *_signals_in(_json(row.get("suspended_waiting_future_json"))),
    }
    waits_for = frozenset(index for index in indices if isinstance(index, int) and index >= FIRST_INDEX)
    completed: dict[int, dt.datetime | None] = {}
    last_step = None
    for step in admin.query(_STEPS_SQL.format(id=valid), timeout=TIMEOUT):
        moment = _moment(step.get("appended_at"))
        if not step.get("signal"):
            last_step = moment
        for index in _signals_in(_json(step.get("signal"))):
            completed[index] = moment
    return _Known(str(row.get("status", "")), waits_for, completed, last_step)


def _signals_in(value: Any) -> set[int]:
    """The numbers of the signals anywhere in a value."""
    if isinstance(value, list):
        return {index for item in value for index in _signals_in(item)}
    if not isinstance(value, dict):
        return set()
    own = value.get("SignalIndex")
    return _signals_in(list(value.values())) | ({own} if isinstance(own, int) else set())


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) and text else None
    except (ValueError, RecursionError):
        return None


def _moment(text: Any) -> dt.datetime | None:
    return parse_datetime(text) if isinstance(text, str) else None
