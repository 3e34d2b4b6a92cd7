"""The record of every outgoing invocation: what was asked, by whom, and what became of it; and of the jobs' last runs.

One row per invocation. What was asked (target, request, who and why) is written once; the lifecycle's
columns are written by claims and write-backs alone (``querysets``), so a plain ``save()`` leaves them as they are in
the database. Imports ``lifecycle``, ``querysets`` and the floors below; a row's methods look the verbs above up by
name.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from restate_django.client import NO_PAYLOAD, EncodedPayload, decode_output
from restate_django.ids import uuid7
from restate_django.indexes import SparseIndex
from restate_django.lifecycle import FINISHED, IN_RESTATE, OPEN, Status
from restate_django.querysets import InvocationQuerySet

if TYPE_CHECKING:
    from restate_django.client import Output


def _verb(name: str) -> Any:
    """Find a verb by its dotted name when it is called: the floors above import this one, never the other way."""
    return import_string(f"restate_django.{name}")


class Invocation(models.Model):
    """An outgoing invocation of a Restate handler.

    Make one with ``restate_django.send`` or ``call``, never by hand.
    """

    Status = Status

    class Verb(models.TextChoices):
        """How it was asked for."""

        SEND = "send", _("send")
        CALL = "call", _("call")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid7, editable=False)

    # Target
    connection = models.CharField(_("connection"), max_length=64, default="default")
    scope = models.CharField(_("scope"), max_length=36, blank=True, default="")
    limit_key = models.CharField(_("limit key"), max_length=73, blank=True, default="")
    service = models.CharField(_("service"), max_length=255)
    key = models.CharField(_("object key"), max_length=512, blank=True, default="")
    handler = models.CharField(_("handler"), max_length=255)

    # Request
    verb = models.CharField(_("verb"), max_length=4, choices=Verb.choices, default=Verb.SEND)
    payload = models.JSONField(
        _("payload"),
        null=True,
        blank=True,
        encoder=DjangoJSONEncoder,
        help_text=_("A searchable copy, where the payload is JSON that the database can keep."),
    )
    payload_bytes = models.BinaryField(
        _("payload bytes"), null=True, help_text=_("What every attempt sends, byte for byte. Null: no body.")
    )
    payload_digest = models.CharField(_("payload digest"), max_length=64, blank=True, default="")
    content_type = models.CharField(_("content type"), max_length=255, blank=True, default="")
    headers = models.JSONField(_("headers"), default=dict, blank=True)
    idempotency_key = models.CharField(_("idempotency key"), max_length=255)
    dedupe_digest = models.CharField(  # noqa: DJ001 - unique: many nulls may stand beside each other, empty texts may not
        _("dedupe digest"),
        max_length=64,
        null=True,
        editable=False,
        help_text=_("Unique while the key binds: a digest of connection, target and idempotency key."),
    )
    run_at = models.DateTimeField(_("run at"), null=True, blank=True)

    # Who and why
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("requested by"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    related_content_type = models.ForeignKey(
        ContentType,
        verbose_name=_("related type"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    related_id = models.CharField(_("related id"), max_length=255, blank=True, default="")
    created_at = models.DateTimeField(_("recorded at"), default=timezone.now, editable=False)
    transaction_id = models.UUIDField(
        _("transaction"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("The same for all that was recorded in one transaction. Null: it was recorded outside of any."),
    )

    # Delivery
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.UNSENT)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    lease_token = models.UUIDField(_("lease token"), null=True, blank=True, editable=False)
    unknown_since = models.DateTimeField(
        _("outcome unknown since"),
        null=True,
        blank=True,
        help_text=_("When the first attempt was made of which nobody knows whether Restate took it."),
    )
    unregistered_since = models.DateTimeField(
        _("unregistered since"),
        null=True,
        blank=True,
        help_text=_("When Restate first answered that it knows no such service or handler."),
    )
    previously_accepted = models.BooleanField(
        _("previously accepted"),
        default=False,
        help_text=_("Restate had an invocation under this key already: this row's payload was not used."),
    )
    delivery_error = models.TextField(_("delivery error"), blank=True, default="")
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)

    # Execution
    invocation_id = models.CharField(_("invocation id"), max_length=128, blank=True, default="")
    execution_at = models.DateTimeField(_("execution at"), null=True, blank=True)
    retry_count = models.PositiveIntegerField(_("retries"), default=0)
    last_failure = models.TextField(_("last failure"), blank=True, default="")
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    recorded_at = models.DateTimeField(
        _("end recorded at"), null=True, blank=True, help_text=_("When this row took its final status, by our clock.")
    )
    polled_at = models.DateTimeField(_("polled at"), null=True, blank=True)
    next_poll_at = models.DateTimeField(_("next poll at"), null=True, blank=True)
    missing_since = models.DateTimeField(
        _("missing since"), null=True, blank=True, help_text=_("When Restate first said that it does not know it.")
    )
    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True, blank=True)
    cancel_claimed_at = models.DateTimeField(
        _("cancel claimed at"),
        null=True,
        blank=True,
        help_text=_("When a worker took it upon itself to send the cancellation."),
    )
    cancel_sent_at = models.DateTimeField(
        _("cancel sent at"),
        null=True,
        blank=True,
        help_text=_("When Restate took the cancellation: it is sent once, a second one would cancel the compensation."),
    )
    restarted_from = models.ForeignKey(
        "self",
        verbose_name=_("restarted from"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="restarts",
        db_constraint=False,
        db_index=False,
    )

    # Outcome
    has_output = models.BooleanField(_("has output"), default=False)
    output = models.JSONField(_("output"), null=True, blank=True, encoder=DjangoJSONEncoder)
    output_bytes = models.BinaryField(_("output bytes"), null=True)
    output_content_type = models.CharField(_("output content type"), max_length=255, blank=True, default="")
    output_size = models.PositiveBigIntegerField(
        _("output size"),
        null=True,
        blank=True,
        help_text=_("In bytes. Larger ones than MAX_OUTPUT_SIZE stay in Restate."),
    )
    failure_code = models.BigIntegerField(_("failure code"), null=True, blank=True)
    failure_message = models.TextField(_("failure message"), blank=True, default="")
    failure_metadata = models.JSONField(_("failure metadata"), null=True, blank=True)
    result_expires_at = models.DateTimeField(_("result expires at"), null=True, blank=True)

    objects: ClassVar[models.Manager[Invocation]] = InvocationQuerySet.as_manager()

    #: False on the instance that ``send`` returned for a key that another row already had.
    created: bool = True

    #: Whether an earlier attempt to send its cancellation may have arrived (see ``cancelling``).
    cancel_is_doubtful: bool = False
    #: Whether the worker that holds this instance has taken it upon itself to send its cancellation.
    cancel_is_ours: bool = False

    #: When the claim that this instance was read by was made; None on one that was not claimed.
    claimed_at: dt.datetime | None = None

    #: What a caller decides. Everything else belongs to the lifecycle, and a plain ``save()`` leaves it alone.
    ASKED_COLUMNS: ClassVar[frozenset[str]] = frozenset(
        {
            "connection", "scope", "limit_key", "service", "key", "handler", "verb", "payload", "payload_bytes",
            "payload_digest", "content_type", "headers", "idempotency_key", "run_at", "requested_by",
            "related_content_type", "related_id", "created_at", "transaction_id",
        }
    )  # fmt: skip

    class Meta:
        verbose_name = _("invocation")
        verbose_name_plural = _("invocations")
        # A version 7 UUID sorts by time: the primary key is the list's order, and needs no index of its own.
        ordering = ("-id",)
        get_latest_by = "id"
        # Single-purpose, and no condition that a query relies on (MySQL has none): each that an update touches costs.
        indexes = (
            SparseIndex(fields=["next_attempt_at"], name="restate_inv_next_attempt"),
            SparseIndex(fields=["next_poll_at"], name="restate_inv_next_poll"),
            # For a worker of some connections alone: another one's backlog must not stand before what it takes.
            SparseIndex(
                fields=["connection", "next_attempt_at"], by="next_attempt_at", name="restate_inv_conn_attempt"
            ),
            SparseIndex(fields=["connection", "next_poll_at"], by="next_poll_at", name="restate_inv_conn_poll"),
            models.Index(fields=["invocation_id"], name="restate_inv_invocation_id"),
            models.Index(fields=["idempotency_key"], name="restate_inv_idempotency_key"),
            SparseIndex(fields=["key", "id"], name="restate_inv_key"),
            models.Index(fields=["status", "id"], name="restate_inv_status"),
            models.Index(fields=["service", "id"], name="restate_inv_service"),
            models.Index(fields=["handler", "id"], name="restate_inv_handler"),
            SparseIndex(fields=["scope", "id"], name="restate_inv_scope"),
            models.Index(fields=["connection", "id"], name="restate_inv_connection"),
            SparseIndex(fields=["requested_by", "id"], name="restate_inv_requested_by"),
            SparseIndex(fields=["related_content_type", "related_id", "id"], name="restate_inv_related"),
            SparseIndex(fields=["recorded_at", "id"], name="restate_inv_recorded"),
            SparseIndex(fields=["restarted_from", "id"], name="restate_inv_restarted_from"),
        )
        constraints = (models.UniqueConstraint(fields=["dedupe_digest"], name="restate_inv_dedupe"),)
        permissions = (
            ("cancel_invocation", _("Can cancel invocations")),
            ("kill_invocation", _("Can kill invocations")),
            ("pause_invocation", _("Can pause invocations")),
            ("resume_invocation", _("Can resume invocations")),
            ("purge_invocation", _("Can purge invocations")),
            ("restart_invocation", _("Can restart invocations as new")),
            ("resend_invocation", _("Can resend invocations")),
            ("resolve_awakeable", _("Can resolve or reject awakeables")),
            ("view_invocation_payload", _("Can view payloads and outputs")),
            ("manage_deployments", _("Can register and remove deployments")),
        )

    def __str__(self) -> str:
        return f"{self.target} ({self.get_status_display()})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save what was asked; on a row that exists, leave the lifecycle's columns as the database has them.

        An instance that was read some time ago knows an old status. Naming columns in ``update_fields`` writes them.
        """
        if not self._state.adding and not kwargs.get("force_insert") and kwargs.get("update_fields") is None:
            kwargs["update_fields"] = self.ASKED_COLUMNS
        super().save(*args, **kwargs)

    # ------------------------------------------------------------------ what it says

    @property
    def target(self) -> str:
        """The target in words: ``Cart/cart-1/add``."""
        return "/".join(part for part in (self.service, self.key, self.handler) if part)

    @property
    def is_open(self) -> bool:
        """More will be heard of it without a person."""
        return self.status in OPEN

    @property
    def is_in_restate(self) -> bool:
        """Restate has taken it and has not ended it, as far as this row knows."""
        return self.status in IN_RESTATE

    @property
    def is_finished(self) -> bool:
        """It is settled."""
        return self.status in FINISHED

    @property
    def is_leased(self) -> bool:
        """A worker is busy with it now."""
        return self.lease_left > 0

    @property
    def lease_left(self) -> float:
        """Seconds until another worker may take it."""
        return 0.0 if self.lease_until is None else (self.lease_until - timezone.now()).total_seconds()

    @property
    def waits_since(self) -> dt.datetime:
        """When Restate accepted it, or when it was recorded where that is not known."""
        return self.accepted_at or self.created_at

    @property
    def starts_at(self) -> dt.datetime | None:
        """When a delayed one runs: what Restate answered, or what was asked for."""
        return self.execution_at or self.run_at

    @property
    def cancel_is_sent(self) -> bool:
        """Restate has taken its cancellation."""
        return self.cancel_sent_at is not None

    @property
    def finished_cursor(self) -> str:
        """The point after this row, for ``Invocation.objects.finished_since``."""
        if self.recorded_at is None:
            raise ValueError(f"Invocation {self.pk} has not finished: it has no place in that order yet.")
        return f"{self.recorded_at.isoformat()}/{self.pk}"

    @property
    def duration(self) -> dt.timedelta | None:
        """From its start (or, where Restate did not say, its acceptance) to its end, or to now while it is open."""
        start = self.started_at or self.accepted_at
        if start is None:
            return None
        end = self.finished_at or (timezone.now() if self.is_open else None)
        return max(end - start, end - end) if end is not None else None

    @property
    def related_to(self) -> models.Model | None:
        """The object it was sent for, or None: there was none, or it is not there any more. One query."""
        if self.related_content_type_id is None or not self.related_id:
            return None
        try:
            content_type = ContentType.objects.db_manager(self._state.db).get_for_id(self.related_content_type_id)
        except ContentType.DoesNotExist:
            return None
        model = content_type.model_class()
        if model is None:
            return None
        try:
            return model._base_manager.filter(pk=self.related_id).first()
        except (ValueError, TypeError):
            # The model's primary key has another type now.
            return None

    @property
    def encoded_payload(self) -> EncodedPayload:
        """The body and content type of every attempt. May read the body from the database."""
        body = None if self.payload_bytes is None else bytes(self.payload_bytes)
        return EncodedPayload(body, self.content_type)

    @property
    def payload_value(self) -> Any:
        """The payload as it was given: decoded JSON, text or bytes; ``NO_PAYLOAD`` where there was none."""
        if self.payload_bytes is None:
            return NO_PAYLOAD
        return decode_output(bytes(self.payload_bytes), self.content_type)

    @property
    def has_stored_output(self) -> bool:
        """The row itself has the output; one over the size limit is still in Restate (see ``fetch_output``)."""
        return self.has_output and (self.output is not None or self.output_bytes is not None or not self.output_size)

    @property
    def output_value(self) -> Any:
        """The output as the row has it: decoded JSON, text or bytes; None where it has none (see ``has_output``)."""
        if not self.has_output:
            return None
        if self.output_bytes is not None:
            return decode_output(bytes(self.output_bytes), self.output_content_type)
        return self.output

    # ------------------------------------------------------------------ what can be done with it

    def refresh(self) -> Invocation:
        """Ask Restate now, write down what it says, and return the row with it.

        A network error changes nothing and raises nothing: ``polled_at`` tells when it was last asked.
        """
        _verb("polling.refresh")(self)
        return self

    def attach(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the output.

        Args:
            timeout: Seconds to wait at most; the connection's ``CALL_TIMEOUT`` by default.

        Raises:
            InvocationFailed: It ended in a failure.
            CallTimeout: Waiting ended first. The invocation goes on.
            OperationRefused: There is nothing to wait for: it was never sent, or Restate no longer knows it.
        """
        return _verb("attaching.attach")(self, timeout=timeout)

    def fetch_output(self) -> Output:
        """Read the output from Restate, also one that is too large for the row. Nothing is written.

        Raises:
            OperationRefused: Restate has no invocation of this row.
            RequestError: Restate can't be read now.
        """
        result: Output = _verb("attaching.fetch_output")(self)
        return result

    def cancel(self) -> Invocation:
        """Ask for its cancellation. It is cooperative: the handler sees it at its next await, and compensates.

        Raises:
            OperationRefused: It has ended, or this connection has no Admin API.
        """
        return self._operate("cancel")

    def kill(self) -> Invocation:
        """End it at once. No compensation runs.

        Raises:
            OperationRefused: It has ended, or this connection has no Admin API.
        """
        return self._operate("kill")

    def pause(self) -> Invocation:
        """Hold it until it is resumed.

        Raises:
            OperationRefused: It is not running.
        """
        return self._operate("pause")

    def resume(self, deployment: str | None = None) -> Invocation:
        """Let a paused one (or one that backs off) go on.

        Args:
            deployment: ``latest``, ``keep`` or a deployment's id; the server's default when None.

        Raises:
            OperationRefused: It has ended or has not started.
        """
        return self._operate("resume", deployment=deployment)

    def purge(self) -> Invocation:
        """Let Restate forget an ended one with its output. The row keeps what it has.

        Raises:
            OperationRefused: It has not ended.
        """
        return self._operate("purge")

    def purge_journal(self) -> Invocation:
        """Let Restate forget the steps of an ended one, and keep its output.

        Raises:
            OperationRefused: It has not ended.
        """
        return self._operate("purge_journal")

    def restart_as_new(self, from_entry: int | None = None, deployment: str | None = None) -> Invocation:
        """Run an ended one again as a new invocation, and return the new row (its ``restarted_from`` is this one).

        Args:
            from_entry: The journal entry up to which the steps are kept; from the beginning when None.
            deployment: ``latest``, ``keep`` or a deployment's id; the server's default when None.

        Raises:
            OperationRefused: It has not ended, Restate has not kept its input, or it is a workflow.
        """
        return self._operate("restart_as_new", from_entry=from_entry, deployment=deployment)

    def resend(self) -> Invocation:
        """Send a rejected or undeliverable one again, with the same key.

        Raises:
            OperationRefused: It is neither, or another row has its key now.
        """
        return self._operate("resend")

    def _operate(self, name: str, **options: Any) -> Invocation:
        row: Invocation = _verb("operations.one")(name, self, **options)
        return row

    async def arefresh(self) -> Invocation:
        """Do what :meth:`refresh` does, from a coroutine."""
        return await sync_to_async(self.refresh)()

    async def aattach(self, timeout: float | None = None) -> Any:
        """Do what :meth:`attach` does, from a coroutine. No thread waits."""
        return await _verb("attaching.aattach")(self, timeout=timeout)

    async def afetch_output(self) -> Output:
        """Do what :meth:`fetch_output` does, from a coroutine."""
        return await sync_to_async(self.fetch_output)()

    async def acancel(self) -> Invocation:
        """Do what :meth:`cancel` does, from a coroutine."""
        return await sync_to_async(self.cancel)()

    async def akill(self) -> Invocation:
        """Do what :meth:`kill` does, from a coroutine."""
        return await sync_to_async(self.kill)()

    async def apause(self) -> Invocation:
        """Do what :meth:`pause` does, from a coroutine."""
        return await sync_to_async(self.pause)()

    async def aresume(self, deployment: str | None = None) -> Invocation:
        """Do what :meth:`resume` does, from a coroutine."""
        return await sync_to_async(self.resume)(deployment)

    async def apurge(self) -> Invocation:
        """Do what :meth:`purge` does, from a coroutine."""
        return await sync_to_async(self.purge)()

    async def apurge_journal(self) -> Invocation:
        """Do what :meth:`purge_journal` does, from a coroutine."""
        return await sync_to_async(self.purge_journal)()

    async def arestart_as_new(self, from_entry: int | None = None, deployment: str | None = None) -> Invocation:
        """Do what :meth:`restart_as_new` does, from a coroutine."""
        return await sync_to_async(self.restart_as_new)(from_entry, deployment)

    async def aresend(self) -> Invocation:
        """Do what :meth:`resend` does, from a coroutine."""
        return await sync_to_async(self.resend)()


class JobRun(models.Model):
    """What a job last did, so that others can see that it runs at all: one row for each job and database.

    Written by ``jobs``, read by ``vitals``. Neither says on which host it ran: any number of workers share the row.
    """

    class Job(models.TextChoices):
        """The jobs, by the names of their Celery tasks."""

        DELIVER = "deliver", _("delivery")
        POLL = "poll", _("polling")
        PRUNE = "prune", _("clean-up")

    job = models.CharField(_("job"), max_length=16, primary_key=True, choices=Job.choices)
    succeeded_at = models.DateTimeField(
        _("succeeded at"), null=True, blank=True, help_text=_("When it last ended as it should.")
    )
    failed_at = models.DateTimeField(
        _("failed at"), null=True, blank=True, help_text=_("When it last ended in an error.")
    )
    error = models.TextField(_("error"), blank=True, default="", help_text=_("The error it last ended in."))
    seconds = models.FloatField(_("seconds"), default=0.0, help_text=_("How long the last run took."))
    counts = models.JSONField(
        _("counts"), default=dict, blank=True, help_text=_("What became of the rows that it last handled.")
    )

    class Meta:
        verbose_name = _("run of a job")
        verbose_name_plural = _("runs of the jobs")
        # Nobody edits one: there is nothing to permit.
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.get_job_display())

    @property
    def ended_at(self) -> dt.datetime | None:
        """When the last run ended, however it did."""
        return max(filter(None, (self.succeeded_at, self.failed_at)), default=None)

    @property
    def started_at(self) -> dt.datetime | None:
        """When the last run began."""
        return self.ended_at and self.ended_at - dt.timedelta(seconds=self.seconds)

    @property
    def is_failing(self) -> bool:
        """The last run ended in an error."""
        return self.failed_at is not None and self.failed_at == self.ended_at
