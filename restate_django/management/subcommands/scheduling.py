"""``manage.py restate beat``: the periodic tasks in django-celery-beat's tables. Imports ``contrib.beat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from restate_django.conf import aliases
from restate_django.contrib import beat
from restate_django.management.commands.restate_relay import seconds
from restate_django.management.subcommands.base import Subcommand, add_json

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from restate_django.management.subcommands.console import Console

_KEPT = {
    "schedule": "its schedule is an operator's: name --deliver, --poll or --prune to set it",
    "disabled": "it is switched off: --enable switches it on",
}


class Beat(Subcommand):
    """``manage.py restate beat``."""

    name = "beat"
    help = "Makes the periodic tasks' entries in django-celery-beat's tables, and keeps them in step."
    description = (
        "Makes the entries of the periodic tasks in django-celery-beat's tables, and brings those that are there up to "
        "date: run it with each deployment. An entry that somebody switched off stays off, and one that somebody gave "
        "another schedule keeps it, unless an option says otherwise. Entries for tasks that this version does not have "
        "are removed. A beat that runs takes the change up by itself."
    )
    examples = """
        manage.py restate beat
        manage.py restate beat --poll 5 --queue restate
        manage.py restate beat --remove --dry-run
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the schedules, and what may be written over."""
        for task, default in (("deliver", 2), ("poll", 2), ("prune", 3600)):
            parser.add_argument(
                f"--{task}",
                type=seconds,
                metavar="SECONDS",
                help=f"Between two runs of {task}, also where an entry has another schedule (new ones: {default}).",
            )
        parser.add_argument("--queue", help="Put the tasks there (default: where Celery routes them).")
        parser.add_argument(
            "--connection",
            action="append",
            dest="connections",
            metavar="ALIAS",
            help="Entries that send and ask about the rows of this connection alone; again for several (default: all).",
        )
        parser.add_argument("--enable", action="store_true", help="Switch on entries that are switched off.")
        parser.add_argument("--remove", action="store_true", help="Remove all entries of this app instead.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing.")
        add_json(parser)

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Do it, and say what was done with each entry."""
        dry_run = options["dry_run"]
        given = {task: options[task] for task in ("deliver", "poll", "prune") if options[task] is not None}
        for alias in options["connections"] or ():
            if alias not in aliases():
                raise CommandError(f"RESTATE has no connection {alias!r}. It has: {', '.join(aliases())}.")
        try:
            if options["remove"]:
                found = beat.remove(dry_run=dry_run)
            else:
                found = beat.synchronize(
                    seconds=given,
                    connections=options["connections"],
                    queue=options["queue"],
                    enable=options["enable"],
                    dry_run=dry_run,
                )
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        notes = [] if options["remove"] else _notes([entry.name for entry in found])
        if not found:
            console.say("There are no entries.")
        for entry in found:
            console.say(f"{'would be ' * dry_run}{entry.step.value}: {entry.name}, {entry.schedule}")
            for kept in entry.kept:
                console.say(f"  {_KEPT[kept]}")
        for note in notes:
            console.note(note)
        if options["as_json"]:
            entries = [
                {
                    "name": entry.name,
                    "step": entry.step.value,
                    "schedule": entry.schedule,
                    "enabled": entry.enabled,
                    "kept": list(entry.kept),
                }
                for entry in found
            ]
            console.show({"dry_run": dry_run, "entries": entries, "notes": notes}, "")


def _notes(names: list[str]) -> list[str]:
    """Return what stands in the way of the entries."""
    notes: list[str] = []
    if beat.APP not in str(current_app.conf.beat_scheduler):
        notes.append(
            f"Beat reads them where it is started with --scheduler {beat.SCHEDULER}, or beat_scheduler names it."
        )
    if twice := sorted(set(names) & set(current_app.conf.beat_schedule or {})):
        notes.append(
            f"app.conf.beat_schedule has {', '.join(twice)} too, and beat writes that over the entry at each start: "
            "take them out there."
        )
    return notes
