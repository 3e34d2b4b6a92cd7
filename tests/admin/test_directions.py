"""The pages in a real browser, in a language of long words and in one that is written from right to left."""

from __future__ import annotations

import pytest

from restate_django import send
from restate_django.polling import refresh
from tests.admin.pages import LIST, page_of, too_wide_for
from tests.admin.rows import make_row
from tests.admin.test_browser import OVERVIEW, site
from tests.wait import wait_for

__all__ = ["site"]  # a fixture

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SERVERS = f"{LIST}servers/"
# Where a text is drawn, which may be less than the box that it stands in.
EDGES = """element => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const text = range.getBoundingClientRect();
    const cell = element.closest("td").getBoundingClientRect();
    return [text.left - cell.left, cell.right - text.right];
}"""


@pytest.mark.parametrize(("language", "direction"), [("de", "ltr"), ("he", "rtl")])
def test_no_page_is_wider_than_the_window(restate, site, live_server, settings, language, direction):
    settings.LANGUAGE_CODE = language
    site.set_default_timeout(30_000)  # several pages, with all that stands on them
    for status in ("unsent", "backing-off", "failed", "undeliverable"):
        make_row(status, key="k" * 500, attempts=3, retry_count=2, failure_message="no blank " + "x" * 300)
    row = make_row("failed", key="k" * 500, failure_message="x" * 300)
    for page in (LIST, page_of(row), OVERVIEW, SERVERS, f"{SERVERS}service/?connection=default&name=Counter"):
        site.goto(live_server.url + page)
        assert site.evaluate("document.documentElement.dir") == direction
        assert too_wide_for(site) == [], page


def test_from_right_to_left_texts_stand_below_their_column_and_buttons_beside_each_other(
    restate, site, live_server, settings
):
    settings.LANGUAGE_CODE = "he"
    make_row("failed", failure_message="#1 no", attempts=2)
    site.set_viewport_size({"width": 1280, "height": 900})
    site.goto(live_server.url + LIST)
    for name in (".restate-failure", ".restate-counts", ".field-recorded_column .restate-second"):
        left, right = site.eval_on_selector(name, EDGES)
        assert right < left, name
        assert right <= 20, name
    # A number comes before its unit where the unit is not translated.
    assert site.eval_on_selector(".field-duration_column", "each => getComputedStyle(each).unicodeBidi") == "plaintext"

    row = send("Approval", "ask", {"note": "right-to-left"})
    wait_for(lambda: refresh(row) and row.status == "suspended", timeout=20, what="it to be suspended")
    site.goto(live_server.url + page_of(row))
    site.wait_for_selector(".restate-waits .button")
    first, second = (each.bounding_box() for each in site.query_selector_all(".restate-waits .button"))
    beside, below = second["x"] + second["width"] <= first["x"], second["y"] >= first["y"] + first["height"]
    assert beside or below, "the second one covers a part of the first"
    row.kill()
