"""What the admin offers beyond Restate's own operations: ask now, and send once more under a new key.

Both report as the functions of ``operations`` do. Imports the verbs when they are needed, and the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from restate_django import measuring
from restate_django.exceptions import RestateError
from restate_django.models import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from restate_django.operations import OperationReport


def refresh(rows: Iterable[Invocation], by: Any) -> OperationReport:  # noqa: ARG001 - the signature of both
    """Ask Restate about rows now, and write down what it says.

    Args:
        rows: Open rows.
        by: Who asks.
    """
    from restate_django import operations

    return operations.refresh(rows)


def send_anew(rows: Iterable[Invocation], by: Any) -> OperationReport:
    """Send what rows sent once more, each as a new invocation with a key and a row of its own.

    Args:
        rows: Rows that are not open.
        by: Who asks; the new rows are requested by them.

    Returns:
        The new rows in ``done``; ``restarted_from`` names the ones that they repeat.
    """
    from restate_django.dispatch import send
    from restate_django.operations import OperationReport

    report = OperationReport()
    for row in rows:
        try:
            new = send(
                row.service,
                row.handler,
                row.encoded_payload,
                key=row.key or None,
                headers=measuring.without_trace(row.headers or {}),
                scope=row.scope or None,
                limit_key=row.limit_key or None,
                requested_by=by,
                connection=row.connection,
                using=row._state.db,
            )
        except (RestateError, ImproperlyConfigured) as error:
            report.refused.append((row, str(error)))
            continue
        if not new.created:
            report.passed_over.append((row, _("A workflow runs once for its key, and has run.")))
            continue
        copied = {
            "related_content_type_id": row.related_content_type_id,
            "related_id": row.related_id,
            "restarted_from_id": row.pk,
        }
        for name, value in copied.items():
            setattr(new, name, value)
        Invocation.objects.using(new._state.db).filter(pk=new.pk).update(**copied)
        report.done.append((new, _("Sent its payload again with a new key.")))
    return report
