"""What Restate says of rows: the Admin API of many at once, the ingress of one.

HTTP only, some rows at a time, in threads or by libcurl: no ORM, and nothing is written. Imports the verbs beside it,
the records and the floors below.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from restate_django import cancelling, recording
from restate_django.client import InvocationRow, OutputState
from restate_django.exceptions import (
    NotFound,
    NotSupported,
    ResponseTooLarge,
    RestateError,
    Unavailable,
)
from restate_django.lifecycle import Status
from restate_django.logs import get_logger
from restate_django.workers import in_threads

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator

    from restate_django.client import Output
    from restate_django.connections import Connection
    from restate_django.models import Invocation
    from restate_django.querysets import Due

logger = get_logger("restate_django.polling")


@dataclass(slots=True)
class News:
    """What was learned about one row. Nothing at all means that nothing could be learned."""

    seen: InvocationRow | None = None
    output: Output | None = None
    stage: str = ""
    #: It ended in a failure, as SQL says, which the ingress can't tell.
    unreadable: bool = False
    #: It succeeded with so many bytes, more than the client reads.
    too_large: int = 0
    cancel_sent: cancelling.Sent | None = None
    error: RestateError | None = None


def ask_admin(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]] | None:
    """Ask about all rows by one query. Runs in a thread. None: it can't be read now."""
    assert connection.admin is not None  # noqa: S101 - asked by the one caller
    try:
        return connection.admin.states(ids)
    except RestateError as error:
        # The ingress may still answer, and an outcome that is there should not wait for the Admin API.
        logger.warning(
            "The Admin API of connection %r can't be read, the ingress is asked: %s",
            connection.alias,
            error,
            connection=connection.alias,
        )
        return None


def says_more(row: Due, told: dict[str, Any] | None) -> bool:
    """Tell whether there is anything to be done about a row, or to be looked at more closely.

    What is left out of a row of SQL is null: most rows that wait say their status alone.
    """
    return (
        told is None
        or told.get("status") != row.status
        or row.is_missing
        or cancelling.is_wanted(row)
        or ("retry_count" in told and max(0, told["retry_count"] - 1) != row.retry_count)
        or ("last_failure" in told and told["last_failure"] != row.last_failure)
        or ("running_at" in told and not row.has_started)
    )


def read_rows(
    connection: Connection, rows: list[Invocation], told: dict[str, dict[str, Any]]
) -> dict[str, InvocationRow]:
    """Read what SQL says of rows that have something new."""
    seen = {
        row.invocation_id: InvocationRow.from_json(told[row.invocation_id]) for row in rows if row.invocation_id in told
    }
    _add_pause_failures(connection, rows, seen)
    return seen


def news_of(
    connection: Connection, rows: list[Invocation], seen: dict[str, InvocationRow] | None
) -> Iterator[tuple[Invocation, News]]:
    """Do the HTTP for rows that have something new, some at a time."""
    plain = [row for row in rows if _needs_its_output_alone(row, seen)]
    if connection.sends_in_bulk(len(plain)):
        read: set[uuid.UUID] = set()
        for row, news in _bulk_outputs(connection, plain, seen):
            read.add(row.pk)
            yield row, news
        rows = [row for row in rows if row.pk not in read]
    yield from in_threads(_job(connection, seen), rows, concurrency=connection.settings.concurrency)


def _needs_its_output_alone(row: Invocation, seen: dict[str, InvocationRow] | None) -> bool:
    if row.cancel_is_ours:
        return False
    known = None if seen is None else seen.get(row.invocation_id)
    return known is None or known.status == "completed"


def _bulk_outputs(
    connection: Connection, rows: list[Invocation], seen: dict[str, InvocationRow] | None
) -> Iterator[tuple[Invocation, News]]:
    """Read outputs by libcurl. What takes another look is left out: an error, a failure without words, a status."""
    ids = ((row, row.invocation_id) for row in rows if row.lease_left >= connection.settings.timeout)
    for row, output, _seconds in connection.ingress.output_many(ids, concurrency=connection.settings.bulk_concurrency):
        if isinstance(output, RestateError) or (output.failure is not None and not output.failure.message):
            continue
        news = News(seen=None if seen is None else seen.get(row.invocation_id), output=output)
        if output.state is OutputState.NOT_READY and seen is None:
            if not _starts_later(row):
                continue
            news.stage = Status.SCHEDULED
        yield row, news


def _job(connection: Connection, seen: dict[str, InvocationRow] | None) -> Callable[[Invocation], News]:
    """Return what is done for each row of a batch, in a thread. It raises nothing."""

    def job(row: Invocation) -> News:
        try:
            return _ask(connection, row, seen)
        except Exception:
            # A bug, here or in a library, must not take the other rows of the batch with it.
            logger.exception("Invocation %s could not be asked about", row.pk, row=row)
            return News()

    return job


def _add_pause_failures(connection: Connection, rows: list[Invocation], seen: dict[str, InvocationRow]) -> None:
    """Fill in why invocations were paused: Restate has it in their journals' events only."""
    ids = [
        row.invocation_id
        for row in rows
        if row.status != Status.PAUSED
        and row.invocation_id in seen
        and seen[row.invocation_id].status == Status.PAUSED
        and not seen[row.invocation_id].last_failure
    ]
    if not ids or connection.admin is None:
        return
    try:
        failures = connection.admin.pause_failures(ids)
    except RestateError as error:
        logger.info("Why invocations were paused can't be read now: %s", error, connection=connection.alias)
        return
    for invocation_id, failure in failures.items():
        seen[invocation_id] = dataclasses.replace(seen[invocation_id], last_failure=failure)


def tells_nothing_new(row: Invocation, seen: dict[str, InvocationRow]) -> bool:
    """The Admin API says of it what the row has already, and nothing waits to be done."""
    invocation = seen.get(row.invocation_id)
    if invocation is None or invocation.status != row.status or row.cancel_is_ours or row.missing_since:
        return False
    return all(getattr(row, name) == value for name, value in recording.times(row, invocation).items())


def _ask(connection: Connection, row: Invocation, seen: dict[str, InvocationRow] | None) -> News:
    """Do the HTTP for one row. Runs in a thread: no ORM."""
    news = News(seen=None if seen is None else seen.get(row.invocation_id))
    if row.lease_left < connection.settings.timeout:
        # The ones before it took too long (a server that hangs): the next sweep has it, and nobody asks twice at once.
        return news
    try:
        if row.cancel_is_ours and connection.admin is not None:
            news.cancel_sent, error = cancelling.send(connection.admin, row)
            if error is not None:
                logger.info("The cancellation of %s was not taken: %s", row.invocation_id, error, row=row)
            if news.cancel_sent is cancelling.Sent.DONE:
                return news
        if news.seen is not None and news.seen.status != "completed":
            return news
        _read_output(connection, row, news)
        if seen is None and news.output is not None and news.output.state is OutputState.NOT_READY:
            news.stage = _stage(connection, row)
    except RestateError as error:
        news.error = error
    return news


def _starts_later(row: Invocation) -> bool:
    return row.starts_at is not None and row.starts_at > timezone.now()


def _read_output(connection: Connection, row: Invocation, news: News) -> None:
    """Fill in what the ingress says of a row's output."""
    try:
        news.output = connection.ingress.output(row.invocation_id)
    except ResponseTooLarge as error:
        if error.invocation_id is None:
            raise
        news.too_large = error.size
    except Unavailable as error:
        # A failure whose code no HTTP answer can carry (100, say) is a bare 500 before 1.7.9: SQL has it.
        if error.status != HTTPStatus.INTERNAL_SERVER_ERROR or not news.seen or not news.seen.completion_failure:
            raise
        news.unreadable = True


def _stage(connection: Connection, row: Invocation) -> str:
    """Tell an open invocation's status without an Admin API, as far as the ingress does."""
    if _starts_later(row):
        return Status.SCHEDULED
    try:
        stage = connection.ingress.status(row.invocation_id).stage
    except (NotSupported, NotFound):
        # Restate before 1.7.9 has no such path.
        return ""
    return {"created": Status.PENDING, "started": Status.RUNNING}.get(stage, "")


def tell_of_two_servers(row: Invocation) -> None:
    """Say in the log that the Admin API has a row of which the ingress says that it does not know it."""
    logger.error(
        "Connection %r: the Admin API knows %s and the ingress does not. Do both URLs lead to the same server?",
        row.connection,
        row.invocation_id,
        row=row,
    )
