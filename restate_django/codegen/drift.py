"""Whether a module of targets is still what its services make of it, however it has been formatted since."""

from __future__ import annotations

import ast
import difflib
import inspect


def drift(module: str, wanted: str, name: str = "module") -> str:
    """Return what has to change in a module as a unified diff; empty when nothing has.

    Comments, blank lines, quotes, the order of imports and the indentation of docstrings are a formatter's business:
    only what the code means is compared, and shown.

    Args:
        module: The module's source as it is.
        wanted: The source as it would be written now.
        name: What the module is called in the diff.
    """
    if module == wanted:
        return ""
    try:
        old = _essence(module)
    except SyntaxError:
        old = module.splitlines()
    return "\n".join(difflib.unified_diff(old, _essence(wanted), name, f"{name} (by the server)", lineterm=""))


def _essence(source: str) -> list[str]:
    """Return what a source means, as lines."""
    tree = ast.parse(source)
    imports: list[str] = []
    body: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = f"from {'.' * node.level}{node.module or ''} " if isinstance(node, ast.ImportFrom) else ""
            imports += [f"{origin}import {ast.unparse(each)}" for each in node.names]
        else:
            body.append(node)
    tree.body = body
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(scope, clean=False)
            if text is not None:
                scope.body[0] = ast.Expr(ast.Constant(inspect.cleandoc(text).strip()))
    return [*sorted(imports), *ast.unparse(tree).splitlines()]
