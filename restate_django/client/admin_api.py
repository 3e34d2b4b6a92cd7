"""The client of Restate's Admin API: a method for each operation of the server's own OpenAPI document.

Each is named as its ``operationId`` and has an argument for each parameter. It needs no Django settings, and may import
the rest of this package's client and the error tree. It promises that what goes into SQL or a path is checked before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar

from restate_django.client.ingress import describe
from restate_django.client.outcomes import Meaning, Outcome, classify
from restate_django.client.paths import PathStyle, segment, with_query
from restate_django.client.results import (
    INVOCATION_COLUMNS,
    Deployment,
    HandlerInfo,
    InvocationDescription,
    InvocationRow,
    KafkaCluster,
    OperationResult,
    Rule,
    ServiceInfo,
    Subscription,
    Version,
    format_duration,
)
from restate_django.client.targets import validate_invocation_id, validate_key, validate_scope
from restate_django.client.transport import (
    DEFAULT_MAX_RESPONSE_SIZE,
    DEFAULT_TIMEOUT,
    Answer,
    Request,
    Transport,
    retry_after,
)
from restate_django.client.words import one_line
from restate_django.exceptions import (
    AdminRefused,
    InvalidRequest,
    Misconfigured,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    RequestError,
    Unavailable,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

_FIRST_WITH_RESTATE_PATHS = (1, 7)
# Longer than elsewhere: what is wrong with a query or a deployment stands at the end of what the server says.
_LONGEST_REFUSAL = 1000

_ERRORS: dict[Meaning, type[RequestError]] = {
    Meaning.REFUSED: AdminRefused,
    Meaning.NOT_FOUND: NotFound,
    Meaning.MISCONFIGURED: Misconfigured,
    Meaning.UNAVAILABLE: Unavailable,
}


# What changes of an invocation while it is open, and what is told of its end.
_STATE_COLUMNS = (
    "id",
    "status",
    "retry_count",
    "last_failure",
    "running_at",
    "completed_at",
    "completion_result",
    "completion_failure",
)


class AdminClient:
    """A client of Restate's Admin API.

    It may be shared by threads, each of which gets a session of its own, and used as a context manager.

    Each method raises, beyond what it says itself:

    - ``InvalidRequest`` for an argument that could never be served, before anything is sent;
    - ``NotFound`` for what the server does not know, ``AdminRefused`` for what it understands and refuses (with its
      ``status``, ``message`` and ``restate_code``), ``NotSupported`` for an operation that an older server lacks;
    - ``Misconfigured`` where a setting is wrong, ``Unavailable`` where nothing was changed and later it may be;
    - ``OutcomeUnknown`` and ``RequestTimeout`` where it may have been.

    Args:
        url: The Admin API, such as ``http://localhost:9070``. A path prefix is kept.
        token: A bearer token.
        headers: Headers for each request.
        timeout: Seconds for a whole request by our own clock, retries included.
        connect_timeout: Seconds to connect. Default: what is left of ``timeout``.
        trust_env: Take proxies and a CA bundle from the environment, as ``requests`` does.
        ca_bundle: A file or folder of certificates to verify the server by.
        max_response_size: The largest body that is read, in bytes.
        retries: How often a read is tried again after a network error, 408, 425, 429 or 5xx.

    Raises:
        InvalidRequest: One of them can't be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float | None = None,
        trust_env: bool = False,
        ca_bundle: str | os.PathLike[str] | None = None,
        max_response_size: int = DEFAULT_MAX_RESPONSE_SIZE,
        retries: int = 0,
    ) -> None:
        self.transport = Transport(
            url,
            token,
            headers=headers,
            timeout=timeout,
            connect_timeout=connect_timeout,
            trust_env=trust_env,
            ca_bundle=ca_bundle,
            max_response_size=max_response_size,
            retries=retries,
        )

    @property
    def url(self) -> str:
        """The Admin API it talks to."""
        return self.transport.base_url

    def __repr__(self) -> str:
        return f"<AdminClient: {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. It can be used again, and opens new ones then."""
        self.transport.close()

    # -------------------------------------------------------------------------------------------- the server

    def version(self, *, timeout: float | None = None) -> Version:
        """Return the server's version and which experimental features it has."""
        return self._get("/version", "the server's version", timeout, Version.from_json)

    def health(self, *, timeout: float | None = None) -> None:
        """Return if the Admin API is up; raise if not."""
        self._ask(Request("GET", "/health", about="the Admin API", kind="admin.health", timeout=timeout))

    def cluster_health(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the cluster's name and its members' health (gone with 1.8)."""
        return self._get("/cluster-health", "the cluster's health", timeout, dict)

    def openapi(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the OpenAPI document of the Admin API itself, as this server serves it."""
        return self._get("/openapi", "the Admin API's document", timeout, dict)

    # -------------------------------------------------------------------------------------------- services

    def list_services(self, *, timeout: float | None = None) -> list[ServiceInfo]:
        """Return all services, objects and workflows in their latest revision."""
        return self._get("/services", "the services", timeout, _each("services", ServiceInfo.from_json))

    def get_service(self, service: str, *, timeout: float | None = None) -> ServiceInfo:
        """Return a service, an object or a workflow in its latest revision.

        Raises:
            NotFound: None of this name is registered.
        """
        return self._get(f"/services/{_named('service', service)}", service, timeout, ServiceInfo.from_json)

    def modify_service(
        self,
        service: str,
        *,
        public: bool | None = None,
        idempotency_retention: timedelta | str | None = None,
        workflow_completion_retention: timedelta | str | None = None,
        journal_retention: timedelta | str | None = None,
        inactivity_timeout: timedelta | str | None = None,
        abort_timeout: timedelta | str | None = None,
        timeout: float | None = None,
    ) -> ServiceInfo:
        """Change how a service is served, and return it as it is then. What is None stays as it is.

        Args:
            service: Its name.
            public: Whether the ingress serves it.
            idempotency_retention: How long a finished invocation's idempotency key is kept.
            workflow_completion_retention: The same for a workflow's own key. Only for workflows.
            journal_retention: How long journals are kept.
            inactivity_timeout: How long a handler may be silent before it is asked to suspend.
            abort_timeout: How long it then has, before it is cut off.
            timeout: Seconds for this request.
        """
        durations = {
            "idempotency_retention": idempotency_retention,
            "workflow_completion_retention": workflow_completion_retention,
            "journal_retention": journal_retention,
            "inactivity_timeout": inactivity_timeout,
            "abort_timeout": abort_timeout,
        }
        for name, value in durations.items():
            if not isinstance(value, str | timedelta | None):
                raise InvalidRequest(f"The {name} must be a timedelta or an ISO 8601 duration, not {value!a}.")
        body = {name: format_duration(value) for name, value in durations.items() if value is not None}
        path = f"/services/{_named('service', service)}"
        return self._change("PATCH", path, service, _given(public=public) | body, timeout, ServiceInfo.from_json)

    def modify_service_state(
        self,
        service: str,
        object_key: str,
        new_state: Mapping[str, bytes],
        *,
        version: str | None = None,
        scope: str | None = None,
        timeout: float | None = None,
    ) -> OperationResult:
        """Replace the whole state of an object.

        Args:
            service: The object's or workflow's name.
            object_key: Its key.
            new_state: All entries of the new state as raw bytes, mostly JSON.
            version: Only if the state still has this version.
            scope: The scope of the instance (1.7 and later).
            timeout: Seconds for this request.
        """
        body = _words(version=version) | _given(scope=None if scope is None else validate_scope(scope))
        body["object_key"] = validate_key(object_key)
        body["new_state"] = {}
        for name, value in _mapping("new_state", new_state).items():
            # bytes(5) would be five NUL bytes.
            if not isinstance(value, bytes | bytearray | memoryview):
                raise InvalidRequest(f"The state's {name!a} must be bytes, not {type(value).__name__}.")
            body["new_state"][name] = list(bytes(value))
        path = f"/services/{_named('service', service)}/state"
        return self._operate("POST", path, f"{service}/{object_key}", body, timeout=timeout)

    def list_service_handlers(self, service: str, *, timeout: float | None = None) -> list[HandlerInfo]:
        """Return the handlers of a service."""
        path = f"/services/{_named('service', service)}/handlers"
        return self._get(path, service, timeout, _each("handlers", HandlerInfo.from_json))

    def get_service_handler(self, service: str, handler: str, *, timeout: float | None = None) -> HandlerInfo:
        """Return one handler of a service."""
        path = f"/services/{_named('service', service)}/handlers/{_named('handler', handler)}"
        return self._get(path, f"{service}/{handler}", timeout, HandlerInfo.from_json)

    def get_service_openapi(self, service: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the OpenAPI document of a service, as its handlers' schemas make it."""
        return self._get(f"/services/{_named('service', service)}/openapi", service, timeout, dict)

    # -------------------------------------------------------------------------------------------- deployments

    def list_deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """Return all deployments."""
        return self._get("/deployments", "the deployments", timeout, _each("deployments", Deployment.from_json))

    def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Return a deployment by its id."""
        path = f"/deployments/{_named('deployment', deployment)}"
        return self._get(path, deployment, timeout, Deployment.from_json)

    def create_deployment(
        self,
        uri: str | None = None,
        *,
        arn: str | None = None,
        force: bool | None = None,
        breaking: bool | None = None,
        dry_run: bool | None = None,
        use_http_11: bool | None = None,
        additional_headers: Mapping[str, str] | None = None,
        assume_role_arn: str | None = None,
        metadata: Mapping[str, str] | None = None,
        auth: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Deployment:
        """Register a deployment: the server asks it for its services and serves them from then on.

        Args:
            uri: Where its handlers are served, as the server reaches it.
            arn: A Lambda function, in place of an address.
            force: Take the place of a deployment with the same address. None leaves it to the server.
            breaking: Take services whose new revision does not fit the old one.
            dry_run: Only tell what would come of it.
            use_http_11: Ask it over HTTP/1.1 (handlers behind WSGI, say).
            additional_headers: Headers for each request to it, mostly a token.
            assume_role_arn: The role to take on for a Lambda function.
            metadata: What else to keep with it.
            auth: How to authenticate to it (1.7 and later).
            timeout: Seconds for this request.

        Raises:
            AdminRefused: The server can't reach it, or its services do not fit those that are registered.
        """
        body = _words(uri=uri, arn=arn, assume_role_arn=assume_role_arn)
        body |= _given(force=force, breaking=breaking, dry_run=dry_run, use_http_11=use_http_11)
        body |= _mappings(additional_headers=additional_headers, metadata=metadata, auth=auth)
        if (uri is None) is (arn is None):
            raise InvalidRequest("Give a deployment's uri or its arn, one of the two.")

        def read(data: dict[str, Any]) -> Deployment:
            return Deployment.from_json(data | _given(uri=data.get("uri", uri), arn=data.get("arn", arn)))

        return self._change("POST", "/deployments", uri or arn or "", body, timeout, read)

    def update_deployment(
        self,
        deployment: str,
        *,
        uri: str | None = None,
        arn: str | None = None,
        overwrite: bool | None = None,
        dry_run: bool | None = None,
        use_http_11: bool | None = None,
        additional_headers: Mapping[str, str] | None = None,
        assume_role_arn: str | None = None,
        timeout: float | None = None,
    ) -> Deployment:
        """Change how a deployment is reached. What is None stays as it is.

        Args:
            deployment: Its id.
            uri: Its new address.
            arn: Its new Lambda ARN.
            overwrite: Take its services' new form too, breaking or not.
            dry_run: Only tell what would come of it.
            use_http_11: Ask it over HTTP/1.1.
            additional_headers: Headers for each request to it, in place of all that it has.
            assume_role_arn: The role to take on for a Lambda function.
            timeout: Seconds for this request.
        """
        body = _words(uri=uri, arn=arn, assume_role_arn=assume_role_arn)
        body |= _given(overwrite=overwrite, dry_run=dry_run, use_http_11=use_http_11)
        body |= _mappings(additional_headers=additional_headers)
        path = f"/deployments/{_named('deployment', deployment)}"
        return self._change("PATCH", path, deployment, body, timeout, Deployment.from_json)

    def delete_deployment(
        self, deployment: str, *, force: bool | None = None, timeout: float | None = None
    ) -> OperationResult:
        """Remove a deployment. The server does so with ``force=True`` alone; what still runs on it can't go on then."""
        path = with_query(f"/deployments/{_named('deployment', deployment)}", force=force)
        return self._operate("DELETE", path, deployment, timeout=timeout)

    # -------------------------------------------------------------------------------------------- invocations

    def cancel_invocation(self, invocation_id: str, *, timeout: float | None = None) -> OperationResult:
        """Ask an invocation to end: its handler gets a terminal error at its next step.

        Returns:
            Done (200) when it had not started and is gone now; appended (202) when it runs.
        """
        return self._operate_on(invocation_id, "cancel", timeout=timeout)

    def kill_invocation(self, invocation_id: str, *, timeout: float | None = None) -> OperationResult:
        """End an invocation at once, without compensation."""
        return self._operate_on(invocation_id, "kill", timeout=timeout)

    def pause_invocation(self, invocation_id: str, *, timeout: float | None = None) -> OperationResult:
        """Stop an invocation until it is resumed. Appended (202) when it runs, done (200) when it is paused."""
        return self._operate_on(invocation_id, "pause", timeout=timeout)

    def resume_invocation(
        self, invocation_id: str, *, deployment: str | None = None, timeout: float | None = None
    ) -> OperationResult:
        """Let a paused or backing-off invocation go on now.

        Args:
            invocation_id: The invocation.
            deployment: ``latest``, ``keep`` or a deployment's id. None leaves it to the server.
            timeout: Seconds for this request.
        """
        return self._operate_on(invocation_id, "resume", timeout=timeout, deployment=deployment)

    def purge_invocation(self, invocation_id: str, *, timeout: float | None = None) -> OperationResult:
        """Forget a completed invocation, its output and its key: the key is free from then on."""
        return self._operate_on(invocation_id, "purge", timeout=timeout)

    def purge_journal(self, invocation_id: str, *, timeout: float | None = None) -> OperationResult:
        """Forget a completed invocation's journal, and keep its output and its key."""
        return self._operate_on(invocation_id, "purge-journal", timeout=timeout)

    def restart_as_new_invocation(
        self,
        invocation_id: str,
        *,
        from_: int | None = None,
        deployment: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Run a completed invocation again as a new one, with the same input and no idempotency key.

        Args:
            invocation_id: The invocation.
            from_: Keep its journal up to this entry; 0 and None start over.
            deployment: ``latest``, ``keep`` or a deployment's id. Only with ``from_``.
            timeout: Seconds for this request.

        Returns:
            The new invocation's id. Asked twice, it makes two.
        """
        if from_ is not None and (isinstance(from_, bool) or not isinstance(from_, int) or from_ < 0):
            raise InvalidRequest(f"The entry {from_!a} must be a whole number, 0 or above.")
        path = with_query(
            f"/invocations/{validate_invocation_id(invocation_id)}/restart-as-new", from_=from_, deployment=deployment
        )
        new = self._change("PATCH", path, invocation_id, None, timeout, dict).get("new_invocation_id")
        if not isinstance(new, str) or not new:
            raise OutcomeUnknown("It was restarted, but the answer names no new invocation.", target=invocation_id)
        return new

    def delete_invocation(
        self,
        invocation_id: str,
        *,
        mode: Literal["Cancel", "Kill", "Purge"] | None = None,
        timeout: float | None = None,
    ) -> OperationResult:
        """Cancel, kill or purge an invocation: the older way, without telling what came of it.

        Args:
            invocation_id: The invocation.
            mode: Which of the three, cancel if none is told.
            timeout: Seconds for this request.
        """
        path = f"/invocations/{validate_invocation_id(invocation_id)}"
        lowered = None if mode is None else str(mode).lower()
        return self._operate("DELETE", with_query(path, mode=lowered), invocation_id, timeout=timeout)

    # -------------------------------------------------------------------------------------------- SQL

    def query(self, sql: str, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Run SQL over the server's tables and return its rows. Columns that are null are left out of a row.

        Args:
            sql: The query. It is sent as it is: put nothing unchecked into it.
            timeout: Seconds for this request.

        Raises:
            AdminRefused: The query is wrong. The message says where.
        """
        # On a kept-alive connection the answer stalls for some 40 ms (measured on 1.7.12).
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if not isinstance(sql, str):
            raise InvalidRequest(f"The query must be a string, not {type(sql).__name__}.")
        body = _encoded({"query": sql})
        data = self._ask(
            Request("POST", "/query", body, headers, about="SQL", kind="admin.query", timeout=timeout)
        ).data
        rows = data.get("rows") if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _known_nothing("SQL")
        return rows

    def count_open_invocations(self, *, timeout: float | None = None) -> dict[tuple[str, str | None], int]:
        """Return how many invocations are open, by their service and the deployment that they have started on.

        It reads all invocations that the server keeps (30,000 take about 50 ms on 1.7.12).

        Args:
            timeout: Seconds for this request.

        Returns:
            Numbers by service name and deployment id; None stands for those that have not started.
        """
        rows = self.query(
            "SELECT target_service_name AS service, pinned_deployment_id AS deployment, COUNT(*) AS number "
            "FROM sys_invocation WHERE status <> 'completed' GROUP BY target_service_name, pinned_deployment_id",
            timeout=timeout,
        )
        return {(str(row.get("service", "")), row.get("deployment")): int(row.get("number") or 0) for row in rows}

    def states(self, ids: Iterable[str], *, timeout: float | None = None) -> dict[str, dict[str, Any]]:
        """Return how invocations stand, in one query, as the server says it: what it takes to see what is new.

        Most rows say nothing new, and :meth:`InvocationRow.from_json` costs more than all the rest of the answer.

        Args:
            ids: As for :meth:`sys_invocations`.
            timeout: Seconds for this request.

        Returns:
            By invocation id, what ``InvocationRow.from_json`` reads, without what an invocation is and was sent with.
            Columns that are null are left out, and so are invocations that the server does not know.
        """
        return {str(row.get("id")): row for row in self._about(ids, _STATE_COLUMNS, timeout)}

    def sys_invocations(self, ids: Iterable[str], *, timeout: float | None = None) -> list[InvocationRow]:
        """Return how invocations stand, in one query. Those that the server does not know are missing.

        Args:
            ids: Invocation ids, up to some thousands (1,000 take about 30 ms on 1.7.12).
            timeout: Seconds for this request.
        """
        return [InvocationRow.from_json(row) for row in self._about(ids, INVOCATION_COLUMNS, timeout)]

    def _about(self, ids: Iterable[str], columns: Iterable[str], timeout: float | None) -> list[dict[str, Any]]:
        wanted = ", ".join(f"'{validate_invocation_id(each)}'" for each in dict.fromkeys(ids))
        if not wanted:
            return []
        # The ids are letters and digits, checked above: nothing in them can end the literal.
        sql = f"SELECT {', '.join(columns)} FROM sys_invocation WHERE id IN ({wanted})"  # noqa: S608 - the ids are checked
        return self.query(sql, timeout=timeout)

    def has_cancel_signal(self, invocation_id: str, *, timeout: float | None = None) -> bool:
        """Tell whether a cancellation has reached an invocation.

        It stands in the journal as a signal of index 1 (measured on 1.6.2 and 1.7.12), until the invocation has ended
        and its journal is gone.

        Args:
            invocation_id: The invocation.
            timeout: Seconds for this request.
        """
        sql = (
            "SELECT entry_lite_json FROM sys_journal "  # noqa: S608 - the id is letters and digits, checked here
            f"WHERE id = '{validate_invocation_id(invocation_id)}' AND entry_type = 'Notification: Signal'"
        )
        signals = (
            _json_object(row.get("entry_lite_json")).get("Notification") for row in self.query(sql, timeout=timeout)
        )
        return any(isinstance(signal, dict) and signal.get("id") == {"SignalIndex": 1} for signal in signals)

    def pause_failures(self, ids: Iterable[str], *, timeout: float | None = None) -> dict[str, str]:
        """Return why invocations were paused, by their ids: the last failure of each, with its stack trace.

        A paused invocation's row has lost its ``retry_count`` and ``last_failure`` (measured on 1.7.12); the event that
        paused it has kept the failure.

        Args:
            ids: Invocation ids.
            timeout: Seconds for this request.
        """
        wanted = ", ".join(f"'{validate_invocation_id(each)}'" for each in dict.fromkeys(ids))
        if not wanted:
            return {}
        sql = (
            "SELECT id, event_json FROM sys_journal_events "  # noqa: S608 - the ids are letters and digits, checked above
            f"WHERE event_type = 'Paused' AND id IN ({wanted}) ORDER BY appended_at"
        )
        failures: dict[str, str] = {}
        for row in self.query(sql, timeout=timeout):
            failure = _json_object(row.get("event_json")).get("last_failure")
            if isinstance(failure, dict):
                parts = (
                    f"[{failure.get('error_code')}] {failure.get('error_message')}",
                    failure.get("error_stacktrace"),
                )
                failures[str(row.get("id"))] = "\n".join(str(part) for part in parts if part)
        return failures

    def describe_invocation(self, invocation_id: str, *, timeout: float | None = None) -> InvocationDescription:
        """Return all that the server can tell of an invocation: its row, its journal and its journal's events.

        Args:
            invocation_id: The invocation.
            timeout: Seconds for each of the three queries.

        Raises:
            NotFound: The server does not know it.
        """
        literal = f"'{validate_invocation_id(invocation_id)}'"
        rows = self.query(f"SELECT * FROM sys_invocation WHERE id = {literal}", timeout=timeout)  # noqa: S608 - checked
        if not rows:
            raise NotFound("Restate does not know it: purged, past its retention, or never sent.", target=invocation_id)
        journal = self.query(
            f'SELECT * FROM sys_journal WHERE id = {literal} ORDER BY "index"',  # noqa: S608 - checked above
            timeout=timeout,
        )
        events = self.query(
            f"SELECT * FROM sys_journal_events WHERE id = {literal} ORDER BY appended_at",  # noqa: S608 - checked above
            timeout=timeout,
        )
        return InvocationDescription(InvocationRow.from_json(rows[0]), journal, events)

    # -------------------------------------------------------------------------------------------- Kafka

    def list_subscriptions(
        self, *, sink: str | None = None, source: str | None = None, timeout: float | None = None
    ) -> list[Subscription]:
        """Return the subscriptions, all or those of a sink or a source."""
        path = with_query("/subscriptions", sink=sink, source=source)
        return self._get(path, "the subscriptions", timeout, _each("subscriptions", Subscription.from_json))

    def create_subscription(
        self, source: str, sink: str, *, options: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Subscription:
        """Let a handler take a Kafka topic's records.

        Args:
            source: ``kafka://cluster/topic``.
            sink: ``service://Service/handler``.
            options: Options of the consumer.
            timeout: Seconds for this request.
        """
        body = _words(source=source, sink=sink) | _mappings(options=options)
        about = f"{source} to {sink}"
        return self._change("POST", "/subscriptions", about, body, timeout, Subscription.from_json)

    def get_subscription(self, subscription: str, *, timeout: float | None = None) -> Subscription:
        """Return a subscription by its id."""
        path = f"/subscriptions/{_named('subscription', subscription)}"
        return self._get(path, subscription, timeout, Subscription.from_json)

    def delete_subscription(self, subscription: str, *, timeout: float | None = None) -> OperationResult:
        """End a subscription."""
        path = f"/subscriptions/{_named('subscription', subscription)}"
        return self._operate("DELETE", path, subscription, timeout=timeout)

    def list_kafka_clusters(self, *, timeout: float | None = None) -> list[KafkaCluster]:
        """Return the Kafka clusters that the server knows (1.7 and later)."""
        return self._get("/kafka-clusters", "the Kafka clusters", timeout, _each("clusters", KafkaCluster.from_json))

    def create_kafka_cluster(
        self, name: str, properties: Mapping[str, str], *, timeout: float | None = None
    ) -> KafkaCluster:
        """Make a Kafka cluster known to the server (1.7 and later).

        Args:
            name: Its name, of a host name's form.
            properties: How to connect to it; ``bootstrap.servers`` at least.
            timeout: Seconds for this request.
        """
        body = _words(name=name) | {"properties": _mapping("properties", properties)}
        return self._change("POST", "/kafka-clusters", name, body, timeout, KafkaCluster.from_json)

    def get_kafka_cluster(
        self, cluster_name: str, *, include_subscriptions: bool | None = None, timeout: float | None = None
    ) -> KafkaCluster:
        """Return a Kafka cluster, with the subscriptions that use it or without (1.7 and later)."""
        path = with_query(
            f"/kafka-clusters/{_named('cluster_name', cluster_name)}", include_subscriptions=include_subscriptions
        )
        return self._get(path, cluster_name, timeout, KafkaCluster.from_json)

    def update_kafka_cluster(
        self, cluster_name: str, properties: Mapping[str, str], *, timeout: float | None = None
    ) -> KafkaCluster:
        """Change how the server connects to a Kafka cluster (1.7 and later)."""
        path = f"/kafka-clusters/{_named('cluster_name', cluster_name)}"
        body = {"properties": _mapping("properties", properties)}
        return self._change("PATCH", path, cluster_name, body, timeout, KafkaCluster.from_json)

    def delete_kafka_cluster(
        self, cluster_name: str, *, force: bool | None = None, timeout: float | None = None
    ) -> OperationResult:
        """Forget a Kafka cluster; with ``force=True`` although subscriptions use it (1.7 and later)."""
        path = with_query(f"/kafka-clusters/{_named('cluster_name', cluster_name)}", force=force)
        return self._operate("DELETE", path, cluster_name, timeout=timeout)

    # -------------------------------------------------------------------------------------------- limits

    def upsert_rules(self, rules: Sequence[Rule | Mapping[str, Any]], *, timeout: float | None = None) -> list[Rule]:
        """Set limits on what runs at once within scopes (1.7 and later).

        Args:
            rules: :class:`~restate_django.client.Rule` records, or the server's own JSON (``pattern``, ``limits``,
                ``disabled``, ``description``, ``precondition``).
            timeout: Seconds for this request.
        """
        body = [_rule_json(rule) for rule in rules]
        return self._change_all("PUT", "/limits/rules", body, timeout, Rule.from_json)

    def bulk_delete_rules(
        self, rules: Sequence[str | Rule | Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[str]:
        """Remove limits (1.7 and later).

        Args:
            rules: Patterns, :class:`~restate_django.client.Rule` records (removed only if their version still stands,
                where they have one), or the server's own JSON (``pattern``, ``expected_version``).
            timeout: Seconds for this request.

        Returns:
            The patterns that are gone.
        """
        body = [_deletion_json(rule) for rule in rules]
        return self._change_all("POST", "/limits/rules/bulk-delete", body, timeout, str)

    def pause_vqueue(self, vqueue_id: str, *, timeout: float | None = None) -> OperationResult:
        """Hold what waits in a queue (1.7 and later, with flow control switched on)."""
        return self._operate("POST", f"/vqueues/{_named('vqueue_id', vqueue_id)}/pause", vqueue_id, timeout=timeout)

    def resume_vqueue(self, vqueue_id: str, *, timeout: float | None = None) -> OperationResult:
        """Let a held queue go on (1.7 and later, with flow control switched on)."""
        return self._operate("POST", f"/vqueues/{_named('vqueue_id', vqueue_id)}/resume", vqueue_id, timeout=timeout)

    # -------------------------------------------------------------------------------------------- requests

    def _get(self, path: str, about: str, timeout: float | None, read: Callable[[dict[str, Any]], T]) -> T:
        return _as_read(
            self._ask(Request("GET", path, about=about, kind=_kind(path), timeout=timeout)).data, about, read
        )

    def _change(
        self,
        method: str,
        path: str,
        about: str,
        body: Any,
        timeout: float | None,
        read: Callable[[dict[str, Any]], T],
    ) -> T:
        data = self._ask(_changing(method, path, about, body, timeout)).data
        return _as_read(data, about, read, may_have_run=True)

    def _change_all(
        self, method: str, path: str, body: Any, timeout: float | None, read: Callable[[Any], T]
    ) -> list[T]:
        data = self._ask(_changing(method, path, "the rules", body, timeout)).data
        if not isinstance(data, list):
            raise _known_nothing("the rules", may_have_run=True)
        return _as_read({"rules": data}, "the rules", _each("rules", read), may_have_run=True)

    def _operate(
        self, method: str, path: str, about: str, body: Any = None, *, timeout: float | None
    ) -> OperationResult:
        outcome = self._ask(_changing(method, path, about, body, timeout))
        return OperationResult(outcome.status, outcome.meaning is Meaning.DONE, outcome.message)

    def _operate_on(
        self, invocation_id: str, what: str, *, timeout: float | None, **parameters: Any
    ) -> OperationResult:
        path = with_query(f"/invocations/{validate_invocation_id(invocation_id)}/{what}", **parameters)
        return self._operate("PATCH", path, invocation_id, timeout=timeout)

    def _ask(self, request: Request) -> Outcome:
        def interpret(answer: Answer) -> Outcome:
            outcome = classify("admin", answer.status, answer.headers, answer.body)
            if outcome.meaning not in {Meaning.DONE, Meaning.APPENDED}:
                _raise(outcome, request, answer)
            return outcome

        return self.transport.exchange(request, interpret)


def detect_path_style(admin: AdminClient, *, timeout: float | None = None) -> PathStyle:
    """Return the path style of the server that an Admin API belongs to: ``legacy`` before 1.7, else ``restate``.

    Args:
        admin: The client of that Admin API.
        timeout: Seconds for the request.

    Raises:
        RestateError: As :meth:`AdminClient.version` does.
    """
    release = admin.version(timeout=timeout).release
    # A version without numbers (a build of somebody's own) tells nothing: then it is not taken for an old one.
    return "legacy" if () < release < _FIRST_WITH_RESTATE_PATHS else "restate"


def _changing(method: str, path: str, about: str, body: Any, timeout: float | None) -> Request:
    encoded = None if body is None else _encoded(body)
    headers = {} if encoded is None else {"Content-Type": "application/json"}
    return Request(
        method, path, encoded, headers, about=about, kind=_kind(path), runs=True, repeatable=False, timeout=timeout
    )


def _kind(path: str) -> str:
    """Return what a request is measured by: the collection that it goes to, a word of the API's own."""
    return "admin." + re.split("[/?]", path, maxsplit=2)[1]


def _raise(outcome: Outcome, request: Request, answer: Answer) -> NoReturn:
    message = describe(outcome)
    if outcome.meaning is Meaning.NOT_OFFERED:
        raise NotSupported(message, status=outcome.status, target=request.about)
    kind = _ERRORS.get(outcome.meaning)
    if kind is None:
        # A read that fails changes nothing: the server can't tell now.
        passing = outcome.status == HTTPStatus.REQUEST_TIMEOUT or outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = Unavailable if passing and not request.runs else OutcomeUnknown
    if kind in {AdminRefused, NotFound} and outcome.message:
        message = one_line(outcome.message, _LONGEST_REFUSAL)
    error = kind(message, status=outcome.status, code=outcome.code, target=request.about)
    error.retry_after = retry_after(answer.headers)
    if isinstance(error, OutcomeUnknown):
        error.may_have_run = request.runs
    if isinstance(error, AdminRefused):
        error.restate_code = outcome.restate_code
    raise error


def _as_read(data: Any, about: str, read: Callable[[dict[str, Any]], T], *, may_have_run: bool = False) -> T:
    """Return what an answer's JSON object holds, or say that it is not the one that the operation has."""
    if isinstance(data, dict):
        try:
            return read(data)
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise _known_nothing(about, may_have_run=may_have_run) from error
    raise _known_nothing(about, may_have_run=may_have_run)


def _each(name: str, read: Callable[[Any], T]) -> Callable[[dict[str, Any]], list[T]]:
    """Make a reader of the list of that name: None and nothing are an empty one."""
    return lambda data: [read(entry) for entry in data.get(name) or ()]


def _known_nothing(about: str, *, may_have_run: bool = False) -> OutcomeUnknown:
    error = OutcomeUnknown("The answer is not the JSON that this operation has: is this the Admin API?", target=about)
    error.may_have_run = may_have_run
    return error


def _named(what: str, value: Any) -> str:
    """Return a name as one segment of a path."""
    if not isinstance(value, str) or not value or value in {".", ".."}:
        raise InvalidRequest(f"The {what} {value!a} must be a name.")
    try:
        return segment(value)
    except UnicodeEncodeError:
        raise InvalidRequest(f"The {what} {value!a} has a lone surrogate, which no encoding can send.") from None


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _words(**values: Any) -> dict[str, Any]:
    """Return the arguments that are given, each of which must be a string."""
    for name, value in values.items():
        if not isinstance(value, str | None):
            raise InvalidRequest(f"The {name} must be a string, not {type(value).__name__}.")
    return _given(**values)


def _mappings(**values: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments that are given, each of which must be a mapping."""
    return {name: _mapping(name, value) for name, value in values.items() if value is not None}


def _mapping(name: str, value: Any) -> dict[str, Any]:
    # No message shows the value: headers and Kafka's properties hold secrets.
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(f"The {name} must be a mapping with strings as its keys, not {type(value).__name__}.")
    return dict(value)


def _encoded(body: Any) -> bytes:
    """Return a body as JSON."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("An argument has a lone surrogate, which no encoding can send.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"An argument can't be sent as JSON: {error}") from None


def _rule_json(rule: Rule | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(rule, Rule):
        return _mapping("rule", rule)
    body: dict[str, Any] = {"pattern": rule.pattern, "limits": {"concurrency": rule.concurrency}}
    body |= {"disabled": rule.disabled} | _given(description=rule.description)
    if rule.version is not None:
        body["precondition"] = {"type": "matches", "version": rule.version}
    return body


def _deletion_json(rule: str | Rule | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(rule, str):
        return {"pattern": rule}
    if isinstance(rule, Rule):
        return _given(pattern=rule.pattern, expected_version=rule.version)
    return _mapping("rule", rule)


def _json_object(text: object) -> dict[str, Any]:
    """Return a column's JSON object, an empty one where it holds none."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
