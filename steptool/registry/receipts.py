"""Why a version was or was not promoted: the receipt, and its place on the version that it is about.

    1 receipt stored   2 the block that carries it out   3 verdict written

MLflow has no transaction over these. If 2 fails, the receipt is taken back; if that fails too, because MLflow is gone,
a receipt without a verdict is left, which counts for nothing. If 3 fails, the champion has a whole receipt, and the
next promotion or rollback writes the verdict.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from steptool.config.settings import PromoteParams
from steptool.core.errors import InputError, TrackingError
from steptool.core.types import Frozen
from steptool.evaluation.compare import Comparison
from steptool.evaluation.metrics import ALL
from steptool.registry.models import CHAMPION, artifacts_at, version_or_none
from steptool.tracking.client import mlflow_errors, warn
from steptool.tracking.run import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

VERDICT = "steptool.verdict"
RECEIPT = "steptool.receipt"
PREVIOUS = "steptool.previous_champion"
NAME_LENGTH, REASON_LENGTH = 200, 2000
"""Most characters of who decides, and of why: a receipt has to fit into one tag of MLflow."""
TAG_LENGTH = 90_000
"""Characters; MLflow takes 100,000."""
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's bidirectional classes of characters that turn the text after them round."""
MADE_CHAMPION = ("promoted", "rolled_back")


class Approval(Frozen):
    """What a person said of a version that had passed the gate."""

    outcome: Literal["approved", "rejected", "timed_out"]
    by: str
    reason: str
    at: str
    """UTC, ISO 8601."""

    def checked(self) -> Approval:
        """The same, with its texts as a receipt can hold them. Raises InputError."""
        by, reason = one_line("the name", self.by, NAME_LENGTH), one_line("the reason", self.reason, REASON_LENGTH)
        return self.model_copy(update={"by": by, "reason": reason})


class Receipt(Frozen):
    """Why a model was or was not promoted, in numbers; rates are fractions of the tasks."""

    verdict: Literal["promoted", "refused", "rejected", "rolled_back"]
    """The evidence refuses, a person rejects."""
    reasons: tuple[str, ...]
    pass_rate: float | None = None
    finish_rate: float | None = None
    grounded: float | None = None
    """Share of grounded answers, where the limits ask for these."""
    champion_pass_rate: float | None = None
    baseline_pass_rate: float | None = None
    """Of the arm that a first champion is compared with; else None."""
    comparison: Comparison | None = None
    """Candidate minus champion, or minus the baseline of a first champion, paired over tasks; None where the two could
    not be compared."""
    limits: PromoteParams | None = None
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

    def about(self, version: ModelVersion, champion: ModelVersion | None, by: str) -> Receipt:
        """The same, naming the version that it is about, the champion of this moment, who decided, and the time."""
        return self.model_copy(
            update={
                "model": version.name,
                "version": int(version.version),
                "previous_champion": int(champion.version) if champion else None,
                "by": by,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )


@contextmanager
def stored(tracking: Tracking, version: ModelVersion, receipt: Receipt) -> Iterator[None]:
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
            with mended_later():
                _take_back(tracking, version, [*tags, VERDICT], file)
        if not (moved and isinstance(fault, TrackingError)):
            raise
    with mended_later() if makes_champion else nullcontext(), mlflow_errors(tracking.uri, "write the verdict"):
        _set_tags(tracking, version, {VERDICT: receipt.verdict})


def finish_last(tracking: Tracking, name: str) -> None:
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


@contextmanager
def mended_later() -> Iterator[None]:
    """A fault of the block is a warning: champion and receipt agree without it, and the next promotion mends it."""
    try:
        yield
    except TrackingError as error:
        warn(f"{error.found}; the next promotion or rollback makes up for it")


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
