"""The view of an invocation's journal: a page of its own, and the part of it that the page of one takes in.

The page of one never waits for Restate: a script asks for this view, and without scripts a link leads to it. Imports
the modules beside it, the connections and the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from restate_django import conf
from restate_django.admin import approvals, journal, object_state
from restate_django.connections import connections
from restate_django.exceptions import RestateError
from restate_django.models import Invocation

if TYPE_CHECKING:
    import uuid

    from django.http import HttpRequest, HttpResponse

    from restate_django.admin.invocations import InvocationAdmin


def view(model_admin: InvocationAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show the steps of an invocation, as Restate has them now."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    row = model_admin.get_object(request, str(pk))
    if not model_admin.has_view_permission(request, row):
        raise PermissionDenied
    if row is None:
        raise Http404
    found, note = _read(row)
    waits, waits_note = approvals.waiting(model_admin, request, row, found)
    context: dict[str, Any] = {
        "journal": found,
        "note": note,
        "waits": waits,
        "waits_note": waits_note,
        "state": _state_of(model_admin, request, row),
        "links": _links(model_admin, row, found),
        "original": row,
        "width": journal.WIDTH,
    }
    if "_live" in request.GET:
        return TemplateResponse(request, "admin/restate_django/invocation/journal_body.html", context)
    request.current_app = model_admin.admin_site.name
    context |= {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "title": _("Journal of %(target)s") % {"target": row.target},
        "crumbs_are_list": django.VERSION >= (6, 1),
        "back_url": model_admin.url("change", row.pk),
    }
    return TemplateResponse(request, "admin/restate_django/invocation/journal.html", context)


def _read(row: Invocation) -> tuple[journal.Journal | None, str]:
    """Return the journal, or a sentence that says why there is none."""
    if not row.invocation_id:
        return None, _("It has no journal yet: Restate has not taken it.")
    try:
        admin = connections[row.connection].admin
    except ImproperlyConfigured as error:
        return None, str(error)
    if admin is None:
        return None, _("The journal is read from the Admin API, and this connection has none.")
    try:
        found = journal.read(admin, row.invocation_id, ended_at=None if row.is_in_restate else row.finished_at)
    except RestateError as error:
        return None, _("Restate can't be asked for it now: %(error)s") % {"error": error}
    if not found.steps:
        return None, _("Restate does not have its journal any more.") if row.is_finished else _("It has no steps yet.")
    return found, ""


def _state_of(model_admin: InvocationAdmin, request: HttpRequest, row: Invocation) -> list[object_state.Entry]:
    """Return the state of the row's object, for those who may see payloads; nothing where it can't be read."""
    if not row.key or row.scope or not model_admin.has_payload_permission(request, row):
        return []
    try:
        admin = connections[row.connection].admin
        return object_state.read(admin, row.service, row.key, model_admin.mask) if admin else []
    except (RestateError, ImproperlyConfigured):
        return []


def _links(model_admin: InvocationAdmin, row: Invocation, found: journal.Journal | None) -> dict[str, str]:
    """Where the invocations are shown that it made: their own rows here, else Restate's own pages."""
    ids = {step.invocation_id for step in found.steps if step.invocation_id} if found else set()
    if not ids:
        return {}
    links: dict[str, str] = {}
    try:
        settings = conf.get_settings(row.connection)
    except ImproperlyConfigured:
        settings = None
    for invocation_id in ids:
        url = conf.invocation_ui_url(settings, invocation_id) if settings else None
        if url:
            links[invocation_id] = url
    rows = Invocation.objects.filter(invocation_id__in=sorted(ids)).values_list("invocation_id", "pk")
    return links | {invocation_id: model_admin.url("change", pk) for invocation_id, pk in rows}
