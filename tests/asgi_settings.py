"""The settings of the site that an ASGI server serves for the tests: the tests' own, with the test's Restate server."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403 - these are the tests' settings, and some more
from tests.settings import MIDDLEWARE

RESTATE = json.loads(os.environ["ASGI_RESTATE"])
ROOT_URLCONF = "tests.asgi_site"
MIDDLEWARE = ["tests.admin.strict_csp.strict_csp", *MIDDLEWARE]
