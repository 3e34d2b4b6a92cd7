"""What the clients return: small frozen records, with times that are aware and durations that are ``timedelta``.

It imports the error tree, the payloads and the reading of times. Whatever a server leaves out is None here, and what it
says beyond these fields is in ``raw``.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from restate_django.client.outcomes import parse_time
from restate_django.client.payloads import decode_output
from restate_django.exceptions import CallTimeout, InvocationFailed, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

# ------------------------------------------------------------------------------------------------ the ingress


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Restate's receipt for a send.

    Attributes:
        invocation_id: The invocation.
        previously_accepted: The key was taken before; this payload is not used.
        execution_time: When a delayed one will run, by the server's clock; None without a delay.
        resent: The client sent it twice, because the first attempt's outcome was unknown (a dead connection, a retry):
            then ``previously_accepted`` may speak of our own first attempt.
    """

    invocation_id: str
    previously_accepted: bool = False
    execution_time: datetime | None = None
    resent: bool = False


class OutputState(enum.Enum):
    """What Restate says about an invocation's output."""

    READY = "ready"
    NOT_READY = "not-ready"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Output:
    """What Restate says about an invocation's output.

    Attributes:
        state: Ready, not ready, failed, or unknown to the server (purged, past its retention, never sent).
        invocation_id: The invocation, where it was asked by id or the answer names it. Restate does not name it in
            "not ready" and "not found" (measured on 1.7.12).
        body: The raw bytes of the output.
        content_type: What they are; empty for a handler without output.
        expires_at: Until when Restate surely keeps it; a lower bound.
        failure: The failure, when it failed.
    """

    state: OutputState
    invocation_id: str | None = None
    body: bytes = field(default=b"", repr=False)
    content_type: str = ""
    expires_at: datetime | None = None
    failure: InvocationFailed | None = None

    @property
    def value(self) -> Any:
        """The decoded output. Raises as :meth:`result` does where there is none."""
        return self.result()

    def result(self) -> Any:
        """Return the decoded output: JSON's value, text, bytes, or None for a handler without output.

        Raises:
            InvocationFailed: It failed.
            CallTimeout: It has not ended yet.
            NotFound: Restate does not know it.
        """
        if self.failure is not None:
            raise self.failure
        about = self.invocation_id or ""
        if self.state is OutputState.NOT_READY:
            raise CallTimeout("The invocation has not completed yet: ask again later.", target=about)
        if self.state is OutputState.UNKNOWN:
            raise NotFound(
                "Restate does not know the invocation: purged, past its retention or never sent.", target=about
            )
        return decode_output(self.body, self.content_type)


@dataclass(frozen=True, slots=True)
class InvocationStage:
    """How far an invocation has come.

    Attributes:
        stage: ``created``, ``started`` or ``completed``.
        error: Its failure, when it completed with one. The server tells code and message here, no metadata.
        invocation_id: The invocation.
    """

    stage: str
    error: InvocationFailed | None = None
    invocation_id: str | None = None


# ------------------------------------------------------------------------------------------------ the Admin API


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How an operation was taken.

    Attributes:
        status: 200 or 202.
        done: It is carried out (200). Otherwise it is appended, and will be (202): a cancel of one that runs.
        message: What the server said, mostly nothing.
    """

    status: int
    done: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A server's version.

    Attributes:
        version: Such as ``1.7.12``.
        min_admin_api_version: The oldest Admin API that it speaks.
        max_admin_api_version: The newest one.
        ingress_endpoint: Where it says its ingress is.
        features: Experimental features and whether they are on; empty before 1.7.
    """

    version: str
    min_admin_api_version: int | None = None
    max_admin_api_version: int | None = None
    ingress_endpoint: str | None = None
    features: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Version:
        """Read one off the server's JSON."""
        return cls(
            str(data.get("version", "")),
            data.get("min_admin_api_version"),
            data.get("max_admin_api_version"),
            data.get("ingress_endpoint"),
            data.get("features") or {},
        )

    @property
    def release(self) -> tuple[int, ...]:
        """The version's numbers, to compare: ``(1, 7, 12)``."""
        return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", self.version.partition("-")[0])[:3])


@dataclass(frozen=True, slots=True)
class HandlerInfo:
    """A handler, as a deployment registered it.

    Attributes:
        name: Its name.
        ty: ``Exclusive``, ``Shared`` or ``Workflow`` (the main handler); None for a plain service's.
        public: Whether the ingress serves it.
        idempotency_retention: Overrides its service's, where it is not None.
        workflow_completion_retention: Overrides its service's, where it is not None.
        journal_retention: Overrides its service's, where it is not None.
        input_description: What it takes, in words; ``none`` for nothing.
        output_description: What it gives, in words.
        input_json_schema: JSON schema of its input (or True for anything).
        output_json_schema: JSON schema of its output.
        documentation: What its author wrote.
        raw: All that the server said.
    """

    name: str
    ty: str | None = None
    public: bool = True
    idempotency_retention: timedelta | None = None
    workflow_completion_retention: timedelta | None = None
    journal_retention: timedelta | None = None
    input_description: str = ""
    output_description: str = ""
    input_json_schema: Any = None
    output_json_schema: Any = None
    documentation: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def takes_no_input(self) -> bool:
        """Whether it demands that there is no body and no content type."""
        return self.input_description.strip().lower() == "none"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HandlerInfo:
        """Read one off the server's JSON."""
        return cls(
            name=str(data.get("name", "")),
            ty=data.get("ty"),
            public=data.get("public") is not False,
            idempotency_retention=parse_duration(data.get("idempotency_retention")),
            workflow_completion_retention=parse_duration(data.get("workflow_completion_retention")),
            journal_retention=parse_duration(data.get("journal_retention")),
            input_description=data.get("input_description") or "",
            output_description=data.get("output_description") or "",
            input_json_schema=data.get("input_json_schema"),
            output_json_schema=data.get("output_json_schema"),
            documentation=data.get("documentation") or "",
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A service, an object or a workflow, as its latest deployment registered it.

    Attributes:
        name: Its name.
        ty: ``Service``, ``VirtualObject`` or ``Workflow``.
        public: Whether the ingress serves it.
        revision: Counts its registrations.
        deployment_id: The deployment that has its latest revision.
        idempotency_retention: How long a finished invocation's idempotency key is kept.
        workflow_completion_retention: The same for a workflow's own key; None for what is no workflow.
        journal_retention: How long journals are kept.
        handlers: Its handlers.
        documentation: What its author wrote.
        raw: All that the server said.
    """

    name: str
    ty: str = "Service"
    public: bool = True
    revision: int | None = None
    deployment_id: str | None = None
    idempotency_retention: timedelta | None = None
    workflow_completion_retention: timedelta | None = None
    journal_retention: timedelta | None = None
    handlers: tuple[HandlerInfo, ...] = ()
    documentation: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ServiceInfo:
        """Read one off the server's JSON."""
        return cls(
            name=str(data.get("name", "")),
            ty=data.get("ty") or "Service",
            public=data.get("public") is not False,
            revision=data.get("revision"),
            deployment_id=data.get("deployment_id"),
            idempotency_retention=parse_duration(data.get("idempotency_retention")),
            workflow_completion_retention=parse_duration(data.get("workflow_completion_retention")),
            journal_retention=parse_duration(data.get("journal_retention")),
            handlers=tuple(HandlerInfo.from_json(handler) for handler in data.get("handlers") or ()),
            documentation=data.get("documentation") or "",
            raw=data,
        )

    def handler(self, name: str) -> HandlerInfo | None:
        """Return one of its handlers, None where it has no such."""
        return next((handler for handler in self.handlers if handler.name == name), None)

    def is_workflow_run(self, handler: str) -> bool:
        """Tell whether a handler is a workflow's main one, which must not be sent an idempotency key."""
        found = self.handler(handler)
        return self.ty == "Workflow" and found is not None and found.ty == "Workflow"

    def retention_of(self, handler: str) -> timedelta | None:
        """Return how long Restate remembers what was sent to a handler, counted from completion.

        A handler's own overrides its service's, and a workflow's main handler has the workflow's.

        Returns:
            None where the server does not say.
        """
        found = self.handler(handler)
        if self.is_workflow_run(handler):
            own = found.workflow_completion_retention if found is not None else None
            return own if own is not None else self.workflow_completion_retention
        own = found.idempotency_retention if found is not None else None
        return own if own is not None else self.idempotency_retention


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment: where handlers are served.

    Attributes:
        id: Its id, ``dp_...``.
        uri: Its address, None for a Lambda function.
        arn: Its Lambda ARN, None for an address.
        created_at: When it was registered; the answer to a registration leaves it out.
        services: The names of its services.
        sdk_version: The SDK it was built with.
        raw: All that the server said, with the headers it sends along: they may be secrets.
        revisions: Which revision of each of its services it has.
        service_infos: Its services in full; the list of all deployments leaves them out.
        protocol_versions: The oldest and the newest service protocol that it speaks, where the server says so.
        http_version: How it is talked to: ``HTTP/2.0``.
        protocol_type: ``BidiStream``, or ``RequestResponse`` for what can't stream.
        header_names: The names of the headers that go with each request to it.
        notes: What the server says about it besides, such as what is deprecated (1.7 and later).
    """

    id: str
    uri: str | None = None
    arn: str | None = None
    created_at: datetime | None = None
    services: tuple[str, ...] = ()
    sdk_version: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    revisions: Mapping[str, int] = field(default_factory=dict)
    service_infos: tuple[ServiceInfo, ...] = ()
    protocol_versions: tuple[int, int] | None = None
    http_version: str | None = None
    protocol_type: str | None = None
    header_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Deployment:
        """Read one off the server's JSON."""
        services = data.get("services") or ()
        oldest, newest = data.get("min_protocol_version"), data.get("max_protocol_version")
        return cls(
            id=str(data.get("id", "")),
            uri=data.get("uri"),
            arn=data.get("arn"),
            created_at=parse_time(data.get("created_at")),
            services=tuple(str(service.get("name", "")) for service in services),
            sdk_version=data.get("sdk_version"),
            raw=data,
            revisions={str(service.get("name", "")): int(service.get("revision") or 0) for service in services},
            service_infos=tuple(ServiceInfo.from_json(service) for service in services if "handlers" in service),
            protocol_versions=None if oldest is None or newest is None else (oldest, newest),
            http_version=data.get("http_version"),
            protocol_type=data.get("protocol_type"),
            header_names=tuple(data.get("additional_headers") or ()),
            notes=tuple(str(note.get("message", "")) for note in data.get("info") or ()),
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of a handler to a Kafka topic.

    Attributes:
        id: Its id, ``sub_...``.
        source: ``kafka://cluster/topic``.
        sink: ``service://Service/handler``.
        options: Its consumer's options.
    """

    id: str
    source: str = ""
    sink: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Subscription:
        """Read one off the server's JSON."""
        return cls(str(data.get("id", "")), data.get("source") or "", data.get("sink") or "", data.get("options") or {})


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """A Kafka cluster that the server knows (1.7 and later).

    Attributes:
        name: Its name.
        properties: How to connect to it. They may hold secrets.
        created_at: When it was made known.
        subscriptions: The subscriptions that use it, where they were asked for.
    """

    name: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    created_at: datetime | None = None
    subscriptions: tuple[Subscription, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KafkaCluster:
        """Read one off the server's JSON."""
        return cls(
            str(data.get("name", "")),
            data.get("properties") or {},
            parse_time(data.get("created_at")),
            tuple(Subscription.from_json(entry) for entry in data.get("subscriptions") or ()),
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit on what runs at once within scopes (1.7 and later).

    Attributes:
        pattern: Which scopes and limit keys it is for: ``tenant-a/*``.
        concurrency: How many run at once, None for any number.
        disabled: It is parked.
        description: What it is for.
        version: Counts its changes.
    """

    pattern: str
    concurrency: int | None = None
    disabled: bool = False
    description: str | None = None
    version: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rule:
        """Read one off the server's JSON."""
        return cls(
            str(data.get("pattern", "")),
            (data.get("limits") or {}).get("concurrency"),
            bool(data.get("disabled")),
            data.get("description"),
            data.get("version"),
        )


_COMPLETION_FAILURE = re.compile(r"\[([0-9]{1,9})\] ?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class InvocationRow:
    """A row of ``sys_invocation``: what Restate knows of an invocation. What it leaves out is None.

    Attributes:
        id: The invocation.
        target: ``Service/handler`` or ``Service/key/handler``.
        status: ``scheduled``, ``pending``, ``ready``, ``running``, ``backing-off``, ``suspended``, ``paused`` or
            ``completed``.
        completion_result: ``success`` or ``failure``, when it is completed.
        completion_failure: ``[code] message``; see :attr:`failure`.
        retry_count: Attempts so far, when there was more than one.
        last_failure: What the last failed attempt said.
        last_failure_error_code: The server's code for it, such as ``RT0007``.
        next_retry_at: When the next attempt is due.
        created_at: When Restate took it.
        modified_at: When anything of it changed last.
        scheduled_at: When a delayed one was put off.
        scheduled_start_at: When a delayed one starts.
        running_at: When it started.
        completed_at: When it ended.
        idempotency_key: The key it was sent with.
        scope: Its scope, where the row was read whole (1.6 has no such column).
        restarted_from: The invocation that it restarts.
        target_service_name: The service.
        target_service_ty: ``service``, ``virtual_object`` or ``workflow``.
        target_service_key: The object's or workflow's key.
        target_handler_name: The handler.
        raw: The row as the server sent it.
    """

    id: str
    target: str = ""
    status: str = ""
    completion_result: str | None = None
    completion_failure: str | None = None
    retry_count: int | None = None
    last_failure: str | None = None
    last_failure_error_code: str | None = None
    next_retry_at: datetime | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None
    scheduled_at: datetime | None = None
    scheduled_start_at: datetime | None = None
    running_at: datetime | None = None
    completed_at: datetime | None = None
    idempotency_key: str | None = None
    scope: str | None = None
    restarted_from: str | None = None
    target_service_name: str | None = None
    target_service_ty: str | None = None
    target_service_key: str | None = None
    target_handler_name: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def failure(self) -> tuple[int | None, str] | None:
        """Its failure's code and message, None when it did not fail."""
        if self.completion_result != "failure":
            return None
        text = self.completion_failure or ""
        parts = _COMPLETION_FAILURE.fullmatch(text)
        return (int(parts[1]), parts[2]) if parts else (None, text)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InvocationRow:
        """Read one off a row of SQL."""
        values = {name: data.get(name) for name in INVOCATION_COLUMNS}
        for name in _TIMES:
            values[name] = parse_time(values[name])
        values["target"] = values["target"] or ""
        values["status"] = values["status"] or ""
        return cls(**values, scope=data.get("scope"), raw=data)  # type: ignore[arg-type] # names and types are the columns' own


#: The columns that a row has, those that 1.6 and 1.7 both have.
INVOCATION_COLUMNS = (
    "id",
    "target",
    "status",
    "completion_result",
    "completion_failure",
    "retry_count",
    "last_failure",
    "last_failure_error_code",
    "next_retry_at",
    "created_at",
    "modified_at",
    # Nobody reads it, but without it the next one is always null (measured on 1.6.2 and 1.7.12).
    "scheduled_at",
    "scheduled_start_at",
    "running_at",
    "completed_at",
    "idempotency_key",
    "restarted_from",
    "target_service_name",
    "target_service_ty",
    "target_service_key",
    "target_handler_name",
)
_TIMES = (
    "next_retry_at",
    "created_at",
    "modified_at",
    "scheduled_at",
    "scheduled_start_at",
    "running_at",
    "completed_at",
)


@dataclass(frozen=True, slots=True)
class InvocationDescription:
    """All that the server can tell of one invocation, for the page that shows it.

    Attributes:
        row: What it is and how it stands.
        journal: Its steps in order: rows of ``sys_journal``.
        events: What happened to it: rows of ``sys_journal_events``.
    """

    row: InvocationRow
    journal: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------ durations

_FRIENDLY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµμ]+)[\s,]*")
_ISO = re.compile(
    r"P(?:(?P<y>[\d.]+)Y)?(?:(?P<mo>[\d.]+)M)?(?:(?P<w>[\d.]+)W)?(?:(?P<d>[\d.]+)D)?"
    r"(?:T(?:(?P<h>[\d.]+)H)?(?:(?P<m>[\d.]+)M)?(?:(?P<s>[\d.]+)S)?)?",
    re.IGNORECASE,
)
_SECONDS = {"y": 31557600.0, "mo": 2629800.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0} | {
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
}
_UNITS = (
    {unit: unit for unit in _SECONDS}
    | dict.fromkeys(("year", "years", "yr", "yrs"), "y")
    | dict.fromkeys(("month", "months", "mos"), "mo")
    | dict.fromkeys(("week", "weeks", "wk", "wks"), "w")
    | dict.fromkeys(("day", "days"), "d")
    | dict.fromkeys(("hour", "hours", "hr", "hrs"), "h")
    | dict.fromkeys(("minute", "minutes", "min", "mins"), "m")
    | dict.fromkeys(("second", "seconds", "sec", "secs"), "s")
    | dict.fromkeys(("millisecond", "milliseconds", "msec", "msecs", "milli", "millis"), "ms")
    | dict.fromkeys(("microsecond", "microseconds", "µs", "μs", "usec", "micro", "micros"), "us")
    | dict.fromkeys(("nanosecond", "nanoseconds", "nsec", "nano", "nanos"), "ns")
)


def parse_duration(value: Any) -> timedelta | None:
    """Return a duration of the server: ``1d``, ``1h 30m``, ``250ms`` (as services show them) or ``PT86400S`` (SQL).

    Returns:
        None for none, and for what can't be read. One beyond Python's range is its longest.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    iso = _ISO.fullmatch(text)
    try:
        if iso is not None:
            seconds = sum(float(amount) * _SECONDS[unit] for unit, amount in iso.groupdict().items() if amount)
        else:
            parts = _FRIENDLY.findall(text)
            if not parts or _FRIENDLY.sub("", text):
                return None
            seconds = sum(float(amount) * _SECONDS[_UNITS[unit]] for amount, unit in parts)
        return timedelta(seconds=seconds)
    except (KeyError, ValueError):
        return None
    except OverflowError:
        return timedelta.max


def format_duration(value: timedelta | str) -> str:
    """Return a duration as the server takes it: ``PT86400S``. A string goes as it is."""
    return value if isinstance(value, str) else f"PT{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"
