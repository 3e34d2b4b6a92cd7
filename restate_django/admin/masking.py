"""Which values the admin never shows: those whose names look like a secret's. Imports nothing of the package.

It is a seat belt for screens and screenshots, no vault: a secret in the middle of a text can't be told from the text.
"""

from __future__ import annotations

import re
from typing import Any, Final

#: What is shown instead.
MASK: Final = "••••••••"

_NOT_ALPHANUMERIC: Final = re.compile(r"[^a-z0-9]+")
_SECRET: Final = re.compile(
    r"passw|passphrase|secret|token|authorization|apikey|accesskey|privatekey|signingkey|cookie|credential|bearer|sessionid"
    r"|cvv|cvc|cardnumber"
)


def is_secret(name: str) -> bool:
    """Tell whether a header or a JSON key of this name is likely to hold a secret."""
    return _SECRET.search(_NOT_ALPHANUMERIC.sub("", name.lower())) is not None


def masked(value: Any) -> Any:
    """Return a JSON value with the values of secret-looking names replaced, at any depth.

    Numbers, booleans and null under a token's name stay: ``max_tokens`` is a setting, not a secret.
    """
    if isinstance(value, dict):
        return {key: _covered(item, key) if is_secret(str(key)) else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def masked_headers(headers: dict[str, str]) -> list[tuple[str, str]]:
    """Return headers in the order of their names, the secret-looking ones masked."""
    return [(name, MASK if is_secret(name) else str(value)) for name, value in sorted(headers.items())]


def _covered(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _covered(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_covered(item, name) for item in value]
    if value is None or isinstance(value, bool) or value == "":
        return value
    if not isinstance(value, str) and "token" in name.lower():
        return value
    return MASK
