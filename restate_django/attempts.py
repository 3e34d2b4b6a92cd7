"""One attempt for each row of a batch: send it where that is safe, else read what Restate knows of it.

HTTP only, some rows at a time, in threads or by libcurl: no ORM. Imports the verbs beside it, the records and the
floors below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.utils import timezone
from django.utils.translation import gettext_noop

from restate_django import measuring, submitting
from restate_django.client import Output, OutputState, Sending
from restate_django.exceptions import (
    Misconfigured,
    OutcomeUnknown,
    PathRefused,
    Refused,
    RequestTimeout,
    ResponseTooLarge,
    RestateError,
    Unavailable,
    UnknownTarget,
    WorkflowKeyRefused,
)
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.patience import Deadline
from restate_django.workers import in_threads

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator

    from django.core.exceptions import ImproperlyConfigured

    from restate_django.client import SendReceipt
    from restate_django.conf import ConnectionSettings
    from restate_django.connections import Connection
    from restate_django.patience import Patience

logger = get_logger("restate_django.delivery")

#: Before the end of Restate's memory for a key by this much, it is not relied upon any more.
WINDOW_MARGIN: Final = dt.timedelta(minutes=5)


# Seconds of lease that must be left beyond the request's own deadline when it is sent, where the lease is that long.
_LEASE_MARGIN: Final = 5.0


@dataclass(slots=True)
class Answer:
    """What came back for one row: a receipt, an output that was read, or an error."""

    receipt: SendReceipt | None = None
    output: Output | None = None
    #: Of a row that was read about: the id under which Restate knows it.
    invocation_id: str = ""
    error: RestateError | ImproperlyConfigured | None = None
    is_workflow_main: bool = False
    #: For an unknown service or handler: the ingress is healthy and serves none, so the answer is to be believed.
    confirmed: bool = False
    #: Sending it again would be safe: nothing can have run yet, or Restate surely remembers the key.
    window_is_open: bool = False
    #: Nothing was sent: the lease was too short for a request, or the connection is left to the relay for a while.
    given_back: str = ""


def only_reads(row: Invocation) -> bool:
    """It is never sent again: a call's caller is gone, and a cancelled one must not start."""
    return row.verb == Invocation.Verb.CALL or row.cancel_requested_at is not None


def answers_for(
    connection: Connection, rows: list[Invocation], patience: Patience
) -> Iterator[tuple[Invocation, Answer]]:
    """Do the HTTP for rows of one connection, some at a time, and yield what came back for each."""
    alone = rows
    if connection.sends_in_bulk(len(rows)):
        plain: list[Invocation] = []
        alone = []
        for row in rows:
            (plain if _is_plain(connection, row) else alone).append(row)
        yield from _BulkRound(connection, plain, patience).answers()
    yield from in_threads(_job(connection, patience), alone, concurrency=connection.settings.concurrency)


def _job(connection: Connection, patience: Patience) -> Callable[[Invocation], Answer]:
    """Return what is done for a row in a thread. It raises nothing."""

    def job(row: Invocation) -> Answer:
        if reason := patience.ends_because:
            return Answer(given_back=reason)
        answer, seconds = _safely(row, lambda: _ask(connection, row, timeout=patience.timeout))
        patience.heard(answer.error, seconds)
        return answer

    return job


def _safely(row: Invocation, ask: Callable[[], Answer]) -> tuple[Answer, float]:
    """Do the HTTP for a row, and return what came back and after how many seconds. It raises nothing."""
    start = time.monotonic()
    try:
        answer = ask()
    except Exception as error:
        # A bug, here or in a library, must not take the other rows of the batch with it.
        logger.exception("Invocation %s could not be sent", row.pk, row=row)
        answer = Answer(error=OutcomeUnknown(f"{type(error).__name__}: see the log."))
    seconds = time.monotonic() - start
    if not answer.given_back:
        measuring.delivered(row, seconds, answer.error)
    return answer, seconds


def _is_plain(connection: Connection, row: Invocation) -> bool:
    """Tell whether a row is one that is sent for the first time, under a key that Restate remembers."""
    return is_first_attempt(row) and not only_reads(row) and submitting.remembers(connection, row)


class _BulkRound:
    """Sends plain rows of one connection by libcurl. Those that come to an error are then looked into by threads."""

    def __init__(self, connection: Connection, rows: list[Invocation], patience: Patience) -> None:
        self.connection = connection
        self.rows = rows
        self.patience = patience
        self.workflows: set[uuid.UUID] = set()
        self.given_back: list[tuple[Invocation, str]] = []
        self.failed: list[tuple[Invocation, Exception]] = []

    def answers(self) -> Iterator[tuple[Invocation, Answer]]:
        """Do the HTTP, and yield what came back for each row."""
        settings, timeout = self.connection.settings, self.patience.timeout
        sent = self.connection.ingress.send_many(self._sends(), concurrency=settings.bulk_concurrency, timeout=timeout)
        for row, result, seconds in sent:
            error = result if isinstance(result, RestateError) else None
            measuring.delivered(row, seconds, error)
            self.patience.heard(error, seconds)
            if isinstance(result, RestateError):
                self.failed.append((row, result))
            else:
                yield row, self._accepted(row, result)
        yield from ((row, Answer(given_back=reason)) for row, reason in self.given_back)
        for (row, _error), answer in in_threads(self._look_into, self.failed, concurrency=settings.concurrency):
            yield row, answer

    def _sends(self) -> Iterator[tuple[Invocation, Sending]]:
        for row in self.rows:
            if reason := self.patience.ends_because or _lease_is_too_short(self.connection, row):
                self.given_back.append((row, reason))
                continue
            try:
                if submitting.is_workflow_main(self.connection, row):
                    self.workflows.add(row.pk)
                sending = submitting.sending_of(row, keyed=row.pk not in self.workflows)
            except Exception as error:  # noqa: BLE001 - a bug with one row is looked into with that row alone
                self.failed.append((row, error))
            else:
                yield row, sending

    def _accepted(self, row: Invocation, receipt: SendReceipt) -> Answer:
        is_main = row.pk in self.workflows
        if row.key and not is_main:
            self.connection.services.remember_keyed(row.service, row.handler)
        return Answer(receipt=receipt, is_workflow_main=is_main, window_is_open=True)

    def _look_into(self, item: tuple[Invocation, Exception]) -> Answer:
        row, error = item
        if isinstance(error, WorkflowKeyRefused):
            self.connection.services.remember_workflow_main(row.service, row.handler)
        elif isinstance(error, RestateError) and not self._is_worth_another_try(error):
            answer = Answer(is_workflow_main=row.pk in self.workflows, window_is_open=True)
            _explain(self.connection, row, answer, error, Deadline(self.patience.timeout))
            return answer
        answer, _seconds = _safely(row, lambda: _ask(self.connection, row, timeout=self.patience.timeout))
        if answer.receipt is not None and isinstance(error, RestateError) and error.may_have_run:
            answer.receipt = dataclasses.replace(answer.receipt, resent=True)
        return answer

    def _is_worth_another_try(self, error: RestateError) -> bool:
        """Tell whether the client itself would have tried again, had it been asked one by one."""
        if self.patience.ends_because or isinstance(error, RequestTimeout | Misconfigured | UnknownTarget):
            return False
        return isinstance(error, Unavailable | OutcomeUnknown)


def _ask(connection: Connection, row: Invocation, timeout: float | None = None) -> Answer:
    """Do the HTTP for one row. Runs in a thread: no ORM.

    Args:
        connection: The row's connection.
        row: The row.
        timeout: Seconds for the send, when a visitor waits for it.
    """
    answer = Answer(given_back=_lease_is_too_short(connection, row))
    if answer.given_back:
        return answer
    patience = Deadline(timeout)
    try:
        answer.is_workflow_main = submitting.is_workflow_main(connection, row)
        answer.window_is_open = _window_is_open(connection, row)
        if only_reads(row) or not (answer.window_is_open and _is_surely_remembered(connection, row)):
            _read(connection, row, answer, patience)
        else:
            answer.receipt, keyed = submitting.submit_as_it_takes(
                connection, row, keyed=not answer.is_workflow_main, timeout=patience.left
            )
            answer.is_workflow_main = not keyed
    except RestateError as error:
        if connection.services.is_workflow_main(row.service, row.handler, network=False):
            # Its key was refused, and then the send without one failed.
            answer.is_workflow_main = True
        _explain(connection, row, answer, error, patience)
    return answer


def _lease_is_too_short(connection: Connection, row: Invocation) -> str:
    """Return why a row can't be sent in what is left of its lease; empty where it can."""
    if row.lease_left >= least_lease(connection.settings):
        return ""
    return row.delivery_error or gettext_noop("Its lease was too short for a request.")


def _explain(connection: Connection, row: Invocation, answer: Answer, error: RestateError, patience: Deadline) -> None:
    """Fill in an error, and what else is to be known to judge it."""
    if isinstance(error, PathRefused):
        error = _unless_the_prefix_is_wrong(connection, error, patience)
    answer.error = error
    if isinstance(error, UnknownTarget):
        answer.confirmed = _ingress_serves_none(connection, row, error, patience)
    elif isinstance(error, Refused) and not is_first_attempt(row):
        # This attempt ran nothing; an earlier one may have. The row is settled by what Restate knows.
        with contextlib.suppress(RestateError):
            _read(connection, row, answer, patience)


def _read(connection: Connection, row: Invocation, answer: Answer, patience: Deadline) -> None:
    """Fill in what Restate knows of a row."""
    try:
        output = submitting.read_by_target(connection, row, patience.left)
    except ResponseTooLarge as error:
        if error.invocation_id is None:
            raise
        # There is an output, so Restate has the invocation: the poll ends it.
        output = Output(OutputState.NOT_READY, error.invocation_id)
    if output.state is not OutputState.UNKNOWN:
        answer.invocation_id = submitting.invocation_id_of(connection, row, output, patience.left)
    answer.output = output


def _unless_the_prefix_is_wrong(connection: Connection, error: PathRefused, patience: Deadline) -> RestateError:
    """Return a refusal of a row's path, or what is wrong where the URL does not lead to the ingress's own paths.

    With a service's name for a prefix every path is refused as one to that service, whatever the row is like.
    """
    try:
        connection.ingress.health(timeout=patience.left)
    except RestateError:
        text = f"{error.message} The ingress's health can't be read at this URL either."
        return Misconfigured(text, status=error.status, code=error.code, target=error.target)
    return error


def _ingress_serves_none(connection: Connection, row: Invocation, error: UnknownTarget, patience: Deadline) -> bool:
    """Tell whether a healthy ingress says that it does not serve the row's service, or not that handler of it."""
    try:
        services = connection.ingress.health(timeout=patience.left)
    except RestateError:
        return False
    return row.service not in services or "handler" in error.message


def least_lease(settings: ConnectionSettings) -> float:
    """Return the seconds of lease that a worker must have left to send: more than a request may take.

    A short lease leaves less on top, but never nothing: a worker that has just claimed its rows can send them.
    """
    spare = settings.lease.total_seconds() - settings.timeout
    return settings.timeout + min(_LEASE_MARGIN, spare / 2)


def is_first_attempt(row: Invocation) -> bool:
    """Tell whether no earlier attempt of the row can have reached Restate: this claim set ``unknown_since``."""
    return row.unknown_since is None or row.unknown_since == row.claimed_at


def _is_surely_remembered(connection: Connection, row: Invocation) -> bool:
    """Tell whether a row that may have run is safe to send again as far as the service's own retention goes.

    With an Admin API that does not answer, the service may remember nothing at all: the row is read about meanwhile.
    """
    return is_first_attempt(row) or is_decided(row) or connection.services.knows_retention(row.service)


def is_decided(row: Invocation) -> bool:
    """Tell whether a person has decided on this attempt, which may be the second run: ``resend`` counts them anew."""
    return row.attempts == 1 and not is_first_attempt(row)


def _window_is_open(connection: Connection, row: Invocation) -> bool:
    """Tell whether sending again is safe: nothing can have run yet, or Restate surely remembers the key.

    Retention counts from completion, which is not before the first attempt, nor before ``run_at``.
    """
    if row.unknown_since is None or is_first_attempt(row) or is_decided(row):
        return True
    retention = connection.services.idempotency_retention(row.service, row.handler)
    since = max(row.unknown_since, row.run_at or row.unknown_since)
    # A retention below the margin leaves no safe time at all, and 0 means that nothing is remembered.
    margin = max(WINDOW_MARGIN, 2 * dt.timedelta(seconds=connection.settings.timeout))
    return timezone.now() < since + retention - margin
