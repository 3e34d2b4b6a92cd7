"""What a server says about its services, in the parts that targets are made of.

Kinds, keys and descriptions come from the services' metadata, contents and their schemas from their OpenAPI documents:
only those name the content types (read off 1.6.2 and 1.7.12, which differ in their paths and agree in the rest).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restate_django.exceptions import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from restate_django.client import AdminClient, HandlerInfo, ServiceInfo


@dataclass(frozen=True)
class Content:
    """What a handler takes or gives.

    Attributes:
        content_type: Its type, ``*/*`` for any.
        schema: Its JSON schema, as it stands in the OpenAPI document: references lead into that.
    """

    content_type: str
    schema: Any


@dataclass(frozen=True)
class HandlerContract:
    """A handler that can be reached from outside.

    Attributes:
        name: Its name.
        documentation: What its author wrote.
        is_main: It is a workflow's main handler.
        takes: What it takes, None for nothing.
        gives: What it gives, None for nothing.
    """

    name: str
    documentation: str
    is_main: bool
    takes: Content | None
    gives: Content | None


@dataclass(frozen=True)
class Contract:
    """A service, an object or a workflow.

    Attributes:
        name: Its name.
        kind: ``Service``, ``VirtualObject`` or ``Workflow``.
        documentation: What its author wrote.
        handlers: Its handlers, by name.
        document: The OpenAPI document that the schemas are in.
    """

    name: str
    kind: str
    documentation: str
    handlers: tuple[HandlerContract, ...]
    document: Mapping[str, Any]


def read_contracts(admin: AdminClient, services: Sequence[str] = ()) -> list[Contract]:
    """Read services from a server, in the order of their names.

    Args:
        admin: The server's Admin API.
        services: The names of those to read; all that the ingress serves, if there are none.

    Raises:
        InvalidRequest: The server has no such service, or its ingress does not serve it.
        RequestError: The server can't be asked.
    """
    known = {info.name: info for info in admin.list_services()}
    for name in services:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(sorted(known)) or 'none'}."
            raise InvalidRequest(f"The server has no service {name!r}. {hint}")
        if not known[name].public:
            raise InvalidRequest(f"The service {name!r} is private: the ingress does not serve it.")
    wanted = set(services) or {name for name, info in known.items() if info.public}
    return [_contract(known[name], admin.get_service_openapi(name)) for name in sorted(wanted)]


def _contract(info: ServiceInfo, document: Mapping[str, Any]) -> Contract:
    operations = {
        operation.get("operationId"): operation
        for path in (document.get("paths") or {}).values()
        for operation in path.values()
        if isinstance(operation, dict)
    }
    handlers = sorted((each for each in info.handlers if each.public), key=lambda each: each.name)
    return Contract(
        info.name,
        info.ty,
        info.documentation,
        tuple(_handler(info, each, operations.get(each.name) or {}) for each in handlers),
        document,
    )


def _handler(info: ServiceInfo, handler: HandlerInfo, operation: Mapping[str, Any]) -> HandlerContract:
    return HandlerContract(
        handler.name,
        # The operation has a description of Restate's own making where the author wrote none.
        handler.documentation,
        info.is_workflow_run(handler.name),
        _content(operation.get("requestBody")),
        _content((operation.get("responses") or {}).get("200")),
    )


def _content(body: Any) -> Content | None:
    for content_type, media in ((body or {}).get("content") or {}).items():
        return Content(content_type, media.get("schema", True))
    return None
