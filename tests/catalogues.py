"""The catalogues of translations: what the source asks for, and what each catalogue has.

``python -m tests.catalogues`` brings the catalogues up to date with the source and compiles them, by Django's own
commands (they need GNU gettext), and names what is left to be translated. Reading needs no gettext: the tests look at
all of it on any machine. ``python -m tests.catalogues fr pt_BR`` begins new ones.
"""

from __future__ import annotations

import ast
import gettext
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "restate_django"
LOCALE = PACKAGE / "locale"
UPDATE = "python -m tests.catalogues"

#: Where the text stands among the arguments of each function of ``django.utils.translation``: context, text, plural.
_PLACES = {
    "gettext": (None, 0, None),
    "ngettext": (None, 0, 1),
    "pgettext": (0, 1, None),
    "npgettext": (0, 1, 2),
}
_TEMPLATE_CALL = re.compile(r"""\b(n?p?gettext|_)\(((?:\s*u?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*,?)+)""")

#: A message is known by its context (empty mostly) and its text.
Message = tuple[str, str]


@dataclass
class Entry:
    """What a catalogue has for a message.

    Attributes:
        plural: The message for several; empty where there is none.
        forms: The translations, one or as many as the language has forms of the plural.
        is_fuzzy: Somebody has to look at it again: Django ignores it.
    """

    plural: str = ""
    forms: list[str] = field(default_factory=list)
    is_fuzzy: bool = False


def languages() -> list[str]:
    """The catalogues that there are, by the names of their folders."""
    return sorted(path.parent.parent.name for path in LOCALE.glob("*/LC_MESSAGES/django.po"))


def path_of(language: str, suffix: str) -> Path:
    """Where a catalogue is."""
    return LOCALE / language / "LC_MESSAGES" / f"django.{suffix}"


# ---------------------------------------------------------------- what the source asks for


def wanted() -> dict[Message, str]:
    """Every message of the source, and its plural."""
    found: dict[Message, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for message, plural in in_python(path.read_text(encoding="utf-8")):
            found[message] = plural or found.get(message, "")
    for path in sorted(PACKAGE.rglob("*.html")):
        for message, plural in in_template(path.read_text(encoding="utf-8")):
            found[message] = plural or found.get(message, "")
    return found


def in_python(source: str) -> list[tuple[Message, str]]:
    """The messages of a Python module, in the order of its calls."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation":
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            function = re.sub(r"_(lazy|noop)$", "", names[node.func.id])
            if function in _PLACES:
                texts = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
                found += _message(function, texts)
    return found


def in_template(source: str) -> list[tuple[Message, str]]:
    """The messages of a template, as Django's own extraction sees them."""
    found = []
    for match in _TEMPLATE_CALL.finditer(templatize(source)):
        function = "gettext" if match[1] == "_" else match[1]
        found += _message(function, list(ast.literal_eval(f"({match[2].rstrip(', ')},)")))
    return found


def _message(function: str, texts: list[object]) -> list[tuple[Message, str]]:
    """The message of a call; none where its text is no literal (a sentence that is marked elsewhere)."""
    context, text, plural = (texts[place] if place is not None else "" for place in _PLACES[function])
    if not isinstance(text, str) or not text:
        return []
    return [((str(context), text), str(plural))]


# ---------------------------------------------------------------- what a catalogue has


def written(language: str) -> dict[Message, Entry]:
    """The entries of a ``.po`` file, its header among them as the empty message."""
    found: dict[Message, Entry] = {}
    for block in path_of(language, "po").read_text(encoding="utf-8").split("\n\n"):
        parts: dict[str, str] = {}
        part = ""
        entry = Entry()
        for line in block.splitlines():
            if line.startswith("#~"):
                raise AssertionError(f"{language}: a message that is gone is still in the catalogue: {line}")
            if line.startswith("#,"):
                entry.is_fuzzy = entry.is_fuzzy or "fuzzy" in line
            elif match := re.fullmatch(r'(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?) (".*")', line):
                part = match[1]
                parts[part] = ast.literal_eval(match[2])
            elif line.startswith('"'):
                parts[part] += ast.literal_eval(line)
        if "msgid" in parts:
            entry.plural = parts.get("msgid_plural", "")
            entry.forms = [text for name, text in parts.items() if name.startswith("msgstr")]
            found[parts.get("msgctxt", ""), parts["msgid"]] = entry
    return found


def compiled(path: Path) -> dict[Message, list[str]]:
    """The entries of a ``.mo`` file, as ``gettext`` reads them: each text's forms."""
    with path.open("rb") as file:
        raw: dict[str | tuple[str, int], str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined] # all entries: nothing public has them
    found: dict[Message, list[str]] = {}
    for key, text in sorted(raw.items(), key=lambda item: item[0][1] if isinstance(item[0], tuple) else 0):
        context, _end, message = (key[0] if isinstance(key, tuple) else key).rpartition("\x04")
        found.setdefault((context, message), []).append(text)
    return found


# ---------------------------------------------------------------- bringing them up to date


def update(*new: str) -> None:
    """Extract, merge and compile; then name what is to be translated.

    Args:
        new: Languages to begin a catalogue for, as Django names their folders.
    """
    locales = [f"--locale={language}" for language in {*languages(), *new}]
    _django("makemessages", "--no-location", "--no-obsolete", *locales)
    left = {
        language: [message for message, entry in written(language).items() if entry.is_fuzzy or not all(entry.forms)]
        for language in languages()
    }
    _django("compilemessages")
    for language, messages in left.items():
        print(f"{path_of(language, 'po').relative_to(ROOT)}: {len(messages)} to be translated")
        for context, text in messages:
            print(f"    {context and f'({context}) '}{text}")


def _django(*command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-m", "django", *command], cwd=PACKAGE, env=environment, check=True)


if __name__ == "__main__":
    update(*sys.argv[1:])
