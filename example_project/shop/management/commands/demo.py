"""``demo``: the whole shop on this machine, from the Restate server to the site, until Ctrl-C.

Everything is a child process with a log file under ``.demo``; nothing is left behind, however this one ends. Ports are
the usual ones where they are free, others where they are not.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

import restate_django
from restate_django.testing import HandlerServer, RestateServer, StartError
from restate_django.testing.process import LOOPBACK, ChildProcess, claim_port, port_is_free

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable
    from types import FrameType

_PORT = 8000
_INGRESS_PORT = 8080
_ADMIN_PORT = 9070
_HANDLER_PORT = 9080
_ATTEMPTS = 3
# Seconds until a Restate server or a handler process that somebody stopped is started again: time enough to place an
# order without it, and to see in the admin what becomes of that.
_PATIENCE = 20.0


class _Stop(BaseException):
    """Somebody wants the demo to end. Not an Exception: nothing on the way may take it for an error."""


class Command(BaseCommand):
    """Start all of it."""

    help = "Starts Restate, the handlers, a Celery worker and beat, and the site. Ctrl-C stops everything."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what there is to choose."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="Run one invocation of each kind to its end, and exit with 0 only if each ended as it should.",
        )
        parser.add_argument(
            "--deadline", type=float, default=40.0, help="With --check: seconds for all invocations together."
        )

    def handle(self, **options: Any) -> None:
        """Start, wait, stop."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Whoever started it with nohup wants it to outlive the terminal.
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, _stop)
        stack, demo, code = ExitStack(), None, 0
        try:
            demo = _Demo(self, stack, check=options["check"])
            demo.start()
            code = demo.check(options["deadline"]) if options["check"] else demo.show()
        except _Stop:
            code = 1 if options["check"] else 0
        except (StartError, CommandError) as error:
            self.stderr.write(self.style.ERROR(str(error)))
            code = 1
        finally:
            # A second Ctrl-C must not leave half of it running.
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            stack.close()
            if demo is not None and options["check"]:
                demo.tidy(failed=code != 0)
        sys.exit(code)


def _stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise _Stop


class _Demo:
    """The processes, in the order in which they are started."""

    def __init__(self, command: BaseCommand, stack: ExitStack, *, check: bool) -> None:
        self.command, self.stack = command, stack
        self.folder = self._own_folder(Path(settings.DATA_DIR).absolute(), check=check)
        self.env = {
            "DJANGO_SETTINGS_MODULE": "example.settings",
            "SHOP_DATA": str(self.folder),
            "SHOP_BOOKS": str(self.folder / "books"),
            "PYTHONUNBUFFERED": "1",
            # The children run in the project's folder: a relative path in PYTHONPATH would lead elsewhere there.
            "PYTHONPATH": os.pathsep.join(
                [str(settings.BASE_DIR), str(Path(restate_django.__file__).resolve().parent.parent)]
                + [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
            ),
        }
        self.logs = self.folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.restate: RestateServer | None = None
        self.handlers = HandlerServer(
            "services.app:app",
            env=self.env,
            cwd=settings.BASE_DIR,
            port=self._last_port("handlers", _HANDLER_PORT),
            log_file=self.logs / "handlers.log",
        )
        self.site_url = ""
        self.children: dict[str, ChildProcess] = {}
        self._down_since: dict[str, float] = {}

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Start all of it, and return when the site answers."""
        self._purge_broker()
        prepare = self._child("prepare", "The database's migration", sys.executable, "manage.py", "demo_prepare")
        self._start_restate()
        self.stack.callback(self.handlers.stop)
        self.handlers.start()
        (self.folder / "handlers.port").write_text(str(self.handlers.port))
        self.handlers.register(self.env["RESTATE_ADMIN_URL"], token=os.environ.get("RESTATE_TOKEN"))
        if prepare.wait(120):
            raise StartError(f"The database could not be prepared.\n{prepare.log_tail()}")
        celery = (sys.executable, "-m", "celery", "-A", "example")
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        self.children["worker"] = self._child(
            "worker", "The Celery worker", *celery, "worker", "--pool=solo", "--loglevel=INFO", *quiet
        )
        schedule = f"--schedule={self.folder / 'beat-schedule'}"
        self.children["beat"] = self._child(
            "beat", "Celery beat", *celery, "beat", "--loglevel=INFO", "--pidfile=", schedule
        )
        self._start_site()

    def _own_folder(self, root: Path, *, check: bool) -> Path:
        """Return the folder of this run: one that is kept for the demo, a new one for a check."""
        root.mkdir(parents=True, exist_ok=True)
        if check:
            # A check starts from nothing, beside a demo or another check. Its logs stay when it went wrong.
            return Path(tempfile.mkdtemp(prefix="check-", dir=root))
        import fcntl  # not on Windows, for which there is no Restate server either

        lock = self.stack.enter_context((root / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"A demo is running in {root} already. Stop it first.") from None
        return root

    def _purge_broker(self) -> None:
        """Throw away the tasks of the last run: a file-system broker keeps them, and they are all late by now."""
        shutil.rmtree(self.folder / "broker", ignore_errors=True)
        for schedule in self.folder.glob("beat-schedule*"):
            schedule.unlink()

    def _last_port(self, name: str, default: int) -> int:
        """Return the port of the last run: Restate looks for the handlers of unfinished invocations there."""
        try:
            return int((self.folder / f"{name}.port").read_text())
        except (OSError, ValueError):
            return default

    def _start_restate(self) -> None:
        given = [os.environ.get(name) for name in ("RESTATE_INGRESS_URL", "RESTATE_ADMIN_URL")]
        if any(given):
            if not all(given):
                raise CommandError("Set both RESTATE_INGRESS_URL and RESTATE_ADMIN_URL, or none of them.")
            self.env["RESTATE_INGRESS_URL"], self.env["RESTATE_ADMIN_URL"] = map(str, given)
            _wait_for_restate(*map(str, given))
            return
        self.restate = RestateServer(
            data_dir=self.folder / "restate", ingress_port=_INGRESS_PORT, admin_port=_ADMIN_PORT
        )
        self.stack.callback(self.restate.stop)
        self.restate.start()
        self.env["RESTATE_INGRESS_URL"] = self.restate.ingress_url
        self.env["RESTATE_ADMIN_URL"] = self.restate.admin_url

    def _start_site(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            claim = claim_port(_PORT if attempt == 1 else None)
            self.stack.callback(claim.release)
            port = claim.number
            url = f"http://{LOOPBACK}:{port}/"
            serve = ("-m", "hypercorn", "example.asgi:application", "--bind", f"{LOOPBACK}:{port}")
            site = self._child("site", "The site", sys.executable, *serve)
            try:
                site.wait_until(lambda url=url: _answers(url), timeout=60)  # type: ignore[misc] # bound, not awaited
            except StartError:
                # Between picking the port and listening on it, another program may have taken it.
                if port_is_free(port) or attempt == _ATTEMPTS:
                    raise
            else:
                self.children["site"], self.site_url = site, url
                return

    def _child(self, log: str, name: str, *argv: str) -> ChildProcess:
        log_file = self.logs / f"{log}.log"
        child = ChildProcess(argv, name=name, log_file=log_file, env=self.env, cwd=Path(settings.BASE_DIR))
        self.stack.callback(child.stop, timeout=3)
        child.start()
        return child

    # ------------------------------------------------------------ run

    def check(self, deadline: float) -> int:
        """Run one invocation of each kind to its end, and return the exit code."""
        child = ChildProcess(
            [sys.executable, "manage.py", "demo_check", f"--deadline={deadline}"],
            name="The check",
            log_file=None,
            env=self.env,
            cwd=Path(settings.BASE_DIR),
        )
        self.stack.callback(child.stop, timeout=1)
        child.start()
        while child.running:
            self._look_after_children(restart=False)
            time.sleep(0.1)
        return 1 if child.returncode else 0

    def tidy(self, *, failed: bool) -> None:
        """Remove what a check has made; its logs stay when it went wrong."""
        if failed:
            self._say(f"The logs are in {self.logs}")
            for path in self.folder.iterdir():
                if path == self.logs:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def show(self) -> int:
        """Send some invocations, say where to look, and wait for Ctrl-C."""
        samples = self._child("samples", "The samples", sys.executable, "manage.py", "demo_samples")
        if samples.wait(60):
            raise StartError(f"The samples could not be sent.\n{samples.log_tail()}")
        self._say(
            f"""
  The shop       {self.site_url}
  The admin      {self.site_url}admin/  (user admin, password admin)
  Restate's UI   {self.env["RESTATE_ADMIN_URL"]}/ui
  The logs       {self.logs}

Seven invocations are on their way. Ctrl-C stops everything."""
        )
        if self.restate is not None:
            self._say(f"Try: kill {self.restate.pid}  (the Restate server; it comes back after {_PATIENCE:g} seconds)")
        while True:
            self._look_after_children(restart=True)
            time.sleep(0.3)

    def _look_after_children(self, *, restart: bool) -> None:
        """Start again what ended by itself; Restate and the handlers only in the demo, and only after a while."""
        for name, child in self.children.items():
            # None of them ends by itself unless something went wrong, or somebody wants to see what happens then.
            if not child.running:
                self._bring_back(name, child.name, child.start, after=1.0)
        for name, server, what in (
            ("restate", self.restate, "The Restate server"),
            ("handlers", self.handlers, "The handlers' process"),
        ):
            if server is None or server.running:
                self._down_since.pop(name, None)
            elif restart:
                self._bring_back(name, what, server.start, after=_PATIENCE)
            elif name not in self._down_since:
                self._down_since[name] = time.monotonic()
                self._say(f"{what} has ended. {server.log_tail(5)}", error=True)

    def _bring_back(self, name: str, what: str, start: Callable[[], Any], *, after: float) -> None:
        if name not in self._down_since:
            self._down_since[name] = time.monotonic()
            self._say(f"{what} has ended. It is started again in {after:g} seconds.", error=True)
        elif time.monotonic() - self._down_since[name] >= after:
            del self._down_since[name]
            try:
                start()
            except StartError as error:
                self._say(str(error), error=True)
            else:
                self._say(f"{what} is back.")

    def _say(self, text: str, *, error: bool = False) -> None:
        stream = self.command.stderr if error else self.command.stdout
        stream.write(text)
        stream.flush()


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False  # no proxy stands between this machine and itself
        try:
            return session.get(url, timeout=5).status_code < 500  # noqa: PLR2004 - also one that asks for a token
        except requests.RequestException:
            return False


def _wait_for_restate(ingress_url: str, admin_url: str) -> None:
    """Wait a little for a server that somebody else runs."""
    deadline = time.monotonic() + 5
    urls = (f"{ingress_url.rstrip('/')}/restate/health", f"{admin_url.rstrip('/')}/health")
    while missing := [url for url in urls if not _answers(url)]:
        if time.monotonic() > deadline:
            raise CommandError(f"No Restate server answers at {missing[0]}.")
        time.sleep(0.2)
