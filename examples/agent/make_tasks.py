"""Writes tasks.jsonl, and how some of them are done: demonstrations.jsonl. The same each time.

The demonstrations hold no replies: `steptool prepare` leads the agent to make the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import desk

HERE = Path(__file__).parent
SPLITS = ("train", "test", "train", "dev", "train")
"""Of the trains, in turn."""
Made = tuple[str, str, dict[str, Any], str, dict[str, Any]]
"""Group, question, check, and the call behind `find_train` that tells."""


def tasks_of(place: int, origin: str, destination: str) -> Iterator[Made]:
    train = desk.IDS[place]
    ways = (f"from {origin} to {destination}", f"{origin} to {destination}")
    way = ways[place % 2]
    if place % 3 == 0:
        leaves = json.loads(desk.times(train))["leaves"]
        yield "leaves", f"When does the train {way} leave?", {"kind": "text", "expected": leaves}, "times", {}
    elif place % 3 == 1:
        people = 1 + place % 4
        total = json.loads(desk.fare(train, people))["total"]
        asked = f"What do {people} people pay {way}?" if people > 1 else f"What does one person pay {way}?"
        yield "fare", asked, {"kind": "number", "expected": total}, "fare", {"people": people}
    else:
        free = json.loads(desk.seats(train))["free"]
        yield "seats", f"How many seats are free {way}?", {"kind": "number", "expected": free}, "seats", {}


def step(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"call": {"name": tool, "arguments": arguments}}


def main() -> None:
    tasks, demonstrations = [], []
    for place, (origin, destination) in enumerate(desk.TRAINS):
        for group, query, check, tool, more in tasks_of(place, origin, destination):
            split, name = SPLITS[place % len(SPLITS)], f"{group}-{place}"
            tasks.append({"id": name, "group": group, "split": split, "query": query, "check": check})
            if split == "train" and place % 2 == 0:
                way = {"origin": origin, "destination": destination}
                calls = [step("find_train", way), step(tool, {"id": desk.IDS[place], **more})]
                finish = step("Finish", {"answer": str(check["expected"])})
                demonstrations.append({"task_id": name, "steps": [*calls, finish]})
    write("tasks.jsonl", tasks)
    write("demonstrations.jsonl", demonstrations)


def write(name: str, lines: list[dict[str, Any]]) -> None:
    (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
