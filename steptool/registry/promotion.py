"""Promotion, rejection and rollback: what moves the alias `champion`, and nothing else does.

The alias is the truth; everything else can be rebuilt from it. A tag of the registered model remembers the champions
before it, oldest first, so that rollbacks can walk back. It is cut after the last mention of the present champion when
read, which repairs it if a process was killed between setting the one and the other, or if somebody moved the alias by
hand.

    receipt stored   history written   alias moved   verdict written
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import TypeAdapter

from steptool.config.places import WORK
from steptool.core.errors import ModelError, TrackingError
from steptool.registry.gate import Gate, decide
from steptool.registry.models import (
    CANDIDATE,
    CHAMPION,
    find_version,
    load_baseline,
    load_evaluation,
    version_or_none,
)
from steptool.registry.receipts import (
    NAME_LENGTH,
    REASON_LENGTH,
    VERDICT,
    Approval,
    Receipt,
    finish_last,
    mended_later,
    one_line,
    stored,
)
from steptool.tracking.client import mlflow_errors
from steptool.tracking.machine import user_name
from steptool.tracking.run import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

HISTORY = "steptool.champions"
HISTORY_LENGTH = 100


class AlreadyChampion(ModelError):
    """The version is the champion: there is nothing to decide."""


def assess(tracking: Tracking, name: str, gate: Gate, *, which: str | int = CANDIDATE) -> Receipt:
    """What the gate says of the version `which` of `name`, as the evidence stands. Stores and moves nothing.

    Raises ModelError if there is no such version, AlreadyChampion, TrackingError if MLflow cannot be reached.
    """
    return _assessed(tracking, name, gate, which, user_name())[0]


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

    The receipt is stored with the version as tags and as an artifact. Raises what `assess` raises, and
    TrackingError if somebody else moved the alias meanwhile.
    """
    by, approval = _named(by), approval.checked() if approval else None
    with _one_at_a_time(tracking):
        finish_last(tracking, name)
        receipt, version, champion = _assessed(tracking, name, gate, which, by)
        receipt = receipt.model_copy(update={"approval": approval})
        with stored(tracking, version, receipt):
            if receipt.promoted:
                past = champions(tracking, name)
                _check_unmoved(tracking, name, champion)
                _write_history(tracking, name, [*past, int(version.version)])
                _set_champion(tracking, version)
    return receipt


def reject(tracking: Tracking, proposed: Receipt, approval: Approval) -> Receipt:
    """Store that a person, or silence, turned down what `assess` would have promoted; the numbers shown are kept.

    Raises AlreadyChampion if the version was made champion some other way meanwhile.
    """
    approval = approval.checked()
    with _one_at_a_time(tracking):
        version = find_version(tracking, proposed.model, proposed.version or CANDIDATE)
        champion = version_or_none(tracking, proposed.model, CHAMPION)
        _check_not_champion(version, champion)
        receipt = proposed.model_copy(
            update={"verdict": "rejected", "reasons": (approval.reason,), "approval": approval}
        )
        receipt = receipt.about(version, champion, approval.by)
        with stored(tracking, version, receipt):
            pass  # nothing moves
    return receipt


def _assessed(
    tracking: Tracking, name: str, gate: Gate, which: str | int, by: str
) -> tuple[Receipt, ModelVersion, ModelVersion | None]:
    version, champion = find_version(tracking, name, which), version_or_none(tracking, name, CHAMPION)
    _check_not_champion(version, champion)
    receipt = decide(
        gate,
        load_evaluation(tracking, version),
        load_evaluation(tracking, champion) if champion else None,
        baseline=None if champion else load_baseline(tracking, version),
    )
    return receipt.about(version, champion, by), version, champion


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
        finish_last(tracking, name)
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
        receipt = Receipt(verdict="rolled_back", reasons=(reason,)).about(earlier, champion, by)
        with stored(tracking, earlier, receipt):
            _check_unmoved(tracking, name, champion)
            _set_champion(tracking, earlier)
        with mended_later():
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


def _named(by: str | None) -> str:
    return one_line("the name", (by or "").strip() or user_name(), NAME_LENGTH)
