# ruff: noqa: PLR2004 - HTTP's numbers are what the answers are made of
"""A Restate server that lives in memory: it answers requests as Restate 1.7 does, and runs nothing.

What its invocations become is decided by whoever owns it. It imports the client's rules for ids and payloads, no model
and no verb. Every answer here was read off a server of 1.7.12; a suite of this project runs against both, and holds the
rows that come of them to be the same.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import re
import secrets
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from restate_django.client.payloads import decode_output
from restate_django.client.results import INVOCATION_COLUMNS, parse_duration
from restate_django.exceptions import InvocationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION: Final = "1.7.12"
_RETENTION: Final = dt.timedelta(days=1)
_DEPLOYMENT: Final = "dp_fake"
_JSON: Final = "application/json"
_PATHS: Final = (
    "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, "
    "/restate/scope/:scope/call/:service/:handler, /restate/attach/:invocation_id, /restate/output/:invocation_id, "
    "or /restate/lookup"
)
# The headers of a request that are about the request, and not for the handler.
_NOT_FOR_HANDLERS: Final = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "idempotency-key",
        "user-agent",
        "accept-encoding",
        "connection",
    }
)
_ID: Final = re.compile(r"inv_1[A-Za-z0-9]{33}")

#: A handler's answer: bytes and their content type, or a failure.
Outcome = tuple[bytes, str] | InvocationFailed


@dataclass(slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Broken(Exception):
    """The connection breaks in place of an answer.

    Attributes:
        how: ``refused`` (nothing was sent), ``reset`` or ``timeout`` (something was).
    """

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class BreakAt(Protocol):
    """Breaks the connection at a target, or not."""

    def __call__(self, service: str, handler: str, key: str | None, *, taken: bool) -> Reply | None:
        """Return a reply in place of the server's, raise :class:`Broken`, or return None."""


@dataclass(slots=True, eq=False)
class FakeInvocation:
    """An invocation that the server has taken.

    Attributes:
        id: Its id.
        verb: ``send`` or ``call``.
        service: Its service.
        handler: Its handler.
        key: The object's or workflow's key, None for a service.
        scope: Its scope, None for none.
        limit_key: Its limit key, None for none.
        idempotency_key: The key it was sent with, None for a workflow's main handler.
        body: The payload's bytes, None for none.
        content_type: Their type, empty for none.
        headers: What goes to the handler, the names in lower case.
        delay: The delay that it was sent with, None for none.
        created_at: When it was taken.
        starts_at: When it starts.
        status: Restate's word: ``scheduled``, ``running``, ..., ``completed``; empty for one that was forgotten.
        outcome: How it ended, None while it has not.
        completed_at: When it ended.
        running_at: When it started, None while it has not.
        retry_count: Attempts so far.
        last_failure: What the last attempt died of.
        pause_failure: What it was paused for.
        signals: Cancellations that it was sent.
        is_workflow: It is the main handler of a workflow.
        held: Somebody said what its status is: it ends when somebody says so too.
        restarted_from: The invocation that it restarts.
    """

    id: str
    verb: str
    service: str
    handler: str
    key: str | None
    scope: str | None
    limit_key: str | None
    idempotency_key: str | None
    body: bytes | None
    content_type: str
    headers: dict[str, str]
    delay: dt.timedelta | None
    created_at: dt.datetime
    starts_at: dt.datetime
    status: str = "scheduled"
    outcome: Outcome | None = None
    completed_at: dt.datetime | None = None
    running_at: dt.datetime | None = None
    retry_count: int = 0
    last_failure: str = ""
    pause_failure: str = ""
    signals: int = 0
    is_workflow: bool = False
    held: bool = False
    restarted_from: str | None = None

    @property
    def target(self) -> str:
        """The target in words."""
        return "/".join(part for part in (self.service, self.key, self.handler) if part)

    @property
    def payload(self) -> Any:
        """The payload as the handler would read it; None where there is none."""
        return None if self.body is None else decode_output(self.body, self.content_type)

    def start(self, now: dt.datetime) -> None:
        """Run."""
        self.status = "running"
        self.running_at = self.running_at or now
        self.retry_count = self.retry_count or 1

    def end(self, outcome: Outcome, now: dt.datetime) -> None:
        """End, well or badly."""
        self.running_at = self.running_at or now
        self.status, self.outcome, self.completed_at = "completed", outcome, now
        self.retry_count, self.last_failure = 0, ""


class FakeServer:
    """The invocations of one server, and its answers.

    Args:
        now: The clock.
        pass_time: Moves the clock on to a moment: somebody waited for it.
        break_at: Called with the parts of a target before it is taken, and after it: it may raise :class:`Broken`, or
            return a reply in place of the server's.
        ending: Returns when an invocation that runs will end (None: nobody knows), and what then gives its outcome.
        is_unknown: Tells which part of a target the server does not know: ``service``, ``handler`` or nothing.
        kind_of: Returns a service's kind where it is known (``Service``, ``VirtualObject``, ``Workflow``), its
            handlers' kinds by name, and which of them take no input.
        names: Returns the names of the services that are known without an invocation.
    """

    def __init__(
        self,
        *,
        now: Callable[[], dt.datetime],
        pass_time: Callable[[dt.datetime], None],
        break_at: BreakAt,
        ending: Callable[[FakeInvocation], tuple[dt.datetime | None, Callable[[], Outcome] | None]],
        is_unknown: Callable[[str, str, str | None], str],
        kind_of: Callable[[str], tuple[str, Mapping[str, str | None], frozenset[str]] | None],
        names: Callable[[], set[str]],
    ) -> None:
        self._now = now
        self._pass_time = pass_time
        self._break_at = break_at
        self._ending = ending
        self._is_unknown = is_unknown
        self._kind_of = kind_of
        self._names = names
        self.lock = threading.RLock()
        #: All that were taken, in order; forgotten ones too.
        self.taken: list[FakeInvocation] = []
        self._known: dict[str, FakeInvocation] = {}

    # ------------------------------------------------------------ requests

    def answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, *, admin: bool
    ) -> Reply:
        """Answer a request.

        Args:
            method: The HTTP method.
            url: The path below the server's base URL, with its query.
            headers: The headers.
            body: The body, None for none.
            seconds: How long whoever asks waits.
            admin: It goes to the Admin API.

        Raises:
            Broken: No answer comes.
        """
        parts = urlsplit(url)
        path = [unquote(part) for part in parts.path.split("/")[1:]]
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        lowered = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
        with self.lock:
            if admin:
                return self._admin(method, path, body)
            return self._ingress(method, path, query, lowered, body, seconds)

    def find(self, invocation_id: str) -> FakeInvocation | None:
        """Return an invocation as it stands now, None for one that the server does not know."""
        found = self._known.get(invocation_id)
        return None if found is None else self._settled(found)

    def forget(self, invocation: FakeInvocation) -> None:
        """Know an invocation no more: its key is free."""
        self._known.pop(invocation.id, None)
        invocation.status = ""

    def _settled(self, invocation: FakeInvocation) -> FakeInvocation:
        """Let the time that has passed do its work."""
        now = self._now()
        if invocation.status == "scheduled" and invocation.starts_at <= now:
            invocation.start(invocation.starts_at)
        if invocation.status == "running" and not invocation.held:
            ends_at, outcome = self._ending(invocation)
            if ends_at is not None and outcome is not None and ends_at <= now:
                invocation.end(outcome(), ends_at)
        return invocation

    # ------------------------------------------------------------ the ingress

    def _ingress(
        self,
        method: str,
        path: list[str],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> Reply:
        match [method, *path]:
            case ["GET", "restate", "health"]:
                return _json(200, {"services": sorted(self._services())})
            case ["POST", "restate", "scope", scope, ("send" | "call") as verb, *target]:
                return self._submit(verb, target, scope, query, headers, body, seconds)
            case ["POST", "restate", ("send" | "call") as verb, *target]:
                return self._submit(verb, target, None, query, headers, body, seconds)
            case ["GET", "restate", ("output" | "attach" | "status") as reading, invocation_id]:
                if not _ID.fullmatch(invocation_id):
                    return _ingress_error(400, f"bad invocation id '{invocation_id}': bad length")
                return self._read(reading, invocation_id, seconds)
            case ["POST", "restate", ("output" | "attach" | "status" | "lookup") as reading]:
                invocation_id = _id_of_target(json.loads(body or b"{}"))
                if reading == "lookup":
                    return _json(200, {"invocationId": invocation_id})
                return self._read(reading, invocation_id, seconds)
            case ["POST", "restate", "awakeables", _, "resolve" | "reject"]:
                return Reply(202)
        return _ingress_error(404, "not found")

    def _submit(
        self,
        verb: str,
        target: list[str],
        scope: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> Reply:
        if len(target) not in {2, 3}:
            return _ingress_error(400, _PATHS)
        service, handler = target[0], target[-1]
        key = target[1] if len(target) == 3 else None
        if (reply := self._break_at(service, handler, key, taken=False)) is not None:
            return reply
        refused = self._refusal(service, handler, key, headers, body)
        if refused is not None:
            return refused
        is_workflow = self._is_workflow_main(service, handler, key)
        idempotency_key = headers.get("idempotency-key")
        if is_workflow and idempotency_key is not None:
            return _ingress_error(
                400,
                "cannot use the idempotency key with workflow handlers. The handler invocation will already be "
                "idempotent by the workflow key itself.",
            )
        invocation_id = invocation_id_of(service, handler, key, idempotency_key, scope, is_workflow=is_workflow)
        known = self.find(invocation_id)
        if known is not None and verb == "call" and is_workflow:
            return _failed(invocation_id, InvocationFailed(409, "the workflow method was already invoked"))
        invocation = known or self._take(
            verb, invocation_id, service, handler, key, scope, query, headers, body, is_workflow=is_workflow
        )
        if (reply := self._break_at(service, handler, key, taken=True)) is not None:
            return reply
        if verb == "call":
            if self._never_ends(invocation):
                raise AssertionError(
                    f"{invocation.target} was called, and nothing says what it gives: "
                    f'on("{service}", "{handler}").returns(...) first.'
                )
            return self._waited(invocation, seconds)
        answer = {"invocationId": invocation.id}
        if invocation.delay is not None:
            answer["executionTime"] = _nanoseconds(invocation.starts_at)
        answer["status"] = "PreviouslyAccepted" if known is not None else "Accepted"
        return _json(202, answer, {"x-restate-id": invocation.id})

    def _refusal(
        self, service: str, handler: str, key: str | None, headers: Mapping[str, str], body: bytes | None
    ) -> Reply | None:
        """Return why a target is not taken, None where it is."""
        unknown = self._is_unknown(service, handler, key)
        if unknown == "service":
            return _ingress_error(
                404, f"service '{service}' not found, make sure to register the service before calling it."
            )
        if unknown == "handler":
            return _ingress_error(
                404,
                f"the service '{service}' exists, but the handler '{handler}' was not found, check that the handler "
                "exists in the latest registered service version.",
            )
        kind = self._kind_of(service)
        if kind is None:
            return None
        if (key is None) is not (kind[0] == "Service"):
            return _ingress_error(400, _PATHS)
        content_type = headers.get("content-type", "")
        if handler in kind[2] and (body is not None or content_type):
            return _ingress_error(
                400,
                "input validation error: Expected body and content-type to be empty, but wasn't with content-type "
                f"'Some(\"{content_type}\")'",
            )
        return None

    def _is_workflow_main(self, service: str, handler: str, key: str | None) -> bool:
        kind = self._kind_of(service)
        if kind is not None:
            return kind[0] == "Workflow" and kind[1].get(handler) == "Workflow"
        # Nobody said what it is: the main handler of a workflow is called "run" by convention.
        return key is not None and handler == "run"

    def _take(
        self,
        verb: str,
        invocation_id: str,
        service: str,
        handler: str,
        key: str | None,
        scope: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        is_workflow: bool,
    ) -> FakeInvocation:
        now = self._now()
        delay = parse_duration(query.get("delay"))
        invocation = FakeInvocation(
            id=invocation_id,
            verb=verb,
            service=service,
            handler=handler,
            key=key,
            scope=scope,
            limit_key=headers.get("x-restate-limit-key"),
            idempotency_key=headers.get("idempotency-key"),
            body=body,
            content_type=headers.get("content-type", ""),
            headers={
                name: value
                for name, value in headers.items()
                if name not in _NOT_FOR_HANDLERS and not name.startswith("x-restate-")
            },
            delay=delay,
            created_at=now,
            starts_at=now + (delay or dt.timedelta()),
            is_workflow=is_workflow,
        )
        self.taken.append(invocation)
        self._known[invocation.id] = invocation
        return self._settled(invocation)

    def _read(self, reading: str, invocation_id: str, seconds: float) -> Reply:
        invocation = self.find(invocation_id)
        if invocation is None:
            if reading == "attach":
                return _failed(invocation_id, InvocationFailed(404, "not found"))
            return _ingress_error(404, "invocation not found")
        if reading == "attach":
            return self._waited(invocation, seconds)
        if reading == "output":
            if invocation.outcome is None:
                return _ingress_error(470, "the invocation exists but has not completed yet")
            return _result(invocation)
        started = "started" if invocation.running_at is not None else "created"
        answer: dict[str, Any] = {"stage": "completed" if invocation.outcome is not None else started, "error": None}
        if isinstance(invocation.outcome, InvocationFailed):
            answer["error"] = {"code": invocation.outcome.code, "message": invocation.outcome.message}
        return _json(200, answer, {"x-restate-id": invocation.id})

    def _waited(self, invocation: FakeInvocation, seconds: float) -> Reply:
        """Wait for an end without waiting: the clock is moved on to it, if that is within the time."""
        if invocation.outcome is None and not invocation.held:
            begins = invocation.starts_at if invocation.status == "scheduled" else None
            running_at = invocation.running_at
            invocation.running_at = running_at or begins
            ends_at, outcome = self._ending(invocation)
            invocation.running_at = running_at
            if ends_at is not None and outcome is not None and ends_at <= self._now() + dt.timedelta(seconds=seconds):
                self._pass_time(ends_at)
                self._settled(invocation)
        if invocation.outcome is None:
            raise Broken("timeout")
        return _result(invocation)

    def _never_ends(self, invocation: FakeInvocation) -> bool:
        return invocation.outcome is None and not invocation.held and self._ending(invocation)[0] is None

    def _services(self) -> set[str]:
        return self._names() | {invocation.service for invocation in self.taken}

    # ------------------------------------------------------------ the Admin API

    def _admin(self, method: str, path: list[str], body: bytes | None) -> Reply:
        match [method, *path]:
            case ["GET", "health"]:
                return Reply(200)
            case ["GET", "version"]:
                limits = {"min_admin_api_version": 2, "max_admin_api_version": 4}
                return _json(200, {"version": VERSION, **limits, "features": {}})
            case ["GET", "services"]:
                return _json(200, {"services": [self._service(name) for name in sorted(self._services())]})
            case ["GET", "services", service]:
                if self._kind_of(service) is None and service not in self._services():
                    return _json(404, {"message": f"The requested service '{service}' does not exist"})
                return _json(200, self._service(service))
            case ["GET", "deployments"]:
                services = [{"name": name, "revision": 1} for name in sorted(self._services())]
                one = {"id": _DEPLOYMENT, "uri": "http://fake.invalid/", "services": services}
                return _json(200, {"deployments": [one]})
            case ["POST", "query"]:
                return self._sql(str(json.loads(body or b"{}").get("query", "")))
            case ["PATCH", "invocations", invocation_id, what]:
                return self._operate(invocation_id, what)
        # What it can't do, an older server can't either: the client says so.
        return Reply(404)

    def _service(self, name: str) -> dict[str, Any]:
        kind = self._kind_of(name)
        if kind is None:
            mine = [invocation for invocation in self.taken if invocation.service == name]
            workflow = any(invocation.is_workflow for invocation in mine)
            keyed = any(invocation.key is not None for invocation in mine)
            ty = "Workflow" if workflow else "VirtualObject" if keyed else "Service"
            handlers: Mapping[str, str | None] = {
                each.handler: "Workflow"
                if each.is_workflow
                else ("Shared" if workflow else "Exclusive")
                if keyed
                else None
                for each in mine
            }
            kind = (ty, handlers, frozenset())
        information: dict[str, Any] = {
            "name": name,
            "ty": kind[0],
            "handlers": [
                {
                    "name": handler,
                    "ty": ty,
                    "public": True,
                    "input_description": "none" if handler in kind[2] else "any",
                }
                for handler, ty in kind[1].items()
            ],
            "deployment_id": _DEPLOYMENT,
            "revision": 1,
            "public": True,
            "idempotency_retention": "1d",
            "journal_retention": "1d",
        }
        return information | ({"workflow_completion_retention": "1d"} if kind[0] == "Workflow" else {})

    def _operate(self, invocation_id: str, what: str) -> Reply:
        if not _ID.fullmatch(invocation_id):
            return _admin_error(400, "The request field 'invocation_id' is invalid. Reason: bad length")
        invocation = self.find(invocation_id)
        if invocation is None:
            return _admin_error(404, f"The requested invocation '{invocation_id}' does not exist")
        operations = {
            "cancel": self._cancel,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "purge": self._purge,
            "purge-journal": self._purge_journal,
            "restart-as-new": self._restart,
        }
        operation = operations.get(what)
        return Reply(404) if operation is None else operation(invocation)

    def _cancel(self, invocation: FakeInvocation) -> Reply:
        breaks = invocation.status == "backing-off" or (invocation.status == "paused" and invocation.pause_failure)
        if breaks:
            # A handler that breaks never awaits, so it never sees it (measured on 1.7.12). One that was paused by
            # somebody goes on, and does.
            invocation.signals += 1
            return Reply(202)
        return self._end_early(invocation, "cancelled", Reply(202))

    def _kill(self, invocation: FakeInvocation) -> Reply:
        return self._end_early(invocation, "killed", Reply(200))

    def _end_early(self, invocation: FakeInvocation, word: str, reply: Reply) -> Reply:
        if invocation.status == "completed":
            return _admin_error(409, f"The invocation '{invocation.id}' was already completed.")
        if invocation.status == "scheduled":
            # It had not started: nothing is left of it.
            self.forget(invocation)
            return Reply(200)
        invocation.signals += word == "cancelled"
        invocation.end(InvocationFailed(409, word), self._now())
        return reply

    def _pause(self, invocation: FakeInvocation) -> Reply:
        if invocation.status == "paused":
            return Reply(200)
        if invocation.status not in {"running", "backing-off", "suspended"}:
            return _admin_error(409, f"The invocation '{invocation.id}' is not running, cannot be paused.")
        invocation.status, invocation.held = "paused", True
        return Reply(202)

    def _resume(self, invocation: FakeInvocation) -> Reply:
        if invocation.status == "completed":
            return _admin_error(409, f"The invocation '{invocation.id}' is completed, cannot be resumed.")
        if invocation.status == "scheduled":
            message = f"The invocation '{invocation.id}' is either inboxed or scheduled, cannot be resumed."
            return _admin_error(425, message)
        self.go_on(invocation)
        return Reply(200)

    def go_on(self, invocation: FakeInvocation) -> None:
        """Let an invocation run that stood still; a cancellation that it has not seen yet, it sees now."""
        invocation.held, invocation.last_failure = False, ""
        invocation.start(self._now())
        if invocation.signals:
            invocation.end(InvocationFailed(409, "cancelled"), self._now())

    def _purge(self, invocation: FakeInvocation) -> Reply:
        reply = self._purge_journal(invocation)
        if reply.status == 200:
            self.forget(invocation)
        return reply

    def _purge_journal(self, invocation: FakeInvocation) -> Reply:
        if invocation.status == "completed":
            return Reply(200)
        return _admin_error(409, f"The invocation '{invocation.id}' is not yet completed.")

    def _restart(self, invocation: FakeInvocation) -> Reply:
        if invocation.status == "scheduled":
            return _admin_error(
                425, f"The invocation '{invocation.id}' cannot be restarted because it's not running yet."
            )
        if invocation.is_workflow:
            return _admin_error(422, f"Restarting the invocation '{invocation.id}' is not supported.")
        if invocation.status != "completed":
            return _admin_error(409, f"The invocation '{invocation.id}' is still running.")
        now = self._now()
        new = FakeInvocation(
            id=_as_id(secrets.token_bytes(32)),
            verb="send",
            service=invocation.service,
            handler=invocation.handler,
            key=invocation.key,
            scope=invocation.scope,
            limit_key=invocation.limit_key,
            idempotency_key=None,
            body=invocation.body,
            content_type=invocation.content_type,
            headers=invocation.headers,
            delay=None,
            created_at=now,
            starts_at=now,
            restarted_from=invocation.id,
        )
        self.taken.append(new)
        self._known[new.id] = new
        self._settled(new)
        return _json(200, {"new_invocation_id": new.id})

    # ------------------------------------------------------------ SQL

    def _sql(self, sql: str) -> Reply:
        """Run SQL over what there is, by SQLite: its words for a plain SELECT are Restate's."""
        with contextlib.closing(sqlite3.connect(":memory:")) as tables:
            tables.row_factory = sqlite3.Row
            columns = [*INVOCATION_COLUMNS, "scope", "pinned_deployment_id", "modified_at"]
            columns = list(dict.fromkeys(columns))
            tables.execute(f"CREATE TABLE sys_invocation ({', '.join(columns)})")
            tables.execute('CREATE TABLE sys_journal (id, "index", entry_type, name, completed, entry_lite_json)')
            tables.execute("CREATE TABLE sys_journal_events (id, appended_at, event_type, event_json)")
            for invocation in list(self._known.values()):
                values = _sql_row(self._settled(invocation))
                marks = ", ".join("?" for _ in columns)
                tables.execute(
                    f"INSERT INTO sys_invocation VALUES ({marks})",  # noqa: S608 - question marks
                    [values.get(name) for name in columns],
                )
                for number in range(invocation.signals):
                    signal = json.dumps({"Notification": {"id": {"SignalIndex": 1}}})
                    entry = (invocation.id, number + 1, "Notification: Signal", None, None, signal)
                    tables.execute("INSERT INTO sys_journal VALUES (?, ?, ?, ?, ?, ?)", entry)
                if invocation.pause_failure:
                    failure = {"error_code": 500, "error_message": invocation.pause_failure}
                    event = json.dumps({"ty": "Paused", "last_failure": failure})
                    happened = (invocation.id, _milliseconds(self._now()), "Paused", event)
                    tables.execute("INSERT INTO sys_journal_events VALUES (?, ?, ?, ?)", happened)
            try:
                found = tables.execute(sql).fetchall()
            except sqlite3.Error as error:
                return _json(500, {"message": f"Datafusion error: {error} (the fake's SQL is SQLite's)"})
        # Restate leaves out what is null.
        rows = [{name: row[name] for name in row.keys() if row[name] is not None} for row in found]  # noqa: SIM118 - a row iterates over its values
        return _json(200, {"rows": rows})


# ---------------------------------------------------------------- ids


def invocation_id_of(
    service: str, handler: str, key: str | None, idempotency_key: str | None, scope: str | None, *, is_workflow: bool
) -> str:
    """Return an invocation's id: as with Restate, the same for the same target and key, and new without one."""
    if is_workflow:
        parts = ["workflow", scope, service, key]
    elif idempotency_key is not None:
        parts = ["key", scope, service, key, handler, idempotency_key]
    else:
        return _as_id(secrets.token_bytes(32))
    return _as_id(hashlib.sha256(json.dumps(parts).encode()).digest())


def _as_id(raw: bytes) -> str:
    text = re.sub("[^A-Za-z0-9]", "", base64.b64encode(raw + raw).decode())
    return f"inv_1{text[:33]}"


def _id_of_target(target: Mapping[str, Any]) -> str:
    scope = target.get("scope")
    if target.get("target") == "invocation":
        return str(target.get("invocationId"))
    if target.get("target") == "workflow":
        return invocation_id_of(
            str(target.get("workflowName")), "", target.get("workflowKey"), None, scope, is_workflow=True
        )
    return invocation_id_of(
        str(target.get("service")),
        str(target.get("handler")),
        target.get("key"),
        str(target.get("idempotencyKey")),
        scope,
        is_workflow=False,
    )


# ---------------------------------------------------------------- replies


def _json(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"content-type": _JSON, **(headers or {})})


def _ingress_error(status: int, message: str) -> Reply:
    document = {"code": status, "message": message, "source": "ingress"}
    return _json(status, document, {"x-restate-error-source": "ingress"})


def _admin_error(status: int, message: str) -> Reply:
    return _json(status, {"message": message, "restate_code": None})


def _failed(invocation_id: str, failure: InvocationFailed, headers: Mapping[str, str] | None = None) -> Reply:
    code = failure.code or 500
    document: dict[str, Any] = {"code": code, "message": failure.message, "source": "invocation"}
    if failure.metadata:
        document["metadata"] = failure.metadata
    own = {"x-restate-id": invocation_id, "x-restate-error-source": "invocation", **(headers or {})}
    return _json(code, document, own)


def _result(invocation: FakeInvocation) -> Reply:
    assert invocation.completed_at is not None  # noqa: S101 - it has an outcome
    expires = {"idempotency-expires": _milliseconds(invocation.completed_at + _RETENTION)}
    if isinstance(invocation.outcome, InvocationFailed):
        return _failed(invocation.id, invocation.outcome, expires)
    body, content_type = invocation.outcome or (b"", "")
    headers = {"x-restate-id": invocation.id, **expires, **({"content-type": content_type} if content_type else {})}
    return Reply(200, body, headers)


def _sql_row(invocation: FakeInvocation) -> dict[str, Any]:
    outcome = invocation.outcome
    failure = outcome if isinstance(outcome, InvocationFailed) else None
    kind = "workflow" if invocation.is_workflow else "service" if invocation.key is None else "virtual_object"
    paused = invocation.status == "paused"
    return {
        "id": invocation.id,
        "target": invocation.target,
        "target_service_name": invocation.service,
        "target_service_key": invocation.key,
        "target_handler_name": invocation.handler,
        "target_service_ty": kind,
        "scope": invocation.scope,
        "idempotency_key": invocation.idempotency_key,
        "status": invocation.status,
        "created_at": _milliseconds(invocation.created_at),
        "modified_at": _milliseconds(invocation.completed_at or invocation.running_at or invocation.created_at),
        "scheduled_at": None if invocation.delay is None else _milliseconds(invocation.created_at),
        "scheduled_start_at": None if invocation.delay is None else _milliseconds(invocation.starts_at),
        "running_at": _milliseconds(invocation.running_at),
        "completed_at": _milliseconds(invocation.completed_at),
        "completion_result": None if outcome is None else "failure" if failure else "success",
        "completion_failure": None if failure is None else f"[{failure.code}] {failure.message}",
        # A paused one's row has lost them (measured on 1.7.12).
        "retry_count": None if paused else invocation.retry_count or None,
        "last_failure": None if paused else invocation.last_failure or None,
        "pinned_deployment_id": None if invocation.running_at is None else _DEPLOYMENT,
        "restarted_from": invocation.restarted_from,
    }


def _milliseconds(moment: dt.datetime | None) -> Any:
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def _nanoseconds(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
