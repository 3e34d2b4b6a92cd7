# ruff: noqa: PLR2004 - HTTP's numbers are what these tables are made of, and anybody who reads them knows them
"""What an answer of Restate means: one pure function over tables that anybody can read.

:func:`classify` takes (verb, status, headers, body) and returns an :class:`Outcome`. The first row that fits decides,
and each row says why. Who speaks counts before the number: a handler picks its failure's code freely, and the server
makes it the HTTP status. What no row knows is ``UNKNOWN``, never success. It imports the form of an id alone.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from restate_django.client.targets import INVOCATION_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCE_HEADER = "x-restate-error-source"
ID_HEADER = "x-restate-id"
EXPIRES_HEADER = "idempotency-expires"

NOT_COMPLETED = 470
_UNREADABLE_TEXT = 500

Verb = Literal["send", "call", "output", "attach", "status", "lookup", "health", "awakeable", "admin"]


class Meaning(enum.Enum):
    """What an answer means for whoever asked."""

    ACCEPTED = "accepted"  # Restate has taken the invocation
    READY = "ready"  # here is what was asked for
    FAILED = "failed"  # the invocation ended in a failure
    ALREADY_RUN = "already-run"  # a call of a workflow that ran before; nothing ran now
    NOT_READY = "not-ready"  # it exists and has not ended
    NOT_FOUND = "not-found"  # Restate does not know it
    DONE = "done"  # an operation was carried out
    APPENDED = "appended"  # an operation was taken, and will be carried out
    REFUSED = "refused"  # this very request is refused for good; nothing ran
    WORKFLOW_KEY_REFUSED = "workflow-key-refused"  # the same, since a workflow's main handler takes no idempotency key
    PATH_REFUSED = "path-refused"  # the same, since the path has not the form that the target's kind has
    UNKNOWN_TARGET = "unknown-target"  # no such service or handler, yet; nothing ran
    UNAVAILABLE = "unavailable"  # not now; nothing ran
    MISCONFIGURED = "misconfigured"  # a setting is wrong, here or at a proxy; nothing ran
    NOT_OFFERED = "not-offered"  # the server has no such operation; nothing ran
    UNREADABLE = "unreadable"  # it ended, likely, in a failure that HTTP can't carry
    UNKNOWN = "unknown"  # it may have run


@dataclass(frozen=True, slots=True)
class Outcome:
    """The meaning of an answer, and what was read off it on the way.

    Attributes:
        meaning: What it means.
        rule: The name of the row that decided.
        reason: Why, and what to do next, as a sentence.
        status: The HTTP status.
        code: The code in the body, else the status.
        message: The server's or the handler's words: untrusted text.
        metadata: What a handler attached to its failure.
        invocation_id: The invocation it is about, where the answer says so.
        previously_accepted: Restate had taken the same key before (with ``ACCEPTED``).
        execution_time: When a delayed one will run (with ``ACCEPTED``).
        restate_code: The Admin API's own error code, such as ``META0003``.
        data: The body as JSON, None where it is none.
    """

    meaning: Meaning
    rule: str
    reason: str
    status: int
    code: int
    message: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    invocation_id: str | None = None
    previously_accepted: bool = False
    execution_time: datetime | None = None
    restate_code: str | None = None
    data: Any = None


class _Answer:
    """An answer with what the rows ask about it."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, service: str | None) -> None:
        headers = {name.lower(): value for name, value in headers.items()}
        self.status = status
        self.body = body
        self.service = service
        self.headers = headers
        self.source = headers.get(SOURCE_HEADER, "").strip().lower()
        said = headers.get(ID_HEADER, "").strip()
        #: The invocation that it is about. What is no invocation's id says nothing.
        self.id = said if INVOCATION_ID.fullmatch(said) else ""
        self.expires = headers.get(EXPIRES_HEADER, "")
        self.location = headers.get("location", "")
        self.content_type = headers.get("content-type", "").lower()
        self._data: Any = None
        self._parsed = False

    @property
    def data(self) -> Any:
        """The body as JSON, None where it is none."""
        if not self._parsed:
            self._parsed = True
            try:
                self._data = json.loads(self.body) if self.body else None
            except (ValueError, RecursionError):
                self._data = None
        return self._data

    def text(self, name: str) -> str:
        """A string of the body's JSON object, empty where there is none."""
        value = self.data.get(name) if isinstance(self.data, dict) else None
        return value if isinstance(value, str) else ""

    @property
    def message(self) -> str:
        return self.text("message")

    @property
    def code(self) -> int:
        value = self.data.get("code") if isinstance(self.data, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else self.status

    @property
    def metadata(self) -> dict[str, Any]:
        value = self.data.get("metadata") if isinstance(self.data, dict) else None
        return value if isinstance(value, dict) else {}

    @property
    def from_restate(self) -> bool:
        """Restate speaks, not a proxy: by its headers, or by an error body of its form (all that 1.6 has)."""
        return bool(self.source or self.id) or (isinstance(self.data, dict) and "message" in self.data)

    @property
    def is_ingress(self) -> bool:
        """The ingress itself speaks about the request: by its own signature, or in an older one's very words."""
        if self.source:
            return self.source == "ingress"
        # A key more, and it is no server's that leaves its signature out.
        return (
            isinstance(self.data, dict)
            and self.data.keys() == {"message"}
            and _UNSIGNED_REFUSAL.match(self.message) is not None
        )

    @property
    def is_too_large(self) -> bool:
        """The ingress finds the request too large, in the words of those of its layers that sign nothing."""
        if self.source:
            return self.source == "ingress" and self.status in {413, 414, 431}
        if self.status == 413:
            return self.content_type.startswith("text/plain") and self.body == b"length limit exceeded"
        return self.status in {414, 431} and not self.body and self.headers.keys() <= _BARE

    @property
    def is_html(self) -> bool:
        return "html" in self.content_type or self.body[:64].lstrip()[:1] == b"<"

    @property
    def is_result(self) -> bool:
        """It is an invocation's own result: the header says so, or, where a server names no source, an id does."""
        return self.source == "invocation" or (not self.source and bool(self.id))

    @property
    def is_plain(self) -> bool:
        """The body is empty or JSON: what Restate's own answers have, and a proxy's page has not."""
        return not self.body or (self.data is not None and not self.is_html)

    @property
    def is_redirect(self) -> bool:
        return self.status in {301, 302, 303, 307, 308}

    @property
    def accepted(self) -> bool:
        """A send's acceptance in full: 202, both words known, and one id in body and header alike."""
        return (
            self.status == 202
            and not self.source
            and self.text("status") in {"Accepted", "PreviouslyAccepted"}
            # An empty one is none, and what is no invocation's id was not taken for one above.
            and bool(self.id)
            and self.text("invocationId") == self.id
        )

    @property
    def names_target(self) -> bool:
        """It says that the service or handler that we sent to is not known (and not some other one)."""
        named = _UNKNOWN_TARGET.match(self.message)
        if named is None or self.service is None:
            return named is not None
        # The server decodes keys and scopes alone: of another name it repeats what the path had.
        return (named["service"] or named["owner"]) in {self.service, quote(self.service, safe="")}


_UNKNOWN_TARGET = re.compile(
    r"service '(?P<service>.*)' not found|the service '(?P<owner>.*)' exists, but the handler '", re.DOTALL
)

# What a server that signs nothing says when it refuses a request (1.6.2 and 1.7.2, measured one by one). A proxy's
# {"message": "Bad Request"} is none of it.
_UNSIGNED_REFUSAL = re.compile(
    r"bad path, (expected (either )?/|cannot decode key: )"
    r"|bad header [^ ]+: ToStrError"
    r"|bad delay query parameter, must be a ISO8601 duration: "
    r"|bad (awakeable|invocation) id '"
    r"|bad scope value: "
    r"|invalid limit-key: "
    r"|scoped invocations require "
    r"|cannot use the (delay query parameter with calls|idempotency key with workflow handlers)"
    r"|input validation error: "
    r"|the invoked service is not public$"
)
_MALFORMED = re.compile(rb"Failed to (deserialize|parse) ")
# All headers of the server's own HTTP layer, which answers before the ingress is asked. Proxies add one of theirs.
_BARE = frozenset({"connection", "content-length", "date"})


class Row(NamedTuple):
    """One row of a table: when it fits, what it means, and why."""

    name: str
    fits: Callable[[_Answer], bool]
    meaning: Meaning
    why: str


# ------------------------------------------------------------------------------------------------ rows in more tables

_WRONG_SETTING = (
    Row(
        "a redirect",
        lambda a: a.is_redirect,
        Meaning.MISCONFIGURED,
        "Redirects are never followed, so nothing ran. Point the URL at the Restate server itself.",
    ),
    Row(
        "not authorised",
        lambda a: a.status in {401, 403, 407},
        Meaning.MISCONFIGURED,
        "Nothing ran. Check the token.",
    ),
    Row(
        "method not allowed",
        lambda a: a.status == 405,
        Meaning.MISCONFIGURED,
        "Nothing ran. Something else than Restate seems to answer there, or another path style: check the URL.",
    ),
)

_TOO_BUSY = Row(
    "too busy",
    lambda a: a.status in {425, 429},
    Meaning.UNAVAILABLE,
    "Nothing was taken now, by Restate or by what stands before it, so nothing ran. Try again later.",
)

_PROXY = (
    Row(
        "a client error that is not Restate's",
        lambda a: 400 <= a.status < 500 and a.status != 408 and (a.is_html or not a.from_restate),
        Meaning.MISCONFIGURED,
        "Nothing ran. Something else than Restate answers, likely a proxy: check the URL and the proxy's settings.",
    ),
)

_TOO_LARGE = Row(
    "too large",
    lambda a: a.is_too_large,
    Meaning.REFUSED,
    "The request is over the server's limit, so nothing ran. Send less, or raise the server's limit.",
)

# A refusal for good ends a row, so nobody but Restate may say one.
_NOT_RESTATES_REFUSAL = Row(
    "a refusal that is not Restate's",
    lambda a: a.status in {400, 413, 414, 415, 431} and not a.is_ingress,
    Meaning.MISCONFIGURED,
    "Nothing ran. Restate signs its refusals (from 1.7.4 on) or has words of its own for them (1.6.2 and 1.7.2 do), so "
    "something else answers, likely a proxy: check the URL and the proxy's settings and limits.",
)

_NO_SUCH_PATH = Row(
    "a path that is not known",
    lambda a: a.status == 404,
    Meaning.MISCONFIGURED,
    "Nothing ran: the server knows no such path. Check the URL's prefix and the path style ('restate' needs a server "
    "of 1.7 or later, 'legacy' serves older ones).",
)

#: What the ingress says about a request itself, before any handler runs.
_SUBMIT_REFUSALS = (
    *_WRONG_SETTING,
    # 1.7.12 says 413 as unsigned text/plain; 1.6.2 and 1.7.12 say 414 and 431 with nothing at all (all measured).
    _TOO_LARGE,
    _TOO_BUSY,  # whoever says so, asks for patience
    *_PROXY,
    _NOT_RESTATES_REFUSAL,
    Row(
        "an idempotency key for a workflow's main handler",
        lambda a: a.status == 400 and "cannot use the idempotency key with workflow handlers" in a.message,
        Meaning.WORKFLOW_KEY_REFUSED,
        "Nothing ran. The workflow's own key makes it run once: send it without an idempotency key.",
    ),
    Row(
        "a path of another form",
        lambda a: a.status == 400 and a.message.startswith("bad path"),
        Meaning.PATH_REFUSED,
        "Nothing ran. Check the key: a service has none, an object and a workflow have one. Where that is right, the "
        "URL's prefix is wrong.",
    ),
    Row(
        "scopes that are switched off",
        lambda a: a.status == 400 and "scoped invocations require" in a.message,
        Meaning.REFUSED,
        "Nothing ran. This server has scopes switched off: send without a scope, or switch them on.",
    ),
    Row(
        "a service that is not public",
        lambda a: a.status == 400 and "is not public" in a.message,
        Meaning.REFUSED,
        "Nothing ran. Make the service public, or send to one that is.",
    ),
    Row(
        "a bad request",
        lambda a: a.status in {400, 415},
        Meaning.REFUSED,
        "Nothing ran. The request does not fit the handler: check its key, its payload and its content type.",
    ),
    Row(
        "an unknown service or handler",
        lambda a: a.status == 404 and a.names_target,
        Meaning.UNKNOWN_TARGET,
        "Nothing ran. Register the deployment that has it, or check the names.",
    ),
    _NO_SUCH_PATH,
    Row(
        "a record over the log's limit",
        lambda a: a.status == 500 and "record too large" in a.message,
        Meaning.REFUSED,
        "The payload is over the server's limit, so nothing ran (1.6 says it like this). Send less.",
    ),
)

_NO_HTTP_CODE = Row(
    "a failure that HTTP can't carry",
    lambda a: a.status == 500 and not a.body and not a.content_type,
    Meaning.UNREADABLE,
    "A handler failed with a code such as 100, which no answer can have (measured on 1.7.12): ask for its status.",
)

# ------------------------------------------------------------------------------------------------ the tables

_SEND = (
    Row("accepted", lambda a: a.accepted, Meaning.ACCEPTED, "Restate has taken it."),
    Row(
        "an acceptance that does not hold together",
        lambda a: a.status == 202,
        Meaning.UNKNOWN,
        "It says 202, but not with one invocation id in body and header alike, so it proves nothing.",
    ),
    Row(
        "a result where none can be",
        lambda a: a.is_result,
        Meaning.UNKNOWN,
        "A send is answered before any handler runs, so this result belongs to something else.",
    ),
    *_SUBMIT_REFUSALS,
)

_CALL = (
    Row(
        "the output",
        lambda a: a.status == 200 and bool(a.id) and not a.source,
        Meaning.READY,
        "The handler's output. A handler's failure of code 200 looks the same before 1.7.4, which names no source.",
    ),
    Row(
        "a workflow that ran before",
        lambda a: a.status == 409 and a.is_result and a.message == "the workflow method was already invoked",
        Meaning.ALREADY_RUN,
        "Nothing ran now: this workflow ran before. Attach to it for its result.",
    ),
    Row(
        "the handler's failure",
        lambda a: a.is_result,
        Meaning.FAILED,
        "The handler ended with a failure; its code became the status, whatever the number.",
    ),
    _NO_HTTP_CODE,
    *_SUBMIT_REFUSALS,
)

_READ_REFUSALS = (
    *_WRONG_SETTING,
    Row(
        "not now",
        lambda a: a.status in {408, 425, 429} or 500 <= a.status < 600,
        Meaning.UNAVAILABLE,
        "The server can't tell now. Reading changes nothing: try again later.",
    ),
    *_PROXY,
    _NOT_RESTATES_REFUSAL,
    Row(
        "a bad request",
        lambda a: a.status == 400,
        Meaning.REFUSED,
        "The server refuses the question itself: check the invocation id or the target.",
    ),
)

_NOT_FOUND = Row(
    "an unknown invocation",
    lambda a: a.status == 404 and a.message == "invocation not found",
    Meaning.NOT_FOUND,
    "Restate does not know it: purged, past its retention, or never sent.",
)

_OUTPUT = (
    Row(
        "the output",
        lambda a: a.status == 200 and bool(a.id) and not a.source,
        Meaning.READY,
        "The handler's output. A handler's failure of code 200 looks the same before 1.7.4, which names no source.",
    ),
    Row(
        "the invocation's failure",
        lambda a: a.is_result,
        Meaning.FAILED,
        "The invocation ended with a failure; its code became the status, whatever the number.",
    ),
    Row(
        "not completed",
        lambda a: a.status == NOT_COMPLETED and a.from_restate,
        Meaning.NOT_READY,
        "It exists and has not completed yet.",
    ),
    _NOT_FOUND,
    _NO_HTTP_CODE,
    *_READ_REFUSALS,
    _NO_SUCH_PATH,
)

_ATTACH = (
    Row(
        "an unknown invocation, as attach says it",
        lambda a: a.status == 404 and a.is_result and not a.expires and a.message == "not found",
        Meaning.NOT_FOUND,
        "Attach calls an unknown invocation a failure of its own; only output tells the two apart. Ask it.",
    ),
    *_OUTPUT,
)

_STATUS = (
    Row(
        "the stage",
        lambda a: a.status == 200 and a.text("stage") in {"created", "started", "completed"},
        Meaning.READY,
        "How far the invocation has come.",
    ),
    _NOT_FOUND,
    *_READ_REFUSALS,
    Row(
        "no such path",
        lambda a: a.status == 404,
        Meaning.NOT_OFFERED,
        "The server has no such path. Status needs 1.7.9 or later; with one, check the URL's prefix.",
    ),
)

_LOOKUP = (
    Row(
        "the id",
        lambda a: a.status == 200 and INVOCATION_ID.fullmatch(a.text("invocationId")) is not None,
        Meaning.READY,
        "The id that such an invocation has, or would have: it proves nothing about its existence.",
    ),
    *_READ_REFUSALS,
    Row(
        "no such path",
        lambda a: a.status == 404,
        Meaning.NOT_OFFERED,
        "The server has no such path. Lookup needs 1.7 or later; with one, check the URL's prefix.",
    ),
)

_HEALTH = (
    Row(
        "healthy",
        lambda a: a.status == 200 and isinstance(a.data, dict) and isinstance(a.data.get("services"), list),
        Meaning.READY,
        "The ingress answers, and names the services that it serves.",
    ),
    *_READ_REFUSALS,
    _NO_SUCH_PATH,
)

_AWAKEABLE = (
    Row("taken", lambda a: a.status == 202 and a.is_plain, Meaning.DONE, "The awakeable is completed."),
    *_WRONG_SETTING,
    _TOO_LARGE,
    _TOO_BUSY,  # whoever says so, asks for patience
    *_PROXY,
    _NOT_RESTATES_REFUSAL,
    Row(
        "a bad request",
        lambda a: a.status in {400, 415},
        Meaning.REFUSED,
        "Nothing was completed: check the awakeable's id.",
    ),
    _NO_SUCH_PATH,
)

_ADMIN = (
    Row(
        "taken, not carried out yet",
        lambda a: a.status == 202 and a.is_plain,
        Meaning.APPENDED,
        "The server took it, and will carry it out.",
    ),
    Row(
        "carried out", lambda a: a.status in {200, 201, 204} and a.is_plain, Meaning.DONE, "The server carried it out."
    ),
    *_WRONG_SETTING,
    Row(
        "no such operation",
        lambda a: a.status == 404 and not a.body,
        Meaning.NOT_OFFERED,
        "This server's Admin API has no such operation: it is older, or the URL's prefix is wrong.",
    ),
    # To the removal of a deployment without force (measured on 1.6.2 and 1.7.12).
    Row(
        "not implemented",
        lambda a: a.status == 501 and not a.body,
        Meaning.NOT_OFFERED,
        "This server can't do that, or not in this way: nothing was changed.",
    ),
    # The Admin API's own words for a request that it can't read (1.6.2 and 1.7.12), without a word of JSON.
    Row(
        "a malformed request",
        lambda a: a.status in {400, 422} and _MALFORMED.match(a.body) is not None,
        Meaning.REFUSED,
        "The server can't read the request, so nothing was changed: check the arguments.",
    ),
    # Not 425: the Admin API says so of an invocation that has not started.
    Row("too busy", lambda a: a.status == 429, _TOO_BUSY.meaning, _TOO_BUSY.why),
    *_PROXY,
    Row(
        "unknown",
        lambda a: a.status == 404,
        Meaning.NOT_FOUND,
        "The server does not know it: check the name or the id.",
    ),
    Row(
        "refused",
        lambda a: 400 <= a.status < 500 and a.status != 408,
        Meaning.REFUSED,
        "The server understood, and refused: nothing was changed.",
    ),
    Row(
        "refused, with an error of the server's own catalogue",
        lambda a: 500 <= a.status < 600 and (bool(a.text("restate_code")) or a.message.startswith("Datafusion error")),
        Meaning.REFUSED,
        "The server understood, and can't: its message says what is wrong (an SQL query, a deployment's URI).",
    ),
)

#: Every table by its verb. Read one from the top: the first row that fits decides.
TABLES: Mapping[Verb, tuple[Row, ...]] = {
    "send": _SEND,
    "call": _CALL,
    "output": _OUTPUT,
    "attach": _ATTACH,
    "status": _STATUS,
    "lookup": _LOOKUP,
    "health": _HEALTH,
    "awakeable": _AWAKEABLE,
    "admin": _ADMIN,
}

_CLOSED = Row(
    "nothing that is known",
    lambda _: True,
    Meaning.UNKNOWN,
    "The answer says nothing that is known, so nothing is taken from it. Does the URL lead to Restate itself?",
)


def classify(
    verb: Verb, status: int, headers: Mapping[str, str], body: bytes, *, service: str | None = None
) -> Outcome:
    """Return what an answer means.

    Args:
        verb: What was asked: the table to read.
        status: The HTTP status.
        headers: The answer's headers, their names in any case.
        body: The whole body.
        service: The service that a request was for: a 404 about another one is a wrong path, not an unknown service.
    """
    answer = _Answer(status, headers, body, service)
    row = next((row for row in TABLES[verb] if row.fits(answer)), _CLOSED)
    if row.meaning is Meaning.ACCEPTED:
        return Outcome(
            row.meaning,
            row.name,
            row.why,
            status,
            status,
            invocation_id=answer.id,
            previously_accepted=answer.text("status") == "PreviouslyAccepted",
            execution_time=parse_time(answer.text("executionTime")),
        )
    invocation_id = answer.id or None
    if row.meaning is Meaning.READY and verb in {"call", "output", "attach"}:
        # The body is the handler's: nothing in it is about the answer.
        return Outcome(row.meaning, row.name, row.why, status, status, invocation_id=invocation_id)
    message = answer.message
    if not message and not isinstance(answer.data, dict):
        message = body[:_UNREADABLE_TEXT].decode("utf-8", "replace").strip()
    return Outcome(
        row.meaning,
        row.name,
        row.why,
        status,
        answer.code,
        message,
        answer.metadata,
        invocation_id,
        restate_code=answer.text("restate_code") or None,
        data=answer.data,
    )


def parse_time(value: Any) -> datetime | None:
    """Return a time of the server as an aware datetime, None for none or for one that can't be read.

    It writes nine digits of a second (``2026-11-22T04:36:12.274000000Z``, 1.7.12); Python keeps six of them.
    """
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", value))
    except ValueError:
        return None
    # A time without a zone proves nothing: better none than one that is hours off.
    return parsed if parsed.tzinfo is not None else None


_NANOSECONDS = re.compile(r"(\.\d{6})\d+")


def final_status(code: int | None, message: str, *, cancel_requested: bool = False) -> str:
    """Return how an invocation ended that ended in a failure: ``cancelled``, ``killed`` or ``failed``.

    Restate ends cancelled and killed ones with 409 and a word whose case and spelling differ between SDKs and paths
    ("cancelled", "Cancelled", "canceled", "killed"; measured on 1.6.2 and 1.7.12). A handler may raise a 409 itself.

    Args:
        code: The failure's code.
        message: The failure's message.
        cancel_requested: We asked for its cancellation, so any 409 is taken for it.
    """
    if code != 409:
        return "failed"
    word = message.strip().lower()
    if word == "killed":
        return "killed"
    if word in {"cancelled", "canceled"} or cancel_requested:
        return "cancelled"
    return "failed"
