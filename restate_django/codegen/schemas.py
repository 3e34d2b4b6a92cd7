"""Every JSON schema of some services as one document, in which each definition has one name.

A handler's schema carries its own copy of each definition that it uses. Those that are the same everywhere become one;
different ones of one name are told apart by their service's name. No reference leads out of the document, so that a
generator reads nothing from the network.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Keywords whose value is a schema, a list of schemas, or a mapping of names to schemas.
_ONE = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems"}
    | {"unevaluatedProperties", "additionalItems", "contentSchema"}
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas"})
#: What names a schema, or where it lives: the document below says both anew.
_DROPPED = frozenset({"$schema", "$id", "$anchor", "$dynamicAnchor", "$comment", "$defs", "definitions", "title"})
#: Names that the generated module needs for something else.
_RESERVED = frozenset({"Model", "RestateTargetTypes"})


def pascal_case(text: str) -> str:
    """Return a text as the name of a class: ``com.example.cart`` is ``ComExampleCart``."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name[:1].isalpha() else f"The{name}"


@dataclass
class _Definition:
    """A schema that gets a name.

    Attributes:
        wanted: The name it would like to have.
        owner: What tells it from another one of that name.
        schema: The schema, its references replaced by identities.
        identity: What is equal for equal schemas, all that they refer to included.
    """

    wanted: str
    owner: str
    schema: Any
    identity: str = ""


class SchemaBook:
    """Collects schemas, and gives them as one document."""

    def __init__(self) -> None:
        self._roots: dict[str, Any] = {}
        self._definitions: dict[str, _Definition] = {}

    def add(self, name: str, owner: str, hint: str, schema: Any, document: Mapping[str, Any]) -> None:
        """Add what a handler takes or gives.

        Args:
            name: A name for this very place, to find its type by.
            owner: What tells its definitions from others of the same name: the service's name.
            hint: What its type is to be called where the schema has no name for it.
            schema: The schema.
            document: The document that its references lead into.
        """
        reader = _Reader(owner, document, self._definitions)
        self._roots[name] = reader.root(schema, hint)

    def as_document(self, title: str) -> dict[str, Any]:
        """Return one schema: an object with a property for each place.

        Args:
            title: Its title.
        """
        names = self._names()

        def named(schema: Any) -> Any:
            return _map_references(schema, lambda identity: f"#/$defs/{names[identity]}")

        by_name = {names[each.identity]: named(each.schema) for each in self._definitions.values()}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "type": "object",
            "properties": {name: named(self._roots[name]) for name in sorted(self._roots)},
            "required": sorted(self._roots),
            "$defs": dict(sorted(by_name.items())),
        }

    def _names(self) -> dict[str, str]:
        """Return the name of each definition by its identity."""
        wishes: dict[str, list[_Definition]] = {}
        for each in self._definitions.values():
            wishes.setdefault(each.wanted, []).append(each)
        names: dict[str, str] = {}
        taken = set(_RESERVED)
        for wanted, those in sorted(wishes.items()):
            for each in sorted(those, key=lambda each: (each.owner, each.identity)):
                plain = wanted if len(those) == 1 else f"{pascal_case(each.owner)}{wanted}"
                name, number = (plain, 1) if plain not in taken else (f"{plain}Model", 1)
                while name in taken:
                    number += 1
                    name = f"{plain}{number}"
                taken.add(name)
                names[each.identity] = name
        return names


class _Reader:
    """Reads one schema and the definitions that it refers to."""

    def __init__(self, owner: str, document: Mapping[str, Any], definitions: dict[str, _Definition]) -> None:
        self.owner = owner
        self.document = document
        self.definitions = definitions
        self._found: dict[str, _Definition] = {}  # by pointer

    def root(self, schema: Any, hint: str) -> Any:
        """Return a schema in which every object with properties is a reference to its definition."""
        pointer = schema.get("$ref") if isinstance(schema, dict) else None
        if isinstance(pointer, str) and set(schema) == {"$ref"}:
            # Where the OpenAPI document keeps it: what stands there is what the handler's author gave.
            found = _look_up(self.document, pointer)
            schema = {} if found is None else found  # what can't be looked up may be anything
        if isinstance(schema, dict) and _is_record(schema):
            # Under its own pointer, for it may lead back to itself.
            read = self._defined(schema, _title(schema) or hint, pointer if isinstance(pointer, str) else None)
        else:
            read = self._read(schema)
        self._settle()
        return _map_references(read, lambda pointer: self._found[pointer].identity)

    def _defined(self, record: dict[str, Any], name: str, pointer: str | None = None) -> dict[str, Any]:
        """Give an object with properties a definition of its own, and return a reference to that."""
        pointer = pointer or f"here:{len(self._found)}"
        definition = self._found[pointer] = _Definition(name, self.owner, None)
        definition.schema = self._read_keywords({**record, "type": "object"})
        reference = {"$ref": pointer}
        return {"anyOf": [reference, {"type": "null"}]} if isinstance(record["type"], list) else reference

    def _read(self, schema: Any) -> Any:
        """Return a schema without what is not said of the value, its references' targets read as well."""
        if not isinstance(schema, dict):
            return schema
        title = _title(schema)
        return self._defined(schema, title) if title and _is_record(schema) else self._read_keywords(schema)

    def _read_keywords(self, schema: dict[str, Any]) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _DROPPED:
                continue
            if keyword in {"$ref", "$dynamicRef"}:
                if not self._refer_to(value):
                    return {}
                read["$ref"] = value
            elif keyword in _MAPS and isinstance(value, dict):
                read[keyword] = {name: self._read(each) for name, each in value.items()}
            elif keyword in _LISTS and isinstance(value, list):
                read[keyword] = [self._read(each) for each in value]
            elif keyword in _ONE:
                read[keyword] = self._read(value)
            else:
                read[keyword] = value
        return read

    def _refer_to(self, pointer: Any) -> bool:
        """Read the target of a reference; tell whether there is one."""
        if pointer in self._found:
            return True
        target = _look_up(self.document, pointer)
        if target is None:
            return False
        name = pascal_case(str(pointer).rpartition("/")[2])
        self._found[pointer] = _Definition(name, self.owner, None)
        self._found[pointer].schema = self._read_keywords(target) if isinstance(target, dict) else target
        return True

    def _settle(self) -> None:
        """Give each definition its identity: its wish, and the text of all that it leads to."""
        for pointer, each in self._found.items():
            reached = {pointer: each}
            waiting = [each]
            while waiting:
                for other in _references(waiting.pop().schema):
                    if other not in reached:
                        reached[other] = self._found[other]
                        waiting.append(self._found[other])
            # A pointer says where this copy stands; what it is called is the same in every copy.
            local = {place: f"{one.wanted}#{number}" for number, (place, one) in enumerate(reached.items())}
            texts = [
                [local[place], _map_references(one.schema, lambda pointer: local[pointer])]  # noqa: B023 - called at once
                for place, one in reached.items()
            ]
            each.identity = json.dumps(texts, sort_keys=True)
        for each in self._found.values():
            each.schema = _map_references(each.schema, lambda pointer: self._found[pointer].identity)
            self.definitions.setdefault(each.identity, each)


def _is_record(schema: Mapping[str, Any]) -> bool:
    """Tell whether a schema is an object with properties, or null: what gets a class of its own."""
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return bool(schema.get("properties")) and "object" in kinds and set(kinds) <= {"object", "null"}


def _title(schema: Mapping[str, Any]) -> str | None:
    """Return a schema's title as the name of a class, None where it has none that can be one."""
    title = schema.get("title")
    return pascal_case(title) if isinstance(title, str) and re.search("[A-Za-z]", title) else None


def _look_up(document: Any, pointer: Any) -> Any:
    """Return what a local JSON pointer leads to, None where it leads nowhere."""
    if not isinstance(pointer, str) or not pointer.startswith("#/"):
        return None
    here = document
    for part in pointer[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict) or key not in here:
            return None
        here = here[key]
    return here


def _map_references(schema: Any, new: Callable[[str], str]) -> Any:
    """Return a schema that was read, with other references."""
    if isinstance(schema, dict):
        return {
            keyword: new(value)
            if keyword == "$ref"
            else {name: _map_references(each, new) for name, each in value.items()}
            if keyword in _MAPS and isinstance(value, dict)
            else [_map_references(each, new) for each in value]
            if keyword in _LISTS and isinstance(value, list)
            else _map_references(value, new)
            if keyword in _ONE
            else value
            for keyword, value in schema.items()
        }
    return schema


def _references(schema: Any) -> Iterator[str]:
    """Yield the references of a schema that was read, in its order."""
    found: list[str] = []

    def note(pointer: str) -> str:
        found.append(pointer)
        return pointer

    _map_references(schema, note)
    yield from found
