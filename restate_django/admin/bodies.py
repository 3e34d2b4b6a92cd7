"""Payloads, outputs and metadata as the admin shows them: readable, masked, and cut when they are long.

Imports the records, the verbs (for an output that stayed in Restate) and ``masking``. A body is cut by the database, so
that a page never loads megabytes to show a screenful; the whole is one download away.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models.functions import Length, Substr
from django.utils.translation import gettext as _

from restate_django.admin import repeat, wording
from restate_django.admin.masking import masked
from restate_django.models import Invocation
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a body that the page shows.
SHOWN: Final = 32 * 1024

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TEXT_TYPES: Final = re.compile(
    r"^text/|[/+](json|xml|yaml|javascript|x-www-form-urlencoded|x-ndjson)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Body:
    """A payload or an output, ready to be shown.

    Attributes:
        text: What is shown; empty where there is nothing to show.
        facts: Its content type and size in words.
        note: What the reader should know about it: that it is cut, binary, masked or elsewhere.
        downloadable: There is a whole to download.
    """

    text: str = ""
    facts: str = ""
    note: str = ""
    downloadable: bool = False


@dataclass(frozen=True)
class Bodies:
    """Everything of a row that only ``view_invocation_payload`` lets one see.

    Attributes:
        payload: The payload.
        output: The output.
        metadata: What a handler attached to its failure, as text.
        short_payload: The payload's bytes with the secrets masked, where they fit into a line; None where they don't.
    """

    payload: Body
    output: Body
    metadata: str
    short_payload: bytes | None = None


def read(row: Invocation, mask: Callable[[Any], Any] = masked) -> Bodies:
    """Read what the page shows of a row's bodies, in one query that cuts them.

    Args:
        row: The invocation; its own body columns stay deferred.
        mask: Replaces the secrets in a JSON value.
    """
    found: Any = (
        Invocation.objects.using(row._state.db)
        .filter(pk=row.pk)
        .annotate(
            payload_size=Length("payload_bytes"),
            payload_head=Substr("payload_bytes", 1, SHOWN),
            output_stored=Length("output_bytes"),
            output_head=Substr("output_bytes", 1, SHOWN),
        )
        .values("payload_size", "payload_head", "output", "output_stored", "output_head", "failure_metadata")
        .first()
    )
    if found is None:
        return Bodies(Body(), Body(), "")
    metadata = found["failure_metadata"]
    head, size = bytes(found["payload_head"] or b""), found["payload_size"] or 0
    return Bodies(
        payload=_payload(row, found, mask),
        output=_output(row, found, mask),
        metadata="" if metadata is None else storable_text(_pretty(mask(metadata))),
        short_payload=_short(head, row.content_type, mask) if size <= repeat.INLINE else None,
    )


def whole_payload(row: Invocation, mask: Callable[[Any], Any] = masked) -> tuple[bytes, str]:
    """Return the whole payload and its content type, with the secrets in its JSON masked.

    Raises:
        LookupError: It has none, or one whose secrets can't be masked.
    """
    if row.payload_bytes is None:
        raise LookupError(_("It has no payload."))
    return _masked_bytes(bytes(row.payload_bytes), row.content_type, mask), row.content_type


def whole_output(row: Invocation, mask: Callable[[Any], Any] = masked) -> tuple[bytes, str]:
    """Return the whole output and its content type, with the secrets in its JSON masked.

    One that is too large for the row is read from Restate: call this outside any transaction.

    Raises:
        LookupError: It has none, or one whose secrets can't be masked, or Restate does not have it any more.
        OperationRefused: Restate has no invocation of this row.
        RequestError: Restate can't be read now.
        InvocationFailed: Restate says now that it failed.
    """
    if not row.has_output:
        raise LookupError(_("It has no output."))
    content_type = row.output_content_type
    if row.output_bytes is not None:
        return _masked_bytes(bytes(row.output_bytes), content_type, mask), content_type
    if row.output is not None:
        return _dumped(mask(row.output)).encode(), content_type
    if not row.output_size:
        return b"", content_type
    output = row.fetch_output()
    output.result()  # Raises where it is no output any more.
    return _masked_bytes(output.body, output.content_type, mask), output.content_type


def _payload(row: Invocation, found: dict[str, Any], mask: Callable[[Any], Any]) -> Body:
    if found["payload_size"] is None:
        return Body(note=_("It was sent without a body."))
    return _shown(bytes(found["payload_head"] or b""), found["payload_size"], row.content_type, mask)


def _output(row: Invocation, found: dict[str, Any], mask: Callable[[Any], Any]) -> Body:
    if not row.has_output:
        return Body(note=_("It returned nothing."))
    content_type = row.output_content_type
    if found["output_stored"] is not None:
        return _shown(bytes(found["output_head"] or b""), found["output_stored"], content_type, mask)
    if found["output"] is not None:
        text = _pretty(mask(found["output"]))
        body = text.encode("utf-8", "replace")
        cut = len(body) > SHOWN
        shown = body[:SHOWN].decode("utf-8", "ignore") if cut else text
        return Body(
            _visible(shown),
            _facts(content_type, row.output_size or len(body)),
            _cut_note() if cut else "",
            downloadable=True,
        )
    facts = _facts(content_type, row.output_size or 0)
    if not row.output_size:
        return Body(facts=facts, note=_("It is empty."))
    return Body(facts=facts, note=_("It is too large to be kept here. Restate still has it."), downloadable=True)


def _shown(head: bytes, size: int, content_type: str, mask: Callable[[Any], Any]) -> Body:
    facts = _facts(content_type, size)
    if size == 0:
        return Body(facts=facts, note=_("It is empty."))
    cut = size > len(head)
    if not _TEXT_TYPES.search(content_type):
        try:
            head.decode()
        except UnicodeDecodeError:
            return Body(facts=facts, note=_("It is binary: download it to look at it."), downloadable=True)
    if not cut and "json" in content_type.lower():
        try:
            return Body(_visible(_pretty(mask(json.loads(head)))), facts, downloadable=True)
        except RecursionError:
            # What can't be walked through can't be masked.
            return Body(facts=facts, note=_too_deep())
        except ValueError:
            pass  # It says that it is JSON and is not: it is shown as the text that it is.
    note = _cut_note() if cut else ""
    if cut and "json" in content_type.lower():
        # Half a JSON document can't be read as one, so the secrets in it can't be found.
        note = _("It is too long to be shown here: download it to look at it.")
        return Body(facts=facts, note=note, downloadable=True)
    return Body(_visible(head.decode("utf-8", "ignore" if cut else "replace")), facts, note, downloadable=True)


def _too_deep() -> str:
    return _("It is nested too deeply for the secrets in it to be found, so it is not shown.")


def _cut_note() -> str:
    return _("Only the first %(size)s are shown.") % {"size": wording.size(SHOWN)}


def _facts(content_type: str, size: int) -> str:
    kind = content_type or _("no content type")
    return f"{kind} · {wording.size(size)}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, cls=DjangoJSONEncoder)


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, cls=DjangoJSONEncoder)


def _masked_bytes(body: bytes, content_type: str, mask: Callable[[Any], Any]) -> bytes:
    if "json" not in content_type.lower():
        return body
    try:
        value = json.loads(body)
        hidden = mask(value)
    except ValueError:
        # It is no JSON: it has no fields whose names could tell a secret.
        return body
    except RecursionError:
        raise LookupError(_too_deep()) from None
    # Untouched where nothing is hidden: the download is then what was sent, byte for byte.
    return body if hidden == value else _dumped(hidden).encode()


def _short(body: bytes, content_type: str, mask: Callable[[Any], Any]) -> bytes | None:
    """Return a payload that may stand in a line; None where its secrets can't be masked."""
    try:
        return _masked_bytes(body, content_type, mask)
    except LookupError:
        return None


def _visible(text: str) -> str:
    """Return a text that a page can hold: control characters as their pictures, no half of a surrogate pair."""
    pictured = _CONTROL.sub(
        lambda match: chr(0x2400 + ord(match.group())) if match.group() != "\x7f" else "\u2421", text
    )
    return storable_text(pictured)
