"""The task that ``django-tasks-db`` enqueues; it never runs. Imported only where that package is installed."""

from __future__ import annotations

import django

if django.VERSION >= (6, 0):
    from django.tasks import task  # type: ignore[import-not-found,unused-ignore] # Django's own from 6.0 on
else:
    from django_tasks import task  # type: ignore[import-not-found,unused-ignore] # before that, a package


@task()
def greet(name: str) -> str:
    return f"Hello, {name}!"
