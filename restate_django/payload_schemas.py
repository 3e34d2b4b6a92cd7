"""Payloads checked against their handler's JSON schema, before anything is recorded (``VALIDATE_PAYLOADS``).

A handler's deployment gives its schema to the server, and ``GET /services/{service}`` tells it with the service's
revision. It is kept as long as all else that is known of the service (five minutes), and compiled once.

When the schema is read is a compromise with the promise that nothing talks to the network inside the caller's
transaction. Inside one, only what this process knows already is used; what it does not know, it learns right after the
commit, for the next time. So in each process the first send to a service may go unchecked, and nobody's locks are ever
held for a check. Outside a transaction the schema is read first, for two seconds at most. What a kept schema refuses is
looked at again with a new one, where the network may be used: a deployment may have changed it, which is noticed after
five minutes at the latest inside a transaction.

A check refuses what is known to be wrong and nothing else. No Admin API, an Admin API that is away, a handler without a
schema, a schema that can't be used: the send goes on. Imports the connections and the floors below, and ``jsonschema``
when it is used.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from restate_django.client.words import one_line, shown
from restate_django.connections import connections
from restate_django.exceptions import PayloadInvalid
from restate_django.logs import get_logger

if TYPE_CHECKING:
    from restate_django.client import EncodedPayload, HandlerInfo, Target

logger = get_logger("restate_django.payloads")

#: The most compiled schemas, and things said, that are kept.
_MOST_KEPT: Final = 1000
#: Rules whose own message tells names of properties and no values.
_SAYS_NO_VALUE: Final = frozenset({"required", "dependentRequired", "additionalProperties", "unevaluatedProperties"})
_JSON_TYPES: Final = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


class Fault(NamedTuple):
    """What is wrong with a payload.

    Attributes:
        path: Where: ``$.lines[0].quantity``.
        reason: What, without any value of the payload: it may be personal, and messages end in logs.
    """

    path: str
    reason: str


def check(target: Target, payload: EncodedPayload, connection: str, *, network: bool) -> bool:
    """Refuse a payload that is known not to fit its handler.

    Args:
        target: Where it is to go.
        payload: The payload as it is to be sent.
        connection: The alias in ``RESTATE``.
        network: Whether the server may be asked.

    Returns:
        Whether the service is known to this process. False: :func:`learn` about it when the network may be used.

    Raises:
        PayloadInvalid: It does not fit.
    """
    services = connections[connection].services
    info = services.get(target.service, network=network)
    if info is None:
        # Why it is not known has been said where it was asked for.
        logger.debug(
            "No schema is known for %s of the connection %r: it is sent to unchecked",
            target,
            connection,
            connection=connection,
            target=target,
        )
        return False
    fault = _fault(info.handler(target.handler), target, payload)
    if fault is not None and network:
        # That answer may be minutes old, and the handler another one by now.
        info = services.renewed(target.service)
        fault = _fault(info.handler(target.handler), target, payload) if info is not None else None
    if fault is not None:
        where = "" if fault.path == "$" else f" at {fault.path}"
        raise PayloadInvalid(
            f"The payload does not fit the handler's JSON schema{where}: {fault.reason}.",
            path=fault.path,
            reason=fault.reason,
            target=str(target),
        )
    return True


def learn(connection: str, *services: str) -> None:
    """Ask the server about services that this process does not know, for the next check.

    Args:
        connection: The alias in ``RESTATE``.
        services: Their names.
    """
    for service in services:
        connections[connection].services.get(service)


def _fault(handler: HandlerInfo | None, target: Target, payload: EncodedPayload) -> Fault | None:
    """Return what is wrong with a payload, None where nothing is known to be."""
    if handler is None or payload.body is None:
        # No body is none of a schema's business, and an unknown handler is the server's.
        return None
    if handler.takes_no_input:
        return Fault("$", "the handler takes no input: leave the payload out")
    if not payload.is_json or handler.input_json_schema is None or handler.input_json_schema is True:
        return None
    try:
        value = json.loads(payload.body)
        error = _worst(json.dumps(handler.input_json_schema, sort_keys=True), value)
    except json.JSONDecodeError as broken:
        # Bytes that were said to be JSON: Restate takes them, and the handler fails over them.
        return Fault("$", f"is not JSON: {broken.msg} at character {broken.pos}")
    except Exception as trouble:  # noqa: BLE001 - whatever a schema makes its checker do, it must not stop the sends
        _say_once(
            f"The schema of {target.service}/{target.handler} can't be used, and payloads go there unchecked: "
            f"{type(trouble).__name__}: {one_line(str(trouble))}"
        )
        return None
    return None if error is None else Fault(error.json_path, _reason(error))


def _worst(schema: str, value: Any) -> Any:
    """Return the error that tells most about what is wrong with a value, None where nothing is."""
    from jsonschema.exceptions import best_match

    return best_match(_validator(schema).iter_errors(value))


@lru_cache(maxsize=_MOST_KEPT)
def _validator(text: str) -> Any:
    """Return what checks against a schema; made once for each one that a server has told."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    schema = json.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    # With a registry of its own it reads no reference from the network.
    return kind(schema, registry=EMPTY_REGISTRY)


def _reason(error: Any) -> str:
    """Return what is wrong, by the rule that is broken and never by the value that breaks it."""
    if error.validator in _SAYS_NO_VALUE:
        return one_line(error.message)
    if error.validator == "type":
        wanted = error.validator_value
        wanted = " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
        return f"must be of type {wanted}, not {_JSON_TYPES.get(type(error.instance), 'another')}"
    return f"breaks the rule {error.validator}: {shown(error.validator_value)}"


@lru_cache(maxsize=_MOST_KEPT)
def _say_once(text: str) -> None:
    """Say something the first time that it is so."""
    logger.warning(text)
