"""The tasks of a category with their ground truth, out of the benchmark's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError
from steptool.core.types import FINISH, Task, Tool
from steptool.worlds.bfcl.answers import Language, type_problem
from steptool.worlds.bfcl.package import INSTALL, answer_file, function_file, read_rows, task_file
from steptool.worlds.bfcl.records import FunctionRow, Said, SingleAnswer, SingleRow, TurnsAnswer, TurnsRow
from steptool.worlds.bfcl.single import SingleCase
from steptool.worlds.bfcl.tools import hinted, tool_of
from steptool.worlds.bfcl.turns import NEXT, Turn, TurnsCase, text_of

Case = TurnsCase | SingleCase


def is_multi_turn(category: str) -> bool:
    return category.startswith("multi_turn")


def has_answers(category: str) -> bool:
    """Else only counts whether anything is called."""
    return "relevance" not in category


class Cases:
    """`end_turn`: `message` or `call`. Each file of functions is read once."""

    def __init__(self, folder: Path, end_turn: str) -> None:
        self._folder, self._end_turn = folder, end_turn
        self._read: dict[str, list[FunctionRow]] = {}

    def of(self, category: str) -> Iterator[Case]:
        """Raises DataError where a file is missing or broken."""
        return self._several(category) if is_multi_turn(category) else self._single(category)

    def _several(self, category: str) -> Iterator[TurnsCase]:
        answers = {row.id: row for row in read_rows(answer_file(self._folder, category), TurnsAnswer)}
        for row in read_rows(task_file(self._folder, category), TurnsRow):
            if row.id not in answers or len(answers[row.id].ground_truth) != len(row.question):
                raise self._lacking(row.id, category, f" of {len(row.question)} turns")
            yield self._turns(row, answers[row.id], category)

    def _turns(self, row: TurnsRow, answer: TurnsAnswer, category: str) -> TurnsCase:
        by_class = {name: self._functions(name) for name in row.involved_classes}
        tools = {function.name: tool_of(hinted(function)) for each in by_class.values() for function in each}
        arriving = {
            turn: tuple(tools.pop(name) for name in names if name in tools)
            for turn, names in row.missed_function.items()
        }
        turns = []
        for number, (said, truth) in enumerate(zip(row.question, answer.ground_truth, strict=True)):
            new = arriving.get(number, ())
            text = text_of("\n".join(message.content for message in said), new)
            turns.append(Turn(text=text, truth=tuple(truth), arriving=new))
        offered: tuple[Tool, ...] = (*tools.values(), *([NEXT] if self._end_turn == "call" else ()))
        return TurnsCase(
            task=Task(id=row.id, group=category, query=turns[0].text, tools=offered),
            turns=tuple(turns),
            functions={name: [function.name for function in each] for name, each in by_class.items()},
            settings=row.initial_config,
            long_context="long_context" in category,
        )

    def _functions(self, name: str) -> list[FunctionRow]:
        if name not in self._read:
            self._read[name] = list(read_rows(function_file(self._folder, name), FunctionRow))
        return self._read[name]

    def _single(self, category: str) -> Iterator[SingleCase]:
        """Those that offer no function at all are left out, and those with one whose name ends an attempt."""
        answers: dict[str, SingleAnswer] = {}
        if has_answers(category):
            answers = {row.id: row for row in read_rows(answer_file(self._folder, category), SingleAnswer)}
        language = _language(category)
        for row in read_rows(task_file(self._folder, category), SingleRow):
            names = {function.name for function in row.function}
            wanted = answers[row.id].ground_truth if row.id in answers else None
            if has_answers(category) and (wanted is None or not {name for call in wanted for name in call} <= names):
                raise self._lacking(row.id, category, " of functions that it offers")
            if wanted is not None:
                self._refuse_unknown_types(row, category)
            if names and FINISH.casefold() not in map(str.casefold, names):
                tools = tuple(tool_of(hinted(function, language)) for function in row.function)
                yield SingleCase(
                    task=Task(id=row.id, group=category, tools=tools, **_asked(row.question[0])),
                    functions=tuple(row.function),
                    accepted=None if wanted is None else tuple(wanted),
                    language=language,
                )

    def _refuse_unknown_types(self, row: SingleRow, category: str) -> None:
        problems = (type_problem(function, _language(category)) for function in row.function)
        if problem := next(filter(None, problems), ""):
            where = str(task_file(self._folder, category))
            raise DataError(f"task {row.id[:64]}: {problem}", where=where, fix=f"restore the file: {INSTALL}")

    def _lacking(self, name: str, category: str, what: str) -> DataError:
        where = str(answer_file(self._folder, category))
        return DataError(f"task {name[:64]} has no ground truth{what}", where=where, fix=f"restore the file: {INSTALL}")


def _language(category: str) -> Language:
    if category == "simple_java":
        return "java"
    return "javascript" if category == "simple_javascript" else "python"


def _asked(messages: list[Said]) -> dict[str, Any]:
    """A conversation before the question stands in the query, each message behind the role of its speaker."""
    said = [message for message in messages if message.role != "system"]
    system = "\n".join(message.content for message in messages if message.role == "system")
    if len(said) == 1:
        return {"system": system, "query": said[0].content}
    return {"system": system, "query": "\n".join(f"{message.role}: {message.content}" for message in said)}
