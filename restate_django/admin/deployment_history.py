"""The admin history of deployments: who registered and removed what. Imports Django and the records alone.

Deployments have no table here, so an entry belongs to the type of invocations and to no row of it: the admin's index
shows it without a link, and the page of the servers lists the latest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext as _

from restate_django.models import Invocation
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from django.http import HttpRequest

#: How many are listed.
_LISTED: Final = 10
#: How far back they are looked for, in entries of any kind: the admin's log has no index that would find them.
_LOOKED_AT: Final = 10_000
_LONGEST_NAME: Final = 200


def write(request: HttpRequest, flag: int, alias: str, name: str, text: str, reason: str = "") -> None:
    """Write an entry.

    Args:
        request: Whose user did it.
        flag: ``ADDITION``, ``CHANGE`` or ``DELETION``.
        alias: The connection.
        name: The deployment's id, or its address where it has no id yet.
        text: What was done, as a sentence.
        reason: Why, in the user's words.
    """
    user_id: Any = request.user.pk
    because = " " + _("Reason: %(reason)s") % {"reason": storable_text(reason)} if reason else ""
    LogEntry.objects.create(
        user_id=user_id,
        content_type_id=_type_id(),
        object_id=None,
        object_repr=(_("deployment %(name)s of %(alias)s") % {"name": name, "alias": alias})[:_LONGEST_NAME],
        action_flag=flag,
        change_message=text + because,
    )


def latest() -> list[LogEntry]:
    """Return the latest entries about deployments, with their users. It costs the same with any log."""
    newest = LogEntry.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    entries = LogEntry.objects.filter(pk__gt=newest - _LOOKED_AT, content_type_id=_type_id(), object_id=None)
    return list(entries.select_related("user").order_by("-pk")[:_LISTED])


def _type_id() -> int:
    return ContentType.objects.get_for_model(Invocation).pk
