"""A database of invocations: its tables and indexes, who holds it locked, whether the jobs run on it, and its rows.

Imports the records and ``vitals``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Final

from django.db import Error as DatabaseTrouble
from django.db import OperationalError, transaction
from django.db import connections as databases
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from restate_django import vitals
from restate_django.conf import all_settings
from restate_django.doctor.lines import Level, Line
from restate_django.doctor.servers import clock_line
from restate_django.logs import trouble
from restate_django.models import Invocation, JobRun
from restate_django.spans import span
from restate_django.vitals import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from restate_django.vitals import Vitals

#: A transaction that has held locks for longer than this keeps the jobs waiting.
LONG: Final = dt.timedelta(minutes=1)
#: How long the clean-up may not have run.
UNPRUNED: Final = dt.timedelta(days=2)
# Seconds that SQLite may take to let somebody write.
_SQLITE_WAIT: Final = 3
# What a claim reads, and the index that gives it the rows.
_CLAIMS: Final = (
    ("delivery", "next_attempt_at", "restate_inv_next_attempt"),
    ("polling", "next_poll_at", "restate_inv_next_poll"),
)


def database(using: str) -> Iterator[Line]:
    """Look at one database.

    Args:
        using: Its alias in ``DATABASES``.
    """
    about = f"database {using}"
    if using not in databases:
        # The checks have said so.
        return
    found = databases[using]
    try:
        pending = _pending_migrations(found)
        if pending:
            names = ", ".join(pending)
            yield Line(Level.ERROR, about, f"Migrations are missing: {names}.", "Run manage.py migrate.")
            return
        yield Line(Level.OK, about, f"It answers ({found.display_name}), and its migrations are complete.")
        seen = vitals.look(using)
        yield from _jobs(about, seen)
        yield from _rows(about, seen)
        yield from _clock(about, found)
        yield from _indexes(about, found)
        yield from _locks(about, found)
    except DatabaseTrouble as error:
        yield Line(
            Level.ERROR, about, f"It does not answer as it should: {trouble(error)}", "Nothing works without it."
        )


def _pending_migrations(database: BaseDatabaseWrapper) -> list[str]:
    executor = MigrationExecutor(database)
    leaves = [key for key in executor.loader.graph.leaf_nodes() if key[0] == Invocation._meta.app_label]
    plan = executor.migration_plan(leaves)
    return [each.name for each, _backwards in plan if each.app_label == Invocation._meta.app_label]


# ---------------------------------------------------------------- the jobs and the rows


def _jobs(about: str, seen: Vitals) -> Iterator[Line]:
    """Say of each job when it last ran."""
    of_jobs = {Trouble.NO_DELIVERY: JobRun.Job.DELIVER, Trouble.NO_POLL: JobRun.Job.POLL}
    stale = {of_jobs[fault.trouble]: fault for fault in vitals.faults(seen) if fault.trouble in of_jobs}
    for job in (JobRun.Job.DELIVER, JobRun.Job.POLL):
        if job in stale:
            yield Line(Level.ERROR, about, stale[job].text, stale[job].remedy)
        else:
            yield Line(Level.OK, about, f"The job {job.label} {_ran(seen, job)}.")
    since = seen.since_run(JobRun.Job.PRUNE)
    if since is not None and since <= UNPRUNED:
        yield Line(Level.OK, about, f"The job {JobRun.Job.PRUNE.label} {_ran(seen, JobRun.Job.PRUNE)}.")
    elif since is None and not _has_old_rows(seen.using):
        # Beat starts it an interval after its own start.
        yield Line(Level.NOTE, about, f"The job {JobRun.Job.PRUNE.label} has not run yet, and no row is old.")
    elif any(settings.retention is not None for settings in all_settings().values()):
        text = "has never run" if since is None else f"last ran {span(since)} ago"
        remedy = "Let beat, restate_relay or cron (restate_prune) run it: the table grows without it."
        yield Line(Level.WARNING, about, f"The job {JobRun.Job.PRUNE.label} {text}.", remedy)
    for run in seen.runs.values():
        if run.is_failing:
            text = f"The job {run.get_job_display()} last ended in an error: {run.error}"
            yield Line(Level.ERROR, about, text, "Look into the worker's log.")


def _has_old_rows(using: str) -> bool:
    oldest = Invocation.objects.using(using).order_by("pk").values_list("created_at", flat=True).first()
    return oldest is not None and oldest < timezone.now() - UNPRUNED


def _ran(seen: Vitals, job: JobRun.Job) -> str:
    run = seen.runs[job]
    counts = ", ".join(f"{count} {status}" for status, count in sorted(run.counts.items())) or "nothing"
    since = seen.since_run(job) or dt.timedelta(0)
    return f"ran {span(since)} ago, for {span(dt.timedelta(seconds=run.seconds))}: {counts}"


def _rows(about: str, seen: Vitals) -> Iterator[Line]:
    """Say what waits: too long to be sent, or for a person."""
    wrong = [fault for fault in vitals.faults(seen) if fault.trouble is Trouble.UNSENT or fault.is_for_a_person]
    for fault in wrong:
        level = Level.WARNING if fault.is_for_a_person else Level.ERROR
        why = f" The last attempt: {fault.detail}" if fault.detail else ""
        yield Line(level, about, fault.text + why, fault.remedy)
    if not wrong:
        counts = {status: count for status, count in seen.open.items() if count}
        told = ", ".join(f"{count}{'+' * (count >= vitals.COUNTED)} {status}" for status, count in counts.items())
        yield Line(Level.OK, about, f"No row waits for too long, or for a person. Open: {told or 'none'}.")


# ---------------------------------------------------------------- the machine


def _clock(about: str, database: BaseDatabaseWrapper) -> Iterator[Line]:
    """Compare a database server's clock with ours. Workers' clocks are compared with each other through its rows."""
    queries = {"postgresql": "SELECT clock_timestamp()", "mysql": "SELECT UTC_TIMESTAMP(6)"}
    if database.vendor not in queries:
        return
    with database.cursor() as cursor:
        cursor.execute(queries[database.vendor])
        theirs: dt.datetime = cursor.fetchone()[0]
    if timezone.is_naive(theirs):
        theirs = theirs.replace(tzinfo=dt.UTC)
    yield clock_line(about, "The database server's clock", theirs - timezone.now())


def _indexes(about: str, database: BaseDatabaseWrapper) -> Iterator[Line]:
    """Say whether the indexes are there, and whether a claim can use its own."""
    with database.cursor() as cursor:
        there = database.introspection.get_constraints(cursor, Invocation._meta.db_table)
    missing = sorted({index.name for index in Invocation._meta.indexes} - set(there))
    if missing:
        text = f"Indexes are missing: {', '.join(missing)}."
        yield Line(Level.ERROR, about, text, "Make them again: each sweep reads the whole table without.")
        return
    unused = [f"{job} ({index})" for job, column, index in _CLAIMS if index not in _plan(database, column)]
    if unused:
        text = f"The database uses no index to find what is due: {', '.join(unused)}."
        yield Line(Level.ERROR, about, text, "Make them again (REINDEX): each sweep reads the whole table.")
    else:
        yield Line(Level.OK, about, "The indexes are there, and what is due is found by them.")


def _plan(database: BaseDatabaseWrapper, column: str) -> str:
    """Return how the database finds the rows that are due by a column."""
    rows = Invocation.objects.using(database.alias).filter(**{f"{column}__lte": timezone.now()})
    due = rows.order_by(column).values_list("pk")[:20]
    if database.vendor != "postgresql":
        return due.explain()
    with transaction.atomic(using=database.alias), database.cursor() as cursor:
        # What can be used is asked, not what is best for the few rows of a small table: the index that has the order.
        for other in ("seqscan", "bitmapscan", "sort"):
            cursor.execute(f"SET LOCAL enable_{other} = off")
        return due.explain()


def _locks(about: str, database: BaseDatabaseWrapper) -> Iterator[Line]:
    """Say who has been holding locks for long, as far as the database tells."""
    held = {"postgresql": _held_postgresql, "mysql": _held_mysql, "sqlite": _held_sqlite}.get(database.vendor)
    if held is None:
        return
    try:
        # A savepoint of its own, where there is a transaction: a question that is refused must not end that.
        guard = transaction.atomic(using=database.alias) if database.in_atomic_block else contextlib.nullcontext()
        with guard:
            text = held(database)
    except DatabaseTrouble:
        yield Line(Level.NOTE, about, "Who holds locks can't be looked at: this database user may not.")
        return
    if text:
        yield Line(Level.WARNING, about, text, "End it, and the program that leaves transactions open. The jobs wait.")
    else:
        yield Line(Level.OK, about, "Nobody has been holding locks for long.")


def _held_postgresql(database: BaseDatabaseWrapper) -> str:
    with database.cursor() as cursor:
        # A lock that reading takes keeps nobody from writing.
        cursor.execute(
            "SELECT a.pid, EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start), a.state FROM pg_locks l "
            "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.relation = to_regclass(%s) "
            "AND l.mode NOT IN ('AccessShareLock') AND a.pid <> pg_backend_pid() "
            "AND a.xact_start < clock_timestamp() - %s * INTERVAL '1 second' ORDER BY a.xact_start LIMIT 1",
            [Invocation._meta.db_table, LONG.total_seconds()],
        )
        row = cursor.fetchone()
    if row is None:
        return ""
    pid, seconds, state = row
    held = span(dt.timedelta(seconds=float(seconds)))
    return f"A transaction has been holding locks on the table for {held}: process {pid}, {state}."


def _held_mysql(database: BaseDatabaseWrapper) -> str:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) FROM information_schema.innodb_trx "
            "WHERE trx_rows_locked + trx_rows_modified > 0 AND trx_mysql_thread_id <> CONNECTION_ID() "
            "AND trx_started < NOW() - INTERVAL %s SECOND ORDER BY trx_started LIMIT 1",
            [int(LONG.total_seconds())],
        )
        row = cursor.fetchone()
    if row is None:
        return ""
    thread, seconds = row
    return f"A transaction has been holding row locks for {span(dt.timedelta(seconds=seconds))}: connection {thread}."


def _held_sqlite(database: BaseDatabaseWrapper) -> str:
    """Be the one who writes, for a moment."""
    if database.in_atomic_block:
        # We are.
        return ""
    with database.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        patience = int(cursor.fetchone()[0])
        cursor.execute(f"PRAGMA busy_timeout = {1000 * _SQLITE_WAIT}")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("ROLLBACK")
        except OperationalError:
            return f"Somebody has been writing to the file for {_SQLITE_WAIT} s, and all others wait."
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {patience}")
    return ""
