"""``connections``: from an alias of ``RESTATE`` to its clients, as ``django.db.connections`` is for databases.

Imports the settings and the client, no models. There is one ``Connection`` for an alias in a process; threads share it
and a forked child keeps it, since the clients hold a session for each process and thread.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from django.core.signals import setting_changed

from restate_django.breaker import Breaker
from restate_django.client import AdminClient, IngressClient, detect_path_style
from restate_django.conf import aliases, get_settings
from restate_django.exceptions import NotSupported
from restate_django.service_info import ANSWER_TIMEOUT, AdminAnswers, ServiceDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from restate_django.client.paths import PathStyle
    from restate_django.conf import ConnectionSettings

# What may be repeated (keyed sends, workflow runs, every read) is tried once more, a tenth of a second later at most: a
# connection that just broke then costs no row a wait, and no page its picture. More patience than that is the jobs'.
_RETRIES: Final = 1
#: Requests from which on it is worth while to send them by libcurl.
BULK_FROM: Final = 8


class Connection:
    """One Restate server, or cluster: its settings, its two clients and what is known of its services.

    Made by ``connections[alias]``. Making one makes no request.

    Attributes:
        alias: Its name in ``RESTATE``.
        settings: Its settings.
        admin: The Admin API's client, None where ``ADMIN_URL`` is None.
        breaker: Whether this process should leave it to the relay for a while, after waiting in vain.
        services: What is known of the server's services, see ``ServiceDirectory``.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.alias = settings.alias
        self.settings = settings
        self.admin: AdminClient | None = None
        if settings.admin_url is not None:
            self.admin = AdminClient(
                settings.admin_url,
                settings.token,
                headers=settings.headers,
                timeout=settings.timeout,
                connect_timeout=settings.connect_timeout,
                retries=_RETRIES,
                trust_env=settings.trust_env,
                ca_bundle=settings.ca_bundle,
            )
        self.breaker = Breaker()
        self._answers = AdminAnswers(settings.alias, self.admin)
        self.services = ServiceDirectory(self._answers, settings.idempotency_retention)
        self._ingress: dict[PathStyle, IngressClient] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Connection {self.alias!r}: {self.settings.ingress_url}>"

    @property
    def path_style(self) -> PathStyle:
        """The paths that the server is sent, ``"restate"`` or ``"legacy"``.

        With ``PATH_STYLE = "auto"`` the server's version decides. It is asked for when this is first read and every
        five minutes after that, so don't read it inside a transaction. While it is not known, the last one known is
        used, else ``"restate"``: a server without these paths answers 404 for them, and rows wait.
        """
        style = self.settings.path_style
        if style != "auto":
            return style
        # A view may be the first to ask: it must not wait for long.
        timeout = min(self.settings.timeout, ANSWER_TIMEOUT)
        told = self._answers.get("its version", lambda admin: detect_path_style(admin, timeout=timeout))
        last: PathStyle | None = told or self._answers.last("its version")
        return last or "restate"

    @property
    def known_path_style(self) -> PathStyle:
        """The paths as far as they are known without asking the server: for pages, which wait for nobody."""
        if self.settings.path_style != "auto":
            return self.settings.path_style
        known: PathStyle | None = self._answers.last("its version")
        return known or "restate"

    @property
    def ingress(self) -> IngressClient:
        """The ingress's client. May ask the server for its version first, see ``path_style``."""
        style = self.path_style
        with self._lock:
            client = self._ingress.get(style)
            if client is None:
                client = self._ingress[style] = IngressClient(
                    self.settings.ingress_url,
                    self.settings.token,
                    headers=self.settings.headers,
                    timeout=self.settings.timeout,
                    connect_timeout=self.settings.connect_timeout,
                    retries=_RETRIES,
                    path_style=style,
                    trust_env=self.settings.trust_env,
                    ca_bundle=self.settings.ca_bundle,
                )
            return client

    def sends_in_bulk(self, requests: int) -> bool:
        """Tell whether so many requests to the ingress go by libcurl."""
        return requests >= BULK_FROM and self.ingress.sends_in_bulk

    def require_admin(self, what: str) -> AdminClient:
        """Return the Admin API's client.

        Args:
            what: What needs it, for the message: ``"cancel"``.

        Raises:
            NotSupported: The connection has no Admin API.
        """
        if self.admin is None:
            raise NotSupported(f'{what} needs the Admin API: set RESTATE["{self.alias}"]["ADMIN_URL"].')
        return self.admin

    def close(self) -> None:
        """Close the connections that are kept alive. The next request opens new ones."""
        with self._lock:
            clients = [*self._ingress.values()]
        for client in clients:
            client.close()
        if self.admin is not None:
            self.admin.close()

    def renew_locks(self) -> None:
        """Take new locks, in a forked child: a thread that held an old one does not exist here."""
        self._lock = threading.Lock()
        self._answers.renew_lock()
        self.services.renew_lock()


class ConnectionHandler:
    """The connections of ``RESTATE`` by alias, each made when it is first asked for.

    Follows ``setting_changed``: a test that overrides ``RESTATE`` gets new connections, before and after.
    """

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # not on Windows, which can't fork
            os.register_at_fork(after_in_child=self._after_fork)
        setting_changed.connect(self._follow_settings)

    def __getitem__(self, alias: str) -> Connection:
        """Return a connection.

        Raises:
            ConnectionDoesNotExist: ``RESTATE`` has no such alias.
            ImproperlyConfigured: ``RESTATE`` can't be read.
        """
        found = self._connections.get(alias)
        if found is not None:
            return found
        with self._lock:
            found = self._connections.get(alias)
            if found is None:
                found = self._connections[alias] = Connection(get_settings(alias))
            return found

    def __iter__(self) -> Iterator[str]:
        return iter(aliases())

    def __contains__(self, alias: object) -> bool:
        return alias in aliases()

    def all(self) -> list[Connection]:
        """Return every connection, in the order of ``RESTATE``."""
        return [self[alias] for alias in self]

    def close_all(self) -> None:
        """Close what every connection keeps alive. The next request opens new ones."""
        for connection in list(self._connections.values()):
            connection.close()

    def _follow_settings(self, *, setting: str, **_: object) -> None:
        if setting == "RESTATE":
            with self._lock:
                gone, self._connections = self._connections, {}
            for connection in gone.values():
                connection.close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for connection in self._connections.values():
            connection.renew_locks()


connections = ConnectionHandler()
