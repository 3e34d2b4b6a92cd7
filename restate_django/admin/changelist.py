"""The list's query and its page: narrowed by indexes, read through a window, resolved for all rows at once.

Imports the modules beside it and the records.
"""

from __future__ import annotations

import datetime as dt
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ChangeList

from restate_django.admin import periods, wording
from restate_django.admin.filters import DayFilter
from restate_django.admin.reach import Reach, reach
from restate_django.admin.relations import Relations
from restate_django.models import Invocation

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from restate_django.admin.periods import Period, Steps
    from restate_django.admin.window import WindowPaginator


class InvocationChangeList(ChangeList):
    """Reads a page of rows, and then once for the page what its rows refer to."""

    paginator: WindowPaginator

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        #: All that match, also those that the page does not look back to; of a search, as far as that has looked.
        self.everything: Any = self.queryset
        #: Where a search stopped to look back, though there may be more that match: a primary key.
        self.searched_to: uuid.UUID | None = None
        if self.query:
            # It has found its rows already.
            found: Reach = getattr(request, "restate_reach", Reach())
            if found.oldest is not None:
                self.searched_to = found.oldest
                self.everything = self.queryset.filter(pk__gt=found.oldest)
        else:
            found = reach(self.get_filters_params(), self.queryset.db)
            self.queryset = found.of(self.everything)
        #: Where the page stops to look back: a primary key, or None where it looks at everything.
        self.looked_back_to = found.oldest
        super().get_results(request)
        if not self.multi_page and self.paginator.ranges:
            # Django would read the only page by the list's own query, which sorts what a group of statuses matches.
            self.result_list = self.paginator.page(1).object_list
        rows = list(self.result_list)
        relations = Relations(rows, request, self.model_admin.admin_site)
        for row in rows:
            # Read by the columns of the admin class, which are given a row and nothing else.
            row.admin_relations = relations
        self.result_list: Any = rows
        #: Where the rows beyond the window begin: its last row's key, on its last page.
        self.older_than = None
        if rows and self.paginator.is_capped and self.page_num == self.paginator.num_pages:
            self.older_than = self.get_query_string({"id__lt": str(rows[-1].pk)})

    # ------------------------------------------------------------------ how far back it looked

    @property
    def further_back(self) -> str:
        """The address of what lies behind what was looked at; empty where there is nothing, or the window is full."""
        if self.looked_back_to is None or self.paginator.is_capped:
            return ""
        # The key itself was not looked at any more.
        behind = uuid.UUID(int=self.looked_back_to.int + 1)
        return self.get_query_string({"id__lt": str(behind)})

    @property
    def looked_back_until(self) -> SafeString | str:
        """How old the oldest row is that was looked at."""
        if self.looked_back_to is None:
            return ""
        return wording.time_tag(dt.datetime.fromtimestamp((self.looked_back_to.int >> 80) / 1000, tz=dt.UTC))

    # ------------------------------------------------------------------ the days above it

    @cached_property
    def steps(self) -> Steps:
        """The years, months and days that have rows."""
        chosen = self.params.get(DayFilter.parameter_name, "")
        return periods.steps(Invocation.objects.using(self.queryset.db), periods.Period.read(chosen))

    @property
    def day_parents(self) -> list[tuple[Period, str]]:
        """The chosen period and what it lies in, each with its address."""
        return [(period, self._on(period)) for period in self.steps.parents]

    @property
    def day_parts(self) -> list[tuple[Period, str]]:
        """The narrower periods to choose from, each with its address."""
        return [(period, self._on(period)) for period in self.steps.parts]

    @property
    def any_day(self) -> str:
        """The address of the list without a period."""
        return self.get_query_string(remove=[DayFilter.parameter_name, "id__lt"])

    def _on(self, period: Period) -> str:
        return self.get_query_string({DayFilter.parameter_name: str(period)}, ["id__lt"])
