"""What an operator can do to invocations, as data: names, words, permissions and dangers. One entry, one button.

Which statuses an operation applies to is ``operations.ALLOWED``'s business, and what it does is ``operations``'.
Imports the verbs when a button is drawn or pressed, so that they are not loaded to start a project; and the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from restate_django.admin import extras
from restate_django.lifecycle import OPEN, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from restate_django.models import Invocation
    from restate_django.operations import OperationReport


#: Characters of a reason, which the history keeps.
REASON_LENGTH: Final = 500


@dataclass(frozen=True)
class Button:
    """An operation as the admin offers it.

    Attributes:
        name: The function in ``operations``.
        label: What stands on the button of one row.
        plural: What stands in the list's menu of actions.
        permission: ``has_<permission>_permission`` of the admin class.
        explains: What will happen, in a sentence or two.
        done: How many it was done to, as a sentence. ``%(count)d`` is filled in.
        history: The admin history tells of each row what was done to it, and who did it.
        confirm: It is asked about first.
        danger: It destroys something that nobody can bring back: its button is red.
        options: What the confirmation page asks for besides.
        origin: What the history says of the new row, where it makes one. ``%(key)s`` is the old one's key.
        applies: The statuses that it applies to, where ``operations`` does not say.
        operation: What does it, where ``operations`` has no function of this name. It is told who asks.
    """

    name: str
    label: Any
    plural: Any
    permission: str
    explains: Any
    done: Any
    history: bool = True
    confirm: bool = False
    danger: bool = False
    options: tuple[str, ...] = ()
    origin: Any = ""
    applies: frozenset[Status] | None = None
    operation: Callable[[Iterable[Invocation], Any], OperationReport] | None = None

    @property
    def statuses(self) -> frozenset[Status]:
        """The statuses that it applies to."""
        from restate_django import operations

        return operations.ALLOWED[self.name] if self.applies is None else self.applies

    def applies_to(self, row: Invocation) -> bool:
        """Tell whether a row's status allows it, and it is not under way already."""
        return row.status in self.statuses and not (self.name == "cancel" and row.cancel_sent_at is not None)

    def run(self, rows: Iterable[Invocation], by: Any, **options: Any) -> OperationReport:
        """Do it. The caller holds no transaction.

        Args:
            rows: The rows, whatever their status: those that it does not apply to are passed over.
            by: Who asks.
            options: The operation's own.
        """
        from restate_django import operations

        if self.operation is None:
            report: OperationReport = getattr(operations, self.name)(rows, **options)
            return report
        rows = list(rows)
        report = self.operation([row for row in rows if row.status in self.statuses], by)
        for row in rows:
            if row.status not in self.statuses:
                report.passed_over.append((row, operations.it_is(row)))
        return report


BUTTONS: Final[dict[str, Button]] = {
    button.name: button
    for button in (
        Button(
            name="refresh",
            label=_("Ask Restate now"),
            plural=_("Ask Restate about selected %(verbose_name_plural)s now"),
            permission="view",
            explains=_("Asks Restate what has become of it, instead of waiting for the next poll."),
            done=ngettext_lazy(
                "Asked Restate about %(count)d invocation.", "Asked Restate about %(count)d invocations.", "count"
            ),
            history=False,
            applies=OPEN,
            operation=extras.refresh,
        ),
        Button(
            name="cancel",
            label=_("Cancel"),
            plural=_("Cancel selected %(verbose_name_plural)s"),
            permission="cancel",
            explains=_(
                "Asks the handler to stop. It sees the cancellation at its next await and compensates for what it did;"
                " until then the status stays as it is. One that was not sent yet is not sent."
            ),
            done=ngettext_lazy(
                "Asked for the cancellation of %(count)d invocation.",
                "Asked for the cancellation of %(count)d invocations.",
                "count",
            ),
        ),
        Button(
            name="pause",
            label=_("Pause"),
            plural=_("Pause selected %(verbose_name_plural)s"),
            permission="pause",
            explains=_("Holds it where it is, until somebody resumes it."),
            done=ngettext_lazy("Paused %(count)d invocation.", "Paused %(count)d invocations.", "count"),
        ),
        Button(
            name="resume",
            label=_("Resume"),
            plural=_("Resume selected %(verbose_name_plural)s"),
            permission="resume",
            explains=_("Lets it go on from where it stopped, at once, on the deployment that you choose."),
            done=ngettext_lazy("Resumed %(count)d invocation.", "Resumed %(count)d invocations.", "count"),
            confirm=True,
            options=("deployment",),
        ),
        Button(
            name="resend",
            label=_("Send again"),
            plural=_("Send selected %(verbose_name_plural)s again"),
            permission="resend",
            explains=_(
                "Sends it again with the same key and payload. A rejected one never ran. An undeliverable one may have"
                " run: if Restate has forgotten its key since, it runs a second time."
            ),
            done=ngettext_lazy("%(count)d invocation is sent again.", "%(count)d invocations are sent again.", "count"),
            confirm=True,
        ),
        Button(
            name="send_anew",
            label=_("Send with a new key"),
            plural=_("Send selected %(verbose_name_plural)s with new keys"),
            permission="resend",
            explains=_(
                "Sends the same payload to the same handler once more, as a new invocation with a row and a key of its"
                " own, requested by you. What the first one did stays done, and is done again."
            ),
            done=ngettext_lazy(
                "Sent %(count)d invocation with a new key.", "Sent %(count)d invocations with new keys.", "count"
            ),
            origin=_("Sent with the payload of invocation %(key)s."),
            confirm=True,
            applies=frozenset(Status) - OPEN,
            operation=extras.send_anew,
        ),
        Button(
            name="restart_as_new",
            label=_("Restart as new"),
            plural=_("Restart selected %(verbose_name_plural)s as new"),
            permission="restart",
            explains=_(
                "Runs it once more, from its recorded input, as a new invocation with a row of its own. What the first"
                " run did stays done, and is done again."
            ),
            done=ngettext_lazy(
                "Restarted %(count)d invocation as new.", "Restarted %(count)d invocations as new.", "count"
            ),
            origin=_("Restarted from invocation %(key)s."),
            confirm=True,
            options=("deployment", "from_entry"),
        ),
        Button(
            name="purge_journal",
            label=_("Purge journal"),
            plural=_("Purge the journals of selected %(verbose_name_plural)s"),
            permission="purge",
            explains=_("Restate forgets its steps, and keeps its output. It can't be restarted as new after that."),
            done=ngettext_lazy(
                "Purged the journal of %(count)d invocation.", "Purged the journals of %(count)d invocations.", "count"
            ),
            confirm=True,
        ),
        Button(
            name="purge",
            label=_("Purge"),
            plural=_("Purge selected %(verbose_name_plural)s"),
            permission="purge",
            explains=_(
                "Restate forgets it with its output and its key: the same key would run again. The row here keeps what"
                " it has."
            ),
            done=ngettext_lazy("Purged %(count)d invocation.", "Purged %(count)d invocations.", "count"),
            confirm=True,
            danger=True,
        ),
        Button(
            name="kill",
            label=_("Kill"),
            plural=_("Kill selected %(verbose_name_plural)s"),
            permission="kill",
            explains=_(
                "Ends it at once. No compensation runs: what the handler has done so far stays done, half finished as"
                " it may be. Cancel it instead wherever the handler still answers."
            ),
            done=ngettext_lazy("Killed %(count)d invocation.", "Killed %(count)d invocations.", "count"),
            confirm=True,
            danger=True,
        ),
    )
}
