"""The subcommands of ``manage.py restate``, one module for each group of them.

A new one is a class that extends :class:`~restate_django.management.subcommands.base.Subcommand`, in a module of this
folder, named in ``SUBCOMMANDS`` below: nothing else has to know of it. They may import every verb, and hold no rule of
their own: what the admin does, they do by the same functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from restate_django.management.subcommands.examining import Doctor
from restate_django.management.subcommands.jobs import Prune, Relay
from restate_django.management.subcommands.looking import List, Show
from restate_django.management.subcommands.operating import (
    Cancel,
    Kill,
    Pause,
    Purge,
    PurgeJournal,
    Refresh,
    Resend,
    Restart,
    Resume,
)
from restate_django.management.subcommands.querying import Sql
from restate_django.management.subcommands.scheduling import Beat
from restate_django.management.subcommands.sending import Attach, Call, Send
from restate_django.management.subcommands.serving import Deployments, Services
from restate_django.management.subcommands.serving_locally import Up

if TYPE_CHECKING:
    from restate_django.management.subcommands.base import Subcommand

#: In the order in which ``manage.py restate --help`` lists them.
SUBCOMMANDS: Final[tuple[type[Subcommand], ...]] = (
    Send,
    Call,
    Attach,
    Show,
    List,
    Refresh,
    Cancel,
    Kill,
    Pause,
    Resume,
    Restart,
    Purge,
    PurgeJournal,
    Resend,
    Services,
    Deployments,
    Sql,
    Doctor,
    Up,
    Beat,
    Relay,
    Prune,
)
