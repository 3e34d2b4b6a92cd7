"""Lines of the table: what was measured, against what, and whether the goal is met. Imports the standard library."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["ratio", "difference", "value"]


@dataclass(frozen=True)
class Goal:
    """What a line should come to.

    Args:
        bound: The number.
        at_most: The number is an upper bound; a lower one otherwise.
    """

    bound: float
    at_most: bool = False

    def is_met_by(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass
class Line:
    """A line of the table.

    Args:
        part: The part that it belongs to, as ``--only`` names it.
        what: What was measured.
        ours: A figure for each round.
        unit: The unit of the figures.
        against: The peer or limit.
        peer: Its figure for each round, beside ours.
        kind: What is compared with the goal: ours by the peer's, ours less the peer's, or ours alone.
        goal: None on a line that only informs.
        note: More to know about it.
        skipped: Why there are no figures.
    """

    part: str
    what: str
    ours: list[float] = field(default_factory=list)
    unit: str = ""
    against: str = ""
    peer: list[float] = field(default_factory=list)
    kind: Kind = "ratio"
    goal: Goal | None = None
    note: str = ""
    skipped: str = ""

    @property
    def value(self) -> float | None:
        """The median over the rounds, each compared with the peer's figure of the same round."""
        if self.skipped:
            return None
        if self.kind == "value":
            return statistics.median(self.ours)
        pairs = zip(self.ours, self.peer, strict=True)
        return statistics.median(a / b if self.kind == "ratio" else a - b for a, b in pairs)

    @property
    def met(self) -> bool | None:
        value = self.value
        return None if value is None or self.goal is None else self.goal.is_met_by(value)

    def as_json(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "what": self.what,
            "against": self.against,
            "kind": self.kind,
            "unit": self.unit,
            "ours": None if self.skipped else statistics.median(self.ours),
            "peer": None if self.skipped or not self.peer else statistics.median(self.peer),
            "value": self.value,
            "goal": None if self.goal is None else self.goal.bound,
            "at_most": self.goal is not None and self.goal.at_most,
            "met": self.met,
            "note": self.note,
            "skipped": self.skipped,
            "rounds": {"ours": self.ours, "peer": self.peer},
        }


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _cells(line: Line) -> tuple[str, ...]:
    goal = ""
    if line.goal is not None:
        goal = f"{'at most' if line.goal.at_most else 'at least'} {_number(line.goal.bound)}"
    if line.skipped:
        return (line.what, "", line.against, f"skipped: {line.skipped}", goal, "")
    value = line.value
    assert value is not None
    ours = f"{_number(statistics.median(line.ours))}{line.unit}"
    peer = f"{line.against}: {_number(statistics.median(line.peer))}{line.unit}" if line.peer else line.against
    shown = {"ratio": _number(value), "difference": f"{value:+.3g}{line.unit}", "value": ours}[line.kind]
    met = {True: "met", False: "NOT MET", None: ""}[line.met]
    return (line.what, ours, peer, shown, goal, met)


def table(lines: list[Line]) -> str:
    """Return the lines as a Markdown table that can be read in a terminal, with the notes below it."""
    rows = [("what", "measured", "against", "result", "goal", ""), *map(_cells, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    text.insert(1, "| " + " | ".join("-" * max(3, width) for width in widths) + " |")
    notes = [f"- {line.what}: {line.note}" for line in lines if line.note]
    return "\n".join([*text, *([""] if notes else []), *notes])
