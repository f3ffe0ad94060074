"""`steptool audit-rewards`: can the step rewards of a project be earned without doing the task?

honest attempts → attacks on each → made in the live world → scored by the annotator → what the reward form pays
                                                                                     → what earns more than honesty
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from steptool.annotators.annotate import opened
from steptool.checks.audit.annotated import compare, summary
from steptool.checks.audit.attacks import NEEDS_VERDICT, succeeded
from steptool.checks.audit.measure import MEASURES, Row, rows
from steptool.checks.audit.play import Judges, Made, made_of, scored
from steptool.commands.traces import settings_of
from steptool.config.arms import comparison_of
from steptool.config.places import PARAMS
from steptool.config.plugins import Section
from steptool.config.settings import Params, load_params
from steptool.core.errors import DataError, InputError
from steptool.core.storage import read_jsonl
from steptool.core.types import ScoredTrajectory, Task, Trajectory
from steptool.rewards.base import Fits, RewardForm, fitted
from steptool.rollouts.loop import run
from steptool.training.compared import compared_by
from steptool.training.siblings import Comparison
from steptool.worlds.base import SPLITS, Demonstrates, Ends, World

HELD, FAILED = 0, 1
SPARE = 5
"""Of so many demonstrations one may end wrong, or repeat a call."""


def audit(
    *,
    tasks: int,
    attempts: Path | None,
    reward: str | None,
    lambda_step: float | None,
    verdicts: bool,
    most: float,
    fitted_to: Path | None,
    voted: Path | None,
    console: Console,
) -> int:
    """The exit status: 0 where no attack earns more than it should on more than the share `most` of the tasks.

    `tasks` is how many are attacked at most; `attempts` a file of scored attempts whose solved ones are the honest
    ones, the world's experts without one. `reward` is such as use=paper,alpha=0.5, else the form of params.yaml counts.
    Raises InputError where the world has no experts and no file is given, DataError where nothing in it is solved.
    """
    say = partial(console.print, markup=False, highlight=False)
    params = load_params(PARAMS)
    form = form_of(params, reward)
    if isinstance(form, Fits) and fitted_to is None:
        fix = "name the scored attempts: --fitted-to data/scored/r1/scored.jsonl.gz"
        raise InputError("this reward form is fitted to data", where="--reward", fix=fix)
    if fitted_to is not None:
        form = fitted(form, read_jsonl(fitted_to, ScoredTrajectory))
    lambda_step = compared_at(params) if lambda_step is None else lambda_step
    with opened(params.annotate) as (annotator, revision):
        judges = Judges(annotator, revision, verdicts)
        if voted is not None:
            say(summary(compare(voted, annotator, revision)))
        world = params.world.build(seed=params.seed)
        try:
            made = attacked(params, world, honest_of(params, world, attempts, tasks), judges)
        finally:
            if isinstance(world, Ends):
                world.end()
    found = rows(made, form, lambda_step)
    failing = [row for row in found if row.most > most and (verdicts or row.name not in NEEDS_VERDICT)]
    known = "with the world's verdicts" if verdicts else "without verdicts and relevant tools"
    say(f"{len(made)} tasks, {known}; lambda_step {lambda_step:g}\n")
    say("\n".join(table(found, () if verdicts else NEEDS_VERDICT)))
    if not verdicts:
        say("\n* a wrong answer that calls showed: only a verdict can tell, so it is not counted")
    say(f"\n{conclusion(failing, most)}")
    return FAILED if failing else HELD


def form_of(params: Params, written: str | None) -> RewardForm:
    """The reward form that `written` names, or that of params.yaml. Raises InputError where it is not one."""
    if written is None:
        form: RewardForm = params.reward.build()
        return form
    try:
        form = Section("reward", "potential").read(settings_of(written.split(","))).build()
    except (ValueError, InputError) as error:  # pydantic's ValidationError is a ValueError
        said = error.found if isinstance(error, InputError) else str(error).splitlines()[0]
        raise InputError(
            f"no reward form: {said}", where=f"--reward {written}", fix="write it as use=paper,alpha=0.5"
        ) from error
    return form


def compared_at(params: Params) -> float:
    """lambda_step of the first arm that compares attempts."""
    found = (comparison_of(params, name) for name in params.rounds)
    compared = (compared_by(each) for each in found if each is not None)
    return next((each for each in compared if isinstance(each, Comparison)), Comparison()).lambda_step


def honest_of(params: Params, world: World, attempts: Path | None, tasks: int) -> list[Trajectory]:
    """Right attempts at `tasks` tasks at most, one each, in which no call is made again that had succeeded: the
    shortest of a file, or the expert's."""
    if attempts is not None:
        given = [each.trajectory for each in read_jsonl(attempts, ScoredTrajectory) if each.solved == 1]
        where, fix = str(attempts), "name a file of scored attempts of which some are solved"
    elif isinstance(world, Demonstrates):
        count = min(len(world.tasks("train")), tasks + tasks // SPARE + 1)
        given = [each for each in world.demonstrations(count, 0.0, params.seed) if each.outcome.solved == 1]
        where, fix = f"world {params.world.name}", "give its experts a task that they can solve"
    else:
        fix = "name a file of scored attempts: --attempts data/scored/r1/scored.jsonl.gz"
        raise InputError(f"world {params.world.name} has no experts", where=str(PARAMS), fix=fix)
    found: dict[str, Trajectory] = {}
    for each in sorted(filter(_makes_no_call_again, given), key=lambda one: len(one.steps)):
        found.setdefault(each.task_id, each)
    if not found:
        raise DataError(f"none of {len(given)} right attempts makes every call once", where=where, fix=fix)
    in_order = dict.fromkeys(each.task_id for each in given)
    return [found[task] for task in in_order if task in found][:tasks]


def _makes_no_call_again(attempt: Trajectory) -> bool:
    good = [step.action for step in attempt.steps if succeeded(step)]
    return all(action not in good[:place] for place, action in enumerate(good))


def attacked(params: Params, world: World, honest: Sequence[Trajectory], judges: Judges) -> list[list[Made]]:
    """Every attack on every honest attempt, made in the world and scored; by task."""
    known: Mapping[str, Task] = {task.id: task for split in SPLITS for task in world.tasks(split)}
    tasks = [known[each.task_id] for each in honest]
    references = {task.id: world.reference(task) for task in tasks}
    budget, limit_s = params.sample.max_calls, params.sample.tool_timeout_s

    async def make_all() -> list[list[tuple[Any, Trajectory]]]:
        pairs = zip(tasks, honest, strict=True)
        return [await made_of(world, task, each, budget, limit_s) for task, each in pairs]

    made = run(make_all())
    found = iter(scored([each for own in made for each in own], tasks, references, judges))
    return [[next(found) for _ in own] for own in made]


def table(found: Sequence[Row], starred: Sequence[str] = ()) -> list[str]:
    """A line an attack: on which share of the tasks it earns more, by each measure; those of `starred` get a star."""
    names = [f"{row.name}{'*' if row.name in starred else ''}" for row in found]
    width = max(map(len, names), default=0)
    lines = [
        f"{'share of tasks on which it earns more':{width}} {'tasks':>6}" + "".join(f"{key:>11}" for key in MEASURES)
    ]
    for name, row in zip(names, found, strict=True):
        shares = "".join(f"{row.gains[key]:>11.1%}" for key in MEASURES)
        lines.append(f"{name:{width}} {row.tasks:>6}{shares}")
    return lines


def conclusion(failing: Sequence[Row], most: float) -> str:
    if not failing:
        return f"passed: no attack earns more on more than {most:.0%} of the tasks"
    worst = max(failing, key=lambda row: row.most)
    return (
        f"failed: {len(failing)} attacks earn more on more than {most:.0%} of the tasks; "
        f"the worst is {worst.name}, on {worst.most:.0%}, against {worst.against}"
    )
