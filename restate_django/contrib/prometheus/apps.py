"""The Django app that keeps Prometheus' metrics of the work."""

from __future__ import annotations

from django.apps import AppConfig


class PrometheusConfig(AppConfig):
    """``"restate_django.contrib.prometheus"`` in ``INSTALLED_APPS``."""

    name = "restate_django.contrib.prometheus"
    label = "restate_django_prometheus"
    verbose_name = "Restate: Prometheus"

    def ready(self) -> None:
        """Register the metrics and listen. No database is asked before somebody reads them."""
        from restate_django import measuring
        from restate_django.contrib.prometheus.metrics import listener

        measuring.listen(listener)
