"""What a database can keep and give back unchanged: the one function for text, and the one for JSON.

Payloads and outputs hold what their authors like (NUL, lone surrogates, NaN, numbers of any size, deep nesting), and
each database refuses or changes some of it: PostgreSQL refuses NUL and lone surrogates and turns floats from 1e16 into
integers, MariaDB refuses nesting of 32 and more, SQLite refuses NaN. What is not storable as JSON is kept as the bytes
that it came as. Imports nothing of the package.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

#: Nesting that every supported database takes (MariaDB's JSON functions stop at 32).
MAX_DEPTH: Final = 30
#: A JSON column is for reading and searching; what is larger is kept as bytes alone.
MAX_JSON_BYTES: Final = 256 * 1024
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_EXACT_INT: Final = 2**63 - 1
_MAX_EXACT_FLOAT: Final = 1e16


def storable_text(text: str, *, limit: int | None = None) -> str:
    """Return a text without what a database refuses: NUL is dropped, lone surrogates become U+FFFD.

    Args:
        text: Any text, from anywhere.
        limit: Characters to keep at most.
    """
    clean = text.replace("\x00", "")
    if not clean.isascii():
        clean = _SURROGATE.sub("\ufffd", clean)
    return clean if limit is None else clean[:limit]


def is_storable_json(value: Any, *, depth: int = MAX_DEPTH) -> bool:
    """Tell whether every supported database gives this JSON value back as it was (but for the order of keys).

    Args:
        value: What ``json.loads`` returned.
        depth: Levels of nesting that are still allowed.
    """
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _is_storable_str(value)
    if isinstance(value, int):
        return -_MAX_EXACT_INT <= value <= _MAX_EXACT_INT
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) < _MAX_EXACT_FLOAT
    if depth <= 0:
        return False
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and _is_storable_str(key) and is_storable_json(item, depth=depth - 1)
            for key, item in value.items()
        )
    if isinstance(value, list):
        return all(is_storable_json(item, depth=depth - 1) for item in value)
    return False


def json_to_store(body: bytes) -> tuple[bool, Any]:
    """Read a body as JSON that a database can keep.

    Args:
        body: Bytes that claim to be JSON.

    Returns:
        ``(True, value)`` when it is JSON and storable, else ``(False, None)``: keep the bytes.
    """
    if len(body) > MAX_JSON_BYTES:
        return False, None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False, None
    return (True, value) if is_storable_json(value) else (False, None)


def _is_storable_str(text: str) -> bool:
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
