"""``manage.py restate show`` and ``list``: what the rows say. Restate is asked by ``show --refresh`` alone.

Imports the polling and the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from restate_django import polling
from restate_django.management.subcommands import documents, selecting
from restate_django.management.subcommands.base import (
    Subcommand,
    add_database,
    add_json,
    add_rows,
    checked_database,
    find_row,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.management.subcommands.console import Console

_LIMIT: Final = 20


class Show(Subcommand):
    """``manage.py restate show ID``."""

    name = "show"
    help = "Shows one invocation: what was asked, and what became of it."
    examples = """
        manage.py restate show 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate show inv_1fY5s0ZQdL1z3nXQh2vTq6Jb0m7o9pWc --refresh --json
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which one, and whether Restate is asked first."""
        add_rows(parser)
        parser.add_argument("--refresh", action="store_true", help="Ask Restate about it first.")
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Show it."""
        row = find_row(options["id"], checked_database(options))
        if options["refresh"]:
            polling.refresh(row)
        console.show(documents.of_row(row, bodies=True), documents.page_of(row))


class List(Subcommand):
    """``manage.py restate list``."""

    name = "list"
    help = "Lists invocations, the newest first."
    examples = """
        manage.py restate list --status paused --status backing-off
        manage.py restate list --service Mailer --since 2h --limit 100
        manage.py restate list --status failed --json | jq -r .failure_message
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the filters."""
        selecting.add_filters(parser)
        parser.add_argument("--limit", type=int, default=_LIMIT, help=f"Rows at most (default: {_LIMIT}).")
        add_database(parser)
        add_json(parser, "a JSON document per line")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """List them."""
        if options["limit"] < 1:
            raise CommandError("--limit must be 1 at least.")
        selecting.refuse_unindexed(options)
        using = checked_database(options)
        rows = selecting.newest(options, using, options["limit"])
        if console.as_json:
            for row in rows:
                console.show(documents.of_row(row), "")
        elif rows:
            console.table(("ID", "RECORDED AT", "TARGET", "STATUS"), [documents.line_of(row) for row in rows])
        else:
            console.say("No invocation is like that.")
