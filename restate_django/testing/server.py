"""Start a real Restate server on free ports, with its data in a temporary folder.

It imports the standard library, ``requests`` and its neighbours alone. A server started here is ready when ``start``
returns, keeps its data and its ports over ``kill`` and ``restart``, and is gone when its owner is.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests

from restate_django.testing.binary import find_binary
from restate_django.testing.owned import OwnServer
from restate_django.testing.process import LOOPBACK, ChildProcess, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCOPES_ENV: Mapping[str, str] = {
    "RESTATE_EXPERIMENTAL_ENABLE_VQUEUES": "true",
    "RESTATE_EXPERIMENTAL_ENABLE_PROTOCOL_V7": "true",
    "RESTATE_EXPERIMENTAL_ENABLE_SCOPED_VIRTUAL_OBJECTS": "true",
}
"""What turns on scopes, limit keys and scoped objects on a new data folder of 1.7 (1.8 has them always on)."""


class RestateServer(OwnServer):
    """A Restate server of one's own, as a context manager.

    Attributes:
        ingress_port: Where handlers are invoked.
        admin_port: Where the Admin API, SQL and the UI are.
        node_port: Restate's own port between nodes.
        data_dir: Where it keeps everything that it knows.
        log_file: Its standard output and error, over all restarts.
    """

    def __init__(
        self,
        version: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        data_dir: str | Path | None = None,
        ingress_port: int | None = None,
        admin_port: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Describe the server; nothing is started yet.

        Args:
            version: This version exactly, installed if need be. None takes what the machine has: the program that
                ``RESTATE_SERVER`` names, else ``restate-server`` on the PATH, else ``binary.DEFAULT_VERSION``.
            env: Restate's own settings, as environment variables (``SCOPES_ENV``, say), on top of this process's.
            data_dir: A folder to keep the data in. None: a temporary folder, removed by ``stop``.
            ingress_port: A port to serve the ingress on if it is free at the first start; else another is taken.
            admin_port: The same for the Admin API.
            timeout: Seconds that a start may take.
        """
        super().__init__(ingress_port, admin_port, None)
        self.version = version
        self.timeout = timeout
        self._env = dict(env or {})
        self._dir_is_temporary = data_dir is None
        self._dir = Path(data_dir).absolute() if data_dir is not None else None
        self.ingress_port = self.admin_port = self.node_port = 0

    # ------------------------------------------------------------ what it is

    @property
    def ingress_url(self) -> str:
        """The ingress, without a slash at its end. Known after the first start."""
        return f"http://{LOOPBACK}:{self.ingress_port}"

    @property
    def admin_url(self) -> str:
        """The Admin API, without a slash at its end. Known after the first start."""
        return f"http://{LOOPBACK}:{self.admin_port}"

    @property
    def data_dir(self) -> Path:
        """The folder with its data and its log."""
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="restate-server-"))
        return self._dir

    @property
    def log_file(self) -> Path:
        """The file with all that it said."""
        return self.data_dir / "server.log"

    # ------------------------------------------------------------ start and end

    def start(self) -> Self:
        """Start it, and return when ingress and Admin API both say that they are healthy.

        The first start picks ports; later ones keep them, since others know them by then.

        Raises:
            NoServerError: There is no such server on this machine, and none could be installed.
            StartError: It ended, or was not healthy in time. The message quotes its log.
        """
        if self.running:
            raise RuntimeError("The Restate server is running already.")
        self._binary = find_binary(self.version)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except StartError:
            if self._process is None and self._dir_is_temporary:
                # The log stays, since the message names it.
                shutil.rmtree(self._base_dir, ignore_errors=True)
            raise
        return self

    def stop(self) -> None:
        """End it in an orderly way. A temporary data folder is removed: this is the end of it."""
        self._end()
        self._forget()
        if self._dir_is_temporary and self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def wipe(self) -> None:
        """Throw its data away; a running server comes back empty on its ports, and knows no deployment any more."""
        was_running = self.running
        self.kill()
        shutil.rmtree(self._base_dir, ignore_errors=True)
        if was_running:
            self.start()

    # ------------------------------------------------------------ how

    @property
    def _base_dir(self) -> Path:
        return self.data_dir / "restate-data"

    def _took(self, ports: Sequence[int]) -> None:
        self.ingress_port, self.admin_port, self.node_port = ports

    def _start_once(self) -> None:
        env = {
            # The data is small, and several servers may run side by side on a small machine.
            "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE": "256MB",
            "RESTATE_DEFAULT_NUM_PARTITIONS": "4",
            **self._env,
            "RESTATE_INGRESS__BIND_ADDRESS": f"{LOOPBACK}:{self.ingress_port}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"{LOOPBACK}:{self.admin_port}",
            "RESTATE_BIND_ADDRESS": f"{LOOPBACK}:{self.node_port}",
            # Unix sockets have paths of at most 107 characters, which a temporary folder easily exceeds.
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FORMAT": "compact",
            "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
        }
        self._process = ChildProcess(
            [self._binary, "--node-name", "node-1", "--no-logo", "--base-dir", self._base_dir],
            name="The Restate server",
            log_file=self.log_file,
            env=env,
            cwd=self.data_dir,
        )
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between this machine and itself
            self._process.start()
            self._process.wait_until(lambda: self._healthy(session), timeout=self.timeout)

    def _healthy(self, session: requests.Session) -> bool:
        try:
            return all(
                session.get(url, timeout=2).ok
                for url in (f"{self.admin_url}/health", f"{self.ingress_url}/restate/health")
            )
        except requests.RequestException:
            return False
