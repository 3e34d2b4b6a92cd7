"""Real servers for the client's tests: 1.7 and 1.6 side by side, and one with scopes, all with the same handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from restate_django.client import AdminClient, IngressClient, detect_path_style
from restate_django.testing import HandlerServer
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Running


@dataclass
class Server:
    """A Restate server that knows the handlers of ``handlers.py``, with a client of each of its sides."""

    ingress: IngressClient
    admin: AdminClient
    ingress_url: str
    admin_url: str
    release: tuple[int, ...] = field(default=())

    @property
    def is_legacy(self) -> bool:
        return self.release < (1, 7)

    def __str__(self) -> str:
        return ".".join(map(str, self.release))


@pytest.fixture(scope="session")
def _handlers() -> Iterator[HandlerServer]:
    with HandlerServer("tests.client.handlers:app", cwd=ROOT) as handlers:
        yield handlers


@pytest.fixture(scope="session")
def _serve(_handlers: HandlerServer) -> Iterator[Callable[[Running], Server]]:
    clients: list[Any] = []

    def serve(running: Running) -> Server:
        _handlers.register(running.admin_url)
        admin = AdminClient(running.admin_url)
        ingress = IngressClient(running.ingress_url, path_style=detect_path_style(admin))
        clients.extend((admin, ingress))
        return Server(ingress, admin, running.ingress_url, running.admin_url, admin.version().release)

    yield serve
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def modern(_serve: Callable[[Running], Server], restate_server: Running) -> Server:
    """A server of 1.7 or later."""
    return _serve(restate_server)


@pytest.fixture(scope="session")
def legacy(_serve: Callable[[Running], Server], legacy_restate_server: Running) -> Server:
    """A server of 1.6."""
    return _serve(legacy_restate_server)


@pytest.fixture(scope="session")
def scoped(_serve: Callable[[Running], Server], scoped_restate_server: Running) -> Server:
    """A server with scopes and limit keys switched on."""
    return _serve(scoped_restate_server)


@pytest.fixture(scope="session", params=["modern", "legacy"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two versions in turn."""
    return request.getfixturevalue(request.param)
