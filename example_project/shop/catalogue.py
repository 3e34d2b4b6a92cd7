"""What the shop sells. Four things need no table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    Attributes:
        sku: Its number, which is also its picture's name.
        name: What it is called.
        price: In cents.
        text: One line for the shelf.
    """

    sku: str
    name: str
    price: int
    text: str

    @property
    def image(self) -> str:
        """The path of its picture among the static files."""
        return f"shop/{self.sku}.svg"


PRODUCTS = (
    Product("mug", "Stoneware mug", 1800, "Holds 350 ml, survives the dishwasher."),
    Product("notebook", "Dotted notebook", 1250, "160 pages that lie flat."),
    Product("lamp", "Desk lamp", 6400, "A warm light for late deploys."),
    Product("plant", "Pilea", 2200, "Round leaves, no deadlines."),
)
BY_SKU = {product.sku: product for product in PRODUCTS}


def describe(items: dict[str, int]) -> list[dict[str, Any]]:
    """Turn ``{sku: quantity}`` into lines with product, quantity and price in cents; unknown products are left out."""
    return [
        {"product": product, "quantity": items[product.sku], "price": product.price * items[product.sku]}
        for product in PRODUCTS
        if items.get(product.sku)
    ]


def total(items: dict[str, int]) -> int:
    """Return the price of all items together, in cents."""
    return sum(line["price"] for line in describe(items))
