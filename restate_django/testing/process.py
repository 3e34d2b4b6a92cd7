"""Child processes that come up when they say so, keep a log, and never outlive their parent.

It imports the standard library alone. Each child leads a process group of its own, so a Ctrl-C in the terminal reaches
only the parent, which then stops its children in order; a kill hits the whole group.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOOPBACK = "127.0.0.1"
_HIGHEST_PORT = 32_000
_LOWEST_PORT = 15_000

# Linux kills the child when its parent is gone, however that went. The wrapper execs the program, so the process id is
# the program's own. A preexec_fn would do the same, but is unsafe, and warned about, in a process with threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class StartError(RuntimeError):
    """A child process did not come up. The message quotes the end of its log."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on at this moment.

    Ports below the range that the system hands out for outgoing connections are preferred: such a port is still free
    when a server is stopped and started again on it.
    """
    for _ in range(200):
        port = random.randint(_LOWEST_PORT, _HIGHEST_PORT)  # noqa: S311 - a port number is no secret
        if port_is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # What servers do too: without it, connections that were closed a moment ago make a port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


@dataclasses.dataclass
class ClaimedPort:
    """A port that no other launcher of this user takes while this one holds it.

    Without it, two launchers that start at the same moment choose the same port: one server listens, and the other's
    launcher takes its answer for the answer of its own server, which is just about to give up.

    Attributes:
        number: The port.
    """

    number: int
    _lock: IO[str] | None

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def claim_port(wanted: int | None = None) -> ClaimedPort:
    """Claim a free port, until it is released or this process ends.

    Args:
        wanted: This one if it is free and nobody claims it; else any other.
    """
    while True:
        port = wanted if wanted and port_is_free(wanted) else free_port()
        wanted = None
        lock = _lock_port(port)
        # Looked at again under the lock: its last holder may have started a server in the meantime.
        if lock is not None and port_is_free(port):
            return ClaimedPort(port, lock)
        if lock is not None:
            lock.close()


def _lock_port(port: int) -> IO[str] | None:
    import fcntl  # not on Windows, for which there is no Restate server either

    folder = Path(tempfile.gettempdir(), f"restate-django-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = (folder / str(port)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


# Strong references: a child whose owner was forgotten is still killed at exit.
_running: set[ChildProcess] = set()


@atexit.register
def _kill_what_is_left() -> None:
    for child in list(_running):
        child.kill()


class ChildProcess:
    """A program run as a child, with its output in a log file.

    It dies with this process: at a normal exit everywhere, and on Linux also when this process is killed, as long as
    it was started from the main thread (Linux ties the signal to the thread).

    Attributes:
        name: What messages call it.
        log_file: Where its standard output and error go, appended to at every start. None: to this process's own.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str,
        log_file: Path | None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Describe the child; nothing is started yet.

        Args:
            argv: The program and its arguments.
            name: What messages call it.
            log_file: Where its output goes, in a folder that exists; None for this process's own output.
            env: Variables on top of this process's own environment.
            cwd: Its working folder; this process's own when None.
        """
        self.argv = [str(part) for part in argv]
        self.name = name
        self.log_file = log_file
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program. Does not wait until it is ready: see ``wait_until``."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already (process {self.pid}).")
        argv = self.argv
        in_main_thread = threading.current_thread() is threading.main_thread()
        if sys.platform == "linux" and sys.executable and in_main_thread:
            argv = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *argv]
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self.log_file.open("ab")) if self.log_file else None
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own program, without a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        _running.add(self)

    @property
    def pid(self) -> int | None:
        """The process id, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """The exit code of the last run (negative: the signal that ended it), None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Wait until the program is ready.

        Args:
            ready: Asked every few milliseconds until it says True. It must not take long itself.
            timeout: Seconds to wait at most.

        Raises:
            StartError: The program ended, or was not ready in time (and is then killed).
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise StartError(
                    f"{self.name} ended with exit code {self.returncode} before it was ready.\n{self.log_tail()}"
                )
            if ready():
                # On a port that another program took first, that program may have answered.
                if self.running:
                    return
                continue
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"{self.name} was not ready after {timeout:g} seconds.\n{self.log_tail()}")
            time.sleep(0.02)

    def wait(self, timeout: float) -> int:
        """Wait until the program has ended by itself, and return its exit code.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            StartError: It was never started, or still runs after that time (and goes on).
        """
        if self._process is None:
            raise StartError(f"{self.name} was never started.")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise StartError(f"{self.name} still runs after {timeout:g} seconds.\n{self.log_tail()}") from None

    def stop(self, *, timeout: float = 10.0, by: signal.Signals = signal.SIGTERM) -> None:
        """End the program with a signal, and its whole group with SIGKILL when it has not ended in time.

        Args:
            timeout: Seconds that it has to end in an orderly way.
            by: The signal that asks for it.
        """
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(by)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the program and whatever it started with SIGKILL, at once. Does nothing when it has ended."""
        if self._process is None or self not in _running:
            return
        # The group may outlive its leader: what the program started itself ends here as well.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Once only: later the number may belong to somebody else.
        _running.discard(self)

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the log, with its path, for an error message.

        Args:
            lines: How many lines at most.
        """
        if self.log_file is None:
            return "It wrote to the terminal."
        try:
            text = self.log_file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return f"Its log can't be read: {error}"
        tail = "\n".join(text.splitlines()[-lines:])
        return f"The end of {self.log_file}:\n{tail or '(it is empty)'}"
