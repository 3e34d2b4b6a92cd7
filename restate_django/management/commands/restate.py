"""``manage.py restate``: what the admin does, at a prompt. Each subcommand is a class in ``management/subcommands``.

This module puts their parsers together and runs the one that was asked for. It knows none of them by name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter

from restate_django.exceptions import CallTimeout, InvocationFailed, RestateError
from restate_django.management.subcommands import SUBCOMMANDS
from restate_django.management.subcommands.base import FAILED, NOT_YET, Told, add_djangos_options
from restate_django.management.subcommands.console import Console, printable

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from restate_django.management.subcommands.base import Subcommand


class _Formatter(argparse.RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Django's order of options, and examples that keep their lines."""


class Command(BaseCommand):
    """The subcommands of ``management/subcommands``."""

    help = (
        "Sends invocations to Restate, shows what became of them and steers them. "
        "'manage.py restate SUBCOMMAND --help' has examples."
    )
    # Each subcommand says for itself whether a faulty setting keeps it from running.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Give each subcommand its parser."""
        parser.add_argument("--skip-checks", action="store_true", help="Skip system checks.")
        subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
        for kind in SUBCOMMANDS:
            subcommand = kind()
            own = subparsers.add_parser(
                subcommand.name,
                help=subcommand.help,
                description=subcommand.description or subcommand.help,
                epilog=subcommand.epilog,
                formatter_class=_Formatter,
            )
            subcommand.add_arguments(own)
            add_djangos_options(own)
            own.set_defaults(run_subcommand=subcommand)

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Run the subcommand."""
        subcommand: Subcommand = options.pop("run_subcommand")
        if subcommand.requires_system_checks and not options["skip_checks"]:
            self.check()
        console = Console(
            self.stdout, self.stderr, as_json=options.get("as_json", False), verbosity=options["verbosity"]
        )
        try:
            subcommand.run(console, options)
        except Told:
            raise
        except (RestateError, ImproperlyConfigured, CommandError) as error:
            raise _told(console, error) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=130) from None


def _told(console: Console, error: Exception) -> CommandError:
    """Say an error: as a sentence to stderr, and with ``--json`` as a document to stdout as well."""
    message = printable(str(error))
    invocation = getattr(error, "invocation", None)
    document = {
        "type": type(error).__name__,
        "message": message,
        "code": getattr(error, "code", None),
        "status": getattr(error, "status", None),
        "metadata": getattr(error, "metadata", None) or None,
        "id": None if invocation is None else str(invocation.pk),
    }
    if console.as_json:
        console.show({"error": document}, "")
    if isinstance(error, CommandError):
        return error
    if invocation is not None:
        message = f"{message} (invocation {invocation.pk})"
    code = FAILED if isinstance(error, InvocationFailed) else NOT_YET if isinstance(error, CallTimeout) else 1
    return CommandError(message, returncode=code)
