"""What became of a workflow, asked by its name and key: ``attach`` waits for its output, ``output`` reads it now.

No row is needed, so a workflow that somebody else has sent can be asked about; where a row of ours holds the key, it
knows more than Restate does: that it is still unsent, and what the output was after Restate has forgotten it. Imports
the verbs beside it, the records and the floors below. Both talk to Restate: not for the inside of a transaction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.db import router

from restate_django import attaching
from restate_django.client import Output, OutputState, Target, encode_payload
from restate_django.client.transport import checked_seconds
from restate_django.conf import get_settings
from restate_django.connections import connections
from restate_django.dedupe import bound_digest
from restate_django.exceptions import CallTimeout, InvalidRequest, InvocationFailed, NotFound, RequestTimeout
from restate_django.lifecycle import Status
from restate_django.models import Invocation

if TYPE_CHECKING:
    from restate_django.conf import ConnectionSettings


def attach(
    service: str,
    key: str,
    handler: str = "run",
    *,
    timeout: float | None = None,
    scope: str | None = None,
    connection: str = "default",
    using: str | None = None,
) -> Any:
    """Wait for a workflow's end and return its main handler's output.

    Args:
        service: The workflow's name.
        key: Its key.
        handler: Its main handler.
        timeout: Seconds to wait at most; the connection's ``CALL_TIMEOUT`` by default.
        scope: The scope it was sent in.
        connection: The alias in ``RESTATE``.
        using: The database alias to look for its row in; the router's for writing by default.

    Returns:
        The decoded output.

    Raises:
        InvalidRequest: The handler is not the workflow's main one.
        InvocationFailed: It ended in a failure.
        CallTimeout: Waiting ended first. The workflow goes on.
        NotFound: Restate does not know it, and no row here does.
        OperationRefused: There is a row, and nothing to wait for: it was rejected, say.
        RequestError: Restate can't be read now.
    """
    target, settings = _main(service, key, handler, scope, connection)
    deadline = time.monotonic() + (settings.call_timeout if timeout is None else checked_seconds("timeout", timeout))
    row = _holder(target, connection, using)
    if row is None:
        # What is ready already is still read when there is no time to wait.
        left = max(0.05, deadline - time.monotonic())
        try:
            return connections[connection].ingress.attach(target=target, timeout=left).result()
        except RequestTimeout as error:
            raise CallTimeout("Waiting ended before the workflow did. It goes on.", target=str(target)) from error
        except NotFound:
            # Somebody may have sent it since.
            row = _holder(target, connection, using)
            if row is None:
                raise NotFound(
                    "There is nothing to wait for: Restate does not know the workflow (it was never sent, was purged, "
                    "or is past its retention), and no row here has its key.",
                    target=str(target),
                ) from None
    return attaching.attach(row, timeout=max(0.0, deadline - time.monotonic()))


def output(
    service: str,
    key: str,
    handler: str = "run",
    *,
    scope: str | None = None,
    connection: str = "default",
    using: str | None = None,
) -> Output:
    """Read what is known of a workflow's output now. Never waits for it, and writes nothing.

    Args:
        service: As for :func:`attach`, as are the rest.
        key: Its key.
        handler: Its main handler.
        scope: The scope it was sent in.
        connection: The alias in ``RESTATE``.
        using: The database alias to look for its row in.

    Returns:
        An output that is ready, failed, not ready, or unknown. What Restate has forgotten is taken from the row.

    Raises:
        InvalidRequest: The handler is not the workflow's main one.
        RequestError: Restate can't be read now.
    """
    target, _settings = _main(service, key, handler, scope, connection)
    found = connections[connection].ingress.output(target=target)
    if found.state is not OutputState.UNKNOWN:
        return found
    row = _holder(target, connection, using)
    return found if row is None else _of_row(row, found)


def _main(
    service: str, key: str, handler: str, scope: str | None, connection: str
) -> tuple[Target, ConnectionSettings]:
    """Return a workflow's target, or refuse a handler that is known not to be its main one."""
    settings = get_settings(connection)
    target = Target.workflow(service, key, scope=scope, handler=handler)
    if connections[connection].services.is_workflow_main(target.service, target.handler) is False:
        raise InvalidRequest(
            f"{target.handler!r} is not the main handler of a workflow {target.service!r}: only that can be asked for "
            "by the workflow's key. Keep the row that send() returned, and ask that.",
            target=str(target),
        )
    return target, settings


def _holder(target: Target, connection: str, using: str | None) -> Invocation | None:
    """Return the row that holds the workflow's key."""
    named = Invocation(
        connection=connection,
        scope=target.scope or "",
        service=target.service,
        key=target.key or "",
        handler=target.handler,
    )
    rows = Invocation.objects.using(using or router.db_for_write(Invocation))
    return rows.filter(dedupe_digest=bound_digest(named, idempotency_key=None)).order_by().first()


def _of_row(row: Invocation, unknown: Output) -> Output:
    """Return what the row itself knows of an output that Restate does not know."""
    known_as = row.invocation_id or None
    if row.is_open:
        return Output(OutputState.NOT_READY, known_as)
    if row.status in {Status.FAILED, Status.CANCELLED, Status.KILLED}:
        failure = InvocationFailed(
            row.failure_code, row.failure_message, row.failure_metadata, invocation=row, target=row.target
        )
        return Output(OutputState.FAILED, known_as, failure=failure)
    if row.status != Status.SUCCEEDED or (row.has_output and not row.has_stored_output):
        return unknown
    body = row.output_bytes if row.output is None else encode_payload(row.output).body
    return Output(OutputState.READY, known_as, bytes(body or b""), row.output_content_type)
