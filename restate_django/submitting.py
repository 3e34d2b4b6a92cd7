"""A row's requests: what every attempt of it sends, and how Restate is asked about it by its target.

HTTP only, so threads may run it: no ORM. Imports the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from django.utils import timezone

from restate_django.client import Output, Sending, Target
from restate_django.conf import get_settings
from restate_django.exceptions import NotSupported, WorkflowKeyRefused
from restate_django.reporting import report_headers

if TYPE_CHECKING:
    from restate_django.client import SendReceipt
    from restate_django.connections import Connection
    from restate_django.models import Invocation


def submit(connection: Connection, row: Invocation, *, keyed: bool, timeout: float | None = None) -> SendReceipt:
    """Send a row through the ingress, as every attempt does.

    Args:
        connection: The row's connection.
        row: The row.
        keyed: False only for a workflow's main handler, whose own key stands in for the idempotency key.
        timeout: Seconds at most; the connection's by default.
    """
    sending = sending_of(row, keyed=keyed)
    return connection.ingress.send(
        sending.target,
        payload=sending.payload,
        delay=sending.delay,
        headers=sending.headers,
        timeout=timeout,
        repeatable=remembers(connection, row),
    )


def submit_as_it_takes(
    connection: Connection, row: Invocation, *, keyed: bool, timeout: float | None = None
) -> tuple[SendReceipt, bool]:
    """Send a row as :func:`submit` does, without its idempotency key where only the refusal tells that it takes none.

    Returns:
        The receipt, and whether it was sent with the key.
    """
    if keyed:
        try:
            receipt = submit(connection, row, keyed=True, timeout=timeout)
        except WorkflowKeyRefused:
            connection.services.remember_workflow_main(row.service, row.handler)
        else:
            if row.key:
                connection.services.remember_keyed(row.service, row.handler)
            return receipt, True
    return submit(connection, row, keyed=False, timeout=timeout), False


def sending_of(row: Invocation, *, keyed: bool) -> Sending:
    """Return what every attempt of a row sends; a delay is what is left of it now."""
    delay = None
    if row.run_at is not None:
        delay = max(row.run_at - timezone.now(), dt.timedelta(0)) or None
    # Checked when it was recorded: a whole target is not checked again for each attempt.
    target = Target(
        row.service,
        row.handler,
        key=row.key or None,
        scope=row.scope or None,
        limit_key=row.limit_key or None,
        idempotency_key=row.idempotency_key if keyed else None,
    )
    return Sending(target, row.encoded_payload, delay, report_headers(row, get_settings(row.connection)) or None)


def remembers(connection: Connection, row: Invocation) -> bool:
    """Tell whether Restate remembers the row's key at all, so that a dead connection may be tried twice."""
    retention = connection.services.idempotency_retention(row.service, row.handler)
    return retention > dt.timedelta(0) and connection.services.knows_retention(row.service)


def is_workflow_main(connection: Connection, row: Invocation) -> bool:
    """Tell whether the row's target is a workflow's main handler, as far as that can be known. May ask the server."""
    return bool(row.key) and connection.services.is_workflow_main(row.service, row.handler) is True


def target_of(connection: Connection, row: Invocation) -> Target:
    """Return the target under which Restate knows the row's invocation before its id is known."""
    scope = row.scope or None
    if is_workflow_main(connection, row):
        return Target.workflow(row.service, row.key, scope=scope, handler=row.handler)
    return Target.idempotent(row.service, row.handler, row.idempotency_key, key=row.key or None, scope=scope)


def read_by_target(connection: Connection, row: Invocation, timeout: float | None = None) -> Output:
    """Read what Restate knows of a row by its target. Never waits, never starts anything."""
    return connection.ingress.output(target=target_of(connection, row), timeout=timeout)


def invocation_id_of(connection: Connection, row: Invocation, output: Output, timeout: float | None = None) -> str:
    """Return the invocation id of a row that Restate has just been seen to know.

    Args:
        connection: The row's connection.
        row: The row.
        output: What was read by its target, in any state but UNKNOWN.
        timeout: Seconds at most for a further request.
    """
    if output.invocation_id:
        return output.invocation_id
    try:
        return connection.ingress.lookup(target_of(connection, row), timeout=timeout)
    except NotSupported:
        # Before 1.7 the id is told by sending again: known under this key, it is answered and not run.
        keyed = not is_workflow_main(connection, row)
        return submit(connection, row, keyed=keyed, timeout=timeout).invocation_id
