"""What the app tells the rest of a project, as Django signals. Imports nothing of the package.

Each is sent after the commit of the change, by the worker whose write won, with ``send_robust`` (a receiver that fails
is logged and disturbs nobody), and at most once: a process that dies between its write and the signal sends none. What
must not be missed reads ``Invocation.objects.finished_since(cursor)``.
"""

from __future__ import annotations

from django.dispatch import Signal

#: Restate took the invocation. Arguments: ``invocation``.
invocation_accepted = Signal()

#: The row's status changed. Arguments: ``invocation``, ``old`` and ``new`` (values of ``Invocation.Status``).
invocation_status_changed = Signal()

#: The invocation ended: succeeded, failed, cancelled, killed, gone or rejected. Arguments: ``invocation``.
invocation_finished = Signal()

#: Restate holds the invocation, and waits for a person: resume, cancel or kill it. Arguments: ``invocation``.
invocation_paused = Signal()

#: Nobody knows whether it ran, and sending it again may run it twice: a person decides. Arguments: ``invocation``.
invocation_undeliverable = Signal()
