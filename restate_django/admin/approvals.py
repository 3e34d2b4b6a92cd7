"""Approvals: the awakeables on the page of an invocation, and the view that resolves or rejects one.

The view asks first, by a form with the value or the reason, and does it by POST. It runs outside any transaction, as
``operate`` does. Imports the modules beside it and the verbs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import django
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from restate_django import awakeables
from restate_django.admin import wording
from restate_django.admin.badges import status_badge
from restate_django.client import NO_PAYLOAD, EncodedPayload
from restate_django.exceptions import InvalidRequest, OperationRefused, RestateError
from restate_django.lifecycle import Status
from restate_django.storable import storable_text

if TYPE_CHECKING:
    import uuid

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.admin.journal import Journal
    from restate_django.models import Invocation

_REASON_LENGTH: Final = 500


@dataclass(frozen=True)
class Verdict:
    """A way to complete an awakeable, in words.

    Attributes:
        name: The function in ``awakeables``.
        label: What stands on its button.
        title: What stands above its form.
        explains: What will happen.
        done: What the user is told afterwards.
        history: What the admin history says; ``%(awakeable)s`` is the awakeable's id.
        danger: It can't be undone, and is no good news: its button is red.
    """

    name: str
    label: Any
    title: Any
    explains: Any
    done: Any
    history: Any
    danger: bool = False


VERDICTS: Final[dict[str, Verdict]] = {
    verdict.name: verdict
    for verdict in (
        Verdict(
            name="resolve",
            label=gettext_lazy("Resolve"),
            title=gettext_lazy("Resolve an awakeable"),
            explains=gettext_lazy(
                "The handler that waits for it goes on with the value that you give. It can't be undone."
            ),
            done=gettext_lazy("Resolved the awakeable: the handler goes on."),
            history=gettext_lazy("Resolved the awakeable %(awakeable)s."),
        ),
        Verdict(
            name="reject",
            label=gettext_lazy("Reject"),
            title=gettext_lazy("Reject an awakeable"),
            explains=gettext_lazy(
                "The handler that waits for it gets a terminal error with your reason: unless it catches that, the"
                " invocation fails. It can't be undone."
            ),
            done=gettext_lazy("Rejected the awakeable: the handler gets the error."),
            history=gettext_lazy("Rejected the awakeable %(awakeable)s."),
            danger=True,
        ),
    )
}


# ---------------------------------------------------------------- on the page of one


@dataclass(frozen=True)
class Waiting:
    """An awakeable as the page shows it.

    Attributes:
        id: Its id.
        since: Since when it is waited for.
        links: Labels and addresses of what this user may do about it.
    """

    id: str
    since: SafeString | str
    links: list[tuple[Any, str]]


def waiting(
    model_admin: InvocationAdmin, request: HttpRequest, row: Invocation, found: Journal | None
) -> tuple[list[Waiting], str]:
    """Return the awakeables that an invocation waits for, and a sentence where something is to be said of them.

    Args:
        model_admin: The admin of invocations.
        request: Whose page it is.
        row: The invocation.
        found: Its journal. Without one Restate could not be asked, and is not asked once more.
    """
    if found is None or not row.is_in_restate:
        return [], ""
    may = model_admin.has_awakeable_permission(request, row)
    try:
        pending = awakeables.pending(row)
    except (RestateError, ImproperlyConfigured) as error:
        return [], _("Restate can't be asked what it waits for now: %(error)s") % {"error": error}
    if not pending and may and row.status == Status.RUNNING and all(step.state != "open" for step in found.steps):
        return [], _(
            "If it waits for an awakeable, that is shown once Restate has suspended it: after a minute without a step,"
            " unless its service says otherwise."
        )
    return [
        Waiting(
            each.id,
            wording.time_tag(each.since),
            [(verdict.label, model_admin.url("awakeable", row.pk, each.id, name)) for name, verdict in VERDICTS.items()]
            if may
            else [],
        )
        for each in pending
    ], ""


# ---------------------------------------------------------------- the view


def view(
    model_admin: InvocationAdmin, request: HttpRequest, pk: uuid.UUID, awakeable_id: str, name: str
) -> HttpResponse:
    """Ask for the value or the reason, and resolve or reject an awakeable with it."""
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    row = model_admin.get_object(request, str(pk))
    if not model_admin.has_awakeable_permission(request, row):
        raise PermissionDenied
    verdict = VERDICTS.get(name)
    if row is None or verdict is None:
        raise Http404
    if request.POST.get("confirmed") != "yes":
        return _form(model_admin, request, row, awakeable_id, verdict)
    try:
        because = _complete(row, awakeable_id, verdict, request)
    except InvalidRequest as error:
        return _form(model_admin, request, row, awakeable_id, verdict, complaint=error.message)
    except OperationRefused as refusal:
        text = _("%(operation)s was not done. %(reason)s") % {"operation": verdict.title, "reason": refusal.reason}
        _write_history(request, row, f"{text} ({awakeable_id})")
        return _form(model_admin, request, row, awakeable_id, verdict, refusal=refusal.reason)
    _write_history(request, row, str(verdict.history) % {"awakeable": awakeable_id} + because)
    messages.success(request, verdict.done)
    return HttpResponseRedirect(model_admin.url("change", row.pk))


def _complete(row: Invocation, awakeable_id: str, verdict: Verdict, request: HttpRequest) -> str:
    """Do it, and return what the history says besides. The value is no business of the history's readers."""
    if verdict.name == "resolve":
        awakeables.resolve(row, awakeable_id, _value_of(request.POST.get("value", "")))
        return ""
    reason = request.POST.get("reason", "").strip()[:_REASON_LENGTH]
    if not reason:
        raise InvalidRequest(_("Give a reason: the handler gets it as the message of its error."))
    awakeables.reject(row, awakeable_id, reason)
    return " " + _("Reason: %(reason)s") % {"reason": reason}


def _value_of(text: str) -> Any:
    """Return what was typed as the payload that it is, every digit and space as it was typed.

    Raises:
        InvalidRequest: It is no JSON.
    """
    if not text.strip():
        return NO_PAYLOAD
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = {"message": error.msg, "line": error.lineno, "column": error.colno}
        raise InvalidRequest(_("This is no JSON: %(message)s (line %(line)d, column %(column)d).") % place) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(_("This is no JSON: %(message)s.") % {"message": error}) from None
    return EncodedPayload(text.encode(), "application/json")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _form(
    model_admin: InvocationAdmin,
    request: HttpRequest,
    row: Invocation,
    awakeable_id: str,
    verdict: Verdict,
    *,
    complaint: str = "",
    refusal: str = "",
) -> HttpResponse:
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(
        request,
        "admin/restate_django/invocation/awakeable.html",
        {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "media": model_admin.media,
            "title": verdict.title,
            "crumbs_are_list": django.VERSION >= (6, 1),
            "back_url": model_admin.url("change", row.pk),
            "original": row,
            "badge": status_badge(row.status),
            "awakeable_id": awakeable_id,
            "verdict": verdict,
            "complaint": complaint,
            "refusal": refusal,
            "given": {field: request.POST.get(field, "") for field in ("value", "reason")},
            "reason_length": _REASON_LENGTH,
        },
    )


def _write_history(request: HttpRequest, row: Invocation, text: str) -> None:
    user_id: Any = request.user.pk
    LogEntry.objects.log_actions(
        user_id=user_id, queryset=[row], action_flag=CHANGE, change_message=storable_text(text)
    )
