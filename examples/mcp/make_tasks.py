"""Writes tasks.jsonl, and how some of them are done: demonstrations.jsonl. The same each time.

Each task knows the calls that do it. The demonstrations hold no replies: `steptool prepare` makes the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server import AUTHORS, BOOKS, KINDS, Book

HERE = Path(__file__).parent
MEMBERS = ("Ann", "Bob", "Cleo", "Dan", "Eve")
SPLITS = ("train", "test", "train", "dev", "train")
"""Of the tasks of a group, in turn."""
Made = tuple[str, str, Any, list[dict[str, Any]]]
"""Group, question, check (or several) and calls."""


def text(expected: str) -> dict[str, Any]:
    return {"kind": "text", "expected": expected}


def number(expected: float) -> dict[str, Any]:
    return {"kind": "number", "expected": expected}


def tasks_of(place: int, book: Book) -> Iterator[Made]:
    look = [call("find_book", title=book.title), call("get_book", id=book.id)]
    member = MEMBERS[place % len(MEMBERS)]
    yield "author", f"Who wrote {book.title}?", text(book.author), look
    yield "year", f"In which year did {book.title} appear?", number(book.year), look
    yield "shelf", f"On which shelf is {book.title}?", text(book.shelf), look
    lending = [look[0], call("lend", id=book.id, member=member)]
    question = f"Lend {book.title} to {member}. How many copies are left?"
    has = {"kind": "state", "tool": "loans_of", "arguments": {"member": member}, "path": "$.ids", "expected": [book.id]}
    yield "loan", question, [number(book.copies - 1), has], lending


def tasks_of_authors() -> Iterator[Made]:
    for author in AUTHORS:
        for kind in KINDS:
            titles = [book.title for book in BOOKS.values() if (book.author, book.kind) == (author, kind)]
            if titles:
                check = {"kind": "set", "expected": titles} if len(titles) > 1 else text(titles[0])
                question = f"What is there of {author} in the kind {kind}?"
                yield "list", question, check, [call("books_by", author=author, kind=kind)]


def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
    return {"call": {"name": tool, "arguments": arguments}}


def answer(check: Any) -> str:
    """What the check, or the first of several, expects."""
    expected = (check[0] if isinstance(check, list) else check)["expected"]
    return ", ".join(expected) if isinstance(expected, list) else str(expected)


def main() -> None:
    by_book = [(place, made) for place, book in enumerate(BOOKS.values()) for made in tasks_of(place, book)]
    tasks, demonstrations = [], []
    for place, (group, query, check, calls) in [*by_book, *enumerate(tasks_of_authors())]:
        split = SPLITS[place % len(SPLITS)]
        name = f"{group}-{place + 1}"
        tasks.append({"id": name, "group": group, "split": split, "query": query, "check": check})
        if split == "train" and place % 2 == 0:  # each starts a server, in `steptool prepare`
            demonstrations.append({"task_id": name, "steps": [*calls, call("Finish", answer=answer(check))]})
    write("tasks.jsonl", tasks)
    write("demonstrations.jsonl", demonstrations)


def write(name: str, lines: list[dict[str, Any]]) -> None:
    (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
