"""The address at which a handler may report that an invocation has ended: it goes along with the invocation.

A report is believed as far as it is safe: it carries no outcome, and whoever has the address can do no more than have
the site read this row's outcome from Restate. So the address may lie in Restate, where handlers and operators see it.
Imports ``signatures`` and the floors below.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from django.utils import timezone

from restate_django.handlers import REPORT_HEADER
from restate_django.signatures import PARAMETER, holds, sign

if TYPE_CHECKING:
    import uuid

    from restate_django.conf import ConnectionSettings
    from restate_django.models import Invocation

_REPORT: Final = "restate_django.reporting"
# How long after it was to start an invocation may still report.
_EXPIRES: Final = dt.timedelta(days=30)


def report_headers(row: Invocation, settings: ConnectionSettings) -> dict[str, str]:
    """Return the headers that an invocation is sent with: the row's own, and where its end may be reported.

    Args:
        row: The row.
        settings: Its connection; without a ``REPORT_URL`` nothing is added.
    """
    headers = dict(row.headers or {})
    if settings.report_url is not None:
        wait = max(row.run_at - timezone.now(), dt.timedelta(0)) if row.run_at is not None else dt.timedelta(0)
        query = urlencode({PARAMETER: sign(row.pk, _REPORT, _EXPIRES + wait)})
        headers[REPORT_HEADER] = f"{settings.report_url}/{row.pk}/report/?{query}"
    return headers


def lets_report(pk: uuid.UUID, signature: str) -> bool:
    """Tell whether a signature lets its holder report a row's end."""
    return holds(pk, _REPORT, signature)
