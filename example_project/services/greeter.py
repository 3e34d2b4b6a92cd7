"""A service: stateless, and as small as they come."""

from __future__ import annotations

import restate
from pydantic import BaseModel
from restate.exceptions import TerminalError


class Person(BaseModel):
    """Somebody to greet."""

    name: str = ""


greeter = restate.Service("Greeter", description="Greets whoever asks.")


@greeter.handler()
async def greet(ctx: restate.Context, person: Person) -> str:  # noqa: ARG001 - a handler is given its context
    """Greet by name; somebody without one is refused for good."""
    name = person.name.strip()
    if not name:
        raise TerminalError("nobody to greet: the name is empty", status_code=422)
    return f"Hello, {name}!"
