"""A world with state: four lights. An attempt is judged by which of them are on when it ends.

world: {use: 'switches:Switches', train_tasks: 12}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import product
from typing import ClassVar

from steptool.core.fields import Positive, Settings
from steptool.core.types import (
    FINISH,
    Action,
    Observation,
    Outcome,
    Reference,
    Revision,
    Step,
    StopReason,
    Task,
    Tool,
    ToolCall,
    Trajectory,
)
from steptool.worlds.base import Split

LIGHTS = ("hall", "kitchen", "porch", "cellar")
ROOM = {"type": "object", "properties": {"room": {"type": "string", "enum": list(LIGHTS)}}, "required": ["room"]}
TOOLS = (
    Tool(name="look", description="Is the light of a room on?", parameters=ROOM),
    Tool(name="toggle", description="Switch the light of a room on or off", parameters=ROOM),
)


class Switches:
    name: ClassVar[str] = "switches"

    class Config(Settings):
        train_tasks: Positive = 8
        dev_tasks: Positive = 4
        test_tasks: Positive = 3

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        wanted = [lights for lights in product((False, True), repeat=len(LIGHTS)) if any(lights)]
        tasks = [_task(wanted[(index + seed) % len(wanted)], index) for index in range(len(wanted))]
        sizes = (config.train_tasks, config.dev_tasks, config.test_tasks)
        ends = [sum(sizes[: index + 1]) for index in range(3)]
        self._splits = {
            split: tasks[end - size : end]
            for split, size, end in zip(("train", "dev", "test"), sizes, ends, strict=True)
        }

    def tasks(self, split: Split) -> Sequence[Task]:
        return self._splits[split]

    def reference(self, task: Task) -> Reference:
        return Reference(task_id=task.id, relevant_tools=("toggle",), goal=task.query)

    def open(self, task: Task, seed: int) -> House:
        return House(wanted=_wanted(task))

    def demonstrations(self, count: int, flawed: float, seed: int) -> Iterator[Trajectory]:
        """An expert toggles every light that is asked for. Only a world that has experts needs this."""
        for task in self._splits["train"][:count]:
            rooms = [room for room, code in zip(LIGHTS, _wanted(task), strict=True) if code == "1"]
            toggled = [
                Step(
                    action=Action(calls=(ToolCall(name="toggle", arguments={"room": room}),)),
                    observations=(Observation(text=json.dumps({"room": room, "is_on": True})),),
                )
                for room in rooms
            ]
            yield Trajectory.create(
                task_id=task.id,
                steps=(*toggled, Step(action=Action(calls=(ToolCall(name=FINISH, arguments={"answer": "done"}),)))),
                stop_reason=StopReason.finished,
                answer="done",
                outcome=Outcome(solved=1.0, evidence="an expert"),
                policy=Revision(name="expert", revision="switches"),
                conditions=None,
            )


def _task(lights: tuple[bool, ...], index: int) -> Task:
    rooms = [room for room, is_on in zip(LIGHTS, lights, strict=True) if is_on]
    code = "".join("1" if is_on else "0" for is_on in lights)
    return Task(
        id=f"{index}-{code}", group="lights", query=f"Light these and no others: {', '.join(rooms)}", tools=TOOLS
    )


def _wanted(task: Task) -> str:
    return task.id.split("-")[1]


class House:
    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.is_on = dict.fromkeys(LIGHTS, False)

    async def call(self, call: ToolCall) -> Observation:
        room = call.arguments.get("room")
        if room not in self.is_on:
            return Observation(text=json.dumps({"error": f"there is no room {str(room)[:40]}"}), error="unknown_room")
        if call.name == "toggle":
            self.is_on[room] = not self.is_on[room]
        return Observation(text=json.dumps({"room": room, "is_on": self.is_on[room]}))

    async def say(self, message: str) -> str | None:
        return None

    async def close(self, answer: str | None) -> Outcome:
        found = "".join("1" if is_on else "0" for is_on in self.is_on.values())
        return Outcome(solved=float(answer is not None and found == self.wanted), evidence=f"the lights are {found}")
