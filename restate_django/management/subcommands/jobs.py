"""``manage.py restate relay`` and ``prune``: the commands ``restate_relay`` and ``restate_prune`` by their other names.

Imports those two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from restate_django.management.commands import restate_prune, restate_relay
from restate_django.management.subcommands.base import Subcommand

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from django.core.management.base import BaseCommand, CommandParser

    from restate_django.management.subcommands.console import Console


class _Other(Subcommand):
    """A command that stands on its own as well."""

    command: ClassVar[type[BaseCommand]]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what the command declares."""
        # The stubs want the parser that Django makes, which this one is.
        self.command().add_arguments(cast("CommandParser", parser))

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Run the command."""
        command = self.command(stdout=console.stdout, stderr=console.stderr)  # type: ignore[arg-type] # wrapped ones do
        command.handle(**options)


class Relay(_Other):
    """``manage.py restate relay``."""

    name = "relay"
    command = restate_relay.Command
    help = "Delivers, polls and prunes without Celery: the command restate_relay."
    description = restate_relay.Command.help


class Prune(_Other):
    """``manage.py restate prune``."""

    name = "prune"
    command = restate_prune.Command
    help = "Deletes old finished rows: the command restate_prune."
    description = restate_prune.Command.help
