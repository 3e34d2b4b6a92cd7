"""A connection's Restate: whether it answers, what it is, and whether it serves what the rows name.

Imports the connections, the client and the records.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.db import Error as DatabaseTrouble
from django.utils import timezone

from restate_django.client import detect_path_style
from restate_django.connections import connections
from restate_django.doctor.lines import Level, Line
from restate_django.exceptions import RestateError
from restate_django.lifecycle import Status
from restate_django.models import Invocation
from restate_django.spans import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from restate_django.client import AdminClient, ServiceInfo
    from restate_django.conf import ConnectionSettings
    from restate_django.connections import Connection

#: Seconds that each request may take.
TIMEOUT: Final = 5.0
#: A clock that is off by more than this is worth a word.
SKEW: Final = dt.timedelta(seconds=5)
# From here on, what is reckoned from the one clock and the other may come out wrong (see ``attempts.WINDOW_MARGIN``).
_TOO_MUCH_SKEW: Final = dt.timedelta(minutes=4)
# Of each end of the table: rows whose services are looked for.
_LOOKED_AT: Final = 1000
_OLDEST_SUPPORTED: Final = (1, 6)
# Well-formed, and no invocation's: a server that answers "not found" to it has understood the path and let us in.
_NO_INVOCATION: Final = "inv_1d2n4yu4ezNz6P9f4vQEhNc2VwHkKk8u0J"


def connection(settings: ConnectionSettings) -> Iterator[Line]:
    """Look at one connection.

    Args:
        settings: Its settings.
    """
    about = f"connection {settings.alias}"
    found = connections[settings.alias]
    services: list[ServiceInfo] | None = None
    if found.admin is None:
        yield Line(Level.NOTE, about, "There is no Admin API: its version, services and clock can't be looked at.")
    else:
        try:
            yield from _server(about, found, found.admin)
            services = found.admin.list_services(timeout=TIMEOUT)
        except RestateError as error:
            yield Line(
                Level.ERROR,
                about,
                f"The Admin API at {settings.admin_url} does not answer as it should: {error}",
                "Start the server, or correct ADMIN_URL and TOKEN. Outcomes are read one by one meanwhile.",
            )
    yield from _ingress(about, found)
    if services is not None:
        yield from _services(about, settings, services)


def _server(about: str, connection: Connection, admin: AdminClient) -> Iterator[Line]:
    """Look at the server's version, the paths that it takes, and its clock."""
    settings = connection.settings
    told = admin.version(timeout=TIMEOUT)
    if () < told.release < _OLDEST_SUPPORTED:
        yield Line(
            Level.WARNING, about, f"The server is Restate {told.version}.", "Update it: 1.6 and later are supported."
        )
    else:
        yield Line(Level.OK, about, f"The Admin API at {settings.admin_url} answers: Restate {told.version}.")
    theirs = detect_path_style(admin, timeout=TIMEOUT)
    if settings.path_style == "restate" and theirs == "legacy":
        yield Line(
            Level.ERROR,
            about,
            f"PATH_STYLE is 'restate', and Restate {told.version} does not know these paths: nothing can be sent.",
            "Set it to 'auto' or 'legacy', or update the server.",
        )
    elif settings.path_style == "legacy" and theirs == "restate":
        yield Line(
            Level.WARNING,
            about,
            f"PATH_STYLE is 'legacy', and Restate {told.version} takes those paths for a while only.",
            "Set it to 'auto'.",
        )
    else:
        yield Line(Level.OK, about, f"Paths are {theirs!r}, as the server takes them.")
    yield _clock(about, admin)


def _clock(about: str, admin: AdminClient) -> Line:
    before, start = timezone.now(), time.monotonic()
    text = str(admin.query("SELECT now() AS now", timeout=TIMEOUT)[0]["now"])
    ours = before + dt.timedelta(seconds=(time.monotonic() - start) / 2)
    theirs = dt.datetime.fromisoformat(text[:26]).replace(tzinfo=dt.UTC)  # nanoseconds, without a zone: it is UTC
    return clock_line(about, "The server's clock", theirs - ours)


def clock_line(about: str, whose: str, ahead: dt.timedelta) -> Line:
    """Say how far a clock is from ours.

    Args:
        about: What the line is about.
        whose: The clock, as the sentence begins.
        ahead: By how much it is ahead of ours.
    """
    if abs(ahead) <= SKEW:
        return Line(Level.OK, about, f"{whose} and ours are {span(ahead)} apart at most.")
    way = "ahead of" if ahead > dt.timedelta(0) else "behind"
    level = Level.ERROR if abs(ahead) > _TOO_MUCH_SKEW else Level.WARNING
    return Line(level, about, f"{whose} is {span(ahead)} {way} ours.", "Let both machines keep time by NTP.")


def _ingress(about: str, connection: Connection) -> Iterator[Line]:
    settings = connection.settings
    start = time.monotonic()
    try:
        connection.ingress.health(timeout=TIMEOUT)
        took = dt.timedelta(seconds=time.monotonic() - start)
        # The health address asks for no token, and is the same for old and new paths: this one does and is not.
        connection.ingress.output(_NO_INVOCATION, timeout=TIMEOUT)
    except RestateError as error:
        yield Line(
            Level.ERROR,
            about,
            f"The ingress at {settings.ingress_url} does not answer as it should: {error}",
            "Start the server, or correct INGRESS_URL, TOKEN and PATH_STYLE. Rows are safe, and wait.",
        )
        return
    yield Line(Level.OK, about, f"The ingress at {settings.ingress_url} answers, in {span(took)}.")
    if settings.token:
        yield Line(Level.OK, about, "The token was not refused.")


# ---------------------------------------------------------------- what the rows name


def _services(about: str, settings: ConnectionSettings, services: Iterable[ServiceInfo]) -> Iterator[Line]:
    """Compare what the server serves with what rows were sent to: those that wait, and the newest ones."""
    known = {service.name: service for service in services}
    handlers = {(service.name, handler.name) for service in known.values() for handler in service.handlers}
    waiting: Counter[tuple[str, str]] = Counter()
    newest: Counter[tuple[str, str]] = Counter()
    try:
        for using in settings.databases:
            rows = Invocation.objects.using(using)
            waiting.update(_targets(rows.filter(status=Status.UNSENT).order_by("pk"), settings.alias))
            newest.update(_targets(rows.order_by("-pk"), settings.alias))
    except DatabaseTrouble:
        # The database has lines of its own.
        return
    lost = {target: count for target, count in waiting.items() if target not in handlers}
    if lost:
        yield Line(
            Level.ERROR,
            about,
            f"Rows wait for handlers that Restate does not serve: {_listed(lost)}.",
            "Register their deployment: manage.py restate deployments register URL. They are rejected when "
            "REGISTRATION_GRACE is over.",
        )
    old = {target: count for target, count in newest.items() if target not in handlers and target not in lost}
    if old:
        yield Line(
            Level.WARNING,
            about,
            f"Some of the newest rows were for handlers that Restate does not serve now: {_listed(old)}.",
            "Nothing is to be done if they were taken away on purpose.",
        )
    if not lost and not old:
        yield Line(Level.OK, about, f"Restate serves what the newest rows name. Services: {len(known)}.")
    yield from _retentions(about, settings, [known[name] for name, _handler in newest if name in known])


def _targets(rows: Any, alias: str) -> Iterator[tuple[str, str]]:
    found = rows.values_list("connection", "service", "handler")[:_LOOKED_AT]
    return ((service, handler) for connection, service, handler in found if connection == alias)


def _listed(targets: Mapping[tuple[str, str], int]) -> str:
    shown = sorted(targets)[:5]
    text = ", ".join(f"{service}/{handler} ({targets[service, handler]})" for service, handler in shown)
    return text + (f" and {len(targets) - len(shown)} more" if len(targets) > len(shown) else "")


def _retentions(about: str, settings: ConnectionSettings, used: Iterable[ServiceInfo]) -> Iterator[Line]:
    """Look at how long Restate remembers what the newest rows were sent to."""
    for service in {service.name: service for service in used}.values():
        is_workflow = service.ty == "Workflow"
        kept = service.workflow_completion_retention if is_workflow else service.idempotency_retention
        if kept is None or kept > settings.poll_max_interval:
            continue
        if not kept:
            text = f"Restate keeps no result of {service.name}: a send of unknown outcome is not made again."
        else:
            text = f"Restate keeps results of {service.name} for {span(kept)}, and a row may be asked about later."
        yield Line(Level.WARNING, about, text, "Give the service a longer retention, or lower POLL_MAX_INTERVAL.")
