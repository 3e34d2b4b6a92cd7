"""The state of the virtual object or workflow that an invocation ran on, as Restate has it now.

State is what handlers keep, so it is shown to those who may see payloads, and masked as payloads are. Imports the
client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from restate_django.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from restate_django.client import AdminClient

#: Entries that are shown at most, and characters of each.
LIMIT: Final = 50
SHOWN: Final = 2000
#: Seconds that the query may take: somebody waits for the page.
TIMEOUT: Final = 3.0
_SQL: Final = (
    "SELECT key, substr(value_utf8, 1, {shown}) AS value, length(value_utf8) AS size FROM state"
    " WHERE service_name = {service} AND service_key = {key} ORDER BY key LIMIT {limit}"
)


@dataclass(frozen=True)
class Entry:
    """A key of the state, and its value as text."""

    key: str
    value: str
    is_cut: bool = False


def read(admin: AdminClient, service: str, key: str, mask: Callable[[Any], Any]) -> list[Entry]:
    """Read an object's state.

    Args:
        admin: The Admin API of the row's connection.
        service: The object's name.
        key: Its key.
        mask: Replaces the secrets in a JSON value.

    Raises:
        RequestError: Restate can't be read now.
    """
    sql = _SQL.format(shown=SHOWN, limit=LIMIT, service=_literal(service), key=_literal(key))
    return [_entry(row, mask) for row in admin.query(sql, timeout=TIMEOUT)]


def _entry(row: dict[str, Any], mask: Callable[[Any], Any]) -> Entry:
    name, text = str(row.get("key", "")), row.get("value")
    is_cut = int(row.get("size") or 0) > SHOWN
    if not isinstance(text, str):
        return Entry(storable_text(name), "", is_cut)
    try:
        # The key is a name like those inside the value: it may be a secret's too.
        value = mask({name: json.loads(text)})[name]
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError, KeyError, TypeError):
        # Half a document, or none: what can't be read can't be masked.
        masked = mask({name: text})
        text = str(masked.get(name, "")) if isinstance(masked, dict) else ""
        text = "" if is_cut else text
    return Entry(storable_text(name), storable_text(text), is_cut)


def _literal(text: str) -> str:
    """Return a text as a literal of Restate's SQL, in which a backslash is a backslash (measured on 1.7.12)."""
    return "'" + text.replace("'", "''") + "'"
