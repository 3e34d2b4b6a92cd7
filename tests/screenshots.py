"""Take the README's pictures from the running demo: ``python -m tests.screenshots``.

Starts ``manage.py demo`` in a folder of its own, waits until its invocations have come to rest, and photographs the
admin with Chromium. Not a test: pictures differ from one machine to the next. Whoever changes the admin runs it again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.chromium import installed

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / ".github" / "images"
ADMIN = re.compile(r"The admin +(http://\S+/admin/)")
SIZE = {"width": 1280, "height": 720}
TOP = {"x": 0, "y": 0, "width": 1280, "height": 1080}  # down to the end of the journal
DEADLINE = 240.0  # seconds for the demo to start, and for its invocations to come to rest


def take_pictures() -> None:
    """Start the demo, take each picture, stop the demo."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="restate-django-pictures-") as folder:
        log = Path(folder) / "demo.log"
        with log.open("w") as output:
            demo = subprocess.Popen(
                [sys.executable, str(ROOT / "example_project" / "manage.py"), "demo"],
                env={
                    **os.environ,
                    "DJANGO_SETTINGS_MODULE": "example.settings",
                    "PYTHONPATH": str(ROOT),  # also where the package is not installed
                    "PYTHONUNBUFFERED": "1",
                    "SHOP_DATA": folder,
                    "SHOP_PACE": "2",
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                photograph(admin_url(demo, log))
            finally:
                demo.send_signal(signal.SIGINT)
                demo.wait(30)


def admin_url(demo: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the demo says where its admin is."""
    deadline = time.monotonic() + DEADLINE
    while not (found := ADMIN.search(log.read_text(encoding="utf-8"))):
        if demo.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The demo did not come up:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.2)
    return found[1]


def photograph(url: str) -> None:
    """Take the pictures of the admin at this address."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=installed() or playwright.chromium.executable_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.5, color_scheme="light")  # type: ignore[arg-type]  # a dict of two numbers
        # The list needs the room that the sidebar takes.
        page.add_init_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
        page.goto(url)
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", "admin")
        page.click("[type=submit]")
        invocations = f"{url}restate_django/invocation/"
        wait_until_at_rest(page, invocations)
        page.screenshot(path=PICTURES / "changelist.png")
        page.click("#result_list tbody th a:has-text('OrderWorkflow')")
        page.wait_for_load_state("networkidle")  # the journal comes after the page
        page.screenshot(path=PICTURES / "invocation.png", full_page=True, clip=TOP)  # type: ignore[arg-type]  # as above
        page.goto(f"{invocations}overview/?span=1h")
        page.screenshot(path=PICTURES / "overview.png", full_page=True)
        chromium.close()


def wait_until_at_rest(page: Page, invocations: str) -> None:
    """Reload the list until one row waits for its time, one for a person, and the others have ended."""
    deadline = time.monotonic() + DEADLINE
    while True:
        page.goto(invocations)
        text = page.inner_text("#result_list").lower()
        moving = [word for word in ("unsent", "accepted\n", "running", "suspended", "backing off") if word in text]
        if "paused" in text and "succeeded" in text and not moving:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"The demo's invocations did not come to rest: {moving}")
        time.sleep(1)


if __name__ == "__main__":
    take_pictures()
