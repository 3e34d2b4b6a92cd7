"""The list: what it shows, what narrows it, and what that costs."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.contrib.admin import ChoicesFieldListFilter
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from restate_django.admin import activity, durations, overview, reach, search, window
from restate_django.admin.invocations import InvocationAdmin
from restate_django.inserting import insert_many
from restate_django.lifecycle import FINISHED, NEEDS_ATTENTION, OPEN, Status
from restate_django.models import Invocation
from tests.admin.pages import LIST
from tests.admin.rows import build_row, make_row
from tests.admin.work import analyze, work_done
from tests.models import Order, Tenant

pytestmark = pytest.mark.django_db


def shown(response):
    """The rows on the page."""
    assert response.status_code == 200, response
    return list(response.context["cl"].result_list)


def test_it_shows_what_an_operator_looks_for(viewer):
    order = Order.objects.create(number="A-17")
    mary = get_user_model().objects.create_user("mary")
    make_row(
        "backing-off",
        service="Cart",
        key="cart-1",
        handler="add",
        retry_count=12,
        last_failure="smtp is down",
        requested_by=mary,
        related_content_type=ContentType.objects.get_for_model(Order),
        related_id=str(order.pk),
        age=125,
        cancel_requested_at=timezone.now(),
    )
    page = viewer.get(LIST).content.decode()
    for text in (
        "backing off",
        "cancel requested",
        "<b>Cart</b>/<wbr>add",
        "cart-1",
        "2 min ago",
        "12 retries",
        "smtp is down",
        "mary",
    ):
        assert text in page, text
    # The viewer may not see orders: they learn that there is one, and not what it is called.
    assert "A-17" not in page
    assert f"order {order.pk}" in page


def test_a_status_is_a_word_and_a_shape(viewer):
    for status in Status:
        make_row(status)
    page = viewer.get(LIST).content.decode()
    rows = page.split("<tbody>")[1].split("</tbody>")[0]
    assert rows.count('class="restate-icon"') == len(Status)
    for status in Status:
        assert f"</svg>{status.label}</span>" in rows


def test_what_is_not_there_any_more_is_shown_as_such(viewer):
    order_type = ContentType.objects.get_for_model(Order)
    tenant_type = ContentType.objects.get_for_model(Tenant)
    make_row(requested_by_id=4711)
    make_row(related_content_type=order_type, related_id="99")
    make_row(related_content_type=order_type, related_id="no number")
    make_row(related_content_type=tenant_type, related_id="acme")
    make_row(related_content_type_id=999_999, related_id="1")
    make_row(related_content_type=None, related_id="lost")
    page = viewer.get(LIST).content.decode()
    for text in ("user 4711", "order 99", "order no number", "tenant acme", "object 1", "lost"):
        assert f">{text}</span>" in page, text


def test_a_link_leads_to_what_one_may_see(client):
    client.force_login(get_user_model().objects.create_superuser("root"))
    mary = get_user_model().objects.create_user("mary")
    order = Order.objects.create(number="<b>A-17</b>")
    make_row(requested_by=mary, related_content_type=ContentType.objects.get_for_model(Order), related_id=str(order.pk))
    page = client.get(LIST).content.decode()
    assert f'<a href="/admin/auth/user/{mary.pk}/change/">mary</a>' in page
    assert "&lt;b&gt;A-17&lt;/b&gt;" in page  # orders are not in the admin: its words, without a link


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        ("status=open", OPEN),
        ("status=attention", NEEDS_ATTENTION),
        ("status=finished", FINISHED),
        *((f"status={status.value}", {status}) for status in Status),
    ],
)
def test_status_filter(viewer, query, statuses):
    for status in Status:
        make_row(status)
    assert {row.status for row in shown(viewer.get(f"{LIST}?{query}"))} == statuses


def test_other_filters(viewer, settings):
    settings.RESTATE = {"default": {}, "eu": {}}
    make_row(service="Cart", connection="eu", age=10)
    make_row(service="Mailer", age=3 * 3600)
    make_row(service="Mailer", connection="left-the-settings", age=40 * 86400)
    for query, count in {
        "": 3,
        "service=Cart": 1,
        "service=Mailer": 2,
        "service=Nobody": 0,
        "connection=eu": 1,
        "recorded=15m": 1,
        "recorded=24h": 2,
        "recorded=30d": 2,
        "recorded=nonsense": 3,
        "service=Mailer&recorded=24h": 1,
        "status=finished&service=Mailer&recorded=7d": 1,
    }.items():
        assert len(shown(viewer.get(f"{LIST}?{query}"))) == count, query
    found = viewer.get(LIST).context["cl"].filter_specs
    specs = {spec.title: [title for _name, title in getattr(spec, "lookup_choices", [])] for spec in found}
    assert specs["service"] == ["Cart", "Mailer"]
    assert specs["connection"] == ["default", "eu", "left-the-settings"]


def test_a_project_may_add_filters_of_its_own(viewer, monkeypatch):
    from restate_django.admin import InvocationAdmin

    added = ("handler", ("verb", ChoicesFieldListFilter))
    monkeypatch.setattr(InvocationAdmin, "list_filter", (*InvocationAdmin.list_filter, *added))
    mine = make_row(handler="mine", verb="call")
    make_row(handler="other")
    assert shown(viewer.get(f"{LIST}?handler=mine")) == [mine]
    assert shown(viewer.get(f"{LIST}?verb__exact=call")) == [mine]
    assert viewer.get(f"{LIST}?payload=1").status_code == 400


def test_handlers_are_those_of_the_service_that_is_chosen(viewer):
    make_row(service="Cart", handler="add")
    cleared = make_row(service="Cart", handler="clear")
    make_row(service="Mailer", handler="remind")

    def offered(query):
        specs = viewer.get(LIST + query).context["cl"].filter_specs
        return [title for spec in specs if spec.title == "handler" for _name, title in spec.lookup_choices]

    assert offered("") == ["add", "clear", "remind"]
    assert offered("?service=Cart") == ["add", "clear"]
    assert shown(viewer.get(f"{LIST}?service=Cart&handler=clear")) == [cleared]


def test_between_two_moments(viewer, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    old, new = make_row(age=3 * 3600), make_row(age=60)
    hour_ago = timezone.localtime() - dt.timedelta(hours=1)
    moment = f"{hour_ago:%Y-%m-%dT%H:%M}"
    for query, found in {
        f"recorded_from={moment}": [new],
        f"recorded_until={moment}": [old],
        f"recorded_from={moment}&recorded_until={moment}": [],
        "recorded_from=&recorded_until=": [new, old],
        "recorded_from=soon&recorded_until=2026-99-99T00:00": [new, old],
        "recorded_until=0001-01-01T00:00": [],
    }.items():
        assert shown(viewer.get(f"{LIST}?{query}")) == found, query
    page = viewer.get(f"{LIST}?recorded_from={moment}&status=succeeded&q=Greeter").content.decode()
    assert f'name="recorded_from" value="{moment}"' in page
    form = page.split('class="restate-between"')[1].split("</form>")[0]
    assert 'name="status" value="succeeded"' in form
    assert 'name="q" value="Greeter"' in form


def test_a_filter_with_one_choice_is_left_out(viewer):
    make_row()
    assert "connection" not in {spec.title for spec in viewer.get(LIST).context["cl"].filter_specs}


def test_all_for_one_object_and_all_of_one_user(viewer):
    order = Order.objects.create(number="A-17")
    content_type = ContentType.objects.get_for_model(Order)
    mary = get_user_model().objects.create_user("mary")
    mine = make_row(related_content_type=content_type, related_id=str(order.pk), requested_by=mary)
    make_row()
    for query in (
        f"related_content_type__id__exact={content_type.pk}&related_id__exact={order.pk}",
        f"requested_by__id__exact={mary.pk}",
    ):
        assert shown(viewer.get(f"{LIST}?{query}")) == [mine]


def test_search(viewer):
    row = make_row(service="Cart", key="a/b", handler="add", idempotency_key="buy-1")
    other = make_row(service="Mailer", handler="remind", idempotency_key="cart-9")
    for term, found in {
        row.invocation_id: [row],
        str(row.pk): [row],
        row.pk.hex: [row],
        "buy-1": [row],
        " buy-1 ": [row],
        "a/b": [row],
        "Cart": [row],
        "Cart/a/b/add": [row],
        "Mailer/remind": [other],
        "cart-9": [other],
        "art": [],
        "inv_1unknown": [],
        str(uuid.uuid4()): [],
        "100%": [],
        "": [other, row],
    }.items():
        assert shown(viewer.get(LIST, {"q": term})) == found, term
    assert shown(viewer.get(LIST, {"q": "buy-1", "status": "failed"})) == []


def test_its_order_is_that_of_recording_and_no_other(viewer):
    rows = [make_row(age=age) for age in (50, 10, 30)]
    newest_first = sorted(rows, key=lambda row: row.created_at, reverse=True)
    assert shown(viewer.get(LIST)) == newest_first
    column = viewer.get(LIST).context["cl"].list_display.index("recorded_column")
    assert shown(viewer.get(f"{LIST}?o={column}")) == newest_first[::-1]
    other = viewer.get(LIST).context["cl"].list_display.index("duration_column")
    assert shown(viewer.get(f"{LIST}?o={other}")) == newest_first


def test_the_window_and_what_is_older(viewer, monkeypatch):
    monkeypatch.setattr(window, "LIMIT", 60)
    rows = [build_row(age=index, status="succeeded" if index % 2 else "failed") for index in range(130)]
    Invocation.objects.bulk_create(rows)
    for query in ("", "status=finished&"):
        response = viewer.get(f"{LIST}?{query}")
        assert [row.pk for row in shown(response)] == [row.pk for row in rows[:50]]
        assert "the newest 60 invocations" in response.content.decode()
        assert response.context["cl"].older_than is None
        last = viewer.get(f"{LIST}?{query}p=2")
        assert [row.pk for row in shown(last)] == [row.pk for row in rows[50:60]]
        older = viewer.get(LIST + last.context["cl"].older_than)
        assert [row.pk for row in shown(older)] == [row.pk for row in rows[60:110]]
        assert viewer.get(f"{LIST}?{query}p=3").status_code == 302


def test_a_group_of_statuses_is_merged_and_not_sorted(viewer):
    """A database that sorts what ``status IN (...)`` matches would sort nearly all of a table of finished rows."""
    Invocation.objects.bulk_create([build_row("failed" if index % 3 else "succeeded") for index in range(60)])
    with CaptureQueriesContext(connection) as queries:
        assert len(shown(viewer.get(f"{LIST}?status=finished&p=2"))) == 10
    merges = [query["sql"] for query in queries if "ORDER BY merged.id" in query["sql"]]
    assert len(merges) == 1
    assert merges[0].count("LIMIT") == len(FINISHED) + 1
    (read,) = [query["sql"] for query in queries if "delivery_error" in query["sql"]]
    assert "OFFSET" not in read
    assert " IN (" in read


def test_bodies_stay_in_the_database(viewer):
    make_row(payload_bytes=b"x" * 100, output="much")
    with CaptureQueriesContext(connection) as queries:
        viewer.get(LIST)
    selects = [
        query["sql"] for query in queries if "FROM" in query["sql"] and "restate_django_invocation" in query["sql"]
    ]
    assert selects
    assert not [sql for sql in selects if "payload_bytes" in sql or "output_bytes" in sql]


def test_the_number_of_queries_is_constant(viewer):
    content_type = ContentType.objects.get_for_model(Order)

    def fill(count):
        for _ in range(count):
            user = get_user_model().objects.create_user(uuid.uuid4().hex)
            order = Order.objects.create(number=user.username)
            make_row(requested_by=user, related_content_type=content_type, related_id=str(order.pk), service="Cart")

    def cost(query):
        ContentType.objects.clear_cache()
        with CaptureQueriesContext(connection) as queries:
            assert viewer.get(f"{LIST}?{query}").status_code == 200
        return len(queries)

    for query in (
        "",
        "status=finished",
        "service=Cart&status=succeeded",
        "recorded=24h",
        "q=Cart",
        "q=nothing",
        "q=a=5",
    ):
        Invocation.objects.all().delete()
        fill(10)
        few = cost(query)
        fill(90)
        many = cost(query)
        assert many <= few + 1, query  # a second page is read by a query of its own
        assert many <= 20, query


#: What the list is asked for: each is a range or a point of an index.
ASKED = [
    "overview/",
    "overview/?span=1h",
    "overview/?span=7d",
    "",
    "?p=3",
    "?status=attention",
    "?status=open",
    "?status=finished",
    "?status=finished&p=3",
    "?status=succeeded",
    "?status=paused",
    "?service=Cart",
    "?service=Rare",
    "?service=Cart&status=paused",
    "?connection=default",
    "?recorded=1h",
    "?recorded=30d&status=finished",
    "?service=Cart&recorded=1h",
    "?service=Cart&handler=add",
    "?service=Cart&handler=add&status=failed",
    "?service=Cart&handler=nobody&status=succeeded",
    "?service=Rare&status=succeeded",
    "?handler=add",
    "?handler=nobody",
    "?scope=acme",
    "?scope=rare",
    "?scope=acme&status=failed",
    "?scope=acme&status=finished",
    "?status=attention&scope=acme",
    "?on=2020",
    "?on=2020&status=failed&service=Cart",
    "?q=order_id=5",
    "?q=order 5",
    "?recorded_from=2020-01-01T00:00&status=finished",
    "?q=cart-1",
    "?q=buy-7",
    "?q=Rare",
    "?q=Cart/cart-1/add",
    "?q=inv_1unknown",
    "?requested_by__id__exact=4711",
    "?id__lt=ffffffff-ffff-7fff-bfff-ffffffffffff",
]


@pytest.mark.django_db(transaction=True)  # ANALYZE ends a transaction on MariaDB
def test_no_page_reads_more_of_a_larger_table(operator, monkeypatch):
    """Three times the rows, and the same work for every filter and search."""
    monkeypatch.setattr(window, "LIMIT", 200)
    monkeypatch.setattr(search, "LIMIT", 200)
    monkeypatch.setattr(overview, "COUNTED", 100)
    monkeypatch.setattr(activity, "LIMIT", 200)
    monkeypatch.setattr(durations, "SAMPLE", 200)
    monkeypatch.setattr(reach, "SCANNED", 100)
    monkeypatch.setattr(reach, "SEARCHED", 200)
    monkeypatch.setattr(InvocationAdmin, "list_per_page", 20)  # what a row costs to show is not asked here

    def fill(start, count):
        rows = []
        for index in range(start, start + count):
            status = "failed" if index % 20 == 0 else "running" if index % 9 == 0 else "succeeded"
            status = "paused" if index in {3, 997, 3001} else status
            service = "Rare" if index in {5, 1999} else ("Cart", "Mailer", "Signup")[index % 3]
            rows.append(
                build_row(
                    status,
                    service=service,
                    handler="add",
                    scope="rare" if index == 1998 else "acme" if index % 2 else "",
                    payload={"order_id": index},
                    key=f"cart-{index % 4}",
                    idempotency_key=f"buy-{index}",
                    age=index * 7,
                )
            )
        insert_many(rows)
        analyze()

    def cost():
        amounts = {}
        for query in ASKED:
            with work_done() as work:
                assert operator.get(LIST + query).status_code == 200
            amounts[query] = work.amount
        return amounts

    fill(0, 2000)
    small = cost()
    fill(2000, 4000)
    large = cost()
    # Beyond the window's size nothing is read; a few rare rows more are.
    slower = {query: (small[query], large[query]) for query in ASKED if large[query] > small[query] * 1.35 + 1500}
    assert slower == {}


def test_times_are_those_of_the_users_zone(viewer, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    row = make_row()
    Invocation.objects.filter(pk=row.pk).update(finished_at=dt.datetime(2026, 1, 31, 23, 30, tzinfo=dt.UTC))
    assert "Feb. 1, 2026, 08:30:00" in viewer.get(LIST).content.decode()


# ---------------------------------------------------------------- days, scopes, payloads, what belongs to what


def test_the_days_above_the_list_are_those_that_have_rows(viewer, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    now = timezone.now()

    def at(*moment):
        return make_row(age=(now - dt.datetime(*moment, tzinfo=dt.UTC)).total_seconds())

    late = at(2024, 12, 31, 16)  # the first of January already, in Tokyo
    first, second = at(2025, 3, 10, 1), at(2025, 3, 12, 1)
    april = at(2025, 4, 1, 1)

    def days(query=""):
        changelist = viewer.get(f"{LIST}?{query}").context["cl"]
        return [[str(period) for period, _url in found] for found in (changelist.day_parents, changelist.day_parts)]

    assert days() == [[], ["2025-01", "2025-03", "2025-04"]], "there is one year: its months are offered"
    assert days("on=2025") == [["2025"], ["2025-01", "2025-03", "2025-04"]]
    assert days("on=2025-03") == [["2025", "2025-03"], ["2025-03-10", "2025-03-12"]]
    assert days("on=2025-03-10") == [["2025", "2025-03", "2025-03-10"], []]
    for query, found in {
        "on=2024": [],
        "on=2025-01": [late],
        "on=2025-01-01": [late],
        "on=2025-03": [second, first],
        "on=2025-03-10": [first],
        "on=2025-12": [],
        "on=2025-04&status=succeeded": [april],
        "on=2025-04&status=failed": [],
    }.items():
        assert shown(viewer.get(f"{LIST}?{query}")) == found, query
    for nonsense in ("2025-02-30", "2025-13", "0", "99999", "x", "2025-0", "2025-1-1-1", "-1", "9999-12-31"):
        assert len(shown(viewer.get(f"{LIST}?on={nonsense}"))) in {4, 0}, nonsense
    page = viewer.get(f"{LIST}?on=2025-03&status=succeeded").content.decode()
    assert 'href="?on=2025-03-10&amp;status=succeeded"' in page
    assert 'aria-current="true">March 2025</a>' in page
    assert 'href="?status=succeeded">Any day' in page


def test_by_scope(viewer):
    mine = make_row(scope="acme", handler="add")
    other = make_row(handler="add")
    make_row(scope="globex")
    assert shown(viewer.get(f"{LIST}?scope=acme")) == [mine]
    assert shown(viewer.get(f"{LIST}?handler=add")) == [other, mine]
    specs = {spec.title: spec for spec in viewer.get(LIST).context["cl"].filter_specs}
    assert [title for _name, title in specs["scope"].lookup_choices] == ["acme", "globex"]


def test_what_has_been_backing_off_for_long_needs_attention(viewer):
    hour, day = 3700, 86400
    now = timezone.now()
    old = make_row("backing-off", age=hour, started_at=now - dt.timedelta(seconds=hour))
    paused = make_row("paused", age=day)
    make_row("backing-off", age=60)
    make_row("backing-off", age=day, started_at=now - dt.timedelta(minutes=1))  # a delayed one
    make_row("running", age=day)
    assert shown(viewer.get(f"{LIST}?status=attention")) == [old, paused]
    assert set(Invocation.objects.needs_attention()) == {old, paused}
    found = viewer.get(f"{LIST}overview/").context["overview"]
    assert found.groups[0].number == "2"
    assert len(found.attention) == 2


def test_search_by_what_it_belongs_to(viewer):
    order = Order.objects.create(number="A-17")
    mine = make_row(related_content_type=ContentType.objects.get_for_model(Order), related_id=str(order.pk))
    make_row(related_content_type=ContentType.objects.get_for_model(Tenant), related_id=str(order.pk))
    for term in (f"order {order.pk}", f"Order:{order.pk}", f"tests.order {order.pk}", f"order #{order.pk}"):
        assert shown(viewer.get(LIST, {"q": term})) == [mine], term
    for term in (f"shop.order {order.pk}", "order 4711", f"nothing {order.pk}", "a" + " " * 5000 + "!x y"):
        assert shown(viewer.get(LIST, {"q": term})) == [], term


def test_search_in_payloads(operator, viewer):
    payload = {
        "order_id": 5, "user": {"email": "m@a.b", "password": "hunter2"}, "lines": [{"sku": "mug"}],
        "in": "x", "n": None, "text": "7",
    }  # fmt: skip
    mine = make_row(payload=payload)
    make_row(payload={"order_id": 6})
    make_row(payload=None)
    for term in (
        "order_id=5", " order_id = 5 ", "user.email=m@a.b", "lines.0.sku=mug", "in=x", "n=null", "text=7", 'text="7"',
    ):  # fmt: skip
        assert shown(operator.get(LIST, {"q": term})) == [mine], term
        assert shown(viewer.get(LIST, {"q": term})) == [], "payloads are for those who may see them"
    for term in (
        "order_id=7", "order=5", "lines=[]", "user={}", "contains=5", "a__b=1", "order_id=NaN", "order_id=", "=5",
        "x" * 300 + "=1", ".".join("abcdefghijklmnop") + "=1", "order_id=" + "[" * 5000,
    ):  # fmt: skip
        assert shown(operator.get(LIST, {"q": term})) == [], term


def test_a_search_in_payloads_finds_no_secret(operator, monkeypatch):
    from restate_django.admin import InvocationAdmin

    row = make_row(payload={"password": "hunter2", "user": {"token": "hush"}, "iban": "DE02"})
    for term in ("password=hunter2", "user.token=hush"):
        assert shown(operator.get(LIST, {"q": term})) == [], term
    assert shown(operator.get(LIST, {"q": "iban=DE02"})) == [row]
    hide = {"iban": "hidden"}
    monkeypatch.setattr(InvocationAdmin, "mask", lambda self, value: {**value, **hide} if "iban" in value else value)
    assert shown(operator.get(LIST, {"q": "iban=DE02"})) == []
    monkeypatch.setattr(InvocationAdmin, "mask", lambda self, value: 1 / 0)
    assert shown(operator.get(LIST, {"q": "iban=DE02"})) == []


def looked_back(client, url):
    """The keys on the page and on those that it leads on to, and how many pages that were."""
    found, pages = [], 0
    while url:
        response = client.get(LIST + url)
        found += [row.pk for row in shown(response)]
        url = response.context["cl"].further_back
        pages += 1
        assert ("Looked back to those recorded" in response.content.decode()) == bool(url)
    return found, pages


def test_several_filters_look_back_step_by_step_and_miss_nothing(viewer, monkeypatch):
    monkeypatch.setattr(reach, "SCANNED", 10)
    rows = [
        build_row("failed" if index % 2 else "succeeded", service="Cart" if index % 3 else "Mailer", age=index)
        for index in range(60)
    ]
    Invocation.objects.bulk_create(rows)
    wanted = [row.pk for row in rows if row.status == "failed" and row.service == "Mailer"]
    found, pages = looked_back(viewer, "?status=failed&service=Mailer")
    assert found == wanted
    assert pages == 2
    everything = viewer.get(f"{LIST}?status=failed&service=Mailer").context["cl"].everything
    assert [row.pk for row in everything] == wanted, "an operation on all that match is done to all"


@pytest.mark.parametrize("term", ["Cart", "order_id=5", "Cart/cart-1/add"])
def test_a_search_looks_back_step_by_step_and_misses_nothing(operator, monkeypatch, term):
    monkeypatch.setattr(search, "LIMIT", 4)
    monkeypatch.setattr(reach, "SEARCHED", 10)
    rows = [
        build_row(
            service="Cart" if index % 3 else "Mailer",
            key="cart-1" if index % 3 else "",
            handler="add",
            payload={"order_id": 5 if index % 3 else 6},
            age=index,
        )
        for index in range(30)
    ]
    Invocation.objects.bulk_create(rows)
    wanted = [row.pk for row in rows if row.service == "Cart"]
    found, pages = looked_back(operator, f"?q={term}")
    assert found == wanted
    assert pages >= 5


def test_a_search_with_two_readings_misses_nothing(operator, monkeypatch):
    """What is found by a key lies far behind where the look at payloads stops: it is shown at once, and not lost."""
    monkeypatch.setattr(reach, "SEARCHED", 10)
    rows = [build_row(payload={"order_id": 5 if index == 15 else 6}, age=index) for index in range(30)]
    rows[25].idempotency_key = "order_id=5"
    Invocation.objects.bulk_create(rows)
    first = operator.get(f"{LIST}?q=order_id=5")
    assert shown(first) == [rows[25]]
    assert shown(operator.get(LIST + first.context["cl"].further_back)) == [rows[15], rows[25]]
    assert list(first.context["cl"].everything) == [], "an operation goes through them in order"


@pytest.mark.django_db(transaction=True)  # ANALYZE ends a transaction on MariaDB
def test_a_period_that_lies_far_into_the_table_is_read_from_its_beginning(operator, monkeypatch):
    """PostgreSQL thinks that half of all rows are everywhere, and would read all that lie before them."""
    monkeypatch.setattr(window, "LIMIT", 200)
    year = timezone.localtime().year
    last_year = (timezone.now() - dt.datetime(year - 1, 7, 1, tzinfo=dt.UTC)).total_seconds()

    def costs():
        amounts = []
        for query in ("", f"?on={year - 1}", f"?on={year - 1}-06&status=open", f"?on={year - 1}&status=finished"):
            with work_done() as work:
                assert operator.get(LIST + query).status_code == 200
            amounts.append(work.amount)
        return amounts

    def fill(count, age):
        rows = [build_row(service="Cart", handler="add", age=age + index) for index in range(count)]
        insert_many(rows)
        analyze()

    fill(300, 0)
    fill(500, last_year)
    few = costs()
    Invocation.objects.all().delete()
    fill(3000, 0)
    fill(5000, last_year)
    many = costs()
    assert [pair for pair in zip(few, many, strict=True) if pair[1] > pair[0] * 1.35 + 500] == []
