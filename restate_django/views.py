"""How invocations stand (as JSON, a badge or a stream), their cancellation, a handler's report of an end, and health.

Allowed are the user who asked for it, users with the permission, and holders of a signed address (``links``). Everybody
else gets the answer that a row gets that does not exist. No view here runs in a request's transaction, because they
may talk to Restate. Imports ``links``, the verbs and the floors below.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, transaction
from django.db import connections as databases
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.http import quote_etag, url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_POST, require_safe

from restate_django import attaching, links, operations, watching
from restate_django.conf import get_settings, swept_databases
from restate_django.exceptions import RestateError
from restate_django.health import Check, State, examine
from restate_django.lifecycle import Status
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.querysets import write_alias
from restate_django.reporting import lets_report
from restate_django.signatures import PARAMETER
from restate_django.streams import document, stream
from restate_django.workers import is_inside_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from restate_django.health import Finding

    View = TypeVar("View", bound=Callable[..., HttpResponseBase | Awaitable[HttpResponseBase]])

logger = get_logger("restate_django.views")

#: The longest wait that a request may ask for, in seconds: each one keeps a worker of the site busy.
MAX_WAIT: Final = 30.0
#: The most rows that one stream tells of.
MAX_ROWS: Final = 50
#: The status by which htmx 2 stops polling.
STOP_POLLING: Final = 286
# Seconds that a report of an end waits for Restate to have it, and for which the next one of the row does not wait.
_REPORT_WAIT: Final = 1.0
_REPORT_PAUSE: Final = 2

_private = cache_control(no_store=True, private=True)


def _outside_transactions(view: View) -> View:
    """Keep a view out of ``ATOMIC_REQUESTS``, on every database."""
    for alias in databases:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@login_not_required  # whoever may is told by the address, or by their rights
@_outside_transactions
@_private
@require_safe
def status(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Tell how an invocation stands; with ``?wait=5``, wait up to five seconds for its end first.

    The wait is at most ``MAX_WAIT`` and the connection's ``CALL_TIMEOUT``. Inside a transaction there is none. The
    answer carries an ETag, and is 304 for one who has it already. A request of htmx's is answered by the badge.
    """
    seconds = _seconds(request.GET.get("wait", "0"))
    if seconds is None:
        return JsonResponse({"error": _("wait must be a number of seconds.")}, status=400)
    row = _find(pk)
    if row is None or not _may_see(request, row):
        return _not_found()
    if seconds and not row.is_finished:
        try:
            _wait(row, seconds)
        except Invocation.DoesNotExist:
            return _not_found()
    if request.headers.get("HX-Request") == "true":
        return _badge(request, row)
    response = JsonResponse(document(row, tells_why=_tells_why(request, row)))
    patch_vary_headers(response, ["HX-Request"])
    etag = quote_etag(hashlib.sha256(response.content).hexdigest()[:32])
    response.headers["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


@login_not_required  # whoever may is told by the address, or by their rights
@_outside_transactions
@_private
@require_POST
@csrf_protect
def cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask for an invocation's cancellation, and tell how it stands then.

    200 when it is cancelled or will be, also by an earlier request; 409 with a ``reason`` when not. A form whose
    ``next`` names a page of this site is led there instead, with a message.
    """
    row = _find(pk)
    if row is None or not _may_cancel(request, row):
        return _not_found()
    if is_inside_transaction(write_alias(row)):
        logger.error("Invocation %s was not cancelled: the view runs inside a transaction.", row.pk, row=row)
        return JsonResponse({"error": _("It can't be cancelled inside a transaction.")}, status=503)
    report = operations.cancel(row)
    asked = row.status == Status.CANCELLED or (row.is_open and row.cancel_requested_at is not None)
    # Why Restate refused it is no visitor's business.
    reason = "" if asked else next((text for _row, text in report.passed_over), _("It can't be cancelled now."))
    if report.done:
        who = getattr(getattr(request, "user", None), "pk", None)
        who = who or "nobody (a signed address)"
        logger.info("Asked for the cancellation of %s, for user %s", row.pk, who, row=row)
    target = request.POST.get("next", "")
    if target and url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
        if asked:
            messages.success(request, _("The cancellation is on its way."), fail_silently=True)
        else:
            messages.error(request, _("Not cancelled. %(reason)s") % {"reason": reason}, fail_silently=True)
        return HttpResponseRedirect(target)
    said = document(row, tells_why=_tells_why(request, row))
    return JsonResponse(said if asked else {**said, "reason": reason}, status=200 if asked else 409)


@login_not_required  # whoever may is told by the address, or by their rights
@_outside_transactions
@_private
@require_GET
async def events(request: HttpRequest) -> HttpResponseBase:
    """Stream how invocations stand, as server-sent events, until they have ended: for sites that run under ASGI.

    ``?row=<id>`` names a row, once for each; ``<id>.<signature>`` one that a signed address lets see. Each event is
    called ``status`` and has what :func:`status` tells; ``end`` is the last one. Rows that may not be seen are left
    out, and with none left it is 404. Under WSGI it is 501: a stream would keep a worker of the site busy.
    """
    if not isinstance(request, ASGIRequest):
        return JsonResponse({"error": "Streams need ASGI."}, status=501)
    asked = request.GET.getlist(links.ROW)
    if len(asked) > MAX_ROWS:
        return JsonResponse({"error": "Too many rows for one stream."}, status=400)
    rows, tells_why = await watching.in_own_thread(_rows_to_see, request, asked)
    if not rows:
        return _not_found()
    response = StreamingHttpResponse(stream(rows, tells_why=tells_why), content_type="text/event-stream")
    # Neither nginx nor GZipMiddleware may keep what was written until there is more of it.
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Content-Encoding"] = "identity"
    return response


@login_not_required  # a handler has no account: the signature counts
@csrf_exempt  # a handler has no cookie, and so nothing that another site could make it abuse: the signature counts
@_outside_transactions
@_private
@require_POST
def report(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take a handler's word that an invocation has ended, and read from Restate how.

    The body is not looked at. 200 when the row has its end, 202 when Restate has none yet: the jobs ask next then.
    """
    row = _find(pk) if lets_report(pk, request.GET.get(PARAMETER, "")) else None
    if row is None:
        return _not_found()
    using = write_alias(row)
    if is_inside_transaction(using):
        logger.error("The report about %s was not heeded: the view runs inside a transaction.", row.pk, row=row)
        return JsonResponse({"error": "It can't be read inside a transaction."}, status=503)
    # Each report that waits keeps a worker of the site busy: one does at a time.
    first = row.is_finished or cache.add(f"restate_django.report.{pk.hex}", 1, timeout=_REPORT_PAUSE)
    try:
        finished = attaching.heed_report(row, _REPORT_WAIT if first else 0)
    except Invocation.DoesNotExist:
        return _not_found()
    return JsonResponse({"id": str(pk), "finished": finished}, status=200 if finished else 202)


@_outside_transactions
@login_not_required  # a probe has no account; what it is told names nothing
@_private
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Tell whether the app works: 200, or 503 where something does not. ``?only=database,ingress`` asks for less.

    Everybody is told the state of each check; who may see invocations, also of what, and why.
    """
    only = {name for text in request.GET.getlist("only") for name in text.split(",") if name}
    if unknown := only - set(Check):
        known = ", ".join(Check)
        return JsonResponse({"error": f"There are no checks {sorted(unknown)}. There are: {known}."}, status=400)
    found = examine(only)
    worst = [State.FAULT, State.WARNING, State.OK]
    checks: dict[str, State] = {}
    for each in found:
        checks[each.check] = min(checks.get(each.check, State.OK), each.state, key=worst.index)
    state = min(checks.values(), default=State.OK, key=worst.index)
    told: dict[str, Any] = {"status": state, "checks": checks}
    if _may_see_details(request, found):
        told["details"] = [
            {"check": each.check, "of": each.alias, "status": each.state, "seconds": round(each.seconds, 3)}
            | {name: text for name in ("message", "detail") if (text := getattr(each, name))}
            for each in found
        ]
    response = JsonResponse(told, status=503 if state is State.FAULT else 200)
    # The answer is what was asked for: Django would log it as an error, and mail it to ADMINS, at each probe.
    response._has_been_logged = True  # type: ignore[attr-defined] # what its log_response() looks at
    return response


def _may_see_details(request: HttpRequest, found: Iterable[Finding]) -> bool:
    # Who it is stands in a database, most often: one that is away must not keep the answer back.
    if any(each.state is State.FAULT for each in found if each.check is Check.DATABASE):
        return False
    try:
        return _has_permission(request, "view_invocation")
    except DatabaseError:
        return False


# ---------------------------------------------------------------- which row, and who may


def _find(pk: uuid.UUID) -> Invocation | None:
    """Find a row in whichever database it is, without its bodies."""
    rows = (Invocation.objects.using(using).without_bodies().filter(pk=pk).first() for using in swept_databases())
    return next((row for row in rows if row is not None), None)


def _rows_to_see(request: HttpRequest, asked: list[str]) -> tuple[list[Invocation], bool]:
    """Return those of the rows that may be seen, and whether the reasons of their failures may be."""
    signatures: dict[uuid.UUID, str] = {}
    for text in asked:
        name, _dot, signature = text.partition(".")
        try:
            signatures[uuid.UUID(name)] = signature
        except ValueError:
            continue
    found: dict[uuid.UUID, Invocation] = {}
    for using in swept_databases():
        rows = Invocation.objects.using(using).without_bodies().filter(pk__in=sorted(signatures)).order_by()
        found = {row.pk: row for row in rows} | found
    seen = [found[pk] for pk in signatures if pk in found and _may_see(request, found[pk], signatures[pk])]
    return seen, bool(seen) and _has_permission(request, "view_invocation")


def _may_see(request: HttpRequest, row: Invocation, signature: str | None = None) -> bool:
    if links.lets_see(row.pk, request.GET.get(PARAMETER, "") if signature is None else signature):
        return True
    return _asked_for(request, row) or _has_permission(request, "view_invocation")


def _may_cancel(request: HttpRequest, row: Invocation) -> bool:
    if links.lets_cancel(row.pk, request.GET.get(PARAMETER, "")):
        return True
    return _asked_for(request, row) or _has_permission(request, "cancel_invocation")


def _asked_for(request: HttpRequest, row: Invocation) -> bool:
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated and row.requested_by_id == user.pk


def _has_permission(request: HttpRequest, codename: str) -> bool:
    user = getattr(request, "user", None)
    return user is not None and bool(user.has_perm(f"restate_django.{codename}"))


# ---------------------------------------------------------------- what is said


def _not_found() -> HttpResponse:
    return JsonResponse({"error": _("There is no such invocation.")}, status=404)


def _tells_why(request: HttpRequest, row: Invocation) -> bool:
    """A handler's or Restate's own words: nothing for a visitor."""
    return row.is_finished and row.status != Status.SUCCEEDED and _has_permission(request, "view_invocation")


def _badge(request: HttpRequest, row: Invocation) -> HttpResponse:
    """Return the badge by itself, which asks the same address again until the end."""
    context = {
        "invocation": row,
        "url": "" if row.is_finished else request.get_full_path(),
        "cancel_requested": row.is_open and row.cancel_requested_at is not None,
        "htmx": True,
    }
    html = render_to_string("restate_django/invocation_status.html", context)
    response = HttpResponse(html, status=STOP_POLLING if row.is_finished else 200)
    if row.is_finished:
        told = {"id": str(row.pk), "status": str(row.status), "succeeded": row.status == Status.SUCCEEDED}
        response.headers["HX-Trigger"] = json.dumps({"restate:finished": told})
    patch_vary_headers(response, ["HX-Request"])
    return response


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(seconds, MAX_WAIT) if seconds >= 0 and math.isfinite(seconds) else None


def _wait(row: Invocation, seconds: float) -> None:
    """Wait for a row's end, and bring it up to date, whatever became of the wait."""
    if is_inside_transaction(write_alias(row)):
        return
    try:
        row.attach(min(seconds, get_settings(row.connection).call_timeout))
    except (RestateError, ImproperlyConfigured):
        # A failure is an end too; all else means that nothing is known, and the row says what was.
        if not row.is_finished:
            row.refresh_from_db(using=write_alias(row))
