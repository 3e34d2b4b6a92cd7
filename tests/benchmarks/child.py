"""What the benchmarks let another process do: ``python -m tests.benchmarks.child JOB``.

It says ``ready``, waits for a line, does the job, and prints what it found as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import django


def deliver() -> dict[str, Any]:
    """Be a relay, until nothing is due."""
    from restate_django.delivery import deliver_due

    return dict(deliver_due())


def poll() -> dict[str, Any]:
    """Ask about all that is due, once."""
    from restate_django.polling import poll_due

    before = _kilobytes("VmRSS")
    done = dict(poll_due())
    return {"done": done, "megabytes": max(0, _kilobytes("VmHWM") - before) / 1000}


def share() -> dict[str, Any]:
    """Deliver beside others until nothing is unsent, few at a time, and note when there were any to take."""
    from restate_django.delivery import deliver_due
    from restate_django.models import Invocation

    turns: list[tuple[float, float, int]] = []
    while not turns or turns[-1][2] or Invocation.objects.unsent().exists():
        begin = time.time()
        taken = deliver_due(limit=40).total()
        if not taken:
            time.sleep(0.01)
        turns.append((begin, time.time(), taken))
    done = [turn for turn in turns if turn[2]]
    return {
        "rows": sum(taken for _begin, _end, taken in turns),
        "start": turns[0][0],
        "end": done[-1][1] if done else turns[0][0],
        "turns": turns,
    }


def work() -> dict[str, Any]:
    """Deliver and poll beside others until nothing is open."""
    from restate_django.delivery import deliver_due
    from restate_django.models import Invocation
    from restate_django.polling import poll_due

    done: dict[str, int] = {}
    while Invocation.objects.open().exists():
        for name, number in (deliver_due() + poll_due()).items():
            done[name] = done.get(name, 0) + number
        time.sleep(0.05)
    return done


def _kilobytes(name: str) -> int:
    """Return a number of this process's memory (``getrusage`` has that of its parent, when that was more)."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{name}:"))


def main(job: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
    django.setup()
    from django.db import connection

    from restate_django.models import Invocation

    Invocation.objects.exists()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    found = {"deliver": deliver, "poll": poll, "share": share, "work": work}[job]()
    seconds = time.perf_counter() - start
    connection.close()
    sys.stdout.write(json.dumps({"seconds": seconds, **found}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
