"""The example's settings package. The Celery app is loaded with it, as Celery's guide for Django has it."""

from __future__ import annotations

from example.celery import app as celery_app

__all__ = ["celery_app"]
