"""One send at a time, and many: how near they come to what the server takes."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.benchmarks import peers
from tests.benchmarks.lab import Child, rate
from tests.benchmarks.rows import columns
from tests.benchmarks.tables import Goal, Line
from tests.benchmarks.wire import DELAY_HOURS, PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from restate_django import Outgoing
    from tests.benchmarks.lab import Lab

_DELAY = dt.timedelta(hours=DELAY_HOURS)
#: Relay processes that deliver what was recorded.
RELAYS = 2


def one_at_a_time(lab: Lab) -> list[Line]:
    """``send()`` in autocommit: recorded, sent, its id written back."""
    from restate_django import send

    lab.database()
    count = lab.size(400)

    def ours() -> float:
        lab.empty()
        send("Greeter", "greet", PAYLOAD, delay=_DELAY)
        speed = rate(count, lambda: [send("Greeter", "greet", PAYLOAD, delay=_DELAY) for _ in range(count)])
        _expect_accepted(count + 1)
        return speed

    with lab.restate() as server:
        url = server.ingress_url
        figures = lab.rounds_of(
            "send",
            {
                "requests": lambda: peers.bare_posts(url, count),
                "send": ours,
                "wrk, 1 connection": lambda: peers.wrk(url, 1, 2 * lab.scale),
            },
        )
    what = "send() one at a time, recorded and accepted"
    return [
        Line(
            "send",
            what,
            unit="/s",
            against="requests.Session().post",
            goal=Goal(0.6),
            **figures.against("send", "requests"),
        ),
        Line("send", what, unit="/s", against="wrk, 1 connection", **figures.against("send", "wrk, 1 connection")),
    ]


def in_a_view(lab: Lab) -> list[Line]:
    """What ``send()`` adds to a transaction before its commit. Each round is rolled back, so nothing is sent."""
    from django.db import transaction

    from restate_django import send
    from restate_django.models import Invocation

    lab.database()
    count = lab.size(500)

    def in_transaction(job: Callable[[], object]) -> float:
        with transaction.atomic():
            start = time.perf_counter()
            for _ in range(count):
                job()
            spent = time.perf_counter() - start
            transaction.set_rollback(True)
        return spent / count * 1e6

    def create() -> None:
        Invocation.objects.create(**columns())

    def ours() -> float:
        return in_transaction(lambda: send("Greeter", "greet", PAYLOAD, delay=_DELAY))

    lab.empty()
    in_transaction(create)
    ours()
    figures = lab.rounds_of("view", {"create": lambda: in_transaction(create), "send": ours})
    return [
        Line(
            "view",
            "time that send() adds to a transaction before its commit",
            unit=" us",
            against="Model.objects.create() of the same row",
            goal=Goal(1.3, at_most=True),
            **figures.against("send", "create"),
        )
    ]


def many(lab: Lab) -> list[Line]:
    """``send_many``: by the process that recorded them, and by two relays."""
    from restate_django import send_many

    lab.database()
    count = lab.size(10_000, at_least=100)
    alone: list[float] = []
    recording: list[float] = []

    def one_process() -> float:
        lab.empty()
        speed = rate(count, lambda: send_many(outgoing(count)))
        _expect_accepted(count)
        return speed

    with lab.restate() as server:
        url = server.ingress_url

        def two_relays() -> float:
            lab.empty()
            with ExitStack() as children, lab.settings(server, DELIVERY="relay"):
                relays = [Child("deliver") for _ in range(RELAYS)]
                for relay in relays:
                    children.enter_context(relay)
                start = time.perf_counter()
                send_many(outgoing(count))
                recorded = time.perf_counter()
                for relay in relays:
                    relay.go()
                for relay in relays:
                    relay.result()
                end = time.perf_counter()
            _expect_accepted(count)
            alone.append(count / (end - recorded))
            recording.append((recorded - start) / (end - start) * 100)
            return count / (end - start)

        figures = lab.rounds_of(
            "bulk",
            {
                "wrk, 16 connections": lambda: peers.wrk(url, 16, 2 * lab.scale),
                "send_many": one_process,
                "Python client": lambda: peers.python_client(url, lab.size(1000)),
                "TypeScript client": lambda: peers.typescript_client(url, lab.size(3000)),
                "two relays": two_relays,
            },
        )
        if "wrk, 16 connections" in figures.taken:
            figures.taken["two relays, sending alone"] = alone
    goals = {"wrk, 16 connections": 0.4, "Python client": 5, "TypeScript client": 1}
    what = f"send_many of {count:,}, recorded, sent, ids written back, one process"
    lines = [
        Line("bulk", what, unit="/s", against=name, goal=Goal(bound), **figures.against("send_many", name))
        for name, bound in goals.items()
    ]
    lines.append(
        Line(
            "bulk",
            "the same, two relay processes",
            unit="/s",
            against="wrk, 16 connections",
            goal=Goal(0.6),
            note=f"recording by one process before they start took {sorted(recording)[len(recording) // 2]:.0f}% of it",
            **figures.against("two relays", "wrk, 16 connections"),
        )
    )
    lines.append(
        Line(
            "bulk",
            "the two relays alone, from the commit to the last id",
            unit="/s",
            against="wrk, 16 connections",
            **figures.against("two relays, sending alone", "wrk, 16 connections"),
        )
    )
    return lines


def outgoing(count: int) -> Iterator[Outgoing]:
    from restate_django import Outgoing

    return (Outgoing("Greeter", "greet", PAYLOAD, delay=_DELAY) for _ in range(count))


def _expect_accepted(count: int) -> None:
    """A figure for work that was not done is worth nothing."""
    from restate_django.models import Invocation

    accepted = Invocation.objects.filter(status="accepted").exclude(invocation_id="").count()
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} rows were accepted.")
