"""``manage.py restate send``, ``call`` and ``attach``: the verbs of ``restate_django``, with a payload from the prompt.

Imports the verbs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from restate_django import attaching, dispatch
from restate_django.client import NO_PAYLOAD
from restate_django.client.payloads import is_json
from restate_django.lifecycle import Status
from restate_django.management.subcommands import documents
from restate_django.management.subcommands.base import (
    Subcommand,
    Told,
    add_connection,
    add_database,
    add_json,
    add_rows,
    checked_connection,
    checked_database,
    find_row,
    header,
)
from restate_django.management.subcommands.selecting import duration, moment

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.management.subcommands.console import Console


def _add_target(parser: ArgumentParser) -> None:
    """Declare what an invocation is sent to, and what it takes."""
    parser.add_argument("service", metavar="SERVICE", help="The service, virtual object or workflow.")
    parser.add_argument("handler", metavar="HANDLER", help="Its handler.")
    parser.add_argument(
        "payload",
        nargs="?",
        metavar="PAYLOAD",
        help="JSON; @FILE takes a file's, - stdin's. Without one nothing is sent, as a handler without input demands.",
    )
    parser.add_argument("--key", help="The object's or workflow's key.")
    parser.add_argument("--idempotency-key", metavar="KEY", help="Under the same key it is one invocation.")
    parser.add_argument(
        "--header",
        action="append",
        type=header,
        default=[],
        metavar="NAME=VALUE",
        help="A header for the handler; may be given again. It is stored: no secret here.",
    )
    parser.add_argument(
        "--content-type", metavar="TYPE", help="What the payload is. One that is not JSON is sent byte for byte."
    )
    parser.add_argument("--scope", help="The scope it runs in.")
    parser.add_argument("--limit-key", metavar="KEY", help="The limit key within the scope.")
    add_connection(parser)
    add_database(parser)


def _target(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that send and call share."""
    return {
        "service": options["service"],
        "handler": options["handler"],
        "payload": _payload(options["payload"], options["content_type"]),
        "key": options["key"],
        "idempotency_key": options["idempotency_key"],
        "headers": dict(options["header"]) or None,
        "content_type": options["content_type"],
        "scope": options["scope"],
        "limit_key": options["limit_key"],
        "connection": checked_connection(options),
        "using": checked_database(options),
    }


def _payload(text: str | None, content_type: str | None) -> Any:
    if text is None:
        return NO_PAYLOAD
    if text == "-":
        body = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            body = Path(text[1:]).read_bytes()
        except OSError as error:
            raise CommandError(f"The payload can't be read: {error}") from error
    else:
        body = text.encode("utf-8", "surrogateescape")
    if content_type is not None and not is_json(content_type):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        hint = " A text is JSON within double quotes." if b'"' not in body else ""
        raise CommandError(f"The payload is no JSON: {error}.{hint}") from None


class Send(Subcommand):
    """``manage.py restate send SERVICE HANDLER [PAYLOAD]``."""

    name = "send"
    help = "Hands an invocation to Restate, recorded as a row like any other."
    examples = """
        manage.py restate send Greeter greet '{"name": "Mary"}'
        manage.py restate send Cart add '{"sku": "mug"}' --key cart-1
        manage.py restate send Mailer remind @mail.json --delay 3h --idempotency-key welcome-1
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare target, payload and time."""
        _add_target(parser)
        when = parser.add_mutually_exclusive_group()
        when.add_argument("--delay", type=duration, metavar="DURATION", help="How long to wait: 90s, 15m, 2h, 3d.")
        when.add_argument("--eta", type=moment, metavar="WHEN", help="When to run: 2026-11-25T18:00.")
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Send it."""
        row = dispatch.send(**_target(options), delay=options["delay"], eta=options["eta"])
        text = f"{row.pk}: {row.status}"
        if not row.created:
            text = f"{text} (a row has this key already)"
        if row.delivery_error:
            text = f"{text}. {row.delivery_error}"
        console.show(documents.of_row(row, bodies=True), text)
        if row.status == Status.REJECTED:
            raise Told("Restate refused it.")


class Call(Subcommand):
    """``manage.py restate call SERVICE HANDLER [PAYLOAD]``."""

    name = "call"
    help = "Calls a handler, waits for it and prints its output."
    examples = """
        manage.py restate call Greeter greet '{"name": "Mary"}'
        manage.py restate call Signup run '{"email": "m@example.com"}' --key mary --timeout 30
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare target, payload and patience."""
        _add_target(parser)
        _add_timeout(parser)
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Call it."""
        _show_output(console, dispatch.call(**_target(options), timeout=options["timeout"]))


class Attach(Subcommand):
    """``manage.py restate attach ID``."""

    name = "attach"
    help = "Waits for an invocation's end and prints its output."
    examples = """
        manage.py restate attach 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e --timeout 30
        manage.py restate attach inv_1fY5s0ZQdL1z3nXQh2vTq6Jb0m7o9pWc --json
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which one, and patience."""
        add_rows(parser)
        _add_timeout(parser)
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Wait for it."""
        row = find_row(options["id"], checked_database(options))
        _show_output(console, attaching.attach(row, timeout=options["timeout"]))


def _add_timeout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="How long to wait (default: the connection's CALL_TIMEOUT)."
    )


def _show_output(console: Console, output: Any) -> None:
    if isinstance(output, bytes) and not console.as_json:
        binary = getattr(console.stdout, "buffer", None)
        if binary is not None and not console.stdout.isatty():
            # To a file or a pipe it goes as it is.
            console.stdout.flush()
            binary.write(output)
            return
        output = output.decode("utf-8", "backslashreplace")
    console.show({"output": output}, console.as_text(output))
