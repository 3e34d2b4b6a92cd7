"""The shop at the root, the admin and the app's own views beside it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("restate/", include("restate_django.urls")),
    path("", include("shop.urls")),
]
