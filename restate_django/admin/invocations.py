"""The admin class of invocations: the list, the page of one, and who may do what. Imports the modules beside it."""

from __future__ import annotations

from functools import partialmethod
from typing import TYPE_CHECKING, Any, Final

import django
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import ERROR_FLAG, IGNORED_PARAMS, ORDER_VAR, PAGE_VAR
from django.core.paginator import Paginator
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from restate_django.admin import masking, search, wording
from restate_django.admin.badges import chip, status_badge
from restate_django.admin.buttons import BUTTONS, REASON_LENGTH, Button
from restate_django.admin.changelist import InvocationChangeList
from restate_django.admin.filters import (
    BetweenFilter,
    ConnectionFilter,
    DayFilter,
    HandlerFilter,
    RecordedFilter,
    ScopeFilter,
    ServiceFilter,
    StatusFilter,
    ranges_of_group,
)
from restate_django.admin.window import WindowPaginator
from restate_django.lifecycle import OPEN, Status
from restate_django.models import Invocation
from restate_django.querysets import InvocationQuerySet

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.admin.views.main import ChangeList
    from django.http import HttpResponse
    from django.utils.safestring import SafeString

    from restate_django.admin import bodies

    _ModelAdmin = admin.ModelAdmin[Invocation]
else:
    _ModelAdmin = admin.ModelAdmin

#: What the address line may narrow the list by, besides the filters. Each is an index, and none looks into a payload:
#: a look-up is an oracle on the column that it compares.
_LOOKUPS: Final = frozenset(
    {"id__lt", "requested_by__id__exact", "related_content_type__id__exact", "related_id__exact", "handler__exact"}
)
#: What the address line has besides.
_NO_FILTERS: Final = frozenset({*IGNORED_PARAMS, PAGE_VAR, ERROR_FLAG})
_FAILURE_SHOWN: Final = 200
_DELETED_AT_ONCE: Final = 500


def _leads_to_our_view(button: Button) -> Callable[..., HttpResponse]:
    """Make the entry in the list's menu of actions that sends the browser on, with its form, to our own view.

    Django runs actions inside the request's transaction where ``ATOMIC_REQUESTS`` is set, and those of the change form
    (Django 6.1) always. A 307 makes the browser post the same form to a view that runs in none.
    """

    def run(model_admin: InvocationAdmin, request: HttpRequest, queryset: InvocationQuerySet) -> HttpResponse:  # noqa: ARG001 - Django's signature
        url = model_admin.url("operate", button.name)
        query = request.GET.urlencode()
        return HttpResponseRedirect(f"{url}?{query}" if query else url, preserve_request=True)

    run.__name__ = button.name
    action: Any = run
    action.short_description = button.label
    action.allowed_permissions = [button.permission]
    if hasattr(admin, "ActionLocation"):
        action.locations = list(admin.ActionLocation)
        action.plural_description = button.plural
    else:
        action.short_description = button.plural
    return run


class OperationForm(ActionForm):
    """The list's menu of actions, and why one is chosen."""

    reason = forms.CharField(
        label=_("Reason:"),
        required=False,
        max_length=REASON_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": _("for the history")}),
    )


class InvocationAdmin(_ModelAdmin):
    """Invocations, read-only but for the operations.

    A project that wants another one unregisters it and registers a subclass. ``mask`` is the hook for secrets.
    """

    actions = [*(_leads_to_our_view(button) for button in BUTTONS.values()), "delete_selected"]
    action_form = OperationForm
    list_display = (
        "status_column", "target_column", "recorded_column", "duration_column", "trouble_column", "asked_column",
    )  # fmt: skip
    list_display_links = ("target_column",)
    list_filter = (
        StatusFilter, DayFilter, RecordedFilter, BetweenFilter, ServiceFilter, HandlerFilter, ScopeFilter,
        ConnectionFilter,
    )  # fmt: skip
    list_per_page = 50
    list_max_show_all = 0
    list_select_related = False
    # Only what the primary key orders: any other column would sort the whole table.
    sortable_by = ("recorded_column",)
    ordering = ("-pk",)
    search_fields = ("invocation_id",)
    search_help_text = _(
        "An invocation id, a row's id, an idempotency key, an object key, a service, a target (Cart/cart-1/add), what"
        " it belongs to (order 5), or a field of recent payloads (order_id=5)"
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    change_form_template = "admin/restate_django/invocation/detail.html"
    fields = ("status",)

    class Media:
        css = {"all": ("restate_django/admin.css",)}

    # ------------------------------------------------------------------ who may do what

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody makes one by hand: ``send`` does."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Invocation | None = None) -> bool:  # noqa: ARG002 - as above
        """Nobody edits one: it is a record."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Invocation | None = None) -> bool:
        """Tell whether the user may delete rows. An open one is deleted by nobody: Restate would go on without it."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.status not in OPEN)

    def _has(self, codename: str, request: HttpRequest, obj: Invocation | None = None) -> bool:
        return self.has_view_permission(request, obj) and request.user.has_perm(f"{self.opts.app_label}.{codename}")

    has_cancel_permission = partialmethod(_has, "cancel_invocation")
    has_kill_permission = partialmethod(_has, "kill_invocation")
    has_pause_permission = partialmethod(_has, "pause_invocation")
    has_resume_permission = partialmethod(_has, "resume_invocation")
    has_purge_permission = partialmethod(_has, "purge_invocation")
    has_restart_permission = partialmethod(_has, "restart_invocation")
    has_resend_permission = partialmethod(_has, "resend_invocation")
    has_awakeable_permission = partialmethod(_has, "resolve_awakeable")
    has_payload_permission = partialmethod(_has, "view_invocation_payload")
    has_deployments_permission = partialmethod(_has, "manage_deployments")

    def may(self, button: Button, request: HttpRequest) -> bool:
        """Tell whether the user may press a button."""
        return bool(getattr(self, f"has_{button.permission}_permission")(request))

    def mask(self, value: Any) -> Any:
        """Return a JSON payload, output or metadata without its secrets: by default, those with a secret's name."""
        return masking.masked(value)

    # ------------------------------------------------------------------ the list

    def get_queryset(self, request: HttpRequest) -> InvocationQuerySet:
        """Leave payloads and outputs in the database."""
        queryset = super().get_queryset(request)
        assert isinstance(queryset, InvocationQuerySet)  # noqa: S101 - the model's own manager
        return queryset.without_bodies()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ARG002 - Django's signature
        """Return our list."""
        return InvocationChangeList

    def get_paginator(
        self, request: HttpRequest, queryset: Any, per_page: int, orphans: int = 0, allow_empty_first_page: bool = True
    ) -> Paginator[Any]:
        """Page through a window of the newest rows. The history's entries are paged as Django does."""
        if not isinstance(queryset, InvocationQuerySet):
            return Paginator(queryset, per_page, orphans, allow_empty_first_page)
        ranges = () if request.GET.get(ORDER_VAR) else ranges_of_group(request.GET.get("status"))
        return WindowPaginator(queryset, per_page, orphans, allow_empty_first_page, ranges=ranges)

    def get_search_results(
        self,
        request: HttpRequest,
        queryset: Any,
        search_term: str,
    ) -> tuple[Any, bool]:
        """Look the term up in the indexes, and in recent payloads for who may see those."""
        params = {name: value for name, value in request.GET.lists() if name not in _NO_FILTERS}
        mask = self.mask if self.has_payload_permission(request) else None
        found = search.find(queryset, search_term, params, mask=mask)
        # The list says how far back this has looked. Django hands on the rows alone.
        request.restate_reach = found  # type: ignore[attr-defined]  # for the change list of this request
        return found.of(queryset), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:  # noqa: ARG002 - as above
        """Take nothing from the address line but what has an index and gives no payload away."""
        if lookup in _LOOKUPS:
            return True
        entries: Any = self.get_list_filter(request) if request else self.list_filter
        for entry in entries:
            # A filter of ours, or a field that a project's subclass names.
            names = getattr(entry, "parameter_names", None) or [getattr(entry, "parameter_name", None)]
            if names != [None]:
                if lookup in names:
                    return True
                continue
            field = entry if isinstance(entry, str) else entry[0]
            if lookup.split("__", maxsplit=1)[0] == field:
                return True
        return False

    @admin.display(description=_("status"))
    def status_column(self, row: Invocation) -> SafeString:
        """Show the status, and a cancellation that is not confirmed yet."""
        if row.cancel_requested_at and row.status in OPEN:
            note = chip(_("cancel requested"), title=wording.clock(row.cancel_requested_at))
            return format_html("{} {}", status_badge(row.status), note)
        return status_badge(row.status)

    @admin.display(description=_("target"))
    def target_column(self, row: Invocation) -> SafeString:
        """Show service and handler, and the object's key below."""
        key = format_html('<span class="restate-key" title="{}">{}</span>', row.key, row.key) if row.key else ""
        return format_html("<b>{}</b>/<wbr>{}{}", row.service, row.handler, key)

    @admin.display(description=_("recorded"), ordering="pk")
    def recorded_column(self, row: Invocation) -> SafeString:
        """Show its age, and how long it took Restate to have it."""
        if row.accepted_at is None:
            return format_html("{}", wording.time_tag(row.created_at))
        took = _("accepted +%(span)s") % {"span": wording.span(row.accepted_at - row.created_at)}
        return format_html(
            '{}<span class="restate-second">{}</span>',
            wording.time_tag(row.created_at),
            wording.time_tag(row.accepted_at, took),
        )

    @admin.display(description=_("duration"))
    def duration_column(self, row: Invocation) -> SafeString | str:
        """Show how long it ran, or has been running, and when it ended."""
        took = wording.NOTHING
        if row.duration is not None and row.status not in {Status.SCHEDULED, Status.REJECTED}:
            took = wording.span(row.duration)
        if row.finished_at is None:
            return took
        ended = _("ended %(when)s") % {"when": wording.distance(row.finished_at)}
        return format_html('{}<span class="restate-second">{}</span>', took, wording.time_tag(row.finished_at, ended))

    @admin.display(description=_("trouble"))
    def trouble_column(self, row: Invocation) -> SafeString | str:
        """Show attempts and retries where there were several, and the last failure."""
        counts = []
        if row.attempts > 1:
            counts.append(ngettext("%(count)d attempt", "%(count)d attempts", row.attempts) % {"count": row.attempts})
        if row.retry_count:
            counts.append(
                ngettext("%(count)d retry", "%(count)d retries", row.retry_count) % {"count": row.retry_count}
            )
        failure = row.failure_message or wording.recorded_reason(row.delivery_error) or row.last_failure
        if row.failure_code is not None:
            failure = f"[{row.failure_code}] {failure}"
        if not counts and not failure:
            return wording.NOTHING
        return format_html(
            '<span class="restate-counts">{}</span><span class="restate-failure" title="{}">{}</span>',
            ", ".join(counts),
            failure[: _FAILURE_SHOWN * 5],
            wording.first_line(failure, _FAILURE_SHOWN),
        )

    @admin.display(description=_("asked by"))
    def asked_column(self, row: Any) -> SafeString | str:
        """Show who asked, and what it belongs to."""
        asked, related = row.admin_relations.requested_by(row), row.admin_relations.related_to(row)
        if related is None:
            return asked.html() if asked else wording.NOTHING
        return format_html(
            '{}<span class="restate-second">{}</span>',
            asked.html() if asked else wording.NOTHING,
            format_html(str(_("for {what}")), what=related.html()),
        )

    # ------------------------------------------------------------------ deleting

    @admin.action(permissions=["delete"], description=_("Delete selected %(verbose_name_plural)s"))
    def delete_selected(self, request: HttpRequest, queryset: InvocationQuerySet) -> HttpResponse | None:
        """Delete rows that are not open, after Django's own question; the newest of very many.

        Django reads all that it deletes, to ask about it. Whoever wants a table emptied has ``retention.prune``.
        """
        pks = list(queryset.order_by("-pk").values_list("pk", flat=True)[:_DELETED_AT_ONCE])
        rows = Invocation.objects.using(queryset.db).filter(pk__in=pks)
        kept = rows.filter(status__in=sorted(OPEN)).count()
        if kept and not request.POST.get("post"):
            text = ngettext(
                "%(count)d open invocation is kept: cancel or kill it first.",
                "%(count)d open invocations are kept: cancel or kill them first.",
                kept,
            )
            messages.warning(request, text % {"count": kept})
        if kept == len(pks):
            return None
        response: HttpResponse | None = delete_selected(self, request, rows.exclude(status__in=sorted(OPEN)))
        return response

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete what is still not open: a row may have been sent again since the question was asked."""
        super().delete_queryset(request, queryset.exclude(status__in=sorted(OPEN)))

    # ------------------------------------------------------------------ the page of one, and our own views

    def url(self, name: str, *args: Any) -> str:
        """Return the address of one of the admin's views of invocations."""
        view = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(view, args=args, current_app=self.admin_site.name)

    def get_urls(self) -> list[URLPattern]:
        """Add our own views. They hold no transaction: they talk to Restate.

        Their modules are loaded here, with the URLs: a process that serves no pages starts without them.
        """
        from restate_django.admin import (
            approvals,
            deploying,
            downloads,
            journal_page,
            operate,
            overview,
            servers,
            service_page,
        )

        def ours(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
                return view(self, request, *args, **kwargs)

            wrapped: Callable[..., HttpResponse] = self.admin_site.admin_view(inner)
            for alias in connections:
                wrapped = transaction.non_atomic_requests(using=alias)(wrapped)
            return wrapped

        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("overview/", ours(overview.view), name=f"{prefix}_overview"),
            path("servers/", ours(servers.view), name=f"{prefix}_servers"),
            path("servers/service/", ours(service_page.view), name=f"{prefix}_service"),
            path("servers/register/", ours(deploying.register), name=f"{prefix}_register"),
            path("servers/remove/", ours(deploying.remove), name=f"{prefix}_remove"),
            path("operate/<slug:name>/", ours(operate.view), name=f"{prefix}_operate"),
            path("<uuid:pk>/payload/", ours(downloads.payload), name=f"{prefix}_payload"),
            path("<uuid:pk>/journal/", ours(journal_page.view), name=f"{prefix}_journal"),
            path(
                "<uuid:pk>/awakeable/<slug:awakeable_id>/<slug:name>/",
                ours(approvals.view),
                name=f"{prefix}_awakeable",
            ),
            path("<uuid:pk>/output/", ours(downloads.output), name=f"{prefix}_output"),
            *super().get_urls(),
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the page of one."""
        from restate_django.admin.detail import Detail

        row = kwargs["obj"]
        context["detail"] = Detail(row, request, self, context.get("action_form"))
        context["title"] = row.target
        context["subtitle"] = None
        context["tools_are_above"] = django.VERSION >= (6, 1)
        if "_live" in request.GET:
            context |= {"original": row, "opts": self.opts}
            return TemplateResponse(request, "admin/restate_django/invocation/fragment.html", context)
        return super().render_change_form(request, context, *args, **kwargs)

    def bodies_of(self, row: Invocation) -> bodies.Bodies:
        """Read what only ``view_invocation_payload`` lets one see."""
        from restate_django.admin import bodies

        return bodies.read(row, self.mask)
