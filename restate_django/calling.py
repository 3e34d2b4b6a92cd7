"""A ``call``: recorded, made in one request or sent and waited for, and resolved by reading where its end is unknown.

Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from restate_django import delivery, measuring, outbox, recording, submitting, waiting
from restate_django.attaching import attaching, result
from restate_django.client import OutputState
from restate_django.client.transport import checked_seconds
from restate_django.conf import get_settings
from restate_django.connections import connections
from restate_django.exceptions import (
    CallTimeout,
    InvalidRequest,
    InvocationFailed,
    NotSupported,
    OutcomeUnknown,
    Refused,
    RestateError,
    Unavailable,
    WorkflowKeyRefused,
)
from restate_django.logs import get_logger
from restate_django.measuring import Kind
from restate_django.models import Invocation
from restate_django.outgoing import Outgoing, build, carry_trace, check_payloads, database_for

if TYPE_CHECKING:
    from collections.abc import Generator

    from restate_django.client import Output, SendReceipt
    from restate_django.conf import ConnectionSettings
    from restate_django.connections import Connection

logger = get_logger("restate_django.dispatch")

# Seconds that a call whose waiting ended may take to find out whether Restate has it.
_RESOLVE_TIMEOUT: Final = 2.0


def calling(
    outgoing: Outgoing, timeout: float | None, connection: str, using: str | None, *, apart: bool = False
) -> Generator[waiting.Wait, Any, Any]:
    """Do what :func:`call` does, and leave the waiting to whoever drives it.

    Args:
        outgoing: What is called.
        timeout: Seconds to wait, None for the connection's.
        connection: The alias in ``RESTATE``.
        using: The database alias, None for the router's.
        apart: Waits are on an event loop.
    """
    settings = get_settings(connection)
    wait = settings.call_timeout if timeout is None else checked_seconds("timeout", timeout)
    alias = database_for(settings, using)
    row = build(outgoing, settings, Invocation.Verb.CALL, alias)
    check_payloads([row], settings, alias)
    outbox.lease_rows([row], settings.lease + dt.timedelta(seconds=wait), uuid.uuid4())
    deadline = time.monotonic() + wait
    with measuring.work(Kind.CALL, connection, [row]) as work:
        carry_trace([row], work, settings)
        recorded = outbox.record(row, alias)
        if recorded is not row:
            return (yield from attaching(recorded, timeout=max(0.0, deadline - time.monotonic())))
        outbox.measure_sends([row], alias)
        return (yield from _Call(row, settings, alias, deadline, apart=apart).run())


class _Call:
    """One ``call``, from its recorded row to its output or its error."""

    def __init__(
        self, row: Invocation, settings: ConnectionSettings, using: str, deadline: float, *, apart: bool
    ) -> None:
        self.row = row
        self.settings = settings
        self.using = using
        self.deadline = deadline
        self.apart = apart
        self.connection: Connection = connections[row.connection]

    def run(self) -> Generator[waiting.Wait, Any, Any]:
        """Return the output or raise what came of it; the row has it in either case."""
        try:
            keyed = not submitting.is_workflow_main(self.connection, self.row)
            if keyed and not self._is_better_sent():
                try:
                    output: Output = yield self._request()
                    return self._finish(output)
                except WorkflowKeyRefused:
                    self.connection.services.remember_workflow_main(self.row.service, self.row.handler)
                    keyed = False
            receipt, keyed = self._submit(keyed=keyed)
        except (Refused, Unavailable, NotSupported) as error:
            self._write(recording.rejected(str(error)))
            raise
        except (InvocationFailed, InvalidRequest):
            raise
        except RestateError as error:
            return (yield from self._resolve(error))
        self._write(recording.accepted_as(self.row, receipt, self.settings, ours=False))
        if not keyed:
            outbox.bind_workflow_key(self.row, self.using)
        return (yield from attaching(self.row, timeout=self._left()))

    def _is_better_sent(self) -> bool:
        """Tell whether to send it and wait apart: the row is accepted meanwhile, and a wait that is cut costs nothing.

        What Restate does not remember would be gone before it is waited for. Where there is no Admin API to tell, one
        request does without, if it takes no thread.
        """
        if not self.apart or not submitting.remembers(self.connection, self.row):
            return False
        return self.connection.admin is not None or not self.connection.ingress.can_wait

    def _left(self) -> float:
        """Seconds that are left to wait; never quite none, so that what is ready already is still read."""
        return max(0.05, self.deadline - time.monotonic())

    def _write(self, changes: dict[str, Any]) -> None:
        Invocation.objects.using(self.using).write_back(self.row, lease=self.row.lease_token, **changes)

    def _request(self) -> waiting.Reply:
        row, timeout = self.row, self._left()
        ingress = self.connection.ingress
        repeatable = submitting.remembers(self.connection, row)
        given: dict[str, Any] = {
            "key": row.key or None,
            "idempotency_key": row.idempotency_key,
            "headers": row.headers or None,
            "scope": row.scope or None,
            "limit_key": row.limit_key or None,
            "timeout": timeout,
        }
        target = (row.service, row.handler, row.encoded_payload)
        return waiting.Reply(
            here=lambda: ingress.call(*target, **given, repeatable=repeatable),
            apart=(lambda: ingress.acall(*target, **given)) if ingress.can_wait else None,
        )

    def _submit(self, *, keyed: bool) -> tuple[SendReceipt, bool]:
        """Send it, and tell whether it was sent with its idempotency key: a workflow's main handler takes none."""
        timeout = min(self._left(), self.settings.timeout)
        return submitting.submit_as_it_takes(self.connection, self.row, keyed=keyed, timeout=timeout)

    def _finish(self, output: Output) -> Any:
        changes = recording.ended(self.row, output, self.settings)
        # Restate told no acceptance apart from the end: it was accepted when it was asked.
        changes |= {"invocation_id": output.invocation_id or "", "accepted_at": self.row.created_at}
        self._write(changes)
        return result(self.row, output)

    def _resolve(self, error: RestateError) -> Generator[waiting.Wait, Any, Any]:
        """Find out by reading whether Restate has it, after an answer that tells nothing."""
        timeout = min(self.settings.timeout, _RESOLVE_TIMEOUT)
        try:
            output = submitting.read_by_target(self.connection, self.row, timeout)
            if output.state is OutputState.NOT_READY:
                known_as = submitting.invocation_id_of(self.connection, self.row, output, timeout)
                self._write(recording.accepted(self.row, invocation_id=known_as, settings=self.settings))
                return (yield from attaching(self.row, timeout=self._left()))
            if output.state is not OutputState.UNKNOWN:
                return self._finish(output)
        except (CallTimeout, InvocationFailed):
            raise
        except RestateError as second:
            logger.info("What became of the call %s can't be read now: %s", self.row.pk, second, row=self.row)
        delivery.leave_to_jobs(self.row, self.using, str(error))
        raise OutcomeUnknown(
            f"Nobody knows whether the handler ran ({error}). Its row is resolved by reading; look at it later.",
            invocation=self.row,
            target=self.row.target,
        ) from error
