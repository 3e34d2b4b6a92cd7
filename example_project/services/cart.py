"""A virtual object: one cart per visitor, with its content in Restate, and one change at a time."""

from __future__ import annotations

import restate
from pydantic import BaseModel

cart = restate.VirtualObject("Cart", description="A visitor's cart. Its key is the visitor's.")

Items = dict[str, int]


class Item(BaseModel):
    """A product, and how many of it."""

    sku: str
    quantity: int = 1


class Product(BaseModel):
    """A product, however many there are."""

    sku: str


class Content(BaseModel):
    """A cart's content, and the moment of the change that made it: of two changes, the later one is right."""

    items: Items
    changed_at: float


@cart.handler()
async def add(ctx: restate.ObjectContext, item: Item) -> Content:
    """Add a quantity of a product, and give the cart's new content."""
    items = await _items(ctx)
    items[item.sku] = items.get(item.sku, 0) + item.quantity
    return await _keep(ctx, items)


@cart.handler()
async def remove(ctx: restate.ObjectContext, product: Product) -> Content:
    """Take a product out, however many there are, and give the cart's new content."""
    items = await _items(ctx)
    items.pop(product.sku, None)
    return await _keep(ctx, items)


@cart.handler()
async def clear(ctx: restate.ObjectContext) -> Content:
    """Empty the cart."""
    return await _keep(ctx, {})


@cart.handler("get", kind="shared")
async def get_items(ctx: restate.ObjectSharedContext) -> Items:
    """Give the cart's content."""
    return await _items(ctx)


async def _items(ctx: restate.ObjectContext | restate.ObjectSharedContext) -> Items:
    return await ctx.get("items", type_hint=dict[str, int]) or {}


async def _keep(ctx: restate.ObjectContext, items: Items) -> Content:
    """Keep the new content, and give it."""
    ctx.set("items", items)
    return Content(items=items, changed_at=await ctx.time())
