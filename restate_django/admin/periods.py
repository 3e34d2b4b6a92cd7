"""Years, months and days in which rows were recorded, each found by one look-up of the primary key.

Imports the records and their ids alone.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from django.db import connections
from django.utils import formats, timezone

from restate_django.ids import uuid7_floor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from restate_django.querysets import InvocationQuerySet

# Years that are offered at most: the newest.
_YEARS = 20
_DECEMBER = 12


@dataclass(frozen=True)
class Period:
    """A year, a month of it, or a day of that, in the current time zone.

    Attributes:
        year: The year.
        month: The month; 0 for the whole year.
        day: The day; 0 for the whole month.
    """

    year: int
    month: int = 0
    day: int = 0

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what an address line names: ``2026``, ``2026-03``, ``2026-03-10``; None for what is no such thing."""
        parts = text.split("-")
        if not (1 <= len(parts) <= 3 and all(part.isascii() and part.isdigit() for part in parts)):  # noqa: PLR2004 - year, month, day
            return None
        period = cls(*map(int, parts))
        try:
            start, end = period.bounds
        except (ValueError, OverflowError):
            return None
        # "2026-0" has a month that is none.
        return period if start < end and all(map(int, parts)) else None

    @property
    def bounds(self) -> tuple[dt.datetime, dt.datetime]:
        """The period's beginning, and its end, which is no part of it.

        Raises:
            ValueError: There is no such period.
            OverflowError: The same.
        """
        first = dt.datetime(self.year, self.month or 1, self.day or 1)  # noqa: DTZ001 - by the clock on the wall
        if self.day:
            last = first + dt.timedelta(days=1)
        elif self.month:
            last = first.replace(year=self.year + self.month // _DECEMBER, month=self.month % _DECEMBER + 1)
        else:
            last = first.replace(year=self.year + 1)
        return timezone.make_aware(first), timezone.make_aware(last)

    @property
    def parents(self) -> list[Period]:
        """What it lies in, the widest first."""
        year, month = Period(self.year), Period(self.year, self.month)
        return [year, month] if self.day else [year] if self.month else []

    @property
    def parts(self) -> list[Period]:
        """What it is made of; nothing for a day."""
        if self.day:
            return []
        if not self.month:
            return [Period(self.year, month) for month in range(1, _DECEMBER + 1)]
        start, end = self.bounds
        days = (end.replace(tzinfo=None) - start.replace(tzinfo=None)).days
        return [Period(self.year, self.month, day) for day in range(1, days + 1)]

    def __str__(self) -> str:
        if self.day:
            return f"{self.year:04}-{self.month:02}-{self.day:02}"
        return f"{self.year:04}-{self.month:02}" if self.month else f"{self.year:04}"

    @property
    def label(self) -> str:
        """Its name in the user's language."""
        first = dt.date(self.year, self.month or 1, self.day or 1)
        if self.day:
            return str(formats.date_format(first, "MONTH_DAY_FORMAT"))
        return str(formats.date_format(first, "YEAR_MONTH_FORMAT")) if self.month else str(self.year)


@dataclass(frozen=True)
class Steps:
    """The line above the list.

    Attributes:
        parents: What the chosen period lies in, and the period itself, the widest first.
        parts: The narrower ones that have rows.
    """

    parents: list[Period]
    parts: list[Period]


def steps(rows: InvocationQuerySet, chosen: Period | None) -> Steps:
    """Return the periods to choose from. Four queries at most, each a few look-ups of the primary key.

    Args:
        rows: All rows. What else narrows a list is left out of account: it would have to be searched for.
        chosen: The period that the list is narrowed to.
    """
    if chosen is not None:
        return Steps([*chosen.parents, chosen], _with_rows(rows, chosen.parts))
    oldest = rows.order_by("pk").values_list("pk", flat=True).first()
    if oldest is None:
        return Steps([], [])
    this_year = timezone.localtime().year
    # A version 7 UUID begins with its time in milliseconds.
    first_year = timezone.localtime(dt.datetime.fromtimestamp((oldest.int >> 80) / 1000, tz=dt.UTC)).year
    found = _with_rows(rows, [Period(year) for year in range(max(first_year, this_year - _YEARS + 1), this_year + 1)])
    while len(found) == 1 and found[0].parts:
        # Where there is one alone, the choice is among its parts.
        found = _with_rows(rows, found[0].parts)
    return Steps([], found)


def _with_rows(rows: InvocationQuerySet, wanted: Sequence[Period]) -> list[Period]:
    """Return those periods that have rows. One query."""
    if not wanted:
        return []
    connection = connections[rows.db]
    # In order: PostgreSQL reads a table from its beginning for any row of a period that has half of all rows.
    probe = rows.recorded_between(*wanted[0].bounds).order_by("pk").defer(None).values("pk")[:1].query
    # Compiled once: each period's differs by its two ids alone.
    sql, _ = probe.get_compiler(connection=connection).as_sql()
    key = rows.model._meta.pk
    parts: list[str] = []
    params: list[Any] = []
    for index, period in enumerate(wanted):
        parts.append(f"SELECT {index} FROM ({sql}) probe_{index}")  # noqa: S608 - the ORM's own SQL
        params += [key.get_db_prep_value(uuid7_floor(moment), connection) for moment in period.bounds]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), params)
        return [wanted[index] for index in sorted(index for (index,) in cursor.fetchall())]
