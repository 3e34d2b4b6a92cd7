"""``manage.py restate up``: a Restate server and your handlers on this machine, until Ctrl-C.

Imports the testing kit's servers and the settings.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from restate_django.conf import all_settings
from restate_django.management.subcommands.base import Subcommand, add_json

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping
    from types import FrameType

    from restate_django.management.subcommands.console import Console
    from restate_django.testing.endpoint import HandlerServer
    from restate_django.testing.running import Running
    from restate_django.testing.server import RestateServer

_PORTS = (8080, 9070)
_HANDLER_PORT = 9080


class Up(Subcommand):
    """``manage.py restate up [APP ...]``."""

    name = "up"
    help = "Starts a Restate server on this machine, with your handlers, until Ctrl-C."
    description = (
        "Starts a Restate server on this machine, with the handlers of your apps registered, until Ctrl-C. It takes "
        "the program that RESTATE_SERVER names, or restate-server from the PATH, or installs one with npm, once. "
        "Ports that are taken are avoided. For development: in production a server is a service of its own."
    )
    examples = """
        manage.py restate up services.app:app
        manage.py restate up services.app:app --data-dir .restate
        manage.py restate up --json
    """
    # It may be what is missing.
    requires_system_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare apps, data and ports."""
        parser.add_argument("apps", nargs="*", metavar="APP", help="module:name of restate.app([...]) in your code.")
        parser.add_argument(
            "--data-dir", metavar="FOLDER", help="Where the server keeps its data (default: thrown away at the end)."
        )
        parser.add_argument("--server-version", metavar="VERSION", help="This version of Restate exactly.")
        for option, port in (("ingress", _PORTS[0]), ("admin", _PORTS[1]), ("handler", _HANDLER_PORT)):
            parser.add_argument(
                f"--{option}-port",
                type=int,
                default=port,
                metavar="PORT",
                help=f"Where it is free; else another (default: {port}).",
            )
        add_json(parser, "one JSON document when all is up")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Run until a signal asks for the end."""
        from restate_django.testing.process import StartError
        from restate_django.testing.running import running

        stop = threading.Event()

        def end(_signal: int, _frame: FrameType | None) -> None:
            stop.set()

        before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
        data_dir = options["data_dir"]
        try:
            with running(
                options["apps"],
                version=options["server_version"],
                data_dir=None if data_dir is None else Path(data_dir).absolute(),
                ports=(options["ingress_port"], options["admin_port"]),
                handler_port=options["handler_port"],
            ) as up:
                self._tell(console, up, options["apps"])
                self._wait(up, stop)
        except StartError as error:
            if not stop.is_set():
                raise CommandError(str(error)) from None
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        console.say("Stopped.")

    def _tell(self, console: Console, up: Running, apps: list[str]) -> None:
        served = {app: handlers.url for app, handlers in zip(apps, up.handlers, strict=True)}
        lines = [
            f"Ingress      {up.ingress_url}",
            f"Admin API    {up.admin_url}",
            f"Restate's UI {up.admin_url}/ui",
            *(f"Handlers     {url}  ({app})" for app, url in served.items()),
            f"The log      {up.server.log_file}",
            "Ctrl-C stops everything.",
        ]
        document = {"ingress_url": up.ingress_url, "admin_url": up.admin_url, "handlers": served}
        console.show(document, "\n".join(lines))
        console.stdout.flush()
        settings = all_settings()["default"]
        here = {url.replace("127.0.0.1", "localhost") for url in (up.ingress_url, up.admin_url)}
        asked = {str(url).replace("127.0.0.1", "localhost") for url in (settings.ingress_url, settings.admin_url)}
        if here != asked:
            console.note(
                f'RESTATE["default"] leads elsewhere: set "INGRESS_URL": "{up.ingress_url}" and '
                f'"ADMIN_URL": "{up.admin_url}".'
            )

    def _wait(self, up: Running, stop: threading.Event) -> None:
        while not stop.wait(0.2):
            children: list[tuple[RestateServer | HandlerServer, str]] = [(up.server, "The Restate server")]
            children += [(each, f"The process with the handlers of {each.app}") for each in up.handlers]
            for child, what in children:
                if not child.running:
                    # A signal to the whole group reaches us a moment later than it.
                    time.sleep(0.2)
                    if not stop.is_set():
                        raise CommandError(f"{what} has ended by itself.\n{child.log_tail()}")
