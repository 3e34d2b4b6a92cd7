"""Where the parts of a chart of stacked columns stand: numbers in, places out.

A place across is a percentage and a place down is a pixel, so that the picture fills any width without stretching its
patterns. Imports nothing of the package; the template draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Pixels from the line that the columns stand on to the top of the scale.
HEIGHT: Final = 160
#: Pixels above the scale, where the half of its topmost number stands.
TOP: Final = 10
#: Pixels below the line, for the times.
BELOW: Final = 22
# A part is never so thin that it can't be seen.
_MIN_HEIGHT: Final = 2
# What a column takes of its share of a bucket; the rest stands between it and the next.
_FILLED: Final = 0.8
#: How the numbers of a scale may begin: half of its top is a whole number as well.
_ROUND: Final = (2, 4, 6, 8, 10, 12, 16, 20)


@dataclass(frozen=True)
class Part:
    """A rectangle: a part of a column.

    Attributes:
        name: What it stands for.
        x: Its left side, in percent.
        width: In percent.
        y: Its upper side, in pixels.
        height: In pixels.
    """

    name: str
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Mark:
    """A number of the scale, or a time.

    Attributes:
        place: Pixels down, or percent across.
        value: What stands there: the number, or the bucket's index.
    """

    place: float
    value: int


@dataclass(frozen=True)
class Column:
    """A bucket: the columns that stand in it, side by side.

    Attributes:
        x: Its left side, in percent.
        width: In percent.
        parts: What is drawn.
    """

    x: float
    width: float
    parts: list[Part]


@dataclass(frozen=True)
class Chart:
    """A chart's places.

    Attributes:
        columns: One for each bucket.
        scale: The numbers at the side, from the top down.
        base: Where the columns stand, in pixels.
        height: Of the whole picture, in pixels.
    """

    columns: list[Column]
    scale: list[Mark]
    base: float = TOP + HEIGHT
    height: float = TOP + HEIGHT + BELOW


def draw(buckets: Sequence[Sequence[Sequence[tuple[str, int]]]]) -> Chart:
    """Give each part of each column its place.

    Args:
        buckets: From left to right; of each its columns, of each column its parts from the line up: a name, a number.
    """
    tops = [sum(number for _name, number in column) for columns in buckets for column in columns]
    top = round_up(max(tops, default=0))
    width = 100 / max(len(buckets), 1)
    drawn = []
    for index, columns in enumerate(buckets):
        share = width / max(len(columns), 1)
        # The columns of a bucket touch, and the gap is between buckets.
        filled = share * _FILLED
        left = index * width + (width - filled * len(columns)) / 2
        parts = [
            part
            for number, column in enumerate(columns)
            for part in _stack(column, round(left + number * filled, 3), round(filled, 3), top)
        ]
        drawn.append(Column(round(index * width, 3), round(width, 3), parts))
    scale = [Mark(TOP, top), Mark(TOP + HEIGHT / 2, top // 2), Mark(TOP + HEIGHT, 0)]
    return Chart(drawn, scale)


def round_up(number: int) -> int:
    """Return the end of a scale that a number fits on: an even one that is easily read."""
    power = 1
    while True:
        for mantissa in _ROUND:
            if mantissa * power >= number:
                return mantissa * power
        power *= 10


def _stack(column: Sequence[tuple[str, int]], x: float, width: float, top: int) -> list[Part]:
    parts = []
    y = float(TOP + HEIGHT)
    for name, number in column:
        if number:
            height = min(max(number / top * HEIGHT, _MIN_HEIGHT), y - TOP)
            y -= height
            parts.append(Part(name, x, width, round(y, 1), round(height, 1)))
    return parts
