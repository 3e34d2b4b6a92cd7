"""The shop's own records in the admin, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from shop.models import Order, Question, Reminder, Report

if TYPE_CHECKING:
    from django.http import HttpRequest


@admin.register(Order, Reminder, Report, Question)
class AskedAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # ModelAdmin takes no parameter when it runs
    """Read-only: what was asked for does not change afterwards."""

    list_display = ("__str__", "visitor", "created_at")
    date_hierarchy = None

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Orders are placed in the shop."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """What was asked for stays as it is."""
        return False
