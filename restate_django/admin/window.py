"""The newest rows of a list: a window of them, which is never a count or a sort of the whole table.

Imports the records alone.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator

from restate_django.ranges import count_up_to, newest_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Q

    from restate_django.models import Invocation
    from restate_django.querysets import InvocationQuerySet

    _Paginator = Paginator[Invocation]
else:
    _Paginator = Paginator

#: Rows that a list pages through. Who looks for older ones follows the link to them, or narrows the list.
LIMIT: Final = 1000


class WindowPaginator(_Paginator):
    """Pages through the newest ``LIMIT`` rows.

    Args:
        object_list: The filtered rows.
        per_page: Rows on a page.
        ranges: The ranges of an index that the rows are narrowed to, where there are several and the list is newest
            first.
    """

    def __init__(
        self,
        object_list: InvocationQuerySet,
        per_page: int,
        orphans: int = 0,
        allow_empty_first_page: bool = True,
        *,
        ranges: Sequence[Q] = (),
    ) -> None:
        super().__init__(object_list, per_page, orphans, allow_empty_first_page)
        self.ranges = tuple(ranges)

    @cached_property
    def seen(self) -> int:
        """How many rows there are, counted to one past the limit."""
        return count_up_to(self.object_list, LIMIT + 1, self.ranges)  # type: ignore[arg-type]  # see __init__

    @property
    def is_capped(self) -> bool:
        """There are more rows than the window shows."""
        return self.seen > LIMIT

    @cached_property
    def count(self) -> int:
        """How many rows are paged through."""
        return min(self.seen, LIMIT)

    def page(self, number: int | str) -> Any:
        """Return a page, its rows read by their primary keys."""
        number = self.validate_number(number)
        page: Any = self._get_page  # type: ignore[attr-defined]  # documented hook that the stubs lack
        start = (number - 1) * self.per_page
        size = min(self.per_page, self.count - start)
        rows: Any = self.object_list
        if self.ranges and size > 0:
            wanted = newest_keys(rows, size, self.ranges, skip=start)
            rows = rows.all()
            # The keys alone say which rows: SQLite would rather read the whole range that they were found in.
            rows.query.clear_where()
            return page(rows.filter(pk__in=wanted), number, self)
        return page(rows[start : start + size], number, self)
