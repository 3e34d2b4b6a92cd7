"""Texts that somebody else wrote, as docstrings of the generated module."""

from __future__ import annotations

import inspect
import textwrap
from typing import Final

_WIDTH: Final = 100


def docstring(text: str, indent: str) -> str:
    """Return a text as a docstring. Whatever it holds, the docstring does not end before its end.

    Args:
        text: Somebody else's text.
        indent: What stands before each line.
    """
    clean = "".join(each for each in inspect.cleandoc(text) if each.isprintable() or each == "\n").strip()
    quoted = _quoted(clean)
    paragraphs = quoted.split("\n")
    if len(paragraphs) == 1 and len(quoted) <= _WIDTH:
        return f'{indent}"""{quoted}"""'
    lines: list[str] = []
    for paragraph in paragraphs:
        # Whatever is indented (an argument's meaning, say) stays so on its next line.
        further = paragraph[: len(paragraph) - len(paragraph.lstrip())]
        wrapped = textwrap.wrap(
            paragraph, _WIDTH, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
        )
        lines += wrapped if len(paragraph) > _WIDTH else [paragraph]
    inner = "\n".join(f"{indent}{line}".rstrip() for line in lines).lstrip()
    return f'{indent}"""{inner}\n{indent}"""'


def _quoted(text: str) -> str:
    quoted = text.replace("\\", "\\\\")
    # Left as they are where they can't end the docstring, for people to read.
    return quoted.replace('"', '\\"') if '"""' in text or text.endswith('"') else quoted
