"""What a machine may lack: a test in need of it is skipped with the reason, or fails where all is to be there."""

from __future__ import annotations

import os

import pytest

from restate_django.client import bulk


def require(condition: object, reason: str) -> None:
    """Go on when the condition holds; else skip the test, or fail it where ``REQUIRE_ALL=1`` is set.

    Args:
        condition: What the test needs, as a truth value.
        reason: What is missing, for the report.
    """
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, and {reason}", pytrace=False)
    pytest.skip(reason)


def require_bulk() -> None:
    """Go on where many requests at once go by libcurl; ``WITHOUT_BULK=1`` leaves such tests out."""
    if os.environ.get("WITHOUT_BULK") == "1":
        pytest.skip("WITHOUT_BULK=1: the rest is tested as it is without the extra")
    require(bulk.is_installed(), "there is no pycurl: pip install 'restate-django[bulk]'")
