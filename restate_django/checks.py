"""System checks of ``RESTATE`` and what it rests on. They read settings only: no database is opened, no server asked.

Each finding has an id that stays, so that a project can silence it in ``SILENCED_SYSTEM_CHECKS``. Errors are settings
that can't work; warnings are settings that work until the day they don't.
"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name for it
from django.core.exceptions import ImproperlyConfigured
from django.db import connections as database_connections

from restate_django.conf import all_settings
from restate_django.schedules import TASKS, connections_left_out, missing_tasks, project_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from restate_django.conf import ConnectionSettings

#: The tag of all of them: ``manage.py check --tag restate``.
TAG: Final = "restate"

_LEAST_SQLITE_TIMEOUT: Final = 20  # seconds


@register(TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Check ``RESTATE``, the databases that its connections name, and ``USE_TZ``.

    Returns:
        What was found: ``restate_django.E001`` to ``E005`` and ``restate_django.W001`` to ``W006``.
    """
    found: list[CheckMessage] = list(_check_time_zones())
    try:
        connections = all_settings()
    except ImproperlyConfigured as error:
        return [
            *found,
            Error(
                str(error),
                hint="Correct the RESTATE setting: nothing can be sent, and the jobs stand still, until it is read.",
                id="restate_django.E001",
            ),
        ]
    for settings in connections.values():
        found += _check_connection(settings)
    databases = dict.fromkeys(alias for settings in connections.values() for alias in settings.databases)
    for alias in databases:
        if alias in database_connections.settings:
            found += _check_sqlite(alias)
    return found


@register(TAG)
def check_celery(**_: Any) -> list[CheckMessage]:
    """Check that something starts the jobs, as far as Celery's configuration tells.

    Returns:
        What was found: ``restate_django.W007`` to ``restate_django.W010``.
    """
    try:
        delivered = [settings for settings in all_settings().values() if settings.delivery == "celery"]
    except ImproperlyConfigured:
        return []
    app = project_app()
    if app is None:
        return [
            Warning(
                f'RESTATE["{settings.alias}"]["DELIVERY"]: "celery", and this project has no Celery app.',
                hint="Import the app in the project's __init__.py, as Celery's documentation has it. Until then rows "
                "are left to the jobs.",
                id="restate_django.W009",
            )
            for settings in delivered
        ]
    missing = missing_tasks(app)
    if not missing:
        return [
            Warning(
                f"CELERY: no entry of the beat schedule of the app {app.main!r} sends and polls the rows of the "
                f"connection {alias!r}.",
                hint="Name it in connections= of a beat_schedule(). Silence this where restate_relay has it.",
                id="restate_django.W010",
            )
            for alias in connections_left_out(app, all_settings())
        ]
    if len(missing) == len(TASKS):
        return [
            Warning(
                f"CELERY: the beat schedule of the app {app.main!r} starts none of the jobs of restate_django.",
                hint="Add beat_schedule() of restate_django.tasks to app.conf.beat_schedule: without the jobs, rows "
                "whose first attempt failed are never sent, and no outcome is read. Silence this where restate_relay "
                "or cron runs them.",
                id="restate_django.W007",
            )
        ]
    return [
        Warning(
            f"CELERY: the beat schedule of the app {app.main!r} starts some of the jobs of restate_django, and not "
            f"{' and '.join(missing)}.",
            hint="Take all entries of beat_schedule() of restate_django.tasks. Silence this where something else runs "
            "the others.",
            id="restate_django.W008",
        )
    ]


def _check_time_zones() -> Iterator[CheckMessage]:
    """Yield what is to be said about ``USE_TZ``."""
    if not django_settings.USE_TZ:
        yield Error(
            "USE_TZ: False. Restate's times have a zone, and can't be compared with, or stored as, times without one: "
            "SQLite, MariaDB and MySQL refuse the row of a delayed send.",
            hint="Set USE_TZ to True, which is Django's default. TIME_ZONE still says which times people see.",
            id="restate_django.E005",
        )


def _check_connection(settings: ConnectionSettings) -> Iterator[CheckMessage]:
    """Yield what is to be said about one connection."""
    where = f'RESTATE["{settings.alias}"]'
    for alias in settings.databases:
        if alias not in database_connections.settings:
            known = ", ".join(repr(name) for name in database_connections.settings)
            yield Error(
                f'{where}["DATABASES"]: DATABASES has no alias {alias!r}.',
                hint=f"Name the databases whose invocations this connection sends. DATABASES has: {known}.",
                id="restate_django.E002",
            )
    if settings.ca_bundle is not None and not Path(settings.ca_bundle).exists():
        yield Error(
            f'{where}["CA_BUNDLE"]: there is no {settings.ca_bundle}.',
            hint="No https request can be made without it. Correct the path, or remove the key to trust certifi's.",
            id="restate_django.E003",
        )
    if settings.lease < timedelta(seconds=3 * settings.timeout):
        yield Error(
            f'{where}["LEASE"]: {settings.lease.total_seconds():g} seconds is less than three times TIMEOUT '
            f"({settings.timeout:g} seconds).",
            hint=f"Set LEASE to {3 * settings.timeout:g} seconds or more, or TIMEOUT lower: a worker makes up to three "
            "requests for a row, and another one takes the row when the lease has run out.",
            id="restate_django.E004",
        )
    yield from _check_secrets(settings, where)
    if settings.validate_payloads and settings.admin_url is None:
        yield Warning(
            f'{where}["VALIDATE_PAYLOADS"]: nothing is checked, for schemas are read from the Admin API, and ADMIN_URL '
            "is None.",
            hint="Set ADMIN_URL, or remove VALIDATE_PAYLOADS.",
            id="restate_django.W006",
        )
    if timedelta(0) < settings.idempotency_retention <= settings.poll_max_interval:
        yield Warning(
            f'{where}["POLL_MAX_INTERVAL"]: {settings.poll_max_interval} is not shorter than IDEMPOTENCY_RETENTION '
            f"({settings.idempotency_retention}).",
            hint="Poll more often: Restate forgets a result when its retention ends, and a row that nobody asked about "
            "until then ends as gone.",
            id="restate_django.W005",
        )


def _check_secrets(settings: ConnectionSettings, where: str) -> Iterator[CheckMessage]:
    """Yield what is to be said about a token, or a header in its place."""
    if settings.token:
        key = "TOKEN"
    elif any(name.lower() == "authorization" for name in settings.headers):
        key = "HEADERS"
    else:
        return
    for url_key, url in (("INGRESS_URL", settings.ingress_url), ("ADMIN_URL", settings.admin_url)):
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not _is_local(parts.hostname or ""):
            yield Warning(
                f'{where}["{key}"]: goes over plain http to {parts.hostname} ({url_key}), where others can read it.',
                hint=f"Use an https URL for {url_key}. Silence this where the way itself is encrypted (a mesh, say).",
                id="restate_django.W001",
            )
    host = urlsplit(settings.ingress_url).hostname or ""
    if not host.endswith(".restate.cloud"):
        yield Warning(
            f'{where}["{key}"]: {host} does not look like Restate Cloud. A self-hosted server checks no token, and '
            "stores the header with each invocation.",
            hint=f"Remove {key}'s authorization. Silence this where a proxy in front of the server asks for it and "
            "takes it out of the request.",
            id="restate_django.W002",
        )


def _is_local(host: str) -> bool:
    """Return whether a host is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_sqlite(alias: str) -> Iterator[CheckMessage]:
    """Yield what is to be said about a database, if it is a file of SQLite's."""
    # Making Django's wrapper opens nothing: it connects when a query asks for it.
    database = database_connections[alias]
    name, options = str(database.settings_dict["NAME"]), database.settings_dict["OPTIONS"]
    # A database in memory belongs to one process, and there is nobody to wait for.
    if database.vendor != "sqlite" or not name or name == ":memory:" or "mode=memory" in name:
        return
    where = f'DATABASES["{alias}"]["OPTIONS"]'
    mode = options.get("transaction_mode") or "DEFERRED"
    if str(mode).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
        yield Warning(
            f"{where}: SQLite transactions of the mode {mode} fail with 'database is locked', without waiting, when "
            "they read before they write and another process writes in between.",
            hint='Set "transaction_mode": "IMMEDIATE".',
            id="restate_django.W003",
        )
    timeout = options.get("timeout", 5.0)
    if isinstance(timeout, (int, float)) and timeout < _LEAST_SQLITE_TIMEOUT:
        yield Warning(
            f"{where}: {timeout:g} seconds is a short time to wait for another process that writes.",
            hint=f'Set "timeout": {_LEAST_SQLITE_TIMEOUT} or more. Web workers and jobs write to the same file, and '
            "whoever waits for longer gets 'database is locked'.",
            id="restate_django.W004",
        )
