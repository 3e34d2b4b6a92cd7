"""Who asked for invocations and what they belong to, looked up for a whole page at once.

There is no constraint in the database behind either, and they may live in another one: each is read through its own
model's manager, and one that is not there any more is shown as such. Imports the records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth import get_permission_codename, get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Sequence

    from django.contrib.admin import AdminSite
    from django.db import models
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from restate_django.models import Invocation


#: Rows that are looked at for those of one transaction: from its first one on.
_LOOKED_AT: Final = 500


@dataclass(frozen=True)
class Reference:
    """Another model's object, as a row names it.

    Attributes:
        text: Its own words, or its kind and key where it is gone or may not be read.
        url: Its page in the admin; empty where there is none, or not for this user.
        missing: It is not there any more.
    """

    text: str
    url: str = ""
    missing: bool = False

    def html(self) -> SafeString:
        """Return a link to it, or its words alone."""
        if self.missing:
            return format_html(
                '<span class="restate-missing" title="{}">{}</span>', _("It is not there any more."), self.text
            )
        if self.url:
            return format_html('<a href="{}">{}</a>', self.url, self.text)
        return format_html("<span>{}</span>", self.text)


class Relations:
    """The references of some rows.

    Costs one query for the users, one for content types that this process does not know yet, and one for each model
    that the rows belong to.
    """

    def __init__(self, rows: Iterable[Invocation], request: HttpRequest, site: AdminSite) -> None:
        self._request = request
        self._site = site
        self._may_see: dict[type[models.Model], bool] = {}
        rows = list(rows)
        self._users = self._find_users(rows)
        self._objects = self._find_related(rows)

    def requested_by(self, row: Invocation) -> Reference | None:
        """Who asked, or None where nobody is recorded."""
        if row.requested_by_id is None:
            return None
        return self._users.get(row.requested_by_id)

    def related_to(self, row: Invocation) -> Reference | None:
        """What it belongs to, or None where nothing is recorded."""
        if not row.related_id:
            return None
        return self._objects.get((row.related_content_type_id, row.related_id))

    def _find_users(self, rows: Sequence[Invocation]) -> dict[Any, Reference]:
        wanted = {row.requested_by_id for row in rows if row.requested_by_id is not None}
        if not wanted:
            return {}
        model = get_user_model()
        found = model._base_manager.in_bulk(wanted)
        return {
            pk: self._reference(found[pk], str(found[pk].get_username()))
            if pk in found
            else Reference(_("user %(key)s") % {"key": pk}, missing=True)
            for pk in wanted
        }

    def _find_related(self, rows: Sequence[Invocation]) -> dict[tuple[int | None, str], Reference]:
        wanted: dict[int, set[str]] = {}
        # A content type's number is its database's own, and the rows of a page are of one.
        using = rows[0]._state.db if rows else None
        references: dict[tuple[int | None, str], Reference] = {}
        for row in rows:
            if row.related_id and row.related_content_type_id is not None:
                wanted.setdefault(row.related_content_type_id, set()).add(row.related_id)
            elif row.related_id:
                references[None, row.related_id] = Reference(row.related_id, missing=True)
        types = ContentType.objects.using(using).in_bulk(wanted) if wanted else {}
        for type_id, keys in wanted.items():
            model = types[type_id].model_class() if type_id in types else None
            if model is None:
                name = types[type_id].name if type_id in types else _("object")
                references |= {(type_id, key): Reference(f"{name} {key}", missing=True) for key in keys}
            else:
                references |= {(type_id, key): reference for key, reference in self._of_model(model, keys).items()}
        return references

    def _of_model(self, model: type[models.Model], keys: set[str]) -> dict[str, Reference]:
        field = model._meta.pk
        if field is None:
            return {}
        pks: dict[str, Any] = {}
        missing: set[str] = set()
        for key in keys:
            try:
                pks[key] = field.to_python(key)
            except (ValidationError, ValueError, TypeError):
                # The model's primary key has another type now: nothing has this key.
                missing.add(key)
        found = model._base_manager.in_bulk(set(pks.values())) if pks else {}
        references = {}
        for key in keys:
            obj = None if key in missing else found.get(pks[key])
            if obj is None:
                references[key] = Reference(f"{model._meta.verbose_name} {key}", missing=True)
            else:
                references[key] = self._reference(obj, str(obj))
        return references

    def _reference(self, obj: models.Model, text: str) -> Reference:
        model = type(obj)
        if not self._is_visible(model):
            # A name can tell what its page would not.
            is_user = model is get_user_model()
            return Reference(text if is_user else f"{model._meta.verbose_name} {obj.pk}")
        return Reference(text, self._url_of(obj))

    def _is_visible(self, model: type[models.Model]) -> bool:
        if model not in self._may_see:
            opts = model._meta
            self._may_see[model] = any(
                self._request.user.has_perm(f"{opts.app_label}.{get_permission_codename(action, opts)}")
                for action in ("view", "change")
            )
        return self._may_see[model]

    def _url_of(self, obj: models.Model) -> str:
        if not self._site.is_registered(type(obj)):
            return ""
        opts = obj._meta
        try:
            return reverse(
                f"admin:{opts.app_label}_{opts.model_name}_change", args=[obj.pk], current_app=self._site.name
            )
        except NoReverseMatch:
            return ""


def same_transaction(row: Invocation, limit: int = 5) -> tuple[list[Invocation], bool]:
    """Return what else the row's transaction recorded, in order, and whether there is more. One query.

    A transaction's name is as old as its first row (see ``transactions``), so its rows follow on that in the order of
    the primary key; those of other processes stand between them.

    Args:
        row: The invocation.
        limit: Rows at most.
    """
    if row.transaction_id is None:
        return [], False
    following = type(row).objects.using(row._state.db).filter(pk__gt=row.transaction_id).order_by("pk")
    columns = ("id", "transaction_id", "status", "service", "key", "handler")
    found = [
        each
        for each in following.only(*columns)[:_LOOKED_AT]
        if each.transaction_id == row.transaction_id and each.pk != row.pk
    ]
    return found[:limit], len(found) > limit


def restarts_of(row: Invocation, limit: int = 10) -> list[tuple[uuid.UUID, str]]:
    """Return the rows that were restarted from this one, newest first, as keys and statuses."""
    return list(row.restarts.order_by("-pk").values_list("pk", "status")[:limit])
