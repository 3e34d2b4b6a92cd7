"""The addresses of the views for a project's own pages: ``path("restate/", include("restate_django.urls"))``."""

from __future__ import annotations

from django.urls import path

from restate_django import views

app_name = "restate_django"

urlpatterns = [
    path("health/", views.health, name="health"),
    path("events/", views.events, name="events"),
    path("<uuid:pk>/", views.status, name="status"),
    path("<uuid:pk>/cancel/", views.cancel, name="cancel"),
    path("<uuid:pk>/report/", views.report, name="report"),
]
