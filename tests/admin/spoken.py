"""What a page says to a person, and which part of it no translator has ever seen."""

from __future__ import annotations

import re
from contextlib import contextmanager
from html.parser import HTMLParser

from django.utils import translation

_SILENT = {"script", "style"}
#: What a machine says in these is data: code to copy, a payload, a stack trace.
_DATA = {"code", "pre", "textarea"}
_SPOKEN = {"title", "aria-label", "placeholder", "alt", "label", "summary", "data-filter-title"}
_VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}
_MARKED = re.compile(r"⟦[^⟦⟧]*⟧")
_WORD = re.compile(r"[^\W\d_]{2,}")
#: Addresses and Restate's ids are the same in every language.
_NEUTRAL = re.compile(r"\bhttps?://\S+|\b(?:sign|inv|dp|sub)_[\w-]+")


class _Spoken(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.attributes: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in _VOID:
            self._open.append(tag)
        values = dict(attrs)
        self.attributes += [value for name, value in attrs if name in _SPOKEN and value]
        if tag == "input" and values.get("type") in {"submit", "button"}:
            self.attributes.append(values.get("value") or "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip() and not (_SILENT | _DATA).intersection(self._open):
            self.texts.append(" ".join(data.split()))


def _read(html: str) -> _Spoken:
    parser = _Spoken()
    parser.feed(html)
    parser.close()
    return parser


def spoken(html: str) -> list[str]:
    """The texts of a page that a person reads or hears, node by node, attribute by attribute."""
    parser = _read(html)
    return [text for text in parser.texts + parser.attributes if text.strip()]


@contextmanager
def marked_translations(monkeypatch):
    """A language in which every message stands in brackets, and what never was a message does not."""

    def mark(text):
        return f"⟦{text}⟧" if text else text

    with monkeypatch.context() as patch, translation.override("en"):
        real = translation._trans
        patch.setattr(real, "gettext", mark)
        patch.setattr(real, "ngettext", lambda one, many, count: mark(one if count == 1 else many))
        patch.setattr(real, "pgettext", lambda _context, text: mark(text))
        patch.setattr(real, "npgettext", lambda _context, one, many, count: mark(one if count == 1 else many))
        yield


def unmarked(html: str, words: set[str], values: set[str]) -> list[str]:
    """The texts of a page with words that stand in no brackets and are no data.

    Args:
        html: The page, rendered under ``marked_translations``.
        words: Words that are names or values of the test's own rows.
        values: Whole texts that are data.
    """
    parser = _read(html)
    found = []
    # A message can have elements in it, so that it goes over several nodes.
    for text in ["\n".join(parser.texts), *parser.attributes]:
        rest = text
        while (inner := _MARKED.sub(" ", rest)) != rest:
            rest = inner
        lines = (line.strip() for line in _NEUTRAL.sub(" ", rest).splitlines())
        found += [line for line in lines if line not in values and set(_WORD.findall(line)) - words]
    return found
