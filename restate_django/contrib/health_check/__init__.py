"""Checks for django-health-check 4, to be named in the ``checks`` of its view (extra ``health``).

Each is a dataclass that asks what ``health`` asks, of one database or connection, within its ``timeout``. What they say
is shown to whoever may open that view: it names no host. The reason is in the log.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import ClassVar, Final

from health_check.base import HealthCheck  # type: ignore[import-untyped] # it has none
from health_check.exceptions import ServiceUnavailable, ServiceWarning  # type: ignore[import-untyped] # it has none

from restate_django import health
from restate_django.health import TIMEOUT, Check, State
from restate_django.logs import get_logger

logger: Final = get_logger("restate_django.health")

_TIMEOUT: Final = dt.timedelta(seconds=TIMEOUT)


class _Check(HealthCheck):  # type: ignore[misc] # a class of a package without types
    """What all of them do. django-health-check runs it in a thread, and ``health`` for ``timeout`` at most."""

    kind: ClassVar[Check]
    alias: str
    timeout: dt.timedelta

    def run(self) -> None:
        """Ask, and raise what is wrong."""
        found = health.ask(
            self.kind, self.alias, timeout=self.timeout.total_seconds(), after=getattr(self, "after", None)
        )
        if found.state is State.OK:
            return
        if found.detail:
            logger.warning("The health check %s of %r fails (%s)", self.kind, self.alias, found.detail)
        raise (ServiceWarning if found.state is State.WARNING else ServiceUnavailable)(found.message)


@dataclasses.dataclass
class Database(_Check):
    """A swept database answers, and has the app's tables.

    Args:
        alias: The database in ``DATABASES``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.DATABASE
    alias: str = "default"
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)


@dataclasses.dataclass
class Ingress(_Check):
    """A connection's ingress answers.

    Args:
        alias: The connection in ``RESTATE``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.INGRESS
    alias: str = "default"
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)


@dataclasses.dataclass
class AdminAPI(_Check):
    """A connection's Admin API answers.

    Args:
        alias: The connection in ``RESTATE``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.ADMIN
    alias: str = "default"
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)


@dataclasses.dataclass
class Delivery(_Check):
    """The delivery job runs, and no row of a database has been waiting to be sent for long.

    Args:
        alias: The database in ``DATABASES``.
        after: How long a row may wait and the job may not have run; None: ``ALERT_AFTER``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.DELIVERY
    alias: str = "default"
    after: dt.timedelta | None = dataclasses.field(default=None, repr=False)
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)


@dataclasses.dataclass
class Polling(_Check):
    """The polling job runs on a database.

    Args:
        alias: The database in ``DATABASES``.
        after: How long the job may not have run; None: ``ALERT_AFTER``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.POLLING
    alias: str = "default"
    after: dt.timedelta | None = dataclasses.field(default=None, repr=False)
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)


@dataclasses.dataclass
class Attention(_Check):
    """No invocation of a database is paused or undeliverable. One that is, is a ``ServiceWarning``.

    Args:
        alias: The database in ``DATABASES``.
        timeout: How long it may take.
    """

    kind: ClassVar[Check] = Check.ATTENTION
    alias: str = "default"
    timeout: dt.timedelta = dataclasses.field(default=_TIMEOUT, repr=False)
