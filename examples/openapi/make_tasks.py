"""Writes tasks.jsonl, and how some of them are done: demonstrations.jsonl. The same each time.

Each task knows the calls that do it. The demonstrations hold no replies: `steptool prepare` makes the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service import FACTORS, STATIONS, TRAINS, Train

HERE = Path(__file__).parent
NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eve")
SPLITS = ("train", "test", "train", "dev", "train")
"""Of the tasks of a group, in turn."""


def number(expected: float) -> dict[str, Any]:
    return {"kind": "number", "expected": expected, "tolerance": 0.005}


def text(expected: str) -> dict[str, Any]:
    return {"kind": "text", "expected": expected}


def tasks_of(place: int, train: Train) -> Iterator[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
    """Group, question, check and calls."""
    about = call("get_train", number=train.number)
    seats, kind, name = place % 4 + 2, list(FACTORS)[place % 2], NAMES[place % len(NAMES)]
    origin, destination = STATIONS[train.origin], STATIONS[train.destination]
    yield "platform", f"Which platform does train {train.number} leave from?", number(train.platform), [about]
    yield "seats", f"How many seats are free on train {train.number}?", number(train.free_seats), [about]
    price = call("get_price", number=train.number, seats=seats, **{"class": kind})
    question = f"What do {seats} seats in {kind} class on train {train.number} cost?"
    yield "price", question, number(train.fare * seats * FACTORS[kind]), [price]
    find = [call("find_station", name=each) for each in (origin, destination)]
    listed = call("trains_from", code=train.origin, to=train.destination)
    question = f"When does the train from {origin} to {destination} leave?"
    yield "departure", question, text(train.departs), [*find, listed]
    booking = call("book", train=train.number, seats=seats, name=name)
    question = f"Book {seats} seats on train {train.number} for {name}. What is the reference?"
    yield "booking", question, text(f"{train.number}-{name.upper()}-{seats}"), [booking]


def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
    return {"call": {"name": tool, "arguments": arguments}}


def main() -> None:
    tasks, demonstrations = [], []
    for place, train in enumerate(TRAINS.values()):
        split = SPLITS[place % len(SPLITS)]
        for group, query, check, calls in tasks_of(place, train):
            name = f"{group}-{train.number}"
            tasks.append({"id": name, "group": group, "split": split, "query": query, "check": check})
            if split == "train":
                finish = call(
                    "Finish", answer=f"{check['expected']:g}" if check["kind"] == "number" else check["expected"]
                )
                demonstrations.append({"task_id": name, "steps": [*calls, finish]})
    write("tasks.jsonl", tasks)
    write("demonstrations.jsonl", demonstrations)


def write(name: str, lines: list[dict[str, Any]]) -> None:
    (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
