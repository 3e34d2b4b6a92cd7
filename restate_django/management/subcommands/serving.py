"""``manage.py restate services`` and ``deployments``: what Restate serves, and from where.

Registering and removing are the verbs of ``deployments``, as in the admin: first it is said what it would do. Imports
the verbs and the connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restate_django import deployments
from restate_django.connections import connections
from restate_django.management.subcommands.base import (
    Subcommand,
    add_connection,
    add_djangos_options,
    add_json,
    checked_connection,
    header,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.client import ServiceInfo
    from restate_django.client.results import Deployment
    from restate_django.deployments import Change, Plan
    from restate_django.management.subcommands.console import Console


class Services(Subcommand):
    """``manage.py restate services [NAME]``."""

    name = "services"
    help = "Lists the services, objects and workflows that Restate serves, with their handlers."
    examples = """
        manage.py restate services
        manage.py restate services Greeter --json | jq '.handlers[].name'
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which."""
        parser.add_argument("service", nargs="?", metavar="NAME", help="Only this one.")
        add_connection(parser)
        add_json(parser, "a JSON document per service")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """List them."""
        admin = connections[checked_connection(options)].require_admin("services")
        name = options["service"]
        found = [admin.get_service(name)] if name else admin.list_services()
        found.sort(key=lambda service: service.name)
        if console.as_json:
            for service in found:
                console.show(_service(service), "")
            return
        rows = [
            (each.name, each.ty, ", ".join(sorted(handler.name for handler in each.handlers)), each.deployment_id or "")
            for each in found
        ]
        console.table(("NAME", "KIND", "HANDLERS", "DEPLOYMENT"), rows)


def _service(service: ServiceInfo) -> dict[str, Any]:
    def seconds(value: Any) -> float | None:
        return None if value is None else value.total_seconds()

    return {
        "name": service.name,
        "kind": service.ty,
        "public": service.public,
        "revision": service.revision,
        "deployment": service.deployment_id,
        "idempotency_retention": seconds(service.idempotency_retention),
        "workflow_completion_retention": seconds(service.workflow_completion_retention),
        "documentation": service.documentation or None,
        "handlers": [
            {
                "name": handler.name,
                "kind": handler.ty,
                "public": handler.public,
                "takes_no_input": handler.takes_no_input,
                "documentation": handler.documentation or None,
            }
            for handler in sorted(service.handlers, key=lambda handler: handler.name)
        ],
    }


class Deployments(Subcommand):
    """``manage.py restate deployments list|register|remove``."""

    name = "deployments"
    help = "Lists, registers and removes deployments: where handlers are served."
    examples = """
        manage.py restate deployments list
        manage.py restate deployments register http://localhost:9080
        manage.py restate deployments register https://handlers.example.com --header X-Token=@token.txt --force
        manage.py restate deployments remove dp_10s7g8X9eRfUxJbBuy4jGkp --force
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the three."""
        what = parser.add_subparsers(dest="what", metavar="list|register|remove", required=True)
        listing = what.add_parser("list", help="Lists the deployments.")
        register = what.add_parser("register", help="Lets Restate serve the handlers at an address.")
        register.add_argument("uri", metavar="URL", help="Where they are served, as the Restate server reaches it.")
        register.add_argument(
            "--header",
            action="append",
            type=header,
            default=[],
            metavar="NAME=VALUE",
            help="A header that Restate sends with each request to it; may be given again. NAME=@FILE takes the value "
            "from a file, where other users of the machine don't see it.",
        )
        register.add_argument("--force", action="store_true", help="Take the place of one at the same address.")
        register.add_argument("--breaking", action="store_true", help="Take services that don't fit their old form.")
        register.add_argument("--http1.1", action="store_true", dest="use_http_11", help="Talk to it over HTTP/1.1.")
        register.add_argument("--dry-run", action="store_true", help="Say what it would do, and do nothing.")
        remove = what.add_parser("remove", help="Lets Restate forget a deployment.")
        remove.add_argument("id", metavar="ID", help="The deployment: dp_...")
        remove.add_argument(
            "--force", action="store_true", help="Without looking whether it is needed: Restate removes none without."
        )
        for each in (listing, register, remove):
            add_connection(each)
            add_djangos_options(each)
            add_json(each, "a JSON document per deployment" if each is listing else "one JSON document")
        for each in (register, remove):
            each.add_argument("--yes", action="store_true", help="Don't ask.")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Do one of the three."""
        alias = checked_connection(options)
        if options["what"] == "list":
            self._list(console, alias)
        elif options["what"] == "register":
            self._register(console, alias, options)
        else:
            self._remove(console, alias, options)

    def _list(self, console: Console, alias: str) -> None:
        found = connections[alias].require_admin("deployments").list_deployments()
        if console.as_json:
            for each in found:
                console.show(_deployment(each), "")
            return
        rows = [(each.id, each.uri or each.arn or "", ", ".join(sorted(each.services))) for each in found]
        console.table(("ID", "ADDRESS", "SERVICES"), rows)

    def _register(self, console: Console, alias: str, options: Mapping[str, Any]) -> None:
        how = {name: options[name] for name in ("force", "breaking", "use_http_11")}
        headers = dict(options["header"]) or None
        plan = deployments.check(alias, options["uri"], headers=headers, **how)
        for change in plan.changes:
            console.say(_change(change))
        if plan.does_nothing:
            console.say("This address is registered already: --force asks it for its services anew.")
        if options["dry_run"] or plan.does_nothing:
            console.show(
                _plan(plan, plan.replaces if plan.does_nothing else None, registered=False), "Nothing was done."
            )
            return
        if plan.running:
            question = f"Take the place of {plan.found.id}, on which {plan.running:,} invocations have started?"
            console.confirm(question, yes=options["yes"])
        deployment = deployments.register(alias, options["uri"], headers=headers, **how)
        console.show(_plan(plan, deployment, registered=True), f"Registered as {deployment.id}.")

    def _remove(self, console: Console, alias: str, options: Mapping[str, Any]) -> None:
        consequences = deployments.consequences(alias, options["id"])
        lost = [loss.name for loss in consequences.losses if loss.ends]
        for name in lost:
            console.say(f"{name}: nobody serves it any more.")
        counted = {"running": consequences.running, "waiting": consequences.waiting}
        for word, number in counted.items():
            if number:
                console.say(f"{number:,} invocations are {word}, and can't go on.")
        question = f"Remove {options['id']} ({consequences.deployment.uri or consequences.deployment.arn})?"
        console.confirm(question, yes=options["yes"])
        deployments.remove(alias, options["id"], force=options["force"])
        console.show({"id": options["id"], "removed": True, "lost": lost, **counted}, "Removed.")


def _deployment(deployment: Deployment) -> dict[str, Any]:
    return {
        "id": deployment.id,
        "uri": deployment.uri,
        "arn": deployment.arn,
        "created_at": deployment.created_at,
        "services": dict(sorted(deployment.revisions.items())),
        "sdk_version": deployment.sdk_version,
        # Their values may be secrets.
        "header_names": list(deployment.header_names),
    }


def _plan(plan: Plan, deployment: Deployment | None, *, registered: bool) -> dict[str, Any]:
    return {
        "id": None if deployment is None else deployment.id,
        "registered": registered,
        "replaces": None if plan.replaces is None else plan.replaces.id,
        "running": plan.running,
        "changes": [
            {
                "service": change.name,
                "is_new": change.before is None,
                "is_lost": change.after is None,
                "kind_changes": change.kind_changes,
                "added": change.added,
                "removed": change.removed,
                "altered": change.altered,
            }
            for change in plan.changes
        ],
    }


def _change(change: Change) -> str:
    if change.before is None:
        return f"{change.name}: new."
    if change.after is None:
        heir = change.falls_back_to
        return f"{change.name}: lost, and served by {heir.id} again." if heir else f"{change.name}: lost."
    words = [
        f"{word} {', '.join(names)}"
        for word, names in (("adds", change.added), ("removes", change.removed), ("alters", change.altered))
        if names
    ]
    if change.kind_changes:
        words.append(f"becomes a {change.after.ty}")
    return f"{change.name}: {'; '.join(words) or 'as it was'}."
