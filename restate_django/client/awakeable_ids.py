"""The ids of awakeables: which invocation one belongs to, and how one is made from an invocation's id.

Restate's SQL tells only the numbers of what an invocation waits for. The form of the ids was read off those that the
SDK makes, and is held by tests that resolve made ones (1.6.2 and 1.7.12). Imports the rules for targets.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from restate_django.client.targets import validate_invocation_id
from restate_django.exceptions import InvalidRequest

#: The number of an invocation's first awakeable: those below are Restate's own signals (1 is a cancellation).
FIRST_INDEX: Final = 17

_PREFIX: Final = "sign_1"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INVOCATION_PREFIX: Final = "inv_1"
# An invocation's id is two numbers of a fixed length: where it is kept, and which one it is there.
_WIDTHS: Final = ((11, 8), (22, 16))
_INDEX_BYTES: Final = 4


def make_awakeable_id(invocation_id: str, index: int) -> str:
    """Return the id that an SDK gives to an awakeable.

    Args:
        invocation_id: The invocation that waits for it.
        index: The awakeable's number, from ``FIRST_INDEX``.

    Raises:
        InvalidRequest: This is no invocation's id, or has a form that is not known.
    """
    if not validate_invocation_id(invocation_id).startswith(_INVOCATION_PREFIX):
        raise _unknown_form(invocation_id)
    raw, digits = b"", invocation_id.removeprefix(_INVOCATION_PREFIX)
    for width, size in _WIDTHS:
        part, digits = digits[:width], digits[width:]
        number = 0
        for digit in part:
            number = number * len(_DIGITS) + _DIGITS.index(digit)
        if len(part) < width or number >= 1 << size * 8:
            raise _unknown_form(invocation_id)
        raw += number.to_bytes(size, "little")
    if digits:
        raise _unknown_form(invocation_id)
    raw += index.to_bytes(_INDEX_BYTES, "big")
    return _PREFIX + base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def index_in(invocation_id: str, awakeable_id: str) -> int | None:
    """Return the number of an awakeable within an invocation, None where it is not one of that invocation's.

    Args:
        invocation_id: The invocation.
        awakeable_id: What may be an awakeable's id.
    """
    text = awakeable_id.removeprefix(_PREFIX)
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        index = int.from_bytes(raw[-_INDEX_BYTES:], "big")
        made = make_awakeable_id(invocation_id, index)
    except (binascii.Error, ValueError):
        return None
    return index if made == awakeable_id and index >= FIRST_INDEX else None


def _unknown_form(invocation_id: str) -> InvalidRequest:
    return InvalidRequest(f"{invocation_id} has a form that is not known: no awakeable's id can be made from it.")
