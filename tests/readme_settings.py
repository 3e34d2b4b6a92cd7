"""The README's table of settings, made from ``conf.py``: ``python -m tests.readme_settings`` writes it.

A key's default and meaning have one home, the field of ``ConnectionSettings``. A test holds the table to it.
"""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from restate_django.conf import ConnectionSettings

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by python -m tests.readme_settings -->", "<!-- end of settings -->"
_CODE = re.compile(
    r"\"\w+\"|/restate/send/\.\.\.|/\{service\}/\{handler\}/send|~/\.netrc|/ui\b|[A-Za-z]\w*\(\)|\b[A-Z]+_[A-Z_]+\b"
)


def table() -> str:
    """Return the table, a line per key in the order of ``conf.py``."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for item in fields(ConnectionSettings):
        if "default" in item.metadata:
            meaning = _CODE.sub(lambda found: f"`{found[0]}`", item.metadata["help"])
            lines.append(f"| `{item.name.upper()}` | `{_written(item.metadata['default'])}` | {meaning} |")
    return "\n".join(lines)


def _written(default: Any) -> str:
    """Return a default as a project would write it."""
    if isinstance(default, timedelta):
        for unit, seconds in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
            if default.total_seconds() % seconds == 0:
                return f"timedelta({unit}={default.total_seconds() / seconds:g})"
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, list):
        return "[" + ", ".join(_written(item) for item in default) + "]"
    if isinstance(default, int) and not isinstance(default, bool) and default % 1024**2 == 0:
        mebibytes = default // 1024**2
        return "1024**2" if mebibytes == 1 else f"{mebibytes} * 1024**2"
    return repr(default)


def replaced(text: str) -> str:
    """Return the README's text with the table as it should be.

    Raises:
        ValueError: The marks between which the table stands are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The README has no table of settings between {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
