"""Who may see and do what: every kind of user at every page and every button."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model

from restate_django.admin.approvals import VERDICTS
from restate_django.admin.buttons import BUTTONS
from restate_django.models import Invocation
from tests.admin.conftest import EVERYTHING
from tests.admin.pages import LIST, awakeable, operate, page_of
from tests.admin.rows import make_row

# Transactions of their own: the operations refuse to run inside one.
pytestmark = pytest.mark.django_db(transaction=True)

VIEWER = {"view_invocation"}
#: Whom it is about, and what they have.
PEOPLE = {
    "anonymous": None,
    "staff without rights": set(),
    "payload viewer without the right to view": {"view_invocation_payload"},
    "canceller without the right to view": {"cancel_invocation"},
    "approver without the right to view": {"resolve_awakeable"},
    "viewer": VIEWER,
    "canceller": VIEWER | {"cancel_invocation"},
    "approver": VIEWER | {"resolve_awakeable"},
    "payload viewer": VIEWER | {"view_invocation_payload"},
    "deleter": VIEWER | {"delete_invocation"},
    "manager of deployments": VIEWER | {"manage_deployments"},
    "manager without the right to view": {"manage_deployments"},
    "everything": set(EVERYTHING),
}
NEEDS = {
    "cancel": "cancel_invocation",
    "kill": "kill_invocation",
    "pause": "pause_invocation",
    "resume": "resume_invocation",
    "purge": "purge_invocation",
    "purge_journal": "purge_invocation",
    "restart_as_new": "restart_invocation",
    "resend": "resend_invocation",
    "send_anew": "resend_invocation",
    "refresh": "view_invocation",
}


@pytest.fixture(params=PEOPLE, ids=lambda name: name.replace(" ", "-"))
def person(request, user_with, client_of):
    """A client of each kind of user, with the permissions that they have."""
    permissions = PEOPLE[request.param]
    if permissions is None:
        return client_of(None), None
    return client_of(user_with(*permissions)), permissions


def expect(response, permissions, allowed):
    """A page for those who may, the login for those who are nobody, and a refusal for the others."""
    if permissions is None:
        assert response.status_code == 302
        assert "/login/" in response["Location"]
    elif allowed:
        assert response.status_code == 200
    else:
        assert response.status_code == 403


def test_pages(person):
    client, permissions = person
    row = make_row("succeeded")
    sees = permissions is not None and "view_invocation" in permissions
    expect(client.get(LIST), permissions, sees)
    expect(client.get(page_of(row)), permissions, sees)
    expect(client.get(page_of(row).replace("change", "history")), permissions, sees)
    expect(client.get(page_of(row).replace("change", "journal")), permissions, sees)
    expect(client.get(f"{LIST}overview/"), permissions, sees)
    sees_bodies = sees and "view_invocation_payload" in permissions
    expect(client.get(page_of(row).replace("change", "payload")), permissions, sees_bodies)
    expect(client.get(page_of(row).replace("change", "output")), permissions, sees_bodies)
    expect(client.get(LIST + "add/"), permissions, allowed=False)
    deletes = permissions is not None and "delete_invocation" in permissions
    expect(client.get(page_of(row).replace("change", "delete")), permissions, deletes)


def test_every_page_of_the_admin_is_in_these_tests():
    """A page that is added stands here, or the test that says who may see it is missing."""
    names = {pattern.name for pattern in admin.site.get_model_admin(Invocation).get_urls() if pattern.name}
    pages = {
        "changelist", "add", "history", "delete", "change",  # test_pages
        "overview", "payload", "output", "journal",  # the same
        "servers", "service", "register", "remove",  # test_pages_of_the_servers
        "operate",  # test_posts_to_the_view_behind_a_button
        "awakeable",  # test_the_question_and_the_post_that_complete_an_awakeable
    }  # fmt: skip
    assert names == {f"restate_django_invocation_{name}" for name in pages}


def test_posts_that_are_no_operation(person):
    """Deleting, and what takes no POST at all."""
    client, permissions = person
    sees = permissions is not None and "view_invocation" in permissions
    row = make_row("succeeded")
    for address in (f"{LIST}overview/", f"{LIST}servers/", page_of(row).replace("change", "journal")):
        response = client.post(address)
        assert response.status_code in ({405} if permissions is not None else {302}), address
    for what in ("payload", "output"):
        assert client.post(page_of(row).replace("change", what)).status_code in {302, 403, 405}
    response = client.post(page_of(row), {"status": "failed"})
    assert response.status_code == (302 if permissions is None else 403)
    assert client.post(f"{LIST}add/", {"service": "A"}).status_code == (302 if permissions is None else 403)
    data = {"action": "delete_selected", "_selected_action": str(row.pk), "index": "0", "post": "yes"}
    deletes = permissions is not None and "delete_invocation" in permissions
    client.post(LIST, data)
    # Django's own list opens for those who may view.
    assert Invocation.objects.filter(pk=row.pk).exists() == (not (deletes and sees))
    other = make_row("succeeded")
    response = client.post(page_of(other).replace("change", "delete"), {"post": "yes"})
    assert response.status_code == (302 if permissions is None or deletes else 403)
    assert Invocation.objects.filter(pk=other.pk).exists() == (not deletes)


@pytest.mark.parametrize("address", ["/admin/", "/admin/restate_django/"])
def test_the_index_tells_how_things_stand_to_who_may_see_it(person, address):
    client, permissions = person
    make_row("paused", service="Visible")
    page = client.get(address).content.decode()
    sees = permissions is not None and "view_invocation" in permissions
    assert ("Visible" in page) == sees


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_question_and_the_post_that_complete_an_awakeable(person, verdict):
    client, permissions = person
    url = awakeable(make_row("gone"), "sign_1abc", verdict)
    may = permissions is not None and {"view_invocation", "resolve_awakeable"} <= permissions
    expect(client.get(url), permissions, may)
    expect(client.post(url, {"confirmed": "yes", "value": "1", "reason": "no"}), permissions, may)


def test_pages_of_the_servers(person, settings):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": "http://127.0.0.1:9"}}
    client, permissions = person
    sees = permissions is not None and "view_invocation" in permissions
    manages = sees and "manage_deployments" in permissions
    expect(client.get(f"{LIST}servers/"), permissions, sees)
    expect(client.get(f"{LIST}servers/service/", {"connection": "default", "name": "A"}), permissions, sees)
    expect(client.get(f"{LIST}servers/register/"), permissions, manages)
    wanted = {"connection": "default", "uri": "http://127.0.0.1:9", "deployment": "dp_1", "force": "on"}
    for step in ("_check", "_edit", "_register"):
        expect(client.post(f"{LIST}servers/register/", {**wanted, step: "1"}), permissions, manages)
    for response in (client.get(f"{LIST}servers/remove/", wanted), client.post(f"{LIST}servers/remove/", wanted)):
        if manages:  # the server is away, and the page of the servers says so
            assert response.status_code == 302
            assert response["Location"] == f"{LIST}servers/"
        else:
            expect(response, permissions, allowed=False)


@pytest.mark.parametrize("name", BUTTONS)
def test_posts_to_the_view_behind_a_button(person, name):
    client, permissions = person
    row = make_row("gone")
    if name == "send_anew":  # the one that applies to it
        Invocation.objects.filter(pk=row.pk).update(connection="left-the-settings")
    response = client.post(operate(name), {"_selected_action": str(row.pk), "confirmed": "yes"}, follow=True)
    if permissions is None:
        assert "/login/" in response.redirect_chain[0][0]
        return
    may = {"view_invocation", NEEDS[name]} <= permissions
    assert response.status_code == (200 if may else 403)


@pytest.mark.parametrize("name", BUTTONS)
def test_the_list_offers_an_action_and_takes_it_only_with_its_permission(person, name):
    client, permissions = person
    row = make_row("gone")
    may = permissions is not None and {"view_invocation", NEEDS[name]} <= permissions
    if permissions is not None and "view_invocation" in permissions:
        form = client.get(LIST).context["action_form"]
        offered = {value for value, _label in form.fields["action"].choices} if form else set()
        assert (name in offered) == may
    response = client.post(LIST, {"action": name, "_selected_action": str(row.pk), "index": "0"})
    if may:
        # The browser posts the same form on, to a view of ours that holds no transaction.
        assert response.status_code == 307
        assert response["Location"] == operate(name)
    else:
        assert response.status_code in {302, 403, 200}
        assert operate(name) not in response.get("Location", "")


def test_nobody_edits_a_row_or_makes_one(client):
    client.force_login(get_user_model().objects.create_superuser("root"))
    row = make_row("running")
    assert client.post(page_of(row), {"status": "succeeded"}).status_code == 403
    assert client.get(LIST + "add/").status_code == 403
    row.refresh_from_db()
    assert row.status == "running"


@pytest.mark.parametrize("name", BUTTONS)
def test_a_button_is_no_link(operator, name):
    row = make_row("running")
    assert operator.get(operate(name), {"_selected_action": str(row.pk)}).status_code == 405


def test_without_the_permission_the_page_shows_neither_payload_nor_output(viewer, operator):
    row = make_row("failed", failure_code=400, failure_message="no", failure_metadata={"very": "private"})
    ended = make_row("succeeded", output={"quite": "private"}, payload_bytes=b'{"mostly": "private"}')
    for page in (page_of(row), page_of(ended)):
        assert b"private" not in viewer.get(page).content
        assert b"private" in operator.get(page).content


def test_a_search_of_the_address_line_does_not_look_into_payloads(viewer):
    make_row(payload={"order": 5})
    for lookup in ("payload__order=5", "payload_bytes__contains=a", "output__isnull=0", "requested_by__password__gt=a"):
        response = viewer.get(f"{LIST}?{lookup}")
        assert response.status_code == 400, lookup
