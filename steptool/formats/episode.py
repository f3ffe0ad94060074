"""A whole episode as one token stream with its mask, in any format: what is trained on.

prompt · action · reply · action · …
False    True     False   True
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steptool.core.types import Action, Step, Task
from steptool.formats.base import Format, OneAtATime


def encode(format: Format, task: Task, steps: Sequence[Step]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Token stream of an episode and its mask (True on the tokens of actions), of equal length.

    It is the stream that a rollout with the same actions has. Steps that were sampled keep their own ids; demonstrated
    ones are rendered, several calls of one step as a step each where the format has one call an action. Raises
    ValueError for a step that is neither, or that the format cannot write.
    """
    if isinstance(format, OneAtATime):
        steps = [single for step in steps for single in singles(step)]
    ids: list[int] = []
    mask: list[bool] = []
    previous: tuple[int, ...] = ()
    for index, step in enumerate(steps):
        if step.action_ids:
            context, action = step.context_ids, step.action_ids
        elif step.action.unreadable is not None:
            raise ValueError(f"task {task.id}, step {index}: neither sampled nor readable, so it has no tokens")
        else:
            context = _context(format, task, steps[index - 1], previous, index) if index else format.prompt(task)
            action = format.render(step.action, task)
        ids += (*context, *action)
        mask += [False] * len(context) + [True] * len(action)
        previous = action
    return tuple(ids), tuple(mask)


def singles(step: Step) -> Iterator[Step]:
    """A demonstrated step of several calls as a step each, the thought before the first; any other as it is."""
    calls = step.action.calls
    if step.action_ids or len(calls) < 2:
        yield step
        return
    for index, call in enumerate(calls):
        thought = step.action.thought if index == 0 else ""
        action = Action(thought=thought, calls=(call,))
        yield Step(action=action, observations=step.observations[index : index + 1])


def _context(format: Format, task: Task, before: Step, action_ids: Sequence[int], index: int) -> tuple[int, ...]:
    """What stands between the step `before`, whose tokens are `action_ids`, and step `index`."""
    if not before.is_answered:
        raise ValueError(f"task {task.id}, step {index - 1}: no observation, so nothing can follow it")
    context = format.reply(action_ids, before.observations, before.reply)
    if context is None:
        raise ValueError(f"task {task.id}, step {index - 1}: the format cannot extend the tokens of this action")
    return context
