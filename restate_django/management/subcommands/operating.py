"""``manage.py restate cancel``, ``kill`` and their kin: to rows by their ids, or to all that a filter finds.

Each is one verb of ``operations``. Rows that a filter finds are taken some hundred at a time, each batch as it is in
the database when its turn comes, so a table of any size is walked once and never held. Imports the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.core.management.base import CommandError
from django.utils.encoding import force_str

from restate_django import operations
from restate_django.lifecycle import OPEN, Status
from restate_django.management.subcommands import selecting
from restate_django.management.subcommands.base import (
    NOT_ALL,
    Subcommand,
    Told,
    add_json,
    add_rows,
    checked_database,
    find_row,
)
from restate_django.models import Invocation

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator, Mapping

    from restate_django.management.subcommands.console import Console
    from restate_django.operations import OperationReport

# Counting stops here: what is asked about is "more than".
_COUNTED = 100_000


class _Operation(Subcommand):
    """What the operations have in common.

    Attributes:
        verb: The name in ``operations``, with underscores.
        done: What was done, in the words of a report.
    """

    verb: ClassVar[str]
    done: ClassVar[str]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which rows."""
        add_rows(parser, many=True)
        selecting.add_filters(parser)
        parser.add_argument("--yes", action="store_true", help="Don't ask before it is done to what a filter finds.")
        add_json(parser, "a JSON document per row")

    def run(self, console: Console, options: Mapping[str, Any]) -> None:
        """Do it, batch by batch."""
        using = checked_database(options)
        given = bool(options["ids"])
        if given is selecting.any_filter(options):
            raise CommandError(f"Say what to {self.name}: ids, or a filter such as --service or --status.")
        if given:
            total, batches = len(options["ids"]), iter([[find_row(each, using) for each in options["ids"]]])
        else:
            selecting.refuse_unindexed(options)
            total, batches = self._found(console, options, using)
        tally = {"done": 0, "passed_over": 0, "refused": 0}
        with console.progress(self.done) as progress:
            handled = 0
            for batch in batches:
                report = getattr(operations, self.verb)(batch, **self.further(options))
                self._tell(console, report, tally, each=given)
                handled += len(batch)
                progress(handled, None if total > _COUNTED else total)
        console.say(self._summary(tally))
        if left := tally["passed_over"] + tally["refused"]:
            raise Told(f"It was not done to {left:,} of {sum(tally.values()):,}.", returncode=NOT_ALL)

    def further(self, options: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - for those that have options
        """Return the verb's own arguments."""
        return {}

    @property
    def statuses(self) -> frozenset[Status]:
        """Which rows a filter without ``--status`` is about."""
        return operations.ALLOWED[self.verb]

    def _found(
        self, console: Console, options: Mapping[str, Any], using: str
    ) -> tuple[int, Iterator[list[Invocation]]]:
        """Count what the filters find, ask, and return it."""
        meant = {**options, "status": options["status"] or [str(status) for status in self.statuses]}
        ranges = selecting.ranges(meant, using)
        total = sum(rows.order_by()[: _COUNTED + 1].count() for rows in ranges)
        newest = Invocation.objects.using(using).order_by("-pk").values_list("pk", flat=True).first()
        if newest is None:
            return 0, iter(())
        if total and self.asks:
            how_many = f"more than {_COUNTED:,}" if total > _COUNTED else f"{total:,}"
            what = f"{how_many} invocation{'s' if total != 1 else ''} ({selecting.in_words(options)})"
            console.confirm(f"{self.name} {what}?", yes=options["yes"])
        return total, selecting.batches(ranges, operations.BATCH, newest)

    #: A person is asked before it is done to all that a filter finds.
    asks: ClassVar[bool] = True

    def _tell(self, console: Console, report: OperationReport, tally: dict[str, int], *, each: bool) -> None:
        """Say what became of each row: in JSON of all, to a person of those that were named or were not done."""
        told = [(row, "done", what) for row, what in report.done]
        told += [(row, "passed_over", reason) for row, reason in report.passed_over]
        told += [(row, "refused", reason) for row, reason in report.refused]
        for row, result, reason in told:
            tally[result] += 1
            words = reason if result == "done" else f"{result.replace('_', ' ')}: {reason}"
            document = {
                "id": str(row.pk),
                "target": row.target,
                "status": str(row.status),
                "result": result,
                "reason": force_str(reason),
                "restarted_from": None if row.restarted_from_id is None else str(row.restarted_from_id),
            }
            if console.as_json or each or result != "done":
                console.show(document, f"{row.pk} {row.target}: {words}")

    def _summary(self, tally: Mapping[str, int]) -> str:
        if not any(tally.values()):
            return "No invocation is like that."
        words = [f"{tally['done']:,} {self.done}"]
        words += [f"{tally[name]:,} {name.replace('_', ' ')}" for name in ("passed_over", "refused") if tally[name]]
        return f"{', '.join(words)}."


class Cancel(_Operation):
    """``manage.py restate cancel``."""

    name = verb = "cancel"
    done = "cancelled or asked to"
    help = "Cancels open invocations: their handlers see it at the next await, and compensate."
    examples = """
        manage.py restate cancel 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate cancel --service Mailer --status scheduled
        manage.py restate cancel --service Report --since 1h --yes --json
    """


class Kill(_Operation):
    """``manage.py restate kill``."""

    name = verb = "kill"
    done = "killed"
    help = "Ends open invocations at once. No compensation runs."
    examples = """
        manage.py restate kill 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate kill --service Report --status paused
    """


class Pause(_Operation):
    """``manage.py restate pause``."""

    name = verb = "pause"
    done = "paused or asked to"
    help = "Holds running invocations until they are resumed."
    examples = """
        manage.py restate pause --service Report --status backing-off
    """


class Resume(_Operation):
    """``manage.py restate resume``."""

    name = verb = "resume"
    done = "resumed"
    help = "Lets paused invocations, and those that back off, go on at once."
    examples = """
        manage.py restate resume --status paused --service Report
        manage.py restate resume 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e --deployment latest
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which rows, and where they go on."""
        super().add_arguments(parser)
        _add_deployment(parser)

    def further(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return where they go on."""
        return {"deployment": options["deployment"]}

    @property
    def statuses(self) -> frozenset[Status]:
        """A filter means those that stand still: it is no news to one that runs."""
        return frozenset({Status.PAUSED, Status.BACKING_OFF})


class Restart(_Operation):
    """``manage.py restate restart``."""

    name = "restart"
    verb = "restart_as_new"
    done = "restarted"
    help = "Runs ended invocations again, each as a new one with a row of its own."
    examples = """
        manage.py restate restart 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate restart --service Report --status failed --since 1d
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which rows, and from where."""
        super().add_arguments(parser)
        parser.add_argument(
            "--from-entry", type=int, metavar="N", help="Keep the steps up to this one of the journal (default: none)."
        )
        _add_deployment(parser)

    def further(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return from where, and on which deployment."""
        return {"from_entry": options["from_entry"], "deployment": options["deployment"]}


class Purge(_Operation):
    """``manage.py restate purge``."""

    name = verb = "purge"
    done = "purged"
    help = "Lets Restate forget ended invocations with their outputs and keys. The rows keep what they have."
    examples = """
        manage.py restate purge --service Mailer --status succeeded --until 7d
    """


class PurgeJournal(_Operation):
    """``manage.py restate purge-journal``."""

    name = "purge-journal"
    verb = "purge_journal"
    done = "freed of their journals"
    help = "Lets Restate forget the steps of ended invocations, and keep their outputs."
    examples = """
        manage.py restate purge-journal --service Agent --until 1d
    """


class Resend(_Operation):
    """``manage.py restate resend``."""

    name = verb = "resend"
    done = "sent again"
    help = "Sends rejected and undeliverable rows again, with the keys they have."
    description = (
        "Sends rejected and undeliverable rows again, with the keys they have. An undeliverable one may have run "
        "already, and Restate may have forgotten its key: find out first whether it did."
    )
    examples = """
        manage.py restate resend 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate resend --service Mailer --status rejected
    """


class Refresh(_Operation):
    """``manage.py restate refresh``."""

    name = verb = "refresh"
    done = "asked about"
    asks = False
    help = "Asks Restate about invocations now, due or not, and sends what is unsent."
    examples = """
        manage.py restate refresh 0199f5d2-7c1e-7b6a-a0c3-5f0a4b3c2d1e
        manage.py restate refresh --service Report
    """

    @property
    def statuses(self) -> frozenset[Status]:
        """Those of which more is to be heard."""
        return OPEN


def _add_deployment(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--deployment", metavar="ID", help="latest, keep or a deployment's id (default: what the server does)."
    )
