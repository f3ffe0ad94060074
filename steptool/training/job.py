"""One training: the policy that it starts from, its data, and the folder of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from steptool.core.types import Reference, ScoredTrajectory, Task, Trajectory
from steptool.formats.base import Format
from steptool.formats.episode import encode
from steptool.policies.precision import Dtype
from steptool.rewards.base import RewardForm
from steptool.training.episode import Episode, episode, written_episode

Stream = tuple[tuple[int, ...], tuple[bool, ...]]

OnMetrics = Callable[[int, dict[str, float]], None]
"""Called after each optimiser step with its number, from 1, and its metrics."""


@dataclass(frozen=True)
class Data:
    """The data that an arm names, with their tasks and references. What the arm does not name is empty."""

    format: Format
    """With the tokenizer of the policy that the training starts from."""
    reward: RewardForm
    scored: Sequence[ScoredTrajectory] = ()
    """The attempts of its rounds, in the order that the arm names them."""
    demonstrations: Sequence[Trajectory] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """The training tasks by id."""
    references: Mapping[str, Reference] = field(default_factory=dict)
    """What is known of these tasks, by id."""

    def stream(self, attempt: Trajectory) -> Stream | None:
        """The token stream of an attempt, sampled or written by the format, and its mask, True on the tokens of
        actions. None where the format cannot write what was done, such as a message to the user.
        """
        try:
            return encode(self.format, self.tasks[attempt.task_id], attempt.steps)
        except ValueError:
            return None

    def attempt(self, scored: ScoredTrajectory) -> Episode | None:
        """An attempt whose likelihood is learned from, which is the model's own at temperature 1: without rewards, and
        where it is imported without the log-probabilities of an engine. None where nothing was sampled, or the format
        cannot write it. Raises what `episode` raises.
        """
        if scored.trajectory.conditions is None:
            stream = self.stream(scored.trajectory)
            return stream and written_episode(scored.trajectory, *stream)
        sampled = episode(scored, [0.0] * len(scored.judgements))
        return sampled and replace(sampled, temperature=1.0)

    def streams(self) -> Iterator[Sequence[int]]:
        """The token streams of the attempts, or of the demonstrations where there is none; without those that the
        format cannot write."""
        attempts = (item.trajectory for item in self.scored) if self.scored else iter(self.demonstrations)
        for attempt in attempts:
            if attempt.conditions is not None:
                yield attempt.token_ids
            elif stream := self.stream(attempt):
                yield stream[0]


@dataclass(frozen=True)
class Job:
    start: Path
    """Folder of the policy to train."""
    out: Path
    """An existing folder, where the trained policy is written."""
    data: Data
    seed: int
    dtype: Dtype
    """That the model computes in; what trains stays in float32."""
    row_tokens: int
    """Most tokens of one packed row. It decides how much memory is needed, and changes nothing that is learned."""
    on_metrics: OnMetrics = lambda step, metrics: None
    checkpoint_dir: Path | None = None
    """Where the state of an interrupted training is kept; None keeps none."""
