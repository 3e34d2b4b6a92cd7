"""A server of one's own, as a context manager: it starts on free ports, is killed, and comes back on the same ones.

It imports the standard library and its neighbour ``process`` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Self

from restate_django.testing.process import ClaimedPort, StartError, claim_port, port_is_free

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from restate_django.testing.process import ChildProcess

_START_ATTEMPTS: Final = 3


class OwnServer(ABC):
    """A child process that listens on ports which are chosen at its first start, and kept from then on."""

    def __init__(self, *wanted_ports: int | None) -> None:
        """Describe it; nothing is started yet.

        Args:
            wanted_ports: For each port that it listens on, the one to take if it is free at the first start.
        """
        self._wanted_ports = wanted_ports
        self._claims: list[ClaimedPort] = []
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server itself, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of its log, with the log's path."""
        return self._process.log_tail(lines) if self._process else "It was never started."

    @abstractmethod
    def start(self) -> Self:
        """Start it, and return when it answers. The first start picks ports; later ones keep them."""

    @abstractmethod
    def stop(self) -> None:
        """End it in an orderly way, for good."""

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would. ``start`` brings it back with what it has kept, on its ports."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """End it in an orderly way and start it again on its ports, with what it has kept."""
        self._end()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------ for those that are one

    @abstractmethod
    def _took(self, ports: Sequence[int]) -> None:
        """Take note of the ports, in the order of those that were wanted."""

    @abstractmethod
    def _start_once(self) -> None:
        """Start the process on its ports, and return when it answers. Raises ``StartError``."""

    def _end(self) -> None:
        """End the process in an orderly way; it may be started again."""
        if self._process is not None:
            self._process.stop()

    def _start(self) -> None:
        """Start it on its ports; at the first start on ports that are free."""
        if self._process is not None:
            self._start_once()
            return
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._release_ports()
            self._claims = [claim_port(wanted if attempt == 1 else None) for wanted in self._wanted_ports]
            numbers = [claim.number for claim in self._claims]
            self._took(numbers)
            try:
                self._start_once()
            except StartError:
                # Between picking a port and listening on it, another program may have taken it.
                if attempt == _START_ATTEMPTS or all(map(port_is_free, numbers)):
                    self._forget()
                    raise
            else:
                return

    def _forget(self) -> None:
        """Let go of the process and of its ports: the next start is a first one."""
        self._process = None
        self._release_ports()

    def _release_ports(self) -> None:
        while self._claims:
            self._claims.pop().release()
