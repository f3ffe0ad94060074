"""`steptool promote` where a person is asked: the person is who types it, and says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from steptool.core.errors import InputError
from steptool.stages.promote import promote_candidate, roll_back


@pytest.mark.parametrize("reason", [None, "", " \n"])
def test_promotion_by_hand_needs_a_reason_where_approval_is_human(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    (tmp_path / "params.yaml").write_text("promote: {approval: human}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="needs a reason") as caught:
        promote_candidate("ada", reason)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "mlflow.db").exists(), "nothing was written"


TEXTS = ["x" * 99_000, "", " \n\t", "ok\x1b[2J", "ok\x00", "\udcff", "ko\u202eok"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("act", [lambda text: promote_candidate("ada", text), lambda text: roll_back("ada", text)])
def test_a_reason_that_no_receipt_can_hold_is_refused_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], None], text: str
) -> None:
    (tmp_path / "params.yaml").write_text("promote: {approval: none}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the reason (is empty|has 99000|holds)") as caught:
        act(text)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable() or str(caught.value).count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists(), "nothing was written"
