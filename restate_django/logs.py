"""Loggers whose records say what they are about in fields of their own, and how loud each meaning is.

The four levels, for every call in this package: DEBUG is ordinary work; INFO what somebody asked for, or a bump that
passes by itself; WARNING what went wrong for one invocation for good, or a part that is worked without; ERROR what
stays wrong until a person acts. No record holds a payload, an output, a header or a token: of an error that nobody
foresaw the traceback is shown without its words, and of a database's what can't quote a value (:func:`trouble`).
Imports nothing of the package.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

#: The attributes that every record has; "" where there is nothing to say.
FIELDS: Final = ("restate_connection", "restate_row", "restate_target", "restate_invocation_id")
#: Errors of MySQL's client: the server is not there.
_MYSQL_CLIENT: Final = range(2000, 3000)


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls take what they are about, beside what every logger's take.

    Keyword Arguments:
        row: A row, or the primary key of one. Of a row the other three are known as well.
        connection: An alias in ``RESTATE``.
        target: Where the invocation goes, in words.
        invocation_id: Restate's id.
    """

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Turn what a call is about into the attributes of its record. Called only where the level is enabled."""
        row = kwargs.pop("row", None)
        known = {
            "restate_connection": getattr(row, "connection", ""),
            "restate_row": getattr(row, "pk", row),
            "restate_target": getattr(row, "target", ""),
            "restate_invocation_id": getattr(row, "invocation_id", ""),
        }
        for name in ("connection", "target", "invocation_id"):
            known[f"restate_{name}"] = kwargs.pop(name, "") or known[f"restate_{name}"]
        fields = {name: "" if value is None else str(value) for name, value in known.items()}
        if kwargs.get("exc_info"):
            kwargs["exc_info"] = _without_words(sys.exception())
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **fields}}


def get_logger(name: str) -> FieldLogger:
    """Return the logger of a name, for use inside this package.

    Args:
        name: Where a project's ``LOGGING`` finds it: ``restate_django`` and one word.
    """
    return FieldLogger(logging.getLogger(name), {})


def _without_words(error: BaseException | None) -> BaseException | None:
    """Return an error of the same name and traceback that says nothing: what one says can quote a payload."""
    if error is None:
        return None
    kind = type(error)
    silent: type[Exception] = type(kind.__name__, (Exception,), {"__module__": kind.__module__})
    return silent().with_traceback(error.__traceback__)


def trouble(error: BaseException) -> str:
    """Return what a database error may be told by: a driver's words can quote the row that it refused.

    Args:
        error: An error of Django's database layer.

    Returns:
        Its kind, with the database's own code where there is one, and its words where it is away: they quote no value.
    """
    from django.db import InterfaceError, OperationalError

    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]  # MySQL's come first
    text = type(error).__name__ if code is None else f"{type(error).__name__} ({code})"
    is_away = code is None or (isinstance(code, int) and code in _MYSQL_CLIENT)
    lines = str(error.args[-1]).splitlines() if error.args else []
    if lines and is_away and isinstance(error, OperationalError | InterfaceError):
        text = f"{text}: {lines[0]}"
    return text
