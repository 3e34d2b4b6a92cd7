"""What the overview shows over time: what was sent, what ended, and how long it took."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import uuid
from html import unescape
from xml.etree import ElementTree as ET

import pytest
from django.utils import timezone

from restate_django.admin import activity, chart, durations
from restate_django.admin.activity import SPANS, Activity
from restate_django.admin.wording import NOTHING
from restate_django.ids import uuid7_floor
from restate_django.models import Invocation
from tests.admin.pages import LIST, page_of
from tests.admin.rows import build_row, make_row

pytestmark = pytest.mark.django_db

OVERVIEW = f"{LIST}overview/"
DAY = SPANS["24h"]
_numbers = itertools.count(1)


def trends_of(client, query=""):
    """What the page shows."""
    response = client.get(OVERVIEW + query)
    assert response.status_code == 200
    return response.context["overview"].trends


def sums(client, query=""):
    """The legend's numbers by name."""
    return {total.name: total.number for total in trends_of(client, query).sums}


def picture(client, query=""):
    """The chart, as XML."""
    page = client.get(OVERVIEW + query).content.decode()
    return ET.fromstring(re.search(r'<svg class="restate-columns-chart".*?</svg>', page, re.DOTALL)[0])


def at(moment, status="succeeded", *, took=0.0, learned=0.0, **columns):
    """A row that was sent at a moment, took some seconds, and whose end was learned of some seconds after that."""
    pk = uuid.UUID(int=uuid7_floor(moment).int + next(_numbers))
    row = build_row(status, pk=pk, created_at=moment, **columns)
    if row.finished_at:
        row.started_at = row.accepted_at = moment
        row.finished_at = moment + dt.timedelta(seconds=took)
        row.recorded_at = row.finished_at + dt.timedelta(seconds=learned)
    row.save(force_insert=True)
    return row


# ---------------------------------------------------------------- what was sent, what ended


def test_it_counts_what_was_sent_and_how_it_ended(viewer):
    for status in ("succeeded", "succeeded", "failed", "cancelled", "killed", "gone", "rejected", "running", "unsent"):
        make_row(status)
    assert sums(viewer) == {"sent": "9", "succeeded": "2", "failed": "1", "others": "4"}


@pytest.mark.parametrize(("query", "sent"), [("", "2"), ("?span=1h", "1"), ("?span=7d", "3"), ("?span=1' OR 1=1", "2")])
def test_the_span_is_chosen_by_a_link(viewer, query, sent):
    for age in (60, 3 * 3600, 3 * 86400, 30 * 86400):
        make_row(age=age)
    assert sums(viewer, query)["sent"] == sent
    links = re.findall(r'<a href="(\?span=\w+#restate-activity)"', viewer.get(OVERVIEW + query).content.decode())
    assert links == [f"?span={name}#restate-activity" for name in SPANS]


def test_an_end_stands_where_it_came_and_not_where_it_was_learned_of():
    """Jobs that stood still for three hours learn of all that ended in them at once."""
    now = dt.datetime(2026, 3, 10, 12, 30, tzinfo=dt.UTC)
    at(dt.datetime(2026, 3, 10, 8, 10, tzinfo=dt.UTC), took=3600, learned=3 * 3600)
    buckets = Activity(Invocation.objects.all(), DAY, now).buckets
    assert [bucket.start.hour for bucket in buckets if bucket.sent] == [8]
    assert [bucket.start.hour for bucket in buckets if bucket.ended] == [9]


def test_an_end_before_the_span_is_left_out():
    now = dt.datetime(2026, 3, 10, 12, 30, tzinfo=dt.UTC)
    at(now - dt.timedelta(days=3), "failed", took=60, learned=3 * 86400 - 3600)
    found = Activity(Invocation.objects.all(), DAY, now)
    assert (found.total("sent"), found.total("failed")) == (0, 0)


def test_each_moment_is_in_one_bucket():
    now = dt.datetime(2026, 3, 10, 12, 30, tzinfo=dt.UTC)
    for span in SPANS.values():
        Invocation.objects.all().delete()
        bounds = span.bounds(now)
        assert len(bounds) == span.count + 1
        assert bounds[-2] <= now < bounds[-1]
        for number, start in enumerate(bounds[:-1]):
            at(start, handler=str(number))
        # A millisecond before the first one: what a primary key tells apart.
        at(bounds[0] - dt.timedelta(milliseconds=1))
        buckets = Activity(Invocation.objects.all(), span, now).buckets
        assert [bucket.sent for bucket in buckets] == [1] * span.count
        assert [bucket.succeeded for bucket in buckets] == [1] * span.count


def test_buckets_begin_on_round_times_of_the_users_zone():
    now = dt.datetime(2026, 3, 10, 12, 47, 31, tzinfo=dt.UTC)
    with timezone.override("Asia/Kolkata"):  # five and a half hours ahead
        for name, last in {"1h": "18:17", "24h": "18:00", "7d": "18:00"}.items():
            assert f"{timezone.localtime(SPANS[name].bounds(now)[-2]):%H:%M}" == last
    with timezone.override("Asia/Kathmandu"):  # five and three quarters
        assert f"{timezone.localtime(SPANS['7d'].bounds(now)[0]):%d %H:%M}" == "04 00:00"


def test_where_the_clocks_change_days_stay_days_and_hours_hours():
    with timezone.override("Europe/Berlin"):
        after_spring = dt.datetime(2026, 3, 29, 10, 0, tzinfo=dt.UTC)
        starts = [timezone.localtime(moment) for moment in SPANS["7d"].bounds(after_spring)]
        assert {start.hour for start in starts} == {0, 6, 12, 18}
        lengths = [b.astimezone(dt.UTC) - a.astimezone(dt.UTC) for a, b in itertools.pairwise(starts)]
        assert min(lengths) == dt.timedelta(hours=5)
        after_autumn = dt.datetime(2026, 10, 25, 10, 0, tzinfo=dt.UTC)
        hours = [timezone.localtime(moment) for moment in DAY.bounds(after_autumn)]
        assert [hour.hour for hour in hours].count(2) == 2
        assert len({hour.astimezone(dt.UTC) for hour in hours}) == 25


def test_what_lies_behind_the_limit_is_not_known_and_not_nothing(viewer, monkeypatch):
    monkeypatch.setattr(activity, "LIMIT", 10)
    now = timezone.now()
    for hours in range(8):
        for _ in range(3):
            at(now - dt.timedelta(hours=hours), took=0)
    found = trends_of(viewer)
    assert found.cut == "10"
    # The newest three buckets are whole, the fourth has more than was counted, the others are unknown.
    assert [row.numbers[:2] for row in found.table[-5:]] == [
        [NOTHING, NOTHING],
        ["1+", "1+"],
        ["3", "3"],
        ["3", "3"],
        ["3", "3"],
    ]
    assert {total.name: total.number for total in found.sums} == {
        "sent": "10+", "succeeded": "10+", "failed": "0+", "others": "0+",
    }  # fmt: skip
    assert found.unknown_width == pytest.approx(100 * 21 / 24, abs=0.01)
    assert "Only the newest 10 are counted" in viewer.get(OVERVIEW).content.decode()
    monkeypatch.undo()
    assert trends_of(viewer).cut == ""


def test_the_table_tells_what_the_chart_shows_and_leads_to_the_rows(viewer):
    for age in (60, 3 * 3600, 3 * 3600, 9 * 3600):
        make_row(age=age)
    found = trends_of(viewer)
    assert [sum(int(row.numbers[n]) for row in found.table) for n in range(4)] == [4, 4, 0, 0]
    for row in found.table:
        assert len(viewer.get(row.url).context["cl"].result_list) == int(row.numbers[0])
    (sent, *_others) = found.sums
    assert len(viewer.get(sent.url).context["cl"].result_list) == 4
    page = viewer.get(OVERVIEW).content.decode()
    table = re.search(r"<table.*?</table>", page[page.index("<details>") :], re.DOTALL)[0]
    assert "<caption" in table
    assert table.count('<th scope="col">') == 5
    assert table.count('<th scope="row">') == DAY.count


def test_the_hour_that_comes_twice_has_an_address_of_its_own():
    from restate_django.admin.trends import _typed

    with timezone.override("Europe/Berlin"):
        first = dt.datetime(2026, 10, 25, 0, 0, tzinfo=dt.UTC)
        assert _typed(first) == "2026-10-25T02:00"
        assert _typed(first + dt.timedelta(hours=1)) == "2026-10-25T02:00+01:00"


def test_the_picture_has_a_part_for_each_number_and_no_style_of_its_own(viewer):
    make_row("succeeded")
    make_row("failed")
    make_row("killed")
    svg = picture(viewer)
    assert svg.get("role") == "img"
    assert "last day, by hour" in svg.get("aria-label")
    parts = [rect for rect in svg.iter("rect") if (rect.get("class") or "").startswith("restate-part-")]
    drawn = {rect.get("class").removeprefix("restate-part-") for rect in parts}
    assert drawn == {"sent", "succeeded", "failed", "others"}
    # By pattern as well as by colour.
    patterns = {pattern.get("id") for pattern in svg.iter("pattern")}
    assert {f"url(#{name})" for name in patterns} == {rect.get("fill") for rect in parts}
    assert not [element for element in svg.iter() if element.get("style") or element.tag in {"style", "script"}]
    (title,) = [element.text for element in svg.iter("title") if "sent: 3" in element.text]
    assert "succeeded: 1, failed: 1, ended otherwise: 1" in title


def test_numbers_of_the_picture_are_svgs_in_every_language(viewer, settings):
    settings.LANGUAGE_CODE = "de"
    settings.USE_THOUSAND_SEPARATOR = True
    make_row()
    for element in picture(viewer).iter():
        for name in ("x", "y", "width", "height"):
            assert "," not in (element.get(name) or "")


def test_when_nothing_happened(viewer):
    make_row(age=30 * 86400)
    page = viewer.get(OVERVIEW).content.decode()
    assert "Nothing was sent and nothing ended in this time." in page
    assert "restate-columns-chart" not in page
    assert "How long handlers take" not in page
    assert "?span=7d" in page


# ---------------------------------------------------------------- the drawing


@pytest.mark.parametrize(
    ("number", "top"), [(0, 2), (1, 2), (3, 4), (9, 10), (11, 12), (21, 40), (101, 120), (999, 1000), (50_000, 60_000)]
)
def test_a_scale_ends_on_a_round_number(number, top):
    assert chart.round_up(number) == top


def test_columns_stand_side_by_side_within_their_bucket_and_stack_without_a_gap():
    drawn = chart.draw([[[("sent", 4)], [("failed", 1), ("succeeded", 3)]], [[("sent", 0)], []]])
    (sent, failed, succeeded) = drawn.columns[0].parts
    assert drawn.columns[1].parts == []
    assert (sent.y, sent.height) == (chart.TOP, chart.HEIGHT)
    assert sent.x + sent.width == pytest.approx(failed.x)
    assert failed.y + failed.height == drawn.base
    assert succeeded.y + succeeded.height == failed.y
    assert sent.x >= 0
    assert failed.x + failed.width <= drawn.columns[0].width


def test_a_part_is_never_too_thin_to_be_seen():
    drawn = chart.draw([[[("failed", 1), ("succeeded", 49_999)]]])
    failed, succeeded = drawn.columns[0].parts
    assert failed.height == 2
    assert succeeded.y >= chart.TOP


# ---------------------------------------------------------------- how long it takes


def test_percentiles_are_those_of_each_handler(viewer):
    hour_ago = timezone.now() - dt.timedelta(hours=1)
    rows = [at(hour_ago, took=seconds, service="Cart", handler="add") for seconds in range(1, 101)]
    at(hour_ago, "failed", took=0.02, service="Mailer", handler="remind")
    found = durations.durations(Invocation.objects.all(), hour_ago - dt.timedelta(hours=1))
    cart, mailer = found.handlers
    seconds = [took.total_seconds() for took in (cart.median, cart.p95, cart.p99, cart.slowest)]
    assert seconds == [50, 95, 99, 100]
    assert (cart.service, cart.handler, cart.count, cart.failed) == ("Cart", "add", 100, 0)
    assert (mailer.count, mailer.failed, mailer.median) == (1, 1, mailer.slowest)
    shown = trends_of(viewer).handlers[0]
    assert shown.slowest_url == page_of(rows[-1])
    assert {row.handler for row in viewer.get(shown.url).context["cl"].result_list} == {"add"}
    assert shown.times == ["50 s", "1 min 35 s", "1 min 39 s"]


def test_a_duration_is_the_one_that_the_list_shows():
    now = timezone.now()
    row = at(now - dt.timedelta(hours=1), took=100)
    for started, accepted, finished in [(10, 0, 30), (None, 5, 30), (40, 0, 30)]:
        moments = [
            None if n is None else row.created_at + dt.timedelta(seconds=n) for n in (started, accepted, finished)
        ]
        row.started_at, row.accepted_at, row.finished_at = moments
        row.save(update_fields=["started_at", "accepted_at", "finished_at"])
        (found,) = durations.durations(Invocation.objects.all(), now - dt.timedelta(hours=2)).handlers
        assert found.median == row.duration


def test_only_what_ran_to_its_own_end_tells_how_long_a_handler_takes():
    for status in ("cancelled", "killed", "gone", "rejected", "running", "unsent"):
        make_row(status, handler=status)
    assert durations.durations(Invocation.objects.all(), timezone.now() - dt.timedelta(hours=1)).handlers == []


def test_the_sample_and_the_list_are_bounded(viewer, monkeypatch):
    monkeypatch.setattr(durations, "SAMPLE", 10)
    monkeypatch.setattr(durations, "LISTED", 3)
    now = timezone.now()
    for number in range(15):
        at(now - dt.timedelta(minutes=number), took=number, handler=f"handler{number}")
    found = trends_of(viewer)
    # The newest ten, of which the three slowest are shown.
    assert [handler.name.handler for handler in found.handlers] == ["handler9", "handler8", "handler7"]
    page = viewer.get(OVERVIEW).content.decode()
    assert "Only the newest 10 that ended are looked at." in page
    assert "7 faster handlers are left out." in page


def test_hostile_names_are_shown_as_they_are(viewer):
    evil = "<img src=x onerror=alert(1)>&\"'"
    make_row(service=evil, handler=evil)
    page = viewer.get(OVERVIEW).content.decode()
    assert evil not in page
    table = page[page.index("restate-durations") :]
    assert unescape(re.search(r"<b>(.*?)</b>", table)[1]) == evil
    (shown,) = trends_of(viewer).handlers
    assert len(viewer.get(shown.url).context["cl"].result_list) == 1
