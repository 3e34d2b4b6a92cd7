"""The page of one invocation: everything that is known of it, and what can be done about it.

Imports the modules beside it, the records and ``conf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ImproperlyConfigured
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from restate_django import conf
from restate_django.admin import badges, downloads, masking, relations, repeat, summary, timeline, wording
from restate_django.admin.buttons import BUTTONS, REASON_LENGTH, Button
from restate_django.lifecycle import OPEN, Status
from restate_django.storable import storable_text

if TYPE_CHECKING:
    import uuid

    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from restate_django.admin.bodies import Bodies
    from restate_django.admin.invocations import InvocationAdmin
    from restate_django.models import Invocation


@dataclass(frozen=True)
class PressableButton:
    """A button as the page draws it: where its form goes, or which field it fills.

    Attributes:
        label: What stands on it.
        title: What it will do.
        url: Where it posts to; empty where the page's own address takes it (Django 6.1's actions).
        field: The field it fills then.
        value: The value that it gives the field.
        danger: It can't be undone.
    """

    label: Any
    title: Any
    url: str = ""
    field: str = ""
    value: str = ""
    danger: bool = False


class Detail:
    """What the template shows. Each part is read when the template asks for it."""

    def __init__(
        self, row: Invocation, request: HttpRequest, model_admin: InvocationAdmin, action_form: Any = None
    ) -> None:
        self.row = row
        self._request = request
        self._admin = model_admin
        self._action_form = action_form
        self._relations = relations.Relations([row], request, model_admin.admin_site)
        self.checkbox = ACTION_CHECKBOX_NAME

    # ------------------------------------------------------------------ at the top

    @property
    def badge(self) -> SafeString:
        """The status."""
        return badges.status_badge(self.row.status)

    @property
    def chips(self) -> list[SafeString]:
        """What stands next to the status."""
        row, found = self.row, []
        if row.cancel_requested_at and row.status in OPEN:
            found.append(badges.chip(_("cancel requested"), title=wording.clock(row.cancel_requested_at)))
        if row.previously_accepted:
            found.append(badges.chip(_("somebody else's invocation")))
        return found

    @cached_property
    def summary(self) -> list[str]:
        """The page in words."""
        return summary.sentences(self.row, self._relations.requested_by(self.row), self._relations.related_to(self.row))

    @property
    def notices(self) -> list[tuple[str, str, str]]:
        """What must not be overlooked: a tone, a title and a text."""
        row, found = self.row, []
        if row.previously_accepted:
            found.append(
                (
                    "warning",
                    _("Its payload was not used."),
                    _(
                        "Restate had an invocation under this key already, that this row did not make. What you see of"
                        " its course and outcome is that other one's."
                    ),
                )
            )
        if row.delivery_error:
            title = _("Why it was not delivered") if row.status != Status.UNSENT else _("Why it is not delivered yet")
            reason = wording.recorded_reason(row.delivery_error)
            found.append(("bad" if row.status != Status.UNSENT else "warning", title, reason))
        if row.last_failure and row.status in OPEN:
            found.append(("warning", _("Its last try failed"), row.last_failure))
        return found

    @cached_property
    def buttons(self) -> list[PressableButton]:
        """What this user may do to this row now."""
        if self._action_form is not None:
            # Django 6.1: the change form's own actions, with those that a project has added.
            field = self._action_form["action"].html_name
            names = [(str(name), label) for name, label in self._action_form.fields["action"].choices if name]
            found = []
            for name, label in names:
                button = BUTTONS.get(name)
                if button is None:
                    found.append(PressableButton(label, "", field=field, value=name))
                elif button.applies_to(self.row):
                    found.append(self._pressable(button, field=field, value=name))
            return found
        return [
            self._pressable(button, url=self._admin.url("operate", button.name))
            for button in BUTTONS.values()
            if button.applies_to(self.row) and self._admin.may(button, self._request)
        ]

    @property
    def asks_why(self) -> bool:
        """One of the buttons writes into the history, which keeps a reason."""
        return any(button.label != BUTTONS["refresh"].label for button in self.buttons)

    @property
    def reason_length(self) -> int:
        """Characters that a reason may have."""
        return REASON_LENGTH

    @property
    def buttons_key(self) -> str:
        """What tells one set of buttons from another."""
        return " ".join(button.value or button.url for button in self.buttons) + (self.ui_url or "")

    @staticmethod
    def _pressable(button: Button, **where: str) -> PressableButton:
        return PressableButton(button.label, button.explains, danger=button.danger, **where)

    @cached_property
    def ui_url(self) -> str | None:
        """The invocation in Restate's own UI."""
        try:
            settings = conf.get_settings(self.row.connection)
        except ImproperlyConfigured:
            return None
        return conf.invocation_ui_url(settings, self.row.invocation_id)

    # ------------------------------------------------------------------ what went in and what came out

    @cached_property
    def may_see_bodies(self) -> bool:
        """The user has ``view_invocation_payload``."""
        return bool(self._admin.has_payload_permission(self._request))

    @cached_property
    def bodies(self) -> Bodies:
        """Payload, output and metadata. Only read where the user may see them."""
        return self._admin.bodies_of(self.row)

    @cached_property
    def repeat_lines(self) -> list[tuple[str, str]]:
        """What would send the same again: a title and a line for each way."""
        row = self.row
        file_name = downloads.file_name(row, "payload", row.content_type)
        payload = self.bodies.short_payload
        lines = [
            (_("In a shell"), repeat.curl_line(row, payload, file_name)),
            (_("In Python"), repeat.python_line(row, payload, file_name)),
        ]
        return [(title, storable_text(line)) for title, line in lines if line]

    @property
    def payload_url(self) -> str:
        """The whole payload."""
        return self._admin.url("payload", self.row.pk)

    @property
    def output_url(self) -> str:
        """The whole output."""
        return self._admin.url("output", self.row.pk)

    @property
    def journal_url(self) -> str:
        """The journal's own page."""
        return self._admin.url("journal", self.row.pk)

    @property
    def shows_output(self) -> bool:
        """It ended well, so there is an output, or the lack of one to tell."""
        return self.row.status == Status.SUCCEEDED

    @property
    def shows_failure(self) -> bool:
        """It ended in a failure."""
        return bool(self.row.failure_code is not None or self.row.failure_message)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The handler's headers, secrets masked."""
        return masking.masked_headers(self.row.headers or {})

    # ------------------------------------------------------------------ beside it

    @cached_property
    def timeline(self) -> list[timeline.Event]:
        """What happened, in order."""
        return timeline.events(self.row)

    @property
    def facts(self) -> list[tuple[str, SafeString | str, bool]]:
        """Names and values, and whether a value is code. Only those that are there."""
        row = self.row
        asked, related = self._relations.requested_by(row), self._relations.related_to(row)
        everything: list[tuple[str, Any, bool]] = [
            (_("Service"), row.service, False),
            (_("Object key"), row.key, True),
            (_("Handler"), row.handler, False),
            (_("Invocation id"), row.invocation_id, True),
            (_("Idempotency key"), row.idempotency_key, True),
            (_("Row"), str(row.pk), True),
            (_("Connection"), row.connection, False),
            (_("Scope"), row.scope, True),
            (_("Limit key"), row.limit_key, True),
            (_("Verb"), row.get_verb_display(), False),
            (_("Requested by"), asked.html() if asked else "", False),
            (_("Belongs to"), related.html() if related else "", False),
            (_("Transaction"), str(row.transaction_id or ""), True),
            (_("Attempts"), row.attempts or "", False),
            (_("Retries"), row.retry_count or "", False),
            (_("Result kept until"), wording.clock(row.result_expires_at) if row.result_expires_at else "", False),
        ]
        return [fact for fact in everything if fact[1] != ""]

    @property
    def siblings_url(self) -> str:
        """The list of all invocations for the same object."""
        row = self.row
        if not row.related_id or row.related_content_type_id is None:
            return ""
        query: dict[str, str | int] = {
            "related_content_type__id__exact": row.related_content_type_id,
            "related_id__exact": row.related_id,
        }
        return f"{self._admin.url('changelist')}?{urlencode(query)}"

    @property
    def restarted_from_url(self) -> str:
        """The row that it was restarted from."""
        return self._admin.url("change", self.row.restarted_from_id) if self.row.restarted_from_id else ""

    @cached_property
    def together(self) -> list[tuple[str, str, SafeString]]:
        """What the same transaction recorded: targets, addresses and badges."""
        return [
            (row.target, self._admin.url("change", row.pk), badges.status_badge(row.status))
            for row in self._together[0]
        ]

    @property
    def is_more_together(self) -> bool:
        """The same transaction recorded more than that."""
        return self._together[1]

    @cached_property
    def _together(self) -> tuple[list[Invocation], bool]:
        return relations.same_transaction(self.row)

    @cached_property
    def restarts(self) -> list[tuple[uuid.UUID, str, SafeString]]:
        """The rows that were restarted from it: keys, addresses and badges."""
        return [
            (pk, self._admin.url("change", pk), badges.status_badge(status))
            for pk, status in relations.restarts_of(self.row)
        ]
