"""Equal parts of records as one object in memory: 100,000 attempts share their conditions, those at a task its prompt.

What a record says stays the same. Read one by one, a trajectory of four steps takes 31 KB; shared, a third.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from steptool.core.types import Conditions, Revision, Tool

Record = TypeVar("Record", bound=BaseModel)

WHOLE = (Conditions, Revision, Tool)
"""Types of which there are few different values."""
MOST = 100_000
"""Parts that are remembered. Then all are forgotten: what is equal stands near each other in a file."""


class Pool:
    """Remembers parts of the records that it has seen."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def shared(self, record: Record) -> Record:
        """The same record, its parts replaced by equal ones that are known."""
        if len(self._known) > MOST:
            self._known.clear()
        shared: Record = self._of(record)
        return shared

    def _of(self, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return self._model(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, dict):
            return {self._of(key): self._of(part) for key, part in value.items()}
        if isinstance(value, int | str):
            return self._known.setdefault((type(value), value), value)
        return value

    def _model(self, model: BaseModel) -> BaseModel:
        if isinstance(model, WHOLE):
            return self._known.setdefault((type(model), model.model_dump_json()), model)
        fields = model.__dict__
        for name, value in fields.items():
            fields[name] = self._of(value)  # not an assignment: a frozen model refuses that
        given = frozenset(model.__pydantic_fields_set__)
        shared = self._known.setdefault((set, given), model.__pydantic_fields_set__)
        object.__setattr__(model, "__pydantic_fields_set__", shared)
        return model

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value or not isinstance(value[0], int):
            return value if value and isinstance(value[0], float) else tuple(map(self._of, value))
        known = self._known.get((tuple, value))
        if known is None:
            known = self._known[tuple, value] = tuple(map(self._of, value))
        return known
