"""How long it takes: from the commit to Restate's acceptance, and from an invocation's end to the row that says so."""

from __future__ import annotations

import datetime as dt
import random
import statistics
import sys
from time import perf_counter
from typing import TYPE_CHECKING

from restate_django.testing.process import ChildProcess
from tests.benchmarks import peers
from tests.benchmarks.lab import ROOT, percentile
from tests.benchmarks.tables import Goal, Line
from tests.benchmarks.wire import DELAY_HOURS, PAYLOAD
from tests.wait import wait_for

if TYPE_CHECKING:
    from tests.benchmarks.lab import Lab

#: Seconds between two sweeps, as ``beat_schedule()`` has them by default.
_SCHEDULE = 2


def latencies(lab: Lab) -> list[Line]:
    """Both ways, with medians and 99th percentiles."""
    lab.database()
    lab.empty()
    with lab.restate() as server:
        lines = [_to_accepted(lab, server.ingress_url), *_to_recorded(lab)]
    lab.empty()
    return lines


def _to_accepted(lab: Lab, url: str) -> Line:
    from django.db import transaction

    from restate_django import send

    count = lab.size(150)
    ours: list[float] = []
    bare: list[float] = []

    def one() -> float:
        committed = 0.0

        def note() -> None:
            nonlocal committed
            committed = perf_counter()

        with transaction.atomic():
            # The first to hear of the commit.
            transaction.on_commit(note)
            row = send("Greeter", "greet", PAYLOAD, delay=dt.timedelta(hours=DELAY_HOURS))
        spent = (perf_counter() - committed) * 1000
        if row.status != "accepted":
            raise RuntimeError(f"A row is {row.status} after its commit.")
        return spent

    def sends() -> float:
        times = [one() for _ in range(count)]
        ours.extend(times)
        return statistics.median(times)

    def posts() -> float:
        times = peers.bare_post_times(url, count)
        bare.extend(times)
        return statistics.median(times)

    one()
    figures = lab.rounds_of("latency", {"POST": posts, "send": sends})
    return Line(
        "latency",
        "from the commit to accepted and written back, median",
        unit=" ms",
        against="a bare requests POST",
        kind="difference",
        goal=Goal(3, at_most=True),
        note=f"99th percentile {percentile(ours, 0.99):.1f} ms, of the POST {percentile(bare, 0.99):.1f} ms",
        **figures.against("send", "POST"),
    )


def _to_recorded(lab: Lab) -> list[Line]:
    """Let invocations of up to ten seconds end while a poller runs, and compare Restate's clock with the rows'."""
    from restate_django import Outgoing, send_many
    from restate_django.models import Invocation

    count = lab.size(300)
    longest = max(1.0, min(10.0, 10 * lab.scale))
    numbers = random.Random(1)
    lab.say(f"latency: {count} invocations that end within {longest:g} seconds ...")
    relay = ChildProcess(
        [sys.executable, "-m", "django", "restate_relay", "--deliver", str(_SCHEDULE), "--poll", str(_SCHEDULE)],
        name="The relay",
        log_file=lab.folder / "relay.log",
        env={"DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings"},
        cwd=ROOT,
    )
    relay.start()
    try:
        sent = send_many(
            Outgoing("Greeter", "slowly", {"name": "Mary", "seconds": numbers.uniform(0, longest)})
            for _ in range(count)
        )
        rows = Invocation.objects.filter(pk__in=[row.pk for row in sent])
        wait_for(
            lambda: rows.filter(status="succeeded").count() == count,
            timeout=60 + longest,
            what="the rows' ends",
        )
    finally:
        relay.stop()
    late = [
        (recorded - finished).total_seconds() for recorded, finished in rows.values_list("recorded_at", "finished_at")
    ]
    what = "from finished to recorded, sweeps every 2 s as by default"
    return [
        Line("latency", f"{what}, median", unit=" s", kind="value", ours=[statistics.median(late)]),
        Line("latency", f"{what}, 99th percentile", unit=" s", kind="value", ours=[percentile(late, 0.99)]),
    ]
