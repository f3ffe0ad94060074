"""Scores success and contribution of every step by fixed rules, without a model and without randomness.

success       1 if the action parses, names exactly one offered tool, its arguments fit that tool's JSON
              schema, and the reply is neither an error nor empty; else 0. A message succeeds if the user
              replies to it.

contribution  what became of the reply. Credit starts at the answer with 1 and flows backwards:

                  contribution_i = max over the later calls that use i of their own credit

              A call uses i when it holds, as whole words of a declared argument or of the answer, a value
              that the reply of i was first to show. So a repeated call, an echo of the question, a dead
              end, and every call of a trajectory that never answers get 0. So does a failed call, but
              where its error said how to go on, credit passes through to what led there.

consulted     "Which is cheaper, A or B?" is answered by A, a word of the question: the prices behind the
              choice are used but never said again. A successful call of a relevant tool that showed
              something new, and whose arguments lead back to the query, therefore counts `consulted`
              when an answer follows. Each thing that the query names vouches for one call of each tool,
              so walking through a long list earns it once.

solved        what the session recorded; 0 without an answer, but None where the world cannot tell.

grounded      of the last step: 1 if the answer holds a value that a successful call was first to show, or if it is
              in words of the query and a call that leads back to the query showed something new; else 0.

builds        1 for a step that uses, in a call or in the answer, what a successful call was first to show and no step
              before it has used; else 0. So a chain of n calls, each using what the one before it showed, is built n
              times: by its calls from the second on, and by the answer. A repeated call, a call on the side and an
              answer that holds a value of every reply build nothing more.

A step that makes several calls at the same time succeeds by the share of them that succeed, and contributes
what the best of them does.

These replace the released heuristics of arXiv 2410.07745, where an empty tool name succeeds (suffix
match) and contribution measures the ratio of two text lengths.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from steptool.core.errors import DataError
from steptool.core.fields import Fraction, Settings
from steptool.core.types import Judgement, Reference, StopReason, Task, ToolCall, Trajectory
from steptool.trajectories import words as v
from steptool.trajectories.links import Move, argument_links, fresh_values, moves_of, used_moves

UNJUDGED = "no exact check for this answer"
"""`Judgement.reason` of an answer that the world cannot check."""


class Rules:
    name = "rules"

    class Config(Settings):
        consulted: Fraction = 0.5
        """Contribution of a call that was consulted for the answer."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """Raises DataError if the trajectory is of another task, or a tool's parameters are not a JSON schema."""
        if trajectory.task_id != task.id:
            raise DataError(
                f"belongs to task {trajectory.task_id}, not to {task.id}",
                where=f"trajectory {trajectory.id}",
                fix="annotate it with its own task",
            )
        if not trajectory.steps:
            return ()
        moves = moves_of(trajectory)
        faults = [_fault(move, task) for move in moves]
        fresh = fresh_values(moves, task.query)
        links = _links(trajectory, task, moves, fresh)
        credits, reasons = self._contributions(trajectory, task, reference, moves, faults, fresh, links)
        builds, grounded = _first_used(trajectory, task, moves, faults, fresh, links)
        judgements = []
        for step in range(len(trajectory.steps) - 1):
            own = [index for index, move in enumerate(moves) if move.step == step]
            scores = {
                "success": sum(faults[index] is None for index in own) / len(own),
                "contribution": max(credits[index] for index in own),
                "builds": builds[step],
            }
            reason = "; ".join(faults[index] or reasons[index] for index in own)
            judgements.append(Judgement(scores=scores, reason=reason))
        verdict = _verdict(trajectory, reference)
        answered = {"grounded": grounded, "builds": builds[-1]}
        return (*judgements, verdict.model_copy(update={"scores": verdict.scores | answered}))

    def _contributions(
        self,
        trajectory: Trajectory,
        task: Task,
        reference: Reference,
        moves: list[Move],
        faults: list[str | None],
        fresh: list[list[str]],
        links: list[list[int]],
    ) -> tuple[list[float], list[str]]:
        """Contribution and its reason for every move; one pass from the last to the first."""
        last = len(moves) - 1  # of an answered trajectory the answer
        credit = [0.0] * len(moves)
        why = [_unused(moves, index, fresh, faults) for index in range(len(moves))]
        if trajectory.stop_reason is not StopReason.finished:
            return credit, why
        credit[last] = 1.0
        for index in _consulted(moves, task, reference, fresh, links, faults):
            credit[index], why[index] = self.config.consulted, "consulted for the answer"
        for user in range(last, 0, -1):
            for source in links[user]:
                if credit[user] > credit[source]:
                    credit[source] = credit[user]
                    why[source] = "used in the answer" if user == last else f"used by step {moves[user].step}"
        # A failed call whose error said how to go on passes its credit on and keeps none.
        return [own if fault is None else 0.0 for own, fault in zip(credit, faults, strict=True)], why


def _links(trajectory: Trajectory, task: Task, moves: list[Move], fresh: list[list[str]]) -> list[list[int]]:
    """Per move, the moves that it uses; the last move of an answered attempt is its answer."""
    links = argument_links(moves, fresh, lambda tool, argument: _declares(task, tool, argument))
    if trajectory.stop_reason is StopReason.finished:
        is_solved = trajectory.outcome.solved == 1
        links[-1] = used_moves(trajectory.answer or "", fresh[:-1], copies_count=is_solved)
    return links


def _first_used(
    trajectory: Trajectory,
    task: Task,
    moves: list[Move],
    faults: list[str | None],
    fresh: list[list[str]],
    links: list[list[int]],
) -> tuple[list[float], float]:
    """Of each step, 1 where it is the first to use a call; and 1 where the answer uses any."""
    judged = zip(moves, faults, fresh, strict=True)
    shows = [move.call is not None and fault is None and bool(new) for move, fault, new in judged]
    uses = [{source for source in sources if shows[source]} for sources in links]
    answer = v.run(trajectory.answer or "")
    is_answered = trajectory.stop_reason is StopReason.finished
    if is_answered and not uses[-1] and answer and answer in v.run(task.query):
        roots = _roots(moves, task, links)
        uses[-1] = {index for index, root in enumerate(roots) if root and shows[index]}
    builds, used = [0.0] * len(trajectory.steps), set[int]()
    for step in range(len(builds)):
        own = {source for move, sources in zip(moves, uses, strict=True) if move.step == step for source in sources}
        builds[step] = float(not own <= used)
        used |= own
    return builds, float(is_answered and bool(uses[-1]))


def _verdict(trajectory: Trajectory, reference: Reference) -> Judgement:
    solved = trajectory.outcome.solved
    if trajectory.stop_reason is not StopReason.finished:
        # A session that broke gave no outcome: where the task has a check, its attempt did not solve it.
        known = solved is not None or reference.can_be_checked
        return Judgement(scores={"solved": 0.0 if known else None}, reason=f"no answer: {trajectory.stop_reason.value}")
    reasons = {None: UNJUDGED, 1.0: "right answer", 0.0: "wrong answer"}
    return Judgement(scores={"solved": solved}, reason=reasons.get(solved, trajectory.outcome.evidence))


def _fault(move: Move, task: Task) -> str | None:
    """Why a move did not succeed, or None."""
    if move.action.unreadable is not None:
        return f"not a call: {move.action.unreadable}"
    if move.call is not None:
        offered = [tool for tool in task.tools if tool.name == move.call.name]
        if len(offered) != 1:
            return f"{len(offered)} offered tools are named {move.call.name!r}"
        if problem := _argument_problem(move.call, json.dumps(offered[0].parameters, sort_keys=True)):
            return f"bad arguments: {problem}"
    if move.observation is None:
        return "no reply"
    if move.observation.error is not None:
        return f"error: {move.observation.error}"
    reply = v.parse(move.observation.text)
    if isinstance(reply, dict) and reply.get("error"):
        return "error: the reply says so"
    return "empty reply" if v.is_empty(reply) else None


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Draft202012Validator:
    parsed = json.loads(schema)
    Draft202012Validator.check_schema(parsed)
    return Draft202012Validator(parsed, registry=Registry())  # an empty registry: a $ref is never fetched


def _argument_problem(call: ToolCall, schema: str) -> str | None:
    try:
        problem = best_match(_validator(schema).iter_errors(call.arguments))
    except (SchemaError, Unresolvable, RecursionError, ArithmeticError, ValueError) as error:
        raise DataError(  # the last three: a $ref to itself, a divisor too small, a $ref that is no address
            f"its parameters are not a JSON schema: {(str(error) or type(error).__name__).splitlines()[0]}",
            where=f"tool {call.name}",
            fix="mend the schema in the world that offers the tool",
        ) from error
    return problem.message[:120] if problem else None


def _declares(task: Task, tool: str, argument: str) -> bool:
    found = task.tool(tool)
    return found is not None and argument in found.parameters.get("properties", {})


def _unused(moves: list[Move], index: int, fresh: list[list[str]], faults: list[str | None]) -> str:
    move = moves[index]
    if move.call is not None:
        earlier = (other for other, fault in zip(moves[:index], faults, strict=False) if fault is None)
        repeated = next((other.step for other in earlier if other.call == move.call), None)
        if repeated is not None:
            return f"repeats step {repeated}"
    return "its reply was not used" if fresh[index] else "its reply says nothing new"


def _consulted(
    moves: list[Move],
    task: Task,
    reference: Reference,
    fresh: list[list[str]],
    links: list[list[int]],
    faults: list[str | None],
) -> list[int]:
    """Moves that count as consulted: calls of relevant tools that show something new and lead back to the query."""
    roots = _roots(moves, task, links)
    vouched: set[tuple[str, frozenset[str]]] = set()
    found = []
    for index, move in enumerate(moves[:-1]):
        if move.call is None or faults[index] is not None or not fresh[index] or not roots[index]:
            continue
        mark = (move.call.name, roots[index])
        if move.call.name in reference.relevant_tools and mark not in vouched:
            vouched.add(mark)
            found.append(index)
    return found


def _roots(moves: list[Move], task: Task, links: list[list[int]]) -> list[frozenset[str]]:
    """Of each move but the last, the things named in the query that its arguments lead back to."""
    query = v.run(task.query)
    roots: list[frozenset[str]] = []
    for index, move in enumerate(moves[:-1]):
        arguments = [v.run(leaf) for leaf in v.leaves(move.arguments)]
        named = frozenset(argument for argument in arguments if argument and argument in query)
        roots.append(named.union(*(roots[source] for source in links[index])))
    return roots
