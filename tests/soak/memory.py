"""What processes hold in memory over time, and whether it grows. Imports the standard library."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: What a process may gain in the second half of a run, in megabytes or as a share of what it has: caches fill up.
SPARE: Final = 5.0
SPARE_SHARE: Final = 0.05
#: A second half that is shorter, in seconds, says nothing: a process is still getting warm.
SHORTEST_HALF: Final = 60.0


def megabytes(group: int) -> float:
    """Return what a process group holds together (RSS); 0 where there is none, or this system does not tell.

    Args:
        group: The id of the process that leads it.
    """
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The command's name stands in brackets and may hold anything: what counts comes after it.
            _state, _parent, its_group, *others = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(its_group) == group:
                total += int(others[18]) * 4096
        except OSError:
            continue  # it ended while we looked
    return total / 1e6


@dataclass
class Series:
    """One process, from its start to its end.

    Attributes:
        name: What it is called.
        is_ours: It runs the app; what others hold is shown and not judged.
        samples: Pairs of seconds since the run began and megabytes.
    """

    name: str
    is_ours: bool
    samples: list[tuple[float, float]] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The last sample."""
        return self.samples[-1][1] if self.samples else 0.0

    def second_half(self, end: float) -> list[tuple[float, float]]:
        """Return the samples of the second half of a run, none if it was not there for all of that, and warm before.

        Args:
            end: When the run ended.
        """
        if not self.samples or self.samples[0][0] > end / 4 or self.samples[-1][0] < end * 0.95:
            return []
        return [sample for sample in self.samples if sample[0] >= end / 2]

    def slope(self, end: float) -> float | None:
        """Return the megabytes that it gains in a second, over the second half; None where nobody can tell."""
        half = self.second_half(end)
        if len(half) < 3 or half[-1][0] - half[0][0] < SHORTEST_HALF:
            return None
        return statistics.linear_regression(*zip(*half, strict=True)).slope

    def grows(self, end: float) -> bool:
        """Tell whether it gains more in the second half than caches explain."""
        slope = self.slope(end)
        if slope is None or not self.is_ours:
            return False
        half = self.second_half(end)
        return slope * (half[-1][0] - half[0][0]) > max(SPARE, SPARE_SHARE * half[0][1])
