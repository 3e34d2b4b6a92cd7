"""``manage.py restate doctor``: what is wrong, and what to do about it. Imports ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from restate_django.doctor import Level, examine
from restate_django.management.subcommands.base import Subcommand, Told, add_json, checked_connection

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.doctor import Line
    from restate_django.management.subcommands.console import Console

_WORDS: Final = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "WARNING", Level.ERROR: "ERROR"}


class Doctor(Subcommand):
    """``manage.py restate doctor``."""

    name = "doctor"
    help = "Looks at settings, servers, databases, jobs and Celery, and says what is wrong and what to do about it."
    description = (
        "Looks at settings, servers, databases, jobs and Celery, and says what is wrong and what to do about it. It "
        "changes nothing, and reads a bounded part of each table. The exit code is 1 where something is wrong; with "
        "--fail-level warning, also where there is a warning."
    )
    examples = """
        manage.py restate doctor
        manage.py restate doctor --connection default --fail-level warning
        manage.py restate doctor --json | jq '.findings[] | select(.level == "error")'
    """
    # They are the first thing it tells.
    requires_system_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what is looked at, and what counts."""
        parser.add_argument(
            "--connection", metavar="ALIAS", help="Only this connection in RESTATE, and its databases (default: all)."
        )
        parser.add_argument(
            "--fail-level",
            choices=[Level.ERROR.value, Level.WARNING.value],
            default=Level.ERROR.value,
            help="From what on the exit code is 1 (default: error).",
        )
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Look, and tell."""
        alias = options["connection"]
        if alias is not None:
            checked_connection(options)
        found: list[Line] = []
        for line in examine(alias):
            found.append(line)
            console.say(_shown(line))
        errors = sum(line.level is Level.ERROR for line in found)
        warnings = sum(line.level is Level.WARNING for line in found)
        summary = f"{errors} wrong, {warnings} to be looked at, of {len(found)}."
        document = {
            "errors": errors,
            "warnings": warnings,
            "findings": [
                {"level": line.level, "about": line.about, "text": line.text, "remedy": line.remedy} for line in found
            ],
        }
        console.show(document, summary)
        if errors or (warnings and options["fail_level"] == Level.WARNING):
            raise Told(summary)


def _shown(line: Line) -> str:
    text = f"{_WORDS[line.level]:<9}{line.about}: {line.text}"
    return f"{text}\n{'':<9}-> {line.remedy}" if line.remedy else text
