"""`steptool audit-rewards` on the bundled world, twenty tasks: what the published rewards pay for, and what grounded
ones do not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from steptool.commands.audit import FAILED, HELD, audit, form_of
from steptool.config.settings import Params
from steptool.core.errors import DataError, InputError
from steptool.core.storage import write_jsonl
from steptool.testing import call, finish, scored, step, trajectory

PUBLISHED = "use=paper,alpha=0.5,step_cost=0,budget_cost=0"
REPEATED = "a good call repeated to the budget, then right"
WRONG = "a wrong answer at once"
PARAMS: dict[str, Any] = {
    "seed": 17,
    "world": {"use": "mini", "train_tasks": 60, "dev_tasks": 6, "test_tasks": 6},
    "demonstrations": {"use": "experts", "count": 6},
    "rounds": {"r1": {"from": "base"}},
    "arms": {"ppo": {"method": "step_ppo", "from": "base", "data": ["r1"], "settings": {"lambda_step": 0.9}}},
}
Audit = Callable[..., tuple[int, str]]


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Audit the rewards of a project with PARAMS: exit status and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(reward: str | None = None, **options: Any) -> tuple[int, str]:
        with Path("params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(PARAMS, file)
        printed = io.StringIO()
        usual: dict[str, Any] = {
            "tasks": 20,
            "attempts": None,
            "lambda_step": None,
            "verdicts": True,
            "most": 0.05,
            "fitted_to": None,
            "voted": None,
        }
        return audit(reward=reward, console=Console(file=printed, width=160), **usual | options), printed.getvalue()

    return run


def shares(printed: str, attack: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith(attack)]
    return line.split()[-3:]


def test_the_published_rewards_pay_for_repeated_calls(audited: Audit) -> None:
    status, printed = audited(PUBLISHED)
    assert status == FAILED
    assert shares(printed, REPEATED) == ["100.0%"] * 3
    assert "failed: " in printed and "20 tasks, with the world's verdicts; lambda_step 0.9" in printed


def test_the_default_pays_for_delay_in_what_training_compares_and_not_in_the_return(audited: Audit) -> None:
    status, printed = audited()
    assert status == FAILED
    assert shares(printed, "a wrong answer put off to the budget") == ["0.0%", "100.0%", "100.0%"]


@pytest.mark.parametrize("verdicts", [True, False])
def test_grounded_rewards_pay_for_no_attack(audited: Audit, verdicts: bool) -> None:
    status, printed = audited("use=grounded", verdicts=verdicts, lambda_step=0.95)
    assert status == HELD, printed
    assert "passed: no attack earns more on more than 5% of the tasks" in printed
    assert (f"{WRONG}*" in printed) is not verdicts, "without a verdict it is shown, and not counted"


def test_a_solved_attempt_of_a_file_stands_for_the_expert(audited: Audit, tmp_path: Path) -> None:
    from steptool.worlds.mini.world import MiniWorld

    settings = {key: value for key, value in PARAMS["world"].items() if key != "use"}
    world = MiniWorld(MiniWorld.Config(**settings), PARAMS["seed"])
    demo = next(iter(world.demonstrations(1, 0.0, PARAMS["seed"])))
    path = tmp_path / "scored.jsonl.gz"
    write_jsonl(path, [scored(demo)])
    _, printed = audited("use=grounded", attempts=path)
    assert "1 tasks, with the world's verdicts" in printed


def test_a_file_without_a_solved_attempt_is_named(audited: Audit, tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl.gz"
    missed = trajectory(step(call("find", name="Dune"), "{}"), finish("9"), solved=0.0)
    write_jsonl(path, [scored(missed)])
    with pytest.raises(DataError, match="none of 0 right attempts"):
        audited(attempts=path)


@pytest.mark.parametrize("reward", ["use=nothing", "use=paper,alpha=much", "alpha"])
def test_what_is_no_reward_form_is_named(audited: Audit, reward: str) -> None:
    with pytest.raises(InputError):
        audited(reward)


def test_a_form_that_is_fitted_to_data_asks_for_it(audited: Audit) -> None:
    with pytest.raises(InputError, match="fitted to data"):
        audited("use=calibrated")


def test_a_reward_that_is_no_setting_is_refused_by_the_option_that_names_it() -> None:
    with pytest.raises(InputError, match="'alpha' is no setting") as refused:
        form_of(Params.model_validate({}), "alpha")
    assert "--reward alpha" in str(refused.value) and "use=paper,alpha=0.5" in str(refused.value)
