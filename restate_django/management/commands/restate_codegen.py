"""``manage.py restate_codegen``: writes a module of typed targets from what the server says about its services."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from restate_django.codegen import STYLES, GeneratorFailed, drift, generate, read_contracts
from restate_django.conf import DEFAULT_ALIAS
from restate_django.connections import connections
from restate_django.exceptions import RestateError

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Read, generate, and write or compare."""

    help = (
        "Writes a Python module of typed targets: a class for each service that the Restate server knows, with its "
        "handlers as attributes, and types for what they take and give. Needs the extra restate-django[codegen]."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which services, how, and where to."""
        parser.add_argument(
            "services", nargs="*", metavar="service", help="A service's name (default: all that the ingress serves)."
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="The module to write (default: print it).")
        parser.add_argument(
            "--style",
            choices=STYLES,
            default=STYLES[0],
            help="Payloads and outputs as pydantic models (the default), or as TypedDicts, which need no library.",
        )
        parser.add_argument(
            "--connection", default=DEFAULT_ALIAS, metavar="ALIAS", help='The alias in RESTATE (default: "default").'
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Write nothing: show how FILE and the server differ, and exit with 1 if they do. However FILE has "
            "been formatted, only what it means is compared.",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Do it."""
        output = None if options["output"] is None else Path(options["output"])
        if options["check"] and output is None:
            raise CommandError("--check needs --output: the module to compare with.")
        try:
            admin = connections[options["connection"]].require_admin("restate_codegen")
            contracts = read_contracts(admin, options["services"])
            if not contracts:
                raise CommandError("The server knows no service: register a deployment first.")
            module = generate(contracts, options["style"])
        except (GeneratorFailed, ImproperlyConfigured, RestateError) as error:
            raise CommandError(str(error)) from error
        if output is None:
            self.stdout.write(module)
        elif options["check"]:
            self._check(output, module)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(module, encoding="utf-8")
            self.stdout.write(f"{output}: targets of {', '.join(contract.name for contract in contracts)}.")

    def _check(self, output: Path, module: str) -> None:
        try:
            there = output.read_text(encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{output} can't be read: {error.strerror}.") from error
        difference = drift(there, module, output.name)
        if difference:
            self.stdout.write(difference)
            raise CommandError(f"{output} has drifted from the server: write it anew without --check.")
        self.stdout.write(f"{output} is what the server says.")
