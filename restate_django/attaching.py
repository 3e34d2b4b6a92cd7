"""Waiting for one invocation: its end is written down when it is seen, and its output is returned.

Who waits, a thread or an event loop, is decided by ``waiting``. Imports the verbs beside it, the records and the floors
below.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.translation import gettext as _

from restate_django import recording, waiting
from restate_django.asking import tell_of_two_servers
from restate_django.client import OutputState
from restate_django.client.transport import checked_seconds
from restate_django.conf import get_settings
from restate_django.connections import connections
from restate_django.ends import write_end
from restate_django.exceptions import (
    CallTimeout,
    InvocationFailed,
    OperationRefused,
    RequestTimeout,
    RestateError,
)
from restate_django.lifecycle import IN_RESTATE, Status
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.querysets import write_alias
from restate_django.workers import refuse_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Generator

    from restate_django.client import Output
    from restate_django.conf import ConnectionSettings


logger = get_logger("restate_django.polling")


def attach(row: Invocation, timeout: float | None = None) -> Any:
    """Wait for a row's end, write it down, and return the output.

    Args:
        row: The row. It carries the outcome afterwards.
        timeout: Seconds at most; the connection's ``CALL_TIMEOUT`` by default.

    Returns:
        The decoded output.

    Raises:
        InvocationFailed: It ended in a failure.
        CallTimeout: Waiting ended first; it goes on.
        OperationRefused: There is nothing to wait for.
    """
    return waiting.drive(attaching(row, timeout))


async def aattach(row: Invocation, timeout: float | None = None) -> Any:
    """Do what :func:`attach` does, from a coroutine: no thread waits.

    With httpx (the extra ``async``) one request waits for the end, as there; without it short reads ask again and
    again, at most a second apart.
    """
    return await waiting.adrive(attaching(row, timeout))


def attaching(row: Invocation, timeout: float | None = None) -> Generator[waiting.Wait, Any, Any]:
    """Do what :func:`attach` does, and leave the waiting to whoever drives it."""
    settings = get_settings(row.connection)
    deadline = time.monotonic() + (
        settings.call_timeout if timeout is None else checked_seconds("timeout", timeout, or_none=True)
    )
    using = write_alias(row)
    pause = 0.05
    missing_since: float | None = None
    while True:
        if row.is_finished:
            return _stored_result(row)
        if row.status == Status.UNDELIVERABLE:
            raise OperationRefused(_("Whether it ran is not known: it is undeliverable, and a person must decide."))
        left = deadline - time.monotonic()
        if row.invocation_id:
            output: Output | None = None
            try:
                output = yield waiting.End(row.connection, row.invocation_id, max(0.05, left))
            except RequestTimeout:
                # It was waited for until the deadline.
                deadline = 0.0
            if output is not None and output.state in {OutputState.READY, OutputState.FAILED}:
                _record_end(row, output, settings, using)
                return result(row, output)
            if output is not None and output.state is OutputState.UNKNOWN:
                # Believed only twice, some seconds apart, as by the poll.
                missing_since = missing_since or time.monotonic()
                believed = time.monotonic() - missing_since >= recording.CONFIRM_AFTER.total_seconds()
                if believed and not _may_be_known(row):
                    Invocation.objects.using(using).write_back(row, **recording.gone())
                    continue
        if time.monotonic() >= deadline:
            raise CallTimeout(
                "Waiting ended before the invocation did. It goes on; its row is polled.",
                invocation=row,
                target=row.target,
            )
        # Not sent yet, or the connection broke: look again, less and less often.
        yield waiting.Pause(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(1.0, pause * 2)
        row.refresh_from_db(using=using)


def _may_be_known(row: Invocation) -> bool:
    """Tell whether Restate may know a row after all, of which its ingress says that it does not.

    The Admin API is asked, as by the poll: with a wrong ``INGRESS_URL`` they are two servers.
    """
    admin = connections[row.connection].admin
    if admin is None:
        return False
    try:
        known = row.invocation_id in admin.states([row.invocation_id])
    except RestateError as error:
        logger.info("Whether Restate knows %s can't be read now: %s", row.invocation_id, error, row=row)
        return True
    if known:
        tell_of_two_servers(row)
    return known


def heed_report(row: Invocation, seconds: float) -> bool:
    """Read a row's outcome from Restate, because somebody says that it has ended; nothing of what they say is taken.

    Args:
        row: The row. It carries the outcome afterwards.
        seconds: How long to wait for Restate to have it. After that, and with 0, the jobs ask as soon as they can.

    Returns:
        Whether it has ended.

    Raises:
        RuntimeError: A transaction is open.
    """
    using = write_alias(row)
    refuse_inside_transaction("heed_report()", using)
    if seconds and not row.is_finished:
        try:
            attach(row, seconds)
        except (RestateError, ImproperlyConfigured):
            # A failure is an end too, which the row says; all else means that nothing is known.
            row.refresh_from_db(using=using)
    if row.is_in_restate:
        now = timezone.now()
        Invocation.objects.using(using).filter(pk=row.pk, status__in=sorted(IN_RESTATE), next_poll_at__gt=now).update(
            next_poll_at=now
        )
    return row.is_finished


def fetch_output(row: Invocation) -> Output:
    """Read a row's output from Restate, of any size. Nothing is written.

    Raises:
        OperationRefused: The row was never accepted, or Restate no longer knows it.
        RequestError: Restate can't be read now.
    """
    if not row.invocation_id:
        raise OperationRefused(_("Restate has not accepted it: there is no output to read."))
    output = connections[row.connection].ingress.output(row.invocation_id)
    if output.state is OutputState.UNKNOWN:
        raise OperationRefused(_("Restate no longer has its output: it was purged, or its retention is over."), 404)
    return output


def result(row: Invocation, output: Output) -> Any:
    """Return the decoded output of an ended row, or raise its failure with the row in it."""
    if output.failure is not None:
        failure = output.failure
        raise InvocationFailed(
            failure.code, failure.message, failure.metadata, invocation=row, status=failure.status, target=row.target
        ) from None
    return output.value


def _stored_result(row: Invocation) -> Any:
    if row.status == Status.SUCCEEDED:
        if row.has_output and not row.has_stored_output and row.output_size:
            return result(row, fetch_output(row))
        return row.output_value
    if row.status in {Status.FAILED, Status.CANCELLED, Status.KILLED}:
        raise InvocationFailed(
            row.failure_code, row.failure_message, row.failure_metadata, invocation=row, target=row.target
        )
    if row.status == Status.GONE:
        raise OperationRefused(_("Restate no longer knows the invocation: its outcome was not read in time."))
    reason = row.delivery_error or row.get_status_display()
    raise OperationRefused(_("Restate never ran it: %(reason)s") % {"reason": reason})


def _record_end(row: Invocation, output: Output, settings: ConnectionSettings, using: str) -> None:
    """Write an end that a waiting reader saw. A poller may hold the row: the status alone is compared."""
    while not row.is_finished and not write_end(row, recording.ended(row, output, settings), using, leased=False):
        row.refresh_from_db(using=using)
