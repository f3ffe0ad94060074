"""What a log of an agent's conversations holds, as far as the settings of a new project depend on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steptool.core.types import Observation, Step, Task, Trajectory
from steptool.formats.tool_text import CHARACTERS_A_TOKEN

MARKERS = 12
"""Tokens around an action and what comes back, about."""
FEWEST_CALLS, MOST_CALLS = 8, 32
FEWEST_STEP_TOKENS, MOST_STEP_TOKENS = 48, 1024
FEWEST_TOKENS, MOST_TOKENS = 1024, 8192
"""Of one attempt; the most is what a small model attends to."""
MOST_OBSERVATION = 1024
"""Characters of a reply that a format shows by default."""


@dataclass(frozen=True)
class Log:
    """An imported folder of a new project. Tokens are counted as a few characters each."""

    path: str
    """From the project's root, such as traces/log."""
    tasks: int
    checked: int
    """Tasks that have a check."""
    shown: int
    """Attempts that end in an answer, and are not known to be wrong."""
    talks: int
    """How many of them speak with the user before they answer, which a format of one call an action cannot write."""
    steps: int
    """Actions of the longest of them, the answer included."""
    prompt: int
    """Tokens of the longest prompt."""
    action: int
    """Tokens of the longest action."""
    reply: int
    """Tokens of a reply; as long as nine of ten."""

    def sample(self) -> dict[str, int]:
        """Budgets under which a policy can do what was shown, those of `sample` in params.yaml."""
        action = min(MOST_STEP_TOKENS, max(FEWEST_STEP_TOKENS, _up(self.action, 16)))
        calls = min(MOST_CALLS, max(FEWEST_CALLS, self.steps + 2))
        fit = (MOST_TOKENS - self.prompt) // (action + self.reply)
        calls = max(min(calls, fit), min(self.steps, MOST_CALLS), 1)
        tokens = _up(self.prompt + calls * (action + self.reply), 256)
        return {
            "max_calls": calls,
            "max_step_tokens": action,
            "max_tokens": min(MOST_TOKENS, max(FEWEST_TOKENS, tokens)),
        }


def measured(path: str, tasks: Mapping[str, Task], checked: int, attempts: Iterable[Trajectory]) -> Log:
    """`path`: of the folder; `tasks`: by id; `checked`: how many of them have a check."""
    shown = [each for each in attempts if each.answer is not None and each.outcome.solved in (None, 1)]
    steps = [step for each in shown for step in each.steps]
    replies = sorted(_tokens(seen.text[:MOST_OBSERVATION]) + MARKERS for step in steps for seen in _replies(step))
    return Log(
        path=path,
        tasks=len(tasks),
        checked=checked,
        shown=len(shown),
        talks=sum(any(step.reply is not None for step in each.steps) for each in shown),
        steps=max((sum(max(1, len(step.action.calls)) for step in each.steps) for each in shown), default=0),
        prompt=max((_tokens(_written(task)) for task in tasks.values()), default=0),
        action=max((_tokens(text) + 1 for step in steps for text in _actions(step)), default=0),
        reply=replies[int(len(replies) * 0.9)] if replies else MARKERS,
    )


def _written(task: Task) -> str:
    return task.query + "".join(tool.model_dump_json() for tool in task.tools)


def _actions(step: Step) -> list[str]:
    """The texts of its calls or of its message, the thought before the first."""
    action = step.action
    texts = [json.dumps(call.model_dump(), ensure_ascii=False) for call in action.calls] or [action.message or ""]
    return [action.thought + texts[0], *texts[1:]]


def _replies(step: Step) -> list[Observation]:
    return [*step.observations, *([] if step.reply is None else [Observation(text=step.reply)])]


def _tokens(text: str) -> int:
    return len(text) // CHARACTERS_A_TOKEN


def _up(number: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-number // unit) * unit
