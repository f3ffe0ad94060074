"""Rollouts of a policy folder in the configured world, shared by `sample` and `evaluate`.

An attempt that a fault of the engine or the world ended says nothing of the policy: it is made again, with the same
seed, up to TRIES times, and what is lost then is counted. More lost attempts than the caller allows are an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from steptool.config.places import MERGED
from steptool.config.settings import Params
from steptool.core.errors import ModelError, StepToolError
from steptool.core.storage import file_hash
from steptool.core.types import Revision, Sampling, StopReason, Task, Trajectory
from steptool.engines.vllm_local import Engine
from steptool.formats.json_call import ChatFormat
from steptool.policies.base_models import load_tokenizer
from steptool.policies.folder import plain_weights
from steptool.policies.precision import Dtype, compute_dtype
from steptool.rollouts.rollout import NOT_FINITE, rollout, run_rollouts
from steptool.system.progress import progress
from steptool.worlds import World, open_world

TRIES = 3
"""How often an attempt is made that the engine or the world breaks, the first time included."""


@dataclass
class Sampler:
    """An engine that holds one policy at a time."""

    engine: Engine
    chat: ChatFormat
    policy: Revision
    world: World
    params: Params
    dtype: Dtype

    def load(self, policy: Path) -> None:
        """Swap in the weights of another policy of the same architecture."""
        with plain_weights(policy, self.dtype, MERGED) as weights:
            self.engine.reload(weights)
        self.policy = _revision(policy)

    def attempts(
        self, tasks: list[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        """`attempts` trajectories of every task, in the order of the tasks.

        Raises what `refuse_broken` raises where more than the share `max_broken` of them is lost after TRIES tries.
        """
        jobs = [
            partial(
                rollout,
                task,
                partial(self.world.reset, task, attempt),
                self.engine,
                self.chat,
                sampling,
                policy=self.policy,
                world=self.world.revision,
                seed=attempt,
                attempt=attempt,
                tool_timeout_s=self.params.sample.tool_timeout_s,
            )
            for task in tasks
            for attempt in range(attempts)
        ]
        made: dict[int, Trajectory] = {}
        wanted = list(range(len(jobs)))
        for tries in range(TRIES):
            with progress(f"{what}, try {tries + 1}" if tries else what, len(wanted), "trajectories") as advance:
                again = run_rollouts(
                    [jobs[index] for index in wanted], self.params.machine.concurrency, lambda _: advance(1)
                )
                made |= zip(wanted, self.engine.run(again), strict=True)
            wanted = [index for index in wanted if not made[index].stop_reason.terminated]
            if not wanted:
                break
        trajectories = [made[index] for index in range(len(jobs))]
        refuse_broken(trajectories, max_broken)
        return trajectories


def refuse_broken(trajectories: list[Trajectory], most: float) -> None:
    """Raise ModelError or StepToolError, with the fault that ended most of them, where faults of the engine or the
    world ended more than the share `most` of the attempts.
    """
    broken = [t for t in trajectories if not t.stop_reason.terminated]
    if not broken or len(broken) / len(trajectories) <= most:
        return
    (reason, fault), count = Counter((t.stop_reason, t.error or "") for t in broken).most_common(1)[0]
    found = (
        f"{len(broken)} of {len(trajectories)} attempts ended in a fault of the engine or the world, "
        f"at most {most:.1%} may; {count} of them in {reason.value}: {fault}"
    )
    where = f"policy {broken[0].policy.name}, each attempt tried {TRIES} times"
    if fault.endswith(NOT_FINITE):
        fix = f"make {broken[0].policy.name} again, its weights compute NaN; or set model.dtype: float32 in params.yaml"
        raise ModelError(found, where=where, fix=fix)
    first = next(t.task_id for t in broken if (t.stop_reason, t.error or "") == (reason, fault))
    cause = "`steptool doctor` checks the machine" if reason is StopReason.engine_error else f"first at task {first}"
    raise StepToolError(
        found, where=where, fix=f"mend the cause ({cause}), then run the same command again; nothing was written"
    )


@contextmanager
def generate(params: Params, policy: Path, *, seed: int) -> Iterator[Sampler]:
    """A sampler for the policy of folder `policy`, plain or adapter."""
    dtype = compute_dtype(params.model)
    with plain_weights(policy, dtype, MERGED) as weights:
        chat = ChatFormat(load_tokenizer(weights))  # before the engine starts: it refuses a model at once
        engine = Engine(
            weights,
            dtype=dtype,
            max_model_len=params.sample.max_tokens,
            concurrency=params.machine.concurrency,
            seed=seed,
        )
    try:
        yield Sampler(engine, chat, _revision(policy), open_world(params.world, params.seed), params, dtype)
    finally:
        engine.close()


def _revision(policy: Path) -> Revision:
    return Revision(name=str(policy), revision=file_hash(policy))
