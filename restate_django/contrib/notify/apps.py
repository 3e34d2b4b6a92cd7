"""The app. It has no models: installing it is all there is to do."""

from __future__ import annotations

from django.apps import AppConfig

from restate_django import signals


class NotifyConfig(AppConfig):
    """``"restate_django.contrib.notify"`` in ``INSTALLED_APPS``."""

    name = "restate_django.contrib.notify"
    label = "restate_django_notify"
    verbose_name = "Restate: mails to ADMINS"

    def ready(self) -> None:
        """Listen to the two signals."""
        from restate_django.contrib.notify import mails

        signals.invocation_paused.connect(mails.on_paused, dispatch_uid="restate_django.notify")
        signals.invocation_undeliverable.connect(mails.on_undeliverable, dispatch_uid="restate_django.notify")
