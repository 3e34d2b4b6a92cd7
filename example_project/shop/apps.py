"""The shop as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """A small shop whose every action is an invocation."""

    name = "shop"
    verbose_name = "Shop"
