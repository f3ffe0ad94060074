"""params.yaml: every problem at once, each with its line.

1  seed: 17
2  sample:
3    tasks: 4
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from ruamel.yaml import YAML

from steptool.errors import InputError, ParamsError
from steptool.params import Params, TrainParams, apply_profile, load_params, next_draw, parse_params

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def save(text: str, name: str = "params.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return save


def test_a_value_overrides_its_default_and_the_rest_stays(write: Any) -> None:
    params = load_params(write("seed: 3\nsample:\n  tasks: 4\n"))
    assert (params.seed, params.sample.tasks) == (3, 4)
    assert params.sample.attempts == Params().sample.attempts


def test_the_shipped_file_states_every_setting_and_each_at_its_default() -> None:
    shipped = load_params(ROOT / "params.yaml")
    assert shipped.model_dump(exclude={"rounds"}) == Params().model_dump(exclude={"rounds"})
    data = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for name, field in Params.model_fields.items():
        key = field.alias or name
        assert key in data
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert set(data[key]) == set(field.annotation.model_fields), key


def test_rounds_are_chained() -> None:
    rounds = list(load_params(ROOT / "params.yaml").rounds.items())
    for (before, _), (_, round_) in pairwise(rounds):
        assert round_.policy == f"models/{before}"
        assert round_.previous == f"data/validated/{before}"


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:3: sample\.task: unknown key, did you mean 'tasks'\?"):
        load_params(write("seed: 3\nsample:\n  task: 4\n"))


def test_an_unknown_section_lists_the_known_ones(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: zzz: unknown key; known here: seed, world, .*validate"):
        load_params(write("seed: 3\nzzz: 1\n"))


def test_a_mistyped_value_is_named_with_its_line(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:4: sample\.top_p: .*number.*got 'high'"):
        load_params(write("# comment\nsample:\n  tasks: 4\n  top_p: high\n"))


def test_all_problems_come_together(write: Any) -> None:
    text = "seed: -1\nsample:\n  tasks: 0\n  temprature: 1\ntrain:\n  gamma_step: 1.5\n"
    with pytest.raises(ParamsError) as caught:
        load_params(write(text))
    found = caught.value.found.splitlines()
    assert [line.split("params.yaml:")[1].split(":")[0] for line in found] == ["1", "3", "4", "6"]


def test_a_rule_between_two_settings_is_reported_at_their_section(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: train: kl_coef is above 0 exactly when"):
        load_params(write("seed: 1\ntrain:\n  kl_in: none\n"))
    with pytest.raises(ParamsError, match="needs kl_to: reference"):
        load_params(write("seed: 1\ntrain:\n  kl_in: reward\n"))
    assert TrainParams(kl_in="loss", kl_coef=0.1).kl_coef == 0.1


def test_a_problem_inside_a_round_is_found(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: rounds\.r1\.previous: Field required"):
        load_params(write("rounds:\n  r1: {policy: models/sft}\n"))
    with pytest.raises(ParamsError, match=r"rounds\.r1\.polcy: unknown key, did you mean 'policy'\?"):
        load_params(write("rounds:\n  r1: {policy: a, previous: b, polcy: c}\n"))


@pytest.mark.parametrize(
    ("text", "written", "seconds"),
    [("90s", "90s", 90), ("30m", "30m", 1800), ("24h", "24h", 86400), ("1d", "24h", 86400), ("1.5h", "90m", 5400)],
)
def test_durations_are_read_with_their_unit_and_written_back(
    write: Any, text: str, written: str, seconds: float
) -> None:
    promote = load_params(write(f"promote:\n  approval_timeout: {text}\n")).promote
    assert promote.approval_timeout.total_seconds() == seconds
    assert promote.model_dump()["approval_timeout"] == written
    assert type(promote).model_validate_json(promote.model_dump_json()) == promote


@pytest.mark.parametrize("text", ["soon", "0s", "-3h", "5 weeks"])
def test_what_is_no_duration_is_named_with_its_line(write: Any, text: str) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml:2: promote.approval_timeout: "):
        load_params(write(f"promote:\n  approval_timeout: {text}\n"))


@pytest.mark.parametrize("text", ["", "- 1\n", "just text\n", "3\n"])
def test_a_file_without_settings_is_refused(write: Any, text: str) -> None:
    with pytest.raises(ParamsError, match="holds no settings"):
        load_params(write(text))


def test_broken_yaml_names_its_line(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:3: not YAML"):
        load_params(write("seed: 1\nsample: {tasks: 4\ntrain: 3\n"))


def test_a_key_given_twice_is_refused(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: .*duplicate"):
        load_params(write("seed: 1\nseed: 2\n"))


def test_yaml_cannot_make_objects(write: Any) -> None:
    with pytest.raises(ParamsError):
        load_params(write("seed: !!python/object/apply:os.getpid []\n"))


def test_a_missing_file_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.yaml: no such file\n.*repository's root"):
        load_params(tmp_path / "nowhere.yaml")


def test_bytes_that_are_not_text_are_a_params_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\xfe\x00\n")
    with pytest.raises(ParamsError):
        load_params(tmp_path / "params.yaml")


def test_a_params_error_is_an_input_error_with_exit_code_2() -> None:
    assert issubclass(ParamsError, InputError)
    assert ParamsError("x").exit_code == 2


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([field.alias or name for name, field in Params.model_fields.items()]) | st.text(max_size=5)


@given(st.dictionaries(KEYS, ANYTHING, max_size=4))
def test_no_content_gives_anything_but_params_or_a_params_error(data: dict[str, Any]) -> None:
    try:
        made = parse_params(Path("params.yaml"), data)
    except ParamsError as error:
        said = error.found
    else:
        said = "params.yaml: fine"
        assert Params.model_validate(made.model_dump(by_alias=True)) == made
    assert "params.yaml:" in said


# Profiles


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_shipped_profile_is_valid_and_changes_something(profile: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(apply_profile(ROOT / "params.yaml", profile))
    assert load_params(tmp_path / "params.yaml") != load_params(ROOT / "params.yaml")


def test_the_paper_profile_is_the_published_reward(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(apply_profile(ROOT / "params.yaml", ROOT / "profiles" / "paper.yaml"))
    reward = load_params(tmp_path / "params.yaml").reward
    assert (reward.form, reward.alpha, reward.step_cost, reward.budget_cost) == ("paper", 0.5, 0, 0)


def test_a_profile_keeps_comments_and_other_settings(write: Any) -> None:
    base = write("seed: 1  # the seed\nsample:\n  tasks: 4  # a round\n  attempts: 2\n")
    text = apply_profile(base, write("sample:\n  tasks: 8\n", "profile.yaml"))
    assert "# the seed" in text
    assert "tasks: 8  # a round" in text
    assert "attempts: 2" in text


def test_a_profile_replaces_the_rounds_as_a_whole(write: Any) -> None:
    base = write("rounds:\n  r1: {policy: a, previous: a}\n  r2: {policy: b, previous: b}\n")
    text = apply_profile(base, write("rounds:\n  r1: {policy: c, previous: c}\n", "profile.yaml"))
    assert list(YAML(typ="safe").load(text)["rounds"]) == ["r1"]


def test_the_next_draw_is_one_higher_and_changes_nothing_else(write: Any) -> None:
    base = write("seed: 1  # the seed\nsample:\n  draw: 4  # raised\n")
    assert next_draw(base) == "seed: 1  # the seed\nsample:\n  draw: 5  # raised\n"
    assert YAML(typ="safe").load(next_draw(write("seed: 1\n"))) == {"seed": 1, "sample": {"draw": 1}}


def test_a_bad_profile_is_refused_with_its_own_name(write: Any) -> None:
    base = write("seed: 1\n")
    with pytest.raises(ParamsError, match=r"profile\.yaml.*sample\.task: unknown key"):
        apply_profile(base, write("sample:\n  task: 8\n", "profile.yaml"))
    with pytest.raises(ParamsError, match=r"profile\.yaml: holds no settings"):
        apply_profile(base, write("", "profile.yaml"))


def test_a_potential_of_steps_refuses_a_discount_within_them() -> None:
    with pytest.raises(ParamsError, match=r"it needs train\.gamma_token: 1"):
        parse_params(Path("params.yaml"), {"train": {"gamma_token": 0.99}})
    assert parse_params(Path("params.yaml"), {"train": {"gamma_token": 0.99}, "reward": {"form": "paper"}})


def test_an_interval_that_the_resamples_cannot_reach_is_refused() -> None:
    """10 000 resamples at 95 %: 250 beyond each end; 5 for each of 50 looks."""
    assert parse_params(Path("params.yaml"), {"promote": {"looks": 50}}).promote.looks == 50
    with pytest.raises(ParamsError, match=r"looks: 51 puts 4\.9 of evaluate\.resamples"):
        parse_params(Path("params.yaml"), {"promote": {"looks": 51}})


def test_a_round_is_called_r_and_its_number() -> None:
    with pytest.raises(ParamsError, match="one"):
        parse_params(Path("params.yaml"), {"rounds": {"one": {"policy": "models/sft", "previous": "models/sft"}}})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: 17\x00\n")
    with pytest.raises(ParamsError, match="not YAML"):
        load_params(path)
