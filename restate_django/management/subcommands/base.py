"""What every subcommand of ``manage.py restate`` is made of: its name, its help, its options and its exit code.

Imports the settings and the records. How output looks is the console's, next door.
"""

from __future__ import annotations

import argparse
import textwrap
import uuid
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS
from django.db import connections as databases

from restate_django.client.targets import INVOCATION_ID
from restate_django.conf import DEFAULT_ALIAS, aliases, swept_databases
from restate_django.models import Invocation

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.management.subcommands.console import Console

#: Exit codes. 1 is Django's for what went wrong, 2 is argparse's for a wrong command line.
FAILED: Final = 3  # the invocation ended in a failure
NOT_YET: Final = 4  # waiting ended before the invocation did
NOT_ALL: Final = 5  # an operation was passed over or refused for some of the rows

# Django's own options, which may stand behind the subcommand as well.
_FLAGS = ("--traceback", "--no-color", "--force-color", "--skip-checks")
_WORDS = ("--settings", "--pythonpath")

EXIT_CODES: Final = (
    "exit codes: 0 done, 1 it could not be done, 2 the command line is wrong, 3 the invocation ended in a failure, "
    "4 waiting ended first, 5 an operation was refused or passed over for some"
)


class Told(CommandError):
    """It went wrong, and the documents on stdout say how: with ``--json`` there is none more for this."""


class Subcommand:
    """One subcommand.

    Attributes:
        name: What it is called by.
        help: One line, for the list of subcommands.
        description: What it does, for its own help; ``help`` where it is empty.
        examples: Command lines, each below what it does.
        requires_system_checks: Django's checks must pass first.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    description: ClassVar[str] = ""
    examples: ClassVar[str] = ""
    requires_system_checks: ClassVar[bool] = True

    @property
    def epilog(self) -> str:
        """What stands below the options: examples, and the exit codes."""
        examples = textwrap.indent(textwrap.dedent(self.examples).strip(), "  ")
        codes = textwrap.fill(EXIT_CODES, 100)
        return f"examples:\n{examples}\n\n{codes}" if examples else codes

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare its options. ``--json`` comes from :func:`add_json`."""
        raise NotImplementedError

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Do it.

        Args:
            console: Where output goes.
            options: The options as they were parsed.

        Raises:
            CommandError: It could not be done; the message says why, and ``returncode`` is the exit code.
            Told: The same, where what was printed says it already.
        """
        raise NotImplementedError


# ---------------------------------------------------------------- options that several have


def add_json(parser: ArgumentParser, what: str = "one JSON document") -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", dest="as_json", help=f"Print {what}, and nothing else.")


def add_connection(parser: ArgumentParser) -> None:
    """Declare ``--connection``."""
    parser.add_argument(
        "--connection", default=DEFAULT_ALIAS, metavar="ALIAS", help="The connection in RESTATE (default: default)."
    )


def add_database(parser: ArgumentParser) -> None:
    """Declare ``--database``."""
    parser.add_argument(
        "--database", metavar="ALIAS", help="The database in DATABASES that has the rows (default: default)."
    )


def add_rows(parser: ArgumentParser, *, many: bool = False) -> None:
    """Declare which rows are meant, and the database that has them."""
    parser.add_argument(
        "ids" if many else "id",
        nargs="*" if many else None,
        metavar="ID",
        help="A row's id, as 'send' and 'list' print it, or Restate's own: inv_...",
    )
    add_database(parser)


def add_djangos_options(parser: ArgumentParser) -> None:
    """Let Django's own options stand behind the subcommand as well."""
    for name in _FLAGS:
        parser.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for name in _WORDS:
        parser.add_argument(name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "-v",
        "--verbosity",
        type=int,
        choices=[0, 1, 2, 3],
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def header(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``; ``NAME=@FILE`` takes the value from a file.

    Raises:
        ArgumentTypeError: It is neither. The value is not shown: it may be a secret.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ArgumentTypeError("a header is NAME=VALUE or NAME=@FILE")
    if value.startswith("@"):
        try:
            value = Path(value[1:]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ArgumentTypeError(f"the value of {name} can't be read from its file: {error}") from None
    return name, value


def checked_connection(options: Mapping[str, Any]) -> str:
    """Return the connection that was named, if ``RESTATE`` has it.

    Raises:
        CommandError: It has not.
    """
    alias = str(options["connection"])
    if alias not in aliases():
        raise CommandError(f"RESTATE has no connection {alias!r}. It has: {', '.join(aliases())}.")
    return alias


def checked_database(options: Mapping[str, Any]) -> str:
    """Return the database that was named, or the first one whose rows are swept.

    Raises:
        CommandError: There is no such database.
    """
    alias = options["database"]
    if alias is None:
        swept = swept_databases()
        return DEFAULT_DB_ALIAS if DEFAULT_DB_ALIAS in swept else swept[0]
    if alias not in databases:
        raise CommandError(f"DATABASES has no database {alias!r}. It has: {', '.join(databases)}.")
    return str(alias)


def find_row(text: str, using: str) -> Invocation:
    """Return the row of an id: ours, or Restate's.

    Raises:
        CommandError: There is none, or it is no id.
    """
    rows = Invocation.objects.using(using)
    if INVOCATION_ID.fullmatch(text):
        # Restate's id comes again after a purge: the newest row is meant.
        found = rows.filter(invocation_id=text).order_by("-pk").first()
    else:
        try:
            pk = uuid.UUID(text)
        except ValueError:
            raise CommandError(f"{text!r} is no id: give a row's (a UUID) or Restate's (inv_...).") from None
        found = rows.filter(pk=pk).first()
    if found is None:
        raise CommandError(f"There is no invocation {text} in the database {using!r}.")
    return found
