"""Mails ``ADMINS`` when invocations wait for a person: ``"restate_django.contrib.notify"`` in ``INSTALLED_APPS``.

Once for each handler and hour, from the process that saw it first, by ``mails``.
"""
