"""What goes wrong during a soak, one thing after the other, each of it undone before the next."""

from __future__ import annotations

import itertools
import shutil
import socket
import time
from typing import TYPE_CHECKING, Final

from django.db import connection as database

from restate_django.testing.process import LOOPBACK, ChildProcess, free_port
from tests.faults.arena import end_connections
from tests.faults.proxy import PASS, Gate, Plan, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.arena import Arena
    from tests.faults.proxy import Request
    from tests.soak.__main__ import Fleet

#: What is done to one send in three while the wire is bad.
BAD: Final = (
    Plan(cut="before"),
    Plan(cut="inside"),
    Plan(forward=False, cut="before"),
    Plan(answer=answer(500, b'{"message": "oh"}')),
    Plan(forward=False, answer=answer(429, b'{"message": "later"}')),
)
#: Ends the connections of everybody but the one who asks.
END_CONNECTIONS: Final = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT CONCAT('KILL ', id) FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


class OwnRedis:
    """A Redis that keeps nothing: a restart loses every task that was waiting.

    Args:
        folder: Where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.process = ChildProcess(
            [
                "redis-server", "--port", str(self._port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no",
                "--dir", folder,
            ],
            name="Redis",
            log_file=folder / "redis.log",
        )  # fmt: skip
        self.url = f"redis://{LOOPBACK}:{self._port}/0"

    @staticmethod
    def is_installed() -> bool:
        """Tell whether this machine has one."""
        return shutil.which("redis-server") is not None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process.start()
        self.process.wait_until(self._listens, timeout=20)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._port)) == 0


class Trouble:
    """The faults of a run, in turn.

    Args:
        arena: The server and the wire.
        fleet: The processes.
        seconds: How long each lasts that has a duration.
    """

    def __init__(self, arena: Arena, fleet: Fleet, seconds: float) -> None:
        self.arena = arena
        self.fleet = fleet
        self.seconds = seconds
        self.done: dict[str, int] = {}
        self._turn: Iterator[tuple[str, Callable[[], None]]] = itertools.cycle(self._all().items())

    def make(self) -> str:
        """Do the next one, undo it, and return its name."""
        name, fault = next(self._turn)
        fault()
        self.done[name] = self.done.get(name, 0) + 1
        return name

    def _all(self) -> dict[str, Callable[[], None]]:
        faults = {
            "server killed": self._kill_server,
            "wire bad": self._spoil_wire,
            "relay killed": lambda: self.fleet.replace("relay 2"),
            "database connections ended": self._end_connections,
            "wire slow": self._slow_wire,
            "server hangs": self._hang,
        }
        if self.fleet.redis is not None:
            faults |= {
                "worker killed": lambda: self.fleet.replace("worker 2"),
                "broker killed": self._kill_broker,
            }
        return faults

    def _kill_server(self) -> None:
        self.arena.ground.server.kill()
        self.arena.ground.server.start()

    def _kill_broker(self) -> None:
        redis = self.fleet.redis
        assert redis is not None
        redis.process.kill()
        time.sleep(self.seconds)
        redis.start()

    def _end_connections(self) -> None:
        if database.vendor == "sqlite":
            # A file has no connections: somebody holds the lock for a while.
            with self.arena.locked_rows():
                time.sleep(self.seconds)
            return
        end_connections(END_CONNECTIONS[database.vendor])

    def _spoil_wire(self) -> None:
        numbers = itertools.count()

        def rule(request: Request) -> Plan:
            number = next(numbers)
            return BAD[number // 3 % len(BAD)] if request.is_send and number % 3 == 0 else PASS

        self._with_rule(rule)

    def _slow_wire(self) -> None:
        self._with_rule(lambda _request: Plan(delay=0.3))

    def _hang(self) -> None:
        gate = Gate()
        self._with_rule(lambda _request: Plan(hold_answer=gate))
        gate.drop()

    def _with_rule(self, rule: Callable[[Request], Plan]) -> None:
        self.arena.ingress.rule = rule
        time.sleep(self.seconds)
        self.arena.ingress.rule = lambda _request: PASS
