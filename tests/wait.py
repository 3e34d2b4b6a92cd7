"""Wait for a condition with a deadline: the only way that tests wait for anything."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

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


def comes_to(page: Page, pattern: str, *, timeout: float = 20.0) -> None:
    """Wait until a browser's page has an address and is loaded, whichever navigations it breaks off on its way.

    A double click begins two: `page.wait_for_url` fails with the first one, which the second one ends.

    Args:
        page: The page.
        pattern: A regular expression that is found in the address.
        timeout: Seconds to wait at most.
    """
    from playwright.sync_api import expect

    expect(page).to_have_url(re.compile(pattern), timeout=timeout * 1000)
    page.wait_for_load_state()
