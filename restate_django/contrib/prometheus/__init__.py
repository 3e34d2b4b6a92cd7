"""Metrics for Prometheus (extra ``prometheus``): ``"restate_django.contrib.prometheus"`` in ``INSTALLED_APPS``.

They are in ``prometheus_client``'s default registry, so whatever a project shows that by shows them too. ``views`` has
a view for those that have none.
"""
