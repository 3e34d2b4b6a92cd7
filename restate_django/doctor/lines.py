"""What ``restate doctor`` finds: a line for each thing that it looked at. Imports nothing of the package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a thing is, from well to broken."""

    OK = "ok"
    #: It could not be looked at, or needs not be.
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        level: How it is.
        about: What it is: ``settings``, ``connection default``, ``database default``, ``celery``.
        text: What was found.
        remedy: What to do about it; empty where nothing is to be done.
    """

    level: Level
    about: str
    text: str
    remedy: str = ""
