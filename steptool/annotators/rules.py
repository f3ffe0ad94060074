"""Success and contribution of every step by rules: no judge, no randomness, the same verdict each time.

success       1 if the action parses, names exactly one offered tool, its arguments fit that tool's JSON
              schema, and the reply is neither an error nor empty; else 0.

contribution  what became of the reply. Credit starts at an answering `Finish` with 1 and flows backwards:

                  contribution_i = max over the later steps that use i of their own credit

              A step uses i when it holds, as whole words of a declared argument or of the answer, a value
              that the reply of i was first to show (see `usage`). So a repeated call, an echo of the
              question, a dead end, and every call of a trajectory that never answers get 0. So does a
              failed call, but where its error said how to go on, credit passes through to what led there.

consulted     "Which is cheaper, A or B?" is answered by A, a word of the question: the prices behind the
              choice are used but never said again. A successful call of a relevant tool that showed
              something new, and whose arguments lead back to the query, therefore counts 0.5 when an
              answer follows. Each thing that the query names vouches for one call of each tool, so
              walking through a long list earns it once.

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
from steptool.core.types import Judgement, Revision, ScoredTrajectory, Step, StopReason, Task, ToolCall, Trajectory
from steptool.trajectories import words as v
from steptool.trajectories.links import argument_links, fresh_values, used_steps

ANNOTATOR = Revision(name="rules", revision="1")
CONSULTED = 0.5
UNJUDGED = "no exact check for this answer: counts as unsolved"
"""`Judgement.reason` of an answer that nothing here can check."""


def annotate(trajectory: Trajectory, task: Task, solved: float | None) -> ScoredTrajectory:
    """Judge every step. `solved` is the world's verdict on the answer, None where it cannot tell, which counts as 0.

    Raises DataError if the trajectory belongs to another task, or a tool's schema is not a JSON schema.
    """
    if trajectory.task_id != task.id:
        raise DataError(
            f"belongs to task {trajectory.task_id}, not to {task.id}",
            where=f"trajectory {trajectory.id}",
            fix="sample again: the tasks changed after the trajectories were made",
        )
    if not trajectory.steps:
        return ScoredTrajectory(trajectory=trajectory, judgements=(), annotator=ANNOTATOR)
    verdict = _solved(trajectory, solved)
    faults = _faults(trajectory, task)
    credits = _contributions(trajectory, task, faults, is_solved=verdict.solved == 1)
    judgements = [
        Judgement(success=float(fault is None), contribution=credit, reason=fault or why)
        for fault, (credit, why) in zip(faults[:-1], credits, strict=True)
    ]
    return ScoredTrajectory(trajectory=trajectory, judgements=(*judgements, verdict), annotator=ANNOTATOR)


def unjudged(scored: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """Those whose answer the world could not check: that they count as unsolved says nothing of them."""
    return [s for s in scored if s.judgements and s.judgements[-1].reason == UNJUDGED]


def _solved(trajectory: Trajectory, solved: float | None) -> Judgement:
    if trajectory.stop_reason is not StopReason.finished:
        return Judgement(solved=0.0, reason=f"no answer: {trajectory.stop_reason.value}")
    if solved is None:
        return Judgement(solved=0.0, reason=UNJUDGED)
    return Judgement(solved=solved, reason="right answer" if solved == 1 else "wrong answer" if solved == 0 else "")


def _faults(trajectory: Trajectory, task: Task) -> list[str | None]:
    """Per step why it did not succeed, or None."""
    return [_fault(step, task) for step in trajectory.steps]


def _fault(step: Step, task: Task) -> str | None:
    if step.call is None:
        return f"not a call: {step.parse_error}"
    offered = [tool for tool in task.tools if tool.name == step.call.name]
    if len(offered) != 1:
        return f"{len(offered)} offered tools are named {step.call.name!r}"
    if problem := _argument_problem(step.call, json.dumps(offered[0].parameters, sort_keys=True)):
        return f"bad arguments: {problem}"
    if step.observation is None:
        return "no reply"
    if step.observation.error is not None:
        return f"error: {step.observation.error}"
    reply = v.parse(step.observation.text)
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


def _contributions(
    trajectory: Trajectory, task: Task, faults: list[str | None], *, is_solved: bool
) -> list[tuple[float, str]]:
    """Contribution and its reason for every step before the last; one pass from the last step to the first."""
    last = len(trajectory.steps) - 1
    answered = trajectory.stop_reason is StopReason.finished
    fresh = fresh_values(trajectory, task.query)
    links = argument_links(trajectory, fresh, lambda tool, argument: _declares(task, tool, argument))
    if answered:
        links[last] = used_steps(trajectory.answer or "", fresh[:last], copies_count=is_solved)
    credit = [0.0] * last + [float(answered)]
    why = [_unused(trajectory, index, fresh, faults) for index in range(last)]
    if answered:
        for index in _consulted(trajectory, task, fresh, links, faults):
            credit[index], why[index] = CONSULTED, "consulted for the answer"
    for user in range(last, 0, -1):
        for source in links[user]:
            if credit[user] > credit[source]:
                credit[source] = credit[user]
                why[source] = "used in the answer" if user == last else f"used by step {user}"
    # Credit passes through a failed call whose error said how to go on, and stays with none of them.
    return [(credit[index] if faults[index] is None else 0.0, why[index]) for index in range(last)]


def _declares(task: Task, tool: str, argument: str) -> bool:
    found = task.tool(tool)
    return found is not None and argument in found.parameters.get("properties", {})


def _unused(trajectory: Trajectory, index: int, fresh: list[list[str]], faults: list[str | None]) -> str:
    steps = trajectory.steps
    repeated = next((i for i in range(index) if steps[i].call == steps[index].call and faults[i] is None), None)
    if repeated is not None:
        return f"repeats step {repeated}"
    return "its reply was not used" if fresh[index] else "its reply says nothing new"


def _consulted(
    trajectory: Trajectory, task: Task, fresh: list[list[str]], links: list[list[int]], faults: list[str | None]
) -> list[int]:
    """Steps that count as consulted: relevant, new, and led there by something that the query names."""
    query = v.run(task.query)
    roots: list[frozenset[str]] = []
    vouched: set[tuple[str, frozenset[str]]] = set()
    found = []
    for index, step in enumerate(trajectory.steps[:-1]):
        arguments = [v.run(leaf) for leaf in v.leaves(step.call.arguments)] if step.call else []
        named = frozenset(argument for argument in arguments if argument and argument in query)
        roots.append(named.union(*(roots[source] for source in links[index])))
        if step.call is None or faults[index] is not None or not fresh[index] or not roots[index]:
            continue
        mark = (step.call.name, roots[index])
        if step.call.name in task.relevant_tools and mark not in vouched:
            vouched.add(mark)
            found.append(index)
    return found
