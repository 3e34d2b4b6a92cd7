"""The addresses of the admin's pages, and what a browser does with them."""

from __future__ import annotations

from django.urls import reverse

LIST = "/admin/restate_django/invocation/"


def page_of(row):
    """The page of one."""
    return reverse("admin:restate_django_invocation_change", args=[row.pk])


def operate(name):
    """The view behind a button."""
    return reverse("admin:restate_django_invocation_operate", args=[name])


def awakeable(row, awakeable_id, verdict):
    """The view that resolves or rejects an awakeable."""
    return reverse("admin:restate_django_invocation_awakeable", args=[row.pk, awakeable_id, verdict])


def press(client, name, *rows, follow=True, **fields):
    """Choose an action in the list for some rows, and go where the browser would: a 307 is posted on."""
    data = {"action": name, "_selected_action": [str(row.pk) for row in rows], "index": "0", **fields}
    return client.post(LIST, data, follow=follow)


def confirm(client, response, **fields):
    """Answer the question that a response asks, with all that its form carries."""
    assert response.status_code == 200
    context = response.context
    data = {"confirmed": "yes", "state": context["state"], **fields}
    if context["across"]:
        data["select_across"] = "1"
    if context["came_from"]:
        data["_from"] = context["came_from"]
    query = response.request.get("QUERY_STRING", "")
    path = response.request["PATH_INFO"]
    return client.post(f"{path}?{query}" if query else path, data, follow=True)


def messages_of(response):
    """What the page tells the user, by level."""
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


#: The widths of a desk's window and of a telephone's.
WIDTHS = (1280, 400)


def too_wide_for(site):
    """The widths of windows that the page in the browser is too wide for. It stays in the last one."""
    # Without its styles a page has another width.
    site.wait_for_load_state()
    found = []
    for width in WIDTHS:
        site.set_viewport_size({"width": width, "height": 800})
        if site.evaluate("document.documentElement.scrollWidth") > width:
            found.append(width)
    return found
