"""One seed of a comparison: its policies, made from the same attempts, and what they do on tasks that they never saw.

    the start (SFT) → attempts of round 1, judged as a corner knows them → the policy of a variant → its cell
                                                                         round 2: attempts of that policy → …

All of it lies in one folder and is made once: a policy, a file of attempts or a cell that is there, from the same
settings, data and code, is taken as it is. Several processes may share the folder: one of them makes a thing, the
others wait for it or go on to other cells. Attempts are data: other code of an engine does not make them anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from benchmarks.habits import Corner, Habits, as_known, habits, within_tasks, without_score
from steptool.annotators.annotate import annotate_all, opened
from steptool.config.arms import arm_of
from steptool.config.places import JUDGED
from steptool.config.plugins import Use
from steptool.config.settings import Params
from steptool.core.errors import DataError, InputError
from steptool.core.revision import MEANS_NOTHING, code_revision
from steptool.core.storage import (
    MANIFEST,
    dumps,
    file_hash,
    output_folder,
    read_json,
    read_jsonl,
    read_record,
    write_bytes,
    write_json,
    write_jsonl,
)
from steptool.core.types import Frozen, Reference, ScoredTrajectory, Task, Trajectory, content_hash
from steptool.evaluation.metrics import Evaluation
from steptool.methods.clipped import ClippedMethod
from steptool.methods.step_ppo_release import StepPpoRelease
from steptool.policies.base_models import fetch_base
from steptool.policies.model_folder import load_tokenizer
from steptool.policies.precision import compute_dtype
from steptool.rewards.base import rewards_of
from steptool.rollouts.collect import Sampler, measured_sampling, open_sampler, sampling_of
from steptool.stages.evaluate import measure_policy
from steptool.stages.rounds import tasks_of_draw
from steptool.stages.sample import MAX_BROKEN
from steptool.training.job import Data, Job
from steptool.training.release import release_rewards
from steptool.worlds.base import SPLITS, World

SFT = "sft"
"""The variant that is not trained any further: what all others start from."""
TRAINED, REFUSED, ATTEMPTS = "trained.json", "refused.json", "trajectories.jsonl.gz"
JUDGING = "benchmarks.habits"
"""The module that says what a corner knows of an attempt."""


LATER = 0.4
"""Learning rate of later rounds over that of the first, as params.yaml has it of the arm `ppo2`."""


@dataclass(frozen=True)
class Variant:
    """A method with its settings, and params.yaml with those that the variant changes."""

    name: str
    params: Params
    method: Use
    hidden: str = ""
    """A score of the calls that its training does not see: it is 0 everywhere."""

    def of_round(self, round: int) -> Use:
        """A later round can break as much as it can gain, so it learns at a lower rate."""
        if round == 1:
            return self.method
        return replace(
            self.method, settings={**self.method.settings, "learning_rate": LATER * self.method.config.learning_rate}
        )


@dataclass(frozen=True)
class Wanted:
    """A policy and how it is measured."""

    corner: Corner
    variant: Variant | None
    """None: the start."""
    round: int
    split: str
    calls: int
    """Most actions of an attempt where it is measured."""

    @property
    def name(self) -> str:
        return self.variant.name if self.variant else SFT

    def label(self, seed: int) -> str:
        """Its file, without the ending, in the folder of cells."""
        return f"{seed}.{self.name}/{self.corner.name}.r{self.round}.{self.split}.c{self.calls}"


class Trained(Frozen):
    """What a training was: trained.json in the folder of a policy. Where the method refused the data, refused.json says
    why."""

    seconds: float
    tokens: int
    """Action tokens that were trained on, those of every epoch counted."""
    sampled: Habits
    """Of the attempts that it learned from, by the true verdicts."""
    paid_for_length: float | None
    """By `paid_for_length`."""
    summary: dict[str, float]


class Cell(Frozen):
    """A policy, measured: one line in a file of its own."""

    seed: int
    corner: str
    variant: str
    round: int
    split: str
    calls: int
    """Most actions of an attempt where it was measured."""
    device: str
    made_by: dict[str, Any]
    refused: str = ""
    """Why the method makes no policy from such data."""
    trained: Trained | None = None
    """None for the start and for a refusal."""
    acted: Habits | None = None
    seconds: float = 0.0
    """Of the measuring."""
    evaluation: Evaluation | None = None


class Bench:
    """One seed under one set of params; what it makes lies in `folder`. A context: its engine ends with the block.

    start: folder of the policy that all start from; None trains the arm `sft` of the params. take_old: whether what
    other code made is taken as it is.
    """

    def __init__(self, params: Params, folder: Path, start: Path | None, *, take_old: bool = False) -> None:
        self.params, self.folder, self.given, self.take_old = params, folder, start, take_old
        world: World = params.world.build(seed=params.seed)
        self.tasks: dict[str, list[Task]] = {split: list(world.tasks(split)) for split in SPLITS}
        known = {task.id: task for tasks in self.tasks.values() for task in tasks}
        self.references: dict[str, Reference] = {name: world.reference(task) for name, task in known.items()}
        self.demonstrations: list[Trajectory] = list(params.demonstrations.build().read(world, known, params.seed))
        self._open = ExitStack()
        self._loaded: Path | None = None
        self._hashes: dict[Path, str] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *fault: object) -> None:
        self._open.close()

    # What is made once

    @cached_property
    def start(self) -> Path:
        if self.given is not None:
            return self.given
        method, folder, base = arm_of(self.params, SFT).method, self.folder / SFT, self.folder / "base"
        if method is None:
            fix = "name a folder for each seed with --start"
            raise InputError("is not trained", where=f"params.yaml: arms.{SFT}", fix=fix)
        dtype = compute_dtype(self.params.model)
        shown = content_hash([demo.id for demo in self.demonstrations])
        made_by = {"method": _described(method), "shown": shown, "base": self.params.model.base, "dtype": dtype}
        with self._to_make(folder, made_by) as is_missing:
            if is_missing:
                with output_folder(base, {}) as out:
                    fetch_base(self.params.model.base, out)
                with output_folder(folder, made_by) as out:
                    data = self._data(self.params, base, demonstrations=self.demonstrations)
                    method.build().train(Job(base, out, data, self.params.seed, dtype, self.params.machine.row_tokens))
        return folder

    def attempts(self, corner: Corner, name: str, policy: Path, round: int) -> list[Trajectory]:
        """Those of `policy` at the tasks of a round, in the folder of `name`."""
        folder = self.folder / "attempts" / name
        demonstrated = self.params.sample.demonstrated
        tasks = tasks_of_draw(self.tasks["train"], self.demonstrations, round - 1, corner.tasks, demonstrated)
        settings = [_plain(getattr(self.params, key)) for key in ("world", "format", "search", "sample")]
        made_by = {
            "policy": self._hash(policy),
            "tasks": content_hash([task.id for task in tasks]),
            "attempts": corner.attempts,
            "settings": content_hash(settings),
        }
        with self._to_make(folder, made_by) as is_missing:
            if is_missing:
                made = self._acting(policy).attempts(
                    tasks, sampling_of(self.params), corner.attempts, what=f"sample {name}", max_broken=MAX_BROKEN
                )
                with output_folder(folder, made_by) as out:
                    write_jsonl(out / ATTEMPTS, made)
        return read_jsonl(folder / ATTEMPTS, Trajectory)

    def first_attempts(self, corner: Corner) -> list[Trajectory]:
        """Those of the start, which all variants of a corner learn from."""
        return self.attempts(corner, f"{corner.tasks}x{corner.attempts}", self.start, 1)

    def policy(self, corner: Corner, variant: Variant, round: int) -> Path:
        """Folder of what a variant makes in so many rounds, of the start for 0. Raises DataError where the method
        refuses the data."""
        if round == 0:
            return self.start
        before = self.policy(corner, variant, round - 1)
        name = f"{corner.name}.{variant.name}.r{round}"
        attempts = self.attempts(corner, name, before, round) if round > 1 else self.first_attempts(corner)
        method, reward, annotate = variant.of_round(round), variant.params.reward, self.params.annotate
        made_by = {
            "start": self._hash(before),
            "attempts": content_hash([attempt.id for attempt in attempts]),
            "corner": asdict(corner),
            "method": _described(method),
            "reward": _plain(reward),
            "hidden": variant.hidden,
            "annotate": _plain(annotate),
            "dtype": compute_dtype(self.params.model),
            "code": code_revision([JUDGING, *_modules(method, reward, annotate)], without=MEANS_NOTHING),
        }
        folder = self.folder / "policies" / name
        with self._to_make(folder, made_by) as is_missing:
            if is_missing:
                with output_folder(folder, made_by) as out:
                    try:
                        trained = self._train(corner, variant, round, before, attempts, out)
                        write_json(out / TRAINED, trained.model_dump(mode="json"))
                    except DataError as error:
                        write_json(out / REFUSED, error.found)
        if (folder / REFUSED).exists():
            raise DataError(read_json(folder / REFUSED), where=str(folder))
        return folder

    def cell(self, wanted: Wanted, folder: Path) -> Cell | None:
        """Its cell, which lies in `folder`; None where another process is making it."""
        label = wanted.label(self.params.seed)
        lock = self.folder / "measuring" / f"{label}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                return self._cell(wanted, folder / f"{label}.json")
        except Timeout:
            return None

    # How

    def _cell(self, wanted: Wanted, file: Path) -> Cell:
        there = read_record(file, Cell) if file.exists() else None
        cell = Cell(
            seed=self.params.seed,
            corner=wanted.corner.name,
            variant=wanted.name,
            round=wanted.round,
            split=wanted.split,
            calls=wanted.calls,
            made_by={},
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        )
        try:
            policy = self.policy(wanted.corner, wanted.variant, wanted.round) if wanted.variant else self.start
        except DataError as error:
            return _written(file, cell.model_copy(update={"refused": error.found}))
        params = self._measured(wanted)
        acting = (params.world, params.format, params.engine, params.acting_search, params.annotate)
        made_by = {
            "policy": self._hash(policy),
            "evaluate": params.evaluate.model_dump(mode="json"),
            "acting": [_plain(used) for used in acting],
            "sampling": measured_sampling(params).model_dump(mode="json"),
            "code": code_revision(_modules(*acting), without=MEANS_NOTHING),
        }
        if there and not there.refused and self._is_same(there.made_by, made_by):
            return there
        began, work = time.monotonic(), self.folder / "measuring" / file.parent.name
        tasks, sampler = self.tasks[wanted.split], self._acting(policy)
        # Its attempts stay there, for whoever wants to see what was learnt.
        evaluation = measure_policy(params, file.stem, sampler, tasks, self.references, wanted.split, {}, work)
        found = {
            "made_by": made_by,
            "trained": read_record(policy / TRAINED, Trained) if wanted.variant else None,
            "acted": habits(read_jsonl(work / f"{file.stem}{JUDGED}", ScoredTrajectory)),
            "seconds": time.monotonic() - began,
            "evaluation": evaluation.model_copy(update={"name": wanted.name}),
        }
        return _written(file, cell.model_copy(update=found))

    def _train(
        self, corner: Corner, variant: Variant, round: int, start: Path, attempts: Sequence[Trajectory], out: Path
    ) -> Trained:
        params, method = variant.params, variant.of_round(round)
        known, references = as_known(attempts, self.references, corner, params.seed)
        scored, truth = self._judged(known, references), self._judged(attempts, self.references)
        if variant.hidden:
            scored = [without_score(item, variant.hidden) for item in scored]
        data = self._data(params, start, scored, references)
        seed, dtype, row_tokens = params.seed + round - 1, compute_dtype(params.model), params.machine.row_tokens
        checkpoints = self.folder / "checkpoints" / f"{corner.name}.{variant.name}.r{round}"
        began = time.monotonic()
        summary = method.build().train(Job(start, out, data, seed, dtype, row_tokens, checkpoint_dir=checkpoints))
        seconds = time.monotonic() - began
        shutil.rmtree(checkpoints, ignore_errors=True)
        return Trained(
            seconds=seconds,
            tokens=int(summary.get("tokens", 0) * passes(method.config)),
            sampled=habits(truth),
            paid_for_length=paid_for_length(method.build(), data),
            summary={key: float(value) for key, value in summary.items()},
        )

    def _judged(self, attempts: Sequence[Trajectory], references: Mapping[str, Reference]) -> list[ScoredTrajectory]:
        with opened(self.params.annotate) as (annotator, revision):
            return annotate_all(
                annotator,
                revision,
                attempts,
                self.tasks["train"],
                references,
                source=self.folder / "attempts",
                what="annotate",
                concurrency=self.params.machine.concurrency,
            )

    def _data(
        self,
        params: Params,
        start: Path,
        scored: Sequence[ScoredTrajectory] = (),
        references: Mapping[str, Reference] | None = None,
        demonstrations: Sequence[Trajectory] = (),
    ) -> Data:
        known = self.references if references is None else references
        return Data(
            format=params.format.build(load_tokenizer(start)),
            reward=params.reward.build(),
            scored=scored,
            demonstrations=demonstrations,
            tasks={task.id: task for task in self.tasks["train"]},
            references={task.id: known[task.id] for task in self.tasks["train"]},
        )

    def _measured(self, wanted: Wanted) -> Params:
        sample = self.params.sample.model_copy(update={"max_calls": wanted.calls})
        evaluate = self.params.evaluate.model_copy(update={"split": wanted.split})
        return self.params.model_copy(update={"sample": sample, "evaluate": evaluate})

    def _acting(self, policy: Path) -> Sampler:
        """The engine, which acts as `policy`."""
        if self._loaded != policy:
            self._sampler.load(policy)
            self._loaded = policy
        return self._sampler

    @cached_property
    def _sampler(self) -> Sampler:
        return self._open.enter_context(open_sampler(self.params, None, seed=self.params.seed + 1))

    def _hash(self, policy: Path) -> str:
        if policy not in self._hashes:
            self._hashes[policy] = file_hash(policy)
        return self._hashes[policy]

    @contextmanager
    def _to_make(self, folder: Path, made_by: dict[str, Any]) -> Iterator[bool]:
        """Has `folder` to be made? No other process makes it while the block runs."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            there = read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else None
            yield there is None or not self._is_same(there, made_by)
            self._hashes.pop(folder, None)

    def _is_same(self, there: Mapping[str, Any], made_by: Mapping[str, Any]) -> bool:
        ignored = {"code"} if self.take_old else set()
        return all(there.get(key) == value for key, value in made_by.items() if key not in ignored)


def paid_for_length(method: Any, data: Data) -> float | None:
    """Correlation within tasks of what an attempt is paid, as the method has it, with its number of actions; None where
    one of them never varies, and for methods that pay nothing but imitate or prefer attempts."""
    if isinstance(method, ClippedMethod):
        scored, rewards, _ = method.rewarded(data)
    elif isinstance(method, StepPpoRelease):
        scored, rewards = data.scored, [release_rewards(own) for own in rewards_of(data.reward, data.scored)]
    else:
        return None
    tasks, lengths = [item.trajectory.task_id for item in scored], [len(item.trajectory.steps) for item in scored]
    return within_tasks(tasks, [sum(own) for own in rewards], lengths)


def passes(config: Any) -> int:
    """How often a method trains on each of its tokens."""
    return getattr(config, "epochs", 1) * getattr(config, "iterations", 1)


def _written(file: Path, cell: Cell) -> Cell:
    write_bytes(file, f"{dumps(cell)}\n".encode())
    return cell


def _modules(*used: Use) -> list[str]:
    return [name for each in used for name in each.modules()]


def _described(method: Use) -> dict[str, Any]:
    return {"use": method.name, **method.config.model_dump(mode="json")}


def _plain(settings: Any) -> Any:
    return settings.dump() if isinstance(settings, Use) else settings.model_dump(mode="json")
