"""A service that can't do its work: it backs off, and after a few attempts it is paused and waits for a person."""

from __future__ import annotations

from datetime import timedelta

import restate
from pydantic import BaseModel

from services import books


class ReportOrder(BaseModel):
    """Which report is to be built."""

    report: str


class Figures(BaseModel):
    """What the warehouse says."""

    report: str
    parcels: int
    returns: int


report = restate.Service("Report", description="Builds sales reports, once the warehouse answers.")


@report.handler(
    invocation_retry_policy=restate.InvocationRetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        exponentiation_factor=2.0,
        max_interval=timedelta(seconds=2),
        max_attempts=4,
        on_max_attempts="pause",
    )
)
async def build(ctx: restate.Context, order: ReportOrder) -> Figures:
    """Ask the warehouse for its figures. It answers when somebody has repaired its line for this report."""

    def ask_the_warehouse() -> dict[str, int]:
        if not books.read(f"warehouse-{order.report}"):
            raise ConnectionError("the warehouse does not answer")
        return {"parcels": 128, "returns": 3}

    figures = await ctx.run_typed("ask the warehouse", ask_the_warehouse)
    return Figures(report=order.report, **figures)
