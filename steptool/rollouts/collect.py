"""Attempts of a policy folder in the configured world, shared by `sample` and `evaluate`.

What a fault of the engine or the world ended is made again (`tries`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from steptool.config.places import MERGED
from steptool.config.plugins import Use
from steptool.config.settings import Params
from steptool.core.plugins import revision_of
from steptool.core.storage import file_hash, read_json
from steptool.core.types import Conditions, Revision, Sampling, Task, Trajectory, content_hash
from steptool.engines.base import Engine, Generation, Request
from steptool.formats.base import Format
from steptool.policies.asked import Asked
from steptool.policies.canary import ask_engine, read_canary
from steptool.policies.folder import plain_weights
from steptool.policies.model_folder import load_tokenizer
from steptool.policies.precision import compute_dtype
from steptool.rollouts.base import Attempt, Search
from steptool.rollouts.loop import run
from steptool.rollouts.tries import refuse_broken, tried, warn_of_agents
from steptool.worlds.base import Ends, World

CONFIG = "config.json"
NO_ARCHITECTURE = {
    *("_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}
"""Keys of a model's config that do not keep an engine from swapping weights in: how they were written, and the tokens
of a generation, which a format chooses here."""


class Sampler:
    """World, format, engine and search of params.yaml, with one policy at a time. `close` frees the engine."""

    def __init__(self, params: Params, *, seed: int) -> None:
        self.params, self.seed = params, seed
        self.dtype = compute_dtype(params.model)
        self.world: World = params.world.build(params.seed)
        self.search: Search = params.acting_search.build()
        self.policy: Revision
        self.asked: Asked | None = None
        """What the engine said to the policy's canary; None where either has none."""
        self.format: Format
        self._engine: Engine | None = None
        self._architecture: Any = None

    def load(self, policy: Path) -> None:
        """Take the policy of a folder, plain or adapter. Another architecture gets an engine of its own.

        Raises ModelError for what cannot be loaded, and where the engine does not compute what the trainer did.
        """
        takes_adapters = getattr(self.params.engine.cls, "takes_adapters", False)
        loadable = nullcontext(policy) if takes_adapters else plain_weights(policy, self.dtype, MERGED)
        with loadable as weights:
            # Before the engine starts: it refuses a model at once.
            self.format = self.params.format.build(load_tokenizer(weights))
            architecture = None if takes_adapters else _architecture(weights)
            if self._engine is not None and architecture == self._architecture:
                self._engine.load(weights)
            else:
                self.close()
                self._engine = self.params.engine.build(
                    weights,
                    dtype=self.dtype,
                    max_model_len=self.params.sample.max_tokens,
                    concurrency=self.params.machine.concurrency,
                    seed=self.seed,
                )
        self._architecture = architecture
        self.asked, canary = None, read_canary(policy)
        logprobs = getattr(self._engine, "logprobs", None)
        if canary is not None and logprobs is not None:
            self.asked = run(ask_engine(logprobs, canary, policy, self.dtype))
        self.policy = Revision(name=str(policy), revision=file_hash(policy))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def conditions(self, sampling: Sampling) -> Conditions:
        """What decides about an attempt beside policy and seed."""
        return Conditions(
            world=world_revision(self.params, self.world),
            format=_revision(self.format, self.params.format),
            engine=_revision(self._engine, self.params.engine),
            dtype=self.dtype,
            search=_revision(self.search, self.params.acting_search),
            sampling=sampling,
        )

    def attempts(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Trajectory]:
        """The answers of `attempts` searches for every task, in the order of the tasks; see `searches`."""
        return [found[0] for found in self.searches(tasks, sampling, attempts, what=what, max_broken=max_broken)]

    def searches(
        self, tasks: Sequence[Task], sampling: Sampling, attempts: int, *, what: str, max_broken: float
    ) -> list[Sequence[Trajectory]]:
        """`attempts` searches for every task, in the order of the tasks: of each its answer, then its other branches.

        Raises what `refuse_broken` raises where more than the share `max_broken` of the answers is lost after TRIES
        tries.
        """
        conditions = self.conditions(sampling)
        jobs = [
            partial(self.search.attempt, self.attempt(task, number, conditions))
            for task in tasks
            for number in range(attempts)
        ]
        found = [_of_one_search(made) for made in tried(jobs, self.params.machine.concurrency, what=what)]
        answers = [each[0] for each in found]
        refuse_broken(answers, max_broken)
        warn_of_agents(answers)
        return found

    def attempt(self, task: Task, number: int, conditions: Conditions) -> Attempt:
        """One that has not begun."""
        return Attempt(
            task=task,
            open=partial(self.world.open, task, number),
            act=partial(self._act, conditions.sampling),
            format=self.format,
            conditions=conditions,
            policy=self.policy,
            seed=number,
            number=number,
            tool_timeout_s=self.params.sample.tool_timeout_s,
        )

    async def _act(self, sampling: Sampling, stream: Sequence[int], most: int, seed: int) -> Generation:
        if self._engine is None:
            raise RuntimeError("no policy is loaded")
        return await self._engine.generate(
            Request(stream, most, sampling.temperature, sampling.top_p, seed, self.format.stop_ids)
        )


def sampling_of(params: Params) -> Sampling:
    """How the policies of a project sample, as params.yaml has it."""
    wanted = params.sample
    return Sampling(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        max_calls=wanted.max_calls,
        max_step_tokens=wanted.max_step_tokens,
        max_tokens=wanted.max_tokens,
    )


def measured_sampling(params: Params) -> Sampling:
    """How a policy acts where it is measured: the same budget, at the temperature of `evaluate`."""
    return sampling_of(params).model_copy(update={"temperature": params.evaluate.temperature, "top_p": 1.0})


def _of_one_search(branches: Sequence[Trajectory]) -> Sequence[Trajectory]:
    """The branches of a search, each with the same `search`; what is alone needs none."""
    if len(branches) == 1:
        return branches
    search = content_hash([branch.id for branch in branches])
    return [Trajectory.create(**{**dict(branch), "search": search}) for branch in branches]


@contextmanager
def open_sampler(params: Params, policy: Path | None, *, seed: int) -> Iterator[Sampler]:
    """A sampler with the policy of folder `policy`, none yet where it is None. Its engine, search and world end with
    the block."""
    sampler = Sampler(params, seed=seed)
    try:
        if policy is not None:
            sampler.load(policy)
        yield sampler
    finally:
        sampler.close()
        for part in (sampler.search, sampler.world):
            if isinstance(part, Ends):
                part.end()


def world_revision(params: Params, world: World) -> Revision:
    """Of the world and of the seed that it was made with."""
    found = _revision(world, params.world)
    return Revision(name=found.name, revision=content_hash([found.revision, params.seed]))


def _revision(plugin: object, use: Use) -> Revision:
    return revision_of(plugin, use.config)


def _architecture(weights: Path) -> Any:
    """What of a model's config must be equal for an engine to swap its weights in."""
    config = read_json(weights / CONFIG)
    return {key: value for key, value in config.items() if key not in NO_ARCHITECTURE}
