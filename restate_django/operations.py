"""What a person can do to an invocation: cancel, kill, pause, resume, purge, restart as new, resend.

Each verb takes a row, rows or a queryset, and reports for each row whether it was done, passed over (its status does
not allow it) or refused (Restate said no, or can't be reached). Every edge ends here: the admin, the commands, the
methods of a row. Imports the verbs beside it, the records and the floors below.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, models, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from restate_django import cancelling, delivery, polling, recording
from restate_django.connections import connections
from restate_django.dedupe import bound_digest
from restate_django.exceptions import (
    AdminRefused,
    Misconfigured,
    NotFound,
    NotSupported,
    OperationRefused,
    RestateError,
    Unavailable,
)
from restate_django.lifecycle import ENDED, IN_RESTATE, OPEN, RESENDABLE, Status
from restate_django.logs import get_logger, trouble
from restate_django.models import Invocation
from restate_django.querysets import ANY_LEASE, unless_deadlocked, write_alias
from restate_django.workers import in_threads, refuse_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from restate_django.client import AdminClient
    from restate_django.connections import Connection

    Progress = Callable[[int, int | None], None]
    Rows = Invocation | Iterable[Invocation]


logger = get_logger("restate_django.operations")

#: Rows in hand at a time: a queryset of any size is read in batches of this many.
BATCH: Final = 500

_CANCEL_COLUMNS: Final = ("cancel_requested_at", "cancel_claimed_at", "cancel_sent_at")
_KEPT_BY_A_RESTART: Final = (
    "connection",
    "scope",
    "limit_key",
    "service",
    "key",
    "handler",
    "payload",
    "payload_bytes",
    "payload_digest",
    "content_type",
    "headers",
    "requested_by_id",
    "related_content_type_id",
    "related_id",
)

_ENDED_BY_RESTATE: Final = ENDED - {Status.GONE}

#: The statuses that an operation applies to; rows in others are passed over.
ALLOWED: Final[Mapping[str, frozenset[Status]]] = {
    "cancel": OPEN,
    "kill": OPEN,
    "pause": IN_RESTATE - {Status.PAUSED, Status.SCHEDULED},
    "resume": frozenset({Status.PAUSED, Status.BACKING_OFF, Status.SUSPENDED, Status.RUNNING, Status.ACCEPTED}),
    "purge": _ENDED_BY_RESTATE,
    "purge_journal": _ENDED_BY_RESTATE,
    "restart_as_new": _ENDED_BY_RESTATE,
    "resend": RESENDABLE,
}

#: What is said of a row that an operation was done to.
DONE: Final[Mapping[str, Any]] = {
    "cancel": gettext_lazy("Asked for its cancellation."),
    "kill": gettext_lazy("Killed it."),
    "pause": gettext_lazy("Paused it."),
    "resume": gettext_lazy("Resumed it."),
    "purge": gettext_lazy("Purged it from Restate."),
    "purge_journal": gettext_lazy("Purged its journal."),
    "restart_as_new": gettext_lazy("Restarted it as new."),
    "resend": gettext_lazy("Sent it again."),
    "refresh": gettext_lazy("Asked Restate about it."),
}
#: What is said where ``cancel`` or ``kill`` had nothing to stop: that is the end of the row.
CANCELLED_AT_ONCE: Final = gettext_lazy("Cancelled it before it started.")


@dataclass(slots=True)
class OperationReport:
    """What became of each row, with a sentence that says it to a person.

    Attributes:
        done: Rows it was done to (for ``restart_as_new``: the new rows), each with what was done. A cancellation that
            was asked for counts.
        passed_over: Rows whose status does not allow it, each with the reason.
        refused: Rows that Restate refused it for, or that it could not be asked for, each with the reason.
    """

    done: list[tuple[Invocation, str]] = field(default_factory=list)
    passed_over: list[tuple[Invocation, str]] = field(default_factory=list)
    refused: list[tuple[Invocation, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Answer:
    """What the Admin API said for one row."""

    done: bool = False
    new_id: str = ""
    error: RestateError | ImproperlyConfigured | None = None


# ---------------------------------------------------------------- the verbs


def cancel(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Ask for the cancellation of open invocations. It is cooperative: a handler sees it at its next await.

    The request is written down first, so it is not lost when Restate can't be reached: the jobs send it then. A row
    that was never sent is cancelled here and now.

    Args:
        invocations: A row, rows or a queryset.
        progress: Called with the number of rows handled and the total (None when unknown).
    """
    return _each(invocations, "cancel", _cancel, progress)


def kill(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """End open invocations at once. No compensation runs. One that was never sent is cancelled.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """
    return _each(invocations, "kill", _kill, progress)


def pause(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Hold running invocations until they are resumed.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        admin.pause_invocation(row.invocation_id)
        return _Answer(done=True)

    return _each(invocations, "pause", _in_restate(request, _poll_soon), progress)


def resume(invocations: Rows, *, deployment: str | None = None, progress: Progress | None = None) -> OperationReport:
    """Let paused invocations, and those that back off, go on at once.

    Args:
        invocations: A row, rows or a queryset.
        deployment: ``latest``, ``keep`` or a deployment's id; the server's default when None.
        progress: As for :func:`cancel`.
    """

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        admin.resume_invocation(row.invocation_id, deployment=deployment)
        return _Answer(done=True)

    return _each(invocations, "resume", _in_restate(request, _poll_soon), progress)


def purge(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Let Restate forget ended invocations with their outputs and keys. The rows keep what they have.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        admin.purge_invocation(row.invocation_id)
        return _Answer(done=True)

    return _each(invocations, "purge", _in_restate(request, _purged), progress)


def purge_journal(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Let Restate forget the steps of ended invocations, and keep their outputs.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        admin.purge_journal(row.invocation_id)
        return _Answer(done=True)

    return _each(invocations, "purge_journal", _in_restate(request, _nothing), progress)


def restart_as_new(
    invocations: Rows,
    *,
    from_entry: int | None = None,
    deployment: str | None = None,
    progress: Progress | None = None,
) -> OperationReport:
    """Run ended invocations again, each as a new one with a row of its own.

    It is not idempotent: doing it twice runs it twice. The new invocation has no idempotency key in Restate.

    Args:
        invocations: A row, rows or a queryset.
        from_entry: The journal entry up to which the steps are kept; from the beginning when None.
        deployment: ``latest``, ``keep`` or a deployment's id; the server's default when None.
        progress: As for :func:`cancel`.

    Returns:
        The new rows in ``done``.
    """

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        new_id = admin.restart_as_new_invocation(row.invocation_id, from_=from_entry, deployment=deployment)
        return _Answer(done=True, new_id=new_id)

    return _each(invocations, "restart_as_new", _in_restate(request, _restarted), progress)


def resend(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Send rejected and undeliverable rows again, with the keys they have.

    For an undeliverable row this is a person's decision: it may have run, and Restate may have forgotten its key.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """
    return _each(invocations, "resend", _resend, progress)


def refresh(invocations: Rows, *, progress: Progress | None = None) -> OperationReport:
    """Ask Restate about invocations now, whatever their status, and send what is unsent.

    Args:
        invocations: A row, rows or a queryset.
        progress: As for :func:`cancel`.
    """
    report = OperationReport()
    for batch, total in _batches(invocations):
        _counts, unanswered = polling.refresh_and_tell(batch)
        report.done += [(row, str(DONE["refresh"])) for row in batch if row.pk not in unanswered]
        report.refused += [(row, unanswered[row.pk]) for row in batch if row.pk in unanswered]
        if progress is not None:
            progress(len(report.done) + len(report.refused), total)
    return report


def one(name: str, row: Invocation, **options: Any) -> Invocation:
    """Do an operation to one row, and raise where it was not done: what a row's own methods do.

    Args:
        name: The operation's name.
        row: The row; it carries the outcome afterwards.
        options: The operation's own.

    Returns:
        The row, or the new one for ``restart_as_new``.

    Raises:
        OperationRefused: It was passed over or refused, with the reason.
    """
    verbs = {
        "cancel": cancel,
        "kill": kill,
        "pause": pause,
        "resume": resume,
        "purge": purge,
        "purge_journal": purge_journal,
        "restart_as_new": restart_as_new,
        "resend": resend,
    }
    report = verbs[name](row, **options)
    for _row, reason in (*report.passed_over, *report.refused):
        raise OperationRefused(reason, getattr(reason, "status", None), target=row.target)
    return report.done[0][0]


# ---------------------------------------------------------------- rows by batch, database and connection


class Reason(str):
    """A sentence for a person, with the HTTP status of Restate's refusal where there was one."""

    __slots__ = ("status",)

    status: int | None

    def __new__(cls, text: str, status: int | None = None) -> Self:
        """Make one."""
        reason = super().__new__(cls, text)
        reason.status = status
        return reason


def it_is(row: Invocation) -> str:
    """Say why a row was passed over whose status does not allow an operation."""
    return _("It is %(status)s.") % {"status": row.get_status_display()}


class _Job:
    """A batch of rows of one connection and database whose status allows the operation."""

    def __init__(
        self, name: str, rows: list[Invocation], using: str, connection: Connection, report: OperationReport
    ) -> None:
        self.name = name
        self.rows = rows
        self.using = using
        self.connection = connection
        self.report = report

    def write(self, row: Invocation, **changes: Any) -> bool:
        """Write to a row whose status is still the one that was read."""
        return Invocation.objects.using(self.using).write_back(row, lease=ANY_LEASE, **changes)

    def write_always(self, row: Invocation, **changes: Any) -> None:
        """Write to a row whatever its status has become."""
        Invocation.objects.using(self.using).filter(pk=row.pk, status__in=sorted(IN_RESTATE)).update(**changes)

    def done(self, row: Invocation, what: Any = "") -> None:
        """Count a row as done: what the operation does, or something else."""
        self.report.done.append((row, str(what or DONE[self.name])))

    def passed_over(self, row: Invocation, reason: str) -> None:
        """Count a row as passed over."""
        self.report.passed_over.append((row, reason))

    def refused(self, row: Invocation, reason: str) -> None:
        """Count a row as refused."""
        self.report.refused.append((row, reason))


def _each(invocations: Rows, name: str, operate: Callable[[_Job], None], progress: Progress | None) -> OperationReport:
    report = OperationReport()
    handled = 0
    for batch, total in _batches(invocations):
        groups: dict[tuple[str, str], list[Invocation]] = {}
        for row in batch:
            using = write_alias(row)
            refuse_inside_transaction(f"{name}()", using)
            if row.status not in ALLOWED[name]:
                report.passed_over.append((row, it_is(row)))
                continue
            groups.setdefault((using, row.connection), []).append(row)
        for (using, alias), rows in groups.items():
            try:
                operate(_Job(name, rows, using, connections[alias], report))
            except ImproperlyConfigured as error:
                report.refused += [(row, str(error)) for row in rows]
        handled += len(batch)
        if progress is not None:
            progress(handled, total)
    return report


def _batches(invocations: Rows) -> Iterator[tuple[list[Invocation], int | None]]:
    """Yield rows in batches: never a whole table, and each row as it is in the database when its turn comes."""
    if isinstance(invocations, Invocation):
        # The caller's own instance may be old; its status decides what is allowed.
        invocations.refresh_from_db(using=write_alias(invocations))
        yield [invocations], 1
        return
    if isinstance(invocations, models.QuerySet) and invocations.query.is_sliced:
        invocations = list(invocations)
    if isinstance(invocations, models.QuerySet):
        # In order of the key and from the last one on: rows that an operation takes out of the queryset move nothing.
        rows, last = invocations.order_by("pk"), None
        while batch := list((rows if last is None else rows.filter(pk__gt=last))[:BATCH]):
            last = batch[-1].pk
            yield batch, None
        return
    total = len(invocations) if isinstance(invocations, Sized) else None
    items = iter(invocations)
    while batch := list(islice(items, BATCH)):
        _bring_up_to_date(batch)
        yield batch, total


def _bring_up_to_date(rows: list[Invocation]) -> None:
    """Read the columns that decide anew, into the caller's instances."""
    columns = ("status", "lease_until", "unknown_since", *_CANCEL_COLUMNS, "invocation_id")
    for using in {write_alias(row) for row in rows}:
        fresh = {
            values["pk"]: values
            for values in Invocation.objects.using(using)
            .filter(pk__in=[row.pk for row in rows if write_alias(row) == using])
            .values("pk", *columns)
        }
        for row in rows:
            for column in columns if row.pk in fresh else ():
                setattr(row, column, fresh[row.pk][column])


def _in_restate(
    request: Callable[[AdminClient, Invocation], _Answer], record: Callable[[_Job, Invocation, _Answer], None]
) -> Callable[[_Job], None]:
    """Make an operation that is one request of the Admin API per row, and a write for what it answered."""

    def operate(job: _Job) -> None:
        try:
            admin = job.connection.require_admin("This")
        except NotSupported:
            for row in job.rows:
                job.refused(row, _no_admin(job))
            return

        def ask(row: Invocation) -> _Answer:
            try:
                return request(admin, row)
            except RestateError as error:
                return _Answer(error=error)

        for row, answer in in_threads(ask, job.rows, concurrency=job.connection.settings.concurrency):
            if answer.error is not None:
                job.refused(row, _sentence(answer.error))
                if isinstance(answer.error, AdminRefused | NotFound):
                    # Our picture of it is old: let the next poll look.
                    job.write_always(row, next_poll_at=timezone.now())
                continue
            record(job, row, answer)

    return operate


def _sentence(error: RestateError | ImproperlyConfigured) -> Reason:
    """Say a refusal of the Admin API as a sentence."""
    status = getattr(error, "status", None)
    if isinstance(error, NotFound):
        return Reason(_("Restate no longer knows the invocation."), status)
    if isinstance(error, AdminRefused):
        sentences = {
            409: _("Restate refused: its state does not allow it now (%(message)s)."),
            410: _("Restate has not kept its input, so it can't be run again (%(message)s)."),
            422: _("Restate refused: this kind of invocation does not allow it (%(message)s)."),
            425: _("Restate refused: it has not started yet (%(message)s)."),
        }
        text = sentences.get(status or 0, _("Restate refused (%(message)s)."))
        return Reason(text % {"message": error.message.rstrip(".")}, status)
    if isinstance(error, Unavailable) and not isinstance(error, Misconfigured):
        return Reason(_("The Admin API can't be reached now (%(message)s).") % {"message": str(error)}, status)
    return Reason(str(error), status)


# ---------------------------------------------------------------- what each does


def _cancel(job: _Job) -> None:
    in_restate = [row for row in job.rows if row.status != Status.UNSENT]
    unsent = [row for row in job.rows if row.status == Status.UNSENT]
    in_restate += [row for row in unsent if not _cancel_unsent(job, row)]
    admin = job.connection.admin
    if admin is None:
        job.report.refused += [(row, _no_admin(job)) for row in in_restate]
        return
    wanted = [row for row in in_restate if _claim_cancel(job, row)]

    def ask(row: Invocation) -> tuple[cancelling.Sent, RestateError | None]:
        return cancelling.send(admin, row)

    for row, (sent, error) in in_threads(ask, wanted, concurrency=job.connection.settings.concurrency):
        cancelling.settle(row, sent, job.using)
        if sent is cancelling.Sent.TAKEN:
            job.done(row)
        elif sent is cancelling.Sent.DONE:
            job.done(row, CANCELLED_AT_ONCE)
        elif error is not None:
            job.refused(row, _cancel_sentence(row, _sentence(error)))
        if row.is_in_restate:
            job.write_always(row, next_poll_at=timezone.now() + job.connection.settings.poll_min_interval)


def _cancel_sentence(row: Invocation, reason: Reason) -> Reason:
    """Say that a cancellation which did not get through is not lost."""
    if not row.is_in_restate or not cancelling.is_wanted(row):
        return reason
    text = _("It is written down, and passed on as soon as Restate takes it. %(reason)s") % {"reason": str(reason)}
    return Reason(text, reason.status)


def _claim_cancel(job: _Job, row: Invocation) -> bool:
    # Written down before it is sent: should this process die now, the next poll after the claim's lease sees to it.
    if row.cancel_sent_at is None and cancelling.claim(row, job.using):
        return True
    row.refresh_from_db(using=job.using, fields=["status", "cancel_sent_at", "cancel_claimed_at"])
    if not row.is_in_restate:
        job.passed_over(row, it_is(row))
    elif row.cancel_sent_at is not None:
        job.passed_over(row, _("Its cancellation was sent already; the handler has not ended yet."))
    else:
        job.passed_over(row, _("Its cancellation is being sent already."))
    return False


def _cancel_unsent(job: _Job, row: Invocation) -> bool:
    """Cancel a row that Restate has not accepted: here, when nothing can have reached it, else by the jobs.

    Returns:
        False where Restate has accepted it meanwhile: it is to be cancelled there.
    """
    now = timezone.now()
    rows = Invocation.objects.using(job.using)
    free = models.Q(lease_until__isnull=True) | models.Q(lease_until__lte=now)
    untouched = rows.filter(free, unknown_since__isnull=True)
    if untouched.write_back(row, cancel_requested_at=now, **recording.cancelled_before_start()):
        job.done(row, CANCELLED_AT_ONCE)
        return True
    if job.connection.admin is None:
        # Restate may have it, and then nobody could cancel it there.
        job.refused(row, _no_admin(job))
        return True
    # A request may be on its way. From here on it is not sent again, and once Restate knows it, it is cancelled there.
    if rows.write_back(row, cancel_requested_at=row.cancel_requested_at or now):
        job.done(row, DONE["cancel"])
        return True
    row.refresh_from_db(using=job.using)
    if row.is_in_restate:
        return False
    job.passed_over(row, it_is(row))
    return True


def _no_admin(job: _Job) -> str:
    text = _('This needs the Admin API: set RESTATE["%(alias)s"]["ADMIN_URL"].')
    return text % {"alias": job.connection.alias}


def _kill(job: _Job) -> None:
    running = [row for row in job.rows if row.status != Status.UNSENT]
    unsent = [row for row in job.rows if row.status == Status.UNSENT]
    running += [row for row in unsent if not _cancel_unsent(job, row)]

    def request(admin: AdminClient, row: Invocation) -> _Answer:
        return _Answer(done=admin.kill_invocation(row.invocation_id).done)

    def record(job: _Job, row: Invocation, answer: _Answer) -> None:
        # Its status may have changed meanwhile: a kill is written down all the same, unless it ended otherwise.
        if answer.done:
            changes = recording.killed(job.connection.services.idempotency_retention(row.service, row.handler))
            while row.is_in_restate and not job.write(row, **changes):
                row.refresh_from_db(using=job.using)
        if row.is_in_restate:
            job.write_always(row, next_poll_at=timezone.now())
        job.done(row)

    if running:
        _in_restate(request, record)(_Job(job.name, running, job.using, job.connection, job.report))


def _poll_soon(job: _Job, row: Invocation, answer: _Answer) -> None:  # noqa: ARG001 - the signature of all of these
    job.write_always(row, next_poll_at=timezone.now())
    job.done(row)


def _nothing(job: _Job, row: Invocation, answer: _Answer) -> None:  # noqa: ARG001 - the signature of all of these
    job.done(row)


def _purged(job: _Job, row: Invocation, answer: _Answer) -> None:  # noqa: ARG001 - the signature of all of these
    # Restate forgot the key: it is free for another row.
    job.write(row, dedupe_digest=None, result_expires_at=timezone.now())
    job.done(row)


def _restarted(job: _Job, row: Invocation, answer: _Answer) -> None:
    asked = {name: getattr(row, name) for name in _KEPT_BY_A_RESTART}
    new = Invocation(**asked, verb=Invocation.Verb.SEND, restarted_from=row)
    new.idempotency_key = new.pk.hex
    for name, value in recording.accepted(new, invocation_id=answer.new_id, settings=job.connection.settings).items():
        setattr(new, name, value)
    rows = Invocation.objects.using(job.using)
    try:
        unless_deadlocked(lambda: len(rows.bulk_create([new])), job.using)
    except DatabaseError as error:
        # It runs, and a person must be able to find it.
        logger.error(
            "Restarted as %s, which could not be recorded: %s",
            answer.new_id,
            trouble(error),
            connection=row.connection,
            target=row.target,
            invocation_id=answer.new_id,
        )
        text = _("It runs again as %(id)s, but its row could not be written: look for it in Restate.")
        job.refused(row, text % {"id": answer.new_id})
        return
    job.done(new)


def _resend(job: _Job) -> None:
    now = timezone.now()
    sent: list[Invocation] = []
    for row in job.rows:
        changes: dict[str, Any] = {
            "status": Status.UNSENT,
            # The caller of a call is gone: from here on it is sent like any other.
            "verb": Invocation.Verb.SEND,
            # Counted anew: the first one is what the person has decided.
            "attempts": 0,
            "next_attempt_at": now,
            "lease_until": None,
            "lease_token": None,
            # An undeliverable one may have run: if Restate still knows its key, that is our own earlier send. The
            # window starts anew with this decision.
            "unknown_since": now if row.status == Status.UNDELIVERABLE else None,
            "unregistered_since": None,
            "missing_since": None,
            "cancel_requested_at": None,
            "finished_at": None,
            "recorded_at": None,
            "delivery_error": "",
        }
        if row.idempotency_key != row.pk.hex and row.dedupe_digest is None:
            changes["dedupe_digest"] = bound_digest(row, idempotency_key=row.idempotency_key)
        try:
            with transaction.atomic(using=job.using):
                won = job.write(row, **changes)
        except IntegrityError:
            job.passed_over(row, _("Another invocation has its idempotency key now."))
            continue
        if won:
            sent.append(row)
            job.done(row)
        else:
            job.passed_over(row, _("Its status changed just now."))
    if sent:
        delivery.deliver_now([row.pk for row in sent], job.using)
        for row in sent:
            row.refresh_from_db(using=job.using)
