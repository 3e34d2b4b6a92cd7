"""The ``RESTATE`` setting, read once into frozen dataclasses: one ``ConnectionSettings`` for each alias.

Imports the client's rules for URLs, tokens and headers, and talks to nobody. A key that it does not know and a value
that cannot work are refused with a message that names the alias and the key; what is read here needs no check anywhere
else.
"""
# ruff: noqa: RUF009 - each default is made by _key(), which makes a dataclass field of it, and is immutable

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils import connection as django_connection

from restate_django.client.targets import MAX_DELAY, token_fault, url_fault, validate_connection_headers
from restate_django.exceptions import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_ALIAS: Final = "default"

_DAY: Final = 24 * 60 * 60.0
_CENTURY: Final = 36525 * _DAY
_GIB: Final = 1024**3
_LONGEST_ALIAS: Final = 64  # characters, as wide as the rows' column
_LONGEST_SHOWN: Final = 80
# What a lease has at least beyond TIMEOUT: half of that again, or so many seconds. Delivery sends nothing with less
# left than a request may take, and a worker that has just claimed its rows has used up some. A system check wants more.
_LEASE_BEYOND_TIMEOUT: Final = 10.0


class ConnectionDoesNotExist(ImproperlyConfigured, django_connection.ConnectionDoesNotExist):
    """No connection of this name is in ``RESTATE``.

    It is an error of configuration, outside the tree of ``RestateError`` on purpose: a row whose connection has left
    the settings waits until it is back, and is never taken for a refused one.
    """


class _BadValueError(ValueError):
    """What is wrong with a value, in words that follow the key's name. Holds no secret."""


# ---------------------------------------------------------------- one reader for each kind of value


def _shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _in_words(seconds: float) -> str:
    """Return a limit for a message."""
    return f"{seconds / _DAY:g} days" if seconds > _DAY else f"{seconds:g} seconds"


def _as_seconds(value: object) -> float:
    """Return a timedelta or a number as seconds. A bool is no number."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if not math.isnan(seconds):
            return seconds
    raise _BadValueError(f"must be a timedelta or a number of seconds, not {_shown(value)}")


def _seconds(*, above: float = 0.0, at_most: float = _DAY) -> Callable[[object], float]:
    """Make a reader of durations that stay a number of seconds (what sockets take)."""

    def read(value: object) -> float:
        seconds = _as_seconds(value)
        if not above < seconds <= at_most:
            raise _BadValueError(
                f"must be above {_in_words(above)} and at most {_in_words(at_most)}, not {_shown(value)}"
            )
        return seconds

    return read


def _duration(*, at_least: float = 0.0, at_most: float = _CENTURY) -> Callable[[object], timedelta]:
    """Make a reader of durations that become a timedelta."""

    def read(value: object) -> timedelta:
        seconds = _as_seconds(value)
        if not at_least <= seconds <= at_most:
            raise _BadValueError(f"must be between {_in_words(at_least)} and {_in_words(at_most)}, not {_shown(value)}")
        return value if isinstance(value, timedelta) else timedelta(seconds=seconds)

    return read


def _duration_or_none(value: object) -> timedelta | None:
    """Read a duration, or None."""
    return None if value is None else _duration()(value)


def _whole_number(*, at_least: int, at_most: int) -> Callable[[object], int]:
    """Make a reader of whole numbers in a range. A bool is no number."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _BadValueError(f"must be a whole number, not {_shown(value)}")
        if not at_least <= value <= at_most:
            raise _BadValueError(f"must be between {at_least} and {at_most}, not {_shown(value)}")
        return value

    return read


def _choice(*choices: str) -> Callable[[object], str]:
    """Make a reader of one word out of a few."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            known = ", ".join(repr(choice) for choice in choices)
            raise _BadValueError(f"must be one of {known}, not {_shown(value)}")
        return value

    return read


def _yes_or_no(value: object) -> bool:
    """Read a bool, and nothing that merely counts as one: the string ``"False"`` would count as true."""
    if not isinstance(value, bool):
        raise _BadValueError(f"must be True or False, not {_shown(value)}")
    return value


def _url(value: object) -> str:
    """Read an http(s) URL with a host, and perhaps a path prefix. The value is not shown: it may hold a password."""
    fault = url_fault(value)
    if fault is not None:
        raise _BadValueError(fault)
    return str(value).rstrip("/")


def _url_or_none(value: object) -> str | None:
    """Read a URL, or None."""
    return None if value is None else _url(value)


def _token(value: object) -> str | None:
    """Read a bearer token. Never shown. An empty one (an environment variable that is not set) is none."""
    if value is None or value == "":
        return None
    fault = token_fault(value)
    if fault is not None:
        raise _BadValueError(fault)
    return str(value)


def _headers(value: object) -> Mapping[str, str]:
    """Read headers that go with every request of a connection. Values are never shown: they may be secrets."""
    if not isinstance(value, Mapping):
        raise _BadValueError(f"must be a dict of header names and values, not {type(value).__name__}")
    try:
        return MappingProxyType(validate_connection_headers(value))
    except InvalidRequest as error:
        raise _BadValueError(str(error).removesuffix(".")) from None


def _database_aliases(value: object) -> tuple[str, ...]:
    """Read the names of one or more databases. Whether ``DATABASES`` has them is a system check's question."""
    if not isinstance(value, (list, tuple)):
        raise _BadValueError(f"must be a list of aliases of DATABASES, not {_shown(value)}")
    if not value:
        raise _BadValueError("must name one database at least")
    for alias in value:
        if not isinstance(alias, str) or not alias:
            raise _BadValueError(f"must be a list of aliases of DATABASES: {_shown(alias)} is none")
    if len(set(value)) < len(value):
        raise _BadValueError("names a database twice")
    return tuple(value)


def _file_or_none(value: object) -> str | None:
    """Read the path of a file, or None. Whether it is there is a system check's question."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not isinstance(path := os.fspath(value), str) or not path:
        raise _BadValueError(f"must be the path of a file, or None, not {_shown(value)}")
    return path


# ---------------------------------------------------------------- the settings of one connection


def _key(default: object, read: Callable[[object], object], help_text: str, *, secret: bool = False) -> Any:
    """Declare a key: its default (as a project would write it), its reader and its meaning, in one place."""
    clean = read(default)
    return field(
        # A factory, since a dataclass takes a read-only mapping for a mutable default.
        default_factory=lambda: clean,
        metadata={"read": read, "default": default, "help": help_text},
        repr=not secret,
        # A mapping has no hash. Two connections that differ in their headers alone may share one.
        hash=not secret,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """The settings of one connection to Restate: an entry of ``RESTATE``, read and checked.

    Each field is the key of the same name in capitals, except ``alias``, the entry's own name. What a key means stands
    in the field's ``metadata["help"]``. A duration can be written as a timedelta or as a number of seconds.
    """

    alias: str = field(default=DEFAULT_ALIAS, metadata={"help": "The connection's name in RESTATE. Not a key."})

    ingress_url: str = _key(
        "http://localhost:8080",
        _url,
        "Where requests for handlers go: http or https, a host, perhaps a path prefix.",
    )
    admin_url: str | None = _key(
        "http://localhost:9070",
        _url_or_none,
        "Where the Admin API is. None: there is none. Polling then uses the ingress alone, and cancel, kill and their "
        "like say that they need it.",
    )
    token: str | None = _key(
        None,
        _token,
        "A bearer token for the ingress and the Admin API (Restate Cloud, or a proxy of your own). A self-hosted "
        "server checks no token, and stores the header with each invocation.",
        secret=True,
    )
    headers: Mapping[str, str] = _key(
        {},
        _headers,
        "Headers for every request of this connection, what a proxy asks for say. They are never stored in a row, but "
        "a server before 1.8 stores those that reach it with each invocation.",
        secret=True,
    )
    timeout: float = _key(
        10.0,
        _seconds(),
        "Seconds for a whole request, by our own clock: a server that sends a byte now and then does not prolong it.",
    )
    call_timeout: float = _key(
        60.0,
        _seconds(),
        "Seconds that call() waits for the output where it is given no timeout.",
    )
    connect_timeout: float = _key(
        3.0,
        _seconds(),
        "Seconds to connect, within each request's deadline.",
    )
    on_commit_timeout: float = _key(
        5.0,
        _seconds(),
        "Seconds that a view may wait for a send after its commit; the relay goes on from there. After three waits in "
        "vain the connection is left to the relay for half a minute.",
    )
    path_style: Literal["auto", "restate", "legacy"] = _key(
        "auto",
        _choice("auto", "restate", "legacy"),
        '"restate": /restate/send/... (Restate 1.7 and later). "legacy": /{service}/{handler}/send (1.6 and before). '
        '"auto": by the version that the Admin API tells; "restate" where there is none.',
    )
    delivery: Literal["on_commit", "celery", "relay"] = _key(
        "on_commit",
        _choice("on_commit", "celery", "relay"),
        'Who sends a row first. "on_commit": the process that recorded it, after its commit. "celery": a task for each '
        'row. "relay": only the periodic job. The job delivers what the others leave, whatever stands here.',
    )
    databases: tuple[str, ...] = _key(
        ["default"],
        _database_aliases,
        "The aliases of DATABASES whose rows the jobs sweep. send() refuses others.",
    )
    idempotency_retention: timedelta = _key(
        timedelta(hours=24),
        _duration(),
        "How long Restate remembers an idempotency key after the invocation has ended, where the Admin API can't be "
        "asked. A send of unknown outcome is repeated within this time only. 0: never.",
    )
    ui_url: str | None = _key(
        None,
        _url_or_none,
        "Where an operator's browser finds Restate's own UI. None: ADMIN_URL + /ui.",
    )
    site_url: str | None = _key(
        None,
        _url_or_none,
        "Where people reach this site (https://shop.example.com): mails to ADMINS link to the admin there. None: as "
        "the sites framework says, where that is installed; else such mails have no links.",
    )
    report_url: str | None = _key(
        None,
        _url_or_none,
        "Where handlers reach this app's URLs (https://shop.example.com/restate): each invocation then carries an "
        "address at which its handler may report its end. None: rows learn of it by polling alone.",
    )
    lease: timedelta = _key(
        timedelta(seconds=60),
        _duration(at_least=1, at_most=3 * _DAY),
        "How long a worker has a row for itself, and how long a row waits after a crash. At least three times TIMEOUT.",
    )
    poll_min_interval: timedelta = _key(
        timedelta(seconds=1),
        _duration(at_least=0.1, at_most=_DAY),
        "How soon a young row is asked about again.",
    )
    poll_max_interval: timedelta = _key(
        timedelta(minutes=5),
        _duration(at_least=0.1, at_most=366 * _DAY),
        "How late an old row is asked about again. Shorter than the retention, or a result is gone before it is read.",
    )
    registration_grace: timedelta = _key(
        timedelta(minutes=5),
        _duration(at_most=366 * _DAY),
        "For how long a service or handler that Restate does not know may be one that is about to be registered. The "
        "row is rejected after that.",
    )
    retention: timedelta | None = _key(
        timedelta(days=30),
        _duration_or_none,
        "How long finished rows are kept before prune takes them. None: for ever.",
    )
    # At least: a process notes a job that runs all the time every five seconds.
    alert_after: timedelta = _key(
        timedelta(minutes=5),
        _duration(at_least=10, at_most=366 * _DAY),
        "How long a row may wait to be sent, and the jobs may not have run, before the health view, restate doctor and "
        "the admin call it a fault.",
    )
    max_payload_size: int = _key(
        10 * 1024**2,
        _whole_number(at_least=1, at_most=_GIB),
        "The most bytes that an encoded payload may have. Restate's own limit is 32 MiB unless it is configured.",
    )
    validate_payloads: bool = _key(
        False,  # noqa: FBT003 - a default like any other
        _yes_or_no,
        "Refuse a payload that does not fit its handler's JSON schema, before a row is written, by PayloadInvalid. "
        "Needs the extra restate-django[validate], and ADMIN_URL. What is not known is not refused.",
    )
    max_output_size: int = _key(
        1024**2,
        _whole_number(at_least=1, at_most=_GIB),
        "The most bytes of an output that are stored in its row.",
    )
    max_delay: timedelta = _key(
        MAX_DELAY,
        # The client's own limit: a row that it refuses at each attempt would never be sent.
        _duration(at_most=MAX_DELAY.total_seconds()),
        "The longest delay of a send, 3650 days at most: Restate records far longer ones with an empty answer.",
    )
    concurrency: int = _key(
        8,
        _whole_number(at_least=1, at_most=256),
        "How many requests a job has under way at once, each in a thread of its own.",
    )
    bulk_concurrency: int = _key(
        64,
        _whole_number(at_least=1, at_most=256),
        "The same where libcurl sends them all from one thread (the extra bulk). The server takes more when more come.",
    )
    trust_env: bool = _key(
        False,  # noqa: FBT003 - a default like any other
        _yes_or_no,
        "Obey HTTP_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE, read once by each process. ~/.netrc never counts.",
    )
    ca_bundle: str | None = _key(
        None,
        _file_or_none,
        "A file with the certificate authorities to trust, for https. None: those of the certifi package.",
    )


_KEYS: Final = {item.name.upper(): item for item in fields(ConnectionSettings) if "read" in item.metadata}


def _read_connection(alias: str, entry: object) -> ConnectionSettings:
    """Read one entry of ``RESTATE``."""
    where = f'RESTATE["{alias}"]'
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(f"{where}: must be a dict, not {type(entry).__name__}.")
    values: dict[str, Any] = {"alias": alias}
    for key, value in entry.items():
        known = _KEYS.get(key) if isinstance(key, str) else None
        if known is None:
            close = difflib.get_close_matches(key.upper(), _KEYS, n=1) if isinstance(key, str) else []
            hint = f" Did you mean {close[0]}?" if close else f" The keys are {', '.join(_KEYS)}."
            named = f'["{key}"]' if isinstance(key, str) else f"[{key!r}]"
            raise ImproperlyConfigured(f"{where}{named}: unknown key.{hint}")
        try:
            values[known.name] = known.metadata["read"](value)
        except _BadValueError as error:
            # "from None": a value that is a secret would stand in the cause's traceback.
            raise ImproperlyConfigured(f'{where}["{key}"]: {error}.') from None
    if values.get("ui_url") is None:
        admin_url = values.get("admin_url", _KEYS["ADMIN_URL"].metadata["default"])
        values["ui_url"] = f"{admin_url}/ui" if admin_url else None
    settings = ConnectionSettings(**values)
    least = settings.timeout + min(settings.timeout / 2, _LEASE_BEYOND_TIMEOUT)
    if settings.lease < timedelta(seconds=least):
        # Refused, and not merely found by a system check: those don't run in every worker, and no row would be sent.
        raise ImproperlyConfigured(
            f'{where}["LEASE"]: must be at least {_in_words(least)} where TIMEOUT is {settings.timeout:g}, '
            f"not {_in_words(settings.lease.total_seconds())}."
        )
    if settings.validate_payloads and find_spec("jsonschema") is None:
        raise ImproperlyConfigured(
            f'{where}["VALIDATE_PAYLOADS"]: needs jsonschema: pip install "restate-django[validate]".'
        )
    if settings.poll_max_interval < settings.poll_min_interval:
        raise ImproperlyConfigured(f'{where}["POLL_MAX_INTERVAL"]: must not be shorter than POLL_MIN_INTERVAL.')
    if settings.token and any(name.lower() == "authorization" for name in settings.headers):
        raise ImproperlyConfigured(f'{where}["HEADERS"]: TOKEN already sets Authorization. Use one of the two.')
    return settings


def _check_alias(alias: object, others: Mapping[str, str]) -> str:
    """Return a connection's name if rows can carry it. ``others`` maps the folded names before it to the names."""
    if (
        not isinstance(alias, str)
        or not 1 <= len(alias) <= _LONGEST_ALIAS
        or not alias.isprintable()
        or alias != alias.strip()
    ):
        raise ImproperlyConfigured(
            f"RESTATE[{_shown(alias)}]: a connection's name must be a string of 1 to {_LONGEST_ALIAS} printable "
            "characters, without blanks at its ends."
        )
    other = others.get(alias.casefold())
    if other is not None:
        # MySQL and MariaDB compare text without regard to case: the rows of one would be taken for the other's.
        raise ImproperlyConfigured(f'RESTATE["{alias}"]: differs from "{other}" in case alone.')
    return alias


@cache
def all_settings() -> Mapping[str, ConnectionSettings]:
    """Return the settings of every connection by alias, in the order of ``RESTATE``.

    Without ``RESTATE`` (or with an empty one) there is one connection, ``"default"``: a local server on its default
    ports.

    Raises:
        ImproperlyConfigured: A key is unknown or a value can't work. The message names both, and never a secret.
    """
    setting = getattr(django_settings, "RESTATE", {})
    if not isinstance(setting, Mapping):
        raise ImproperlyConfigured(f"RESTATE: must be a dict of connections, not {type(setting).__name__}.")
    if not setting:
        setting = {DEFAULT_ALIAS: {}}
    if DEFAULT_ALIAS not in setting:
        raise ImproperlyConfigured(
            f'RESTATE: you must define a "{DEFAULT_ALIAS}" connection, as in DATABASES. An empty dict is enough: '
            "it means a local server on its default ports."
        )
    result: dict[str, ConnectionSettings] = {}
    folded: dict[str, str] = {}
    for name, entry in setting.items():
        alias = _check_alias(name, folded)
        folded[alias.casefold()] = alias
        result[alias] = _read_connection(alias, entry)
    return MappingProxyType(result)


def swept_databases() -> list[str]:
    """Return the database aliases whose rows the jobs sweep: those that any connection names, each once."""
    return list(dict.fromkeys(alias for settings in all_settings().values() for alias in settings.databases))


def aliases() -> tuple[str, ...]:
    """Return the names of the connections, in the order of ``RESTATE``."""
    return tuple(all_settings())


def get_settings(alias: str = DEFAULT_ALIAS) -> ConnectionSettings:
    """Return the settings of one connection.

    Args:
        alias: The connection's name in ``RESTATE``.

    Raises:
        ConnectionDoesNotExist: ``RESTATE`` has no such connection.
        ImproperlyConfigured: ``RESTATE`` can't be read.
    """
    every = all_settings()
    found = every.get(alias) if isinstance(alias, str) else None
    if found is None:
        known = ", ".join(repr(name) for name in every)
        raise ConnectionDoesNotExist(f"RESTATE has no connection {alias!r}. It has: {known}.")
    return found


def invocation_ui_url(settings: ConnectionSettings, invocation_id: str) -> str | None:
    """Return the address of an invocation's page in Restate's own UI, None where there is no UI or no id.

    The page is ``invocations/<id>`` under the UI, in 1.6.2 and 1.7.12 (their own table of routes).

    Args:
        settings: The settings of the invocation's connection.
        invocation_id: Restate's id, ``inv_...``; empty while the server has not given one.
    """
    if not settings.ui_url or not invocation_id:
        return None
    return f"{settings.ui_url}/invocations/{quote(invocation_id, safe='')}"


def _forget(*, setting: str, **_: object) -> None:
    """Read ``RESTATE`` anew after a test has changed it."""
    if setting == "RESTATE":
        all_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="restate_django.conf")
