"""The lines that would send the same again, in a shell and in Python. Imports the client's paths and the connections.

They are for reading and copying; nothing here sends. What is masked on the page is masked in them as well.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from restate_django import conf, measuring
from restate_django.admin.masking import masked_headers
from restate_django.client.paths import LIMIT_KEY_HEADER, paths_for
from restate_django.client.targets import Target
from restate_django.connections import connections
from restate_django.exceptions import RestateError

if TYPE_CHECKING:
    from restate_django.models import Invocation

#: Bytes of a payload that stand in a line; a longer one is read from the downloaded file.
INLINE: Final = 2048


def curl_line(row: Invocation, payload: bytes | None, file_name: str) -> str:
    """Return the request that every attempt makes, as a shell would make it.

    With the row's own key Restate answers with the invocation that it has. The connection's token and headers are left
    to the environment: they are never shown.

    Args:
        row: The invocation.
        payload: Its payload as it may be shown; None where it is too long to stand in a line.
        file_name: The file that it was downloaded to then.

    Returns:
        The line; empty where the connection left the settings, or can't carry the target.
    """
    try:
        connection = connections[row.connection]
        settings = connection.settings
    except ImproperlyConfigured:
        return ""
    target = Target(row.service, row.handler, row.key or None, row.scope or None, row.limit_key or None)
    try:
        path = paths_for(connection.known_path_style).submit("send", target, _delay_of(row))
    except RestateError:
        return ""
    words = [f"curl -X POST {shlex.quote(settings.ingress_url + path)}"]
    words += [
        f"-H {shlex.quote(f'{name}: {value}')}"
        for name, value in masked_headers(measuring.without_trace(row.headers or {}))
    ]
    if row.content_type:
        words.append(f"-H {shlex.quote(f'content-type: {row.content_type}')}")
    if row.limit_key:
        words.append(f"-H {shlex.quote(f'{LIMIT_KEY_HEADER}: {row.limit_key}')}")
    # A workflow's main handler takes no key but its own. What is not known is not asked for: the page waits for nobody.
    services = connection.services
    if not (row.key and services.is_workflow_main(row.service, row.handler, network=False)):
        words.append(f"-H {shlex.quote(f'idempotency-key: {row.idempotency_key}')}")
    words += [f'-H "{name}: ${_variable(name)}"' for name in settings.headers]
    if settings.token:
        words.append('-H "authorization: Bearer $RESTATE_TOKEN"')
    if row.content_type:
        words.append(f"--data-binary {shlex.quote(_as_argument(payload, file_name))}")
    return " \\\n  ".join(words)


def python_line(row: Invocation, payload: bytes | None, file_name: str) -> str:
    """Return the call of ``send`` that made the row. A key that the app made up is left out: it would make another.

    Args:
        row: The invocation.
        payload: Its payload as it may be shown; None where it is too long to stand in a line.
        file_name: The file that it was downloaded to then.
    """
    arguments = [repr(row.service), repr(row.handler)]
    options: dict[str, Any] = {
        "key": row.key or None,
        "idempotency_key": row.idempotency_key if row.idempotency_key != row.pk.hex else None,
        "headers": dict(masked_headers(measuring.without_trace(row.headers or {}))) or None,
        "scope": row.scope or None,
        "limit_key": row.limit_key or None,
        "eta": row.run_at if _delay_of(row) is not None else None,
        "connection": row.connection if row.connection != conf.DEFAULT_ALIAS else None,
    }
    if row.content_type:
        value, is_json = _as_value(payload, row.content_type)
        if payload is None:
            arguments.append(f"Path({file_name!r}).read_bytes()")
        else:
            arguments.append(repr(value))
        if not is_json:
            options["content_type"] = row.content_type
    arguments += [f"{name}={value!r}" for name, value in options.items() if value is not None]
    return f"send({', '.join(arguments)})"


def _delay_of(row: Invocation) -> dt.timedelta | None:
    """Return what is left of the row's delay."""
    left = None if row.run_at is None else row.run_at - timezone.now()
    return left if left is not None and left > dt.timedelta(0) else None


def _variable(header: str) -> str:
    """Name the environment variable for a header of the connection, whose value is never shown."""
    return "RESTATE_" + re.sub(r"[^A-Z0-9]", "_", header.upper())


def _as_argument(payload: bytes | None, file_name: str) -> str:
    if payload is None:
        return f"@{file_name}"
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f"@{file_name}"
    # curl takes what begins with @ for a file's name, and a shell can't pass NUL.
    return f"@{file_name}" if text.startswith("@") or "\x00" in text else text


def _as_value(payload: bytes | None, content_type: str) -> tuple[Any, bool]:
    if payload is None or "json" not in content_type.lower():
        return payload, False
    try:
        return json.loads(payload), True
    except (ValueError, RecursionError):
        return payload, False
