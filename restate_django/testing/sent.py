"""What was sent, how it is compared with what a test wanted, and how the difference reads.

It imports the records and the client. No assertion is made here: ``fake`` raises what these functions say.
"""

from __future__ import annotations

import datetime as dt
import difflib
import pprint
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError
from django.db import connections as databases

from restate_django.client import NO_PAYLOAD, encode_payload, resolve_target
from restate_django.client.payloads import decode_output
from restate_django.client.targets import arguments
from restate_django.conf import swept_databases
from restate_django.exceptions import InvalidRequest
from restate_django.lifecycle import Status
from restate_django.models import Invocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from restate_django.testing.fake_server import FakeInvocation


_NOT_COMMITTED: Final = (
    "A row for it is recorded and its transaction is not committed: in a TestCase, do it within "
    "captureOnCommitCallbacks(execute=True) (django_capture_on_commit_callbacks with pytest)."
)


class _Anything:
    """The type of ``ANY``."""

    def __repr__(self) -> str:
        return "ANY"


#: Whatever was sent there.
ANY: Final[Any] = _Anything()


@dataclass(frozen=True)
class Sent:
    """What was sent and taken.

    Attributes:
        service: The service, object or workflow.
        handler: The handler.
        payload: The payload as the handler would read it; ``NO_PAYLOAD`` where there was none.
        key: The object's or workflow's key, None for a service.
        verb: ``send`` or ``call``.
        delay: How long Restate was asked to wait, None for not at all.
        idempotency_key: The key it was sent with; the row's own where you gave none. None for a workflow's run.
        headers: The headers for the handler, their names in lower case.
        scope: The scope, None for none.
        limit_key: The limit key, None for none.
        connection: The alias in ``RESTATE``.
        invocation_id: The fake's id of it.
    """

    service: str
    handler: str
    payload: Any
    key: str | None
    verb: str
    delay: dt.timedelta | None
    idempotency_key: str | None
    headers: Mapping[str, str]
    scope: str | None
    limit_key: str | None
    connection: str
    invocation_id: str

    @property
    def target(self) -> str:
        """The target in words."""
        return "/".join(part for part in (self.service, self.key, self.handler) if part)

    @property
    def row(self) -> Invocation | None:
        """Its row as the database has it; None for what a script sent without one."""
        return row_of(self.invocation_id)


# ---------------------------------------------------------------- rows


def row_of(invocation_id: str) -> Invocation | None:
    """Return the newest row of one of Restate's ids, None where there is none."""
    for using in databases_of_this_test():
        row = Invocation.objects.using(using).filter(invocation_id=invocation_id).order_by("-pk").first()
        if row is not None:
            return row
    return None


# ---------------------------------------------------------------- what is compared, and said


def sent_of(invocation: FakeInvocation, alias: str) -> Sent:
    """Return an invocation that the fake has taken as what was sent."""
    return Sent(
        service=invocation.service,
        handler=invocation.handler,
        payload=NO_PAYLOAD if invocation.body is None else invocation.payload,
        key=invocation.key,
        verb=invocation.verb,
        delay=invocation.delay,
        idempotency_key=invocation.idempotency_key,
        headers=invocation.headers,
        scope=invocation.scope,
        limit_key=invocation.limit_key,
        connection=alias,
        invocation_id=invocation.id,
    )


def named(service: Any, handler: Any, payload: Any) -> tuple[str, str | None, Any]:
    """Return the names of a target however it was given; after a handler function comes the payload."""
    if isinstance(service, str):
        return service, None if handler is None else resolve_target(service, handler)[1], payload
    if hasattr(service, "service_tag") and handler is None:
        return service.service_tag.name, None, payload
    if payload is ANY:
        service, named, given = arguments(service, NO_PAYLOAD if handler is None else handler, NO_PAYLOAD)
        if named is None:
            payload = ANY if handler is None else given
            handler = None
        else:
            handler = named
    return *resolve_target(service, handler), payload


def differences(sent: Sent, wanted: Mapping[str, Any]) -> list[str]:
    """Return the attributes in which something that was sent is not what was wanted."""
    return [name for name, value in wanted.items() if not _same(name, getattr(sent, name), value)]


def _same(name: str, sent: Any, wanted: Any) -> bool:
    if name == "delay" and isinstance(sent, dt.timedelta) and isinstance(wanted, dt.timedelta):
        # The row has a moment, and what is left until then is sent.
        return abs(sent - wanted) < dt.timedelta(seconds=5)
    if name == "headers" and isinstance(wanted, dict):
        return bool(sent == {header.lower(): value for header, value in wanted.items()})
    if name != "payload" or wanted is NO_PAYLOAD or sent is NO_PAYLOAD:
        return bool(sent is wanted if name == "payload" else sent == wanted)
    return bool(sent == wanted) or bool(sent == _as_sent(wanted))


def _as_sent(payload: Any) -> Any:
    """Return a payload as it arrives: a date as text, a tuple as a list."""
    try:
        encoded = encode_payload(payload)
    except InvalidRequest:
        return payload
    return decode_output(encoded.body or b"", encoded.content_type)


def times_in_words(number: int) -> str:
    """Return how often, in words."""
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def line(sent: Sent) -> str:
    """Return what was sent on a line."""
    words = [sent.verb, sent.target, "without a payload" if sent.payload is NO_PAYLOAD else repr(sent.payload)]
    if sent.delay is not None:
        words.append(f"delay {sent.delay}")
    if sent.connection not in {"", "default"}:
        words.append(f"connection {sent.connection!r}")
    return " ".join(words)


def listed(sent: list[Sent]) -> str:
    """Return all that was sent, a line each."""
    if not sent:
        return "Nothing was sent."
    return "Sent:\n" + "\n".join(f"  {line(each)}" for each in sent)


def not_sent(what: str, wanted: Mapping[str, Any], there: list[Sent], sent: list[Sent]) -> str:
    """Say what was sent in place of what was wanted, and how the nearest differs."""
    parts = [f"{what} was not sent" + (" like this." if there else ".")]
    if there:
        nearest = min(there, key=lambda each: len(differences(each, wanted)))
        for name in differences(nearest, wanted):
            value = getattr(nearest, name)
            asked = _as_sent(wanted[name]) if name == "payload" and wanted[name] is not NO_PAYLOAD else wanted[name]
            parts.append(_difference(name, asked, value))
    parts.append(listed(sent))
    parts += unsent_rows(what)
    return "\n".join(parts)


def _difference(name: str, wanted: Any, sent: Any) -> str:
    before, after = pprint.pformat(wanted).splitlines(), pprint.pformat(sent).splitlines()
    if len(before) == len(after) == 1:
        return f"{name}: wanted {before[0]}, sent {after[0]}"
    lines = difflib.unified_diff(before, after, f"{name} wanted", f"{name} sent", lineterm="", n=99)
    return "\n".join(line for line in lines if not line.startswith("@@"))


def unsent_rows(what: str) -> list[str]:
    """Say why rows that are there were not sent."""
    service, _, handler = what.partition("/")
    try:
        for using in databases_of_this_test():
            rows = Invocation.objects.using(using).filter(service=service, status=Status.UNSENT)
            row = (rows.filter(handler=handler) if handler else rows).first()
            if row is not None:
                return [f"A row for it is unsent: {row.delivery_error}" if row.delivery_error else _NOT_COMMITTED]
    except (RuntimeError, DatabaseError):
        # A test that may not ask the database has no rows either.
        return []
    return []


def databases_of_this_test() -> list[str]:
    """Return the databases that have rows, without those that this test may not use (``databases`` of a test case)."""
    return [alias for alias in swept_databases() if not hasattr(databases[alias].cursor, "wrapped")]


def not_there(which: Any, row: Invocation | None, sent: list[Sent]) -> str:
    """Say why the fake does not know an invocation."""
    if row is not None and row.status == Status.UNSENT:
        return "\n".join([f"{row.target} was not sent yet.", *unsent_rows(f"{row.service}/{row.handler}")])
    return f"The fake knows no invocation {which!r}.\n{listed(sent)}"
