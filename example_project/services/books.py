"""The shop's books: what was really done, as JSON lines in one small file per order, question or mailbox.

They stand for the outside world (a bank, a warehouse, a mail server) that a handler has effects on, so that the site
can show what ran and what was undone. Standard library only: the site reads them as well.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".demo" / "books"


def folder() -> Path:
    """Return the folder that the books are in: ``SHOP_BOOKS`` in the environment, else one under ``.demo``."""
    return Path(os.environ.get("SHOP_BOOKS") or DEFAULT_FOLDER)


def note(book: str, entry: str, **details: Any) -> dict[str, Any]:
    """Write down that something was done, once: a step that is tried again after a crash finds its own line.

    Args:
        book: The book's name.
        entry: What was done; the same words are not written twice into one book.
        details: What else there is to know; JSON values.

    Returns:
        The line as it stands in the book.
    """
    for line in read(book):
        if line["entry"] == entry:
            return line
    line = {"entry": entry, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **details}
    path = _path(book)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line


def read(book: str) -> list[dict[str, Any]]:
    """Return the lines of a book, oldest first. A line that is just being written is left out."""
    try:
        text = _path(book).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _path(book: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", book):
        raise ValueError(f"{book!r} can't be the name of a book.")
    return folder() / f"{book}.jsonl"
