"""Which row holds a key: the digest that makes an idempotency key unique per target.

Imports the records' floor and below.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restate_django.models import Invocation


def bound_digest(row: Invocation, *, idempotency_key: str | None) -> str:
    """Return the value that is unique while a key binds.

    Args:
        row: A row, for its connection and target.
        idempotency_key: The key; None for a workflow's main handler, which the workflow's own key binds.
    """
    parts = [row.connection, row.scope, row.service, row.key, row.handler, idempotency_key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
