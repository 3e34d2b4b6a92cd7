"""The benchmarks run: each part, at a tiny size, says something about each of its lines. No speed is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from restate_django.testing import NoServerError
from restate_django.testing.binary import find_binary
from tests.benchmarks import tables
from tests.benchmarks.tables import Goal, Line
from tests.conftest import ROOT
from tests.require import require

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("send", "view", "bulk", "record", "poll", "size", "scale", "admin", "latency", "imports")
OURS = ("DJANGO_", "RESTATE_DJANGO_", "PYTEST_")
KEYS = {
    "part",
    "what",
    "against",
    "kind",
    "unit",
    "ours",
    "peer",
    "value",
    "goal",
    "at_most",
    "met",
    "note",
    "skipped",
    "rounds",
}


def run(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks as somebody at a shell does: nothing of this test run is theirs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env.setdefault("DATABASE_URL", f"sqlite:///{tmp_path / 'benchmarks.sqlite3'}")
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.once
@pytest.mark.single
@pytest.mark.parametrize("parts", [PARTS[:5], PARTS[5:]], ids="+".join)
def test_each_part_says_something_about_each_of_its_lines(tmp_path: Path, parts: tuple[str, ...]) -> None:
    try:
        find_binary()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    report_file = tmp_path / "report.json"
    only = [argument for part in parts for argument in ("--only", part)]

    answer = run(tmp_path, *only, "--rounds", "1", "--scale", "0.002", "--json", str(report_file))

    assert answer.returncode == 0, answer.stderr
    report = json.loads(report_file.read_text())
    assert {line["part"] for line in report["lines"]} == set(parts)
    for line in report["lines"]:
        assert set(line) == KEYS
        assert line["what"] in answer.stdout
        if line["skipped"]:
            # Only a peer may be missing: what is ours is measured wherever the suite runs.
            assert line["against"], line
            assert line["value"] is None
            continue
        # A sweep over so few rows may need no memory, and workers may have no time to be idle in.
        assert line["ours"] > 0 or (line["ours"] == 0 and line["unit"] in {" MB", "%"})
        assert line["kind"] == "value" or line["peer"] > 0
        assert line["rounds"]["ours"]
        assert line["met"] in {True, False} if line["goal"] is not None else line["met"] is None
    assert "round 1 of 1" in answer.stderr


def test_without_the_database_a_part_says_why_it_is_skipped(tmp_path: Path) -> None:
    require(importlib.util.find_spec("psycopg"), "psycopg is not installed")
    report_file = tmp_path / "report.json"

    answer = run(
        tmp_path, "--only", "view", "--json", str(report_file), DATABASE_URL="postgres://nobody@127.0.0.1:1/nothing"
    )

    assert answer.returncode == 0, answer.stderr
    (line,) = json.loads(report_file.read_text())["lines"]
    assert "does not answer" in line["skipped"]
    assert "does not answer" in answer.stdout


@pytest.mark.parametrize(
    ("line", "value", "met"),
    [
        (Line("p", "w", ours=[2, 9, 8], peer=[1, 3, 4], goal=Goal(2)), 2, True),
        (Line("p", "w", ours=[2, 9, 8], peer=[1, 3, 4], goal=Goal(2.5)), 2, False),
        (Line("p", "w", ours=[5, 9], peer=[1, 3], kind="difference", goal=Goal(5, at_most=True)), 5, True),
        (Line("p", "w", ours=[5, 9, 7], kind="value", goal=Goal(6, at_most=True)), 7, False),
        (Line("p", "w", ours=[5], kind="value"), 5, None),
        (Line("p", "w", skipped="there is no peer", goal=Goal(1)), None, None),
    ],
)
def test_a_line_compares_each_round_with_the_peer_of_the_same_round(
    line: Line, value: float | None, met: bool | None
) -> None:
    assert line.value == value
    assert line.met is met
    text = tables.table([line])
    assert ("NOT MET" in text) is (met is False)
    assert ("there is no peer" in text) is bool(line.skipped)
