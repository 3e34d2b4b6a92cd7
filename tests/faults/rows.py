"""What the faults are done to: orders, each of them one invocation of the ledger, of every kind that there is.

A row is named after its order. An order that is asked for again, because the one who took it died before his commit,
keeps its name, so the ledger shows it when it ran twice.
"""

from __future__ import annotations

from typing import Final

from restate_django import Outgoing

#: The kinds of rows, dealt out in turn. "forgetful" ones go to a service that remembers no key.
KINDS: Final = (
    "generated key", "own key", "object", "workflow", "forgetful", "generated key", "own key", "object"
)  # fmt: skip


def names(prefix: str, number: int) -> list[str]:
    """Return the names of so many orders. Each says of which kind it is."""
    return [name_of(prefix, at) for at in range(number)]


def name_of(prefix: str, number: int) -> str:
    """Return the name of one order."""
    return f"{prefix}/{KINDS[number % len(KINDS)]}/{number}"


def kind_of(name: str) -> str:
    """Return the kind of an order."""
    return name.split("/")[1]


def number_of(name: str) -> int:
    """Return the number of an order, counted from 0."""
    return int(name.rsplit("/", 1)[1])


def is_forgetful(name: str) -> bool:
    """Tell whether an order goes to the service that remembers no key."""
    return kind_of(name) == "forgetful"


def outgoing(name: str, wait_for: str = "") -> Outgoing:
    """Return the invocation that an order asks for.

    Args:
        name: The order.
        wait_for: A file that its handler waits for.
    """
    payload = {"row": name, "wait_for": wait_for}
    key = name.replace("/", "-").replace(" ", "-")
    match kind_of(name):
        case "own key":
            return Outgoing("Ledger", "write", payload, idempotency_key=key)
        case "object":
            return Outgoing("LedgerObject", "write", payload, key=key)
        case "workflow":
            return Outgoing("LedgerWorkflow", "run", payload, key=key)
        case "forgetful":
            return Outgoing("ForgetfulLedger", "write", payload)
        case _:
            return Outgoing("Ledger", "write", payload)
