"""What a log of an agent's conversations holds, as far as the settings of a new project depend on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from steptool.core.types import Step, Task, Trajectory
from steptool.formats.tool_text import CHARACTERS_A_TOKEN

MARKERS = 12
"""Tokens around an action and what comes back, about."""
MOST_STEP_TOKENS = 1024
MOST_TOKENS = 8192
"""Of one attempt: more than a small model attends to."""
MOST_OBSERVATION = 1024
"""Characters of a reply that a format shows by default."""
MOST_CALLS = 32


@dataclass(frozen=True)
class Log:
    """An imported folder of a new project."""

    path: str
    """From the project's root, such as traces/log."""
    tasks: int
    checked: int
    """Tasks that have a check."""
    attempts: int
    shown: int
    """Attempts that end in an answer, and are not known to be wrong."""
    calls: int
    """Actions that the longest of these takes, the answer included."""
    step_tokens: int
    """Tokens of its longest action, about."""
    tokens: int
    """Tokens of the longest of them, the prompt included, about."""
    talks: int
    """How many of them speak with the user before they answer, which a format of one call an action cannot write."""

    def sample(self) -> dict[str, int]:
        """Budgets under which a policy can do what was shown, those of `sample` in params.yaml."""
        return {
            "max_calls": min(MOST_CALLS, max(8, self.calls + 2)),
            "max_step_tokens": min(MOST_STEP_TOKENS, max(48, _up(self.step_tokens, 16))),
            "max_tokens": min(MOST_TOKENS, max(1024, _up(self.tokens + self.step_tokens, 256))),
        }


def measured(path: str, tasks: Iterable[Task], checked: int, attempts: Iterable[Trajectory]) -> Log:
    """`path`: of the folder, `checked`: how many of the tasks have a check."""
    by_id = {task.id: task for task in tasks}
    every = list(attempts)
    shown = [each for each in every if each.answer is not None and each.outcome.solved in (None, 1)]
    return Log(
        path=path,
        tasks=len(by_id),
        checked=checked,
        attempts=len(every),
        shown=len(shown),
        calls=max((sum(max(1, len(step.action.calls)) for step in each.steps) for each in shown), default=0),
        step_tokens=max((_action_tokens(step) for each in shown for step in each.steps), default=0),
        tokens=max((_tokens(by_id[each.task_id], each.steps) for each in shown), default=0),
        talks=sum(any(step.reply is not None for step in each.steps) for each in shown),
    )


def _tokens(task: Task, steps: Iterable[Step]) -> int:
    prompt = len(task.query) + sum(len(tool.model_dump_json()) for tool in task.tools)
    replies = [len(seen.text[:MOST_OBSERVATION]) for step in steps for seen in step.observations]
    actions = sum(_action_tokens(step) for step in steps)
    return (prompt + sum(replies)) // CHARACTERS_A_TOKEN + actions + MARKERS * (len(replies) + 2)


def _action_tokens(step: Step) -> int:
    """Of its longest call, with the thought."""
    written = [json.dumps(call.model_dump(), ensure_ascii=False) for call in step.action.calls]
    text = step.action.thought + max([step.action.message or "", *written], key=len)
    return len(text) // CHARACTERS_A_TOKEN + 1


def _up(number: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-number // unit) * unit
