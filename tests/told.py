"""What tests found out for people to read: it is kept with their reports, and shown as tables at the end of the run.

With several test processes it travels to the one that prints.
"""

from __future__ import annotations

from typing import Final

_pending: Final[list[tuple[str, list[str]]]] = []
_told: Final[dict[str, list[list[str]]]] = {}


def tell(table: str, *cells: object) -> None:
    """Add a row to a table. Called inside a test."""
    _pending.append((table, [str(cell) for cell in cells]))


def taken() -> list[tuple[str, list[str]]]:
    """Return what was told since the last time, for the report of the test that told it."""
    rows = list(_pending)
    _pending.clear()
    return rows


def heard(properties: list[tuple[str, object]]) -> None:
    """Keep what a report brought."""
    for name, cells in properties:
        if isinstance(cells, list | tuple):
            _told.setdefault(name, []).append([str(cell) for cell in cells])


def tables() -> dict[str, list[list[str]]]:
    """Return the rows of each table."""
    return _told


def lines(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as aligned lines."""
    grid = [heads, *rows]
    widths = [max(len(row[column]) for row in grid) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
