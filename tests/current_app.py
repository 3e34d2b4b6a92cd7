"""Which Celery app is the current one, while a test makes others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from celery import _state

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def current_app_put_back() -> Iterator[None]:
    """Let apps be made and be current until the end.

    It is entered before an app is made: Celery's fixup for Django makes each new one the default.
    """
    before = _state.default_app, _state._tls.current_app
    try:
        yield
    finally:
        _state.default_app, _state._tls.current_app = before
