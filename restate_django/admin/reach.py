"""How far back a list looks where no index holds what it is narrowed to.

One filter is one range of one index, and its newest rows are read in order. Two of them at once may have many rows each
and few in common, and a database that looks for those reads all of both. So it looks only through the newest
``SCANNED`` rows of the rarest of them, and the page leads on to what is older. Imports the modules beside it and the
records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Q

from restate_django.admin.filters import GROUPS, moments_of, ranges_of_group
from restate_django.lifecycle import Status
from restate_django.models import Invocation
from restate_django.ranges import newest_keys

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping

    from restate_django.querysets import InvocationQuerySet

#: Rows that a page looks through at most, where no index leads to those that match.
SCANNED: Final = 2_000
#: Rows that a search for a payload's field looks through at most, where nothing else narrows it.
SEARCHED: Final = 20_000

#: What the address line narrows the list by, where each has an index that is in the order of the primary key.
_INDEXED: Final = {
    "service": "service",
    "handler": "handler",
    "handler__exact": "handler",
    "scope": "scope",
    "connection": "connection",
    "requested_by__id__exact": "requested_by",
}
#: What narrows it by the primary key, or does not narrow it.
_BY_KEY: Final = frozenset({"id__lt", "on", "recorded", "recorded_from", "recorded_until"})
_RELATED: Final = ("related_content_type__id__exact", "related_id__exact")


@dataclass(frozen=True)
class Reach:
    """Which rows a list looks at: everything, what a few thousand keys name, or what is younger than a key.

    Attributes:
        keys: The primary keys that it looks at, the newest first. The database is told them, for which of the indexes
            holds few rows is known to those that keep histograms alone, and a wrong guess reads the whole of another
            one.
        oldest: The primary key that it does not look back to any more; None where it does not stop.
    """

    keys: list[uuid.UUID] | None = None
    oldest: uuid.UUID | None = None

    def of(self, rows: InvocationQuerySet) -> InvocationQuerySet:
        """Return those of the rows that are looked at."""
        if self.keys is not None:
            return rows.filter(pk__in=self.keys)
        return rows if self.oldest is None else rows.filter(pk__gt=self.oldest)


def reach(params: Mapping[str, Any], using: str, *, searches: bool = False) -> Reach:
    """Return how far a list looks. A query for each condition, which reads as much of its index as is looked at.

    Args:
        params: What the address line narrows the list by.
        using: The database alias.
        searches: Something is looked for besides that no index holds.
    """
    drivers, others = _drivers(params)
    if len(drivers) <= 1 and not others and not searches:
        # One range of one index.
        return Reach()
    rows = _by_key(params, using)
    if not drivers:
        end = newest_keys(rows, 1, [Q()], skip=SEARCHED if searches else SCANNED)
        return Reach(oldest=end[0] if end else None)
    rarest: list[uuid.UUID] = []
    for ranges in drivers:
        keys = newest_keys(rows, SCANNED + 1, ranges)
        if len(keys) <= SCANNED:
            return Reach(keys=keys)
        if not rarest or keys[-1] < rarest[-1]:
            rarest = keys
    return Reach(keys=rarest[:-1], oldest=rarest[-1])


def _drivers(params: Mapping[str, Any]) -> tuple[list[list[Q]], int]:
    """Return the ranges of indexes that a list is narrowed to, and how many conditions have none."""
    drivers: list[list[Q]] = []
    others = 0
    for name, values in params.items():
        value = values[-1] if isinstance(values, list) else values
        if name in _BY_KEY or name == _RELATED[1]:
            continue
        if name == "status":
            if value in GROUPS:
                drivers.append(ranges_of_group(value))
            elif value in Status.values:
                drivers.append([Q(status=value)])
        elif name in _INDEXED:
            drivers.append([Q(**{_INDEXED[name]: value})])
        elif name == _RELATED[0] and _RELATED[1] in params:
            related = params[_RELATED[1]]
            drivers.append(
                [Q(related_content_type=value, related_id=related[-1] if isinstance(related, list) else related)]
            )
        else:
            others += 1
    if _RELATED[1] in params and _RELATED[0] not in params:
        others += 1
    return drivers, others


def _by_key(params: Mapping[str, Any], using: str) -> InvocationQuerySet:
    """Return the rows as far as their primary keys narrow them."""
    rows: Any = Invocation.objects.using(using)
    for start, end in moments_of(params):
        rows = rows.recorded_between(start, end)
    before = params.get("id__lt")
    if before:
        rows = rows.filter(pk__lt=before[-1] if isinstance(before, list) else before)
    found: InvocationQuerySet = rows
    return found
