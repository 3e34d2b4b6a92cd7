"""How a length of time is worded: for the admin, and for whatever else tells a person of one. Imports Django alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.formats import number_format
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    import datetime as dt

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SMALLER = {_MINUTE: 1, _HOUR: _MINUTE, _DAY: _HOUR}


def span(delta: dt.timedelta) -> str:
    """Word a span of time with its two largest units: ``850 ms``, ``2.4 s``, ``3 min 12 s``, ``2 h 5 min``.

    Args:
        delta: The span; a negative one is worded like its opposite.
    """
    seconds = abs(delta.total_seconds())
    if seconds < 0.9995:  # noqa: PLR2004 - below ten a tenth tells - what would round to 1,000 ms is worded as a second
        return _("%(number)s ms") % {"number": number_format(round(seconds * 1000))}
    if seconds < _MINUTE:
        # Tenths matter for a step of a few seconds, and are noise above that.
        number = number_format(seconds, 1) if seconds < 10 else number_format(int(seconds))  # noqa: PLR2004 - below ten a tenth tells
        return _("%(number)s s") % {"number": number}
    whole = int(seconds)
    unit = next(unit for unit in (_DAY, _HOUR, _MINUTE) if whole >= unit)
    if whole % unit < _SMALLER[unit]:
        # There is nothing of the smaller unit.
        return one_unit(whole)
    if whole < _HOUR:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": whole // _MINUTE, "seconds": whole % _MINUTE}
    if whole < _DAY:
        return _("%(hours)d h %(minutes)d min") % {"hours": whole // _HOUR, "minutes": whole % _HOUR // _MINUTE}
    return _("%(days)s d %(hours)d h") % {"days": number_format(whole // _DAY), "hours": whole % _DAY // _HOUR}


def one_unit(seconds: int) -> str:
    """Word a number of seconds by the largest unit that fits: ``12 s``, ``3 h``."""
    if seconds < _MINUTE:
        return _("%(number)s s") % {"number": seconds}
    if seconds < _HOUR:
        return _("%(number)s min") % {"number": seconds // _MINUTE}
    if seconds < _DAY:
        return _("%(number)s h") % {"number": seconds // _HOUR}
    return _("%(number)s d") % {"number": number_format(seconds // _DAY)}
