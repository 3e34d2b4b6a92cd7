"""The admin's pages over tables of different sizes: how long each takes, and how many queries it makes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.benchmarks.rows import fill
from tests.benchmarks.tables import Goal, Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client

    from tests.benchmarks.lab import Lab

LIST = "/admin/restate_django/invocation/"
#: Requests of a figure, of which the median counts.
_REQUESTS = 7
#: What an operator opens, and what stands after the list's address. ``%(...)s`` are a row's, from the table's middle.
PAGES: dict[str, str] = {
    "the changelist": "",
    "its last page": "?p=%(last)s",
    "filtered by status": "?status=failed",
    "by what needs attention": "?status=attention",
    "by a group of statuses, its last page": "?status=finished&p=%(last)s",
    "by service, handler and status": "?service=Service3&handler=handler1&status=succeeded",
    "by filters that leave nothing": "?service=Service3&status=failed&handler=handler9",
    "by connection and time": "?connection=default&recorded=24h",
    "a search for an idempotency key": "?q=%(idempotency_key)s",
    "a search for an object key": "?q=%(key)s",
    "a search in the payloads": "?q=name=Mary",
    "a search that finds nothing": "?q=nobody",
    "the page of one": "%(pk)s/change/",
    "how things stand": "overview/",
}


class _Router:
    """Sends the questions about invocations to one of the two tables."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        return self.alias if model._meta.label == "restate_django.Invocation" else None

    db_for_write = db_for_read


def pages(lab: Lab) -> list[Line]:
    """The admin's pages, with a small table and with a large one."""
    from django.db import connections

    tables = {"small": lab.size(10_000, at_least=100), "large": lab.size(1_000_000, at_least=1000)}
    lab.database()
    addresses: dict[str, dict[str, str]] = {}
    for alias, count in tables.items():
        lab.database(alias)
        addresses[alias] = _addresses(lab, alias, count, last=min(20, max(1, tables["small"] * 8 // 500)))
    client = _operator()
    queries: dict[str, dict[str, int]] = {alias: {} for alias in tables}

    def visit(alias: str, page: str) -> Callable[[], float]:
        def figure() -> float:
            spent, queries[alias][page] = _visit(client, alias, addresses[alias][page], lab.size(_REQUESTS, at_least=1))
            return spent

        return figure

    figures = lab.rounds_of(
        "admin", {f"{page}, {alias}": visit(alias, page) for page in PAGES for alias in tables}, rounds=lab.rounds
    )
    for alias in tables:
        connections[alias].close()
    small, large = (f"{count:,}" for count in tables.values())
    lines = [
        Line(
            "admin",
            f"admin: {page}, of {large} rows",
            unit=" ms",
            against=f"of {small}",
            goal=Goal(1.3, at_most=True),
            **figures.against(f"{page}, large", f"{page}, small"),
        )
        for page in PAGES
    ]
    most = [[float(queries[alias][page]) for page in PAGES] for alias in ("large", "small")]
    lines.append(
        Line(
            "admin",
            f"admin: queries of a page, of {large} rows",
            unit=" queries",
            against=f"of {small}",
            kind="difference",
            # A page of a small table may have none older than itself to look for.
            goal=Goal(1, at_most=True),
            ours=[max(most[0])],
            peer=[max(most[1])],
            note=", ".join(f"{page} {queries['large'][page]} ({queries['small'][page]})" for page in PAGES),
        )
    )
    return lines


def _addresses(lab: Lab, alias: str, count: int, *, last: int) -> dict[str, str]:
    """Fill a table, unless another part did, and return the addresses of the pages over it.

    Args:
        lab: The run.
        alias: The table's database.
        count: Its rows.
        last: A page that both tables have.
    """
    from restate_django.models import Invocation

    rows = Invocation.objects.using(alias)
    if not rows.exists():
        lab.say(f"admin: a table of {count:,} rows ...")
        fill(alias, count)
        lab.tidy(alias)
    row = rows.order_by("pk")[count // 2]
    names = {"pk": row.pk, "key": row.key or "none", "idempotency_key": row.idempotency_key, "last": last}
    return {page: f"{LIST}{address % names}" for page, address in PAGES.items()}


def _operator() -> Client:
    """Return a client of somebody who may see everything."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    users = get_user_model().objects
    user = users.filter(username="benchmark").first() or users.create_superuser("benchmark")
    client = Client()
    client.force_login(user)
    return client


def _visit(client: Client, alias: str, address: str, requests: int) -> tuple[float, int]:
    """Return how long a page takes, in milliseconds, and how many queries it makes on all databases."""
    from django.db import connections
    from django.test import override_settings
    from django.test.utils import CaptureQueriesContext

    spent = []
    with override_settings(DATABASE_ROUTERS=[_Router(alias)]):
        with ExitStack() as stack:
            # The first visit fills caches, and is looked into.
            captured = [stack.enter_context(CaptureQueriesContext(connections[name])) for name in {"default", alias}]
            answer = client.get(address)
            # Counted here: the next request forgets them.
            queries = sum(len(each) for each in captured)
        if answer.status_code != 200:
            raise RuntimeError(f"{address} answered {answer.status_code}.")
        for _ in range(requests):
            start = time.perf_counter()
            client.get(address)
            spent.append((time.perf_counter() - start) * 1000)
    return sorted(spent)[requests // 2], queries
