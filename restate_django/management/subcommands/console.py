"""How the subcommands of ``manage.py restate`` speak: sentences for a person, JSON for a program, progress on stderr.

Imports Django alone. It promises that with ``--json`` nothing but JSON goes to stdout, one document on a line, and that
what a server or a payload put into a text can't move a terminal's cursor.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from django.core.management.base import OutputWrapper

_BAR = 30


class Console:
    """Where a subcommand's output goes.

    Args:
        stdout: The command's stdout.
        stderr: Its stderr.
        as_json: ``--json`` was given.
        verbosity: Django's: 0 leaves out the progress.
    """

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, *, as_json: bool, verbosity: int = 1) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.as_json = as_json
        self.verbosity = verbosity

    def show(self, document: Mapping[str, Any], text: str) -> None:
        """Print a document: as one line of JSON, or as this text for a person."""
        if self.as_json:
            self.stdout.write(json.dumps(document, cls=_Encoder))
        else:
            self.stdout.write(printable(text))

    def say(self, text: str) -> None:
        """Print a text for a person; with ``--json`` nothing."""
        if not self.as_json:
            self.stdout.write(printable(text))

    def note(self, text: str) -> None:
        """Print a text for a person to stderr, whatever stdout is for."""
        self.stderr.write(printable(text))

    def as_text(self, value: Any) -> str:
        """Return a value as a cell or an output of text: a string as it is, anything else as JSON, null as nothing."""
        if value is None:
            return ""
        return value if isinstance(value, str) else json.dumps(value, cls=_Encoder, ensure_ascii=False)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns, for a person."""
        lines = [[printable(cell) for cell in row] for row in [heads, *rows]]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.say("  ".join(cells).rstrip())

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a person before something that can't be taken back.

        Args:
            question: What is about to be done.
            yes: ``--yes`` was given: nobody is asked.

        Raises:
            CommandError: The answer is no, or there is nobody to ask.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Nobody can be asked here: say --yes to do it.")
        self.stderr.write(f"{printable(question)} [y/N] ", ending="")
        if input().strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was done.")

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show how far something is, on a line of the terminal that is written over. Elsewhere nothing is shown.

        Args:
            what: What is done, such as ``cancelled``.

        Yields:
            A function that takes how many are done, and of how many (None when unknown).
        """
        shown = self.verbosity > 0 and self.stderr.isatty()

        def update(done: int, total: int | None) -> None:
            if not shown:
                return
            if total:
                filled = _BAR * min(done, total) // total
                bar = f"[{'#' * filled}{' ' * (_BAR - filled)}] {done:,} of {total:,} {what}"
            else:
                bar = f"{done:,} {what}"
            self.stderr.write(f"\r\x1b[K{bar}", ending="")
            self.stderr.flush()

        try:
            yield update
        finally:
            if shown:
                self.stderr.write("\r\x1b[K", ending="")
                self.stderr.flush()


class _Encoder(DjangoJSONEncoder):
    """Django's, and bytes as text where they are text."""

    def default(self, o: Any) -> Any:
        if isinstance(o, bytes | bytearray | memoryview):
            return bytes(o).decode("utf-8", "backslashreplace")
        return super().default(o)


def printable(text: str) -> str:
    """Return a text whose lines are lines and whose control characters are written out."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )
