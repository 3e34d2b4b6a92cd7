"""The page of one service: its handlers in full, and which deployments have it in which revision. Read-only.

Imports the modules beside it, the verbs and the connections.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import django
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from restate_django import deployments
from restate_django.admin import wording
from restate_django.admin.servers import TIMEOUT, kind_of, protocol_of
from restate_django.connections import connections
from restate_django.exceptions import InvalidRequest, NotFound, RestateError

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.client import AdminClient
    from restate_django.client.results import HandlerInfo, ServiceInfo

_HANDLER_KINDS: Final = {
    "Exclusive": gettext_lazy("exclusive: one at a time for each key"),
    "Shared": gettext_lazy("shared: beside any other of its key"),
    "Workflow": gettext_lazy("workflow: once for each key"),
}


def view(model_admin: InvocationAdmin, request: HttpRequest) -> HttpResponse:
    """Show a service of a connection, both named in the address line."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    alias, name = request.GET.get("connection", ""), request.GET.get("name", "")
    request.current_app = model_admin.admin_site.name
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "title": name,
        "crumbs_are_list": django.VERSION >= (6, 1),
        "crumb_title": _("Restate servers"),
        "crumb_url": model_admin.url("servers"),
        "alias": alias,
        "rows_url": model_admin.url("changelist"),
        **_read(alias, name),
    }
    return TemplateResponse(request, "admin/restate_django/service.html", context)


def _read(alias: str, name: str) -> dict[str, Any]:
    """Return what the page shows, or a sentence that says why there is nothing."""
    try:
        admin = connections[alias].admin
    except ImproperlyConfigured:
        raise Http404 from None
    if admin is None:
        return {"note": _("Services are read from the Admin API, and this connection has none.")}
    try:
        return _of(admin, admin.get_service(name, timeout=TIMEOUT))
    except (NotFound, InvalidRequest):
        raise Http404 from None
    except RestateError as error:
        return {"note": _("Restate can't be asked for it now: %(error)s") % {"error": error}}


def _of(admin: AdminClient, service: ServiceInfo) -> dict[str, Any]:
    counts = deployments.count_open(admin, timeout=TIMEOUT)
    having = [each for each in admin.list_deployments(timeout=TIMEOUT) if service.name in each.revisions]
    return {
        "service": service,
        "kind": kind_of(service),
        "idempotency": _span(service.idempotency_retention),
        "completion": _span(service.workflow_completion_retention),
        "journal": _span(service.journal_retention),
        "handlers": [_handler(handler) for handler in sorted(service.handlers, key=lambda each: each.name)],
        "waiting": None if counts is None else counts.get((service.name, None), 0),
        "deployments": [
            {
                "deployment": each,
                "revision": each.revisions[service.name],
                "is_latest": each.id == service.deployment_id,
                "protocol": protocol_of(each),
                "age": wording.time_tag(each.created_at),
                "open": None if counts is None else counts.get((service.name, each.id), 0),
            }
            for each in sorted(having, key=lambda each: each.revisions[service.name], reverse=True)
        ],
    }


def _handler(handler: HandlerInfo) -> dict[str, Any]:
    retentions = [
        (_("keys"), handler.idempotency_retention),
        (_("the workflow"), handler.workflow_completion_retention),
        (_("journals"), handler.journal_retention),
    ]
    return {
        "handler": handler,
        "kind": _HANDLER_KINDS.get(handler.ty or "", ""),
        "retentions": [(label, wording.span(kept)) for label, kept in retentions if kept is not None],
        "schemas": [
            (label, json.dumps(schema, indent=2, ensure_ascii=False))
            for label, schema in (
                (_("Input schema"), handler.input_json_schema),
                (_("Output schema"), handler.output_json_schema),
            )
            if schema is not None
        ],
    }


def _span(kept: Any) -> str:
    return wording.NOTHING if kept is None else wording.span(kept)
