"""The whole of a payload or an output, for those who may see it. Imports the modules beside it and the verbs.

Whatever it claims to be, it is never a page: it is sent as an attachment, as JSON, plain text or bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect

from restate_django.admin import bodies
from restate_django.exceptions import RestateError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable
    from typing import Any

    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.models import Invocation


def payload(model_admin: InvocationAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Download a payload."""
    return _download(model_admin, request, pk, "payload", bodies.whole_payload)


def output(model_admin: InvocationAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Download an output; from Restate, where it is too large for the row."""
    return _download(model_admin, request, pk, "output", bodies.whole_output)


def _download(
    model_admin: InvocationAdmin,
    request: HttpRequest,
    pk: uuid.UUID,
    what: str,
    whole: Callable[[Invocation, Callable[[Any], Any]], tuple[bytes, str]],
) -> HttpResponse:
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    row = model_admin.get_object(request, str(pk))
    if not model_admin.has_payload_permission(request, row):
        raise PermissionDenied
    if row is None:
        raise Http404
    try:
        body, content_type = whole(row, model_admin.mask)
    except LookupError as error:
        raise Http404(str(error)) from None
    except RestateError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(model_admin.url("change", pk))
    kind, _suffix = _served_as(content_type)
    response = HttpResponse(body, content_type=kind)
    response["Content-Disposition"] = f'attachment; filename="{file_name(row, what, content_type)}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def file_name(row: Invocation, what: str, content_type: str) -> str:
    """Return the name under which a payload or an output is saved."""
    return f"{what}-{row.pk.hex}.{_served_as(content_type)[1]}"


def _served_as(content_type: str) -> tuple[str, str]:
    lower = content_type.lower()
    if "json" in lower:
        return "application/json", "json"
    if lower.startswith("text/"):
        return "text/plain; charset=utf-8", "txt"
    return "application/octet-stream", "bin"
