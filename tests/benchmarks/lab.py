"""What the parts measure with: a real Restate server and databases of their own, rounds that take turns, children.

Imports Django when a run has begun, and the launcher of ``restate_django.testing``. Nothing is left behind: whoever
makes something here ends it by ``close``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from restate_django.testing import HandlerServer, RestateServer
from tests.benchmarks.wire import invocation_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent.parent


class AbsentError(Exception):
    """Something that a line needs is not on this machine. The message says what, and how to get it."""


class Lab:
    """A run: its sizes, its servers, its databases and its progress.

    Args:
        rounds: How often each figure is taken, if the time of its part allows it.
        scale: A factor on all sizes.
    """

    def __init__(self, *, rounds: int, scale: float) -> None:
        self.rounds = rounds
        self.scale = scale
        self._part_ends = float("inf")
        self.started = time.monotonic()
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="restate-benchmarks-")))
        self._handlers: HandlerServer | None = None
        self._databases: dict[str, str] = {}
        self.restate_version = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def size(self, number: int, *, at_least: int = 8) -> int:
        """Return a size at this run's scale."""
        return max(at_least, round(number * self.scale))

    def begin(self, part: str, seconds: float) -> None:
        """Begin a part, which has that many seconds: on a slow machine it does fewer rounds."""
        self._part_ends = time.monotonic() + seconds
        self.say(f"{part}, at most about {seconds:.0f} s")

    def say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self.started:5.0f} s] {text}\n")
        sys.stderr.flush()

    # ------------------------------------------------------------ rounds

    def rounds_of(self, part: str, measures: dict[str, Callable[[], float]], *, rounds: int | None = None) -> Figures:
        """Take each figure once per round, one after the other, so that all see the machine in the same moods.

        Args:
            part: For the progress.
            measures: Names and what takes the figure. One that raises ``AbsentError`` is left out from then on.
            rounds: How many, where it is not the run's own number.
        """
        figures = Figures()
        count = rounds or self.rounds
        longest = 0.0
        for number in range(1, count + 1):
            began = time.monotonic()
            if number > 1 and began + longest > self._part_ends:
                self.say(f"{part}: its time is over after {number - 1} of {count} rounds")
                break
            for name, measure in measures.items():
                if name in figures.absent:
                    continue
                try:
                    figure = measure()
                except AbsentError as error:
                    figures.absent[name] = str(error)
                    self.say(f"{part}, round {number} of {count}: {name} is skipped: {error}")
                else:
                    figures.taken.setdefault(name, []).append(figure)
                    self.say(f"{part}, round {number} of {count}: {name} {figure:,.4g}")
            longest = max(longest, time.monotonic() - began)
        return figures

    # ------------------------------------------------------------ Restate

    @contextmanager
    def restate(self, **settings: Any) -> Iterator[RestateServer]:
        """Run an empty Restate server that knows the tests' handlers, with ``settings.RESTATE`` pointing at it.

        One for each part: no figure depends on what was sent before.
        """
        if self._handlers is None:
            self._handlers = self._stack.enter_context(HandlerServer("tests.handlers:app", cwd=ROOT))
        with RestateServer() as server:
            self._handlers.register(server.admin_url)
            self.restate_version = self.restate_version or _version(server.admin_url)
            # The first sends of a new server wait until its partitions have leaders.
            invocation_ids(server.ingress_url, 64)
            with self.settings(server, **settings):
                yield server

    @contextmanager
    def settings(self, server: RestateServer, **settings: Any) -> Iterator[None]:
        """Set ``settings.RESTATE`` here and in children that start from now on."""
        from django.test import override_settings

        restate = {"default": {"INGRESS_URL": server.ingress_url, "ADMIN_URL": server.admin_url, **settings}}
        before = os.environ.get("BENCHMARKS_RESTATE", "{}")
        os.environ["BENCHMARKS_RESTATE"] = json.dumps(restate)
        try:
            with override_settings(RESTATE=restate):
                yield
        finally:
            os.environ["BENCHMARKS_RESTATE"] = before

    # ------------------------------------------------------------ databases

    def database(self, alias: str = "default") -> str:
        """Make a database of this run's own, once. Returns its vendor.

        Raises:
            AbsentError: The server that ``DATABASE_URL`` names does not answer.
        """
        if alias not in self._databases:
            if alias != "default":
                # A migration of django-tasks-db looks for its table there, whichever database it is run on.
                self.database()
            import django
            from django.core.exceptions import ImproperlyConfigured
            from django.db import Error, connections

            try:
                connection = connections[alias]
                if connection.vendor != "sqlite":
                    connection.ensure_connection()
                # Django 6.1 serializes nothing by itself, and warns of whoever says so.
                options = {} if django.VERSION >= (6, 1) else {"serialize": False}
                connection.creation.create_test_db(verbosity=0, autoclobber=True, **options)
            except (Error, ImproperlyConfigured) as error:
                reason = str(error).strip().splitlines()[0]
                raise AbsentError(f"the database of DATABASE_URL does not answer: {reason}") from error
            name = connection.settings_dict["NAME"]
            self._stack.callback(connection.creation.destroy_test_db, name, verbosity=0)
            self._databases[alias] = connection.vendor
        return self._databases[alias]

    def empty(self, alias: str = "default") -> None:
        """Empty the table of invocations."""
        from django.core.management.color import no_style
        from django.db import connections

        from restate_django.models import Invocation

        connection = connections[alias]
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), [Invocation._meta.db_table]))

    def tidy(self, alias: str = "default") -> None:
        """Let the database do now what it would do in the background, in the middle of a round."""
        from django.db import connections

        statement = {"postgresql": "VACUUM ANALYZE", "sqlite": "ANALYZE"}.get(connections[alias].vendor)
        if statement is not None:
            with connections[alias].cursor() as cursor:
                cursor.execute(statement)


class Figures:
    """What rounds took: figures by name, and the names of those that this machine can't take."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}
        self.absent: dict[str, str] = {}

    def __getitem__(self, name: str) -> list[float]:
        return self.taken[name]

    def against(self, ours: str, peer: str) -> dict[str, Any]:
        """Return the arguments of a line that compares two figures."""
        for name in (ours, peer):
            if name in self.absent:
                return {"skipped": self.absent[name]}
        return {"ours": self[ours], "peer": self[peer]}


class Child:
    """A process of its own with this run's settings, that says when it is ready and starts when it is told to.

    Args:
        job: A job of ``tests.benchmarks.child``.
    """

    def __init__(self, job: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.child", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        self._read("ready")
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def go(self) -> None:
        """Let it start."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for its end and return what it found."""
        result: dict[str, Any] = json.loads(self._read("{"))
        return result

    def _read(self, start: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(start):
            raise RuntimeError(f"A child of the benchmarks ended early; it said {line!r}. Its error is above.")
        return line


def rate(count: int, job: Callable[[], object]) -> float:
    """Return how many per second a job does that does ``count``."""
    start = time.perf_counter()
    job()
    return count / (time.perf_counter() - start)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _version(admin_url: str) -> str:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return str(session.get(f"{admin_url}/version", timeout=10).json()["version"])
