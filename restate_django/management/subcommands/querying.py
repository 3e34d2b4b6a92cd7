"""``manage.py restate sql``: SQL over what the Restate server knows.

Imports the connections.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from restate_django.connections import connections
from restate_django.management.subcommands.base import Subcommand, add_connection, add_json, checked_connection

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.management.subcommands.console import Console


class Sql(Subcommand):
    """``manage.py restate sql QUERY``."""

    name = "sql"
    help = "Runs SQL over the server's tables: sys_invocation, sys_journal, sys_service, ..."
    examples = """
        manage.py restate sql "SELECT status, COUNT(*) AS number FROM sys_invocation GROUP BY status"
        manage.py restate sql - --json < query.sql
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the query."""
        parser.add_argument("query", metavar="QUERY", help="One statement; - takes it from stdin.")
        parser.add_argument("--timeout", type=float, metavar="SECONDS", help="How long it may take (default: TIMEOUT).")
        add_connection(parser)
        add_json(parser, "a JSON document per row")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Run it."""
        query = sys.stdin.read() if options["query"] == "-" else options["query"]
        admin = connections[checked_connection(options)].require_admin("sql")
        rows = admin.query(query, timeout=options["timeout"])
        if console.as_json:
            for row in rows:
                console.show(row, "")
            return
        # A column that is null is left out of its row: the first row need not have them all.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if columns:
            console.table(columns, [[console.as_text(row.get(name)) for name in columns] for row in rows])
        console.note(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}.")
