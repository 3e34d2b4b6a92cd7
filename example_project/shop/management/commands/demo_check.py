"""``demo_check``: run one invocation of each kind to its end, and say how each ended. ``demo --check`` runs it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from restate_django import operations
from restate_django.lifecycle import OPEN
from shop.kinds import all_runs

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Run them side by side, and print a line for each as it ends."""

    help = "Runs one invocation of each kind to its end. Exits 0 only if each ended as it should."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the deadline."""
        parser.add_argument("--deadline", type=float, default=40.0, help="Seconds for all of them together.")

    def handle(self, **options: Any) -> None:
        """Run them. The statuses are read from the rows, which the Celery worker moves."""
        runs = all_runs()
        waiting = list(runs)
        end = time.monotonic() + options["deadline"]
        while waiting:
            for run in list(waiting):
                over = run.step()
                if not over and time.monotonic() > end:
                    run.give_up()
                    over = True
                if over:
                    waiting.remove(run)
                    self._say(run)
            time.sleep(0.1)
        # What has not ended would go on in a server that is not the demo's own.
        left = [run.row for run in runs if run.row is not None and run.row.status in OPEN]
        wrong = [run.kind for run in runs if run.problem]
        if left:
            operations.kill(left)
        if wrong:
            self.stdout.write(self.style.ERROR(f"{len(wrong)} of {len(runs)} went wrong: {', '.join(wrong)}"))
            sys.exit(1)
        self.stdout.write(self.style.SUCCESS(f"All {len(runs)} ended as they should."))

    def _say(self, run: Any) -> None:
        target = f"{run.row.service}/{run.row.handler}" if run.row else "-"
        line = f"{'WRONG' if run.problem else 'ok':<6}{run.kind:<29}{run.status:<12}{target:<22}{run.seconds:5.1f} s"
        if run.problem:
            line += f"  {run.problem}{f' ({run.reason})' if run.reason else ''}"
        self.stdout.write(self.style.ERROR(line) if run.problem else line)
        self.stdout.flush()
