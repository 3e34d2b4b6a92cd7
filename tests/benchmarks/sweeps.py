"""Polling: sweeps over many open rows, with and without the Admin API, and over tables of different sizes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.benchmarks import peers
from tests.benchmarks.lab import Child
from tests.benchmarks.rows import fill, scheduled_rows
from tests.benchmarks.tables import Goal, Line
from tests.benchmarks.wire import invocation_ids
from tests.wait import wait_for

if TYPE_CHECKING:
    from restate_django.querysets import InvocationQuerySet
    from restate_django.testing import RestateServer
    from tests.benchmarks.lab import Lab

#: Of the sweep in which some end, one row in so many does.
_ONE_IN = 100
#: The columns that a poll writes, as they are on a row that was polled before and is still scheduled.
_STILL_OPEN: dict[str, Any] = {
    "status": "scheduled",
    "next_poll_at": None,
    "lease_until": None,
    "lease_token": None,
    "started_at": None,
    "finished_at": None,
    "recorded_at": None,
    "has_output": False,
    "output": None,
    "output_content_type": "",
    "output_size": None,
    "result_expires_at": None,
    "missing_since": None,
}


def polls(lab: Lab) -> list[Line]:
    """Sweeps over open rows that Restate knows, each in a process of its own."""
    from restate_django.models import Invocation

    lab.database()
    lab.empty()
    count = lab.size(100_000, at_least=200)
    few = lab.size(3000)
    memory: list[float] = []
    with lab.restate() as server:
        lab.say(f"poll: {count:,} invocations for Restate, and their rows ...")
        open_ids = invocation_ids(server.ingress_url, count)
        ended_ids = _ended(server, count // _ONE_IN)
        # Those that end stand between the others, as they would.
        mixed = [
            each
            for number, open_id in enumerate(open_ids)
            for each in (*(ended_ids[number // _ONE_IN :][:1] if number % _ONE_IN == 0 else ()), open_id)
        ]
        scheduled_rows(mixed, "default")
        ending = Invocation.objects.filter(invocation_id__in=ended_ids)
        staying = Invocation.objects.exclude(invocation_id__in=ended_ids)
        some = Invocation.objects.filter(invocation_id__in=open_ids[:few])

        def sweep(*due: InvocationQuerySet, expected: dict[str, int]) -> dict[str, Any]:
            ending.update(**_STILL_OPEN)
            for rows in due:
                _make_due(rows)
            lab.tidy()
            with Child("poll") as child:
                child.go()
                found = child.result()
            if found["done"] != expected:
                raise RuntimeError(f"A sweep did {found['done']}, not {expected}.")
            return found | {"speed": sum(expected.values()) / found["seconds"]}

        def nothing_finished() -> float:
            found = sweep(staying, expected={"unchanged": count})
            memory.append(found["megabytes"])
            return found["speed"]

        def some_finished() -> float:
            return sweep(staying, ending, expected={"unchanged": count, "succeeded": len(ended_ids)})["speed"]

        def without_admin() -> float:
            with lab.settings(server, ADMIN_URL=None, PATH_STYLE="restate"):
                return sweep(some, expected={"unchanged": few})["speed"]

        figures = lab.rounds_of(
            "poll",
            {
                "requests": lambda: peers.bare_outputs(server.ingress_url, open_ids[: lab.size(1000)]),
                "nothing finished": nothing_finished,
                "1% finished": some_finished,
                "without the Admin API": without_admin,
            },
        )
    what = f"a poll sweep over {count:,} open rows, nothing finished"
    one_by_one = "GET /restate/output for each, requests"
    unit = " rows/s"
    return [
        Line("poll", what, unit=unit, kind="value", goal=Goal(20_000), ours=figures["nothing finished"]),
        Line(
            "poll",
            what,
            unit=unit,
            against=one_by_one,
            goal=Goal(20),
            **figures.against("nothing finished", "requests"),
        ),
        Line("poll", "its memory above the start", unit=" MB", kind="value", goal=Goal(100, at_most=True), ours=memory),
        Line(
            "poll",
            "the same with 1% finished",
            unit=unit,
            against="nothing finished",
            goal=Goal(0.7),
            **figures.against("1% finished", "nothing finished"),
        ),
        Line(
            "poll",
            f"a sweep over {few:,} open rows without the Admin API",
            unit=unit,
            against=one_by_one,
            goal=Goal(3),
            **figures.against("without the Admin API", "requests"),
        ),
    ]


def sizes(lab: Lab) -> list[Line]:
    """One sweep with the same rows due, in a small table and in a large one."""
    from django.db import connections

    from restate_django.models import Invocation
    from restate_django.polling import poll_due

    tables = {"small": lab.size(10_000, at_least=100), "large": lab.size(1_000_000, at_least=1000)}
    due = lab.size(1000)
    with lab.restate() as server:
        ids = {}
        for alias, count in tables.items():
            lab.database(alias)
            lab.say(f"size: a table of {count:,} rows ...")
            ids[alias] = invocation_ids(server.ingress_url, due)
            fill(alias, count - due)
            scheduled_rows(ids[alias], alias)
            lab.tidy(alias)

        def sweep(alias: str) -> float:
            _make_due(Invocation.objects.using(alias).filter(invocation_id__in=ids[alias]))
            with lab.settings(server, DATABASES=[alias]):
                # The first question of new connections asks the server for its version as well.
                poll_due()
                _make_due(Invocation.objects.using(alias).filter(invocation_id__in=ids[alias]))
                start = time.perf_counter()
                done = poll_due()
                spent = time.perf_counter() - start
            if done != {"unchanged": due}:
                raise RuntimeError(f"A sweep did {dict(done)}, not {due} unchanged rows.")
            return spent * 1000

        # Short ones: more of them make up for it.
        figures = lab.rounds_of(
            "size",
            {f"{count:,}": lambda alias=alias: sweep(alias) for alias, count in tables.items()},  # type: ignore[misc] # mypy can't infer a lambda with a default
            rounds=lab.rounds * 3,
        )
    for alias in tables:
        connections[alias].close()
    small, large = (f"{count:,}" for count in tables.values())
    return [
        Line(
            "size",
            f"one sweep with {due:,} due rows in a table of {large}",
            unit=" ms",
            against=f"in a table of {small}",
            goal=Goal(1.2, at_most=True),
            **figures.against(large, small),
        )
    ]


def _ended(server: RestateServer, count: int) -> list[str]:
    """Let invocations run to their end, and return their ids."""
    from restate_django.client import AdminClient

    ids = invocation_ids(server.ingress_url, count, "/restate/send/Greeter/greet")
    with AdminClient(server.admin_url) as admin:
        wait_for(
            lambda: all(row.status == "completed" for row in admin.sys_invocations(ids)),
            timeout=60,
            what=f"the end of {count} invocations",
        )
    return ids


def _make_due(rows: InvocationQuerySet) -> None:
    from django.utils import timezone

    rows.update(next_poll_at=timezone.now(), lease_until=None, lease_token=None)
