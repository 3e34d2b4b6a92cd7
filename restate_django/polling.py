"""Polling: from an accepted invocation to the outcome that its row carries.

With an Admin API one SQL query answers for a thousand rows, and an output is read only for those that ended; without
one, ``/restate/output`` is asked for each. Both end in the same terminal statuses. A network error changes no status:
not knowing is not failing. Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from restate_django import cancelling, delivery, measuring, outbox, recording
from restate_django.asking import (
    News,
    ask_admin,
    news_of,
    read_rows,
    says_more,
    tell_of_two_servers,
    tells_nothing_new,
)
from restate_django.client import OutputState
from restate_django.connections import connections
from restate_django.ends import LARGE, end, write_end, write_ends
from restate_django.exceptions import RestateError
from restate_django.intervals import put_off, put_off_by_age, put_off_columns, stepped_interval
from restate_django.lifecycle import IN_RESTATE, Status
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.querysets import write_alias
from restate_django.sweeping import job_lease, sweep
from restate_django.workers import in_background, refuse_inside_transaction

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection, Iterable
    from concurrent.futures import Future

    from restate_django.conf import ConnectionSettings
    from restate_django.connections import Connection
    from restate_django.querysets import Due, InvocationQuerySet, PollClaim
    from restate_django.sweeping import Part

logger = get_logger("restate_django.polling")

#: Rows that one claim takes, and ids that one SQL query asks for.
BATCH: Final = 1000
# Ends that are written together. A worker that dies loses so many answers at most, which are then asked for again.
_ENDS: Final = 250
# Batches that are claimed and asked about while the one before is written.
_AHEAD: Final = 1


# ---------------------------------------------------------------- the verb, for every edge


def poll_due(
    limit: int | None = None, budget: float | None = None, *, connections: Iterable[str] | None = None
) -> Counter[str]:
    """Ask about the rows that are due, on every database that the connections name, and write down the answers.

    Safe to run in many processes at once: rows are shared by their leases.

    Args:
        limit: Rows at most; all that are due by default.
        budget: Seconds at most. What is in hand is finished.
        connections: Ask about the rows of these connections alone; of all by default.

    Returns:
        How many rows took each status, and under ``"unchanged"`` how many did not change.

    Raises:
        RuntimeError: A transaction is open.
        ConnectionDoesNotExist: ``RESTATE`` has no connection of that name.
    """

    def batch(part: Part, size: int) -> tuple[int, Callable[[], Counter[str]]]:
        claim = _rows(part.using).claim_for_poll(
            limit=size, lease=part.lease, connection=part.connection, next_in=stepped_interval()
        )
        return len(claim.rows), _begin(claim, part.using)

    return sweep("poll_due()", batch, size=BATCH, limit=limit, budget=budget, connections=connections, ahead=_AHEAD)


def refresh(invocations: Invocation | Iterable[Invocation]) -> Counter[str]:
    """Ask about these rows now, whether they are due or not, and bring the instances up to date.

    An unsent row is sent as well, due or not. One that is ``gone`` is asked for once more: the settings may have led to
    another server when it was not found. Rows that another worker is busy with are only read again.

    Args:
        invocations: A row, or rows.

    Returns:
        As :func:`poll_due`.

    Raises:
        RuntimeError: A transaction is open.
    """
    return refresh_and_tell(invocations)[0]


def refresh_and_tell(invocations: Invocation | Iterable[Invocation]) -> tuple[Counter[str], dict[uuid.UUID, str]]:
    """Do what :func:`refresh` does, and tell which rows nothing could be learned of, by their keys, and why."""
    given = [invocations] if isinstance(invocations, Invocation) else list(invocations)
    done: Counter[str] = Counter()
    unanswered: dict[uuid.UUID, str] = {}
    by_database: dict[str, list[Invocation]] = {}
    for row in given:
        by_database.setdefault(write_alias(row), []).append(row)
    for using, rows in by_database.items():
        refuse_inside_transaction("refresh()", using)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            pks = [row.pk for row in batch]
            claim = _rows(using).claim_for_poll(limit=BATCH, lease=job_lease(), pks=pks)
            done += _begin(claim, using, unanswered)()
            for row in batch:
                if row.status == Status.GONE and (error := _ask_again(row, using)):
                    unanswered[row.pk] = error
            due = [row.pk for row in batch if row.status == Status.UNSENT and not row.is_leased]
            if due:
                done += delivery.deliver_now(due, using)
            done["unchanged"] += len(batch) - len(claim.rows) - len(due)
        for row in rows:
            row.refresh_from_db(using=using)
            if row.status == Status.UNSENT and row.delivery_error and not row.is_leased:
                unanswered[row.pk] = row.delivery_error
    return +done, unanswered


def _ask_again(row: Invocation, using: str) -> str:
    """Take a row back from ``gone`` if Restate knows it after all. Returns why that can't be read now, else nothing."""
    try:
        connection = connections[row.connection]
        output = connection.ingress.output(row.invocation_id)
    except (RestateError, ImproperlyConfigured) as error:
        logger.info("Whether Restate knows %s after all can't be read now: %s", row.invocation_id, error, row=row)
        return str(error)
    if output.state in {OutputState.READY, OutputState.FAILED}:
        write_end(row, recording.ended(row, output, connection.settings), using, leased=False)
    elif output.state is OutputState.NOT_READY:
        again: dict[str, Any] = {
            "status": Status.RUNNING,
            "next_poll_at": timezone.now(),
            "finished_at": None,
            "recorded_at": None,
        }
        _rows(using).write_back(row, missing_since=None, **again)
    if row.status != Status.GONE:
        outbox.bind_again(row, using)
    return ""


# ---------------------------------------------------------------- one round


def _begin(claim: PollClaim, using: str, unanswered: dict[uuid.UUID, str] | None = None) -> Callable[[], Counter[str]]:
    """Ask the Admin API about claimed rows, and return what waits for its answers and writes them down.

    Between the two the next rows can be claimed: the server and the database work at the same time then.

    Args:
        claim: The rows.
        using: Their database alias.
        unanswered: Takes note of rows that nothing could be learned of, and of why.
    """
    unanswered = {} if unanswered is None else unanswered
    by_connection: dict[str, list[Due]] = {}
    for row in claim.rows:
        by_connection.setdefault(row.connection, []).append(row)
    rounds: list[_Round] = []
    stranded: list[Due] = []
    for alias, group in by_connection.items():
        try:
            rounds.append(_Round(connections[alias], group, claim, using, unanswered))
        except ImproperlyConfigured as error:
            logger.error("Rows wait for connection %r: %s", alias, error, connection=alias)
            stranded += group
            unanswered.update((row.pk, str(error)) for row in group)

    def finish() -> Counter[str]:
        done = put_off(stranded, dt.timedelta(minutes=1), claim, using)
        for each in rounds:
            done += each.finish()
        return done

    return finish


class _Round:
    """What is asked about rows of one connection, and what comes of it."""

    def __init__(
        self,
        connection: Connection,
        rows: list[Due],
        claim: PollClaim,
        using: str,
        unanswered: dict[uuid.UUID, str],
    ) -> None:
        self.unanswered = unanswered
        self.connection = connection
        self.rows = rows
        self.claim = claim
        self.using = using
        self.work = measuring.work(measuring.Kind.POLL, connection.alias, size=len(rows))
        #: What the Admin API says, as it says it. None: there is none, or it can't be read now.
        self.told: Future[dict[str, dict[str, Any]] | None] | None = None
        if connection.admin is not None:
            self.told = in_background(partial(ask_admin, connection, [row.invocation_id for row in rows]))

    def finish(self) -> Counter[str]:
        """Write down the answers."""
        with self.work:
            return self._finish()

    def _finish(self) -> Counter[str]:
        told = None if self.told is None else self.told.result()
        loud = self.rows if told is None else [row for row in self.rows if says_more(row, told.get(row.invocation_id))]
        if not loud:
            return self._put_off_quiet(())
        done: Counter[str] = Counter()
        rows = _rows(self.using).claimed(self.claim, [row.pk for row in loud])
        self.work.about(rows)
        seen = None if told is None else read_rows(self.connection, rows, told)
        settings = self.connection.settings
        _claim_cancellations(self.connection, rows, self.using)
        unchanged = [row for row in rows if seen is not None and tells_nothing_new(row, seen)]
        known = {row.pk for row in unchanged}
        asked = [row for row in rows if row.pk not in known]
        ended: list[tuple[Invocation, dict[str, Any]]] = []
        for row, news in news_of(self.connection, asked, seen):
            if news.error is not None:
                self.unanswered[row.pk] = str(news.error)
            status = _settle(row, news, settings, self.using, ended)
            if status == "unchanged":
                unchanged.append(row)
            elif status:
                done[status] += 1
            if len(ended) >= _ENDS or (ended and (ended[-1][1].get("output_size") or 0) > LARGE):
                done += write_ends(ended, self.using)
                ended.clear()
        done += write_ends(ended, self.using)
        done += put_off_by_age(unchanged, self.claim, self.using)
        return done + self._put_off_quiet({row.pk for row in loud})

    def _put_off_quiet(self, loud: Collection[uuid.UUID]) -> Counter[str]:
        """Put off the rows of which nothing is new, if the claim has not done so."""
        quiet = [row for row in self.rows if row.pk not in loud]
        held = [row for row in quiet if row.pk in self.claim.held]
        done = put_off_by_age(held, self.claim, self.using)
        done["unchanged"] += len(quiet) - len(held)
        return +done


def _claim_cancellations(connection: Connection, rows: list[Invocation], using: str) -> None:
    """Take it upon this worker to send the cancellations that wait, so that nobody else sends them too."""
    for row in rows:
        if cancelling.is_wanted(row) and connection.admin is not None:
            row.cancel_is_ours = cancelling.claim(row, using)


# ---------------------------------------------------------------- what the news mean for a row


def _settle(
    row: Invocation,
    news: News,
    settings: ConnectionSettings,
    using: str,
    ended: list[tuple[Invocation, dict[str, Any]]],
) -> str:
    """Write down the news, or add an end to those that are written together.

    Returns:
        The new status, ``"unchanged"`` (to be put off), or ``""`` (written, or to be written with the ends).
    """
    if news.cancel_sent is not None:
        cancelling.settle(row, news.cancel_sent, using)
        if news.cancel_sent is cancelling.Sent.DONE:
            return str(row.status)
    output = news.output
    if news.unreadable and news.seen is not None:
        ended.append((row, recording.ended_unread(row, news.seen, _remembered(row))))
        return ""
    if news.too_large:
        ended.append((row, recording.ended_too_large(row, news.too_large, _remembered(row), news.seen)))
        return ""
    if output is not None and output.state in {OutputState.READY, OutputState.FAILED}:
        ended.append((row, recording.ended(row, output, settings, news.seen)))
        return ""
    if output is not None and output.state is OutputState.UNKNOWN:
        if news.seen is not None:
            # The Admin API has it and the ingress does not. That is no end to believe: they may be two servers.
            tell_of_two_servers(row)
            return "unchanged"
        return _missing(row, using)
    return _settle_open(row, news, settings, using)


def _settle_open(row: Invocation, news: News, settings: ConnectionSettings, using: str) -> str:
    """Write down where an invocation stands that has not ended."""
    changes: dict[str, Any] = {}
    if row.missing_since is not None and (news.output is not None or news.seen is not None):
        changes["missing_since"] = None
    if news.seen is not None and news.seen.status in IN_RESTATE:
        changes |= recording.times(row, news.seen)
        changes["status"] = news.seen.status
    elif news.stage:
        changes["status"] = news.stage
    if all(getattr(row, name) == value for name, value in changes.items()):
        return "unchanged"
    old = row.status
    changes.setdefault("status", old)
    won = _rows(using).write_back(row, lease=row.lease_token, **changes, **put_off_columns(row, settings))
    if won and row.status == Status.PAUSED and old != Status.PAUSED:
        # Without the last failure: those are a handler's words.
        logger.warning("Invocation %s of %s is paused, and waits for a person", row.pk, row.target, row=row)
    return str(row.status) if row.status != old else ""


def _remembered(row: Invocation) -> dt.timedelta:
    """Return how long Restate remembers a row's key after its end, where no answer says until when."""
    return connections[row.connection].services.idempotency_retention(row.service, row.handler)


def _missing(row: Invocation, using: str) -> str:
    """Restate says that it does not know it: believed only twice, some seconds apart."""
    now = timezone.now()
    if row.missing_since is not None and now - row.missing_since >= recording.CONFIRM_AFTER:
        if row.cancel_sent_at is not None and row.started_at is None:
            # One that is cancelled before it started leaves nothing behind.
            return end(row, recording.cancelled_before_start(), using)
        logger.warning("Restate no longer knows invocation %s of row %s", row.invocation_id, row.pk, row=row)
        return end(row, recording.gone(), using)
    _rows(using).write_back(
        row,
        lease=row.lease_token,
        missing_since=row.missing_since or now,
        polled_at=now,
        next_poll_at=now + recording.CONFIRM_AFTER,
        lease_until=None,
        lease_token=None,
    )
    return ""


def _rows(using: str) -> InvocationQuerySet:
    return Invocation.objects.using(using)
