"""Handlers that the tests run against, written with the official SDK: one of each kind, and one of each way to end.

The fixtures of ``conftest.py`` serve them with Hypercorn beside a real Restate server. Nothing imports this module but
the process that serves it.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate
from restate.exceptions import TerminalError
from restate.serde import BytesSerde

from restate_django.handlers import reports

RAW = BytesSerde()

# ---------------------------------------------------------------- one of each kind

greeter = restate.Service("Greeter")


@greeter.handler()
async def greet(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Greet at once."""
    return f"Hello, {request['name']}!"


@greeter.handler()
async def slowly(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Greet after a durable sleep."""
    await ctx.sleep(timedelta(seconds=request["seconds"]))
    return f"Hello, {request['name']}!"


counter = restate.VirtualObject("Counter")


@counter.handler()
async def add(ctx: restate.ObjectContext, number: int) -> int:
    """Add to the object's total, and give the new one."""
    total = (await ctx.get("total", type_hint=int) or 0) + number
    ctx.set("total", total)
    return total


@counter.handler("get", kind="shared")
async def get_total(ctx: restate.ObjectSharedContext) -> int:
    """Give the total."""
    return await ctx.get("total", type_hint=int) or 0


signup = restate.Workflow("Signup")


@signup.main()
async def run(ctx: restate.WorkflowContext, request: dict[str, Any]) -> dict[str, Any]:
    """Wait as long as asked, then confirm."""
    ctx.set("status", "waiting")
    await ctx.sleep(timedelta(seconds=request.get("seconds", 0)))
    ctx.set("status", "confirmed")
    return {"email": request["email"], "confirmed": True}


@signup.handler()
async def status(ctx: restate.WorkflowSharedContext) -> str:
    """Tell how far it is: new, waiting, confirmed."""
    return await ctx.get("status", type_hint=str) or "new"


# ---------------------------------------------------------------- ways to end, and not to end

fail = restate.Service("Fail")


@fail.handler()
async def terminal(ctx: restate.Context, request: dict[str, Any]) -> None:
    """Fail for good, as the caller says."""
    raise TerminalError(request["message"], status_code=request["code"], metadata=request.get("metadata"))


@fail.handler(
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=50),
        max_interval=timedelta(milliseconds=100),
        max_attempts=3,
        on_max_attempts="pause",
    )
)
async def always(ctx: restate.Context, request: Any) -> None:
    """Break at each attempt; after the third it is paused."""
    raise RuntimeError("broken at every attempt")


@fail.handler(
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(seconds=2), max_interval=timedelta(seconds=4), max_attempts=10_000
    )
)
async def backoff(ctx: restate.Context, request: Any) -> None:
    """Break at each attempt, with seconds between them: it stays in backing-off."""
    raise RuntimeError("broken, and to be tried again")


notes = restate.VirtualObject("Notes")


@notes.handler()
async def append(ctx: restate.ObjectContext, text: str) -> list[str]:
    """Add a line to the object's list, and give it whole."""
    lines = [*(await ctx.get("lines", type_hint=list[str]) or []), text]
    ctx.set("lines", lines)
    return lines


@notes.handler("get", kind="shared")
async def get_lines(ctx: restate.ObjectSharedContext) -> list[str]:
    """Give the list."""
    return await ctx.get("lines", type_hint=list[str]) or []


slow = restate.Service("Slow")


@slow.handler()
async def sleep(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Sleep durably; when cancelled, note the compensation and end as cancelled."""
    try:
        await ctx.sleep(timedelta(seconds=request["seconds"]))
    except TerminalError:
        if request.get("note"):
            ctx.object_send(append, key=request["note"], arg="compensated")
        raise
    return "slept"


# ---------------------------------------------------------------- what arrived

echo = restate.Service("Echo")
echo_object = restate.VirtualObject("EchoObject")


def _description(ctx: restate.Context, body: bytes) -> dict[str, Any]:
    request = ctx.request()
    return {
        "body": base64.b64encode(body).decode(),
        "headers": dict(request.headers),
        "id": request.id,
        "idempotency_key": request.idempotency_key,
        "scope": request.scope,
        "limit_key": request.limit_key,
    }


@echo.handler(accept="*/*", input_serde=RAW, content_type="application/octet-stream", output_serde=RAW)
async def raw(ctx: restate.Context, body: bytes) -> bytes:
    """Give the bytes back as they came."""
    return body


@echo.handler("json")
async def give_json(ctx: restate.Context, value: Any) -> Any:
    """Give the value back."""
    return value


@echo.handler("describe", accept="*/*", input_serde=RAW)
async def describe(ctx: restate.Context, body: bytes) -> dict[str, Any]:
    """Tell body, headers and keys as they came."""
    return _description(ctx, body)


@echo_object.handler("describe", accept="*/*", input_serde=RAW)
async def describe_object(ctx: restate.ObjectContext, body: bytes) -> dict[str, Any]:
    """Tell body, headers and keys as they came, and the object's key."""
    return {**_description(ctx, body), "key": ctx.key()}


no_input = restate.Service("NoInput")


@no_input.handler()
async def ping(ctx: restate.Context) -> str:
    """Take no input."""
    return "pong"


@no_input.handler()
async def quiet(ctx: restate.Context) -> None:
    """Take no input, and give no output."""


# ---------------------------------------------------------------- counting and waiting

ledger = restate.Service("Ledger")


@ledger.handler()
async def write(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Note in the file LEDGER_FILE that this row ran in this invocation; sleep first when asked to."""
    if request.get("seconds"):
        await ctx.sleep(timedelta(seconds=request["seconds"]))
    line = json.dumps({"row": request["row"], "invocation_id": ctx.request().id}) + "\n"

    def append_line() -> None:
        # One write of one line to a file opened for appending: lines of several handlers do not mix.
        with Path(os.environ["LEDGER_FILE"]).open("a", encoding="utf-8") as file:
            file.write(line)

    await ctx.run_typed("write the line", append_line)
    return "written"


# Suspended as soon as it waits, and not after a minute: only then does Restate know what it waits for.
approval = restate.Service("Approval", inactivity_timeout=timedelta(milliseconds=100))


@approval.handler()
async def ask(ctx: restate.Context, request: dict[str, Any]) -> Any:
    """Note the id of an awakeable, and give what it is resolved with."""
    awakeable_id, awakeable = ctx.awakeable()
    ctx.object_send(append, key=request["note"], arg=awakeable_id)
    return await awakeable


@approval.handler()
async def ask_two(ctx: restate.Context, request: dict[str, Any]) -> list[Any]:
    """Wait for two awakeables at once, and give what they are resolved with."""
    first, second = ctx.awakeable()[1], ctx.awakeable()[1]
    await restate.gather(first, second)
    return [await first, await second]


# ---------------------------------------------------------------- telling the site of an end

reporter = restate.Service("Reporter", invocation_context_managers=[reports])
reporter.handler("slowly")(slowly)
reporter.handler("terminal")(terminal)
reporter.handler("sleep")(sleep)


elsewhere = restate.Service("Elsewhere")


@elsewhere.handler()
async def report(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Report to one place alone, which is not the site's."""
    async with reports(to="https://shop.example.com"):
        return "done"


# ---------------------------------------------------------------- how long results are kept

forgetful = restate.Service("Forgetful", idempotency_retention=timedelta(0))
brief = restate.Service("Brief", idempotency_retention=timedelta(seconds=2))
forgetful.handler("greet")(greet)
brief.handler("greet")(greet)

app = restate.app(
    [
        greeter,
        counter,
        signup,
        fail,
        notes,
        slow,
        echo,
        echo_object,
        no_input,
        ledger,
        approval,
        forgetful,
        brief,
        reporter,
        elsewhere,
    ]
)
