"""Serve handlers written with the official Python SDK, beside a Restate server that calls them.

It imports the standard library, ``requests`` and its neighbours alone; the SDK and Hypercorn run in the child process,
so they need to be installed only where handlers are really served.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests

from restate_django.testing.owned import OwnServer
from restate_django.testing.process import LOOPBACK, ChildProcess, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class HandlerServer(OwnServer):
    """A child process with the handlers of one SDK app, as a context manager.

    Attributes:
        app: Where the app is: ``module:name``.
        port: Where it is served; chosen at the first start and kept from then on, since Restate remembers it.
        log_file: Its standard output and error, over all restarts.
    """

    def __init__(
        self,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        port: int | None = None,
        log_file: str | Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Describe the server; nothing is started yet.

        Args:
            app: An import path, ``module:name``, of what ``restate.app([...])`` returned.
            env: Variables for the handlers, on top of this process's own environment.
            cwd: The folder that the module is imported from; this process's own when None.
            port: A port to serve on if it is free at the first start; else another is taken.
            log_file: Where its output goes. None: a temporary file, removed by ``stop``.
            timeout: Seconds that a start may take.
        """
        super().__init__(port)
        self.app = app
        self.timeout = timeout
        self.port = 0
        self._env = dict(env or {})
        self._cwd = Path(cwd) if cwd is not None else Path.cwd()
        self._log_file = Path(log_file) if log_file is not None else None
        self._temporary: Path | None = None

    @property
    def url(self) -> str:
        """Where Restate finds the handlers. Known after the first start."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log_file(self) -> Path:
        """The file with all that it said."""
        if self._log_file is not None:
            return self._log_file
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="restate-handlers-"))
        return self._temporary / "handlers.log"

    def start(self) -> Self:
        """Start it, and return when it answers.

        Raises:
            StartError: A package is missing, the app can't be imported, or it was not ready in time.
        """
        missing = [name for name in ("restate", "hypercorn") if importlib.util.find_spec(name) is None]
        if missing:
            raise StartError(
                f"Serving handlers needs {' and '.join(missing)}: pip install 'restate-sdk[serde]' hypercorn"
            )
        if self.running:
            raise RuntimeError("The handlers are served already.")
        self._start()
        return self

    def register(self, admin_url: str, *, force: bool = True, token: str | None = None, timeout: float = 30.0) -> str:
        """Tell a Restate server about the handlers.

        Args:
            admin_url: The server's Admin API.
            force: Replace what the server knows about a deployment at this address.
            token: A bearer token, where the server wants one.
            timeout: Seconds that the server may take to ask the handlers what there is.

        Returns:
            The deployment's id.

        Raises:
            StartError: The server refused. The message has its answer.
        """
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between this machine and itself
            if token:
                session.headers["Authorization"] = f"Bearer {token}"
            try:
                answer = session.post(
                    f"{admin_url.rstrip('/')}/deployments", json={"uri": self.url, "force": force}, timeout=timeout
                )
            except requests.RequestException as error:
                raise StartError(f"No Restate server to register {self.app} at: {error}") from error
        if not answer.ok:
            raise StartError(
                f"Restate at {admin_url} refused {self.app} ({answer.status_code}): {answer.text}\n{self.log_tail()}"
            )
        return str(answer.json()["id"])

    def stop(self) -> None:
        """End it in an orderly way. Invocations that run are suspended or retried by Restate."""
        self._end()
        self._forget()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def _took(self, ports: Sequence[int]) -> None:
        (self.port,) = ports

    def _end(self) -> None:
        if self._process is not None:
            # Not SIGTERM: the SDK (1.3.0) puts its own handler in the place of Hypercorn's, which then never ends.
            self._process.stop(timeout=5, by=signal.SIGINT)

    def _start_once(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        # One process, which a kill hits itself.
        self._process = ChildProcess(
            [sys.executable, "-m", "restate_django.testing.serving", self.app, str(self.port)],
            name=f"The handlers of {self.app}",
            log_file=self.log_file,
            env=self._env,
            cwd=self._cwd,
        )
        with requests.Session() as session:
            session.trust_env = False
            self._process.start()
            self._process.wait_until(lambda: self._healthy(session), timeout=self.timeout)

    def _healthy(self, session: requests.Session) -> bool:
        try:
            # The SDK answers /health itself, on every app (read off its server module).
            return session.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False
