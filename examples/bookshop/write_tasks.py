"""`python write_tasks.py`: writes tasks.jsonl and demonstrations.jsonl, the same each time.

A third of the books and of the customers is for test tasks alone. An expert does the demonstrated tasks; where a tool
answers with an error it goes on only in some of them, as the logs of a real team show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from stock import BOOKS, CUSTOMERS, book_id, customer_id, is_busy, ordered

COUNTS = {"train": 42, "dev": 5, "test": 25}
"""Tasks of each of the six groups."""
SHOWN = 24
"""Demonstrations of each group."""
GOES_ON = 0.4
"""Share of the demonstrated tasks with an error in which the expert goes on after it."""
PHRASES = {
    "price": ("What does {title} cost?", "Price of {title}?", "How much is {title}?"),
    "author": ("Who wrote {title}?", "Author of {title}?", "Who is the author of {title}?"),
    "copies": ("How many copies of {title} are there?", "Copies of {title} in stock?", "Count the copies of {title}."),
    "order": ("Order {copies} {title} for {name}.", "{name} wants {copies} {title}.", "{copies} {title} for {name}."),
    "cancel": ("Cancel {title} for {name}.", "{name} no longer wants {title}.", "Undo the order of {title} by {name}."),
    "restock": ("Add {copies} copies of {title}.", "Restock {title} by {copies}.", "{copies} more {title} came in."),
}  # fmt: skip
TOOLS = {
    "price": ["find", "book"],
    "author": ["find", "book"],
    "copies": ["find", "book"],
    "order": ["find", "customer", "order", "restock"],
    "cancel": ["customer", "orders", "cancel"],
    "restock": ["find", "restock", "book"],
}
Call = tuple[str, dict[str, Any]]
BUSY = '{"error": "TimeoutError: busy, call again"}'


def numbers(count: int, split: str) -> list[int]:
    """Of books or customers: two of three are for training, the third for the test."""
    return [number for number in range(count) if (number % 3 == 2) == (split == "test")]


def changes(*entries: str) -> dict[str, Any]:
    return {"kind": "state", "tool": "ledger", "arguments": {}, "path": "$", "expected": list(entries)}


def looked_up(tool: str, argument: str, name: str, number: int) -> Iterator[tuple[Call, bool]]:
    """The calls that find an id, and whether each is an error."""
    if is_busy(number):
        yield (tool, {argument: name}), True
    yield (tool, {argument: name}), False


def case(group: str, split: str, rng: Random) -> tuple[str, Any, list[tuple[Call, bool]], str]:
    """Query, check, the expert's calls with whether each is an error, and the answer."""
    book = rng.choice(numbers(len(BOOKS), split))
    person = rng.choice(numbers(len(CUSTOMERS), split))
    if group == "cancel":
        book = rng.choice(ordered(person))
    title, author, price, copies = BOOKS[book]
    wanted = rng.randint(2, 4)
    query = rng.choice(PHRASES[group]).format(title=title, name=CUSTOMERS[person], copies=wanted)
    found = list(looked_up("find", "title", title, book))
    known = list(looked_up("customer", "name", CUSTOMERS[person], person))
    look: list[tuple[Call, bool]] = [(("book", {"id": book_id(book)}), False)]
    if group == "price":
        return query, {"kind": "number", "expected": price, "tolerance": 0.001}, found + look, f"{price:g}"
    if group == "author":
        return query, {"kind": "text", "expected": author}, found + look, author
    if group == "copies":
        return query, {"kind": "number", "expected": copies}, found + look, str(copies)
    if group == "restock":
        call: Call = ("restock", {"book": book_id(book), "copies": wanted})
        return query, changes(f"restocked {wanted} {book_id(book)}"), [*found, (call, False)], "done"
    if group == "cancel":
        order = f"o{11 + 2 * person + ordered(person).index(book)}"
        calls = [*known, (("orders", {"customer": customer_id(person)}), False), (("cancel", {"order": order}), False)]
        return query, changes(f"{order} cancelled"), calls, "done"
    call = ("order", {"book": book_id(book), "customer": customer_id(person), "copies": wanted})
    entry = f"{customer_id(person)} ordered {wanted} {book_id(book)}"
    if copies >= wanted:
        return query, changes(entry), [*found, *known, (call, False)], "done"
    more: Call = ("restock", {"book": book_id(book), "copies": 9})
    calls = [*found, *known, (call, True), (more, False), (call, False)]
    return query, changes(f"restocked 9 {book_id(book)}", entry), calls, "done"


def steps(calls: list[tuple[Call, bool]], answer: str, goes_on: bool) -> list[dict[str, Any]]:
    """What the expert does; without `goes_on` it gives up at the first error. The tools reply when they are asked."""
    written = []
    for (name, arguments), is_error in calls:
        written.append({"call": {"name": name, "arguments": arguments}})
        if is_error and not goes_on:
            return [*written, {"call": {"name": "Finish", "arguments": {"give_up": True}}}]
    return [*written, {"call": {"name": "Finish", "arguments": {"answer": answer}}}]


def write(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def main() -> None:
    rng = Random(17)
    tasks: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    asked: set[str] = set()
    for split, count in COUNTS.items():
        for group, tools in TOOLS.items():
            made = 0
            while made < count:
                query, check, calls, answer = case(group, split, rng)
                if query in asked:
                    continue
                asked.add(query)
                task = f"{group}-{split}-{made}"
                fields = {"id": task, "group": group, "split": split, "query": query}
                tasks.append({**fields, "tools": tools, "check": check})
                if split == "train" and made < SHOWN:
                    shown.append({"task_id": task, "steps": steps(calls, answer, rng.random() < GOES_ON)})
                made += 1
    rng.shuffle(shown)
    write("tasks.jsonl", tasks)
    write("demonstrations.jsonl", shown)


if __name__ == "__main__":
    main()
