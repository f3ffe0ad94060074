"""The gate between a candidate and the champion: evidence in, verdict and receipt out.

The alias `champion` is the truth; everything else can be rebuilt from it. A tag of the registered
model remembers the champions before it, oldest first, so that rollbacks can walk back. It is cut
after the last mention of the present champion when read, which repairs it if a process was killed
between setting the one and the other, or if somebody moved the alias by hand.

    1 receipt stored   2 history written   3 alias moved   4 verdict written

MLflow has no transaction over these. If one before 3 fails, the receipt is taken back; if that fails too, because
MLflow is gone, a receipt without a verdict is left, which counts for nothing. If 4 fails, the champion has a whole
receipt, and the next promotion or rollback writes the verdict.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from pydantic import TypeAdapter

from steptool.config.places import WORK
from steptool.config.settings import PromoteParams
from steptool.core.errors import InputError, ModelError, NotComparable, TrackingError
from steptool.core.types import Frozen
from steptool.evaluation.compare import Comparison, compare
from steptool.evaluation.metrics import ALL, Evaluation
from steptool.registry.models import (
    CANDIDATE,
    CHAMPION,
    artifacts_at,
    find_version,
    load_evaluation,
    load_start,
    version_or_none,
)
from steptool.tracking.client import mlflow_errors, warn
from steptool.tracking.machine import user_name
from steptool.tracking.run import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

HISTORY = "steptool.champions"
VERDICT = "steptool.verdict"
RECEIPT = "steptool.receipt"
PREVIOUS = "steptool.previous_champion"
HISTORY_LENGTH = 100
NAME_LENGTH, REASON_LENGTH = 200, 2000
"""Most characters of who decides, and of why: a receipt has to fit into one tag of MLflow."""
TAG_LENGTH = 90_000
"""Characters; MLflow takes 100,000."""
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's bidirectional classes of characters that turn the text after them round."""
MADE_CHAMPION = ("promoted", "rolled_back")


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
    start_pass_rate: float | None = None
    """Of the policy that training began from, which a first champion is compared with; else None."""
    comparison: Comparison | None = None
    """Candidate minus champion, or minus the policy that training began from, paired over tasks; None where the two
    could not be compared."""
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
    start: Evaluation | None = None,
    resamples: int,
    confidence: float,
    seed: int,
) -> Receipt:
    """May `candidate` become champion? Pure.

    It must solve something, reach `min_pass_rate` and `min_finish_rate`, and have the whole bootstrap interval of its
    paired difference from `champion` above `margin`; where there is no champion, of its difference from `start`, the
    policy that training began from. Both evaluations must be sound and measured under the same conditions.
    `confidence` is that of all `params.looks` verdicts together.

    Every test is written so that NaN fails it.
    """
    confidence = 1 - (1 - confidence) / params.looks
    baseline, whom = (champion, "the champion") if champion else (start, "the policy that training began from")
    faults = _faults("the candidate", candidate, params)
    if baseline is not None:
        faults += _faults(whom, baseline, params)
    against = faults or [
        f"{what} {found:.1%} is below the bar of {bar:.1%}"
        for what, found, bar in (
            ("pass rate", candidate.pass_rate, params.min_pass_rate),
            ("finish rate", candidate.finish_rate, params.min_finish_rate),
        )
        if not found >= bar
    ]
    if not faults and not candidate.pass_rate > 0:
        against.append("it solved no task")
    comparison: Comparison | None = None
    evidence = ""
    if baseline is None:
        against.append("there is no champion, and no evaluation of the policy that training began from")
    elif not faults:
        try:
            comparison = compare(candidate, baseline, resamples=resamples, confidence=confidence, seed=seed)
        except NotComparable as error:
            against.append(f"cannot be compared with {whom}: {error.found}")
        else:
            evidence = (
                f"{comparison.difference:+.1%} against {whom}, {100 * confidence:.4g}% interval "
                f"[{comparison.low:+.1%}, {comparison.high:+.1%}] over {comparison.tasks} tasks"
            )
            if not comparison.low > params.margin:
                against.append(f"{evidence} does not lie above the margin of {params.margin:+.1%}")
            elif params.margin >= 0 and not comparison.p_value < 1 - confidence:
                # Of a handful of tasks that differ, a bootstrap makes too narrow an interval: 4 won, 0 lost is chance.
                tasks = f"{comparison.won} won and {comparison.lost} lost"
                against.append(f"{evidence}, but of {tasks} the exact test says p = {comparison.p_value:.3g}")
    said = evidence if champion else f"the first champion: {evidence}"
    return Receipt(
        verdict="refused" if against else "promoted",
        reasons=tuple(reason[:REASON_LENGTH] for reason in against or [said]),
        pass_rate=candidate.pass_rate,
        finish_rate=candidate.finish_rate,
        champion_pass_rate=champion.pass_rate if champion else None,
        start_pass_rate=start.pass_rate if start and not champion else None,
        comparison=comparison,
        bars=params,
    )


def _faults(whose: str, evaluation: Evaluation, params: PromoteParams) -> list[str]:
    """Why `evaluation` is no evidence; empty where it is."""
    if not evaluation.solved:
        return [f"the evaluation of {whose} holds no task"]
    rates = {
        "pass rate": evaluation.pass_rate,
        "finish rate": evaluation.finish_rate,
        "broken share": evaluation.broken,
        **{f"verdict on task {shown(task, 80)}": solved for task, solved in evaluation.solved.items()},
    }
    if wrong := [f"{name} of {value}" for name, value in rates.items() if not 0 <= value <= 1]:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return [f"the evaluation of {whose} has a {wrong[0]}{more}, which is not between 0 and 1"]
    mean = fmean(evaluation.solved.values())
    if not abs(evaluation.pass_rate - mean) < 1e-6:
        stated = f"a pass rate of {evaluation.pass_rate:.1%}, but its verdicts have a mean of {mean:.1%}"
        return [f"the evaluation of {whose} states {stated}"]
    if not evaluation.broken <= params.max_broken:
        lost = f"{evaluation.broken:.1%} of the attempts of {whose}"
        return [f"faults of the engine or the world ended {lost}, above the bar of {params.max_broken:.1%}"]
    return []


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
    by, approval = _named(by), _checked(approval) if approval else None
    with _one_at_a_time(tracking):
        _finish_last(tracking, name)
        receipt, version, champion = _judge(tracking, name, gate, which, by)
        receipt = receipt.model_copy(update={"approval": approval})
        with _receipt(tracking, version, receipt):
            if receipt.promoted:
                past = champions(tracking, name)
                _check_unmoved(tracking, name, champion)
                _write_history(tracking, name, [*past, int(version.version)])
                _set_champion(tracking, version)
    return receipt


def reject(tracking: Tracking, proposed: Receipt, approval: Approval) -> Receipt:
    """Store that a person, or silence, turned down what `judge` would have promoted; the numbers shown are kept.

    Raises AlreadyChampion if the version was made champion some other way meanwhile.
    """
    approval = _checked(approval)
    with _one_at_a_time(tracking):
        version = find_version(tracking, proposed.model, proposed.version or CANDIDATE)
        champion = version_or_none(tracking, proposed.model, CHAMPION)
        _check_not_champion(version, champion)
        receipt = proposed.model_copy(
            update={"verdict": "rejected", "reasons": (approval.reason,), "approval": approval}
        )
        receipt = _signed(receipt, version, champion, approval.by)
        with _receipt(tracking, version, receipt):
            pass  # nothing moves
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
        start=None if champion else load_start(tracking, version),
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
            fix="train another: change a setting, such as `sample.draw` in params.yaml, and run `steptool run`",
        )


def has_verdict(tracking: Tracking, name: str, which: str | int = CANDIDATE) -> bool:
    """Was the version promoted, refused, rejected or rolled back to before? Raises ModelError if there is none."""
    return VERDICT in find_version(tracking, name, which).tags


def rollback(tracking: Tracking, name: str, *, reason: str, by: str | None = None) -> Receipt:
    """Make the previous champion champion again; called again, the one before it, and so on.

    Versions that were deleted meanwhile are passed over. Raises ModelError if there is nothing to go
    back to.
    """
    reason, by = one_line("the reason", reason, REASON_LENGTH), _named(by)
    with _one_at_a_time(tracking):
        _finish_last(tracking, name)
        champion = find_version(tracking, name, CHAMPION)
        present, past = int(champion.version), champions(tracking, name)
        while past and (past[-1] == present or version_or_none(tracking, name, past[-1]) is None):
            past.pop()
        if not past:
            raise ModelError(
                f"version {present} has no champion before it",
                where=f"registered model {name}",
                fix="promote another version, or remove the alias `champion` in MLflow",
            )
        earlier = find_version(tracking, name, past[-1])
        receipt = _signed(Receipt(verdict="rolled_back", reasons=(reason,)), earlier, champion, by)
        with _receipt(tracking, earlier, receipt):
            _check_unmoved(tracking, name, champion)
            _set_champion(tracking, earlier)
        with _mended_later():
            _write_history(tracking, name, past)
    return receipt


def champions(tracking: Tracking, name: str) -> list[int]:
    """Versions that have been champion, oldest first, the present one last; empty where there is none."""
    champion = version_or_none(tracking, name, CHAMPION)
    if champion is None:
        return []
    with mlflow_errors(tracking.uri, f"read {name}"):
        noted = tracking.client.get_registered_model(name).tags.get(HISTORY, "[]")
    try:
        past = TypeAdapter(list[int]).validate_json(noted)
    except ValueError as error:
        raise ModelError(
            f"its tag {HISTORY} is no list of versions: {noted[:80]!r}",
            where=f"registered model {name}",
            fix="correct it in MLflow, or delete it: the champion is then one without champions before it",
        ) from error
    present = int(champion.version)
    if present not in past:  # the alias was set by hand
        return [*past, present]
    while past[-1] != present:
        past.pop()
    return past


def _one_at_a_time(tracking: Tracking) -> FileLock:
    """Promotions of one checkout wait for each other; between hosts, `_check_unmoved` refuses the later one."""
    path = tracking.root / WORK / "promotion.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _check_unmoved(tracking: Tracking, name: str, expected: ModelVersion | None) -> None:
    """Raise TrackingError if the alias no longer points at `expected`, which the verdict was about."""
    found = version_or_none(tracking, name, CHAMPION)
    if (found and found.version) != (expected and expected.version):
        raise TrackingError(
            f"somebody else made version {found.version if found else 'none'} champion meanwhile",
            where=f"registered model {name}",
            fix="decide again: run the same command once more",
        )


def _set_champion(tracking: Tracking, version: ModelVersion) -> None:
    with mlflow_errors(tracking.uri, "set the champion"):
        tracking.client.set_registered_model_alias(version.name, CHAMPION, str(version.version))


def _write_history(tracking: Tracking, name: str, versions: list[int]) -> None:
    with mlflow_errors(tracking.uri, f"write the history of {name}"):
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


@contextmanager
def _receipt(tracking: Tracking, version: ModelVersion, receipt: Receipt) -> Iterator[None]:
    """Store `receipt` before the block, which carries it out, and its verdict after; see the module's docstring.

    A TrackingError of the block is passed over where the alias has moved all the same.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    file = f"versions/{version.version}/receipts/{stamp}-{receipt.verdict}.json"
    tags = {RECEIPT: _fitting(receipt)}
    if receipt.promoted:
        tags[PREVIOUS] = str(receipt.previous_champion or "none")
    makes_champion = receipt.verdict in MADE_CHAMPION
    try:
        with mlflow_errors(tracking.uri, "store the receipt"):
            if VERDICT in version.tags:  # of an earlier receipt
                tracking.client.delete_model_version_tag(version.name, str(version.version), VERDICT)
            tracking.client.log_text(version.run_id, receipt.model_dump_json(indent=2), file)
            _set_tags(tracking, version, tags)
        yield
    except BaseException as fault:
        moved = makes_champion and _is_champion(tracking, version)
        if moved is False:
            with _mended_later():
                _take_back(tracking, version, [*tags, VERDICT], file)
        if not (moved and isinstance(fault, TrackingError)):
            raise
    with _mended_later() if makes_champion else nullcontext(), mlflow_errors(tracking.uri, "write the verdict"):
        _set_tags(tracking, version, {VERDICT: receipt.verdict})


def _fitting(receipt: Receipt) -> str:
    """`receipt` as it fits into one tag: of the groups of tasks only that of all, where a world has hundreds."""
    text = receipt.model_dump_json()
    if len(text) <= TAG_LENGTH or receipt.comparison is None:
        return text
    comparison = receipt.comparison.model_copy(update={"groups": {ALL: receipt.comparison.groups[ALL]}})
    return receipt.model_copy(update={"comparison": comparison}).model_dump_json()


def _set_tags(tracking: Tracking, version: ModelVersion, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        tracking.client.set_model_version_tag(version.name, str(version.version), key, value)


def _take_back(tracking: Tracking, version: ModelVersion, tags: Iterable[str], file: str) -> None:
    """Remove a receipt that was not carried out: its file, and from the tags, which say again what they said."""
    with mlflow_errors(tracking.uri, "take the receipt back"):
        for key in tags:
            if key in version.tags:
                _set_tags(tracking, version, {key: version.tags[key]})
            elif key != VERDICT:
                tracking.client.delete_model_version_tag(version.name, str(version.version), key)
        run = tracking.client.get_run(version.run_id)
        artifacts_at(tracking, str(run.info.artifact_uri)).delete_artifacts(file)


def _is_champion(tracking: Tracking, version: ModelVersion) -> bool | None:
    """None where MLflow does not say."""
    try:
        champion = version_or_none(tracking, version.name, CHAMPION)
    except TrackingError:
        return None
    return champion is not None and champion.version == version.version


@contextmanager
def _mended_later() -> Iterator[None]:
    """A fault of the block is a warning: champion and receipt agree without it, and the next promotion mends it."""
    try:
        yield
    except TrackingError as error:
        warn(f"{error.found}; the next promotion or rollback makes up for it")


def _finish_last(tracking: Tracking, name: str) -> None:
    """Write the verdict on the champion, where the process that made it champion could not."""
    champion = version_or_none(tracking, name, CHAMPION)
    if champion is None or RECEIPT not in champion.tags:
        return
    try:
        verdict = Receipt.model_validate_json(champion.tags[RECEIPT]).verdict
    except ValueError:  # of another release; its own verdict stands
        return
    if verdict in MADE_CHAMPION and champion.tags.get(VERDICT) != verdict:
        with mlflow_errors(tracking.uri, "write the verdict"):
            _set_tags(tracking, champion, {VERDICT: verdict})


def one_line(what: str, text: str, most: int) -> str:
    """`text` as it may stand on a receipt, its white space narrowed to single spaces.

    Raises InputError if it is empty, too long, or holds characters that a terminal would obey instead of show.
    """
    line = " ".join(text.split())
    if not line:
        raise InputError(f"{what} is empty", fix="say it in a sentence or two")
    if len(line) > most:
        raise InputError(
            f"{what} has {len(line)} characters, more than {most}", fix="put the rest elsewhere, and its address here"
        )
    if shown(line, most) != line:
        odd = next(character for character in line if not _is_shown(character))
        raise InputError(f"{what} holds the control character U+{ord(odd):04X}", fix="type it as plain text")
    return line


def shown(text: str, most: int) -> str:
    """The first `most` characters of `text` on one line, those that cannot be shown replaced."""
    line = " ".join(text.split())[:most].rstrip()
    return "".join(character if _is_shown(character) else "\N{REPLACEMENT CHARACTER}" for character in line)


def _is_shown(character: str) -> bool:
    """Not of those that a terminal or a page obeys: controls, halves of characters, changes of the direction."""
    return (
        unicodedata.category(character) not in ("Cc", "Cs") and unicodedata.bidirectional(character) not in DIRECTIONS
    )


def _named(by: str | None) -> str:
    return one_line("the name", (by or "").strip() or user_name(), NAME_LENGTH)


def _checked(approval: Approval) -> Approval:
    lines = {
        "by": one_line("the name", approval.by, NAME_LENGTH),
        "reason": one_line("the reason", approval.reason, REASON_LENGTH),
    }
    return approval.model_copy(update=lines)
