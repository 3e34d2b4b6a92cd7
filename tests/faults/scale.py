"""How much of everything: ``FAULTS_ROWS`` invocations for each fault, and as much patience as they take."""

from __future__ import annotations

import os
from typing import Final

#: Invocations for each fault (with fewer, there would not be enough to hold), and for each mutant, which needs only to
#: be noticed.
ROWS: Final = max(64, int(os.environ.get("FAULTS_ROWS", "2000")))
MUTANT_ROWS: Final = 40
#: Invocations that many workers share.
SHARED_ROWS: Final = ROWS if ROWS < 2000 else max(ROWS, 10_000)
#: How long anything may take before a test gives up, in seconds: longer with more rows.
PATIENCE: Final = 60.0 + SHARED_ROWS / 10
#: A mutant may leave rows open for ever. It is given so many rounds of the jobs to settle.
MUTANT_ROUNDS: Final = 20
#: Requests that a victim surely has under way at once: libcurl begins with no more, until it has heard an answer.
IN_FLIGHT: Final = 8
