"""Traces: from a view through the outbox and a relay in another process to the handler, and what is in each span."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.http import JsonResponse
from django.test import Client
from django.urls import path
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from restate_django import Outgoing, acall, call, delivery, measuring, polling, send, send_many
from restate_django.admin.extras import send_anew
from restate_django.connections import BULK_FROM
from restate_django.contrib.otel.tracing import Tracing
from restate_django.exceptions import Unavailable
from restate_django.models import Invocation
from tests.conftest import ROOT
from tests.fake_ingress import FakeIngress, accepted
from tests.wait import wait_for

if TYPE_CHECKING:
    from pathlib import Path


class Spans:
    """The spans of a test, as they ended."""

    def __init__(self, **options) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("tests")

    def named(self, name: str) -> list:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str):
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.exporter.get_finished_spans()]
        return found[0]


@pytest.fixture
def spans():
    made = Spans()
    listener = Tracing(made.tracer)
    measuring.listen(listener)
    yield made
    measuring.stop(listener)


@pytest.fixture
def fake(settings):
    server = FakeIngress()
    settings.RESTATE = {"default": {"INGRESS_URL": server.url, "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    yield server
    server.close()


def carried(headers: dict) -> tuple[int, int]:
    """The ids of the trace and the span that headers name."""
    value = next(value for name, value in headers.items() if name.lower() == "traceparent")
    _version, trace_id, span_id, _flags = value.split("-")
    return int(trace_id, 16), int(span_id, 16)


def ids(span) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


# ---------------------------------------------------------------- the whole way


def describing_view(request):
    """A view as an instrumentation of Django wraps it: within a span of its own."""
    with request.META["tests.tracer"].start_as_current_span("GET /order/") as span, transaction.atomic():
        row = send("Echo", "describe", b"x", content_type="text/plain")
    return JsonResponse({"row": str(row.pk), "trace": f"{span.get_span_context().trace_id:032x}"})


urlpatterns = [path("order/", describing_view)]


def relay(tmp_path: Path, restate: dict) -> list[dict]:
    """Run the relay once in a process of its own, and return the spans that it made."""
    spans = tmp_path / "spans.jsonl"
    spans.touch()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.otel_settings",
        "OTEL_RESTATE": json.dumps(restate),
        "OTEL_SPANS": str(spans),
    }
    command = [sys.executable, "-W", "error", "-m", "django", "restate_relay", "--once"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in spans.read_text(encoding="utf-8").splitlines()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls(__name__)
def test_a_views_trace_reaches_the_handler_through_a_relay_in_another_process(restate, spans, settings, tmp_path):
    settings.RESTATE = {"default": settings.RESTATE["default"] | {"DELIVERY": "relay"}}
    told = Client().get("/order/", **{"tests.tracer": spans.tracer}).json()
    row = Invocation.objects.get(pk=told["row"])
    assert row.status == "unsent"

    of_relay = relay(tmp_path, settings.RESTATE)

    row.refresh_from_db()
    assert row.status in {"accepted", "succeeded"}, "the relay polls as well"
    headers = row.attach(timeout=20)["headers"]
    sent = spans.one("send Echo/describe")
    view = spans.one("GET /order/")
    # The handler's trace is the view's, and its parent is the send.
    assert carried(headers) == ids(sent)
    assert f"{carried(headers)[0]:032x}" == told["trace"]
    assert ids(sent)[0] == ids(view)[0]
    assert sent.parent.span_id == view.context.span_id
    # The relay's attempt stands in the same trace, below the send.
    (attempt,) = [span for span in of_relay if span["name"] == "deliver Echo/describe"]
    assert attempt["context"]["trace_id"] == f"0x{told['trace']}"
    assert attempt["parent_id"] == f"0x{sent.context.span_id:016x}"
    assert attempt["attributes"]["messaging.message.id"] == told["row"]


# ---------------------------------------------------------------- what an invocation carries


@pytest.mark.django_db(transaction=True)
class TestHeaders:
    """What of a trace is stored with a row, and what never."""

    def test_without_a_listener_nothing_is_added(self, fake):
        assert send("Greeter", "greet", 1).headers == {}

    def test_a_send_carries_its_span(self, fake, spans):
        row = send("Greeter", "greet", 1, headers={"x-tenant": "a"})
        assert carried(row.headers) == ids(spans.one("send Greeter/greet"))
        assert row.headers["x-tenant"] == "a"
        (request,) = fake.sends()
        assert carried(request.headers) == carried(row.headers)

    def test_the_callers_own_header_is_left_as_it_is(self, fake, spans):
        own = "00-11111111111111111111111111111111-2222222222222222-01"
        state = context.attach(trace.set_span_in_context(spans.tracer.start_span("a view")))
        row = send("Greeter", "greet", 1, headers={"Traceparent": own})
        context.detach(state)
        assert row.headers == {"Traceparent": own}

    def test_a_header_of_the_connection_is_left_as_it_is(self, fake, spans, settings):
        settings.RESTATE = {"default": settings.RESTATE["default"] | {"HEADERS": {"TraceParent": "a-proxy's"}}}
        assert send("Greeter", "greet", 1).headers == {}
        assert {name.lower(): value for name, value in fake.sends()[0].headers.items()}["traceparent"] == "a-proxy's"

    def test_baggage_is_kept_out_of_the_row(self, fake, spans):
        token = context.attach(baggage.set_baggage("mail", "mary@example.com"))
        row = send("Greeter", "greet", 1)
        context.detach(token)
        assert set(row.headers) == {"traceparent"}

    def test_a_trace_makes_no_conflict_of_a_key(self, fake, spans):
        first = send("Greeter", "greet", 1, idempotency_key="k")
        again = send("Greeter", "greet", 1, idempotency_key="k")
        assert again.pk == first.pk
        assert not again.created
        assert carried(Invocation.objects.get().headers) == carried(first.headers)

    def test_resend_stays_in_the_trace_and_a_new_one_begins_its_own(self, fake, spans):
        fake.answer = lambda _request: (400, {"x-restate-error-source": "ingress"}, b'{"message":"no"}')
        row = send("Greeter", "greet", 1, headers={"x-tenant": "a"})
        assert row.status == "rejected"
        before = row.headers
        fake.answer = lambda _request: accepted()
        row.resend()
        assert (row.status, row.headers) == ("accepted", before)
        assert carried(fake.sends()[-1].headers) == carried(before)
        ((new, _as_asked),) = send_anew([row], by=None).done
        assert new.headers["x-tenant"] == "a"
        assert carried(new.headers)[1] != carried(before)[1]

    def test_one_that_is_not_sampled_says_so(self, fake):
        listener = Tracing(Spans(sampler=ALWAYS_OFF).tracer)
        measuring.listen(listener)
        row = send("Greeter", "greet", 1)
        measuring.stop(listener)
        assert int(row.headers["traceparent"][-2:], 16) & 1 == 0

    def test_without_an_sdk_nothing_is_added(self, fake):
        """The API alone makes spans that are none."""
        listener = Tracing(trace.NoOpTracer())
        measuring.listen(listener)
        assert send("Greeter", "greet", 1).headers == {}
        measuring.stop(listener)

    def test_a_listener_that_fails_disturbs_nobody(self, fake, spans, caplog):
        class Broken(measuring.Listener):
            def begin(self, work):
                raise LookupError

            def delivered(self, row, seconds, error):
                raise LookupError

            def add(self, instrument, value, labels):
                raise LookupError

        broken = Broken()
        measuring.listen(broken)
        row = send("Greeter", "greet", 1)
        measuring.stop(broken)
        assert row.status == "accepted"
        assert "The listener Broken failed" in caplog.text
        assert spans.one("send Greeter/greet")


# ---------------------------------------------------------------- the spans


@pytest.mark.django_db(transaction=True)
class TestSpans:
    """Each span's kind and attributes, by the conventions for messaging."""

    def test_a_send_and_its_delivery(self, fake, spans):
        row = send("Greeter", "greet", {"secret": "payload"}, key="mary@example.com")
        sent, delivered = spans.one("send Greeter/greet"), spans.one("deliver Greeter/greet")
        message = {"messaging.destination.name": "Greeter/greet", "messaging.message.id": str(row.pk)}
        assert sent.kind is SpanKind.PRODUCER
        assert dict(sent.attributes) == message | {
            "messaging.system": "restate",
            "messaging.operation.name": "send",
            "messaging.operation.type": "create",
            "restate_django.connection": "default",
            "restate.invocation.id": row.invocation_id,
        }
        assert delivered.kind is SpanKind.CLIENT
        assert delivered.parent.span_id == sent.context.span_id
        assert dict(delivered.attributes) == message | {
            "messaging.system": "restate",
            "messaging.operation.name": "deliver",
            "messaging.operation.type": "send",
            "restate_django.connection": "default",
            "restate_django.attempt": 1,
            "server.address": "127.0.0.1",
            "server.port": int(fake.url.rpartition(":")[2]),
        }

    def test_a_failed_attempt_says_why_in_a_word(self, fake, spans):
        fake.answer = lambda _request: (400, {"x-restate-error-source": "ingress"}, b'{"message":"of mary"}')
        send("Greeter", "greet", 1)
        failed = spans.one("deliver Greeter/greet")
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.attributes["error.type"] == "Refused"
        assert "mary" not in failed.to_json()

    @pytest.mark.parametrize("size", [3, BULK_FROM + 2])
    def test_a_batch_links_to_its_messages(self, fake, spans, settings, size):
        settings.RESTATE = {"default": settings.RESTATE["default"] | {"DELIVERY": "relay"}}
        rows = [send("Greeter", "greet", number) for number in range(size)]
        delivery.deliver_due()
        batch = spans.one("deliver")
        assert batch.attributes["messaging.batch.message_count"] == size
        assert {link.context.span_id for link in batch.links} == {carried(row.headers)[1] for row in rows}
        attempts = spans.named("deliver Greeter/greet")
        assert {span.parent.span_id for span in attempts} == {carried(row.headers)[1] for row in rows}
        assert {span.attributes["messaging.message.id"] for span in attempts} == {str(row.pk) for row in rows}

    def test_many_sends_are_one_span(self, fake, spans):
        rows = send_many([Outgoing("Greeter", "greet", number) for number in range(3)])
        sent = spans.one("send")
        assert sent.attributes["messaging.batch.message_count"] == 3
        assert {carried(row.headers) for row in rows} == {ids(sent)}

    def test_what_is_refused_before_it_is_recorded_is_no_send(self, fake, spans):
        with pytest.raises(ValueError, match="handler"):
            send("Greeter", "")
        assert spans.exporter.get_finished_spans() == ()


@pytest.mark.django_db(transaction=True)
def test_a_call_carries_its_span_and_ends_with_it(restate, spans):
    with spans.tracer.start_as_current_span("a view") as view:
        told = call("Echo", "describe", b"x", content_type="text/plain")
        assert trace.get_current_span() is view
    called = spans.one("call Echo/describe")
    assert carried(told["headers"]) == ids(called)
    assert called.parent.span_id == view.get_span_context().span_id
    assert called.kind is SpanKind.CLIENT
    assert called.attributes["restate.invocation.id"] == Invocation.objects.get().invocation_id


@pytest.mark.django_db(transaction=True)
def test_a_call_from_a_coroutine_carries_its_span(restate, spans):
    async def view():
        with spans.tracer.start_as_current_span("a view"):
            return await acall("Echo", "describe", b"x", content_type="text/plain")

    told = async_to_sync(view)()
    assert carried(told["headers"]) == ids(spans.one("call Echo/describe"))
    assert ids(spans.one("call Echo/describe"))[0] == ids(spans.one("a view"))[0]


@pytest.mark.django_db(transaction=True)
def test_a_call_that_fails_is_an_error(settings, spans):
    settings.RESTATE = {"default": {"INGRESS_URL": "http://127.0.0.1:9", "ADMIN_URL": None, "PATH_STYLE": "restate"}}
    with pytest.raises(Unavailable):
        call("Greeter", "greet", 1)
    assert spans.one("call Greeter/greet").attributes["error.type"] == "Unavailable"


@pytest.mark.django_db(transaction=True)
def test_a_batch_of_a_poll_links_to_those_that_it_brought_news_of(restate, spans):
    rows = [send("Greeter", "greet", {"name": f"{number}"}) for number in range(3)]

    def ended() -> bool:
        polling.poll_due()
        return Invocation.objects.filter(status="succeeded").count() == len(rows)

    wait_for(ended, what="the ends")
    polls = spans.named("poll")
    assert all(span.kind is SpanKind.CLIENT for span in polls)
    assert all(span.attributes["messaging.operation.type"] == "receive" for span in polls)
    assert all(span.attributes["messaging.batch.message_count"] >= 1 for span in polls)
    linked = {link.context.span_id for span in polls for link in span.links}
    assert linked == {carried(row.headers)[1] for row in rows}


# ---------------------------------------------------------------- without it


def test_nothing_of_it_is_imported_unless_it_is_installed():
    code = (
        "import django, sys; django.setup()\n"
        "import restate_django.dispatch, restate_django.polling, restate_django.tasks, restate_django.gauges\n"
        "found = sorted(name for name in sys.modules if name.split('.')[0] in {'opentelemetry', 'prometheus_client'})\n"
        "from restate_django import measuring\n"
        "print(found, measuring.is_on())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[] False\n", done.stderr
