"""The Django app that lets OpenTelemetry hear of the work."""

from __future__ import annotations

from django.apps import AppConfig


class OpenTelemetryConfig(AppConfig):
    """``"restate_django.contrib.otel"`` in ``INSTALLED_APPS``."""

    name = "restate_django.contrib.otel"
    label = "restate_django_otel"
    verbose_name = "Restate: OpenTelemetry"

    def ready(self) -> None:
        """Listen. No tracer provider need be set up yet: OpenTelemetry asks for it when the first span begins."""
        from restate_django import measuring
        from restate_django.contrib.otel.metrics import listener as metrics
        from restate_django.contrib.otel.tracing import listener as tracing

        measuring.listen(tracing)
        measuring.listen(metrics)
