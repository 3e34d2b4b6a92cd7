"""The base of the models that ``restate_codegen`` writes in pydantic's style. Imports pydantic, and nothing else here.

A property that a schema does not require may be left out, and that is not the same as null: a handler that takes a
text or nothing refuses null. So what was never given is not sent.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Model(BaseModel):
    """A model whose fields that were not given, and have no value, are left out of its JSON."""

    model_config = ConfigDict(populate_by_name=True)

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        for name, field in type(self).model_fields.items():
            if name not in self.model_fields_set and getattr(self, name) is None:
                # Under which of its two names it was written, the caller of model_dump has chosen.
                for key in (name, field.serialization_alias or field.alias):
                    if key is not None and written.get(key, ...) is None:
                        del written[key]
        return written
