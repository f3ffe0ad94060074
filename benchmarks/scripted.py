"""Attempts of a policy whose every action has a known value: a script that mostly does the right thing.

The policy acts in real sessions of the bundled world. In each state, which is how many calls of the solution it has
made (i), how many mistakes it has just made in a row (m, at most MOST_CONFUSED) and how many actions are left, it takes
one of

    right     the next call of the solution, or its answer           i + 1, m = 0; after the answer solved
    repeat    the last right call again                              m + 1
    stray     a call that the task does not need                     m + 1
    misread   the next call, with a note that says the wrong thing   i + 1, m = 0; the answer will be wrong
    early     an answer that replies have shown, a wrong one         ends unsolved
    give up                                                          ends unsolved

Only a verdict can tell `misread` from `right`, whereas a `repeat` or a `stray` shows in the calls.

The chance of `right` differs from task to task and from decision to decision, and falls with m; so do the shares of the
mistakes. Replies do not depend on chance, so the value of each state and action follows exactly, backwards from the
last action:

    V(i, m, left) = sum over actions of their chance times Q(i, m, left, action)
    Q(…, right) = V(i + 1, 0, left - 1)        Q(…, repeat) = Q(…, stray) = V(i, m + 1, left - 1)        else Q = 0
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from steptool.core.types import (
    Action,
    Conditions,
    Observation,
    Revision,
    Sampling,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
)
from steptool.worlds.base import HasState
from steptool.worlds.mini import MiniWorld
from steptool.worlds.mini.plans import Case, finish

Floats = NDArray[np.float64]
RIGHT, REPEAT, STRAY, MISREAD, EARLY, GIVE_UP = range(6)
MOST_CONFUSED = 2
CONFUSION = 0.8
"""What each mistake just made leaves of the chance to go on rightly."""
TASK_SPREAD, DECISION_SPREAD = 0.7, 1.0
"""Standard deviations of the log odds of `right`, between tasks and between the decisions of one."""
MISTAKES = (0.25,) * 5
"""Parameters of the Dirichlet distribution that shares of the mistakes are drawn from: low, so that at one decision
one kind of mistake prevails."""
NOBODY = Revision(name="scripted", revision="0")


@dataclass(frozen=True)
class Attempted:
    trajectory: Trajectory
    worth: tuple[float, ...]
    """The true advantage of each action, Q - V, in the chance to solve the task."""


class Scripted:
    """The policy at one task. Its log odds of the right action are those drawn from `seed` plus `skill`."""

    def __init__(self, world: MiniWorld, case: Case, most_calls: int, seed: int) -> None:
        self.case, self.most_calls = case, most_calls
        self._world, self._words = world, dict[str, int]()
        session, solution = world.open(case.task, 0), case.solution()
        replies = [session.reply(call) for call in solution]
        rng = np.random.default_rng([seed, *case.task.id.encode()])
        self._log_odds = rng.normal(0, TASK_SPREAD) + rng.normal(0, DECISION_SPREAD, len(solution) + 1)
        shares = rng.dirichlet(MISTAKES, len(solution) + 1)
        self._actions: list[tuple[Action | None, ...]] = []
        """[i][action]; None where there is no such action."""
        for made in range(len(solution) + 1):
            following = solution[made] if made < len(solution) else finish(case.answer)
            last = solution[made - 1] if made else None
            wrong = self._wrong_answer(replies[:made])
            note = f"So far: {wrong or 'nothing'}."
            self._actions.append((
                _action(following),
                _action(None if last == following else last),
                _action(self._stray(last, rng)),
                _action(following if made < len(solution) else None, note),
                _action(None if wrong is None else finish(wrong)),
                _action(finish(None)),
            ))  # fmt: skip
        possible = np.array([[action is not None for action in actions[1:]] for actions in self._actions])
        shares = (shares + 1e-3) * possible
        self._shares = shares / shares.sum(axis=1, keepdims=True)

    def chances(self, skill: float) -> Floats:
        """[i, m, action] chance of each action."""
        right = 1 / (1 + np.exp(-(self._log_odds + skill)))
        by_confusion = right[:, None] * CONFUSION ** np.arange(MOST_CONFUSED + 1)
        mistakes = (1 - by_confusion)[..., None] * self._shares[:, None, :]
        return np.concatenate([by_confusion[..., None], mistakes], axis=2)

    def values(self, skill: float) -> tuple[Floats, Floats]:
        """V [used, i, m] and Q [used, i, m, action], where `used` actions were taken before."""
        chances = self.chances(skill)
        v = np.zeros((self.most_calls + 1, *chances.shape[:2]))
        q = np.zeros((self.most_calls, *chances.shape))
        confused = np.minimum(np.arange(MOST_CONFUSED + 1) + 1, MOST_CONFUSED)
        for used in reversed(range(self.most_calls)):
            q[used, :-1, :, RIGHT] = v[used + 1, 1:, 0][:, None]
            q[used, -1, :, RIGHT] = 1.0
            q[used, :, :, REPEAT] = q[used, :, :, STRAY] = v[used + 1][:, confused]
            v[used] = (chances * q[used]).sum(axis=2)
        return v, q

    def attempts(self, skill: float, count: int, seed: int) -> list[Attempted]:
        chances, (v, q) = self.chances(skill), self.values(skill)
        rng = np.random.default_rng([seed, *self.case.task.id.encode()])
        return [self._attempt(chances, v, q, number, rng) for number in range(count)]

    def _attempt(self, chances: Floats, v: Floats, q: Floats, number: int, rng: np.random.Generator) -> Attempted:
        session = self._world.open(self.case.task, 0)
        steps: list[Step] = []
        worth: list[float] = []
        made = confused = 0
        misread = False
        context = (0,)
        while len(steps) < self.most_calls:
            chance = chances[made, confused]
            taken = int(rng.choice(len(chance), p=chance))
            gained = float(q[len(steps), made, confused, taken] - v[len(steps), made, confused])
            worth.append(0.0 if misread else gained)
            action = self._done(made, taken, misread)
            misread = misread or taken == MISREAD
            step = Step(
                action=action,
                context_ids=context,
                action_ids=(self._word(action.model_dump_json()),),
                action_logprobs=(float(np.log(chance[taken])),),
                state=session.state() if isinstance(session, HasState) else None,
            )
            if step.is_finish:
                steps.append(step)
                break
            observation = session.reply(action.calls[0])
            steps.append(step.model_copy(update={"observations": (observation,)}))
            context = (self._word(observation.text),)
            goes_on = taken in (RIGHT, MISREAD)
            made, confused = (made + 1, 0) if goes_on else (made, min(confused + 1, MOST_CONFUSED))
        answer = steps[-1].action.answer
        ended = StopReason.gave_up if answer is None else StopReason.finished
        trajectory = Trajectory.create(
            task_id=self.case.task.id,
            steps=tuple(steps),
            stop_reason=ended if steps[-1].is_finish else StopReason.call_budget,
            answer=answer,
            outcome=session.outcome(answer),
            policy=NOBODY,
            conditions=self._conditions,
            attempt=number,
        )
        return Attempted(trajectory, tuple(worth))

    def _done(self, made: int, taken: int, misread: bool) -> Action:
        """What it does when it takes an action; after it has misread something, its answer is a wrong one."""
        actions = self._actions[made]
        if misread and taken == RIGHT and made == len(self._actions) - 1:
            taken = GIVE_UP if actions[EARLY] is None else EARLY
        action = actions[taken]
        assert action is not None, "an action of no chance was taken"
        return action

    @cached_property
    def _conditions(self) -> Conditions:
        sampling = Sampling(
            temperature=1.0, top_p=1.0, max_calls=self.most_calls, max_step_tokens=1, max_tokens=2 * self.most_calls
        )
        return Conditions(world=NOBODY, format=NOBODY, engine=NOBODY, dtype="float32", search=NOBODY, sampling=sampling)

    def _word(self, text: str) -> int:
        """The token of a text: here every action and every reply is one."""
        return self._words.setdefault(text, len(self._words) + 1)

    def _wrong_answer(self, replies: Sequence[Observation]) -> str | None:
        """A value that these replies have shown and that is not the answer, of the last of them that has one."""
        session = self._world.open(self.case.task, 0)
        for reply in reversed(replies):
            shown = [] if reply.error else _texts(json.loads(reply.text))
            wrong = [value for value in shown if session.outcome(value).solved == 0.0]
            if wrong:
                return wrong[0]
        return None

    def _stray(self, last: ToolCall | None, rng: np.random.Generator) -> ToolCall:
        """A call of an API that the task does not need, else of one that it needs with an argument that names nothing.
        It must not be one whose first call fails, which a solution has to meet."""
        task, hiccup = self.case.task, self.case.hiccup
        spared = [tool for tool in task.tools if tool.name not in self.case.reference.relevant_tools]
        useless = spared or [tool for tool in task.tools if hiccup is None or tool.name != hiccup.api]
        tool = useless[int(rng.integers(len(useless)))]
        known = next(iter(last.arguments.values())) if last and spared else "nothing"
        properties = tool.parameters["properties"]
        values = {name: known if properties[name]["type"] == "string" else 1 for name in tool.parameters["required"]}
        return ToolCall(name=tool.name, arguments=values)


def _action(call: ToolCall | None, note: str = "") -> Action | None:
    return None if call is None else Action(thought=note, calls=(call,))


def _texts(reply: object) -> list[str]:
    if isinstance(reply, list):
        return [text for item in reply for text in _texts(item)]
    if isinstance(reply, dict):
        return [text for item in reply.values() for text in _texts(item)]
    return [] if isinstance(reply, bool) else [str(reply)]


def skill_for(policies: Sequence[Scripted], solved: float) -> float:
    """The skill at which these policies solve the share `solved` of their tasks on average, by bisection."""
    low, high = -5.0, 15.0
    for _ in range(30):
        middle = (low + high) / 2
        found = float(np.mean([policy.values(middle)[0][0, 0, 0] for policy in policies]))
        low, high = (middle, high) if found < solved else (low, middle)
    return (low + high) / 2
