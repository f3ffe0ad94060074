"""`steptool promote` where a person is asked: the person is who types it, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from steptool.errors import InputError
from steptool.stages.promote import promote_candidate


@pytest.mark.parametrize("reason", [None, ""])
def test_promotion_by_hand_needs_a_reason_where_approval_is_human(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    (tmp_path / "params.yaml").write_text("promote: {approval: human}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="needs a reason") as caught:
        promote_candidate("ada", reason)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "mlflow.db").exists(), "nothing was written"
