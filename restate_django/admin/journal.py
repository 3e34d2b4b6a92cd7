"""The steps of an invocation as Restate has them: what it did, when, for how long, and what went wrong on the way.

Reads ``sys_journal`` and ``sys_journal_events`` without the payloads in them, and pairs each command with the
notification that completed it. Imports the connections and the client; it knows neither requests nor templates.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from restate_django.admin import wording
from restate_django.client.targets import validate_invocation_id
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from restate_django.client import AdminClient

#: Steps that the page shows at most.
LIMIT: Final = 300
#: Seconds that a query may take: somebody waits for the page.
TIMEOUT: Final = 3.0
#: Units of the picture's width.
WIDTH: Final = 1000
# A bar is never so thin that it can't be seen.
_MIN_WIDTH: Final = 4
_TEXT: Final = 2000
# Restate's built-in signal for a cancellation (measured on 1.7.12: ``{"SignalIndex": 1}``).
_CANCEL_SIGNAL: Final = 1

_STEPS_SQL: Final = (
    'SELECT "index", entry_type, name, appended_at, entry_lite_json,'
    ' CASE WHEN entry_lite_json LIKE \'%"result":"Failure"%\' THEN entry_json END AS failure_json'
    " FROM sys_journal WHERE id = '{id}' ORDER BY \"index\" LIMIT {limit}"
)
_EVENTS_SQL: Final = (
    "SELECT after_journal_entry_index, appended_at, event_type, event_json"
    " FROM sys_journal_events WHERE id = '{id}' ORDER BY appended_at LIMIT {limit}"
)


@dataclass
class Trouble:
    """A try that failed and was repeated, or what held the invocation.

    Attributes:
        moment: When.
        text: What the handler said.
        trace: Its stack trace, where it has one.
    """

    moment: dt.datetime | None
    text: str
    trace: str = ""


@dataclass
class Step:
    """A command of the journal.

    Attributes:
        index: Its place in the journal, which ``restart as new`` takes.
        kind: What it is, in a word.
        name: Its name, key or target.
        start: When it was appended.
        end: When it was completed; None while it is waited for, the start for one that takes no time.
        state: ``done``, ``failed`` or ``open``.
        note: A failure's message, or what it waits for.
        invocation_id: The invocation that it made.
        troubles: Tries of it that failed.
        x: Where its bar begins, of ``WIDTH``.
        width: How long its bar is.
    """

    index: int
    kind: str
    name: str = ""
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    state: str = "done"
    note: str = ""
    invocation_id: str = ""
    troubles: list[Trouble] = field(default_factory=list)
    x: float = 0
    width: float = _MIN_WIDTH
    takes_time: bool = False

    @property
    def took(self) -> str:
        """How long it took, in words."""
        if not self.takes_time or self.start is None or self.end is None:
            return ""
        return wording.span(self.end - self.start)


@dataclass
class Journal:
    """The steps of an invocation, and the axis that their bars stand on."""

    steps: list[Step]
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    is_cut: bool = False

    @property
    def ticks(self) -> list[str]:
        """The axis in words: its quarters."""
        if self.start is None or self.end is None:
            return []
        return [wording.span((self.end - self.start) * quarter / 4) for quarter in range(5)]


def read(admin: AdminClient, invocation_id: str, *, ended_at: dt.datetime | None) -> Journal:
    """Read a journal.

    Args:
        admin: The Admin API of the row's connection.
        invocation_id: The invocation.
        ended_at: When it ended; None while it is open.

    Raises:
        RequestError: Restate can't be read now.
    """
    valid = validate_invocation_id(invocation_id)
    entries = admin.query(_STEPS_SQL.format(id=valid, limit=LIMIT + 1), timeout=TIMEOUT)
    events = admin.query(_EVENTS_SQL.format(id=valid, limit=LIMIT), timeout=TIMEOUT) if entries else []
    return arrange(entries, events, ended_at=ended_at)


def arrange(
    entries: list[dict[str, Any]], events: Iterable[dict[str, Any]], *, ended_at: dt.datetime | None
) -> Journal:
    """Make steps of rows of the two tables.

    Args:
        entries: Rows of ``sys_journal``, in order.
        events: Rows of ``sys_journal_events``.
        ended_at: When the invocation ended; None while it is open.
    """
    steps: list[Step] = []
    waiting: dict[int, Step] = {}
    for entry in entries[:LIMIT]:
        group, _colon, what = str(entry.get("entry_type", "")).partition(": ")
        body = _json(entry.get("entry_lite_json")).get(group, {})
        if group == "Command":
            step = _command(entry, what, body.get(what) or {})
            steps.append(step)
            for completion in _completions(body.get(what) or {}):
                waiting[completion] = step
        elif group == "Notification":
            _notify(entry, what, body, waiting, steps)
    _attach_troubles(steps, events)
    journal = Journal(steps, is_cut=len(entries) > LIMIT)
    _draw(journal, ended_at)
    return journal


def _command(entry: dict[str, Any], what: str, body: dict[str, Any]) -> Step:
    start = _moment(entry.get("appended_at"))
    completions = _completions(body)
    step = Step(
        index=int(entry.get("index", 0)),
        kind=_kinds().get(what, what),
        name=storable_text(str(entry.get("name") or _name_of(body)))[:_TEXT],
        start=start,
        end=None if completions else start,
        state="open" if completions else "done",
        invocation_id=str(body.get("invocation_id") or ""),
        takes_time=bool(completions),
    )
    if body.get("result") == "Failure":
        step.state = "failed"
        step.note = _failure(entry)
    if isinstance(wakes := body.get("wake_up_time"), int):
        moment = dt.datetime.fromtimestamp(wakes / 1000, tz=dt.UTC)
        step.note = _("until %(when)s") % {"when": wording.clock(moment)}
    elif isinstance(starts := body.get("invoke_time"), int) and starts:
        moment = dt.datetime.fromtimestamp(starts / 1000, tz=dt.UTC)
        step.note = _("to be run at %(when)s") % {"when": wording.clock(moment)}
    return step


def _notify(
    entry: dict[str, Any], what: str, body: dict[str, Any], waiting: dict[int, Step], steps: list[Step]
) -> None:
    """Complete the command that a notification is about; a signal is a step of its own."""
    identity = body.get("id") or {}
    moment = _moment(entry.get("appended_at"))
    failed = body.get("result") == "Failure"
    if what == "Signal":
        cancels = identity.get("SignalIndex") == _CANCEL_SIGNAL
        name = _("cancellation") if cancels else str(identity.get("SignalName") or "")
        kind = _("signal") if cancels or name else _("awakeable resolved")
        step = Step(int(entry.get("index", 0)), kind, storable_text(name), moment, moment)
        step.state, step.note = ("failed", _failure(entry)) if failed else ("done", "")
        steps.append(step)
        return
    completion: Any = identity.get("CompletionId")
    done = waiting.get(completion)
    if done is None or what == "CallInvocationId":
        return
    done.end = moment
    done.state = "failed" if failed else "done"
    if failed:
        done.note = _failure(entry)


def _completions(body: dict[str, Any]) -> list[int]:
    """The completion that ends a command: of a call its result's, not its id's."""
    found = body.get("result_completion_id", body.get("completion_id"))
    return [found] if isinstance(found, int) else []


def _name_of(body: dict[str, Any]) -> str:
    target = body.get("invocation_target")
    if isinstance(target, dict):
        for parts in target.values():
            if isinstance(parts, dict):
                names = (parts.get("name"), parts.get("key"), parts.get("handler"))
                return "/".join(str(name) for name in names if name)
    return str(body.get("key") or body.get("promise_name") or "")


def _attach_troubles(steps: list[Step], events: Iterable[dict[str, Any]]) -> None:
    for event in events:
        body = _json(event.get("event_json"))
        text = str(body.get("error_message") or body.get("message") or event.get("event_type") or "")
        trouble = Trouble(
            _moment(event.get("appended_at")),
            storable_text(text)[:_TEXT],
            storable_text(str(body.get("error_stacktrace") or ""))[: _TEXT * 4],
        )
        at = event.get("after_journal_entry_index", 0)
        before = [step for step in steps if step.index <= at]
        if before:
            before[-1].troubles.append(trouble)


def _draw(journal: Journal, ended_at: dt.datetime | None) -> None:
    """Give each bar its place on the axis from the first step to the end, or to now."""
    moments = [moment for step in journal.steps for moment in (step.start, step.end) if moment is not None]
    if not moments:
        return
    journal.start = min(moments)
    journal.end = max([*moments, timezone.now() if ended_at is None else ended_at])
    whole = (journal.end - journal.start).total_seconds() or 1.0
    for step in journal.steps:
        if step.start is None:
            continue
        if step.end is None and ended_at is not None:
            # It was still waited for when the invocation ended.
            step.end, step.state = ended_at, "left"
        end = step.end or journal.end
        x = (step.start - journal.start).total_seconds() / whole * WIDTH
        width = max(0.0, (end - step.start).total_seconds()) / whole * WIDTH
        step.width = round(max(width, _MIN_WIDTH), 1)
        step.x = round(max(0.0, min(x, WIDTH - step.width)), 1)


def _failure(entry: dict[str, Any]) -> str:
    """The code and message of a failure, wherever the entry has it."""
    found = _find_failure(_json(entry.get("failure_json")))
    if found is None:
        return _("failed")
    return storable_text(f"[{found.get('code')}] {found.get('message', '')}")[:_TEXT]


def _find_failure(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    failure = value.get("Failure")
    if isinstance(failure, dict):
        return failure
    return next((found for item in value.values() if (found := _find_failure(item)) is not None), None)


def _json(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _moment(text: Any) -> dt.datetime | None:
    return parse_datetime(text) if isinstance(text, str) else None


def _kinds() -> dict[str, str]:
    return {
        "Input": _("input"),
        "Output": _("output"),
        "Run": _("step"),
        "Sleep": _("sleep"),
        "Call": _("call"),
        "OneWayCall": _("send"),
        "GetState": _("read state"),
        "GetEagerState": _("read state"),
        "GetLazyState": _("read state"),
        "GetStateKeys": _("read state keys"),
        "GetEagerStateKeys": _("read state keys"),
        "GetLazyStateKeys": _("read state keys"),
        "SetState": _("write state"),
        "ClearState": _("clear state"),
        "ClearAllState": _("clear all state"),
        "GetPromise": _("wait for promise"),
        "PeekPromise": _("look at promise"),
        "CompletePromise": _("complete promise"),
        "CompleteAwakeable": _("complete awakeable"),
        "SendSignal": _("send signal"),
        "AttachInvocation": _("attach"),
        "GetInvocationOutput": _("read output"),
    }
