"""Which properties a question hangs on."""

from __future__ import annotations

import re
from typing import Final

from eventmill.core.renames import Renames
from eventmill.query.saved import Saved, texts_of
from eventmill.query.service import SQL

#: ``properties.price``, ``sum:properties.price``.
_FIELD: Final = re.compile(r"(?:\w+:)?properties\.(.+)")
#: ``properties.price`` in SQL, and the names that functions take out of JSON.
_IN_SQL: Final = re.compile(r"properties\.(?:`([^`]+)`|(\w+))|properties\s*((?:,\s*'[^']*'\s*)+)")
_QUOTED: Final = re.compile(r"'([^']*)'")


def properties_of(saved: Saved, event: str, renames: Renames) -> set[str]:
    """The dotted paths below ``properties`` that a question about ``event`` (or about all events) names."""
    if saved.kind == SQL:
        return _in_sql(str(saved.query.get("query", "")))
    texts = list(texts_of(saved.query))
    names = {renames.now(value) for key, value in texts if key == "event"}
    if names and renames.now(event) not in names:
        return set()
    return {found[1] for _, value in texts for found in [_FIELD.fullmatch(value)] if found}


def _in_sql(sql: str) -> set[str]:
    """What SQL takes out of ``properties``; of ``JSONExtract(properties, 'a', 'b', 'Float64')`` the last may be a type."""
    found = set()
    for quoted, plain, arguments in _IN_SQL.findall(sql):
        names = _QUOTED.findall(arguments)
        found |= {quoted or plain} if not names else {".".join(names[:count]) for count in range(1, len(names) + 1)}
    return found
