"""Invocations on the pages of other models: an inline that never gets in the way, and an action that sends."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.template import RequestContext, Template
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import path

from restate_django import Outgoing
from restate_django.admin import InvocationInline, SendToRestateMixin
from restate_django.admin.related import SHOWN
from restate_django.admin.relations import Relations
from restate_django.models import Invocation
from tests.admin.pages import LIST, messages_of
from tests.admin.rows import build_row
from tests.models import Order

pytestmark = pytest.mark.django_db


class OrderAdmin(SendToRestateMixin, admin.ModelAdmin):
    inlines = (InvocationInline,)
    restate_service = "Ledger"
    restate_handler = "write"


site = admin.AdminSite(name="own")
site.register(Order, OrderAdmin)
urlpatterns = [path("own/", site.urls), path("admin/", admin.site.urls)]


@pytest.fixture(autouse=True)
def _own_site(settings):
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def root(client):
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def address_of(order):
    return f"/own/tests/order/{order.pk}/change/"


def sent_for(order, count=1, **columns):
    content_type = ContentType.objects.get_for_model(Order)
    rows = [build_row(related_content_type=content_type, related_id=str(order.pk), **columns) for _ in range(count)]
    return Invocation.objects.bulk_create(rows)


@pytest.mark.django_db(databases=["default", "other"])
def test_a_row_of_another_database_names_its_object_by_that_ones_content_types(rf):
    """The numbers of content types are each database's own."""
    types = ContentType.objects.using("other")
    types.get(app_label="tests", model="order").delete()
    order_type = types.create(
        pk=ContentType.objects.get_for_model(Permission).pk + 1000, app_label="tests", model="order"
    )
    order = Order.objects.create()
    row = build_row(related_content_type=order_type, related_id=str(order.pk))
    row.save(using="other", force_insert=True)
    request = rf.get("/")
    request.user = get_user_model()(is_superuser=True, is_active=True)
    found = Relations([Invocation.objects.using("other").get()], request, admin.site).related_to(row)
    assert (found.text, found.missing) == (str(order), False)


def test_django_finds_nothing_wrong_with_it():
    assert site.get_model_admin(Order).check() == []


def test_the_inline_shows_the_newest_and_leads_to_all(root):
    order, other = Order.objects.create(number="A-1"), Order.objects.create(number="A-2")
    rows = sent_for(order, SHOWN + 5, failure_message="<b>no</b>")
    sent_for(other)
    response = root.get(address_of(order))
    page = response.content.decode()
    shown = response.context["inline_admin_formsets"][0].formset.get_queryset()
    assert list(shown) == rows[::-1][:SHOWN]
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert f'href="{LIST}{rows[-1].pk}/change/"' in page  # this site has no page for it: the default one's is used
    everything = page.split('<p class="restate-pad"><a href="')[1].split('"')[0].replace("&amp;", "&")
    assert root.get(everything).context["cl"].result_count == SHOWN + 5
    assert "Nothing was sent for it." in root.get(address_of(Order.objects.create(number="A-3"))).content.decode()


def test_saving_the_object_is_not_disturbed(root):
    order = Order.objects.create(number="A-1")
    rows = sent_for(order, SHOWN)
    root.get(address_of(order))
    sent_for(order, 3)  # sent while the page was open
    data = {
        "number": "A-1",
        "note": "changed",
        "restate_django-invocation-related_content_type-related_id-TOTAL_FORMS": "1",
    }
    assert root.post(address_of(order), data).status_code == 302
    order.refresh_from_db()
    assert order.note == "changed"
    assert Invocation.objects.filter(pk__in=[row.pk for row in rows]).count() == SHOWN


def test_its_cost_is_that_of_a_page(root):
    order = Order.objects.create(number="A-1")

    def cost():
        with CaptureQueriesContext(connection) as queries:
            root.get(address_of(order))
        assert not [query for query in queries if "payload_bytes" in query["sql"]]
        return len(queries)

    sent_for(order, 2)
    few = cost()
    sent_for(order, 200)
    assert cost() == few


def test_it_hides_from_who_may_not_view_invocations(client):
    user = get_user_model().objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_order", "change_order"]))
    client.force_login(user)
    order = Order.objects.create(number="A-1")
    sent_for(order)
    assert "Restate invocations" not in client.get(address_of(order)).content.decode()


# ---------------------------------------------------------------- the panel


def panel_of(obj, user):
    request = RequestFactory().get("/")
    request.user = user
    template = Template("{% load restate_admin %}{% restate_panel obj %}")
    return template.render(RequestContext(request, {"obj": obj}))


def test_the_panel_shows_the_same_on_any_page():
    root = get_user_model().objects.create_superuser("root")
    order, other = Order.objects.create(number="A-1"), Order.objects.create(number="A-2")
    rows = sent_for(order, SHOWN + 5, failure_message="<b>no</b>")
    panel = panel_of(order, root)
    assert panel.count("restate-badge") == SHOWN
    assert f'href="{LIST}{rows[-1].pk}/change/"' in panel
    assert "&lt;b&gt;no&lt;/b&gt;" in panel
    assert "All invocations for the same object" in panel
    assert "Nothing was sent for it." in panel_of(other, root)
    with CaptureQueriesContext(connection) as queries:
        panel_of(order, root)
    assert len(queries) == 1
    assert "payload_bytes" not in queries[0]["sql"]


def test_the_panel_hides_from_who_may_not_view_invocations():
    order = Order.objects.create(number="A-1")
    sent_for(order)
    clerk = get_user_model().objects.create_user("clerk", is_staff=True)
    assert panel_of(order, clerk).strip() == ""
    assert panel_of(order, AnonymousUser()).strip() == ""
    assert panel_of(Order(), get_user_model().objects.create_superuser("root")).strip() == ""


# ---------------------------------------------------------------- the action


def send_all(client, *orders):
    data = {"action": "send_to_restate", "_selected_action": [order.pk for order in orders], "index": "0"}
    return client.post("/own/tests/order/", data, follow=True)


@pytest.fixture
def _no_server(settings):
    settings.RESTATE = {"default": {"DELIVERY": "relay"}}


@pytest.mark.usefixtures("_no_server")
def test_the_action_sends_one_for_each(root):
    orders = [Order.objects.create(number=f"A-{index}") for index in range(3)]
    assert messages_of(send_all(root, *orders[:2])) == [("success", "Sent 2 invocations to Restate.")]
    rows = sorted(Invocation.objects.all(), key=lambda row: int(row.related_id))
    assert [(row.target, row.payload, row.related_to, row.requested_by.username) for row in rows] == [
        ("Ledger/write", {"pk": order.pk}, order, "root") for order in orders[:2]
    ]


@pytest.mark.usefixtures("_no_server")
def test_what_can_not_be_sent_is_said(root, monkeypatch):
    order = Order.objects.create(number="A-1")
    monkeypatch.setattr(OrderAdmin, "restate_outgoing", lambda self, request, obj: Outgoing("", "write"))
    ((level, text),) = messages_of(send_all(root, order))
    assert (level, text.split(".")[0]) == ("error", "Nothing was sent")
    assert not Invocation.objects.exists()


@pytest.mark.usefixtures("_no_server")
def test_who_may_not_change_may_not_send(client):
    user = get_user_model().objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_order"))
    client.force_login(user)
    send_all(client, Order.objects.create(number="A-1"))
    assert not Invocation.objects.exists()
