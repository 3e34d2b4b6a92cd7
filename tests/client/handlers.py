"""Handlers that the client's tests run against, written with the official SDK.

`Wire` tells byte for byte what arrived; `Fails` ends in whatever failure the caller names; the rest are one of each
kind. The tests' fixture serves them; the package never imports them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from restate.exceptions import TerminalError
from restate.serde import BytesSerde

RAW: BytesSerde = BytesSerde()

wire = restate.Service("Wire")


@wire.handler(accept="*/*", input_serde=RAW)
async def inspect(ctx: restate.Context, body: bytes) -> dict[str, Any]:
    """Give back what arrived: the body as hex, and the caller's headers."""
    request = ctx.request()
    return {"body": body.hex(), "headers": request.headers, "scope": request.scope, "limit_key": request.limit_key}


@wire.handler(accept="*/*", input_serde=RAW, content_type="application/octet-stream", output_serde=RAW)
async def echo(ctx: restate.Context, body: bytes) -> bytes:
    """Give back the body itself."""
    return body


@wire.handler(accept="*/*", input_serde=RAW, content_type="application/json", output_serde=RAW)
async def echo_json(ctx: restate.Context, body: bytes) -> bytes:
    """Give back the body itself, called JSON whether it is or not."""
    return body


@wire.handler(accept="*/*", input_serde=RAW, content_type="text/plain; charset=utf-8", output_serde=RAW)
async def echo_text(ctx: restate.Context, body: bytes) -> bytes:
    """Give back the body itself, called text."""
    return body


@wire.handler()
async def nothing(ctx: restate.Context) -> None:
    """Take nothing and give nothing."""


@wire.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    """Greet, as in every first example."""
    return f"Hello {name}!"


@wire.handler()
async def nap(ctx: restate.Context, seconds: float) -> str:
    """Sleep durably."""
    await ctx.sleep(timedelta(seconds=seconds))
    return "rested"


@wire.handler()
async def stuck(ctx: restate.Context, why: str) -> str:
    """Fail for a passing reason, again and again."""
    raise RuntimeError(why)


fails = restate.Service("Fails")


@fails.handler()
async def fail(ctx: restate.Context, how: dict[str, Any]) -> None:
    """End in the failure that the caller names."""
    raise TerminalError(how["message"], status_code=how["code"], metadata=how.get("metadata"))


@fails.handler()
async def fail_slowly(ctx: restate.Context, how: dict[str, Any]) -> None:
    """The same after a moment, so that a reader can be waiting."""
    await ctx.sleep(timedelta(milliseconds=300))
    raise TerminalError(how["message"], status_code=how["code"], metadata=how.get("metadata"))


box = restate.VirtualObject("Box")


@box.handler()
async def put(ctx: restate.ObjectContext, value: Any) -> dict[str, Any]:
    """Keep a value under the object's key, and say which key that was."""
    before = await ctx.get("value")
    ctx.set("value", value)
    return {"key": ctx.key(), "before": before}


@box.handler(kind="shared")
async def key_of(ctx: restate.ObjectSharedContext) -> str:
    """Say which key arrived."""
    return ctx.key()


flow = restate.Workflow("Flow")


@flow.main()
async def run(ctx: restate.WorkflowContext, value: Any) -> dict[str, Any]:
    """Finish at once, unless the value says to wait for the signal."""
    if value == "wait":
        value = await ctx.promise("go").value()
    return {"key": ctx.key(), "value": value}


@flow.handler()
async def go(ctx: restate.WorkflowSharedContext, value: Any) -> str:
    """Let a waiting run go on."""
    await ctx.promise("go").resolve(value)
    return "gone"


wait = restate.VirtualObject("Wait")


@wait.handler()
async def for_awakeable(ctx: restate.ObjectContext) -> Any:
    """Publish an awakeable's id in the object's state, and wait for it."""
    name, awakeable = ctx.awakeable()
    ctx.set("awakeable", name)
    return await awakeable


@wait.handler(kind="shared")
async def awakeable_id(ctx: restate.ObjectSharedContext) -> str | None:
    """Give the id of the awakeable that is waited for, once there is one."""
    return await ctx.get("awakeable")


app = restate.app(services=[wire, fails, box, flow, wait])
