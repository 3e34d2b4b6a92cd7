"""How a text that somebody else wrote stands in a message of ours: on one line, short, and safe to print or to log.

It imports nothing of the project. Whatever a server, a proxy or a caller put into it, no message forges a second line
of a log, moves a terminal's cursor or fills a screen.
"""

from __future__ import annotations

from typing import Any

_LONGEST_VALUE = 80
_LONGEST_LINE = 300


def shown(value: Any) -> str:
    """Return a caller's value as a message shows it: as Python writes it, in ASCII, and cut where it is long."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def one_line(text: str, longest: int = _LONGEST_LINE) -> str:
    r"""Return words of a server as one line: cut where they are long, and what does not print as its escape.

    Args:
        text: The words, in any language: letters stay letters, a line's end becomes ``\n``.
        longest: The most characters of them that are taken.
    """
    if len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
