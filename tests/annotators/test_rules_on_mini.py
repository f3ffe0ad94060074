"""On the bundled world's demonstrations the rules agree with how those were made."""

from __future__ import annotations

from steptool.annotators.rules import annotate
from steptool.worlds.mini import MiniWorld, expert_demonstrations


def test_every_needed_call_of_a_solved_demonstration_contributes() -> None:
    world = MiniWorld(17, 90, 30, 30)
    tasks = {task.id: task for task in world.all_tasks("train")}
    solved = 0
    for trajectory in expert_demonstrations(world, 60, 0.2, 17):
        task = tasks[trajectory.task_id]
        scored = annotate(trajectory, task, world.reset(task, 0).verify(trajectory.answer))
        solved += scored.solved == 1
        for step, judgement in zip(trajectory.steps, scored.judgements[:-1], strict=False):
            assert step.observation is not None
            assert judgement.success == (step.observation.error is None)
            if scored.solved == 1 and judgement.success and not judgement.reason.startswith("repeats"):
                assert judgement.contribution, (task.query, judgement.reason)
    assert solved == 48  # of 60, a fifth of which was made flawed
