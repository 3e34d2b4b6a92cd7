"""Which Chromium drives the pages."""

from __future__ import annotations

import shutil

#: From the first one to look for. The shell draws the same pages for half of the processor's time: it has no window.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def installed() -> str | None:
    """The path of the machine's own Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)
