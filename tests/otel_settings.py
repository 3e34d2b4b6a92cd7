"""The settings of a process that traces: the tests' own, with the test's Restate server and a file for the spans."""

from __future__ import annotations

import json
import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from tests.settings import *  # noqa: F403 - these are the tests' settings, and some more
from tests.settings import INSTALLED_APPS

RESTATE = json.loads(os.environ["OTEL_RESTATE"])
INSTALLED_APPS = [*INSTALLED_APPS, "restate_django.contrib.otel"]

_spans = Path(os.environ["OTEL_SPANS"]).open("a", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
_exporter = ConsoleSpanExporter(out=_spans, formatter=lambda span: f"{span.to_json(indent=None)}\n")
_provider = TracerProvider()
_provider.add_span_processor(SimpleSpanProcessor(_exporter))
trace.set_tracer_provider(_provider)
