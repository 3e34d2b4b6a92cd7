"""``python -m tests.benchmarks``: measure all of it, or parts, and print the table."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import django

from tests.benchmarks import imports, latency, pages, recording, scaling, sending, sweeps
from tests.benchmarks.lab import AbsentError, Lab
from tests.benchmarks.tables import Line, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The parts, and the share of the time that each may take.
PARTS: dict[str, tuple[Callable[[Lab], list[Line]], float]] = {
    "send": (sending.one_at_a_time, 0.05),
    "view": (sending.in_a_view, 0.03),
    "bulk": (sending.many, 0.20),
    "record": (recording.record, 0.10),
    "poll": (sweeps.polls, 0.29),
    "size": (sweeps.sizes, 0.10),
    "scale": (scaling.more_workers, 0.06),
    "admin": (pages.pages, 0.06),
    "latency": (latency.latencies, 0.07),
    "imports": (imports.setups, 0.04),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measures the app against peers on this machine, with a real Restate server and the database that "
        "DATABASE_URL names (a local PostgreSQL by default), and prints a table of ratios.",
    )
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME", help=f"a part: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=_positive(int), default=5, help="how often each figure is taken (default: 5)")
    parser.add_argument("--scale", type=_positive(float), default=1.0, help="a factor on all sizes (default: 1)")
    parser.add_argument(
        "--minutes", type=_positive(float), default=15.0, help="all parts together; a slow machine does fewer rounds"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file as well")
    options = parser.parse_args(arguments)

    os.environ.setdefault("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.settings"
    django.setup()
    started = time.monotonic()
    began = dt.datetime.now(dt.UTC)
    lines: list[Line] = []
    broken: list[str] = []
    with Lab(rounds=options.rounds, scale=options.scale) as lab:
        for name, (run, share) in PARTS.items():
            if options.only and name not in options.only:
                continue
            lab.begin(name, share * options.minutes * 60)
            try:
                lines += run(lab)
            except AbsentError as error:
                lines.append(Line(name, _title(run), skipped=str(error)))
            except Exception:  # noqa: BLE001 - minutes of figures are not thrown away for the one that is missing
                traceback.print_exc()
                broken.append(name)
        report = {
            "command": "python -m tests.benchmarks " + " ".join(arguments or sys.argv[1:]),
            "began": began.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
            "rounds": options.rounds,
            "scale": options.scale,
            "machine": _machine(lab),
            "lines": [line.as_json() for line in lines],
        }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    machine = ", ".join(f"{name} {value}" for name, value in _machine(lab).items())
    sys.stdout.write(f"{table(lines)}\n\n{machine}; at most {lab.rounds} rounds in {report['seconds']:.0f} s\n")
    if broken:
        sys.exit(f"Broken, see above: {', '.join(broken)}")


def _title(run: Callable[[Lab], list[Line]]) -> str:
    """Return what a part measures, for a line that has nothing to say about it."""
    return (run.__doc__ or "").partition(".")[0].replace("`", "")


def _machine(lab: Lab) -> dict[str, str]:
    from django.db import connection

    return {
        "CPUs": str(os.cpu_count()),
        "Python": platform.python_version(),
        "Django": django.get_version(),
        "Restate": lab.restate_version or "not asked",
        "database": connection.vendor,
    }


def _positive(kind: type[int | float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"must be above zero, not {text}")
        return value

    return read


if __name__ == "__main__":
    main()
