"""Signatures that let their holder do one thing to one row until a time: what signed addresses are made of.

Imports Django alone. A signature belongs to a row and a purpose and carries its own end; nothing is stored.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from django.core.signing import BadSignature, Signer

if TYPE_CHECKING:
    import uuid
    from datetime import timedelta

#: The parameter of an address that carries the signature.
PARAMETER: Final = "sig"
# A page that is rendered twice says the same: the end is rounded up, by a 24th of the time at most.
_STEPS: Final = 24


def sign(pk: uuid.UUID, purpose: str, expires: timedelta | float) -> str:
    """Return a signature.

    Args:
        pk: The row's primary key.
        purpose: What it is good for.
        expires: For how long: a timedelta or seconds. Up to a 24th is added.

    Raises:
        ValueError: That is no span of time above zero.
    """
    seconds = float(expires) if isinstance(expires, int | float) else expires.total_seconds()
    if not 0 < seconds < float("inf"):
        raise ValueError(f"expires must be a span of time above zero, not {expires!r}.")
    step = max(1.0, seconds / _STEPS)
    end = math.ceil(math.ceil((time.time() + seconds) / step) * step)
    begin = f"{pk.hex}."
    return _signer(purpose).sign(f"{begin}{end:x}").removeprefix(begin)


def holds(pk: uuid.UUID, purpose: str, signature: str) -> bool:
    """Tell whether a signature was made for this row and purpose, and is not over."""
    try:
        signed = _signer(purpose).unsign(f"{pk.hex}.{signature}")
    except BadSignature:
        return False
    return time.time() < int(signed.rpartition(".")[2], 16)


def _signer(purpose: str) -> Signer:
    return Signer(salt=purpose, sep=".")
