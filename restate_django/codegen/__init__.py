"""Typed targets as Python source: what ``manage.py restate_codegen`` writes, and how it tells that it has drifted.

``contracts`` reads what a server says about its services, ``schemas`` gives every schema its name, ``python_types``
lets datamodel-code-generator turn them into types, ``module`` writes the classes of the targets, ``drift`` compares.
The same services give the same text each time. Imports the client and the error tree alone, and the generator when it
is used.
"""

from __future__ import annotations

from restate_django.codegen.contracts import Contract, read_contracts
from restate_django.codegen.drift import drift
from restate_django.codegen.module import generate
from restate_django.codegen.python_types import STYLES, GeneratorFailed, Style

__all__ = ["STYLES", "Contract", "GeneratorFailed", "Style", "drift", "generate", "read_contracts"]
