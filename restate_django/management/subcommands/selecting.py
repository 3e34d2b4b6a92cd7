"""Which rows a subcommand of ``manage.py restate`` is about, by filters: each a range of an index, whatever the table.

Imports the records alone.
"""

from __future__ import annotations

import datetime as dt
import heapq
from argparse import ArgumentTypeError
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from restate_django.client.results import parse_duration
from restate_django.lifecycle import Status
from restate_django.models import Invocation

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator, Mapping

    from restate_django.querysets import InvocationQuerySet

_FILTERS: Final = ("service", "handler", "key", "status", "since", "until", "connection", "idempotency_key")
# A year that no row is from: below it, a "duration" is taken for what it is.
_WHEN: Final = "a moment (2026-11-25, 2026-11-25T18:00) or how long ago (90s, 15m, 2h, 3d)"


def add_filters(parser: ArgumentParser) -> None:
    """Declare the filters; together they narrow."""
    group = parser.add_argument_group("filters")
    group.add_argument("--service", help="Only this service, object or workflow.")
    group.add_argument("--handler", help="Only this handler.")
    group.add_argument("--key", help="Only this object's or workflow's key.")
    group.add_argument(
        "--status",
        action="append",
        choices=[str(status) for status in Status],
        metavar="STATUS",
        help=f"Only this status; may be given again. One of: {', '.join(Status)}.",
    )
    group.add_argument("--since", type=moment, metavar="WHEN", help=f"Only those recorded since {_WHEN}.")
    group.add_argument("--until", type=moment, metavar="WHEN", help="Only those recorded before it.")
    group.add_argument("--connection", metavar="ALIAS", help="Only this connection of RESTATE.")
    group.add_argument("--idempotency-key", metavar="KEY", help="Only this idempotency key.")


def any_filter(options: Mapping[str, Any]) -> bool:
    """Tell whether a filter was given."""
    return any(options.get(name) is not None for name in _FILTERS)


def in_words(options: Mapping[str, Any]) -> str:
    """Return the filters as they were given."""
    given = {name: options.get(name) for name in _FILTERS}
    words = []
    for name, value in given.items():
        if value is None:
            continue
        text = ", ".join(value) if isinstance(value, list) else value
        if isinstance(text, dt.datetime):
            text = text.isoformat(timespec="seconds")
        words.append(f"{name.replace('_', ' ')} {text}")
    return "; ".join(words)


def ranges(options: Mapping[str, Any], using: str) -> list[InvocationQuerySet]:
    """Return the rows that the filters leave: a queryset for each status that is asked for, or one for all.

    An index on (status, id) gives each in the order of its key; ``status IN (...)`` would be sorted by the database.
    """
    rows: Any = Invocation.objects.using(using)
    for name in ("service", "handler", "key", "connection", "idempotency_key"):
        if options.get(name) is not None:
            rows = rows.filter(**{name: options[name]})
    rows = rows.recorded_between(options.get("since"), options.get("until"))
    statuses = sorted(set(options.get("status") or ()))
    return [rows.filter(status=status) for status in statuses] or [rows]


def newest(options: Mapping[str, Any], using: str, limit: int) -> list[Invocation]:
    """Return the newest rows that the filters leave, without their bodies."""
    branches = [branch.without_bodies().order_by("-pk")[:limit] for branch in ranges(options, using)]
    return list(islice(heapq.merge(*branches, key=lambda row: row.pk, reverse=True), limit))


def batches(branches: list[InvocationQuerySet], size: int, upto: Any) -> Iterator[list[Invocation]]:
    """Yield rows in the order of their keys, some at a time, each once although its status changes meanwhile.

    Args:
        branches: What :func:`ranges` returned.
        size: Rows at a time.
        upto: The last primary key: rows that are recorded meanwhile are not meant.
    """
    ordered = [branch.filter(pk__lte=upto).order_by("pk").values_list("pk", flat=True) for branch in branches]
    last = None
    while True:
        further = ordered if last is None else [branch.filter(pk__gt=last) for branch in ordered]
        keys = list(islice(heapq.merge(*(branch[:size] for branch in further)), size))
        if not keys:
            return
        last = keys[-1]
        # Unnarrowed by status: what has changed since is the operation's to pass over.
        rows = Invocation.objects.using(branches[0].db).without_bodies()
        yield list(rows.filter(pk__in=keys).order_by("pk"))


def refuse_unindexed(options: Mapping[str, Any]) -> None:
    """Refuse filters that would walk the whole table: a handler alone has no index.

    Raises:
        CommandError: Nothing that an index knows was given.
    """
    indexed = ("service", "key", "status", "connection", "idempotency_key", "since", "until")
    if any_filter(options) and not any(options.get(name) is not None for name in indexed):
        raise CommandError("--handler alone has no index: narrow it by --service, --status, --key or --since as well.")


def duration(text: str) -> dt.timedelta:
    """Read a duration: ``90s``, ``15m``, ``2h``, ``PT1H``.

    Raises:
        ArgumentTypeError: It is none.
    """
    found = parse_duration(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no duration: 90s, 15m, 2h, 3d.")
    return found


def moment(text: str) -> dt.datetime:
    """Read a moment, in the project's time zone where it names none, or how long ago it was.

    Raises:
        ArgumentTypeError: It is neither.
    """
    try:
        when = parse_datetime(text)
        day = None if when else parse_date(text)
    except ValueError:
        when = day = None
    if day is not None:
        when = dt.datetime.combine(day, dt.time())
    if when is not None:
        return timezone.make_aware(when) if timezone.is_naive(when) else when
    ago = parse_duration(text)
    if ago is None:
        raise ArgumentTypeError(f"{text!r} is not {_WHEN}.")
    try:
        return timezone.now() - ago
    except OverflowError:
        raise ArgumentTypeError(f"{text!r} is too long ago.") from None
