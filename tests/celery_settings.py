"""The settings of a Celery worker that a test starts: the tests' own, with the server that the test names."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403 - these are the tests' settings, and a server

RESTATE = json.loads(os.environ["CELERY_TEST_RESTATE"])
