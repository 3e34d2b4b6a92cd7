"""Tags and filters of the admin's templates. Imports the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.contrib import admin
from django.contrib.admin.sites import all_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db import models

register = template.Library()


@register.filter
def at(values: Mapping[str, Any], key: str) -> Any:
    """Return a mapping's value for a key, and nothing for one that it lacks."""
    return values.get(key, "")


@register.filter
def unlocalized(number: float) -> str:
    """Return a number as SVG wants it, whatever the reader's language writes for a decimal point."""
    return f"{number:g}"


@register.inclusion_tag("admin/restate_django/related_panel.html", takes_context=True)
def restate_panel(context: dict[str, Any], obj: models.Model) -> dict[str, Any]:
    """Show the newest invocations that were sent with ``related_to`` an object, to a user who may view invocations.

    It stands on any page: an object's in the admin, where an inline is out of place, or one of a project's own. It
    needs the request in the context.

    Args:
        context: The page's.
        obj: The object; one that is not saved yet has nothing.
    """
    from restate_django.admin.related import Panel

    return {"panel": Panel.of(obj, context["request"])}


@register.simple_tag(takes_context=True)
def restate_overview(context: dict[str, Any]) -> Any:
    """Return how things stand, for a user who may see it; None for another one.

    It is read as the page's own site would, where invocations are registered there.
    """
    from restate_django.admin import InvocationAdmin
    from restate_django.admin.overview import Overview
    from restate_django.models import Invocation

    request = context["request"]
    name = getattr(request, "current_app", "") or admin.site.name
    sites = [site for site in all_sites if site.is_registered(Invocation)]
    for site in sorted(sites, key=lambda site: site.name != name):
        model_admin = site.get_model_admin(Invocation)
        if isinstance(model_admin, InvocationAdmin) and model_admin.has_view_permission(request):
            return Overview(model_admin, request)
    return None
