"""Rollouts of a policy folder in the configured world, shared by `sample` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from steptool.params import Params
from steptool.progress import progress
from steptool.rollouts.chat_format import ChatFormat
from steptool.rollouts.engine import Engine
from steptool.rollouts.rollout import rollout, run_rollouts
from steptool.stages.common import MERGED
from steptool.storage import file_hash
from steptool.training.base_model import load_tokenizer
from steptool.training.policy_folder import plain_weights
from steptool.training.precision import Dtype, compute_dtype
from steptool.types import Revision, Sampling, Task, Trajectory
from steptool.worlds import World, open_world


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

    def attempts(self, tasks: list[Task], sampling: Sampling, attempts: int, *, what: str) -> list[Trajectory]:
        """`attempts` trajectories of every task, in the order of the tasks."""
        jobs = [
            partial(
                rollout,
                task,
                self.world.reset(task, attempt),
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
        with progress(what, len(jobs), "trajectories") as advance:
            return self.engine.run(run_rollouts(jobs, self.params.sample.concurrency, lambda _: advance(1)))


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
            concurrency=params.sample.concurrency,
            seed=seed,
        )
    try:
        yield Sampler(engine, chat, _revision(policy), open_world(params.world, params.seed), params, dtype)
    finally:
        engine.close()


def _revision(policy: Path) -> Revision:
    return Revision(name=str(policy), revision=file_hash(policy))
