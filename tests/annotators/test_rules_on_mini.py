"""On the bundled world's demonstrations the rules agree with how those were made."""

from __future__ import annotations

import asyncio

from steptool.annotators.rules import Rules
from steptool.worlds.mini import MiniWorld


def test_every_needed_call_of_a_solved_demonstration_contributes() -> None:
    world = MiniWorld(MiniWorld.Config(train_tasks=90, dev_tasks=30, test_tasks=30), seed=17)
    tasks = {task.id: task for task in world.tasks("train")}
    rules = Rules(Rules.Config())
    solved = 0
    for trajectory in world.demonstrations(60, 0.2, 17):
        task = tasks[trajectory.task_id]
        *judgements, verdict = asyncio.run(rules.annotate(trajectory, task, world.reference(task)))
        solved += verdict.solved == 1
        for step, judgement in zip(trajectory.steps[:-1], judgements, strict=True):
            assert judgement.success == (step.observations[0].error is None)
            if verdict.solved == 1 and judgement.success and not judgement.reason.startswith("repeats"):
                assert judgement.contribution, (task.query, judgement.reason)
    assert solved == 48  # of 60, a fifth of which was made flawed
