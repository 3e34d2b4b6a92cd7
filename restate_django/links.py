"""Signed addresses of an invocation's status and cancellation, for people who have no login.

A signature belongs to one row and one purpose, and carries its own end. The one that lets cancel lets see too, the
other way not. Imports ``signatures`` and Django.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.urls import reverse
from django.utils.http import urlencode

from restate_django.signatures import PARAMETER, holds, sign

if TYPE_CHECKING:
    import uuid

    from restate_django.models import Invocation

#: How long a signed address works where nothing else is said.
DAY: Final = timedelta(days=1)
#: The parameter of the stream that names a row, once for each: its id, and a signature after a dot.
ROW: Final = "row"

_SEE: Final = "restate_django.links.see"
_CANCEL: Final = "restate_django.links.cancel"


def status_url(invocation: Invocation, *, expires: timedelta | float = DAY) -> str:
    """Return the signed address of a row's status, as JSON. Whoever has it may see that status.

    Args:
        invocation: The row.
        expires: How long it works: a timedelta or seconds. Up to a 24th is added, so that a page that is rendered
            twice says the same.
    """
    return _signed("status", invocation, _SEE, expires)


def cancel_url(invocation: Invocation, *, expires: timedelta | float = DAY) -> str:
    """Return the signed address that cancels a row when it is posted to. Whoever has it may see its status too.

    Args:
        invocation: The row.
        expires: As for :func:`status_url`.
    """
    return _signed("cancel", invocation, _CANCEL, expires)


def events_url(*invocations: Invocation, expires: timedelta | float = DAY) -> str:
    """Return the signed address at which the status of one or more rows is streamed, for an ``EventSource``.

    Args:
        invocations: The rows.
        expires: As for :func:`status_url`.
    """
    rows = [(ROW, f"{row.pk}.{sign(row.pk, _SEE, expires)}") for row in invocations]
    return f"{reverse('restate_django:events')}?{urlencode(rows)}"


def lets_see(pk: uuid.UUID, signature: str) -> bool:
    """Tell whether a signature lets its holder see a row."""
    return holds(pk, _SEE, signature) or holds(pk, _CANCEL, signature)


def lets_cancel(pk: uuid.UUID, signature: str) -> bool:
    """Tell whether a signature lets its holder cancel a row."""
    return holds(pk, _CANCEL, signature)


def _signed(name: str, invocation: Invocation, purpose: str, expires: timedelta | float) -> str:
    address = reverse(f"restate_django:{name}", args=[invocation.pk])
    return f"{address}?{urlencode({PARAMETER: sign(invocation.pk, purpose, expires)})}"
