"""A workflow: an order's way from the shelf to the door, and back again when it is cancelled.

Each step is durable: a crash between two of them loses nothing and repeats nothing. What was done before a
cancellation is undone in reverse order, and the books show both.
"""

from __future__ import annotations

from datetime import timedelta

import restate
from pydantic import BaseModel, Field
from restate.exceptions import TerminalError

from services import books


class Line(BaseModel):
    """A product, and how many of it."""

    sku: str
    quantity: int


class OrderedGoods(BaseModel):
    """What is to be brought to somebody's door."""

    lines: list[Line]
    total: int = Field(0, description="In cents.")
    pace: float = Field(3, description="How many seconds each step takes, so that people can watch.")


class Shipped(BaseModel):
    """The number of a parcel that is on its way."""

    parcel: str


order_workflow = restate.Workflow("OrderWorkflow", description="Reserve, charge, pack and ship an order.")

MOST_ON_THE_SHELF = 10


@order_workflow.main()
async def run(ctx: restate.WorkflowContext, order: OrderedGoods) -> Shipped:
    """Bring one order to its end.

    Args:
        ctx: The workflow's context; its key is the order's number.
        order: What to bring.

    Returns:
        The parcel's number.

    Raises:
        TerminalError: The shelf does not hold that many (nothing to undo), or the order was cancelled (undone).
    """
    book = f"order-{ctx.key()}"
    pause = timedelta(seconds=order.pace)
    undo: list[str] = []
    try:
        ctx.set("status", "reserving")
        look_at_the_shelf(order.lines)
        await ctx.run_typed("reserve stock", books.note, restate.RunOptions(), book, "Stock reserved")
        undo.append("Stock released")
        await ctx.sleep(pause, name="walk to the shelf")

        ctx.set("status", "charging")
        await ctx.run_typed("charge", books.note, restate.RunOptions(), book, "Card charged", amount=order.total)
        undo.append("Payment refunded")
        await ctx.sleep(pause, name="pack")

        ctx.set("status", "shipping")
        await ctx.run_typed("pack", books.note, restate.RunOptions(), book, "Parcel packed")
        await ctx.sleep(pause, name="wait for the van")

        parcel = f"PARCEL-{str(ctx.uuid())[:8].upper()}"
        await ctx.run_typed("ship", books.note, restate.RunOptions(), book, "Shipped", parcel=parcel)
    except TerminalError:
        ctx.set("status", "undoing")
        for entry in reversed(undo):
            await ctx.run_typed(entry.lower(), books.note, restate.RunOptions(), book, entry, undo=True)
        ctx.set("status", "undone")
        raise
    ctx.set("status", "shipped")
    return Shipped(parcel=parcel)


def look_at_the_shelf(lines: list[Line]) -> None:
    """Refuse an order of more than there is, for good: trying again would not fill the shelf."""
    for line in lines:
        if line.quantity > MOST_ON_THE_SHELF:
            raise TerminalError(f"sold out: there are only {MOST_ON_THE_SHELF} of {line.sku}", status_code=422)


@order_workflow.handler()
async def status(ctx: restate.WorkflowSharedContext) -> str:
    """Tell what the order is being prepared for."""
    return await ctx.get("status", type_hint=str) or "new"
