"""The Django app: its name and its primary keys. ``ready()`` registers the system checks, and does nothing else."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class RestateConfig(AppConfig):
    """``"restate_django"`` in ``INSTALLED_APPS``."""

    name = "restate_django"
    verbose_name = "Restate"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks: importing their module does. No setting is read and no connection made here."""
        import_module("restate_django.checks")
