"""A Restate server with handlers that it knows: both started, registered and stopped together.

It imports its neighbours alone. What is started here is gone when the block ends, however it ends.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restate_django.testing.endpoint import HandlerServer
from restate_django.testing.server import RestateServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Running:
    """What runs.

    Attributes:
        server: The Restate server.
        handlers: The processes that serve handlers, in the order of their apps.
    """

    server: RestateServer
    handlers: tuple[HandlerServer, ...]

    @property
    def ingress_url(self) -> str:
        """The server's ingress."""
        return self.server.ingress_url

    @property
    def admin_url(self) -> str:
        """The server's Admin API."""
        return self.server.admin_url

    def settings(self, own: Mapping[str, Mapping[str, Any]] | None = None, **values: Any) -> dict[str, dict[str, Any]]:
        """Return a project's ``RESTATE`` with each connection leading to this server.

        Args:
            own: The project's; None for one connection and the defaults.
            values: Further keys for each connection.
        """
        urls = {"INGRESS_URL": self.ingress_url, "ADMIN_URL": self.admin_url, "TOKEN": None}
        # A server on this machine wants no proxy's headers, no path of an older one and no certificate.
        dropped = {"HEADERS", "PATH_STYLE", "CA_BUNDLE", "UI_URL"}
        return {
            alias: {key: value for key, value in entry.items() if key not in dropped} | urls | values
            for alias, entry in (own or {"default": {}}).items()
        }


@contextmanager
def running(
    apps: Sequence[str] = (),
    *,
    version: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    handler_env: Mapping[str, str] | None = None,
    data_dir: str | Path | None = None,
    ports: tuple[int | None, int | None] = (None, None),
    handler_port: int | None = None,
) -> Iterator[Running]:
    """Run a Restate server and the handlers of some apps.

    Args:
        apps: Import paths, ``module:name`` each, of what the SDK's ``restate.app([...])`` returned.
        version: As ``RestateServer`` takes it, as are ``env`` and ``data_dir``.
        env: Restate's own settings.
        cwd: The folder that the apps are imported from; this process's own when None.
        handler_env: Variables for the handlers.
        data_dir: Where the server keeps its data; a temporary folder when None.
        ports: For ingress and Admin API, where they are free; else others.
        handler_port: For the first app, where it is free; for the next ones those above it.

    Raises:
        NoServerError: There is no such server on this machine, and none could be installed.
        StartError: The server or the handlers did not come up.
    """
    with ExitStack() as stack:
        server = RestateServer(version, env=env, data_dir=data_dir, ingress_port=ports[0], admin_port=ports[1])
        stack.callback(server.stop)
        server.start()
        handlers = []
        for number, app in enumerate(apps):
            port = None if handler_port is None else handler_port + number
            process = HandlerServer(app, env=handler_env, cwd=cwd, port=port)
            stack.callback(process.stop)
            process.start()
            process.register(server.admin_url)
            handlers.append(process)
        yield Running(server, tuple(handlers))
