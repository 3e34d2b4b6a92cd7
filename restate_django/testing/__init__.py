"""Tests of your own code: a fake of Restate in this process, real servers on free ports, and a pytest plugin.

The servers import nothing of the rest of the package: what is under test does not start what it is tested against.
Each name is loaded when it is first asked for, so that pytest can load the plugin in projects that don't use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from restate_django.lazy import lazy_names

if TYPE_CHECKING:
    from restate_django.testing.answers import Answers
    from restate_django.testing.binary import DEFAULT_VERSION, NoServerError
    from restate_django.testing.endpoint import HandlerServer
    from restate_django.testing.fake import FakeRestate
    from restate_django.testing.process import StartError
    from restate_django.testing.sent import ANY, Sent
    from restate_django.testing.server import SCOPES_ENV, RestateServer

__all__ = [
    "ANY",
    "DEFAULT_VERSION",
    "SCOPES_ENV",
    "Answers",
    "FakeRestate",
    "HandlerServer",
    "NoServerError",
    "RestateServer",
    "Sent",
    "StartError",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "answers": ("Answers",),
        "binary": ("DEFAULT_VERSION", "NoServerError"),
        "endpoint": ("HandlerServer",),
        "fake": ("FakeRestate",),
        "process": ("StartError",),
        "sent": ("ANY", "Sent"),
        "server": ("SCOPES_ENV", "RestateServer"),
    },
)
