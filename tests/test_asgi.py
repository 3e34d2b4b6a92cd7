"""Under ASGI: the stream of what changes, coroutines on a real server, and a browser whose badge is told."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, connection, connections
from django.db.backends.signals import connection_created
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from restate_django import links, send, send_many, streams, watching
from restate_django.dispatch import Outgoing
from restate_django.models import Invocation
from restate_django.polling import refresh
from restate_django.testing.process import ChildProcess, free_port
from tests.admin.rows import make_row
from tests.conftest import ROOT
from tests.test_readme import blocks
from tests.test_views import user_with
from tests.wait import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def events_of(text):
    """Return the events of a stream's text: name and data."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def written(answer, *, until=lambda text: False, seconds=10.0):
    """Read a stream to its end, or until its text is enough."""
    text = ""
    async with asyncio.timeout(seconds):
        async for chunk in answer.streaming_content:
            text += chunk.decode()
            if until(text):
                break
    await answer.streaming_content.aclose()
    return text


def stream_of(url, *, user=None, meanwhile=None, until=lambda text: False, seconds=10.0):
    """Read a stream in this process; do something in between, in a thread that may use the database."""

    async def story():
        client = AsyncClient()
        if user is not None:
            await client.aforce_login(user)
        answer = await client.get(url)
        assert answer.status_code == 200, answer.content
        reading = asyncio.create_task(written(answer, until=until, seconds=seconds))
        if meanwhile is not None:
            await asyncio.sleep(0.3)
            await watching.in_own_thread(meanwhile)
        return answer, await reading

    return async_to_sync(story)()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look ten times as often."""
    monkeypatch.setattr(watching, "INTERVAL", 0.1)


def moved(row, **changes):
    return lambda: Invocation.objects.filter(pk=row.pk).update(**changes)


# ---------------------------------------------------------------- what is written


def test_a_stream_tells_each_change_and_then_ends():
    row = make_row("running", service="Cart", handler="add")

    def meanwhile():
        moved(row, status="suspended")()
        time.sleep(0.4)
        moved(row, status="succeeded")()

    answer, text = stream_of(links.events_url(row), meanwhile=meanwhile)
    assert answer.headers.items() >= {
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store, private"),
        ("X-Accel-Buffering", "no"),
        ("Content-Encoding", "identity"),
    }
    assert text.startswith("retry: 2000\n\n")
    told = events_of(text)
    assert [(name, data.get("status")) for name, data in told] == [
        ("status", "running"),
        ("status", "suspended"),
        ("status", "succeeded"),
        ("end", None),
    ]
    assert told[0][1] == {
        "id": str(row.pk),
        "service": "Cart",
        "handler": "add",
        "status": "running",
        "label": "running",
        "finished": False,
        "succeeded": False,
        "cancel_requested": False,
    }


def test_a_stream_tells_of_several_rows():
    rows = [make_row("running"), make_row("failed"), make_row("running")]

    def meanwhile():
        moved(rows[0], status="killed")()
        Invocation.objects.filter(pk=rows[2].pk).delete()

    _answer, text = stream_of(links.events_url(*rows), meanwhile=meanwhile)
    told = [(data.get("id"), data.get("status")) for _name, data in events_of(text)]
    assert told[:3] == [
        (str(row.pk), status) for row, status in zip(rows, ("running", "failed", "running"), strict=True)
    ]
    assert told[3:] == [(str(rows[0].pk), "killed"), (None, None)], "one that was deleted ends without a word"


def test_what_has_ended_is_told_at_once():
    began = time.monotonic()
    _answer, text = stream_of(links.events_url(make_row("succeeded")))
    assert [name for name, _data in events_of(text)] == ["status", "end"]
    assert time.monotonic() - began < 2


def test_a_silent_stream_says_that_it_is_there(monkeypatch):
    monkeypatch.setattr(streams, "HEARTBEAT", 0.3)
    _answer, text = stream_of(
        links.events_url(make_row("running")), until=lambda text: text.count(": nothing new") == 2
    )
    assert [name for name, _data in events_of(text)] == ["status"]


def test_a_stream_lives_for_a_while(monkeypatch):
    monkeypatch.setattr(streams, "LIFE", 0.5)
    began = time.monotonic()
    _answer, text = stream_of(links.events_url(make_row("running")))
    assert 0.4 < time.monotonic() - began < 5
    assert [name for name, _data in events_of(text)] == ["status"], "no end: the browser opens the next one"


@pytest.mark.parametrize("error", [OperationalError("away"), InterfaceError("closed"), ZeroDivisionError("a bug")])
def test_a_look_that_fails_ends_no_stream(monkeypatch, error):
    row, read, looks = make_row("running"), watching._read, []

    def fails_at_first(wanted):
        looks.append(wanted)
        if len(looks) < 3:
            raise error
        return read(wanted)

    monkeypatch.setattr(watching, "_read", fails_at_first)
    _answer, text = stream_of(links.events_url(row), meanwhile=moved(row, status="succeeded"))
    assert [data.get("status") for _name, data in events_of(text)] == ["running", "succeeded", None]


# ---------------------------------------------------------------- who may


def test_who_may_see_a_stream():
    mary = get_user_model().objects.create_user("mary")
    row, other = make_row("failed", requested_by=mary, failure_message="inner secret"), make_row("failed")
    plain = f"{reverse('restate_django:events')}?row={row.pk}"
    signed = links.events_url(row)
    viewer = user_with("view_invocation", name="viewer")
    for url, user, told in (
        (plain, mary, {"mary"}),
        (plain, viewer, {"mary", "why"}),
        (signed, None, {"mary"}),
        (f"{signed}&row={other.pk}", None, {"mary"}),
        (f"{signed}&row={other.pk}", viewer, {"mary", "other", "why"}),
        (f"{signed}&row=nonsense", None, {"mary"}),
    ):
        _answer, text = stream_of(url, user=user)
        found = {
            word for word, part in (("mary", row.pk), ("other", other.pk), ("why", "inner secret")) if str(part) in text
        }
        assert found == told, (url, user)
    nowhere = links.events_url(row).replace(str(row.pk), str(other.pk))
    none = reverse("restate_django:events")
    for url, user in ((plain, None), (plain, user_with(name="joe")), (nowhere, None), (none, None)):

        async def status(url=url, user=user):
            client = AsyncClient()
            if user is not None:
                await client.aforce_login(user)
            return (await client.get(url)).status_code

        assert async_to_sync(status)() == 404, (url, user)


def test_a_stream_has_its_limits():
    row = make_row("running")
    many = "&".join(f"row={row.pk}" for _ in range(51))

    async def status(method, url):
        return (await getattr(AsyncClient(), method)(url)).status_code

    assert async_to_sync(status)("get", f"{reverse('restate_django:events')}?{many}") == 400
    assert async_to_sync(status)("post", links.events_url(row)) == 405


def test_a_stream_runs_in_no_requests_transaction(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    row = make_row("running")
    _answer, text = stream_of(links.events_url(row), meanwhile=moved(row, status="killed"))
    assert [data.get("status") for _name, data in events_of(text)] == ["running", "killed", None]


def test_under_wsgi_there_is_no_stream():
    answer = Client().get(links.events_url(make_row("running")))
    assert (answer.status_code, answer.json()) == (501, {"error": "Streams need ASGI."})


# ---------------------------------------------------------------- what it costs


def test_a_stream_holds_no_connection_while_it_waits():
    opened = []

    def note(sender, connection, **_):
        opened.append(connection)

    row = make_row("running", requested_by=get_user_model().objects.create_user("mary"))
    held = []

    def count():
        # At some of these moments a look is under way, and between the looks nothing is open.
        for _moment in range(60):
            time.sleep(0.01)
            others = {database for database in opened if database is not own and database.connection is not None}
            held.append(len(others))
        moved(row, status="succeeded")()

    own = connections["default"]
    connection_created.connect(note)
    try:
        stream_of(f"{reverse('restate_django:events')}?row={row.pk}", user=row.requested_by, meanwhile=count)
    finally:
        connection_created.disconnect(note)
    assert len(opened) > 3, "it looked some times"
    assert min(held) == 0


def test_a_hundred_streams_cost_one_query_a_look(monkeypatch):
    rows = [make_row("running") for _ in range(4)]
    read, queries = watching._read, []

    def counted(wanted):
        with CaptureQueriesContext(connection) as captured:
            found = read(wanted)
        queries.append(len(captured))
        return found

    monkeypatch.setattr(watching, "_read", counted)

    async def story():
        answers = [await AsyncClient().get(links.events_url(rows[n % 4])) for n in range(100)]
        readings = [asyncio.create_task(written(answer)) for answer in answers]
        await asyncio.sleep(1)
        await watching.in_own_thread(lambda: Invocation.objects.update(status="succeeded"))
        return await asyncio.gather(*readings)

    texts = async_to_sync(story)()
    assert {events_of(text)[-1][0] for text in texts} == {"end"}
    assert 3 <= len(queries) <= 40
    assert set(queries) == {1}


def test_nothing_goes_on_when_nobody_listens(monkeypatch):
    looks = []
    monkeypatch.setattr(watching, "_read", lambda wanted: looks.append(1) or {})

    async def story():
        answer = await AsyncClient().get(links.events_url(make_row_later))
        await written(answer, until=lambda text: "status" in text)
        before = len(looks)
        await asyncio.sleep(0.5)
        return len(looks) - before, [task for task in asyncio.all_tasks() if "_look" in repr(task)]

    make_row_later = make_row("running")
    assert async_to_sync(story)() == (0, [])


# ---------------------------------------------------------------- on a real server


@pytest.fixture
def served(restate, settings, tmp_path):
    """A site on a real ASGI server, with the test's database and its Restate server. Gives its address."""
    port = free_port()
    child = ChildProcess(
        [sys.executable, "-m", "hypercorn", "tests.asgi:application", "--bind", f"127.0.0.1:{port}"],
        name="hypercorn",
        log_file=tmp_path / "log",
        cwd=ROOT,
        env={
            "DJANGO_SETTINGS_MODULE": "tests.asgi_settings",
            "ASGI_RESTATE": json.dumps(settings.RESTATE),
            "PYTHONPATH": str(ROOT),
        },
    )
    child.start()
    url = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return requests.get(f"{url}/greet/", timeout=5).status_code == 200
        except requests.ConnectionError:
            assert child.running, child.log_tail()
            return False

    try:
        wait_for(answers, timeout=30, what="the site to be served")
        yield url
        assert "Error" not in child.log_tail(500), child.log_tail(500)
    finally:
        child.stop()


def test_every_twin_works_on_a_real_server(served):
    answer = requests.get(f"{served}/twins/", timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "asend": "accepted",
        "arefresh": True,
        "akill": "killed",
        "acall": "Hello, Mary!",
        "aattach": "Hello, Joe!",
        "afetch_output": "Hello, Joe!",
        "arestart_as_new": "Hello, Joe!",
        "aresend": "OperationRefused",
    }


def test_thirty_requests_that_wait_take_as_long_as_one(served):
    rows = send_many([Outgoing("Greeter", "slowly", {"name": "Mary", "seconds": 3}) for _ in range(30)])
    began = time.monotonic()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda row: requests.get(f"{served}/wait/{row.pk}/", timeout=60).json(), rows))
    assert answers == [{"output": "Hello, Mary!"}] * 30
    assert time.monotonic() - began < 15


def test_a_stream_from_a_real_server(served):
    row = send("Greeter", "slowly", {"name": "Mary", "seconds": 2})

    def read():
        with requests.get(f"{served}{links.events_url(row)}", stream=True, timeout=20) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            return b"".join(answer.iter_content(None)).decode()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        wait_for(lambda: refresh(row) is not None and row.is_finished, what="it to end")
        text = reading.result()
    told = [data.get("status") for _name, data in events_of(text)]
    assert told[0] in {"accepted", "running", "suspended"}
    assert told[-2:] == ["succeeded", None]


@pytest.mark.browser
def test_a_badge_is_told_by_one_stream(served, page):
    rows = [send("Greeter", "slowly", {"name": "Mary", "seconds": 3}) for _ in range(2)]
    page.set_default_timeout(15_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/restate/" in request.url else None)
    page.goto(f"{served}/invocations/{rows[0].pk}/")
    label = page.locator(".restate-status-label")
    assert label.inner_text() == "accepted"
    assert page.locator(".restate-status").get_attribute("data-events") == "/restate/events/"
    page.evaluate("document.addEventListener('restate:finished', event => { document.title = event.detail.status; })")

    def said():
        refresh(rows)
        return label.inner_text() == "succeeded"

    wait_for(said, timeout=20, what="the page to say so")
    wait_for(lambda: page.title() == "succeeded", what="the event")
    page.wait_for_timeout(1500)
    assert len(asked) == 1, "one stream, and nobody asks"
    assert "/restate/events/?row=" in asked[0]


@pytest.mark.browser
def test_badges_share_a_stream_and_ask_when_there_is_none(served, page):
    rows = [make_row("running") for _ in range(3)]
    page.set_default_timeout(15_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/restate/" in request.url else None)
    page.goto(f"{served}/invocations/{rows[0].pk}/")
    html = requests.get(f"{served}/invocations/{rows[1].pk}/", timeout=10).text
    badge = html[html.index('<span class="restate-status"') : html.index(" <form")]
    with page.expect_request(lambda request: request.url.count("row=") == 2):
        page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", badge)
    moved(rows[1], status="suspended")()
    page.wait_for_selector(f"[data-invocation='{rows[1].pk}'][data-status='suspended']")
    # A third one, and a proxy that lets no stream through: each badge asks by itself then.
    page.context.route("**/events/**", lambda route: route.fulfill(status=204))
    html = requests.get(f"{served}/invocations/{rows[2].pk}/", timeout=10).text
    badge = html[html.index('<span class="restate-status"') : html.index(" <form")]
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", badge)
    moved(rows[2], status="paused")()
    moved(rows[0], status="paused")()
    for row in (rows[0], rows[2]):
        page.wait_for_selector(f"[data-invocation='{row.pk}'][data-status='paused']")
    assert any("/events/" not in url for url in asked)


@pytest.mark.browser
def test_a_page_that_nobody_looks_at_has_no_stream(served, page):
    row = make_row("running")
    with page.expect_request("**/events/**"):
        page.goto(f"{served}/invocations/{row.pk}/")
    badge = page.locator(".restate-status")

    def look(*, hidden):
        page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    asked = []
    page.on("request", lambda request: asked.append(request.url))
    look(hidden=True)
    moved(row, status="suspended")()
    page.wait_for_timeout(2500)
    assert (badge.get_attribute("data-status"), asked) == ("running", [])
    look(hidden=False)
    wait_for(lambda: badge.get_attribute("data-status") == "suspended", what="the page to be up to date again")
    assert ["/events/" in url for url in asked] == [True]


@pytest.mark.browser
def test_the_front_end_of_the_readme_listens(served, page):
    (block,) = blocks("browser")
    rows = [make_row("running", service="Cart"), make_row("running", service="Mailer")]
    page.goto(f"{served}/greet/")
    page.evaluate(
        "address => { const list = document.createElement('ul'); list.id = 'news'; list.dataset.events = address;"
        " document.body.append(list); }",
        links.events_url(*rows),
    )
    page.evaluate(f"() => {{ {block.code} }}")

    def said(text):
        # No wait_for_function: it makes code of a text, which the policy forbids.
        wait_for(lambda: page.text_content("#news") == text, what=f"the list to say {text!r}")

    said("Cart: running Mailer: running ")
    moved(rows[1], status="failed")()
    said("Cart: running Mailer: running Mailer: failed ")
