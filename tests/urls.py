"""The URLs of the tests' site: the admin, and the app's own views."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from health_check.views import HealthCheckView

urlpatterns = [
    path("admin/", admin.site.urls),
    path("restate/", include("restate_django.urls")),
    path(
        "health-check/",
        HealthCheckView.as_view(
            checks=["restate_django.contrib.health_check.Database", "restate_django.contrib.health_check.Ingress"]
        ),
    ),
]
