"""The statuses of an invocation and the changes between them: the one place that says which are legal.

Imports nothing of the package above the client's floor. ``querysets`` writes no status that this module does not allow.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """Ours before acceptance, Restate's own words (``sys_invocation.status``) after it."""

    UNSENT = "unsent", _("unsent")
    ACCEPTED = "accepted", _("accepted")
    SCHEDULED = "scheduled", _("scheduled")
    PENDING = "pending", _("pending")
    READY = "ready", _("ready")
    RUNNING = "running", _("running")
    BACKING_OFF = "backing-off", _("backing off")
    SUSPENDED = "suspended", _("suspended")
    PAUSED = "paused", _("paused")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")
    KILLED = "killed", _("killed")
    GONE = "gone", _("gone")
    REJECTED = "rejected", _("rejected")
    UNDELIVERABLE = "undeliverable", _("undeliverable")


#: Restate has it and it has not ended: these rows are polled.
IN_RESTATE: Final = frozenset(
    {
        Status.ACCEPTED,
        Status.SCHEDULED,
        Status.PENDING,
        Status.READY,
        Status.RUNNING,
        Status.BACKING_OFF,
        Status.SUSPENDED,
        Status.PAUSED,
    }
)

#: Something is still to come without a person: delivery or an end.
OPEN: Final = IN_RESTATE | {Status.UNSENT}

#: Ended in Restate, with an outcome or without one.
ENDED: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.KILLED, Status.GONE})

#: Nothing more will happen by itself, and nothing is left undecided.
FINISHED: Final = ENDED | {Status.REJECTED}

#: A person should look. One that has been backing off for long is added (``InvocationQuerySet.needs_attention``).
NEEDS_ATTENTION: Final = frozenset({Status.PAUSED, Status.UNDELIVERABLE, Status.REJECTED})

#: From when on tries that fail are more than a hiccup.
BACKING_OFF_FOR_LONG: Final = dt.timedelta(hours=1)

#: Statuses that a person may send back to ``unsent``.
RESENDABLE: Final = frozenset({Status.REJECTED, Status.UNDELIVERABLE})

_NEXT: Final[dict[Status, frozenset[Status]]] = {
    Status.UNSENT: frozenset({Status.ACCEPTED, Status.REJECTED, Status.UNDELIVERABLE, Status.CANCELLED}),
    **{status: (IN_RESTATE | ENDED) - {status, Status.ACCEPTED} for status in IN_RESTATE},
    **dict.fromkeys(ENDED, frozenset[Status]()),
    # When somebody asks again, and the server knows it after all: the settings led to another one.
    Status.GONE: (IN_RESTATE | ENDED) - {Status.GONE},
    **dict.fromkeys(RESENDABLE, frozenset({Status.UNSENT})),
}


def may_become(old: str, new: str, *, verb: str = "send") -> bool:
    """Tell whether a row may go from one status to another.

    Args:
        old: The status the row has.
        new: The status it is to have; the same one is always allowed.
        verb: ``send`` or ``call``. A call's row may end without having been seen as accepted.
    """
    if old == new:
        return True
    if Status(new) in _NEXT[Status(old)]:
        return True
    return verb == "call" and old == Status.UNSENT and Status(new) in ENDED
