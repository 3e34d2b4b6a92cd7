"""Tags for a project's own pages: ``{% load restate_django %}``.

Their script and style are static files, named once in a page, so that a strict Content-Security-Policy lets them in.
Imports the edges beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from restate_django import forms, links

if TYPE_CHECKING:
    from datetime import timedelta

    from django.utils.safestring import SafeString

    from restate_django.models import Invocation

register = template.Library()

_SEEN: Final = "restate_django.assets"


@register.inclusion_tag("restate_django/invocation_status.html", takes_context=True)
def invocation_status(
    context: template.Context,
    invocation: Invocation | None,
    *,
    cancel: bool | str = False,
    expires: timedelta | float = links.DAY,
    assets: bool = True,
    htmx: bool = False,
) -> dict[str, Any]:
    """Show how an invocation stands: a badge that renews itself until the end, and plain text without script.

    Under ASGI it is told of changes by a stream, else it asks.

    At the end the badge dispatches the DOM event ``restate:finished``, whose ``detail`` is what the status address
    says. Whoever gets the page may see that status, and cancel with ``cancel``: the addresses in it are signed.

    Args:
        context: The template's context.
        invocation: The row; nothing is shown for None.
        cancel: Add a button that cancels it while it is open; a text is the button's label.
        expires: How long the page's addresses work: a timedelta or seconds.
        assets: Name the script and the style where this is the page's first badge. False for a part of a page that is
            loaded later.
        htmx: Let htmx renew it, and name no script: each answer replaces the badge, and the last one asks no more.
    """
    if invocation is None:
        return {"invocation": None}
    live = not invocation.is_finished
    request = context.get("request")
    return {
        "invocation": invocation,
        "htmx": htmx,
        "events_url": reverse("restate_django:events") if live and isinstance(request, ASGIRequest) else "",
        "url": links.status_url(invocation, expires=expires) if live else "",
        "cancel_url": links.cancel_url(invocation, expires=expires) if cancel and invocation.is_open else "",
        "cancel_label": cancel if isinstance(cancel, str) else _("Cancel"),
        "cancel_requested": invocation.is_open and invocation.cancel_requested_at is not None,
        "back": request.get_full_path() if request is not None else "",
        "assets": assets and _is_first(context, "status"),
    }


@register.simple_tag(takes_context=True)
def idempotency_key(context: template.Context, view: str = "", *, assets: bool = True) -> SafeString:
    """Write the hidden input that makes a form one invocation: see ``restate_django.forms``.

    A page with it belongs to one session: do not cache it, as one with a CSRF token.

    Args:
        context: The template's context; it needs the request.
        view: The name of the view that takes the form in (``"shop:orders"``); the page's own by default.
        assets: As for ``invocation_status``.
    """
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "{% idempotency_key %} needs the request: render the template with it, and add the context processor "
            "django.template.context_processors.request."
        )
    widget = forms.TokenInput()
    html = widget.render(forms.FIELD, forms.new_token(request, view))
    if assets and _is_first(context, "form"):
        return format_html("{}{}", html, widget.media.render())
    return html


def _is_first(context: template.Context, what: str) -> bool:
    """Tell whether this is the first time in this rendering, in whichever of its templates."""
    # The bottom of the render context is one for a template and all that it includes or extends.
    bottom: Any = context.render_context.dicts[0]
    seen: set[str] = bottom.setdefault(_SEEN, set())
    if what in seen:
        return False
    seen.add(what)
    return True
