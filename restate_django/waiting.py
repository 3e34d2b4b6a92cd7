"""Waiting, in a thread or on an event loop, written once: the waits of a verb, apart from what it does between them.

A verb that waits is a generator: it yields what is to be waited for, and is sent what that told. What it does between
two waits (the database, a short request) is plain code. ``drive`` waits where it is called; ``adrive`` waits on the
event loop and runs the code between in the thread that Django keeps for it. Imports ``connections`` and the floors
below.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from asgiref.sync import sync_to_async

from restate_django.client import OutputState
from restate_django.connections import connections
from restate_django.exceptions import RequestTimeout, RestateError
from restate_django.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from restate_django.client import IngressClient, Output

logger = get_logger("restate_django.polling")

T = TypeVar("T")
# Without httpx: how soon after it was asked Restate is asked again, and how late at most, in seconds.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Wait(Protocol):
    """Something to wait for, in either way."""

    def here(self) -> Any:
        """Wait in this thread."""

    async def there(self) -> Any:
        """Wait on the event loop."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let some time go by.

    Attributes:
        seconds: How much.
    """

    seconds: float

    def here(self) -> None:
        """Wait in this thread."""
        time.sleep(self.seconds)

    async def there(self) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class End:
    """Wait for an invocation's end. Tells its output, or None when waiting told nothing.

    Attributes:
        connection: The alias of its server.
        invocation_id: Restate's id for it.
        timeout: Seconds at most.

    Raises:
        RequestTimeout: All of the time was waited.
    """

    connection: str
    invocation_id: str
    timeout: float

    def here(self) -> Output | None:
        """Wait in this thread."""
        try:
            return connections[self.connection].ingress.attach(self.invocation_id, timeout=self.timeout)
        except RequestTimeout:
            raise
        except RestateError as error:
            self._note(error)
            return None

    async def there(self) -> Output | None:
        """Wait on the event loop: in one request with httpx, else by short reads."""
        # Which paths the server knows may have to be asked first.
        ingress = await asyncio.to_thread(lambda: connections[self.connection].ingress)
        try:
            if ingress.can_wait:
                return await ingress.aattach(self.invocation_id, timeout=self.timeout)
            return await self._look_again_and_again(ingress)
        except RequestTimeout:
            if ingress.can_wait:
                raise
            # A short read took too long, and there may be time left.
            return None
        except RestateError as error:
            self._note(error)
            return None

    async def _look_again_and_again(self, ingress: IngressClient) -> Output | None:
        deadline = time.monotonic() + self.timeout
        pause = _FIRST_PAUSE
        while True:
            timeout = min(max(0.05, deadline - time.monotonic()), ingress.transport.timeout)
            output = await asyncio.to_thread(ingress.output, self.invocation_id, timeout=timeout)
            if output.state is not OutputState.NOT_READY:
                return output
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            await asyncio.sleep(min(pause, left))
            pause = min(_LONGEST_PAUSE, pause * 1.5)

    def _note(self, error: RestateError) -> None:
        logger.info(
            "Waiting for %s was cut: %s",
            self.invocation_id,
            error,
            connection=self.connection,
            invocation_id=self.invocation_id,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """Wait for a call's output, and raise what the call raises.

    Attributes:
        here: Makes the call in this thread.
        there: Makes it on the event loop, None where it can't be: then a thread waits.
    """

    here: Callable[[], Output]
    apart: Callable[[], Any] | None = None

    async def there(self) -> Output:
        """Wait on the event loop."""
        if self.apart is None:
            return await asyncio.to_thread(self.here)
        output: Output = await self.apart()
        return output


def drive(verb: Generator[Wait, Any, T]) -> T:
    """Run a verb to its end in this thread, and return what it returns."""
    told: Any = None
    error: Exception | None = None
    while True:
        try:
            wait = verb.throw(error) if error is not None else verb.send(told)
        except StopIteration as end:
            result: T = end.value
            return result
        told, error = None, None
        try:
            told = wait.here()
        except Exception as raised:  # noqa: BLE001 - the verb decides what it means
            error = raised


async def adrive(verb: Generator[Wait, Any, T]) -> T:
    """Run a verb to its end from a coroutine: its waits on the event loop, what is between in Django's thread."""
    told: Any = None
    error: Exception | None = None
    while True:
        wait, result = await sync_to_async(_next)(verb, told, error)
        if wait is None:
            ended: T = result
            return ended
        told, error = None, None
        try:
            told = await wait.there()
        except Exception as raised:  # noqa: BLE001 - the verb decides what it means
            error = raised


def _next(verb: Generator[Wait, Any, T], told: Any, error: Exception | None) -> tuple[Wait | None, Any]:
    """Run a verb to its next wait or its end (a StopIteration can't leave a coroutine)."""
    try:
        return (verb.throw(error) if error is not None else verb.send(told)), None
    except StopIteration as end:
        return None, end.value
