"""The view behind every button: which rows, may they, are you sure, do it, say what happened, write the history.

It takes POST alone, and its pages carry the selection from one POST to the next. It runs outside any transaction (see
``InvocationAdmin.get_urls``), because the operations talk to Restate. Imports the modules beside it and the verbs.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import django
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR
from django.core import signing
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django.admin.badges import status_badge
from restate_django.admin.buttons import BUTTONS, REASON_LENGTH, Button
from restate_django.admin.filters import ranges_of
from restate_django.connections import connections
from restate_django.exceptions import RestateError
from restate_django.lifecycle import Status
from restate_django.logs import get_logger
from restate_django.ranges import count_up_to, newest_keys
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.utils.safestring import SafeString

    from restate_django.admin.changelist import InvocationChangeList
    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.models import Invocation
    from restate_django.operations import OperationReport
    from restate_django.querysets import InvocationQuerySet

#: Rows that one request operates on. Larger selections go on by a page that shows how far it is.
BATCH: Final = 50
#: Where a count of "all that match" stops.
COUNTED: Final = 10_000
_SAMPLE: Final = 10
_REASONS: Final = 5
#: Deployments that are offered at most: the newest.
_OFFERED: Final = 10
#: Seconds that the deployments may take: somebody waits for the question.
_TIMEOUT: Final = 2.0
# Restate counts them in 32 bits.
_ENTRY: Final = re.compile(r"[0-9]{1,9}")
_DEPLOYMENT: Final = re.compile(r"latest|keep|dp_[A-Za-z0-9]+")
_SALT: Final = "restate_django.admin.operate"
# What would make a second invocation, asked twice. All else does nothing to a row the second time.
_MAKES_NEW: Final = frozenset({"restart_as_new", "send_anew"})
# How long a page that was sent is remembered.
_ONCE_SECONDS: Final = 3600

logger = get_logger("restate_django.admin")


@dataclass
class Tally:
    """What has been done so far, carried from batch to batch."""

    done: int = 0
    at_once: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many rows were looked at."""
        return self.done + self.at_once + sum(self.passed_over.values()) + sum(self.refused.values())

    def add(self, report: OperationReport) -> None:
        """Count a report."""
        from restate_django.operations import CANCELLED_AT_ONCE

        at_once = sum(what == str(CANCELLED_AT_ONCE) for _row, what in report.done)
        self.at_once += at_once
        self.done += len(report.done) - at_once
        for counts, rows in ((self.passed_over, report.passed_over), (self.refused, report.refused)):
            for _row, reason in rows:
                counts[str(reason)] = counts.get(str(reason), 0) + 1


@dataclass
class Selection:
    """Which rows: those that were ticked, or all that match the list's filters.

    Attributes:
        rows: All of them, as a queryset without bodies.
        pks: The ticked ones; None for all that match.
        newest: The newest of all that match when the operation was asked about; later ones are left alone.
        before: Where the next batch begins, of all that match.
        searched_to: Of a search, where it stopped to look back. The next batch looks on from there.
    """

    rows: InvocationQuerySet
    pks: list[uuid.UUID] | None
    newest: uuid.UUID | None = None
    before: uuid.UUID | None = None
    searched_to: uuid.UUID | None = None

    @classmethod
    def of(cls, model_admin: InvocationAdmin, request: HttpRequest, state: dict[str, Any]) -> Selection:
        """Read it from a form: the list's, the page of one's, or our own."""
        if request.POST.get("select_across") == "1":
            before = _as_uuid(state.get("before"))
            changelist = _list_before(model_admin, request, before)
            rows: InvocationQuerySet = changelist.everything
            newest = _as_uuid(state.get("newest")) or next(iter(newest_keys(rows, 1, ranges_of(Status))), None)
            if newest is None and changelist.searched_to is not None:
                # Nothing so far, and further back there may be.
                newest = changelist.searched_to
            return cls(rows, None, newest, before, changelist.searched_to)
        values: Any = state.get("pks") or request.POST.getlist(ACTION_CHECKBOX_NAME)
        pks = sorted({pk for pk in map(_as_uuid, values) if pk is not None}, reverse=True)
        return cls(model_admin.get_queryset(request).filter(pk__in=pks), pks)

    @property
    def matching(self) -> InvocationQuerySet:
        """The rows that were there when the operation was asked about."""
        return self.rows if self.newest is None else self.rows.filter(pk__lte=self.newest)

    @property
    def is_empty(self) -> bool:
        """There is nothing to do anything to."""
        return self.newest is None if self.pks is None else not self.pks

    def next_batch(self, statuses: Iterable[Status]) -> list[Invocation]:
        """Take the next rows, newest first."""
        if self.pks is not None:
            wanted, self.pks = self.pks[:BATCH], self.pks[BATCH:]
        else:
            rows = self.matching if self.before is None else self.matching.filter(pk__lt=self.before)
            wanted = newest_keys(rows, BATCH, ranges_of(statuses))
            if wanted:
                self.before = wanted[-1]
            elif self.searched_to is not None:
                # The key itself was not looked at any more.
                self.before = uuid.UUID(int=self.searched_to.int + 1)
            else:
                self.before = uuid.UUID(int=0)
        return list(self.rows.order_by("-pk").filter(pk__in=wanted))

    def left(self, statuses: Iterable[Status]) -> int:
        """Count the rows that are left, up to one past ``COUNTED``."""
        if self.pks is not None:
            return len(self.pks)
        if self.before is None:
            return count_up_to(self.matching, COUNTED + 1, ranges_of(statuses))
        return count_up_to(self.matching.filter(pk__lt=self.before), COUNTED + 1, ranges_of(statuses))


def _list_before(model_admin: InvocationAdmin, request: HttpRequest, before: uuid.UUID | None) -> InvocationChangeList:
    """Read the list that the address describes; a search looks on from where the last batch ended."""
    address = request.GET
    try:
        if before is not None and address.get(SEARCH_VAR):
            narrowed = address.copy()
            narrowed["id__lt"] = str(before)
            request.GET = narrowed  # type: ignore[assignment]  # as Django's own views read it
        found: Any = model_admin.get_changelist_instance(request)
    except IncorrectLookupParameters:
        raise Http404 from None
    finally:
        request.GET = address
    changelist: InvocationChangeList = found
    return changelist


def view(model_admin: InvocationAdmin, request: HttpRequest, name: str) -> HttpResponse:
    """Operate on a selection of rows."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    button = BUTTONS.get(name)
    if button is None:
        raise Http404
    if not model_admin.may(button, request):
        raise PermissionDenied
    state = _state_of(request)
    selection = Selection.of(model_admin, request, state)
    if selection.is_empty:
        messages.warning(request, _("Nothing was selected, so nothing was done."))
        return _back(model_admin, request, selection)
    options, complaint = _options_of(button, request)
    asked = request.POST.get("confirmed") == "yes"
    if complaint or (not asked and (button.confirm or selection.pks is None)):
        return _confirmation(model_admin, request, button, selection, complaint)
    if button.name in _MAKES_NEW and not _is_first(state):
        messages.warning(request, _("This page was sent before, so nothing was done again."))
        return _back(model_admin, request, selection)
    reason = storable_text(request.POST.get("reason", "")).strip()[:REASON_LENGTH]
    tally = Tally(**state.get("tally", {}))
    batch = selection.next_batch(button.statuses)
    report = button.run(batch, request.user, **options)
    tally.add(report)
    _write_history(request, button, batch, report, reason)
    left = selection.left(button.statuses)
    if left or selection.searched_to is not None:
        if not batch or len(report.refused) < len(batch):
            return _progress(model_admin, request, button, selection, tally, left)
        # A server that refuses a whole batch would refuse the next one too, and be waited for each time.
        messages.error(request, _("It was stopped: of the last %(count)d, none was done.") % {"count": len(batch)})
    _say(request, button, tally)
    return _back(model_admin, request, selection, report)


def _is_first(state: dict[str, Any]) -> bool:
    """Tell whether a page is sent for the first time: a double click must not restart or send anything twice.

    It is as good as the project's cache: one that processes share knows of all their pages.
    """
    once = state.get("once")
    if not once:
        return True
    try:
        return cache.add(f"restate_django.admin.once.{once}", 1, _ONCE_SECONDS)
    except Exception:
        # Whatever a cache's driver raises must not hold an operator up.
        logger.warning("Whether a page was sent before is not known: the cache is away.", exc_info=True)
        return True


# ---------------------------------------------------------------- pages


def _confirmation(
    model_admin: InvocationAdmin, request: HttpRequest, button: Button, selection: Selection, complaint: str
) -> HttpResponse:
    context = {
        "title": _("%(operation)s: are you sure?") % {"operation": button.label},
        "selection": _counts(button, selection),
        "sample": (sample := _sample(model_admin, button, selection)),
        "deployments": _deployments([row for row, _url, _badge in sample]) if "deployment" in button.options else [],
        "complaint": complaint,
        "single": selection.pks is not None and len(selection.pks) == 1,
        "given": {name: request.POST.get(name, "") for name in ("reason", "deployment", "deployment_id", "from_entry")},
    }
    return _page(model_admin, request, button, selection, None, "confirm.html", context)


def _progress(
    model_admin: InvocationAdmin, request: HttpRequest, button: Button, selection: Selection, tally: Tally, left: int
) -> HttpResponse:
    context = {
        "title": button.label,
        "tally": tally,
        "left": min(left, COUNTED),
        "left_capped": left > COUNTED,
        "searches_on": selection.searched_to is not None,
        "whole": tally.total + left,
        "carried": [
            (name, request.POST.get(name, "")) for name in ("reason", "deployment", "deployment_id", "from_entry")
        ],
    }
    return _page(model_admin, request, button, selection, tally, "progress.html", context)


def _page(
    model_admin: InvocationAdmin,
    request: HttpRequest,
    button: Button,
    selection: Selection,
    tally: Tally | None,
    template: str,
    context: dict[str, Any],
) -> HttpResponse:
    request.current_app = model_admin.admin_site.name
    state = {
        "pks": [pk.hex for pk in selection.pks] if selection.pks is not None else None,
        "newest": selection.newest.hex if selection.newest else None,
        "before": selection.before.hex if selection.before else None,
        "tally": asdict(tally) if tally else {},
        "once": secrets.token_hex(8),
    }
    return TemplateResponse(
        request,
        f"admin/restate_django/invocation/{template}",
        {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "media": model_admin.media,
            "button": button,
            "reason_length": REASON_LENGTH,
            "crumbs_are_list": django.VERSION >= (6, 1),
            "state": signing.dumps(state, salt=_SALT, compress=True),
            "across": selection.pks is None,
            "came_from": request.POST.get("_from", ""),
            "back_url": _back_url(model_admin, request, selection),
            **context,
        },
    )


def _counts(button: Button, selection: Selection) -> dict[str, Any]:
    """How many rows it will be done to, and how many will be passed over and why."""
    if selection.pks is not None:
        by_status = Counter(selection.rows.order_by().values_list("status", flat=True))
        skipped: list[tuple[SafeString, int]] = [
            (status_badge(status), by_status[status])
            for status in Status
            if by_status[status] and status not in button.statuses
        ]
        affected = sum(count for status, count in by_status.items() if status in button.statuses)
        return {
            "affected": affected,
            "skipped": skipped,
            "skipped_count": sum(count for _badge, count in skipped),
            "missing": len(selection.pks) - sum(by_status.values()),
        }
    affected = count_up_to(selection.matching, COUNTED + 1, ranges_of(button.statuses))
    others = [status for status in Status if status not in button.statuses]
    skipped_count = count_up_to(selection.matching, COUNTED + 1, ranges_of(others))
    return {
        "affected": min(affected, COUNTED),
        "capped": affected > COUNTED,
        "skipped_count": min(skipped_count, COUNTED),
        "skipped_capped": skipped_count > COUNTED,
        "searches_on": selection.searched_to is not None,
    }


def _sample(
    model_admin: InvocationAdmin, button: Button, selection: Selection
) -> list[tuple[Invocation, str, SafeString]]:
    keys = newest_keys(selection.matching, _SAMPLE, ranges_of(button.statuses))
    rows = selection.rows.order_by("-pk").filter(pk__in=keys)
    return [(row, model_admin.url("change", row.pk), status_badge(row.status)) for row in rows]


def _deployments(rows: list[Invocation]) -> list[tuple[str, str]]:
    """Return the deployments that can be chosen for rows of one connection: ids, and where and what they are."""
    aliases, services = {row.connection for row in rows}, {row.service for row in rows}
    if len(aliases) != 1:
        return []
    try:
        admin = connections[aliases.pop()].admin
        found = admin.list_deployments(timeout=_TIMEOUT) if admin else []
    except (RestateError, ImproperlyConfigured):
        # An id can be typed all the same, and what can't be done is said afterwards.
        return []
    having = [each for each in found if services <= set(each.revisions)]
    having.sort(key=lambda each: max(each.revisions[name] for name in services), reverse=True)
    having = having[:_OFFERED]
    return [
        (
            each.id,
            _("%(address)s, revision %(number)s")
            % {
                "address": each.uri or each.arn or each.id,
                "number": ", ".join(str(each.revisions[name]) for name in sorted(services)),
            },
        )
        for each in having
    ]


# ---------------------------------------------------------------- what is said afterwards, and where to go


def _say(request: HttpRequest, button: Button, tally: Tally) -> None:
    """Tell the user how many it was done to, how many were passed over, and how many were refused, and why."""
    if tally.done:
        messages.success(request, button.done % {"count": tally.done})
    if tally.at_once:
        text = ngettext(
            "%(count)d invocation was cancelled before it started.",
            "%(count)d invocations were cancelled before they started.",
            tally.at_once,
        )
        messages.success(request, text % {"count": tally.at_once})
    for reason, count in _most(tally.passed_over):
        text = ngettext("%(count)d was passed over. %(reason)s", "%(count)d were passed over. %(reason)s", count)
        messages.warning(request, text % {"count": count, "reason": reason})
    for reason, count in _most(tally.refused):
        text = ngettext("%(count)d was not done. %(reason)s", "%(count)d were not done. %(reason)s", count)
        messages.error(request, text % {"count": count, "reason": reason})
    if not tally.total:
        messages.warning(request, _("Nothing was done: the selected invocations are not there any more."))


def _most(reasons: dict[str, int]) -> list[tuple[str, int]]:
    """The most frequent reasons, and the rest of them as one."""
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    rest = sum(count for _reason, count in ordered[_REASONS:])
    return ordered[:_REASONS] + ([(_("The reasons differ."), rest)] if rest else [])


def _write_history(
    request: HttpRequest, button: Button, batch: list[Invocation], report: OperationReport, reason: str
) -> None:
    """Write into the admin history of each row that something was done to, or was asked of Restate."""
    if not button.history:
        return
    user_id: Any = request.user.pk
    because = " " + _("Reason: %(reason)s") % {"reason": reason} if reason else ""
    entries: dict[tuple[int, str], list[Invocation]] = {}
    old_rows: dict[uuid.UUID | None, Invocation] = {row.pk: row for row in batch}
    for row, what in report.done:
        if button.origin:
            text = button.origin % {"key": row.restarted_from_id}
            entries.setdefault((ADDITION, text + because), []).append(row)
            text = f"{what} " + _("The new invocation is %(key)s.") % {"key": row.pk}
            if row.restarted_from_id in old_rows:
                entries.setdefault((CHANGE, text + because), []).append(old_rows[row.restarted_from_id])
        else:
            entries.setdefault((CHANGE, what + because), []).append(row)
    for row, refusal in report.refused:
        text = _("%(operation)s was not done. %(reason)s") % {"operation": button.label, "reason": refusal}
        entries.setdefault((CHANGE, text + because), []).append(row)
    for (flag, text), rows in entries.items():
        LogEntry.objects.log_actions(user_id=user_id, queryset=rows, action_flag=flag, change_message=text)


def _back(
    model_admin: InvocationAdmin, request: HttpRequest, selection: Selection, report: OperationReport | None = None
) -> HttpResponse:
    """Lead back to where the button was; to the new row, where one row was restarted as new."""
    came_from_detail = request.POST.get("_from") == "detail"
    if came_from_detail and report is not None and len(report.done) == 1:
        return HttpResponseRedirect(model_admin.url("change", report.done[0][0].pk))
    return HttpResponseRedirect(_back_url(model_admin, request, selection))


def _back_url(model_admin: InvocationAdmin, request: HttpRequest, selection: Selection) -> str:
    if request.POST.get("_from") == "detail":
        pk = _as_uuid(request.POST.get(ACTION_CHECKBOX_NAME)) or (selection.pks[0] if selection.pks else None)
        if pk is not None:
            return model_admin.url("change", pk)
    query = request.GET.urlencode()
    return model_admin.url("changelist") + (f"?{query}" if query else "")


# ---------------------------------------------------------------- what came with the form


def _state_of(request: HttpRequest) -> dict[str, Any]:
    """Read what the last page carried. It is signed: what it says was decided here."""
    text = request.POST.get("state")
    if not text:
        return {}
    try:
        state: dict[str, Any] = signing.loads(text, salt=_SALT)
    except signing.BadSignature:
        raise Http404 from None
    return state


def _options_of(button: Button, request: HttpRequest) -> tuple[dict[str, Any], str]:
    """Return the operation's own options, or a complaint about one of them."""
    options: dict[str, Any] = {}
    if "deployment" in button.options:
        chosen = request.POST.get("deployment", "").strip()
        if chosen == "id":
            chosen = request.POST.get("deployment_id", "").strip()
            if not chosen.startswith("dp_"):
                return {}, _("A deployment's id begins with dp_, as Restate shows it.")
        if chosen:
            if not _DEPLOYMENT.fullmatch(chosen):
                return {}, _("A deployment's id begins with dp_, as Restate shows it.")
            options["deployment"] = chosen
    if "from_entry" in button.options:
        entry = request.POST.get("from_entry", "").strip()
        if entry:
            if not _ENTRY.fullmatch(entry):
                return {}, _("A journal entry is a number, as the journal shows it.")
            options["from_entry"] = int(entry)
    return options, ""


def _as_uuid(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
