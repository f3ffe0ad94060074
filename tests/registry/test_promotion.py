"""The gate: evidence moves the alias, nothing else does.

Verdicts are written as strings, one digit a task:

    champion   0000000000          candidate  1111111100    won 8, lost 0, tied 2: difference +0.8
    champion   1111100000          candidate  0000011111    won 5, lost 5: difference 0, no evidence
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from steptool.config.settings import PromoteParams
from steptool.core.errors import DataError, InputError, ModelError, StepToolError, TrackingError
from steptool.evaluation.bootstrap import Estimate
from steptool.evaluation.metrics import Evaluation
from steptool.registry import promotion
from steptool.registry.gate import Gate, decide
from steptool.registry.models import CHAMPION, attach_evaluation, load_registered, register, version_or_none
from steptool.registry.promotion import (
    HISTORY,
    AlreadyChampion,
    assess,
    champions,
    has_verdict,
    promote,
    reject,
    rollback,
)
from steptool.registry.receipts import RECEIPT, VERDICT, Approval, Receipt, one_line, shown
from steptool.tracking.run import Tracking
from tests.registry.conftest import nothing_solved

Build = Callable[..., Evaluation]
RegisterAs = Callable[[str, Evaluation], int]
STATISTICS = {"resamples": 500, "confidence": 0.95, "seed": 17}
LIMITS = PromoteParams(margin=0.0, min_pass_rate=0.3, min_finish_rate=0.7)


def gate(limits: PromoteParams = LIMITS, **statistics: Any) -> Gate:
    return Gate(limits=limits, **STATISTICS | statistics)


def champion_of(tracking: Tracking) -> int | None:
    version = version_or_none(tracking, "agent", CHAMPION)
    return int(version.version) if version else None


def promoted(tracking: Tracking, which: int | str = "candidate", **changes: object) -> Receipt:
    return promote(tracking, "agent", gate(LIMITS.model_copy(update=changes)), which=which, by="ada")


def first(tracking: Tracking, which: int | str = "candidate") -> Receipt:
    """Promote under limits that a handful of tasks can pass."""
    return promoted(tracking, which, margin=-0.5)


@pytest.mark.parametrize(
    ("candidate", "other", "verdict", "because"),
    [
        ("1111111100", "0000000000", "promoted", "the first champion: +80.0% against sft, 95% interval"),
        ("1111110000", "1111100000", "refused", "does not lie above the margin of +0.0%"),
        ("1111100000", "1111100000", "refused", "does not lie above the margin of +0.0%"),
        ("1111100000", "1111111110", "refused", "-40.0% against sft"),
        ("1111111100", None, "refused", "it was compared with nothing: name a baseline for it under `compare`"),
    ],
)
def test_a_first_champion_is_compared_with_its_baseline(
    evaluation_of: Build, candidate: str, other: str | None, verdict: str, because: str
) -> None:
    """
    candidate    baseline     verdict
    1111111100   0000000000   promoted   8 won, 0 lost
    1111110000   1111100000   refused    1 won: may be chance
    1111100000   1111100000   refused    the same
    1111100000   1111111110   refused    worse
    1111111100   none         refused    nothing to compare with
    """
    baseline = evaluation_of(other, "sft") if other else None
    receipt = decide(gate(), evaluation_of(candidate), None, baseline=baseline)
    assert receipt.verdict == verdict
    assert because in receipt.reasons[0]
    if baseline:
        assert receipt.baseline_pass_rate == baseline.pass_rate
        assert receipt.comparison is not None
        assert receipt.comparison.baseline == "sft"


def test_what_solves_nothing_is_refused_whatever_the_limits(evaluation_of: Build) -> None:
    low = PromoteParams(margin=-1.0, min_pass_rate=0.0, min_finish_rate=0.0)
    for champion, baseline in ((None, evaluation_of("000", "sft")), (evaluation_of("000", "old"), None)):
        assert not decide(gate(low), evaluation_of("000"), champion, baseline=baseline).promoted
        assert decide(gate(low), evaluation_of("100"), champion, baseline=baseline).promoted


ODD = st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.1, 1.1, 1e300])
BROKEN = st.floats(min_value=0.0201, max_value=1.0) | ODD


@given(data=st.data(), in_candidate=st.booleans(), there_is_a_champion=st.booleans())
def test_no_broken_evaluation_promotes_anything(
    evaluation_of: Build, data: st.DataObject, in_candidate: bool, there_is_a_champion: bool
) -> None:
    """A clear win, until one number on one side is broken: a rate that is none, or too many attempts lost to faults."""
    candidate, baseline = evaluation_of("1111111110"), evaluation_of("0000000000", "old")
    sound = candidate if in_candidate else baseline
    what = data.draw(st.sampled_from(["pass_rate", "finish_rate", "solved", "broken", "contradiction"]))
    if what == "broken":
        broken = sound.model_copy(update={"broken": data.draw(BROKEN)})
    elif what == "solved":
        solved = sound.solved | {data.draw(st.sampled_from(sorted(sound.solved))): data.draw(ODD)}
        broken = sound.model_copy(update={"solved": solved})
    else:
        value, name = (0.5, "pass_rate") if what == "contradiction" else (data.draw(ODD), what)
        overall = sound.metrics["all"] | {name: Estimate.model_construct(value=value)}
        broken = sound.model_copy(update={"metrics": sound.metrics | {"all": overall}})
    pair = (broken, baseline) if in_candidate else (candidate, broken)
    low = PromoteParams(margin=-1.0, min_pass_rate=0.0, min_finish_rate=0.0)
    for limits in (LIMITS, low):
        if there_is_a_champion:
            receipt = decide(gate(limits), *pair)
        else:
            receipt = decide(gate(limits), pair[0], None, baseline=pair[1])
        assert not receipt.promoted
        assert receipt.comparison is None
        assert "the candidate" in receipt.reasons[0] if in_candidate else "the candidate" not in receipt.reasons[0]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.021, 0.4, 1.0])
def test_faults_of_either_side_up_to_the_bar_are_borne(evaluation_of: Build, share: float) -> None:
    sound, champion = evaluation_of("1111111110"), evaluation_of("0000000000", "old")
    torn = {"broken": share}
    for pair in ((sound.model_copy(update=torn), champion), (sound, champion.model_copy(update=torn))):
        receipt = decide(gate(), *pair)
        assert receipt.promoted == (share <= 0.02)
        if not receipt.promoted:
            (reason,) = receipt.reasons
            assert f"faults of the engine or the world ended {share:.1%} of the attempts of the" in reason


def test_a_candidate_below_a_bar_is_refused_and_every_bar_is_named(evaluation_of: Build) -> None:
    receipt = decide(gate(), evaluation_of("1100000000", finish_rate=0.65), evaluation_of("0000000000"))
    assert receipt.verdict == "refused"
    assert receipt.reasons[:2] == (
        "pass rate 20.0% is below the 30.0% of promote.min_pass_rate",
        "finish rate 65.0% is below the 70.0% of promote.min_finish_rate",
    )


def test_a_clear_win_is_promoted(evaluation_of: Build) -> None:
    receipt = decide(gate(), evaluation_of("1111111100"), evaluation_of("0000000000"))
    assert receipt.promoted
    assert receipt.comparison is not None
    assert (receipt.comparison.won, receipt.comparison.lost, receipt.comparison.tied) == (8, 0, 2)
    assert receipt.comparison.difference == pytest.approx(0.8)
    assert receipt.comparison.low > 0


NOTHING, GAIN = "-" * 10, "1111111100"
BY_GROUND = LIMITS.model_copy(update={"measure": "grounded"})


def test_without_any_verdict_the_gate_says_that_it_can_prove_nothing_and_what_to_do(evaluation_of: Build) -> None:
    candidate, baseline = evaluation_of(NOTHING, grounded=GAIN), evaluation_of(NOTHING, "sft")
    for champion in (None, evaluation_of("0000000000", "old")):
        receipt = decide(gate(), candidate, champion, baseline=baseline)
        assert (receipt.verdict, receipt.pass_rate, receipt.comparison) == ("refused", None, None)
        assert receipt.reasons[0].startswith("no task of the evaluation of the candidate has a verdict, so nothing can")
        assert "promote.measure: grounded" in receipt.reasons[0]


def test_grounded_answers_prove_what_is_asked_for_where_the_setting_says_so(evaluation_of: Build) -> None:
    candidate, baseline = evaluation_of(NOTHING, grounded=GAIN), evaluation_of(NOTHING, "sft")
    receipt = decide(gate(BY_GROUND), candidate, None, baseline=baseline)
    assert receipt.promoted
    assert (receipt.pass_rate, receipt.grounded) == (None, 0.8)
    assert receipt.comparison is not None
    assert (receipt.comparison.measure, receipt.comparison.won) == ("grounded", 8)
    assert "+80.0% grounded answers against sft" in receipt.reasons[0]
    assert Receipt.model_validate_json(receipt.model_dump_json()) == receipt
    worse = decide(gate(BY_GROUND), evaluation_of(GAIN, grounded="1100000000"), evaluation_of("0" * 10, grounded=GAIN))
    assert not worse.promoted, "verdicts count for nothing then"
    assert worse.reasons[0] == "share of grounded answers 20.0% is below the 30.0% of promote.min_pass_rate"


def test_nothing_grounded_is_refused_whatever_the_limits(evaluation_of: Build) -> None:
    low = PromoteParams(measure="grounded", margin=-1.0, min_pass_rate=0.0, min_finish_rate=0.0)
    receipt = decide(gate(low), evaluation_of(NOTHING), evaluation_of(NOTHING))
    assert receipt.reasons == ("no answer of it is grounded",)


def test_of_some_verdicts_those_under_both_are_the_evidence(evaluation_of: Build) -> None:
    """Won 8 of 9 tasks that have a verdict under both; of the two others nobody can tell."""
    receipt = decide(gate(), evaluation_of("11111111010"), evaluation_of("000000000--"))
    assert receipt.promoted
    assert receipt.comparison is not None
    assert (receipt.comparison.won, receipt.comparison.tasks) == (8, 9)
    assert "over 9 tasks (2 more have no verdict)" in receipt.reasons[0]


def test_a_difference_that_may_be_chance_is_refused(evaluation_of: Build) -> None:
    receipt = decide(gate(), evaluation_of("1111110000"), evaluation_of("1111100000"))  # one task better
    assert receipt.verdict == "refused"
    assert "+10.0% against the champion" in receipt.reasons[0]


def test_what_the_exact_test_calls_chance_is_refused_though_the_interval_lies_above(evaluation_of: Build) -> None:
    """4 won, 0 lost of 40: two-sided p = 2 / 2^4."""
    receipt = decide(gate(), evaluation_of("1" * 24 + "0" * 16), evaluation_of("1" * 20 + "0" * 20))
    assert receipt.comparison is not None
    assert receipt.comparison.low > 0
    assert receipt.comparison.p_value == 0.125
    assert not receipt.comparison.significant
    assert receipt.verdict == "refused"
    assert "of 4 won and 0 lost the exact test says p = 0.125" in receipt.reasons[0]


def test_more_looks_at_the_same_tasks_ask_for_more_evidence(evaluation_of: Build) -> None:
    """9 won, 1 lost of 40: two-sided p = 2 (1 + 10) / 2^10 = .021, enough for one look and not for ten (.005)."""
    candidate, champion = evaluation_of("1" * 29 + "0" * 11), evaluation_of("1" * 20 + "0" * 19 + "1")
    assert decide(gate(), candidate, champion).promoted
    receipt = decide(gate(LIMITS.model_copy(update={"looks": 10})), candidate, champion)
    assert receipt.comparison is not None
    assert receipt.comparison.confidence == pytest.approx(0.995)
    assert receipt.verdict == "refused"
    assert "99.5% interval" in receipt.reasons[0]


def test_equal_models_are_refused_at_margin_zero(evaluation_of: Build) -> None:
    assert not decide(gate(), evaluation_of("1111"), evaluation_of("1111")).promoted


def test_the_whole_interval_must_lie_above_the_margin(evaluation_of: Build) -> None:
    candidate, champion = evaluation_of("1" * 50 + "0" * 50), evaluation_of("0" * 100)  # +0.5, about [0.4, 0.6]
    for margin, verdict in ((0.35, "promoted"), (0.45, "refused"), (0.55, "refused")):
        limits = LIMITS.model_copy(update={"margin": margin})
        assert decide(gate(limits), candidate, champion).verdict == verdict


def test_another_budget_is_refused_with_the_reason(evaluation_of: Build) -> None:
    receipt = decide(gate(), evaluation_of("1111", max_calls=17), evaluation_of("0000", max_calls=4))
    assert receipt.verdict == "refused"
    assert receipt.comparison is None
    assert "max_calls: 17 against 4" in receipt.reasons[0]


@given(pairs=st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01")), min_size=1, max_size=30))
def test_nothing_is_promoted_without_more_wins_than_losses(evaluation_of: Build, pairs: list[tuple[str, str]]) -> None:
    new, old = ("".join(column) for column in zip(*pairs, strict=True))
    receipt = decide(gate(resamples=200, seed=1), evaluation_of(new), evaluation_of(old))
    if receipt.promoted:
        assert receipt.comparison is not None
        assert receipt.comparison.won > receipt.comparison.lost
        assert receipt.pass_rate is not None
        assert receipt.pass_rate >= LIMITS.min_pass_rate


def test_promotion_moves_the_alias_and_leaves_a_receipt(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("sft", evaluation_of("1110000000", "sft"))
    assert first(tracking).promoted
    register_as("r1", evaluation_of("1111111111", "r1"))
    receipt = promoted(tracking)
    assert champion_of(tracking) == 2
    assert (receipt.version, receipt.previous_champion, receipt.by) == (2, 1, "ada")
    assert receipt.at.endswith("+00:00")

    version = tracking.client.get_model_version("agent", "2")
    assert version.tags["steptool.verdict"] == "promoted"
    assert version.tags["steptool.previous_champion"] == "1"
    assert Receipt.model_validate_json(version.tags["steptool.receipt"]) == receipt
    (file,) = tracking.client.list_artifacts(version.run_id, "versions/2/receipts")
    with open(tracking.client.download_artifacts(version.run_id, file.path)) as stored:
        assert Receipt.model_validate_json(stored.read()) == receipt


def test_a_refusal_leaves_the_champion_and_says_why(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("sft", evaluation_of("1111100000", "sft"))
    first(tracking)
    register_as("r1", evaluation_of("0000011111", "r1"))
    assert promoted(tracking).verdict == "refused"
    assert champion_of(tracking) == 1
    assert tracking.client.get_model_version("agent", "2").tags["steptool.verdict"] == "refused"


def test_promoting_the_champion_or_nothing_is_an_error(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    with pytest.raises(ModelError, match="no version 'candidate'"):
        promoted(tracking)
    register_as("sft", evaluation_of("1"))
    first(tracking)
    with pytest.raises(ModelError, match="champion already"):
        promoted(tracking)


def test_a_rejection_keeps_the_numbers_and_says_who_and_why(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("r1", evaluation_of("1111111111"))
    proposed = assess(tracking, "agent", gate())
    assert proposed.promoted
    assert not has_verdict(tracking, "agent"), "judging stores nothing"
    answer = Approval(outcome="rejected", by="bob", reason="it loops", at="2026-01-02T03:04:05+00:00")
    receipt = reject(tracking, proposed, answer)
    assert (receipt.verdict, receipt.reasons, receipt.by) == ("rejected", ("it loops",), "bob")
    assert (receipt.pass_rate, receipt.approval) == (1.0, answer)
    assert champion_of(tracking) is None
    tags = tracking.client.get_model_version("agent", "1").tags
    assert Receipt.model_validate_json(tags["steptool.receipt"]) == receipt
    assert has_verdict(tracking, "agent")


def test_a_champion_cannot_be_rejected(tracking: Tracking, evaluation_of: Build, register_as: RegisterAs) -> None:
    register_as("r1", evaluation_of("1111111111"))
    proposed = assess(tracking, "agent", gate())
    promoted(tracking)
    with pytest.raises(AlreadyChampion, match="version 1 is the champion already"):
        reject(tracking, proposed, Approval(outcome="rejected", by="bob", reason="late", at=""))
    assert tracking.client.get_model_version("agent", "1").tags["steptool.verdict"] == "promoted"


def test_rollback_walks_back_through_the_champions(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    """champions 1 2 3 1 -> rolled back to 3, 2, 1, then nothing is left"""
    for weights in ("a", "b", "c"):
        register_as(weights, evaluation_of("1", weights))
    for version in (1, 2, 3, 1):
        promoted(tracking, version, margin=-1.0 + 1e-9)
    assert champions(tracking, "agent") == [1, 2, 3, 1]
    for expected in (3, 2, 1):
        receipt = rollback(tracking, "agent", reason="it loops", by="ada")
        assert (receipt.version, receipt.verdict, receipt.reasons) == (expected, "rolled_back", ("it loops",))
        assert champion_of(tracking) == expected
    with pytest.raises(ModelError, match="no champion before it"):
        rollback(tracking, "agent", reason="again")
    assert champion_of(tracking) == 1


def test_rollback_passes_over_deleted_versions(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    for weights in ("a", "b", "c"):
        version = register_as(weights, evaluation_of("1", weights))
        promoted(tracking, version, margin=-0.5)
    tracking.client.delete_model_version("agent", "2")
    assert rollback(tracking, "agent", reason="bad").version == 1


def test_history_is_mended_after_a_kill_between_its_two_writes_and_after_a_move_by_hand(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    for weights in ("a", "b", "c"):
        register_as(weights, evaluation_of("1", weights))
    tracking.client.set_registered_model_alias("agent", CHAMPION, "2")
    tracking.client.set_registered_model_tag("agent", HISTORY, json.dumps([1, 2, 3]))  # 3 was never reached
    assert champions(tracking, "agent") == [1, 2]
    tracking.client.set_registered_model_tag("agent", HISTORY, json.dumps([1]))  # 2 was set by hand
    assert champions(tracking, "agent") == [1, 2]


def test_a_champion_that_changed_meanwhile_stops_the_promotion(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weights in ("a", "b", "c"):
        register_as(weights, evaluation_of("1" if weights == "c" else "0" * 9 + "1", weights))
    tracking.client.set_registered_model_alias("agent", CHAMPION, "1")

    def decide_slowly(*_: object, **__: object) -> Receipt:
        tracking.client.set_registered_model_alias("agent", CHAMPION, "2")  # another host is faster
        return Receipt(verdict="promoted", reasons=("won",))

    monkeypatch.setattr(promotion, "decide", decide_slowly)
    with pytest.raises(TrackingError, match="version 2 champion meanwhile"):
        promoted(tracking, 3)
    assert champion_of(tracking) == 2
    assert champions(tracking, "agent")[-1] == 2


def test_promotions_side_by_side_leave_one_champion_and_a_whole_history(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    for weights in ("a", "b", "c", "d"):
        register_as(weights, evaluation_of("1", weights))
    errors: list[StepToolError] = []

    def promote_one(version: int) -> None:
        try:
            promoted(tracking, version, margin=-0.5)
        except StepToolError as error:
            errors.append(error)

    threads = [threading.Thread(target=promote_one, args=(version,)) for version in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    past = champions(tracking, "agent")
    assert sorted(past) == [1, 2, 3, 4]
    assert champion_of(tracking) == past[-1]


def test_a_champion_can_be_measured_again_at_the_budget_of_today(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("old", evaluation_of("1110000000", "old", max_calls=4))
    first(tracking)
    register_as("new", evaluation_of("1111111111", "new", max_calls=8))
    assert "max_calls: 8 against 4" in promoted(tracking).reasons[0]
    with pytest.raises(ModelError, match="the evaluation is of"):
        attach_evaluation(tracking, "agent", CHAMPION, evaluation_of("1110000000", "other"))
    attach_evaluation(tracking, "agent", CHAMPION, evaluation_of("1110000000", "old", max_calls=8))
    assert promoted(tracking).promoted


class Faulty:
    """MLflow's client, of which call number `call` fails, before or after it had its effect, and, where the fault
    `lasts`, every call from then on."""

    def __init__(self, client: MlflowClient, call: int, *, after: bool, lasts: bool) -> None:
        self._client, self._left, self._after, self._lasts = client, call, after, lasts
        self.struck = False

    def __getattr__(self, name: str) -> Callable[..., object]:
        real = getattr(self._client, name)

        def call(*args: object, **kwargs: object) -> object:
            if self.struck and self._lasts:
                raise MlflowException("MLflow is gone")
            self._left -= 1
            if self.struck or self._left >= 0:
                return real(*args, **kwargs)
            self.struck = True
            if self._after:
                real(*args, **kwargs)
            raise MlflowException(f"{name} timed out")

        return call


@contextmanager
def faulty(tracking: Tracking, call: int, *, after: bool, lasts: bool) -> Iterator[Faulty]:
    client, experiment_id = Faulty(tracking.client, call, after=after, lasts=lasts), tracking.experiment_id
    patch = pytest.MonkeyPatch()
    patch.setattr(tracking.delivery, "connection", lambda _: (client, experiment_id))
    try:
        yield client
    except StepToolError:
        assert client.struck
    finally:
        patch.undo()


def receipt_tags(tracking: Tracking, version: int) -> tuple[str | None, str | None]:
    tags = tracking.client.get_model_version("agent", str(version)).tags
    return tags.get(VERDICT), tags.get(RECEIPT)


def newest_receipt(tracking: Tracking, version: int) -> Receipt:
    run = tracking.client.get_model_version("agent", str(version)).run_id
    *_, file = tracking.client.list_artifacts(run, f"versions/{version}/receipts")
    with open(tracking.client.download_artifacts(run, file.path)) as stored:
        return Receipt.model_validate_json(stored.read())


FAULTS = [(after, lasts) for after in (False, True) for lasts in (False, True)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("after", "lasts"), FAULTS)
@pytest.mark.parametrize("verdict", ["promoted", "refused", "rejected", "rolled_back"])
def test_alias_and_receipt_agree_whatever_call_fails(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, verdict: str, after: bool, lasts: bool
) -> None:
    """Versions 1 and 2 are champion in turn; each call to MLflow in turn fails on the way.

    alias of the target   its receipt
    moved                 whole: it says what made it champion, and so does the file
    not moved             as it was before, or, where MLflow stayed away, without a verdict
    and then              the same once more succeeds
    """
    for weights in ("a", "b"):
        first(tracking, register_as(weights, evaluation_of("1111100000", weights)))

    def act(target: int) -> Receipt:
        if verdict == "promoted":
            return first(tracking, target)
        if verdict == "rolled_back":
            return rollback(tracking, "agent", reason="it loops")
        if verdict == "refused":
            return promoted(tracking, target)
        proposed = assess(tracking, "agent", gate(), which=target)
        return reject(tracking, proposed, Approval(outcome="rejected", by="bob", reason="it loops", at=""))

    for call in itertools.count():
        champion = champion_of(tracking)
        if verdict == "rolled_back":
            first(tracking, 3 - (champion or 0))
            champion = champion_of(tracking)
        assert champion
        target = 3 - champion
        before = receipt_tags(tracking, target)
        with faulty(tracking, call, after=after, lasts=lasts) as client:
            act(target)
        moves = verdict in ("promoted", "rolled_back")
        if champion_of(tracking) == target:
            assert moves
            stated = Receipt.model_validate_json(str(receipt_tags(tracking, target)[1]))
            assert stated == newest_receipt(tracking, target)
            assert (stated.verdict, stated.previous_champion) == (verdict, champion)
        elif moves:
            found = receipt_tags(tracking, target)
            assert found == before or (lasts and found[0] is None)
        if not client.struck:
            break
        if champion_of(tracking) == champion:
            assert act(target).verdict == verdict
        elif verdict == "promoted":
            with pytest.raises(AlreadyChampion):
                act(target)
        if verdict != "rolled_back":
            assert receipt_tags(tracking, target)[0] == verdict
        assert champion_of(tracking) == (target if moves else champion)
    assert call >= 8, "no call was tried"


@pytest.mark.parametrize("after", [False, True])
def test_a_receipt_goes_with_the_alias_where_moving_it_fails(
    tracking: Tracking,
    evaluation_of: Build,
    register_as: RegisterAs,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    version = register_as("a", evaluation_of("1111100000"))
    move = tracking.client.set_registered_model_alias

    def time_out(*args: str) -> None:
        if after:
            move(*args)
        raise MlflowException("timed out")

    with monkeypatch.context() as broken:
        broken.setattr(tracking.client, "set_registered_model_alias", time_out)
        if after:
            assert first(tracking).promoted
        else:
            with pytest.raises(TrackingError, match="timed out"):
                first(tracking)
    assert (champion_of(tracking), has_verdict(tracking, "agent")) == ((version, True) if after else (None, False))
    assert (receipt_tags(tracking, version)[1] is not None) == after
    if not after:
        assert first(tracking).promoted


LONG, CONTROL, EMPTY = "x" * 99_000, "all good \x1b[31m", " \n "
TEXTS = [
    (LONG, "has 99000 characters"),
    (CONTROL, r"control character U\+001B"),
    ("\udcff", "U\\+DCFF"),
    ("a\u202eb", "U\\+202E"),
]


@pytest.mark.parametrize(("text", "found"), TEXTS)
def test_a_text_that_no_receipt_can_hold_is_refused_before_anything_moves(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, text: str, found: str
) -> None:
    register_as("a", evaluation_of("1111100000"))
    lenient = gate(LIMITS.model_copy(update={"margin": -0.5}))
    proposed = assess(tracking, "agent", lenient)
    approval = Approval(outcome="approved", by="ada", reason="ok", at="")
    acts: list[Callable[[], Receipt]] = [
        lambda: promote(tracking, "agent", lenient, by=text),
        lambda: promote(tracking, "agent", lenient, approval=approval.model_copy(update={"reason": text})),
        lambda: promote(tracking, "agent", lenient, approval=approval.model_copy(update={"by": text})),
        lambda: reject(tracking, proposed, approval.model_copy(update={"reason": text})),
        lambda: rollback(tracking, "agent", reason=text),
        lambda: rollback(tracking, "agent", reason="it loops", by=text),
    ]
    for act in acts:
        with pytest.raises(InputError, match=found) as caught:
            act()
        assert caught.value.exit_code == 2
    assert champion_of(tracking) is None
    assert receipt_tags(tracking, 1) == (None, None)


def test_what_is_written_on_several_lines_stands_on_one(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    for weights in ("a", "b"):
        first(tracking, register_as(weights, evaluation_of("1111100000", weights)))
    assert rollback(tracking, "agent", reason=" it loops\n on \t I3 ").reasons == ("it loops on I3",)
    assert shown("a\x1bb\nc", 4) == "a\N{REPLACEMENT CHARACTER}b"
    assert one_line("the reason", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469", 99)
    for empty in ("", EMPTY):
        with pytest.raises(InputError, match="the reason is empty"):
            rollback(tracking, "agent", reason=empty)


def test_a_receipt_of_a_world_with_hundreds_of_groups_fits(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    tasks = evaluation_of("1" * 600)
    groups = {task: f"{'a long name of a group ' * 4}{number}" for number, task in enumerate(tasks.solved)}
    register_as("a", tasks.model_copy(update={"group_of": groups}))
    receipt = promote(tracking, "agent", gate(resamples=100))
    assert receipt.promoted
    stated = Receipt.model_validate_json(str(receipt_tags(tracking, 1)[1]))
    assert stated.comparison is not None
    assert (list(stated.comparison.groups), stated.comparison.won) == (["all"], 600)
    assert newest_receipt(tracking, 1) == receipt


@pytest.mark.parametrize("alias", ["candidate", "champion"])
def test_a_version_that_somebody_registered_by_hand_is_named(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, alias: str
) -> None:
    register_as("a", evaluation_of("1111100000"))
    foreign = tracking.client.create_model_version("agent", source="file:///elsewhere").version
    tracking.client.set_registered_model_alias("agent", alias, str(foreign))
    with pytest.raises(DataError, match="agent version 2: was not registered by StepTool to the end"):
        first(tracking)
    with pytest.raises(ModelError, match="agent version 2"):
        load_registered(tracking, "agent", alias)


def test_a_version_that_lost_the_evaluation_of_its_baseline_is_refused_until_it_is_registered_again(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    register_as("a", evaluation_of("1111100000"))
    (stored,) = tracking.root.glob("mlruns/**/baseline_evaluation.json")
    stored.unlink()
    with pytest.raises(DataError, match=r"holds no evaluation of its baseline\n.*`steptool register ppo`"):
        first(tracking)
    assert receipt_tags(tracking, 1) == (None, None)
    assert register_as("a", evaluation_of("1111100000")) == 1
    assert first(tracking).promoted


@pytest.mark.parametrize("noted", ["", "x", "{}", "null", '["a"]', "[1, null]", "7"])
def test_a_history_that_is_none_is_named_and_kept(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, noted: str
) -> None:
    register_as("a", evaluation_of("1111100000"))
    first(tracking)
    register_as("b", evaluation_of("1111111111"))
    tracking.client.set_registered_model_tag("agent", HISTORY, noted)
    with pytest.raises(ModelError, match="is no list of versions"):
        promoted(tracking, margin=-0.5)
    with pytest.raises(ModelError, match="is no list of versions"):
        rollback(tracking, "agent", reason="it loops")
    assert champion_of(tracking) == 1
    assert receipt_tags(tracking, 2) == (None, None)


def test_a_promotion_that_came_second_leaves_no_trace_in_the_history(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weights in ("a", "b", "c"):
        register_as(weights, evaluation_of("1111100000", weights))
    first(tracking, 1)
    real = promotion.decide

    def decide_slowly(*arguments: object, **named: object) -> Receipt:
        monkeypatch.setattr(promotion, "decide", real)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(promotion, "_one_at_a_time", lambda _: nullcontext())
            first(tracking, 2)  # from another host
        return real(*arguments, **named)

    monkeypatch.setattr(promotion, "decide", decide_slowly)
    with pytest.raises(TrackingError, match="version 2 champion meanwhile"):
        first(tracking, 3)
    assert champions(tracking, "agent") == [1, 2]
    assert receipt_tags(tracking, 3) == (None, None)
    assert not list(tracking.root.glob("mlruns/**/versions/3/receipts/*"))


def test_the_way_back_never_ends_at_the_champion_itself(
    tracking: Tracking, evaluation_of: Build, register_as: RegisterAs
) -> None:
    """champions 1 2 1, and 2 is deleted"""
    for weights in ("a", "b"):
        register_as(weights, evaluation_of("1111100000", weights))
    for version in (1, 2, 1):
        first(tracking, version)
    tracking.client.delete_model_version("agent", "2")
    with pytest.raises(ModelError, match="no champion before it"):
        rollback(tracking, "agent", reason="it loops")


@pytest.mark.slow
def test_the_gate_works_through_a_real_server(
    serve: Callable[[], tuple[str, Callable[[], None]]], evaluation_of: Build, tmp_path: Path
) -> None:
    tracking = Tracking(serve()[0], "served", root=tmp_path)

    def register_version(number: int, verdicts: str) -> int:
        folder, evaluation = tmp_path / f"m{number}", evaluation_of(verdicts, f"r{number}")
        folder.mkdir(exist_ok=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / file).write_text(str(number))
        with tracking.stage("register") as run:
            baseline = nothing_solved(evaluation)
            return register(tracking, run, "agent", folder, evaluation, {"seed": "17"}, baseline=baseline).version

    for number, verdicts, margin in ((1, "0000000001", -0.5), (2, "1111111111", 0.0)):
        assert register_version(number, verdicts) == number
        assert promoted(tracking, min_pass_rate=0.0, margin=margin).promoted
    assert (load_registered(tracking, "agent") / "config.json").read_text() == "2"
    (damaged,) = (file for file in tmp_path.glob("served/**/model/config.json") if file.read_text() == "2")
    damaged.write_text("x")
    damaged.with_name("more.json").write_text("x")
    with pytest.raises(ModelError, match="was registered as"):
        load_registered(tracking, "agent")
    assert register_version(2, "1111111111") == 2
    assert (load_registered(tracking, "agent") / "config.json").read_text() == "2"
    rollback(tracking, "agent", reason="it loops")
    assert (load_registered(tracking, "agent", out=tmp_path / "back") / "config.json").read_text() == "1"
    with pytest.raises(ModelError, match="no champion before it"):
        rollback(tracking, "agent", reason="again")
