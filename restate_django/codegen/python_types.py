"""JSON schemas as Python types, by datamodel-code-generator: models of pydantic 2, or TypedDicts.

One object is generated that has a property for each place; its annotations are then the types of those places, and it
is left out. Imports the generator when it is used.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from restate_django.codegen.text import docstring

Style = Literal["pydantic", "typeddict"]
STYLES: Final[tuple[Style, ...]] = get_args(Style)

#: What JSON is decoded to anyway: nothing has to be made of it.
_DECODED: Final = frozenset({"Any", "Literal", "bool", "dict", "float", "int", "list", "str"})
#: The title of the object whose properties are the places.
HOLDER: Final = "RestateTargetTypes"
_GONE: Final = "\0"  # a line that is none any more
_MODEL: Final = "restate_django.typed_models.Model"


class GeneratorFailed(RuntimeError):
    """The generator is not installed, or can make nothing of a schema."""


@dataclass(frozen=True)
class Types:
    """The types of some places.

    Attributes:
        imports: The imports that the source needs, as statements.
        source: The definitions of the types.
        names: The names that the source defines.
        annotations: The type of each place, as an expression.
    """

    imports: list[ast.Import | ast.ImportFrom]
    source: str
    names: frozenset[str]
    annotations: dict[str, str]


def types_of(schema: dict[str, Any], style: Style) -> Types:
    """Return the types of an object's properties.

    Args:
        schema: The object's schema, titled :data:`HOLDER`, all its properties required.
        style: ``pydantic`` or ``typeddict``.

    Raises:
        GeneratorFailed: It is not installed, or can make nothing of the schema.
    """
    source = _with_python_names(_generated(schema, style))
    tree = ast.parse(source)
    lines = source.split("\n")  # as Python counts them: splitlines() knows more ends of lines
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node)):
            # On its first line alone, with nothing left of the others; they keep their numbers until the end.
            said = node.body[0]
            lines[said.lineno - 1 : said.end_lineno] = [docstring(text, "    "), *[_GONE] * (_height(said) - 1)]
    imports: list[ast.Import | ast.ImportFrom] = []
    annotations: dict[str, str] = {}
    names: set[str] = set()
    left_out: set[int] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
            left_out |= _lines_of(node)
        elif isinstance(node, ast.ClassDef) and node.name == HOLDER:
            left_out |= _lines_of(node)
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    annotations[item.target.id] = _as_written(_bare(item.annotation), source)
        elif _rebuilds(node, HOLDER):
            left_out |= _lines_of(node)
        else:
            names |= _names_of(node)
    left_out |= {number for number, line in enumerate(lines, 1) if line == _GONE or line.startswith("#")}
    kept = [line for number, line in enumerate(lines, 1) if number not in left_out]
    text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept)).strip()
    return Types(imports, text, frozenset(names), annotations)


def is_decoded_json(annotation: str) -> bool:
    """Tell whether a type is one that decoding JSON gives by itself."""
    return names_in(annotation) <= _DECODED


def names_in(annotation: str) -> frozenset[str]:
    """Return the names that an annotation uses."""
    return frozenset(node.id for node in ast.walk(ast.parse(annotation, mode="eval")) if isinstance(node, ast.Name))


def _generated(schema: dict[str, Any], style: Style) -> str:
    try:
        from datamodel_code_generator import Error, generate
        from datamodel_code_generator.enums import DataModelType, InputFileType
        from datamodel_code_generator.format import Formatter, PythonVersion
    except ImportError as error:
        raise GeneratorFailed(
            'restate_codegen needs datamodel-code-generator: pip install "restate-django[codegen]".'
        ) from error
    options: dict[str, Any] = {
        "input_filename": "services",
        "input_file_type": InputFileType.JsonSchema,
        "target_python_version": PythonVersion.PY_311,
        "disable_timestamp": True,
        "use_standard_collections": True,
        "use_union_operator": True,
        "use_schema_description": True,
        "use_double_quotes": True,
        # A word out of a few is given as that word, in either style.
        "enum_field_as_literal": "all",
        "formatters": [Formatter.BUILTIN] if hasattr(Formatter, "BUILTIN") else [Formatter.BLACK, Formatter.ISORT],
    }
    if style == "pydantic":
        options |= {
            "output_model_type": DataModelType.PydanticV2BaseModel,
            "base_class": _MODEL,
            # Constraints beside the type, so that a type checker needs no plugin to see what has a default.
            "use_annotated": True,
            "field_constraints": True,
            "collapse_root_models": True,
            "strict_nullable": True,
        }
    else:
        options |= {"output_model_type": DataModelType.TypingTypedDict}
    try:
        return str(generate(json.dumps(schema), **options))
    except Error as error:
        raise GeneratorFailed(f"datamodel-code-generator can make nothing of the schemas: {error}") from error


def _with_python_names(source: str) -> str:
    """Let fields be given by their names in Python: ``class_`` for ``class``.

    pydantic takes both, but a type checker knows a field by its ``alias`` alone, and ``class=`` can't be written. It
    knows nothing of the two aliases that together mean the same.
    """
    aliases = [
        word
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Field"
        for word in call.keywords
        if word.arg == "alias"
    ]
    lines = [line.encode() for line in source.split("\n")]
    for word in sorted(aliases, key=lambda word: (word.lineno, word.col_offset), reverse=True):
        line, value = lines[word.lineno - 1], ast.unparse(word.value)
        both = f"validation_alias={value}, serialization_alias={value}".encode()
        # A literal, which never goes over a line's end.
        lines[word.lineno - 1] = line[: word.col_offset] + both + line[word.end_col_offset :]
    return "\n".join(line.decode() for line in lines)


def _height(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _lines_of(node: ast.stmt) -> set[int]:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return set(range(first, (node.end_lineno or node.lineno) + 1))


def _bare(annotation: ast.expr) -> ast.expr:
    """Return a type without what ``Annotated`` says of its values: a caller's checker has no use for it."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[bare, *_])):
            return bare
    return annotation


def _as_written(node: ast.expr, source: str) -> str:
    """Return an expression with the generator's quotes, on one line."""
    written = ast.get_source_segment(source, node) or ""
    return ast.unparse(node) if "\n" in written or not written else written


def _names_of(node: ast.stmt) -> set[str]:
    match node:
        case ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=[ast.Name(id=name)]):
            return {name}
    return set()


def _rebuilds(node: ast.stmt, name: str) -> bool:
    """Tell whether a statement is ``Name.model_rebuild()``."""
    return isinstance(node, ast.Expr) and ast.unparse(node) == f"{name}.model_rebuild()"
