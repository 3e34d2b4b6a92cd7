"""The Restate servers behind the connections: whether they answer, and what is registered with them. Read-only.

All of them are asked at once, each for a few seconds at most, and one that does not answer is shown as such. Imports
the modules beside it, the connections and the client.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import django
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from restate_django import conf, deployments
from restate_django.admin import deployment_history, wording
from restate_django.connections import connections
from restate_django.exceptions import NotSupported, RestateError
from restate_django.workers import in_threads

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from django.http import HttpRequest, HttpResponse

    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.client import AdminClient
    from restate_django.client.results import Deployment, KafkaCluster, ServiceInfo, Subscription

#: Seconds that each request may take: somebody waits for the page.
TIMEOUT: Final = 2.0
_CONCURRENCY: Final = 8
#: What is shown of a Kafka cluster's properties and a subscription's options. Of any other, which may be a secret, only
#: the name is.
_PLAIN_OPTIONS: Final = frozenset(
    {
        "auto.offset.reset",
        "bootstrap.servers",
        "client.id",
        "group.id",
        "metadata.broker.list",
        "sasl.mechanism",
        "sasl.mechanisms",
        "security.protocol",
    }
)

_HANDLER_KINDS: Final = {
    "Exclusive": gettext_lazy("exclusive"),
    "Shared": gettext_lazy("shared"),
    "Workflow": gettext_lazy("workflow"),
}
_KINDS: Final = {
    "Service": gettext_lazy("service"),
    "VirtualObject": gettext_lazy("virtual object"),
    "Workflow": gettext_lazy("workflow"),
}


@dataclass
class Endpoint:
    """One of a server's two addresses, and whether it answers.

    Attributes:
        url: The address. (The settings refuse one with a password in it.)
        answers: It does. None where there is no such address.
        fault: What went wrong.
        seconds: How long it took to answer.
    """

    url: str = ""
    answers: bool | None = None
    fault: str = ""
    seconds: float = 0.0

    @property
    def note(self) -> str:
        """How long it took, or what went wrong. Worded here: the threads that ask know no reader's language."""
        if not self.answers:
            return self.fault
        return _("answered in %(number)d ms") % {"number": round(self.seconds * 1000)}


@dataclass
class Server:
    """A connection's server, as far as it told.

    Attributes:
        open: Open invocations by service and by the deployment that they have started on; None where not counted.
    """

    alias: str
    ingress: Endpoint = field(default_factory=Endpoint)
    admin: Endpoint = field(default_factory=Endpoint)
    version: str = ""
    ui_url: str = ""
    services: list[ServiceInfo] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    clusters: list[KafkaCluster] = field(default_factory=list)
    open: Mapping[tuple[str, str | None], int] | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The services for the template, their durations in words."""
        addresses = {deployment.id: deployment.uri or deployment.arn or "" for deployment in self.deployments}
        return [
            {
                "service": service,
                "kind": kind_of(service),
                "handlers": [(handler, _HANDLER_KINDS.get(handler.ty or "", "")) for handler in service.handlers],
                "retention": _span(
                    service.workflow_completion_retention if service.ty == "Workflow" else service.idempotency_retention
                ),
                "journal": _span(service.journal_retention),
                "address": addresses.get(service.deployment_id or "", ""),
                "open": self._count(service=service.name),
            }
            for service in sorted(self.services, key=lambda service: service.name)
        ]

    @property
    def deployment_rows(self) -> list[dict[str, Any]]:
        """The deployments for the template, the newest first."""
        latest = {(service.name, service.deployment_id) for service in self.services}
        rows = [
            {
                "deployment": deployment,
                "services": [
                    (name, deployment.revisions.get(name), (name, deployment.id) in latest)
                    for name in sorted(deployment.services)
                ],
                "protocol": protocol_of(deployment),
                "age": wording.time_tag(deployment.created_at),
                "open": self._count(deployment=deployment.id),
            }
            for deployment in self.deployments
        ]
        return sorted(rows, key=lambda row: str(row["deployment"].created_at), reverse=True)

    @property
    def subscription_rows(self) -> list[tuple[Subscription, list[tuple[str, str]]]]:
        """The subscriptions, each with those of its options that hold no secret."""
        return [(each, _plain(each.options)) for each in self.subscriptions]

    @property
    def cluster_rows(self) -> list[tuple[KafkaCluster, list[tuple[str, str]], Any]]:
        """The Kafka clusters, each with those of its properties that hold no secret, and its age."""
        return [(each, _plain(each.properties), wording.time_tag(each.created_at)) for each in self.clusters]

    def _count(self, *, service: str = "", deployment: str = "") -> int | None:
        if self.open is None:
            return None
        return sum(n for (name, on), n in self.open.items() if (name == service if service else on == deployment))


def kind_of(service: ServiceInfo) -> Any:
    """Word what a service is."""
    return _KINDS.get(service.ty, service.ty)


def protocol_of(deployment: Deployment) -> str:
    """Word how Restate talks to a deployment: ``HTTP/2.0, protocol 5 to 7``."""
    parts = [deployment.http_version or ""]
    if deployment.protocol_versions:
        oldest, newest = deployment.protocol_versions
        parts.append(_("protocol %(oldest)d to %(newest)d") % {"oldest": oldest, "newest": newest})
    if deployment.protocol_type == "RequestResponse":
        parts.append(_("without streaming"))
    return ", ".join(part for part in parts if part)


def look(*, whole: bool = True) -> list[Server]:
    """Ask all servers, in the order of ``RESTATE``.

    Args:
        whole: Also for what takes longer, or stands on the whole page alone.
    """
    try:
        aliases = conf.aliases()
    except ImproperlyConfigured:
        return []
    ask = partial(_ask, whole=whole)
    return [server for _alias, server in in_threads(ask, aliases, concurrency=_CONCURRENCY)]


def view(model_admin: InvocationAdmin, request: HttpRequest) -> HttpResponse:
    """Show the servers; with ``?_live`` only whether they answer."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    is_part = "_live" in request.GET
    found = look(whole=not is_part)
    context: dict[str, Any] = {"servers": found}
    if is_part:
        return TemplateResponse(request, "admin/restate_django/servers_body.html", context)
    request.current_app = model_admin.admin_site.name
    context |= {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "title": _("Restate servers"),
        "crumbs_are_list": django.VERSION >= (6, 1),
        "service_url": model_admin.url("service"),
        "register_url": model_admin.url("register"),
        "remove_url": model_admin.url("remove"),
        "may_manage": model_admin.has_deployments_permission(request),
        "can_register": any(server.admin.url for server in found),
        "history": deployment_history.latest(),
    }
    return TemplateResponse(request, "admin/restate_django/servers.html", context)


def _ask(alias: str, *, whole: bool) -> Server:
    """Ask one server. Never raises: what went wrong stands in the answer."""
    server = Server(alias)
    try:
        connection = connections[alias]
    except ImproperlyConfigured as error:
        server.ingress = Endpoint(answers=False, fault=str(error))
        return server
    settings = connection.settings
    server.ui_url = settings.ui_url or ""
    server.ingress.url = settings.ingress_url
    start = time.monotonic()
    try:
        connection.ingress.health(timeout=TIMEOUT)
    except RestateError as error:
        server.ingress.answers, server.ingress.fault = False, str(error)
    else:
        server.ingress.answers, server.ingress.seconds = True, time.monotonic() - start
    if connection.admin is None:
        return server
    server.admin.url = settings.admin_url or ""
    start = time.monotonic()
    try:
        server.version = connection.admin.version(timeout=TIMEOUT).version
        server.admin.answers, server.admin.seconds = True, time.monotonic() - start
        server.services = connection.admin.list_services(timeout=TIMEOUT)
        server.deployments = connection.admin.list_deployments(timeout=TIMEOUT)
        if whole:
            _ask_more(server, connection.admin)
    except RestateError as error:
        server.admin.answers, server.admin.fault = False, str(error)
    return server


def _ask_more(server: Server, admin: AdminClient) -> None:
    server.subscriptions = admin.list_subscriptions(timeout=TIMEOUT)
    # A server before 1.7 has its Kafka clusters in its own settings, and tells nobody.
    with suppress(NotSupported):
        server.clusters = admin.list_kafka_clusters(timeout=TIMEOUT)
    server.open = deployments.count_open(admin, timeout=TIMEOUT)


def _plain(options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return options by their names, the values of those that may be secrets left out."""
    return [(name, str(value) if name in _PLAIN_OPTIONS else "") for name, value in sorted(options.items())]


def _span(delta: dt.timedelta | None) -> str:
    return wording.span(delta) if delta is not None else ""
