"""``manage.py restate_prune``: deletes old finished rows, in batches."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from restate_django import jobs, retention
from restate_django.exceptions import InvalidRequest
from restate_django.models import JobRun

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections import Counter


class Command(BaseCommand):
    """One call of the verb, with its progress."""

    help = (
        "Deletes invocations that finished long ago, by default longer than each connection's RETENTION. Open rows are "
        "never deleted, nor are rows whose idempotency keys still bind. Ctrl-C ends it between two batches."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare age, statuses and batches."""
        statuses = sorted(str(status) for status in retention.PRUNABLE)
        parser.add_argument(
            "--older-than", type=float, metavar="DAYS", help="Days since the end (default: the connection's RETENTION)."
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=statuses,
            metavar="STATUS",
            help=f"Only this status; may be given again. One of: {', '.join(statuses)}.",
        )
        parser.add_argument("--batch-size", type=int, default=1000, help="Rows per DELETE (default: 1000).")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be deleted, and delete nothing.")
        parser.add_argument("--database", metavar="ALIAS", help="Only this database (default: all that RESTATE names).")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Prune, and say how much."""
        days = options["older_than"]

        def progress(done: int, _total: int | None) -> None:
            if options["verbosity"] > 0:
                self.stdout.write(f"{done:,} deleted so far")

        try:
            work = partial(
                retention.prune,
                older_than=None if days is None else dt.timedelta(days=days),
                statuses=options["status"],
                batch_size=options["batch_size"],
                dry_run=options["dry_run"],
                progress=progress,
                using=options["database"],
            )
            # What deletes less than the job does is no run of it.
            is_partial = bool(days is not None or options["status"] or options["dry_run"] or options["database"])
            done = work() if is_partial else jobs.noted(JobRun.Job.PRUNE, work)
        except (InvalidRequest, OverflowError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(self._summary(done, dry_run=options["dry_run"]))

    def _summary(self, done: Counter[str], *, dry_run: bool) -> str:
        what = "would be deleted" if dry_run else "deleted"
        if not done.total():
            return f"No rows {'would be' if dry_run else 'were'} deleted: none is old enough."
        parts = ", ".join(f"{count:,} {status}" for status, count in sorted(done.items()))
        return f"{done.total():,} rows {what}: {parts}."
