"""``python -m tests.soak``: send steadily while everything fails in turn, and say what became of it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import django
from django.test import override_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from restate_django.testing.process import ChildProcess
    from tests.faults.arena import Arena, Count
    from tests.soak.memory import Series
    from tests.soak.trouble import OwnRedis, Trouble

#: Seconds between two looks at the memory.
LOOKS_EVERY: Final = 5.0
#: Seconds that the last rows have to settle: a lease, and a back-off of a minute.
SETTLES_IN: Final = 180.0
#: Short, so that what dies is taken over while somebody watches.
CONNECTION: Final = {
    "TIMEOUT": 5.0,
    "ON_COMMIT_TIMEOUT": 2.0,
    "LEASE": 20.0,
    "POLL_MIN_INTERVAL": 0.5,
    "POLL_MAX_INTERVAL": 10.0,
}


class Fleet:
    """Everybody who sends, delivers and polls: two senders, two relays, two Celery workers of two processes, and beat.

    Args:
        arena: Where they are started.
        redis: The broker; None: there is none, and the relays do it alone.
        rate: Orders per second, of all senders together.
    """

    def __init__(self, arena: Arena, redis: OwnRedis | None, rate: float) -> None:
        self.arena = arena
        self.redis = redis
        self.rate = rate
        self.running: dict[str, ChildProcess] = {}
        self._generation: dict[str, int] = {}
        self.memory: list[Series] = []
        names = ["relay 1", "relay 2", *(["worker 1", "worker 2", "beat"] if redis else [])]
        self.senders = ["sender 1", "sender 2"]
        for name in (*names, *self.senders):
            self._start(name)

    def _start(self, name: str) -> None:
        from tests.soak.memory import Series

        generation = self._generation[name] = self._generation.get(name, 0) + 1
        self.running[name] = self._command(name, generation)
        title = name if generation == 1 else f"{name} (no. {generation})"
        self.memory.append(Series(title, is_ours=True))

    def _command(self, name: str, generation: int) -> ChildProcess:
        kind, _, number = name.partition(" ")
        env = {"FAULTS_BROKER": self.redis.url, "FAULTS_QUEUE": "soak"} if self.redis else {}
        options = ("-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
        match kind:
            case "relay":
                return self.arena.start("relay", "--deliver", "1", "--poll", "1")
            case "worker":
                node = ("--concurrency", "2", "--hostname", f"{kind}-{number}-{generation}@soak")
                return self.arena.start("celery", "worker", *node, *options, env=env)
            case "beat":
                schedule = str(self.arena.folder / "beat")
                return self.arena.start(
                    "celery", "beat", "--schedule", schedule, "--pidfile=", "-l", "WARNING", env=env
                )
            case _:
                # One hands its rows to the workers, where there are any.
                delivery = "celery" if self.redis and number == "2" else "on_commit"
                rate = str(self.rate / len(self.senders))
                return self.arena.start("steady", self.prefix_of(name), rate, env=env, DELIVERY=delivery)

    def prefix_of(self, sender: str) -> str:
        """Return what a sender's orders are named after."""
        return f"{self.arena.prefix}-{sender.partition(' ')[2]}"

    def replace(self, name: str) -> None:
        """Kill one of them, and start another in its place."""
        self.running[name].kill()
        self._start(name)

    def end_senders(self) -> None:
        """Let the senders finish what they do."""
        for name in self.senders:
            self.running.pop(name).stop()

    def dead(self) -> dict[str, str]:
        """Return those that have ended by themselves, each with the end of its log."""
        return {name: child.log_tail() for name, child in self.running.items() if not child.running}

    def look(self, at: float, others: dict[str, int]) -> None:
        """Note what each process holds.

        Args:
            at: Seconds since the run began.
            others: Processes that are not the app's, by their names.
        """
        from tests.soak.memory import Series, megabytes

        newest = {series.name.partition(" (")[0]: series for series in self.memory}
        for name, child in self.running.items():
            if child.pid is not None and child.running:
                newest[name].samples.append((at, megabytes(child.pid)))
        for name, pid in others.items():
            if name not in newest:
                newest[name] = Series(name, is_ours=False)
                self.memory.append(newest[name])
            newest[name].samples.append((at, megabytes(pid)))

    def told(self) -> str:
        """Return what each process holds now, in megabytes."""
        newest = {series.name.partition(" (")[0]: series for series in self.memory if series.samples}
        return ", ".join(f"{name} {series.now:.0f}" for name, series in newest.items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Sends orders to a real Restate server for some minutes while servers, workers, the broker, the "
        "wire and the database's connections fail in turn, on the database that DATABASE_URL names (SQLite by default)."
        " Exits with 1 when an order is lost, runs twice or stays open, or a process's memory grows.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long orders are taken (default: 10)")
    parser.add_argument("--rate", type=float, default=20.0, help="orders per second (default: 20)")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two lines (default: 60)")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds between two faults (default: 10)")
    parser.add_argument("--folder", type=Path, help="where the processes' logs are kept (default: nowhere)")
    options = parser.parse_args(arguments)

    # Whoever ends it early leaves no database behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    from tests.benchmarks.lab import Lab
    from tests.faults.arena import Arena, start_ground
    from tests.soak.trouble import OwnRedis, Trouble

    with Lab(rounds=1, scale=1) as lab, ExitStack() as stack:
        lab.database()
        folder = options.folder or lab.folder
        folder.mkdir(parents=True, exist_ok=True)
        ground = start_ground(stack, folder)
        redis = OwnRedis(folder) if OwnRedis.is_installed() else None
        if redis is not None:
            stack.callback(redis.process.kill)
            redis.start()
        else:
            say("There is no redis-server on this machine: the relays do it alone.")
        # The folder may have the ledger of an earlier run: no two have an order of the same name.
        arena = Arena(ground, "", folder, f"soak-{secrets.token_hex(3)}", _Settings())
        arena.connection = dict(CONNECTION)
        arena.use_directly()
        stack.callback(arena.stop)
        fleet = Fleet(arena, redis, options.rate)
        trouble = Trouble(arena, fleet, min(5.0, options.calm / 2))
        seconds = run(arena, fleet, trouble, options)
        fleet.end_senders()
        settled = settle(fleet)
        counts = [arena.count(f"{lab.database()}: {name}", fleet.prefix_of(name)) for name in fleet.senders]
        good = verdict(counts, fleet, trouble, seconds, settled)
    sys.exit(0 if good else 1)


class _Settings:
    """Sets settings as pytest-django's fixture does, for as long as this process lives."""

    def __setattr__(self, name: str, value: Any) -> None:
        override_settings(**{name: value}).enable()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(arena: Arena, fleet: Fleet, trouble: Trouble, options: argparse.Namespace) -> float:
    """Let them work, look at them, and make trouble. Returns how many seconds it took."""
    from restate_django.models import Invocation

    handlers, server = arena.ground.handlers, arena.ground.server
    began = time.monotonic()
    end = began + options.minutes * 60
    turns: dict[Callable[[], None], tuple[float, float]] = {}
    faults: list[str] = []
    seen = 0

    def look() -> None:
        others = {"Restate": server.pid, "handlers": handlers.pid}
        fleet.look(time.monotonic() - began, {name: pid for name, pid in others.items() if pid})

    def tell() -> None:
        nonlocal seen
        # By time-ordered keys the newest is found at once; what was recorded is counted.
        total, open_rows = Invocation.objects.count(), Invocation.objects.open().count()
        rate = (total - seen) / options.every
        seen = total
        say(
            f"[{time.monotonic() - began:5.0f} s] {total:,} sent, {rate:.1f}/s, {open_rows} open; "
            f"MB: {fleet.told()}; {', '.join(faults) or 'calm'}"
        )
        faults.clear()

    turns = {
        look: (LOOKS_EVERY, began),
        tell: (options.every, began + options.every),
        lambda: faults.append(trouble.make()): (options.calm, began + options.calm),
    }
    while time.monotonic() < end:
        for turn, (every, due) in turns.items():
            if time.monotonic() >= due:
                turn()
                turns[turn] = (every, time.monotonic() + every)
        time.sleep(0.05)
    look()
    tell()
    return time.monotonic() - began


def settle(fleet: Fleet) -> float:
    """Wait until nothing is open, with nobody's help. Returns how many seconds it took."""
    from restate_django.models import Invocation

    began = time.monotonic()
    while Invocation.objects.open().exists() and time.monotonic() - began < SETTLES_IN and not fleet.dead():
        time.sleep(0.2)
    return time.monotonic() - began


def verdict(counts: list[Count], fleet: Fleet, trouble: Trouble, seconds: float, settled: float) -> bool:
    """Print what became of it, and tell whether it is good."""
    from tests.told import lines

    say("\nfaults: " + ", ".join(f"{name} {times}x" for name, times in trouble.done.items()))
    say(f"the last rows settled in {settled:.1f} s\n")
    heads = ["", "invocations", "once", "says why", "lost", "twice", "left open", "wrong", "per second"]
    cells = [[*map(str, dataclasses.astuple(each)), f"{each.invocations / seconds:.1f}"] for each in counts]
    say("\n".join(lines(heads, cells)))
    memory = [
        [
            series.name,
            f"{series.samples[0][1]:.1f}",
            f"{max(value for _at, value in series.samples):.1f}",
            f"{series.now:.1f}",
            "-" if (slope := series.slope(seconds)) is None else f"{slope * 60:+.2f}",
            "GROWS" if series.grows(seconds) else "",
        ]
        for series in fleet.memory
        # One that was replaced soon says nothing.
        if len(series.samples) > 1
    ]
    say("\n" + "\n".join(lines(["memory, MB", "first", "most", "last", "per minute, 2nd half", ""], memory)))
    dead = fleet.dead()
    for name, log in dead.items():
        say(f"\n{name} ended by itself. {log}")
    good = all(count.is_clean and count.invocations for count in counts) and not dead
    good = good and not any(series.grows(seconds) for series in fleet.memory)
    say("\ngood" if good else "\nNOT GOOD")
    return good


if __name__ == "__main__":
    main()
