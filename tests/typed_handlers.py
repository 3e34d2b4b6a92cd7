"""Handlers whose inputs and outputs have JSON schemas, for what is made of those: types, and checks.

As ``handlers.py``, nothing imports this module but the process that serves it.
"""

import datetime as dt
import decimal
import uuid
from typing import Any, Literal

import restate
from pydantic import BaseModel, Field
from restate.serde import BytesSerde, Serde

RAW = BytesSerde()


class Line(BaseModel):
    """One product, and how many of it."""

    sku: str = Field(description="The product's number.", min_length=1)
    quantity: int = Field(1, ge=1, le=99)


class Content(BaseModel):
    lines: list[Line]
    total: int
    changed_at: dt.datetime


class Address(BaseModel):
    street: str
    class_: Literal["home", "work"] = Field("home", alias="class")


class Parcel(BaseModel):
    """What is sent where."""

    number: uuid.UUID
    to: Address
    lines: list[Line]
    weight: decimal.Decimal | None = None
    within: "Parcel | None" = None


depot = restate.VirtualObject("Depot", description='A depot.\n\nIts key is "its" name, with a \\ in it.')


@depot.handler()
async def add(ctx: restate.ObjectContext, line: Line) -> Content:
    """Add a line, and give the content."""
    lines = [Line(**each) for each in await ctx.get("lines", type_hint=list[dict[str, Any]]) or []] + [line]
    ctx.set("lines", [each.model_dump() for each in lines])
    return Content(lines=lines, total=len(lines), changed_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))


@depot.handler("list", kind="shared")
async def list_lines(ctx: restate.ObjectSharedContext) -> list[dict[str, Any]]:
    """Give the lines."""
    return await ctx.get("lines", type_hint=list[dict[str, Any]]) or []


@depot.handler("class")
async def classify(ctx: restate.ObjectContext, parcel: Parcel) -> str:
    """Give the class of a parcel's address."""
    return parcel.to.class_


@depot.handler()
async def clear(ctx: restate.ObjectContext) -> None:
    """Forget all."""
    ctx.clear_all()


@depot.handler(accept="application/octet-stream", input_serde=RAW, content_type="image/png", output_serde=RAW)
async def label(ctx: restate.ObjectContext, picture: bytes) -> bytes:
    """Give a picture back."""
    return picture


class Delivery(BaseModel):
    parcel: uuid.UUID
    on: dt.date


delivering = restate.Workflow("Delivering")


@delivering.main()
async def run(ctx: restate.WorkflowContext, parcel: Parcel) -> Delivery:
    """Deliver a parcel."""
    return Delivery(parcel=parcel.number, on=dt.date(2026, 1, 2))


@delivering.handler()
async def hurry(ctx: restate.WorkflowSharedContext, how_often: int) -> int:
    """Ask it to hurry."""
    return how_often


class Odd(Serde[Any]):
    """Reads anything: the schemas of its handlers are no rules for what it takes."""

    def deserialize(self, buf: bytes) -> Any:
        """Give the bytes' length."""
        return len(buf)

    def serialize(self, obj: Any) -> bytes:
        """Give a number."""
        return str(obj).encode()


odd = restate.Service("com.example.Odd-Ones")


@odd.handler(input_serde=Odd())
async def anything(ctx: restate.Context, value: Any) -> int:
    """Take anything."""
    return int(value)


private = restate.Service("Private", ingress_private=True)


@private.handler()
async def hidden(ctx: restate.Context) -> None:
    """Nobody reaches it from outside."""


app = restate.app([depot, delivering, odd, private])
