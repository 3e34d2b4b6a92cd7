"""The questions that are asked of the invocations, and the two ways in which a row is written after it was recorded.

A *claim* takes rows that are due: it picks primary keys by one range read and takes them by a compare-and-set update
that needs no row lock, so it works alike on SQLite, PostgreSQL and MariaDB. A *write-back* is a compare-and-set on the
status and the lease that the row was read with, so a late worker loses quietly. Imports ``lifecycle`` and the ground.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from django.db import DatabaseError, OperationalError, models, router, transaction
from django.db.models import Case, Expression, F, Q, Value, When
from django.db.models.functions import Coalesce
from django.db.models.lookups import In
from django.utils import timezone

from restate_django import measuring, signals, statements
from restate_django.conf import swept_databases
from restate_django.ids import uuid7_floor
from restate_django.lifecycle import (
    BACKING_OFF_FOR_LONG,
    ENDED,
    FINISHED,
    IN_RESTATE,
    NEEDS_ATTENTION,
    OPEN,
    Status,
    may_become,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler

    from restate_django.models import Invocation

#: Columns that can be large; lists leave them in the database.
BODY_COLUMNS: Final = ("payload", "payload_bytes", "output", "output_bytes", "failure_metadata")

# Candidates read for each row wanted: taking at random from a larger set keeps two workers from reaching for the same.
_SPREAD: Final = 4
# Rows in one UPDATE with a value for each: more make the statement slower than they save.
_TOGETHER: Final = 250


# Seconds to wait at most before a write that met a deadlock is done again.
_PAUSES: Final = (0.05, 0.2)


class Due(NamedTuple):
    """What a poll reads of each row that is due: enough to see that nothing is new, and to say when to ask again."""

    pk: uuid.UUID
    connection: str
    status: str
    invocation_id: str
    #: When Restate accepted it, or it was recorded.
    waits_since: dt.datetime
    #: When a delayed one runs.
    starts_at: dt.datetime | None
    has_started: bool
    is_missing: bool
    retry_count: int
    last_failure: str
    cancel_requested_at: dt.datetime | None
    cancel_is_sent: bool


# As few times as can be: to read one costs a driver more than the rest of the row.
_DUE: Final = (
    "pk",
    "connection",
    "status",
    "invocation_id",
    Coalesce("accepted_at", "created_at"),
    Coalesce("execution_at", "run_at"),
    Q(started_at__isnull=False),
    Q(missing_since__isnull=False),
    "retry_count",
    "last_failure",
    "cancel_requested_at",
    Q(cancel_sent_at__isnull=False),
)


@dataclass
class PollClaim:
    """Rows that a worker has taken to ask about them.

    Attributes:
        token: What every write-back of them is fenced by.
        at: When they were taken.
        until: Until when nobody else takes them.
        held: Those that are held by a lease, and are due again when it ends. The others are put off already.
        rows: The rows.
    """

    token: uuid.UUID
    at: dt.datetime
    until: dt.datetime
    held: set[uuid.UUID] = field(default_factory=set)
    rows: list[Due] = field(default_factory=list)


class _AnyLease:
    """The type of ``ANY_LEASE``."""


#: For a write-back that does not hold a lease: the status alone is compared.
ANY_LEASE: Final = _AnyLease()


class InvocationQuerySet(models.QuerySet["Invocation"]):
    """Invocations, asked about in the app's own words."""

    _db: str | None

    # ------------------------------------------------------------------ questions

    def unsent(self) -> Self:
        """Rows that Restate has not accepted yet."""
        return self.filter(status=Status.UNSENT)

    def open(self) -> Self:
        """Rows of which more will be heard without a person: unsent ones, and those that Restate has not ended."""
        return self.filter(status__in=sorted(OPEN))

    def finished(self) -> Self:
        """Rows that are settled: succeeded, failed, cancelled, killed, gone, rejected."""
        return self.filter(status__in=sorted(FINISHED))

    def needs_attention(self) -> Self:
        """Rows that a person should look at: paused, undeliverable, rejected, or backing off for an hour."""
        return self.filter(Q(status__in=sorted(NEEDS_ATTENTION)) | backing_off_for_long())

    def for_object(self, obj: models.Model) -> Self:
        """Rows that were sent with ``related_to=obj``."""
        from django.contrib.contenttypes.models import ContentType

        # A content type's number is its database's own.
        content_type = ContentType.objects.db_manager(self.db).get_for_model(obj)
        return self.filter(related_content_type_id=content_type.pk, related_id=str(obj.pk))

    def for_target(self, service: str, handler: str | None = None, *, key: str | None = None) -> Self:
        """Rows for a service, for one of its handlers, or for one object of it."""
        rows = self.filter(service=service)
        if handler is not None:
            rows = rows.filter(handler=handler)
        return rows if key is None else rows.filter(key=key)

    def recorded_between(self, start: dt.datetime | None, end: dt.datetime | None) -> Self:
        """Rows recorded from ``start`` to before ``end``, by a range of primary keys (they are ordered by time)."""
        rows = self
        if start is not None:
            rows = rows.filter(pk__gte=uuid7_floor(start))
        if end is not None:
            rows = rows.filter(pk__lt=uuid7_floor(end))
        return rows

    def finished_since(self, cursor: str | dt.datetime | Invocation | None = None, *, settle: float = 0) -> Self:
        """Rows that finished after a point, in the order in which that was recorded: for what must not be missed.

        Args:
            cursor: Where the last reading ended: ``invocation.finished_cursor`` of the last row handled, that row
                itself, a moment, or None for the beginning.
            settle: Seconds that a row must have been finished for. Two workers that finish rows at the same instant
                may commit in the other order; a reader that keeps only a cursor asks for a second or two here.
        """
        rows = self.filter(recorded_at__isnull=False).order_by("recorded_at", "pk")
        if settle:
            rows = rows.filter(recorded_at__lte=timezone.now() - dt.timedelta(seconds=settle))
        if cursor is None:
            return rows
        if isinstance(cursor, dt.datetime):
            return rows.filter(recorded_at__gt=cursor)
        text = cursor if isinstance(cursor, str) else cursor.finished_cursor
        try:
            moment, pk = text.split("/")
            when, key = dt.datetime.fromisoformat(moment), uuid.UUID(pk)
        except ValueError:
            raise ValueError(f"finished_since() takes an invocation's finished_cursor, not {cursor!r}.") from None
        return rows.filter(recorded_at__gte=when).filter(Q(recorded_at__gt=when) | Q(pk__gt=key))

    def without_bodies(self) -> Self:
        """The same rows with payloads and outputs left in the database until they are asked for."""
        return self.defer(*BODY_COLUMNS)

    # ------------------------------------------------------------------ claims

    def claim_for_delivery(
        self, *, limit: int, lease: dt.timedelta, pks: Collection[uuid.UUID] = (), connection: str | None = None
    ) -> list[Invocation]:
        """Take rows that are due to be sent, for one worker and for the length of a lease.

        The attempt is counted here, and the moment from which the row's outcome is unknown is set here where it is
        not set yet: a worker that dies right after the claim has left both. A call's row and one whose cancellation
        was asked for are only read about, never sent, so for them that moment is not set.

        Args:
            limit: Rows at most.
            lease: For how long nobody else may take them.
            pks: Take only these, due by the clock or not, if no other worker holds them.
            connection: Of what is due, take this connection's alone. One: that is a range of an index, two are none.

        Returns:
            The rows, each with the ``lease_token`` of this claim. ``unknown_since`` equals ``claimed_at`` on those
            whose earlier attempts provably ran nothing.
        """
        now = timezone.now()
        to_send = Q(unknown_since__isnull=True, cancel_requested_at__isnull=True, verb="send")
        return self._claim(
            self.filter(status=Status.UNSENT),
            "next_attempt_at",
            now=now,
            limit=limit,
            lease=lease,
            pks=pks,
            connection=connection,
            attempts=F("attempts") + 1,
            unknown_since=Case(When(to_send, then=Value(now)), default=F("unknown_since")),
        )

    def claim_for_poll(
        self,
        *,
        limit: int,
        lease: dt.timedelta,
        pks: Collection[uuid.UUID] = (),
        connection: str | None = None,
        next_in: Callable[[Due], dt.timedelta] | None = None,
    ) -> PollClaim:
        """Take rows that are due to be asked about, for one worker.

        A row that would be asked about again only after a lease's time is put off to that moment at once, and nothing
        more is written where there is no news of it: one UPDATE of many rows, instead of two. Should the worker die, it
        is asked about then. The others are held by a lease.

        Args:
            limit: Rows at most.
            lease: For how long nobody else may take them.
            pks: Take only these, due by the clock or not, if no other worker holds them, and hold each by a lease.
            connection: Of what is due, take this connection's alone, as by :meth:`claim_for_delivery`.
            next_in: After how long a row is asked about again if nothing is new. None: it holds each by a lease.
        """
        now = timezone.now()
        if pks:
            free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
            found = self._due(self.filter(among(pks))[:limit])
        else:
            free = Q(next_poll_at__lte=now)
            found = self._window(self._of(connection).filter(free).order_by("next_poll_at"), limit)
        claim = PollClaim(uuid.uuid4(), now, now + lease)
        # By the wait that each is put off by (None: held by a lease), and by whether its cancellation was asked for: a
        # wish that comes between the reading and the taking must not wait until the next time.
        groups: dict[tuple[dt.timedelta | None, bool], list[Due]] = {}
        for row in found:
            wait = None if next_in is None else next_in(row)
            is_held = wait is None or wait < lease
            if is_held:
                claim.held.add(row.pk)
            groups.setdefault((None if is_held else wait, row.cancel_requested_at is not None), []).append(row)
        legal = self.filter(free, status__in=sorted(IN_RESTATE))
        taken = 0
        for (wait, wished), rows in groups.items():
            changes: dict[str, Any] = {"lease_until": claim.until, "next_poll_at": claim.until}
            if wait is not None:
                changes = {"lease_until": None, "next_poll_at": now + wait, "polled_at": now}
            # In order of the primary key: two workers that update in the same order can't deadlock.
            same = legal.filter(among(sorted(row.pk for row in rows)), cancel_requested_at__isnull=not wished)
            taken += unless_deadlocked(partial(same.update, lease_token=claim.token, **changes), self.db)
        claim.rows = found
        if taken < len(found):
            mine = self.filter(among([row.pk for row in found]), lease_token=claim.token)
            won = set(mine.values_list("pk", flat=True))
            claim.rows = [row for row in found if row.pk in won]
        return claim

    def _of(self, connection: str | None) -> Self:
        return self if connection is None else self.filter(connection=connection)

    def _due(self, rows: Self) -> list[Due]:
        columns: Any = _DUE  # conditions may stand among them, though the stubs know of names and expressions alone
        return list(map(Due._make, rows.values_list(*columns)))

    def _window(self, rows: Self, limit: int) -> list[Due]:
        """Read rows from somewhere near the front, where another worker is not likely to read at the same time."""
        skip = random.randrange(limit * (_SPREAD - 1) + 1)  # noqa: S311 - spreads work, guards no secret
        found = self._due(rows[skip : skip + limit])
        if len(found) < limit and skip:
            # There are not so many. How many is known now, if any was found.
            left = max(0, skip + len(found) - limit) if found else 0
            skip = random.randrange(left + 1)  # noqa: S311 - as above
            found = self._due(rows[skip : skip + limit])
        return found

    def claimed(self, claim: PollClaim, pks: Collection[uuid.UUID]) -> list[Invocation]:
        """Return whole rows of a claim, as they are now: those that are still this worker's.

        Args:
            claim: The claim.
            pks: The primary keys that are wanted of it.
        """
        rows = list(self.without_bodies().filter(among(pks), lease_token=claim.token).order_by("pk"))
        for row in rows:
            # A row that is put off needs no lease in the database: nobody takes it before then.
            row.claimed_at, row.lease_until = claim.at, claim.until
        return rows

    def _claim(
        self,
        legal: InvocationQuerySet,
        due: str,
        *,
        now: dt.datetime,
        limit: int,
        lease: dt.timedelta,
        pks: Collection[uuid.UUID],
        connection: str | None,
        **changes: Any,
    ) -> list[Invocation]:
        if pks:
            wanted = sorted(pks)[:limit]
            free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
        else:
            free = Q(**{f"{due}__lte": now})
            waiting = self._of(connection).filter(free).order_by(due)
            candidates = list(waiting.values_list("pk", flat=True)[: limit * _SPREAD])
            if len(candidates) > limit:
                candidates = random.sample(candidates, limit)
            # In order of the primary key: two workers that update in the same order can't deadlock.
            wanted = sorted(candidates)
        if not wanted:
            return []
        token = uuid.uuid4()
        until = now + lease
        take = legal.filter(free, among(wanted))
        taken = unless_deadlocked(
            lambda: take.update(lease_token=token, lease_until=until, **{due: until}, **changes), self.db
        )
        if not taken:
            return []
        rows = list(self.filter(among(wanted), lease_token=token).order_by("pk"))
        for row in rows:
            row.claimed_at = now
        return rows

    def renew_lease(
        self, invocations: Iterable[Invocation], *, token: uuid.UUID, lease: dt.timedelta
    ) -> set[uuid.UUID]:
        """Hold rows for longer, of which their owner knows that it has not sent them yet.

        Args:
            invocations: Unsent rows of one lease.
            token: That lease's token. Where another worker has taken the row since, it is not ours any more.
            lease: For how long from now.

        Returns:
            The primary keys that are still ours.
        """
        rows = {row.pk: row for row in invocations}
        now = timezone.now()
        until = now + lease
        ours_still = self.filter(pk__in=sorted(rows), status=Status.UNSENT, lease_token=token)
        unless_deadlocked(
            lambda: ours_still.update(lease_until=until, next_attempt_at=until, unknown_since=now), self.db
        )
        ours = set(self.filter(pk__in=sorted(rows), lease_token=token).values_list("pk", flat=True))
        for pk in ours:
            rows[pk].lease_until, rows[pk].next_attempt_at, rows[pk].unknown_since = until, until, now
        return ours

    def claim_cancel(self, invocation: Invocation, *, lease: dt.timedelta) -> bool:
        """Take it upon oneself to send a cancellation, for the length of a lease. Tells whether it is ours to send.

        A second cancellation would cancel the compensation that the first one started, so one worker alone sends it.
        The row's status is not compared: it may change as it likes meanwhile.

        Args:
            invocation: A row that Restate has. Its ``cancel_claimed_at`` is the claim's time afterwards.
            lease: How old somebody else's claim must be before it is taken over.
        """
        now = timezone.now()
        free = Q(cancel_claimed_at__isnull=True) | Q(cancel_claimed_at__lte=now - lease)
        rows = self.filter(free, pk=invocation.pk, status__in=sorted(IN_RESTATE), cancel_sent_at__isnull=True)
        requested = Coalesce(F("cancel_requested_at"), Value(now))
        if not rows.update(cancel_claimed_at=now, cancel_requested_at=requested):
            return False
        invocation.cancel_claimed_at = now
        invocation.cancel_requested_at = invocation.cancel_requested_at or now
        return True

    # ------------------------------------------------------------------ write-backs

    def write_back(
        self, invocation: Invocation, *, lease: uuid.UUID | _AnyLease | None = ANY_LEASE, **changes: Any
    ) -> bool:
        """Write what was learned about a row, if it still is as it was read. Tells whether this write won.

        The winner's instance carries the new values, and its signals are sent after the commit.

        Args:
            invocation: The row as it was read: its ``status`` is compared.
            lease: The lease that the writer holds, compared as well; ``ANY_LEASE`` for one who holds none.
            changes: Columns and their new values. A change of status must be a legal one.

        Raises:
            ValueError: The change of status is none that ``lifecycle`` allows (a bug of the caller's).
        """
        old = invocation.status
        new = str(changes.get("status", old))
        if not may_become(old, new, verb=invocation.verb):
            raise ValueError(f"An invocation can't go from {old} to {new}.")
        as_read: list[tuple[str, Any]] = [("id", invocation.pk), ("status", old)]
        if not isinstance(lease, _AnyLease):
            as_read.append(("lease_token", lease))
        if new != old and new in FINISHED:
            changes.setdefault("recorded_at", timezone.now())
        using = self._db or write_alias(invocation)
        # Inside somebody's transaction (a TestCase's, say) an error here must not break it: a savepoint of our own.
        guard = transaction.atomic(using=using) if transaction.get_connection(using).in_atomic_block else None
        with guard or contextlib.nullcontext():
            if self.query.where or any(hasattr(value, "resolve_expression") for value in changes.values()):
                won = self.using(using).filter(Q(*as_read)).update(**changes) == 1
            else:
                won = statements.update_where(self.model, using, changes, as_read) == 1
        if not won:
            return False
        for name, value in changes.items():
            if not hasattr(value, "resolve_expression"):
                setattr(invocation, name, value)
        if new != old:
            # Only now: outside a transaction it is called here and at once, and receivers are to see the new values.
            after_commit(lambda: _announce(invocation, old, new), using)
        return True

    def write_back_many(self, changes: Sequence[tuple[Invocation, dict[str, Any]]]) -> list[bool]:
        """Write what was learned about claimed rows, each under its lease, by few statements.

        As :meth:`write_back` for each of them; rows whose changes name the same columns are written together. Where one
        of them was lost to another worker, or has a value that the database refuses, they are written one by one.

        Args:
            changes: Rows as they were claimed, each with its columns and their new values.

        Returns:
            For each row whether this write won.
        """
        if len(changes) == 1:
            row, values = changes[0]
            return [self.write_back(row, lease=row.lease_token, **values)]
        won: dict[uuid.UUID, bool] = {}
        for group, together in self.write_groups(changes):
            for row, values in group:
                won[row.pk] = together or self.write_back(row, lease=row.lease_token, **values)
        return [won[row.pk] for row, _values in changes]

    def write_groups(
        self, changes: Sequence[tuple[Invocation, dict[str, Any]]]
    ) -> Iterator[tuple[Sequence[tuple[Invocation, dict[str, Any]]], bool]]:
        """Write claimed rows in groups that take one statement each, as far as they can be written together.

        Args:
            changes: As for :meth:`write_back_many`.

        Yields:
            Each group, and whether it is written. One that is not is as it was, for the caller to write row by row.
        """
        groups: dict[tuple[Any, ...], list[tuple[Invocation, dict[str, Any]]]] = {}
        for row, values in changes:
            kind = (row.status, row.lease_token, row.verb, values.get("status"), tuple(sorted(values)))
            groups.setdefault(kind, []).append((row, values))
        for group in groups.values():
            for start in range(0, len(group), _TOGETHER):
                batch = group[start : start + _TOGETHER]
                yield batch, len(batch) > 1 and self._write_together(batch)

    def _write_together(self, batch: list[tuple[Invocation, dict[str, Any]]]) -> bool:
        """Write rows by one statement: all of them, or none."""
        first, first_values = batch[0]
        old, new = first.status, str(first_values.get("status", first.status))
        if not may_become(old, new, verb=first.verb):
            return False
        if new != old and new in FINISHED:
            for _row, changes in batch:
                changes.setdefault("recorded_at", timezone.now())
        columns: dict[str, Any] = {}
        for name in first_values:
            values = {row.pk: changes[name] for row, changes in batch}
            different = len({repr(value) for value in values.values()}) > 1
            columns[name] = ByPrimaryKey(self.model._meta.get_field(name), values) if different else first_values[name]
        using = self._db or write_alias(first)
        try:
            with transaction.atomic(using=using):
                # In order of the primary key, as every write: two workers can't deadlock.
                same = self.using(using).filter(
                    among(sorted(row.pk for row, _values in batch)), status=old, lease_token=first.lease_token
                )
                if same.update(**columns) != len(batch):
                    transaction.set_rollback(True, using=using)
                    return False
        except DatabaseError:
            # A deadlock after all, or a value that is refused: one by one it is found out.
            return False
        for row, changes in batch:
            for name, value in changes.items():
                setattr(row, name, value)
        if new != old:
            rows = [row for row, _changes in batch]
            after_commit(lambda: _announce_all(rows, old, new), using)
        return True

    def put_off(self, invocations: Iterable[Invocation | Due], *, lease: uuid.UUID, due: str, when: dt.datetime) -> int:
        """Give up a lease on rows about which nothing new was learned, to be due again at one moment.

        Args:
            invocations: Rows of one claim.
            lease: The claim's token.
            due: ``next_attempt_at`` or ``next_poll_at``.
            when: When the rows are to be due again.
        """
        pks = sorted(row.pk for row in invocations)
        rows = self.filter(among(pks), lease_token=lease)
        changes: dict[str, Any] = {due: when, "lease_until": None, "lease_token": None}
        if due == "next_poll_at":
            changes["polled_at"] = timezone.now()
        return unless_deadlocked(lambda: rows.update(**changes), self.db)


def backing_off_for_long(now: dt.datetime | None = None) -> Q:
    """Return the condition of rows whose tries have been failing for ``BACKING_OFF_FOR_LONG``.

    It is one range of the index on (status, id), for a row that started then was recorded before.
    """
    since = (now or timezone.now()) - BACKING_OFF_FOR_LONG
    recorded_before = Q(status=Status.BACKING_OFF, pk__lt=uuid7_floor(since))
    return recorded_before & (Q(started_at__isnull=True) | Q(started_at__lte=since))


def write_alias(invocation: Invocation) -> str:
    """Return the database that a row is written to: not always the one it was read from."""
    read_from = invocation._state.db
    # A replica is not swept, so nothing is written there.
    return read_from if read_from in swept_databases() else router.db_for_write(type(invocation), instance=invocation)


def after_commit(callback: Callable[[], None], using: str) -> None:
    """Call something after the commit of what was just written; at once where Django knows of no commit to come.

    The callback is a function and no partial: Django names it by its ``__qualname__`` when it logs an error.
    """
    database = transaction.get_connection(using)
    if database.in_atomic_block or database.get_autocommit():
        transaction.on_commit(callback, using=using, robust=True)
    else:
        callback()


def unless_deadlocked(write: Callable[[], int], using: str) -> int:
    """Do a write of its own, again where the database chose it as a deadlock's victim or was locked for a moment.

    Args:
        write: One statement. Inside a transaction it is not repeated: the whole of that is lost.
        using: Its database alias.
    """
    for pause in _PAUSES:
        try:
            return write()
        except OperationalError:
            if transaction.get_connection(using).in_atomic_block:
                raise
            time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries, guards no secret
    return write()


def among(pks: Collection[uuid.UUID]) -> Q | Among:
    """Return the condition that a row is one of these, for ``filter``."""
    return Among(pks) if pks else Q(pk__in=())


class Among(In):
    """``pk IN (...)``: on PostgreSQL with one array for a parameter, which costs the driver far less than a thousand.

    A lookup and no other expression: such a one MariaDB and MySQL are asked to compare with true, which no index helps.

    Args:
        pks: Primary keys, at least one.
    """

    def __init__(self, pks: Collection[uuid.UUID]) -> None:
        super().__init__(F("pk"), list(pks))

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, Any]:
        """Write it with an array."""
        column, params = self.process_lhs(compiler, connection)
        return f"{column} = ANY(%s::uuid[])", (*params, [str(pk) for pk in self.rhs])


class ByPrimaryKey(Expression):
    """A value per row in one UPDATE, far cheaper to build than Django's ``Case``.

    On PostgreSQL the values are one parameter, a JSON object that each row looks itself up in: a statement with a
    thousand parameters costs the driver more than the database. Elsewhere, and for columns that are JSON or bytes
    themselves, it is ``CASE id WHEN .. THEN .. END``.

    Args:
        field: The column that is written.
        values: Values by primary key: those of all rows that the statement can touch.
    """

    def __init__(self, field: Any, values: dict[uuid.UUID, Any]) -> None:
        super().__init__(output_field=field)
        self.column = field
        self.values = values

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:  # noqa: ARG002 - the signature of every expression
        """Write it in the words that every database knows."""
        # PostgreSQL does not guess a parameter's type inside CASE.
        cast = f"::{self.column.db_type(connection)}" if connection.vendor == "postgresql" else ""
        params: list[Any] = []
        for pk, value in self.values.items():
            params += [self._key.get_db_prep_value(pk, connection), self.column.get_db_prep_save(value, connection)]
        return f"CASE {self._quoted(connection)}{f' WHEN %s THEN %s{cast}' * len(self.values)} END", tuple(params)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        """Write it as a look-up in one parameter, where the column's values can be told in JSON's own types."""
        if not isinstance(self.column, _TOLD_IN_JSON):
            return self.as_sql(compiler, connection)
        told = json.dumps({str(pk): _told(value) for pk, value in self.values.items()})
        # jsonb is looked up by a binary search, and read once: the parameter is a constant to the planner.
        looked_up = f"(%s::jsonb ->> {self._quoted(connection)}::text)::{self.column.db_type(connection)}"
        return looked_up, (told,)

    @property
    def _key(self) -> Any:
        return self.column.model._meta.pk

    def _quoted(self, connection: BaseDatabaseWrapper) -> str:
        return str(connection.ops.quote_name(str(self._key.column)))


#: Columns whose values PostgreSQL reads from JSON's text as they were.
_TOLD_IN_JSON: Final = (
    models.CharField,
    models.TextField,
    models.DateTimeField,
    models.BooleanField,
    models.IntegerField,
)


def _told(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _announce_all(invocations: list[Invocation], old: str, new: str) -> None:
    for invocation in invocations:
        _announce(invocation, old, new)


def _announce(invocation: Invocation, old: str, new: str) -> None:
    """Send the signals of a change that is committed."""
    if measuring.is_on():
        _measure(invocation, old, new)
    sender = type(invocation)
    if old == Status.UNSENT and invocation.accepted_at is not None and new in IN_RESTATE | ENDED:
        signals.invocation_accepted.send_robust(sender, invocation=invocation)
    signals.invocation_status_changed.send_robust(sender, invocation=invocation, old=old, new=new)
    if new == Status.PAUSED:
        signals.invocation_paused.send_robust(sender, invocation=invocation)
    elif new == Status.UNDELIVERABLE:
        signals.invocation_undeliverable.send_robust(sender, invocation=invocation)
    if new in FINISHED:
        signals.invocation_finished.send_robust(sender, invocation=invocation)


def _measure(invocation: Invocation, old: str, new: str) -> None:
    """Report a change that is committed."""
    connection, now = invocation.connection, timezone.now()
    if new in FINISHED | NEEDS_ATTENTION:
        target = {"connection": connection, "service": invocation.service, "handler": invocation.handler}
        measuring.add(measuring.OUTCOMES, 1, **target, status=new)
    if old == Status.UNSENT and new in IN_RESTATE | ENDED and invocation.verb == "send":
        waited = (invocation.accepted_at or now) - invocation.created_at
        measuring.add(measuring.ACCEPTANCE, max(0.0, waited.total_seconds()), connection=connection)
    if new in ENDED and invocation.finished_at is not None:
        late = (invocation.recorded_at or now) - invocation.finished_at
        measuring.add(measuring.RECORDING, max(0.0, late.total_seconds()), connection=connection)
