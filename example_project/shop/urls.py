"""The shop's pages, and beside each live one the address that tells what changed."""

from __future__ import annotations

from django.urls import path

from shop import views

app_name = "shop"

urlpatterns = [
    path("", views.shelf, name="shelf"),
    path("orders/", views.orders, name="orders"),
    path("orders/<uuid:pk>/", views.order, name="order"),
    path("orders/<uuid:pk>/cancel/", views.cancel_order, name="cancel-order"),
    path("cart/", views.cart, name="cart"),
    path("cart/remove/", views.remove_from_cart, name="remove-from-cart"),
    path("reminders/", views.reminders, name="reminders"),
    path("reports/", views.reports, name="reports"),
    path("reports/<uuid:pk>/repair/", views.repair, name="repair"),
    path("agent/", views.agent_topics, name="agent-topics"),
    path("agent/<slug:topic>/", views.agent, name="agent"),
    path("hello/", views.hello, name="hello"),
]
