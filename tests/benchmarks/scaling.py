"""More workers: what two and four deliver against one, what each of them did, and that they share without doubling."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from restate_django.testing import HandlerServer
from tests.benchmarks.lab import ROOT, Child
from tests.benchmarks.sending import outgoing
from tests.benchmarks.tables import Goal, Line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from restate_django.testing import RestateServer
    from tests.benchmarks.lab import Lab

#: How many processes stand for hosts.
WORKERS: Final = (1, 2, 4)
#: Milliseconds from a host to Restate, one way: so far that a worker waits more than it works, as one among hosts does.
AWAY: Final = 25.0
#: Requests that one worker has under way.
IN_FLIGHT: Final = 8


def more_workers(lab: Lab) -> list[Line]:
    """Delivery and polling by one, two and four processes that stand for hosts."""
    lab.database()
    count = lab.size(1600, at_least=40)
    idle: dict[int, list[float]] = {}
    shares: dict[int, list[int]] = {}
    with lab.restate() as server, far_from(server) as url:

        def deliver(workers: int, *, far: bool = True) -> float:
            lab.empty()
            _record(count)
            lab.tidy()
            where = {"INGRESS_URL": url} if far else {}
            with lab.settings(server, DELIVERY="relay", PATH_STYLE="restate", CONCURRENCY=IN_FLIGHT, **where):
                done = _share_out(workers)
            _expect_one_attempt_each(count)
            if far:
                idle.setdefault(workers, []).append(_busy(done))
                shares[workers] = [each["rows"] for each in done]
            return count / (max(each["end"] for each in done) - min(each["start"] for each in done))

        figures = lab.rounds_of(
            "scale",
            {
                **{f"{number} far": lambda number=number: deliver(number) for number in WORKERS},  # type: ignore[misc] # mypy can't infer a lambda with a default
                "1 near": lambda: deliver(1, far=False),
                "2 near": lambda: deliver(2, far=False),
            },
            rounds=min(lab.rounds, 2),
        )
        once = _deliver_and_poll(lab, server, lab.size(1600, at_least=40))
    unit = " rows/s"
    cpus = f"{os.cpu_count()} CPUs for the workers, the database, Restate and the way to it"
    lines = [
        Line(
            "scale",
            f"deliveries by {number} worker processes, Restate {2 * AWAY:g} ms away",
            unit=unit,
            against="one worker",
            note=f"rows of each: {', '.join(map(str, shares[number]))}; {cpus}",
            **figures.against(f"{number} far", "1 far"),
        )
        for number in WORKERS[1:]
    ]
    lines.append(
        Line(
            "scale",
            "deliveries by 2 worker processes, Restate on this machine",
            unit=unit,
            against="one worker",
            note=f"{cpus}: here that is the limit, not the sharing",
            **figures.against("2 near", "1 near"),
        )
    )
    lines += [
        Line(
            "scale",
            f"the least busy of {number} workers, while rows were due",
            ours=idle[number],
            unit="%",
            kind="value",
            goal=Goal(95),
        )
        for number in WORKERS[1:]
    ]
    lines.append(
        Line(
            "scale",
            f"rows that ran once and ended, by {WORKERS[-1]} workers that deliver and poll",
            ours=[once],
            unit="%",
            kind="value",
            goal=Goal(100),
            note="counted by the ledger that the handlers write",
        )
    )
    return lines


@contextmanager
def far_from(server: RestateServer) -> Iterator[str]:
    """Yield the URL of a server's ingress at the other end of a long way."""
    argv = [sys.executable, "-m", "tests.benchmarks.far", "127.0.0.1", str(server.ingress_port), str(AWAY)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _record(count: int) -> None:
    """Record rows that are due, and that no handler will run in the next hours."""
    from django.test import override_settings

    from restate_django import send_many

    with override_settings(RESTATE={"default": {"DELIVERY": "relay"}}):
        send_many(outgoing(count))


def _share_out(workers: int, job: str = "share") -> list[dict[str, Any]]:
    """Let that many processes at the rows that are due. Returns what each did."""
    with ExitStack() as children:
        them = [children.enter_context(Child(job)) for _ in range(workers)]
        for child in them:
            child.go()
        return [child.result() for child in them]


def _busy(done: list[dict[str, Any]]) -> float:
    """Return how busy the least busy one was, in percent, from the start until the last row that was due was taken."""
    start = min(each["start"] for each in done)
    last = max((begin for each in done for begin, _end, taken in each["turns"] if taken), default=start)
    idle = [
        sum(max(0.0, min(end, last) - begin) for begin, end, taken in each["turns"] if not taken and begin < last)
        for each in done
    ]
    return 100 * (1 - max(idle) / max(last - start, 1e-9))


def _expect_one_attempt_each(count: int) -> None:
    from restate_django.models import Invocation

    once = Invocation.objects.filter(status="accepted", attempts=1).exclude(invocation_id="").count()
    if once != count:
        raise RuntimeError(f"{once} of {count} rows were accepted at the first attempt: the others were taken twice.")


def _deliver_and_poll(lab: Lab, server: RestateServer, count: int) -> float:
    """Let four workers deliver and poll rows that really run. Returns how many ran once and say so, in percent."""
    from restate_django import send_many
    from restate_django.models import Invocation
    from tests.faults import rows

    lab.empty()
    ledger: Path = lab.folder / "ledger.jsonl"
    with (
        HandlerServer("tests.faults.handlers:app", cwd=ROOT, env={"LEDGER_FILE": str(ledger)}) as handlers,
        lab.settings(server, DELIVERY="relay", POLL_MIN_INTERVAL=0.2),
    ):
        handlers.register(server.admin_url)
        names = [name for name in rows.names("scale", 2 * count) if not rows.is_forgetful(name)][:count]
        send_many(map(rows.outgoing, names))
        began = time.perf_counter()
        _share_out(WORKERS[-1], "work")
        lab.say(f"scale: {count:,} rows delivered, run and polled in {time.perf_counter() - began:.1f} s")
        runs: dict[str, set[str]] = {}
        for line in ledger.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            runs.setdefault(entry["row"], set()).add(f"{entry['invocation_id']} {entry['run']}")
        good = {row.payload["row"] for row in Invocation.objects.filter(status="succeeded", attempts=1)}
        return 100 * statistics.fmean(len(runs.get(name, ())) == 1 and name in good for name in names)
