"""The module of typed targets: a class for each service, a property for each handler, and the types between them."""

from __future__ import annotations

import ast
import json
import keyword
import re
import sys
from typing import TYPE_CHECKING, Final

from restate_django.codegen.python_types import HOLDER, is_decoded_json, names_in, types_of
from restate_django.codegen.schemas import SchemaBook, pascal_case
from restate_django.codegen.text import docstring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from restate_django.codegen.contracts import Content, Contract, HandlerContract
    from restate_django.codegen.python_types import Style, Types

_BASES: Final = {"VirtualObject": "ObjectTarget", "Workflow": "WorkflowTarget"}
_SUFFIXES: Final = {"VirtualObject": "Object", "Workflow": "Workflow"}
_JSON: Final = re.compile(r"application/(?:json|[\w.-]+\+json)\s*(?:;.*)?", re.IGNORECASE)

#: The service, the handler, and which side of it: ``Request`` or ``Response``.
_Place = tuple[str, str, str]
Annotations = dict[_Place, str]


def generate(contracts: Sequence[Contract], style: Style = "pydantic") -> str:
    """Return the source of a module with a target for each service.

    Args:
        contracts: What is known of the services.
        style: Payloads and outputs as ``pydantic`` models, or as a ``typeddict``.

    Raises:
        GeneratorFailed: The extra ``codegen`` is not installed, or its generator can make nothing of a schema.
    """
    book = SchemaBook()
    places: dict[_Place, str] = {}
    for contract in contracts:
        for handler in contract.handlers:
            for side, content in (("Request", handler.takes), ("Response", handler.gives)):
                if content is not None and _JSON.fullmatch(content.content_type):
                    hint = f"{pascal_case(handler.name)}{side}"
                    place = f"{pascal_case(contract.name)}{hint}"
                    if place in places.values():  # "a.b" and "a-b" are two services
                        place = f"{place}{len(places)}"
                    places[contract.name, handler.name, side] = place
                    book.add(place, contract.name, hint, content.schema, contract.document)
    types = types_of(book.as_document(HOLDER), style)
    annotations = {place: types.annotations[name] for place, name in places.items()}
    classes = [_target(contract, annotations, style, name) for contract, name in _class_names(contracts, types)]
    body = "\n\n\n".join([*([types.source] if types.source else []), *classes])
    names = ", ".join(contract.name for contract in contracts)
    header = [
        "# Written by restate_codegen of restate-django, from what a Restate server says about its services. Changes",
        f"# are lost: write it anew with  manage.py restate_codegen --style {style}",
    ]
    about = docstring(f"Typed targets of the Restate services {names}.", "")
    return "\n".join([*header, about, "", *_imports(types, body), "", "", body, ""])


# ---------------------------------------------------------------- classes


def _class_names(contracts: Iterable[Contract], types: Types) -> Iterator[tuple[Contract, str]]:
    """Yield a name for each service's class: its own, and a longer one where a type has that."""
    taken = set(types.names) | {"typed"}
    for contract in contracts:
        plain = pascal_case(contract.name)
        name = plain if plain not in taken else f"{plain}{_SUFFIXES.get(contract.kind, 'Service')}"
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}{number}"
        taken.add(name)
        yield contract, name


def _target(contract: Contract, annotations: Annotations, style: Style, name: str) -> str:
    """Return the class of one service."""
    base = f"typed.{_BASES.get(contract.kind, 'ServiceTarget')}"
    about = contract.documentation or f"{_article(contract.kind)} {contract.name}."
    lines = [f"class {name}({base}, service={json.dumps(contract.name)}):", docstring(about, "    ")]
    signatures = {handler.name: _signature(contract, handler, annotations) for handler in contract.handlers}
    # Names that the annotations of this class need: an attribute of such a name would stand for them.
    needed = {"property"}.union(*map(names_in, signatures.values()))
    taken: set[str] = set()
    for handler in contract.handlers:
        attribute = _attribute(handler.name, needed | taken)
        taken.add(attribute)
        lines += ["", *_property(contract, handler, attribute, signatures[handler.name], annotations, style)]
    return "\n".join(lines)


def _property(
    contract: Contract,
    handler: HandlerContract,
    attribute: str,
    signature: str,
    annotations: Annotations,
    style: Style,
) -> Iterator[str]:
    yield "    @property"
    yield f"    def {attribute}(self) -> {signature}:"
    about = handler.documentation or f"The handler {handler.name}."
    yield docstring(about, "        ")
    arguments = [json.dumps(handler.name)]
    gives = _type(contract, handler, "Response", handler.gives, annotations)
    if style == "pydantic" and not is_decoded_json(gives) and gives != "bytes":
        arguments.append(gives)
    takes = handler.takes.content_type if handler.takes is not None else "*/*"
    if "*" not in takes and takes.partition(";")[0].strip().lower() != "application/json":
        arguments.append(f"content_type={json.dumps(takes)}")
    verb = "_main_handler" if handler.is_main else "_handler"
    yield f"        return self.{verb}({', '.join(arguments)})"


def _signature(contract: Contract, handler: HandlerContract, annotations: Annotations) -> str:
    takes = _type(contract, handler, "Request", handler.takes, annotations)
    gives = _type(contract, handler, "Response", handler.gives, annotations)
    kind = "MainHandler" if handler.is_main else "Handler"
    return f"typed.{kind}[{'typed.NoPayload' if handler.takes is None else takes}, {gives}]"


def _type(
    contract: Contract, handler: HandlerContract, side: str, content: Content | None, annotations: Annotations
) -> str:
    """Return the type of what a handler takes or gives."""
    if content is None:
        return "None"
    if _JSON.fullmatch(content.content_type):
        return annotations[contract.name, handler.name, side]
    if "*" in content.content_type:
        return "Any"
    if content.content_type.lower().startswith("text/"):
        return "str" if side == "Response" else "str | bytes"
    return "bytes"


def _attribute(name: str, unusable: set[str]) -> str:
    """Return a handler's name as an attribute: ``class_`` for ``class``."""
    # A target's own names begin with an underscore.
    attribute = re.sub(r"\W", "_", name).lstrip("_") or "handler"
    attribute = attribute if attribute.isidentifier() else f"handler_{attribute}"
    while attribute in unusable or keyword.iskeyword(attribute):
        attribute += "_"
    return attribute


def _article(kind: str) -> str:
    return {"VirtualObject": "The virtual object", "Workflow": "The workflow"}.get(kind, "The service")


# ---------------------------------------------------------------- what it imports


def _imports(types: Types, body: str) -> list[str]:
    """Return the statements for the names that the module uses: the standard library's, then the others'."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    found: dict[str, set[str]] = {"restate_django": {"typed"}} if "typed." in body else {}
    if "Any" in used:
        found["typing"] = {"Any"}
    for statement in types.imports:
        if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            names = {each.name for each in statement.names if (each.asname or each.name) in used}
            if names:
                found.setdefault(str(statement.module), set()).update(names)
    plain = sorted(
        ast.unparse(statement)
        for statement in types.imports
        if isinstance(statement, ast.Import) and {each.asname or each.name for each in statement.names} & used
    )
    ours = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(found.items())]
    standard = [line for line in [*plain, *ours] if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [line for line in [*plain, *ours] if line not in standard]
    groups = [["from __future__ import annotations"], standard, others]
    return "\n\n".join("\n".join(group) for group in groups if group).split("\n")
