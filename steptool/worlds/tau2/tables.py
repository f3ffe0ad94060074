"""A table of records that many sessions read and each may change for itself.

    shared   {"#W1": order, "#W2": order, …}    read once, and changed by nobody
    table    the same keys; a record is copied as it is first asked for by its key
    changes  what stands in the table and not in `shared`

The databases have thousands of records, of which an attempt touches a few: copying all of them takes half a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

GONE = ""
"""What stands for a record that was deleted."""


class Table(dict[str, Any]):
    """Iterating over it shows records that may be shared; they must not be changed."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        super().__init__(shared)
        self._shared = shared
        self._own: set[str] = set()
        """Keys of the records that are this table's alone."""

    def __getitem__(self, key: str) -> Any:
        if key not in self._own:
            self[key] = deepcopy(super().__getitem__(key))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __setitem__(self, key: str, record: Any) -> None:
        self._own.add(key)
        super().__setitem__(key, record)

    def __deepcopy__(self, memo: dict[int, Any]) -> Table:
        other = Table(self._shared)
        for key in self._shared.keys() - self.keys():
            del other[key]
        for key in self._own & self.keys():
            other[key] = deepcopy(self[key], memo)
        return other

    def changes(self) -> dict[str, str]:
        """Key → the record as JSON, of each that is not as it is in `shared`."""
        touched = {key: _written(self[key]) for key in sorted(self._own & self.keys())}
        changed = {
            key: text for key, text in touched.items() if key not in self._shared or text != _written(self._shared[key])
        }
        return changed | dict.fromkeys(sorted(self._shared.keys() - self.keys()), GONE)


def _written(record: Any) -> str:
    """As the benchmark writes a record before it compares databases by their hash."""
    return json.dumps(record.model_dump(warnings=False), sort_keys=True, default=str)
