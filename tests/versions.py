"""A service in several versions, and an object beside it: what a deployment brings, changes and loses.

Nothing imports this module but the process that serves one of its apps.
"""

from __future__ import annotations

from datetime import timedelta

import restate

_first = restate.Service("Desk")


@_first.handler("greet")
async def greet(ctx: restate.Context, name: str) -> str:
    """Greet by name."""
    return f"Hello, {name}!"


@_first.handler("nap")
async def nap(ctx: restate.Context, seconds: int) -> str:
    """Sleep."""
    await ctx.sleep(timedelta(seconds=seconds))
    return "slept"


#: A service with two handlers.
first = restate.app([_first])

_second = restate.Service("Desk")


@_second.handler("greet")
async def greet_number(ctx: restate.Context, number: int) -> str:
    """Greet by number."""
    return f"Hello, number {number}!"


_shelf = restate.VirtualObject("Shelf")


@_shelf.handler("put")
async def put(ctx: restate.ObjectContext, number: int) -> int:
    """Keep a number."""
    ctx.set("number", number)
    return number


#: The same without one of them and with the other one's input changed, and an object.
second = restate.app([_second, _shelf])

_object = restate.VirtualObject("Desk")


@_object.handler("greet")
async def greet_object(ctx: restate.ObjectContext, name: str) -> str:
    """Greet by name."""
    return f"Hello, {name}!"


#: The service as an object.
as_object = restate.app([_object])
