"""How much more a trained policy likes a step than its reference, beside what another annotator says of it."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from steptool.annotators.annotate import annotate_all
from steptool.annotators.progress import Progress
from steptool.annotators.rules import Rules
from steptool.core.errors import DataError, ModelError, StepToolError
from steptool.core.plugins import modules_of, policies_of, revision_of
from steptool.core.types import Judgement, StopReason, Trajectory
from steptool.policies.base_models import fetch_base
from steptool.testing import call, finish, reference, revision, step, task, tool, trajectory
from steptool.training.model import AdapterSettings, PolicyWithValue
from steptool.training.ratios import StepRatios

TASK = task("t1", "Where?", tool("find"))
PROMPT, LOOKED, SEEN, ANSWERED = (5, 6, 7), (8, 9), (10,), (11, 12, 13)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plain model, and an adapter on it that is not the identity."""
    place = tmp_path_factory.mktemp("policies")
    base, trained = place / "base", place / "trained"
    fetch_base("tiny-random", base)
    policy = PolicyWithValue.load(base, AdapterSettings(lora_first_layer=1, lora_rank=2, lora_alpha=4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.policy_parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    trained.mkdir()
    policy.save(trained)
    return trained, base


def attempt(number: int = 0, answered: Sequence[int] = ANSWERED) -> Trajectory:
    return trajectory(
        step(call("find"), {"id": 7}, context_ids=PROMPT, action_ids=LOOKED),
        finish("7", context_ids=SEEN, action_ids=answered),
        of=TASK,
        attempt=number,
    )


def annotator(folders: tuple[Path, Path], beta: float = 0.5) -> Progress:
    policy, base = map(str, folders)
    return Progress(Progress.Config.model_validate({"policy": policy, "reference": base, "beta": beta}))


def judged(by: Progress, made: Trajectory) -> Sequence[Judgement]:
    return asyncio.run(by.annotate(made, TASK, reference(TASK)))


def test_a_step_is_worth_the_log_ratio_of_its_own_tokens(folders: tuple[Path, Path]) -> None:
    """By Transformers' own log-probabilities of the whole stream: tokens 3 and 4 are the call, 6 to 8 the answer."""
    stream = [*PROMPT, *LOOKED, *SEEN, *ANSWERED]
    trained = PolicyWithValue.load(folders[0], AdapterSettings(lora_first_layer=1, lora_rank=2, lora_alpha=4))
    plain = PolicyWithValue.load(folders[1], AdapterSettings(lora_first_layer=0, lora_rank=1))
    (with_it,), (without,) = trained.logprobs([stream]), plain.logprobs([stream])
    gains = [a - b for a, b in zip(with_it, without, strict=True)]
    expected = [sum(gains[2:4]), sum(gains[5:8])]
    ((first, last),) = StepRatios(*folders)([attempt()])
    assert (first, last) == (pytest.approx(expected[0], abs=1e-4), pytest.approx(expected[1], abs=1e-4))
    scores = [each.scores["progress"] for each in judged(annotator(folders), attempt())]
    assert scores == pytest.approx([1 / (1 + math.exp(-0.5 * gain)) for gain in expected], abs=1e-5)
    assert len({round(score or 0, 3) for score in scores}) == 2


def test_the_other_scores_are_those_of_the_annotator_that_it_asks(folders: tuple[Path, Path]) -> None:
    first, last = judged(annotator(folders), attempt())
    assert first.success == 1 and first.contribution == 1 and first.reason == "used in the answer"
    assert set(last.scores) == {"builds", "solved", "grounded", "progress"}


def test_a_policy_against_itself_makes_no_progress(folders: tuple[Path, Path]) -> None:
    assert [each.scores["progress"] for each in judged(annotator((folders[0], folders[0])), attempt())] == [0.5, 0.5]


def test_attempts_that_are_computed_together_get_what_they_get_alone(folders: tuple[Path, Path]) -> None:
    made = [attempt(0), attempt(1, [11, 14]), attempt(2, [15])]
    together = annotate_all(
        annotator(folders), revision("progress"), made, [TASK], {TASK.id: reference(TASK)},
        source=Path("f"), what="annotate", concurrency=2,
    )  # fmt: skip
    for record in together:
        alone = judged(annotator(folders), record.trajectory)
        for one, two in zip(record.judgements, alone, strict=True):
            assert one.scores["progress"] == pytest.approx(two.scores["progress"], abs=2e-6)


def test_what_nobody_sampled_here_has_no_progress(folders: tuple[Path, Path]) -> None:
    imported = trajectory(step(call("find"), {"id": 7}), finish("7"), of=TASK, conditions=None)
    foreign = trajectory(step(call("find"), {"id": 7}), finish("7"), of=TASK)
    cut = trajectory(
        step(call("find"), {"id": 7}, context_ids=PROMPT, action_ids=LOOKED),
        step(call("find"), None, context_ids=SEEN),
        of=TASK,
        stop=StopReason.engine_error,
    )
    for made in (imported, foreign):
        assert [each.scores["progress"] for each in judged(annotator(folders), made)] == [None, None]
    first, last = judged(annotator(folders), cut)
    assert first.scores["progress"] is not None and last.scores["progress"] is None
    assert judged(annotator(folders), trajectory(of=TASK, stop=StopReason.engine_error)) == []


def test_a_token_that_the_policies_do_not_have_is_named(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="has token 999999") as refused:
        judged(annotator(folders), attempt(0, [999_999]))
    assert "trajectory" in str(refused.value.where)


def test_a_folder_that_is_no_policy_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        judged(annotator((tmp_path / "gone", folders[1])), attempt())


def test_its_revision_and_stages_know_what_it_reads(folders: tuple[Path, Path]) -> None:
    by = annotator(folders)
    assert policies_of(Progress, by.config) == folders
    assert "steptool.annotators.rules" in modules_of(Progress, by.config)
    assert revision_of(by) == revision_of(annotator(folders))
    assert revision_of(by) != revision_of(annotator(folders, beta=0.6))


def test_other_weights_are_another_revision(folders: tuple[Path, Path], tmp_path: Path) -> None:
    copied = tmp_path / "trained"
    shutil.copytree(folders[0], copied)
    before = revision_of(annotator((copied, folders[1])))
    (copied / "adapter_model.safetensors").write_bytes(b"other weights")
    assert revision_of(annotator((copied, folders[1]))) != before


def test_one_that_fails_while_it_looks_ahead_is_named() -> None:
    class Fails:
        async def annotate(self, *_: object) -> Sequence[Judgement]:
            return ()

        def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
            raise ZeroDivisionError("nothing there")

    with pytest.raises(StepToolError, match=r"annotator mine.* failed: .*nothing there"):
        annotate_all(
            Fails(), revision("mine"), [attempt()], [TASK], {TASK.id: reference(TASK)},
            source=Path("f"), what="annotate", concurrency=1,
        )  # fmt: skip


class Holds(Rules):
    """Counts how often it was ended."""

    ended = 0

    def end(self) -> None:
        Holds.ended += 1


def test_the_annotator_that_gives_the_other_scores_ends_with_it() -> None:
    settings = {"policy": "trained", "reference": "base", "judge": {"use": f"{__name__}:Holds"}}
    Progress(Progress.Config.model_validate(settings)).end()
    assert Holds.ended == 1
