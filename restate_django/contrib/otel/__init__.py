"""Traces and metrics by OpenTelemetry (extra ``otel``): ``"restate_django.contrib.otel"`` in ``INSTALLED_APPS``.

It uses the API alone. Where spans and values go is decided by the SDK that the project sets up; without one, nothing is
recorded. The names are those of OpenTelemetry's conventions for messaging.
"""
