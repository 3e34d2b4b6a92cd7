"""What the search box finds: exact look-ups of an index, never a ``LIKE``, and a field of recent payloads.

An invocation id, a row's id, an idempotency key, an object key, a service, a target as the list shows it
(``Cart/cart-1/add``), what rows belong to (``order 5``), or a payload's field (``order_id=5``). The last has no index:
the newest payloads alone are looked through. Imports the modules beside it and the records.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from django.contrib.contenttypes.models import ContentType
from django.db.models import Q
from django.db.models.fields.json import KeyTransform

from restate_django.admin.reach import Reach, reach
from restate_django.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from restate_django.querysets import InvocationQuerySet

#: Rows that each reading of a term finds at most: the newest ones. The list leads on to what lies behind them.
LIMIT: Final = 1000
_INVOCATION_ID: Final = re.compile(r"inv_[A-Za-z0-9]+")
# An object as the list names it, with or without its app: "order 5", "shop.order:5".
_OBJECT: Final = re.compile(r"(?:(\w+)\.)?(\w+(?: \w+)*)[ :#]+(\S+)")
# A field of a JSON payload: "order_id=5", "user.email=mary@example.com", "lines.0.sku=mug".
_FIELD: Final = re.compile(r"([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*=\s*(.+)", re.DOTALL)
_DEEPEST: Final = 10


def find(
    rows: InvocationQuerySet,
    term: str,
    params: Mapping[str, Any],
    *,
    mask: Callable[[Any], Any] | None = None,
) -> Reach:
    """Return where those rows are that a search term names.

    Args:
        rows: The rows, already narrowed by the filters.
        term: What was typed.
        params: What the address line narrows the rows by.
        mask: Replaces the secrets in a JSON value: a look-up by one would tell it. None where the user may not see
            payloads, and then none is looked into.

    Returns:
        The keys of what was found, and how far back was looked: everywhere, unless a reading of the term has more rows
        than ``LIMIT``, or a payload's field would have taken a look at more than ``reach.SEARCHED`` rows.
    """
    term = storable_text(term).strip()
    if not term:
        return Reach()
    if _INVOCATION_ID.fullmatch(term):
        return Reach(keys=list(rows.filter(invocation_id=term).order_by("-pk").values_list("pk", flat=True)[:LIMIT]))
    keys: set[uuid.UUID] = set()
    ends: list[uuid.UUID] = []

    def take(found: list[uuid.UUID]) -> None:
        keys.update(found[:LIMIT])
        ends.extend(found[LIMIT:])

    for reading in _readings(term, rows.db):
        # One index each: no database has to find a way through an OR over several of them.
        take(list(rows.defer(None).filter(reading).order_by("-pk").values_list("pk", flat=True)[: LIMIT + 1]))
    if mask is not None and (named := _FIELD.fullmatch(term)):
        recent = reach(params, rows.db, searches=True)
        take(list(_with_field(recent.of(rows), named[1].split("."), named[2], mask)[: LIMIT + 1]))
        if recent.oldest is not None:
            ends.append(recent.oldest)
    found = sorted(keys, reverse=True)
    ends.extend(found[LIMIT : LIMIT + 1])
    return Reach(keys=found[:LIMIT], oldest=max(ends, default=None))


def _readings(term: str, using: str) -> list[Q]:
    readings = [Q(idempotency_key=term), Q(key=term), Q(service=term)]
    with contextlib.suppress(ValueError):
        readings.append(Q(pk=uuid.UUID(term)))
    service, slash, rest = term.partition("/")
    if slash:
        # A key may hold slashes; the names around it can't.
        key, _slash, handler = rest.rpartition("/")
        readings.append(Q(service=service, key=key, handler=handler))
    if named := _OBJECT.fullmatch(term):
        readings += [Q(related_content_type=kind, related_id=named[3]) for kind in _kinds(named[1], named[2], using)]
    return readings


def _kinds(app: str | None, name: str, using: str) -> list[int]:
    """Return the content types of the models of a name. One query."""
    squeezed = name.replace(" ", "").lower()
    kinds = ContentType.objects.using(using).filter(model=squeezed, **({"app_label": app.lower()} if app else {}))
    return list(kinds.values_list("pk", flat=True))


def _with_field(rows: InvocationQuerySet, path: list[str], text: str, mask: Callable[[Any], Any]) -> Any:
    """Return the keys of rows whose payload has a field with a value, as far as a page would show that."""
    values: list[Any] = [text]
    with contextlib.suppress(ValueError, RecursionError):
        # A number may stand in the payload as one, or as a text.
        values.append(json.loads(text, parse_constant=_no_number))
    told = [value for value in values if not isinstance(value, dict | list) and _is_told(path, value, mask)]
    # A transform for each name, and no keyword: a field may be called "in" or "contains".
    field: Any = "payload"
    for name in path[:_DEEPEST]:
        field = KeyTransform(name, field)
    wanted = Q(pk__in=[])
    for value in told:
        wanted |= Q(searched_field=value)
    found = rows.defer(None).annotate(searched_field=field).filter(wanted)
    return found.order_by("-pk").values_list("pk", flat=True)


def _is_told(path: list[str], value: Any, mask: Callable[[Any], Any]) -> bool:
    """Tell whether a page would show this value at this place: whether it is there must be no more of a secret."""
    document: Any = value
    for name in reversed(path):
        document = {name: document}
    try:
        return bool(mask(json.loads(json.dumps(document))) == document)
    except Exception:  # noqa: BLE001 - a project's own hook meets a document that it does not know
        return False


def _no_number(name: str) -> None:
    raise ValueError(name)
