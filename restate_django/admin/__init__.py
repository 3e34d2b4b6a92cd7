"""The invocations in the Django admin: see everything, do everything, with Django's permissions and history.

Imports the verbs and everything below them. It decides nothing about Restate: each button ends in ``operations``.
"""

from __future__ import annotations

from django.contrib import admin

from restate_django.admin.invocations import InvocationAdmin
from restate_django.admin.related import InvocationInline, SendToRestateMixin
from restate_django.models import Invocation

__all__ = ["InvocationAdmin", "InvocationInline", "SendToRestateMixin"]

admin.site.register(Invocation, InvocationAdmin)

if admin.site.index_template is None:
    # The index as it is, with how things stand below it. A site that has a template of its own keeps that.
    admin.site.index_template = "admin/restate_django/index.html"
