"""Durable execution for Django: hand work to Restate inside a transaction, see and steer what became of it.

The public names are loaded when they are first asked for, so this package can be imported before the app registry is
ready (by a project's ``celery.py``, say).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from restate_django.lazy import lazy_names

if TYPE_CHECKING:
    from restate_django.client import NO_PAYLOAD
    from restate_django.dispatch import Outgoing, acall, asend, call, send, send_many
    from restate_django.typed import Service, VirtualObject, Workflow

__version__ = "0.1.0"

__all__ = [
    "NO_PAYLOAD",
    "Outgoing",
    "Service",
    "VirtualObject",
    "Workflow",
    "acall",
    "asend",
    "call",
    "send",
    "send_many",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "client": ("NO_PAYLOAD",),
        "dispatch": ("Outgoing", "acall", "asend", "call", "send", "send_many"),
        "typed": ("Service", "VirtualObject", "Workflow"),
    },
)
