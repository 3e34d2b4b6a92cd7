"""How the admin words spans of time, moments and sizes. Every string can be translated.

Imports ``spans`` alone.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from django.utils import formats, timezone
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django import spans

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

_KILO = 1024

#: What stands where there is nothing to say.
NOTHING = "\N{EN DASH}"


#: How a length of time is worded, here as elsewhere.
span: Final = spans.span


def distance(moment: dt.datetime, now: dt.datetime | None = None) -> str:
    """Word how far a moment is from now, in its largest unit: ``12 s ago``, ``in 3 h``."""
    delta = (now or timezone.now()) - moment
    words = spans.one_unit(abs(int(delta.total_seconds())))
    if delta < dt.timedelta(0):
        return _("in %(time)s") % {"time": words}
    return _("%(time)s ago") % {"time": words}


def clock(moment: dt.datetime) -> str:
    """Word a moment in full, in the user's time zone, down to the second."""
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S}"


def time_tag(moment: dt.datetime | None, text: str | None = None) -> SafeString | str:
    """Return a ``<time>`` element that tells its full date where one points at it; a dash for no moment.

    Args:
        moment: The moment.
        text: What is shown; its distance from now by default.
    """
    if moment is None:
        return NOTHING
    return format_html(
        '<time class="restate-time" datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        clock(moment),
        distance(moment) if text is None else text,
    )


def size(count: int) -> str:
    """Word a number of bytes: ``512 bytes``, ``3.4 KB``, ``1.2 MB``."""
    if count < _KILO:
        return ngettext("%(number)s byte", "%(number)s bytes", count) % {"number": count}
    if count < _KILO * _KILO:
        return _("%(number)s KB") % {"number": number_format(count / _KILO, 1)}
    return _("%(number)s MB") % {"number": number_format(count / (_KILO * _KILO), 1)}


def recorded_reason(text: str) -> str:
    """Return why a row was not delivered, in the reader's language where the sentence is one of ours.

    A row keeps it in English: whoever wrote it knew no reader. What a server or the client said stays as it is.

    Args:
        text: The row's ``delivery_error``.
    """
    return _(text) if text else ""  # Of an empty text, gettext makes the catalogue's header.


def first_line(text: str, longest: int) -> str:
    """Return the first line of a failure, for a list: what follows it is a stack trace.

    Args:
        text: The failure.
        longest: Characters at most.
    """
    return text.lstrip().partition("\n")[0][:longest]
