"""The gate between a candidate and the champion: evidence in, verdict and receipt out.

The alias `champion` is the truth; everything else can be rebuilt from it. A tag of the registered
model remembers the champions before it, oldest first, so that rollbacks can walk back. It is cut
after the last mention of the present champion when read, which repairs it if a process was killed
between setting the one and the other, or if somebody moved the alias by hand.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from steptool.errors import ModelError, NotComparable, TrackingError
from steptool.evaluation.compare import Comparison, compare
from steptool.evaluation.metrics import Evaluation
from steptool.params import PromoteParams
from steptool.registry.client import told_plainly
from steptool.registry.environment import user_name
from steptool.registry.models import CANDIDATE, CHAMPION, find_version, load_evaluation, version_or_none
from steptool.registry.tracking import WORK, Tracking
from steptool.types import Frozen

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

HISTORY = "steptool.champions"
VERDICT = "steptool.verdict"
RECEIPT = "steptool.receipt"
PREVIOUS = "steptool.previous_champion"
HISTORY_LENGTH = 100


class AlreadyChampion(ModelError):
    """The version is the champion: there is nothing to decide."""


class Approval(Frozen):
    """What a person said of a version that had passed the gate."""

    outcome: Literal["approved", "rejected", "timed_out"]
    by: str
    reason: str
    at: str
    """UTC, ISO 8601."""


class Receipt(Frozen):
    """Why a model was or was not promoted, in numbers; rates are fractions of the tasks."""

    verdict: Literal["promoted", "refused", "rejected", "rolled_back"]
    """The evidence refuses, a person rejects."""
    reasons: tuple[str, ...]
    pass_rate: float | None = None
    finish_rate: float | None = None
    champion_pass_rate: float | None = None
    comparison: Comparison | None = None
    """Candidate minus champion, paired over tasks; None without a comparable champion."""
    bars: PromoteParams | None = None
    """What was asked for."""
    approval: Approval | None = None
    """None where no person was asked."""
    model: str = ""
    version: int | None = None
    """The version that the verdict is about; for a rollback, the one that became champion again."""
    previous_champion: int | None = None
    by: str = ""
    at: str = ""
    """UTC, ISO 8601."""

    @property
    def promoted(self) -> bool:
        return self.verdict == "promoted"


def decide(
    candidate: Evaluation,
    champion: Evaluation | None,
    params: PromoteParams,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Receipt:
    """May `candidate` become champion? Pure.

    It must reach `min_pass_rate` and `min_finish_rate`, and, where there is a champion, be measured
    under the same conditions and have the whole bootstrap interval of its paired difference above `margin`.
    `confidence` is that of all `params.looks` verdicts together.
    """
    confidence = 1 - (1 - confidence) / params.looks
    against = [
        f"{what} {found:.1%} is below the bar of {bar:.1%}"
        for what, found, bar in (
            ("pass rate", candidate.pass_rate, params.min_pass_rate),
            ("finish rate", candidate.finish_rate, params.min_finish_rate),
        )
        if found < bar
    ]
    comparison: Comparison | None = None
    if champion is None:
        evidence = f"the first champion: pass rate {candidate.pass_rate:.1%}"
    else:
        try:
            comparison = compare(candidate, champion, resamples=resamples, confidence=confidence, seed=seed)
        except NotComparable as error:
            against.append(f"cannot be compared with the champion: {error.found}")
        else:
            evidence = (
                f"{comparison.difference:+.1%} against the champion, {100 * confidence:.4g}% interval "
                f"[{comparison.low:+.1%}, {comparison.high:+.1%}] over {comparison.tasks} tasks"
            )
            if comparison.low <= params.margin:
                against.append(f"{evidence} does not lie above the margin of {params.margin:+.1%}")
            elif params.margin >= 0 and comparison.p_value >= 1 - confidence:
                # Of a handful of tasks that differ, a bootstrap makes too narrow an interval: 4 won, 0 lost is chance.
                tasks = f"{comparison.won} won and {comparison.lost} lost"
                against.append(f"{evidence}, but of {tasks} the exact test says p = {comparison.p_value:.3g}")
    return Receipt(
        verdict="refused" if against else "promoted",
        reasons=tuple(against) if against else (evidence,),
        pass_rate=candidate.pass_rate,
        finish_rate=candidate.finish_rate,
        champion_pass_rate=champion.pass_rate if champion else None,
        comparison=comparison,
        bars=params,
    )


class Gate(Frozen):
    """What `decide` is asked with: the bars, and the statistics of the comparison."""

    bars: PromoteParams
    resamples: int
    confidence: float
    seed: int


def judge(tracking: Tracking, name: str, gate: Gate, *, which: str | int = CANDIDATE, by: str | None = None) -> Receipt:
    """The verdict on the version `which` of `name` as the evidence stands. Stores and moves nothing.

    Raises ModelError if there is no such version, AlreadyChampion, TrackingError if MLflow cannot be reached.
    """
    return _judge(tracking, name, gate, which, by)[0]


def promote(
    tracking: Tracking,
    name: str,
    gate: Gate,
    *,
    which: str | int = CANDIDATE,
    by: str | None = None,
    approval: Approval | None = None,
) -> Receipt:
    """Make the version `which` of `name` champion if the evidence allows it.

    The receipt is stored with the version as tags and as an artifact. Raises what `judge` raises, and
    TrackingError if somebody else moved the alias meanwhile.
    """
    with _one_at_a_time(tracking):
        receipt, version, champion = _judge(tracking, name, gate, which, by)
        receipt = receipt.model_copy(update={"approval": approval})
        if receipt.promoted:
            past = champions(tracking, name)
            _write_history(tracking, name, [*past, int(version.version)])
            _move_champion(tracking, name, champion, version)
        _store(tracking, version, receipt)
    return receipt


def reject(tracking: Tracking, proposed: Receipt, approval: Approval) -> Receipt:
    """Store that a person, or silence, turned down what `judge` would have promoted; the numbers shown are kept.

    Raises AlreadyChampion if the version was made champion some other way meanwhile.
    """
    with _one_at_a_time(tracking):
        version = find_version(tracking, proposed.model, proposed.version or CANDIDATE)
        champion = version_or_none(tracking, proposed.model, CHAMPION)
        _check_not_champion(version, champion)
        receipt = proposed.model_copy(
            update={"verdict": "rejected", "reasons": (approval.reason,), "approval": approval}
        )
        receipt = _signed(receipt, version, champion, approval.by)
        _store(tracking, version, receipt)
    return receipt


def _judge(
    tracking: Tracking, name: str, gate: Gate, which: str | int, by: str | None
) -> tuple[Receipt, ModelVersion, ModelVersion | None]:
    version, champion = find_version(tracking, name, which), version_or_none(tracking, name, CHAMPION)
    _check_not_champion(version, champion)
    receipt = decide(
        load_evaluation(tracking, version),
        load_evaluation(tracking, champion) if champion else None,
        gate.bars,
        resamples=gate.resamples,
        confidence=gate.confidence,
        seed=gate.seed,
    )
    return _signed(receipt, version, champion, by), version, champion


def _check_not_champion(version: ModelVersion, champion: ModelVersion | None) -> None:
    if champion is not None and champion.version == version.version:
        raise AlreadyChampion(
            f"version {version.version} is the champion already",
            where=f"registered model {version.name}",
            fix="`dvc repro --force --single-item register` makes a new candidate",
        )


def has_verdict(tracking: Tracking, name: str, which: str | int = CANDIDATE) -> bool:
    """Was the version promoted, refused, rejected or rolled back to before? Raises ModelError if there is none."""
    return VERDICT in find_version(tracking, name, which).tags


def rollback(tracking: Tracking, name: str, *, reason: str, by: str | None = None) -> Receipt:
    """Make the previous champion champion again; called again, the one before it, and so on.

    Versions that were deleted meanwhile are passed over. Raises ModelError if there is nothing to go
    back to.
    """
    with _one_at_a_time(tracking):
        champion = find_version(tracking, name, CHAMPION)
        past = champions(tracking, name)[:-1]
        while past and (earlier := version_or_none(tracking, name, past[-1])) is None:
            past.pop()
        if not past or earlier is None:
            raise ModelError(
                f"version {champion.version} has no champion before it",
                where=f"registered model {name}",
                fix="promote another version, or remove the alias `champion` in MLflow",
            )
        receipt = _signed(Receipt(verdict="rolled_back", reasons=(reason,)), earlier, champion, by)
        _move_champion(tracking, name, champion, earlier)
        _write_history(tracking, name, past)
        _store(tracking, earlier, receipt)
    return receipt


def champions(tracking: Tracking, name: str) -> list[int]:
    """Versions that have been champion, oldest first, the present one last; empty where there is none."""
    champion = version_or_none(tracking, name, CHAMPION)
    if champion is None:
        return []
    with told_plainly(tracking.uri, f"read {name}"):
        past: list[int] = json.loads(tracking.client.get_registered_model(name).tags.get(HISTORY, "[]"))
    present = int(champion.version)
    if present not in past:  # the alias was set by hand
        return [*past, present]
    while past[-1] != present:
        past.pop()
    return past


def _one_at_a_time(tracking: Tracking) -> FileLock:
    """Promotions of one checkout wait for each other; across hosts `_move_champion` looks before it leaps."""
    path = tracking.root / WORK / "promotion.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _move_champion(tracking: Tracking, name: str, expected: ModelVersion | None, new: ModelVersion) -> None:
    """Point the alias at `new`, unless it no longer points at `expected`, which the verdict was about."""
    found = version_or_none(tracking, name, CHAMPION)
    if (found and found.version) != (expected and expected.version):
        raise TrackingError(
            f"somebody else made version {found.version if found else 'none'} champion meanwhile",
            where=f"registered model {name}",
            fix="decide again: run the same command once more",
        )
    with told_plainly(tracking.uri, "set the champion"):
        tracking.client.set_registered_model_alias(name, CHAMPION, str(new.version))


def _write_history(tracking: Tracking, name: str, versions: list[int]) -> None:
    with told_plainly(tracking.uri, f"write the history of {name}"):
        tracking.client.set_registered_model_tag(name, HISTORY, json.dumps(versions[-HISTORY_LENGTH:]))


def _signed(receipt: Receipt, version: ModelVersion, champion: ModelVersion | None, by: str | None) -> Receipt:
    return receipt.model_copy(
        update={
            "model": version.name,
            "version": int(version.version),
            "previous_champion": int(champion.version) if champion else None,
            "by": by or user_name(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def _store(tracking: Tracking, version: ModelVersion, receipt: Receipt) -> None:
    number = str(version.version)
    tags = {VERDICT: receipt.verdict, RECEIPT: receipt.model_dump_json()}
    if receipt.promoted:
        tags[PREVIOUS] = str(receipt.previous_champion or "none")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    file = f"versions/{number}/receipts/{stamp}-{receipt.verdict}.json"
    with told_plainly(tracking.uri, "store the receipt"):
        for key, value in tags.items():
            tracking.client.set_model_version_tag(version.name, number, key, value)
        tracking.client.log_text(version.run_id, receipt.model_dump_json(indent=2), file)
