"""The mails to ``ADMINS``, and how many of them.

A job calls these between two rows of its work: whatever fails here (the cache, the database, the mail server) is a line
in the log, and a mail server that hangs costs the job :data:`PATIENCE` once. A mail holds no payload, no key and none
of a handler's words. Imports everything below it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.conf import settings
from django.core.cache import cache
from django.core.mail import mail_admins
from django.db import connections as databases
from django.urls import NoReverseMatch, reverse
from django.utils import translation
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from restate_django.conf import all_settings
from restate_django.lifecycle import Status
from restate_django.logs import get_logger
from restate_django.models import Invocation
from restate_django.querysets import write_alias

if TYPE_CHECKING:
    import uuid

    from django.db.models import QuerySet

logger = get_logger("restate_django.notify")

#: Seconds for which nothing more is mailed about one handler and status.
PAUSE: Final = 3600
#: The same where the mail could not be sent.
PAUSE_AFTER_FAILURE: Final = 60
#: Seconds that a job waits for the mail server. After that the mail may still go out.
PATIENCE: Final = 10.0
#: Rows that are looked at for the count.
COUNTED: Final = 1000


class _Told:
    """What this process has mailed about, and until when it is quiet: the limit that is left without a cache."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def is_quiet(self, key: str) -> bool:
        return time.monotonic() < self._until.get(key, 0.0)

    def be_quiet(self, key: str, seconds: float) -> None:
        self._until[key] = time.monotonic() + seconds

    def forget(self) -> None:
        self._until.clear()


told: Final = _Told()


def on_paused(sender: type[Invocation], invocation: Invocation, **_kwargs: Any) -> None:  # noqa: ARG001 - a receiver's signature
    """Mail that an invocation is paused: a receiver of ``invocation_paused``."""
    _notify(invocation, Status.PAUSED)


def on_undeliverable(sender: type[Invocation], invocation: Invocation, **_kwargs: Any) -> None:  # noqa: ARG001 - a receiver's signature
    """Mail that a row is undeliverable: a receiver of ``invocation_undeliverable``."""
    _notify(invocation, Status.UNDELIVERABLE)


def _notify(row: Invocation, status: Status) -> None:
    if not settings.ADMINS:
        return
    key = _key_of(row, status)
    if told.is_quiet(key):
        return
    told.be_quiet(key, PAUSE)
    try:
        if not _is_first(key, row):
            return
        # Whoever caused it may read another language than those who look after the site.
        with translation.override(settings.LANGUAGE_CODE):
            subject, text = _subject(row, status), _text(row, status)
        error, is_final = _mail(subject, text)
    except Exception as trouble:  # noqa: BLE001 - whatever is wrong here must not end a job
        error, is_final = type(trouble).__name__, True
    if error:
        logger.warning("No mail could be sent about %s, which is %s (%s)", row.target, status, error, row=row)
        if is_final:
            _try_again_soon(key)


def _key_of(row: Invocation, status: Status) -> str:
    # Names of up to 255 characters make no key for memcached.
    name = f"{row.connection}\0{row.service}\0{row.handler}\0{status}"
    return f"restate_django.notify.{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _is_first(key: str, row: Invocation) -> bool:
    """Tell whether no other process has mailed about it: as well as the project's cache knows."""
    try:
        return cache.add(key, 1, PAUSE)
    except Exception as error:  # noqa: BLE001 - each cache's driver raises its own
        logger.warning("Whether ADMINS were told is not known, the cache is away: %s", type(error).__name__, row=row)
        return True


def _try_again_soon(key: str) -> None:
    told.be_quiet(key, PAUSE_AFTER_FAILURE)
    try:
        cache.set(key, 1, PAUSE_AFTER_FAILURE)
    except Exception:  # noqa: BLE001 - that it is away has been said
        return


def _mail(subject: str, text: str) -> tuple[str, bool]:
    """Send a mail in a thread of its own, for Django's backend waits for as long as a server hangs.

    Returns:
        The error, and whether it is final: a server that is only slow may send the mail yet.
    """
    errors: list[str] = []

    def send() -> None:
        try:
            mail_admins(subject, text)
        except Exception as error:  # noqa: BLE001 - each backend raises its own
            errors.append(type(error).__name__)
        finally:
            # A backend that queues mails in the database has opened a connection for this thread.
            databases.close_all()

    thread = threading.Thread(target=send, name="restate-django-mail", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        return f"no answer within {PATIENCE:g} s", False
    return "".join(errors), True


# ---------------------------------------------------------------- what it says


def _subject(row: Invocation, status: Status) -> str:
    handler = f"{row.service}/{row.handler}"
    if status == Status.PAUSED:
        return _("Restate: %(handler)s is paused") % {"handler": handler}
    return _("Restate: %(handler)s is undeliverable") % {"handler": handler}


def _text(row: Invocation, status: Status) -> str:
    if status == Status.PAUSED:
        what = _(
            "Restate holds an invocation of %(handler)s (connection %(connection)s) after its tries have failed, or "
            "because somebody paused it. It waits for a person: resume, cancel or kill it."
        )
    else:
        what = _(
            "Nobody knows whether an invocation of %(handler)s (connection %(connection)s) ran, and sending it again "
            "may run it twice. It waits for a person: find out, then send it again or delete it."
        )
    paragraphs = [what % {"handler": f"{row.service}/{row.handler}", "connection": row.connection}]
    number = _how_many(row, status)
    if number >= COUNTED:
        count = _("Of this handler there are %(count)d and more.") % {"count": number}
    else:
        count = ngettext(
            "Of this handler there is %(count)d now.", "Of this handler there are %(count)d now.", number
        ) % {"count": number}
    base = _site_url(row)
    all_of_them = {"connection": row.connection, "service": row.service, "handler": row.handler, "status": status.value}
    paragraphs.append(f"{count}\n{_link(base, 'changelist', query=all_of_them)}".rstrip())
    first = _("The one that was seen first: %(row)s") % {"row": row.pk}
    paragraphs.append(f"{first}\n{_link(base, 'change', row.pk)}".rstrip())
    paragraphs.append(_("You are told about each handler once in an hour at most."))
    return "\n\n".join(paragraphs)


def _how_many(row: Invocation, status: Status) -> int:
    handler = (row.connection, row.service, row.handler)
    return sum(each == handler for each in newest(status, write_alias(row)))


def newest(status: Status, using: str) -> QuerySet[Invocation, tuple[str, str, str]]:
    """Return connection, service and handler of the newest rows in a status, so many that a count of them is quick."""
    rows = Invocation.objects.using(using).filter(status=status).order_by("-pk")
    return rows.values_list("connection", "service", "handler")[:COUNTED]


def _site_url(row: Invocation) -> str:
    """Return where people reach this site; empty where nobody has said it."""
    connection = all_settings().get(row.connection)
    if connection is not None and connection.site_url:
        return connection.site_url
    if not apps.is_installed("django.contrib.sites"):
        return ""
    from django.contrib.sites.models import Site

    return f"https://{Site.objects.get_current().domain}"


def _link(base: str, page: str, pk: uuid.UUID | None = None, query: dict[str, str] | None = None) -> str:
    try:
        path = reverse(f"admin:restate_django_invocation_{page}", args=None if pk is None else [pk])
    except NoReverseMatch:
        # There is no admin, or another one.
        return ""
    if not base:
        return ""
    return f"{base}{path}?{urlencode(query)}" if query else f"{base}{path}"
