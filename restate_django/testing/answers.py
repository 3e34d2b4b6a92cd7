"""What a target of the fake answers: a result, a failure, after a while, not at all.

It imports the client and the fake's server. Nothing happens here: the server asks, and ``fake`` passes it on.
"""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any, Literal, Self

from restate_django.client import NO_PAYLOAD, encode_payload
from restate_django.exceptions import InvocationFailed
from restate_django.testing.sent import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from restate_django.testing.fake_server import FakeInvocation, Outcome

#: How a connection breaks: see :meth:`Answers.breaks`.
Break = Literal["refused", "reset", "timeout", "busy"]


class Answers:
    """What a target answers, said by :meth:`FakeRestate.on`. What was said last holds, alone.

    Each method returns the object, so one line can say ``on(...).takes(30).returns("done")``.
    """

    def __init__(self, service: str, handler: str | None, key: Any) -> None:
        self._service = service
        self._handler = handler
        self._key = key
        self._outcome: Callable[[FakeInvocation], Outcome] | None = None
        self._seconds: float | Callable[[Any], float] = 0.0
        self._break: tuple[Break, bool] | None = None
        self._breaks_left: int | None = None
        self._unknown = False

    def __repr__(self) -> str:
        return f"<Answers of {self._service}/{self._handler or '*'}>"

    def fits(self, service: str, handler: str, key: str | None) -> bool:
        """Tell whether these are the answers of a target, and not used up."""
        if self._breaks_left == 0 and self._outcome is None:
            return False
        return self._service == service and self._handler in {None, handler} and (self._key is ANY or self._key == key)

    def returns(self, value: Any = NO_PAYLOAD, *, content_type: str | None = None) -> Self:
        """End well.

        Args:
            value: The output, encoded as a payload is; nothing at all for a handler without output. A function is
                called with the payload and returns it; an ``InvocationFailed`` that it raises is the failure.
            content_type: The output's type; JSON by default.
        """

        def outcome(invocation: FakeInvocation) -> Outcome:
            try:
                given = value(invocation.payload) if callable(value) else value
            except InvocationFailed as failure:
                return failure
            return encoded(given, content_type)

        self._outcome = outcome
        return self

    def fails(self, message: str, code: int = 500, *, metadata: Mapping[str, str] | None = None) -> Self:
        """End in the handler's terminal error.

        Args:
            message: Its message.
            code: Its code.
            metadata: What the handler attached to it.
        """
        self._outcome = lambda _invocation: InvocationFailed(code, message, dict(metadata or {}))
        return self

    def takes(self, seconds: float | dt.timedelta | Callable[[Any], float]) -> Self:
        """Run for some time before it ends. Nobody waits for it: :meth:`FakeRestate.advance` moves the clock.

        A ``call`` or an ``attach`` whose timeout is shorter raises ``CallTimeout`` at once; a longer one has the output
        at once.

        Args:
            seconds: How long, or a function of the payload that returns it.
        """
        self._seconds = seconds.total_seconds() if isinstance(seconds, dt.timedelta) else seconds
        return self

    def is_not_found(self) -> Self:
        """Be unknown to Restate: no such service (or no such handler, where one is named)."""
        self._unknown = True
        return self

    def breaks(self, how: Break = "refused", *, taken: bool = False, times: int | None = None) -> Self:
        """Break the connection, in place of an answer.

        Args:
            how: ``refused`` and ``busy`` (a 429): nothing ran. ``reset`` and ``timeout``: nobody knows.
            taken: Restate had taken it before the connection broke.
            times: How often; for ever by default. The client itself repeats some requests once, which counts.
        """
        self._break, self._breaks_left = (how, taken), times
        return self

    def accepts(self) -> Self:
        """Be taken, and run until a test ends it: what a target does of which nothing is said."""
        self._outcome, self._break, self._unknown, self._seconds = None, None, False, 0.0
        return self

    # ------------------------------------------------------------ for the server

    def unknown_part(self) -> str:
        """Tell what of the target Restate does not know."""
        if not self._unknown:
            return ""
        return "service" if self._handler is None else "handler"

    def broken(self, *, taken: bool) -> Break | None:
        """Tell how the connection breaks now, before it was taken or after it; counts."""
        if self._break is None or self._break[1] is not taken or self._breaks_left == 0:
            return None
        if self._breaks_left is not None:
            self._breaks_left -= 1
        return self._break[0]

    def ending(self, invocation: FakeInvocation) -> tuple[dt.timedelta | None, Callable[[], Outcome] | None]:
        """Tell after what time the invocation ends, and how; None where nobody knows."""
        if self._outcome is None:
            return None, None
        seconds = self._seconds(invocation.payload) if callable(self._seconds) else self._seconds
        return dt.timedelta(seconds=seconds), functools.partial(self._outcome, invocation)


def encoded(value: Any, content_type: str | None) -> Outcome:
    """Return a value as a handler's output."""
    payload = encode_payload(value, content_type)
    return payload.body or b"", payload.content_type
