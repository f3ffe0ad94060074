"""Rollouts of a policy folder in the configured world, shared by `sample` and `evaluate`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from steptool.params import Params
from steptool.progress import progress
from steptool.rollouts.chat_format import ChatFormat
from steptool.rollouts.engine import Engine
from steptool.rollouts.rollout import rollout, run_rollouts
from steptool.stages.common import WORK
from steptool.storage import file_hash
from steptool.training.model import merge_adapter, resolve_policy
from steptool.types import Revision, Sampling, Task, Trajectory
from steptool.worlds import MiniWorld, RecordedWorld, open_world


@dataclass
class Sampler:
    """An engine that holds one policy at a time."""

    engine: Engine
    chat: ChatFormat
    policy: Revision
    world: MiniWorld | RecordedWorld
    params: Params

    def load(self, policy: Path) -> None:
        """Swap in the weights of another policy of the same architecture."""
        with plain_weights(policy, self.params.model.dtype) as weights:
            self.engine.reload(weights)
        self.policy = _revision(policy)

    def attempts(self, tasks: list[Task], sampling: Sampling, attempts: int, *, what: str) -> list[Trajectory]:
        """`attempts` trajectories of every task, in the order of the tasks."""
        jobs = [(task, attempt) for task in tasks for attempt in range(attempts)]
        with progress(what, len(jobs), "trajectories") as advance:
            todo = [
                lambda task=task, attempt=attempt: rollout(  # type: ignore[misc]
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
                for task, attempt in jobs
            ]
            return self.engine.run(run_rollouts(todo, self.params.sample.concurrency, lambda _: advance(1)))


@contextmanager
def generate(params: Params, policy: Path, *, seed: int) -> Iterator[Sampler]:
    """A sampler for the policy of folder `policy`, plain or adapter."""
    with plain_weights(policy, params.model.dtype) as weights:
        engine = Engine(
            weights,
            dtype=params.model.dtype,
            max_model_len=params.sample.max_tokens,
            concurrency=params.sample.concurrency,
            seed=seed,
        )
        chat = ChatFormat(AutoTokenizer.from_pretrained(weights))
    try:
        yield Sampler(engine, chat, _revision(policy), open_world(params.world, params.seed), params)
    finally:
        engine.close()


def _revision(policy: Path) -> Revision:
    return Revision(name=str(policy), revision=file_hash(policy))


@contextmanager
def plain_weights(policy: Path, dtype: str) -> Iterator[Path]:
    """The folder itself, or for an adapter a temporary one with the adapter merged into its base."""
    resolved = resolve_policy(policy)
    if resolved.adapter is None:
        yield policy
        return
    merged = WORK / "merged" / policy.name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    try:
        merge_adapter(resolved.base, resolved.adapter, merged, dtype=dtype)
        yield merged
    finally:
        shutil.rmtree(merged, ignore_errors=True)
