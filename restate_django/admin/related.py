"""For the admins of other models: what was sent for an object, on the object's own page, and a way to send more.

Imports the modules beside it, the verbs and the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from django.contrib import admin, messages
from django.contrib.admin.checks import InlineModelAdminChecks
from django.contrib.contenttypes.admin import GenericTabularInline
from django.contrib.contenttypes.forms import BaseGenericInlineFormSet
from django.contrib.contenttypes.models import ContentType
from django.db import router
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from restate_django.admin import wording
from restate_django.admin.badges import status_badge
from restate_django.conf import DEFAULT_ALIAS
from restate_django.exceptions import RestateError
from restate_django.models import Invocation

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from restate_django import Outgoing
    from restate_django.querysets import InvocationQuerySet

    _Inline = GenericTabularInline
    _FormSet = BaseGenericInlineFormSet[Any, Any]
    _ModelAdmin = admin.ModelAdmin[Model]
else:
    _Inline = GenericTabularInline
    _FormSet = BaseGenericInlineFormSet
    _ModelAdmin = object

#: Rows that the inline shows: the newest. A link leads to all of them.
SHOWN: Final = 20


@dataclass(frozen=True)
class Line:
    """An invocation as it is shown for its object.

    Attributes:
        row: The invocation.
        site: The name of the admin site whose page it is.
    """

    row: Invocation
    site: str = ""

    @property
    def badge(self) -> SafeString:
        """The status."""
        return status_badge(self.row.status)

    @property
    def target(self) -> SafeString | str:
        """The target, and the way to the invocation's own page where the site has one."""
        url = _url("change", self.row.pk, current_app=self.site)
        return format_html('<a href="{}">{}</a>', url, self.row.target) if url else self.row.target

    @property
    def recorded(self) -> SafeString | str:
        """Its age."""
        return wording.time_tag(self.row.created_at)

    @property
    def duration(self) -> str:
        """How long it ran, or has been running."""
        return wording.span(self.row.duration) if self.row.duration is not None else wording.NOTHING

    @property
    def failure(self) -> str:
        """What went wrong last."""
        row = self.row
        failure = row.failure_message or wording.recorded_reason(row.delivery_error) or row.last_failure
        return wording.first_line(failure, 200) or wording.NOTHING


@dataclass(frozen=True)
class Panel:
    """What was sent for an object, on a page without formsets.

    Attributes:
        lines: The newest.
        all_url: The list of all of them; empty where no site has one.
    """

    lines: list[Line]
    all_url: str

    @classmethod
    def of(cls, obj: Any, request: HttpRequest) -> Self | None:
        """Return an object's panel; None for a user who may not view invocations, and for an object without a key."""
        if obj is None or obj.pk is None or not request.user.has_perm("restate_django.view_invocation"):
            return None
        rows = Invocation.objects.for_object(obj).without_bodies()[:SHOWN]
        site = getattr(request, "current_app", "")
        return cls([Line(row, site) for row in rows], _all_url(obj))


class _NewestFirst(_FormSet):
    """The newest rows of an object, to be looked at.

    It takes nothing from a form: whatever was sent for the object since its page was opened does not get in the way of
    saving the object.
    """

    new_objects: list[Any] = []
    changed_objects: list[tuple[Any, list[str]]] = []
    deleted_objects: list[Any] = []

    def __init__(self, data: Any = None, files: Any = None, **kwargs: Any) -> None:  # noqa: ARG002 - Django's signature
        super().__init__(None, None, **kwargs)

    def get_queryset(self) -> Any:
        if not hasattr(self, "_queryset"):
            self._queryset = super().get_queryset().order_by("-pk")[:SHOWN]
        return self._queryset

    def is_valid(self) -> bool:
        return True

    def save(self, commit: bool = True) -> list[Any]:  # noqa: ARG002 - Django's signature
        return []

    @property
    def all_url(self) -> str:
        """The list of everything that was sent for the object; empty where the site has none."""
        return _all_url(self.instance)


class _Checks(InlineModelAdminChecks):
    """Django looks for a foreign key, or for a GenericForeignKey. Invocations have neither: two plain columns."""

    def _check_relation(self, obj: Any, parent_model: Any) -> list[Any]:  # noqa: ARG002 - Django's signature
        return []

    def _check_exclude_of_parent_model(self, obj: Any, parent_model: Any) -> list[Any]:  # noqa: ARG002 - as above
        return []


class InvocationInline(_Inline):
    """The newest invocations that were sent with ``related_to`` an object, on the object's page. Read-only.

    Put it into ``inlines`` of any model's admin. It shows itself to users who may view invocations.
    """

    model = Invocation
    formset: Any = _NewestFirst
    checks_class = _Checks
    ct_field = "related_content_type"
    ct_fk_field = "related_id"
    fields = readonly_fields = (
        "status_column",
        "target_column",
        "recorded_column",
        "duration_column",
        "failure_column",
    )
    extra = 0
    max_num = 0
    can_delete = False
    verbose_name_plural = gettext_lazy("Restate invocations")
    template = "admin/restate_django/related_inline.html"

    class Media:
        css = {"all": ("restate_django/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> InvocationQuerySet:
        """Leave payloads and outputs in the database."""
        queryset: Any = super().get_queryset(request)
        found: InvocationQuerySet = queryset.without_bodies()
        return found

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody makes one by hand: ``send`` does."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - as above
        """Nobody edits one: it is a record."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - as above
        """Nobody deletes one from here."""
        return False

    @admin.display(description=gettext_lazy("status"))
    def status_column(self, row: Invocation) -> SafeString:
        """Show the status."""
        return Line(row).badge

    @admin.display(description=gettext_lazy("target"))
    def target_column(self, row: Invocation) -> SafeString | str:
        """Lead to the invocation's own page, where the site has one."""
        return Line(row, self.admin_site.name).target

    @admin.display(description=gettext_lazy("recorded"))
    def recorded_column(self, row: Invocation) -> SafeString | str:
        """Show its age."""
        return Line(row).recorded

    @admin.display(description=gettext_lazy("duration"))
    def duration_column(self, row: Invocation) -> str:
        """Show how long it ran, or has been running."""
        return Line(row).duration

    @admin.display(description=gettext_lazy("failure"))
    def failure_column(self, row: Invocation) -> str:
        """Show what went wrong last."""
        return Line(row).failure


class SendToRestateMixin(_ModelAdmin):
    """A "Send to Restate" action for a model's list.

    Put it before ``ModelAdmin``, and name a service and a handler, or override :meth:`restate_outgoing` to say what is
    sent for an object. An admin with ``actions`` of its own names ``"send_to_restate"`` among them.
    """

    actions = ("send_to_restate",)

    #: The service and the handler that are sent to.
    restate_service: Any = ""
    restate_handler: Any = ""
    #: The alias in ``RESTATE``.
    restate_connection: str = DEFAULT_ALIAS

    def restate_outgoing(self, request: HttpRequest, obj: Model) -> Outgoing:
        """Return what is sent for an object: by default, its primary key as ``{"pk": ...}``.

        Args:
            request: The request of the user who asks.
            obj: The selected object.
        """
        from restate_django import Outgoing

        return Outgoing(
            self.restate_service,
            self.restate_handler,
            {"pk": obj.pk},
            requested_by=request.user,
            related_to=obj,
        )

    def has_send_to_restate_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may send: by default, those who may change objects."""
        return self.has_change_permission(request)

    @admin.action(
        permissions=["send_to_restate"], description=gettext_lazy("Send selected %(verbose_name_plural)s to Restate")
    )
    def send_to_restate(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        """Send one invocation for each selected object: all of them, or none."""
        from restate_django import send_many

        outgoing = (self.restate_outgoing(request, obj) for obj in queryset.iterator(chunk_size=500))
        try:
            rows = send_many(outgoing, connection=self.restate_connection, using=router.db_for_write(Invocation))
        except RestateError as error:
            messages.error(request, _("Nothing was sent. %(reason)s") % {"reason": error})
            return
        text = ngettext("Sent %(count)d invocation to Restate.", "Sent %(count)d invocations to Restate.", len(rows))
        messages.success(request, text % {"count": len(rows)})


def _all_url(obj: Any) -> str:
    query: dict[str, Any] = {
        "related_content_type__id__exact": ContentType.objects.get_for_model(obj).pk,
        "related_id__exact": str(obj.pk),
    }
    url = _url("changelist", current_app="")
    return f"{url}?{urlencode(query)}" if url else ""


def _url(name: str, *args: Any, current_app: str) -> str:
    """Return the address of a page of invocations: on this site, else on the default one; empty where none has it."""
    for site in (current_app, None):
        try:
            return reverse(f"admin:restate_django_invocation_{name}", args=args, current_app=site)
        except NoReverseMatch:
            continue
    return ""
