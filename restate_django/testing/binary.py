"""Where the program of a Restate server comes from: this machine, or the npm package.

It imports the standard library and its neighbour ``process`` alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from restate_django.testing.process import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_VERSION = "1.7.12"
"""The version that is installed where no ``restate-server`` is to be found."""

NPM_PACKAGE = "@restatedev/restate-server"


class NoServerError(StartError):
    """There is no ``restate-server`` on this machine, and none could be installed."""


def find_binary(version: str | None = None) -> Path:
    """Return the path of a ``restate-server``, installed if need be.

    Args:
        version: This version exactly; None for whatever the machine has, else ``DEFAULT_VERSION``.

    Raises:
        NoServerError: There is none, and it could not be installed. The message says what to do.
    """
    named = os.environ.get("RESTATE_SERVER")
    if named and not (Path(named).is_file() and os.access(named, os.X_OK)):
        raise NoServerError(f"RESTATE_SERVER is {named!r}, which is not a program on this machine.")
    for candidate in (named, shutil.which("restate-server")):
        if candidate and (version is None or _version_of(candidate) == version):
            return Path(candidate).absolute()
    return _from_npm(version or DEFAULT_VERSION)


def _version_of(program: str) -> str:
    """Ask a server for its version: ``restate-server 1.7.12`` is what 1.6.2 and 1.7.12 answer."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - the program that is about to be started anyway
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip().rpartition(" ")[2]


def cache_dir() -> Path:
    """Return the folder of this user that downloaded servers are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restate-django"


def _from_npm(version: str) -> Path:
    """Return the program of the npm package, downloaded at the first need and kept in the cache."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", version):
        raise NoServerError(f"{version!r} is not a version of Restate.")
    folder = cache_dir() / f"restate-server-{version}"
    inside = Path("node_modules", f"{NPM_PACKAGE}-{_platform()}", "bin", "restate-server")
    # The wrapper script of the package would stand between us and the server, and take the kill in its place.
    program = folder / inside
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        raise NoServerError(
            f"There is no restate-server {version} on this machine, and no npm to install it with. Install Node.js "
            "with npm, or put a restate-server on the PATH, or name one in the environment variable RESTATE_SERVER."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / f".{folder.name}.lock"):
        if not program.exists():
            _install(npm, version, folder, inside)
    return program


def _install(npm: str, version: str, folder: Path, inside: Path) -> None:
    """Install into a folder next to the right one and move it there whole: a half-done one is never used."""
    package = f"{NPM_PACKAGE}@{version}"
    sys.stderr.write(f"Installing {package} with npm into {folder} (about 80 MB, once) ...\n")
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as workspace:
        target = Path(workspace, "package")
        target.mkdir()
        argv = [npm, "install", "--prefix", str(target), "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        answer = subprocess.run([*argv, package], capture_output=True, text=True, check=False, cwd=target)  # noqa: S603 - npm from the PATH with fixed arguments
        if answer.returncode or not (target / inside).exists():
            said = (answer.stdout + answer.stderr).strip() or "npm said nothing"
            raise NoServerError(f"npm could not install {package} for {_platform()}:\n{said}")
        shutil.rmtree(folder, ignore_errors=True)
        target.rename(folder)
    sys.stderr.write(f"Installed {package}.\n")
    sys.stderr.flush()


def _platform() -> str:
    """Name this machine as the package's platform packages are named (``linux-x64``, ``darwin-arm64``)."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{sys.platform}-{machine.get(platform.machine().lower(), platform.machine().lower())}"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time download; the others wait, and find it done."""
    import fcntl  # not on Windows, for which there is no Restate server either

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
