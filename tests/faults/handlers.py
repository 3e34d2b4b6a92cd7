"""The ledger: handlers that write down what ran, so that a test can count it.

One line for each run: the row, the invocation, and a number that is drawn once for each run. A step that is repeated
within one run has the same number; a second run has another, even one of the same invocation id, which Restate gives
to whatever is sent under a key that it has forgotten.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate


async def wait_for_the_test(file: str) -> None:
    """Wait until the test has made a file."""
    while not Path(file).exists():
        await asyncio.sleep(0.3)


async def note(ctx: restate.Context, request: dict[str, Any]) -> str:
    """Write the line."""
    run = await ctx.run_typed("draw a number", lambda: secrets.token_hex(8))
    if file := request.get("wait_for"):
        await ctx.run_typed("wait for the test", wait_for_the_test, file=file)
    line = json.dumps({"row": request["row"], "invocation_id": ctx.request().id, "run": run}) + "\n"

    def append_line() -> None:
        # One write of one line to a file opened for appending: lines of several handlers do not mix.
        with Path(os.environ["LEDGER_FILE"]).open("a", encoding="utf-8") as file:
            file.write(line)

    await ctx.run_typed("write the line", append_line)
    return "written"


ledger = restate.Service("Ledger")
ledger_object = restate.VirtualObject("LedgerObject")
ledger_workflow = restate.Workflow("LedgerWorkflow")
#: Restate remembers nothing of these: what keeps them from running twice is the row alone.
forgetful_ledger = restate.Service("ForgetfulLedger", idempotency_retention=timedelta(0))


@ledger.handler()
async def write(ctx: restate.Context, request: dict[str, Any]) -> str:
    return await note(ctx, request)


@ledger_object.handler("write")
async def write_by_object(ctx: restate.ObjectContext, request: dict[str, Any]) -> str:
    return await note(ctx, request)


@ledger_workflow.main()
async def run(ctx: restate.WorkflowContext, request: dict[str, Any]) -> str:
    return await note(ctx, request)


@forgetful_ledger.handler("write")
async def write_and_forget(ctx: restate.Context, request: dict[str, Any]) -> str:
    return await note(ctx, request)


app = restate.app([ledger, ledger_object, ledger_workflow, forgetful_ledger])
