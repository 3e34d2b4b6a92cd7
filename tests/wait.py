"""Wait for a condition with a deadline: the only way that tests wait for anything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, timeout: float = 10.0, what: str = "the condition") -> T:
    """Ask until the answer is truthy, and return it; fail the test when the time is over.

    Args:
        condition: Asked every 20 ms.
        timeout: Seconds to wait at most.
        what: What is waited for, for the failure's message.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {timeout:g} seconds in vain for {what}; the last answer was {answer!r}.")
        time.sleep(0.02)
