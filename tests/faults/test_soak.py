"""The soak, cut short: every kind of trouble once, and nothing lost, done twice or left open."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.faults.arena import ROOT
from tests.soak.memory import Series
from tests.told import tell

#: What a run of pytest leaves to its children, and a run of its own must not find.
OURS = ("DJANGO_", "RESTATE_DJANGO_", "PYTEST_")


def test_a_short_one() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    soak = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.4", "--calm", "2", "--every", "8"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert soak.stdout.endswith("\ngood\n")
    told = [line.split() for line in soak.stdout.splitlines() if ": sender " in line]
    assert len(told) == 2
    for vendor, _sender, number, *counts in told:
        tell("faults", f"{vendor} a soak, sender {number}", *counts[:-1])


def samples(*megabytes: float) -> list[tuple[float, float]]:
    return [(10.0 * number, value) for number, value in enumerate(megabytes)]


def test_growth_is_seen_in_the_second_half() -> None:
    warming = Series("warming up", is_ours=True, samples=samples(*range(20, 60, 4), *[60] * 10))
    leaking = Series("leaking", is_ours=True, samples=samples(*range(60, 120, 3)))
    foreign = Series("foreign", is_ours=False, samples=samples(*range(60, 120, 3)))
    late = Series("late", is_ours=True, samples=samples(*range(60, 120, 3))[6:])
    killed = Series("killed", is_ours=True, samples=samples(*range(60, 120, 3))[:18])
    assert [series.grows(190) for series in (warming, leaking, foreign, late, killed)] == [
        False, True, False, False, False,
    ]  # fmt: skip
    assert leaking.slope(190) * 60 == 18  # type: ignore[operator] # it has one
    assert late.slope(190) is killed.slope(190) is None
