"""params.yaml: every problem at once, each with its line.

1  seed: 17
2  sample:
3    tasks: 4
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from ruamel.yaml import YAML

from steptool.config.arms import arms_of, check_methods
from steptool.config.plugins import BUILT_IN, Section, Use
from steptool.config.settings import MOST_ROUNDS, Params, apply_profile, load_params, next_draw, parse_params
from steptool.core.errors import InputError, ParamsError
from steptool.core.plugins import config_class
from steptool.stages.rounds import ROUNDS_OF_A_DRAW

ROOT = Path(__file__).parents[2]
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


NAMED = {"methods", "rounds", "arms", "compare", "register", "metrics", "format", "engine", "search", "annotate"}
"""Sections that name things, or that the shipped file leaves to their defaults."""
UNSET = ("world", "calls")
"""The one setting that is nothing by default; another world does not have it, so the shipped file only mentions it."""


def test_the_shipped_file_states_every_setting_and_each_at_its_default() -> None:
    shipped = load_params(ROOT / "params.yaml")
    defaults = Params().model_dump(by_alias=True, exclude=None)
    found = shipped.model_dump(by_alias=True)
    assert {key: found[key] for key in found.keys() - NAMED} == {key: defaults[key] for key in found.keys() - NAMED}
    data = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for key in defaults.keys() - NAMED:
        assert key in data
        if isinstance(defaults[key], dict):
            assert set(data[key]) == {name for name in defaults[key] if (key, name) != UNSET}, key
    assert defaults[UNSET[0]][UNSET[1]] is None


def test_the_shipped_methods_state_every_setting_and_each_at_its_default() -> None:
    params = load_params(ROOT / "params.yaml")
    check_methods(params, ROOT / "params.yaml")
    for name, used in params.methods.items():
        default = config_class(used.cls)().model_dump()
        assert used.config.model_dump() == default, name
    assert set(params.methods["step_ppo"].settings) == set(params.methods["step_ppo"].config.model_fields_set)


def test_a_section_without_use_takes_the_default_plugin(write: Any) -> None:
    params = load_params(write("world: {test_tasks: 3}\n"))
    assert (params.world.name, params.world.config.test_tasks) == ("mini", 3)
    assert params.world.config.train_tasks == Params().world.config.train_tasks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("world: {use: minni}\n", r"params\.yaml:1: world: nothing is called 'minni', did you mean 'mini'\?"),
        ("world: {use: 3}\n", r"params\.yaml:1: world: `use` is a name or `module:Class`, got '3'"),
        ("world: {use: 'no_such_module:World'}\n", r"params\.yaml:1: world: no_such_module:World: cannot be imported"),
        ("world: {use: 'json:World'}\n", r"params\.yaml:1: world: json:World: has no class 'World'"),
        ("world: {use: '../evil:World'}\n", r"params\.yaml:1: world: nothing is called"),
        ("world:\n  use: mini\n  test_task: 3\n", r"params\.yaml:3: world\.test_task: .* did you mean 'test_tasks'\?"),
        ("world:\n  use: mini\n  test_tasks: x\n", r"params\.yaml:3: world\.test_tasks: .*integer, got 'x'"),
        ("metrics:\n  m: {}\n", r"params\.yaml:2: metrics\.m: `use` is a name or `module:Class`, got 'None'"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_named_with_its_line(write: Any, text: str, says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        load_params(write(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("methods:\n  step_ppo:\n    clip_lo: 1\n", r"params\.yaml:3: methods\.step_ppo\.clip_lo: .*'clip_low'\?"),
        ("methods:\n  mine: {use: 'no_such_module:M'}\n", r"params\.yaml: methods\.mine: cannot be imported"),
        (
            "arms:\n  a:\n    method: sft\n    from: base\n    data: [demonstrations]\n"
            "    settings:\n      epochs: many\n",
            r"params\.yaml:7: arms\.a\.settings\.epochs: .*integer, got 'many'",
        ),
    ],
)  # fmt: skip
def test_a_method_is_checked_with_its_line_once_it_is_asked_for(write: Any, text: str, says: str) -> None:
    """Its module takes seconds to import, so reading params.yaml alone does not import it."""
    path = write(text)
    params = load_params(path)
    with pytest.raises(ParamsError, match=says):
        check_methods(params, path)


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
    text = "seed: -1\nsample:\n  tasks: 0\n  temprature: 1\nreward:\n  gamma: 1.5\n"
    with pytest.raises(ParamsError) as caught:
        load_params(write(text))
    found = caught.value.found.splitlines()
    assert [line.split("params.yaml:")[1].split(":")[0] for line in found] == ["1", "3", "4", "6"]


ITSELF = "world: {use: 'tests.config.test_settings:ActsItself'}\n"


class ActsItself:
    """A world whose attempts one search alone can make."""

    search = "agent"


def test_a_world_that_makes_its_attempts_itself_chooses_the_search(write: Any) -> None:
    params = load_params(write(ITSELF))
    assert (params.acting_search.name, params.search.name) == ("agent", "chain")
    assert params.acting_search.path == BUILT_IN["search"]["agent"]
    assert Params().acting_search == Params().search
    given = load_params(write(f"{ITSELF}search: {{use: agent, host: 172.17.0.1}}\n")).acting_search
    assert (given.name, given.config.host) == ("agent", "172.17.0.1")
    assert given.dump() == params.acting_search.dump(), "where it listens changes no attempt"
    with pytest.raises(ParamsError, match=r"params\.yaml:2: search: .* makes its attempts itself, by the search agent"):
        load_params(write(f"{ITSELF}search: {{use: chain}}\n"))


def test_data_that_cannot_pass_is_no_setting(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: validate: no data can pass"):
        load_params(write("seed: 1\nvalidate: {min_solve_rate: 0.7, max_solve_rate: 0.6}\n"))


def test_settings_that_leave_no_room_for_each_other_are_refused(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: sample: no call fits: max_step_tokens is not below"):
        load_params(write("seed: 1\nsample: {max_step_tokens: 64, max_tokens: 64}\n"))


def test_a_problem_inside_a_round_is_found(write: Any) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml:2: rounds\.r1: a round has either `from`"):
        load_params(write("rounds:\n  r1: {}\n"))
    with pytest.raises(ParamsError, match=r"rounds\.r1\.fro: unknown key, did you mean 'from'\?"):
        load_params(write("rounds:\n  r1: {from: base, fro: b}\n"))


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
    with pytest.raises(ParamsError, match=r"nowhere\.yaml: no such file\n.*project's root"):
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
    assert reward.name == "paper"
    assert reward.config.model_dump() == {"alpha": 0.5, "step_cost": 0, "budget_cost": 0, "gamma": 0.99}


def test_a_profile_keeps_comments_and_other_settings(write: Any) -> None:
    base = write("seed: 1  # the seed\nsample:\n  tasks: 4  # a round\n  attempts: 2\n")
    text = apply_profile(base, write("sample:\n  tasks: 8\n", "profile.yaml"))
    assert "# the seed" in text
    assert "tasks: 8  # a round" in text
    assert "attempts: 2" in text


def test_a_profile_replaces_rounds_and_arms_as_a_whole(write: Any) -> None:
    base = write("rounds: {r1: {from: base}, r2: {from: base}}\narms: {a: {folder: x}}\ncompare: []\n")
    text = apply_profile(base, write("rounds:\n  r1: {from: b}\narms: {b: {folder: y}}\n", "profile.yaml"))
    made = YAML(typ="safe").load(text)
    assert (list(made["rounds"]), list(made["arms"])) == (["r1"], ["b"])


def test_a_profile_lays_settings_over_a_plugin_and_replaces_another_one(write: Any) -> None:
    base = write("reward: {use: potential, alpha: 0.1, gamma: 0.5}\nmethods: {rft: {epochs: 1, minibatches: 3}}\n")
    made = YAML(typ="safe").load(apply_profile(base, write("methods: {rft: {epochs: 2}}\nreward: {alpha: 0.3}\n", "p")))
    assert made["methods"] == {"rft": {"epochs": 2, "minibatches": 3}}
    assert made["reward"] == {"use": "potential", "alpha": 0.3, "gamma": 0.5}
    made = YAML(typ="safe").load(apply_profile(base, write("reward: {use: paper, alpha: 0.3}\n", "p")))
    assert made["reward"] == {"use": "paper", "alpha": 0.3}


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


def test_an_interval_that_the_resamples_cannot_reach_is_refused() -> None:
    """10 000 resamples at 95 %: 250 beyond each end; 5 for each of 50 looks."""
    assert parse_params(Path("params.yaml"), {"promote": {"looks": 50}}).promote.looks == 50
    with pytest.raises(ParamsError, match=r"looks: 51 puts 4\.9 of evaluate\.resamples"):
        parse_params(Path("params.yaml"), {"promote": {"looks": 51}})


@pytest.mark.parametrize("name", ["One", "r-1", "1r", "", "a/b", "x" * 41, "r1\n"])
@pytest.mark.parametrize("section", ["rounds", "arms", "methods", "metrics"])
def test_what_stands_in_names_of_stages_and_folders_is_plain(section: str, name: str) -> None:
    values = {"rounds": {"from": "base"}, "arms": {"folder": "x"}, "methods": {"use": "sft"}, "metrics": {"use": "a:B"}}
    with pytest.raises(ParamsError, match=section):
        parse_params(Path("params.yaml"), {section: {name: values[section]}})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: 17\x00\n")
    with pytest.raises(ParamsError, match="not YAML"):
        load_params(path)


# Every setting, with every kind of value that it cannot take


def settings(model: type[BaseModel], *path: str) -> Iterator[tuple[str, ...]]:
    """`promote.margin` as ("promote", "margin"), for every setting that there is, those of the default plugins too."""
    for name, field in model.model_fields.items():
        key, inner = field.alias or name, field.annotation
        if plugin := next((item for item in field.metadata if isinstance(item, Section)), None):
            yield from settings(config_class(plugin().cls), *path, key)
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings(inner, *path, key)
        elif not (model is Params and key in NAMED):
            yield (*path, key)


SHIPPED = tuple(BUILT_IN["methods"])
METHOD_SETTINGS = [
    found
    for name in SHIPPED
    for found in settings(config_class(Use("methods", name, BUILT_IN["methods"][name]).cls), "methods", name)
]
SETTINGS = [
    *settings(Params),
    ("rounds", "r1", "from"),
    ("arms", "a", "folder"),
    ("arms", "a", "from"),
    *METHOD_SETTINGS,
]
NEVER = {
    "inf": ".inf",
    "minus inf": "-.inf",
    "nan": ".nan",
    "large": "1.0e+308",
    "minus large": "-1.0e+308",
    "overflow": "1.0e+999",
    "400 digits": "1" + "0" * 400,
    "4301 digits": "1" + "0" * 4300,
    "hexadecimal": "0x" + "f" * 300,
    "nothing": "",
    "null": "null",
    "list": "[1]",
    "mapping": "{a: 1}",
    "escape": r'"\e[2J"',
    "NUL": r'"models/\0"',
    "surrogate": r'"\ud800"',
    "line break": r'"a\nb"',
    "long text": "x" * 5000,
    "date": "2024-01-01",
    "no date": "2024-99-99",
    "tag": "!!python/name:os.system",
    "binary": "!!binary aGVsbG8=",
    "bad number": "!!int abc",
}


@pytest.mark.parametrize("name", SETTINGS, ids=".".join)
def test_no_setting_takes_a_value_that_fails_later(name: tuple[str, ...], tmp_path: Path) -> None:
    """Each is refused in one line with the line of the file; true is a number to nobody but Python."""
    takes_null = name[0] == "register" or name in (("arms", "a", "from"), UNSET)
    takes_bool = name[-1] in ("whiten", "costs")
    lines_said = {1, len(name)} | ({2} if name == ("rounds", "r1", "from") else set())  # without it: the round lacks it
    values = NEVER | ({} if takes_bool else {"true": "true"})
    for what, value in values.items():
        if takes_null and what in ("nothing", "null"):
            continue
        lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(name)]
        lines[-1] += f" {value}"
        if name[0] == "arms" and name[-1] == "from":
            lines.append("    method: sft")
            lines.append("    data: [demonstrations]")
        path = tmp_path / "params.yaml"
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(ParamsError) as caught:
            check_methods(load_params(path), path)
        assert any(f"params.yaml:{line}: " in str(caught.value) for line in lines_said), what
        assert len(caught.value.found.splitlines()) == 1, what
        assert len(str(caught.value)) < 1000, what
        assert "\x1b" not in str(caught.value), what


@pytest.mark.parametrize("name", [n for n in settings(Params) if n[0] != "register"], ids=".".join)
def test_a_number_is_no_text_and_a_text_no_number(name: tuple[str, ...]) -> None:
    value: Any = Params().model_dump(by_alias=True)
    for key in name:
        value = value[key]
    wrong = 7 if isinstance(value, str) and name[-1] != "approval_timeout" else "seven"
    nested: Any = wrong
    for key in reversed(name):
        nested = {key: nested}
    with pytest.raises(ParamsError):
        parse_params(Path("params.yaml"), nested)


@pytest.mark.parametrize(
    "text", ["12345678901234567890d", "12345678901234567890s", "9e99s", "٣h", "367d", "0.1s", ".inf"]
)
def test_a_duration_that_no_clock_counts_is_refused(write: Any, text: str) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml:2: promote.approval_timeout: "):
        load_params(write(f"promote:\n  approval_timeout: {text}\n"))


@given(st.floats(1, 366 * 86400))
def test_any_duration_comes_back_from_what_is_written(seconds: float) -> None:
    promote = parse_params(Path("params.yaml"), {"promote": {"approval_timeout": seconds}}).promote
    assert promote.approval_timeout.total_seconds() == pytest.approx(seconds, abs=1e-6)
    assert type(promote).model_validate(promote.model_dump()) == promote


# Names that MLflow would refuse at the end of a night


@pytest.mark.parametrize(
    "name",
    [
        "acme/tools",
        "team's tools",
        "a:b",
        "50%",
        'the "best"',
        "",
        " ",
        " x",
        "x ",
        "a\tb",
        "x" * 251,
        "..",
        "/",
        "a\\b",
        "-x",
    ],
)
def test_a_model_is_not_named_what_mlflow_refuses(name: str) -> None:
    with pytest.raises(ParamsError, match=r"tracking\.model_name: "):
        parse_params(Path("params.yaml"), {"tracking": {"model_name": name}})


@pytest.mark.parametrize("name", ["", " ", " x", "x ", "a\nb", "\x1b[2J", "x" * 251, "\ud800"])
def test_an_experiment_has_a_name_that_can_be_shown_and_stored(name: str) -> None:
    with pytest.raises(ParamsError, match=r"tracking\.experiment: "):
        parse_params(Path("params.yaml"), {"tracking": {"experiment": name}})


@pytest.mark.slow
def test_mlflow_takes_every_name_that_is_accepted(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("steptool", "Werkzeuge für alle", "a.b-c_d 2", "9", "模型", "x" * 250):
        data = {"tracking": {"model_name": name, "experiment": f"{name[:240]}/é'"}}
        wanted = parse_params(Path("params.yaml"), data).tracking
        made = client.create_experiment(wanted.experiment, artifact_location=str(tmp_path / "runs"))
        assert client.get_experiment_by_name(wanted.experiment).experiment_id == made
        client.create_registered_model(wanted.model_name)
        client.create_model_version(wanted.model_name, str(tmp_path))
        client.set_registered_model_alias(wanted.model_name, "champion", "1")
        assert int(client.get_model_version_by_alias(wanted.model_name, "champion").version) == 1
        assert [version.name for version in client.search_model_versions(f"name='{name}'")] == [name]


# Rounds and arms build on what is made before them


def graph(rounds: dict[str, str], **arms: tuple[str, list[str]]) -> dict[str, Any]:
    """Rounds by the arm that they sample from, arms by what they start from and learn from."""
    made = {name: {"method": "sft", "from": start, "data": data} for name, (start, data) in arms.items()}
    return {"rounds": {name: {"from": start} for name, start in rounds.items()}, "arms": made}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (graph({"r1": "a"}), r"rounds\.r1\.from: is 'a'; it can be base"),
        (graph({"r1": "models/base"}), r"rounds\.r1\.from"),
        (graph({}, a=("b", ["demonstrations"])), r"arms\.a\.from: is 'b'; it can be base, a"),
        (graph({}, a=("base", ["r1"])), r"arms\.a\.data: is 'r1'; it can be demonstrations"),
        (graph({}, a=("a", ["demonstrations"])), "wait for each other: arm a → arm a"),
        (graph({"r1": "a"}, a=("base", ["r1"])), "wait for each other"),
        (graph({}, a=("b", ["demonstrations"]), b=("a", ["demonstrations"])), "wait for each other"),
        (graph({}, base=("base", ["demonstrations"])), r"arms\.base: an arm cannot be called that"),
        ({"arms": {"a": {"method": "sft"}}}, r"an arm has method, from and data"),
        ({"arms": {"a": {"folder": "x", "method": "sft"}}}, r"an arm with `folder` is not trained"),
        ({"arms": {"a": {"folder": "models/sft"}}}, r"arms\.a\.folder: .*lies where stages write"),
        ({"arms": {"a": {"folder": "x"}}, "compare": [["a", "b"]]}, "compare: is 'b'; it can be a"),
        ({"arms": {"a": {"folder": "x"}}, "compare": [["a", "a"]]}, "a is compared with itself"),
        ({"arms": {"a": {"folder": "x"}}, "compare": [["a"]]}, r"compare\.0: .*at least 2"),
        ({"arms": {"a": {"folder": "x"}}, "register": {"arm": "a"}}, r"register\.arm: is 'a'; it can be nothing yet"),
        ({"register": {"arm": "a", "best_on": "dev"}}, "give either arm or best_on"),
        (graph({f"r{n}": "base" for n in range(MOST_ROUNDS + 1)}), "at most 97"),
    ],
)
def test_what_cannot_be_made_in_any_order_is_refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        parse_params(Path("params.yaml"), data)


def test_arms_and_rounds_build_on_each_other_in_any_order_of_writing() -> None:
    """base ─ a ─ r1 ─┐
    └──────────┴ b ─ r2 ─ c; beside them a folder of the user's, and a round of it"""
    data = graph(
        {"r2": "b", "r1": "a", "r3": "given"}, c=("b", ["r1", "r2"]), b=("a", ["r1"]), a=("base", ["demonstrations"])
    )
    data["arms"]["given"] = {"folder": "models/base"}
    params = parse_params(Path("params.yaml"), data)
    order = params.made_in_order()
    assert order.index(("arm", "a")) < order.index(("round", "r1")) < order.index(("arm", "b"))
    assert order.index(("arm", "b")) < order.index(("round", "r2")) < order.index(("arm", "c"))
    by_name = {arm.name: arm for arm in arms_of(params)}
    assert list(by_name) == ["c", "b", "a", "given"], "the order of tables is that of the file"
    assert [name for name, _ in by_name["c"].ancestors] == ["b", "a", "base"]
    assert {name: arm.generation for name, arm in by_name.items()} == {"a": 0, "b": 1, "c": 2, "given": 0}
    assert MOST_ROUNDS == ROUNDS_OF_A_DRAW


# Files that are no settings


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)
HOSTILE = {
    "laughs": (LAUGHS, ":1: not YAML: an alias"),
    "alias of itself": ("a: &a [*a]\n", ":1: not YAML: an alias"),
    "deep list": ("seed: " + "[" * 200_000, ":1: more than 8 levels"),
    "deep mapping": ("seed: " + "{a: " * 50_000, ":1: more than 8 levels"),
    "deep lines": ("".join(" " * n + "a:\n" for n in range(700)), ":8: more than 8 levels"),
    "long": ("# " + "x" * 300_000, "larger than 262,144 bytes"),
    "conflict": ("seed: 1\n<<<<<<< HEAD\nworld: {}\n=======\n", ":2: a mark of a merge conflict"),
    "conflict below": ("sample:\n  tasks: 1\n=======\n", ":3: a mark of a merge conflict"),
    "tab": ("sample:\n\ttasks: 1\n", ":2: not YAML"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "not YAML"),
    "key twice": ("sample:\n  tasks: 1\n  tasks: 2\n", ":3: "),
    "many unknown": ("".join(f"a{n}: 1\n" for n in range(300)), "and 280 problems more"),
    "key of a list": ("? [a, b]\n: 1\n", ":1: "),
    "key of a number": ("1: 2\n", ":1: "),
    "key with escape": ('"\\e[2J": 2\n', ":1: "),
    "merge key": ("a: &a {tasks: 3}\nsample:\n  <<: *a\n", "not YAML: an alias"),
    "surrogate bytes": (b"seed: \xed\xa0\x80\n", "not UTF-8"),
    "directive": ("%YAML 9.9\n---\nseed: 1\n", ""),
    "null key": ("? \n: 1\n", ":1: "),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_at_once(case: str, tmp_path: Path) -> None:
    content, says = HOSTILE[case]
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    for read in (lambda: load_params(path), lambda: apply_profile(path, path), lambda: next_draw(path)):
        with pytest.raises(ParamsError) as caught:
            read()
        assert says in str(caught.value)
        assert len(str(caught.value)) < 8000
        assert "\x1b" not in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "unreadable"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to("/proc/self/mem")
    with pytest.raises(ParamsError, match=r"params\.yaml: "):
        load_params(path)
    with pytest.raises(ParamsError, match=r"params\.yaml: "):
        apply_profile(path, ROOT / "profiles/tiny.yaml")


@pytest.mark.parametrize("before", ["\ufeff", "\r\n", "# äöü\r\n"])
def test_files_from_other_editors_are_read(before: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((before + "seed: 3\r\nsample:\r\n  tasks: 4\r\n").encode())
    assert (load_params(path).seed, load_params(path).sample.tasks) == (3, 4)


@given(st.text(alphabet="ab: \n-[]{}&*!#|>'\"%@`,?0123456789.e\t\\\x00\ufeff~<", max_size=60))
def test_no_text_gives_anything_but_params_or_a_params_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_bytes(text.encode())
        with suppress(ParamsError):
            load_params(path)


def test_a_profile_that_does_not_exist_is_answered_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError, match=r"no profile 'tinny'\n.*: long, paper, qwen2\.5-7b-gpu, tiny"):
        apply_profile(ROOT / "params.yaml", Path("profiles/tinny.yaml"))


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("# one\nsample:\n  tasks: .inf\n", r"profile\.yaml:3: sample\.tasks: "),
        ("# one\nsample: 3\n", r"profile\.yaml:2: sample: holds settings"),
        ("rounds: {r1: {from: r2}}\n", r"profile\.yaml:1: rounds\.r1\.from: is 'r2'"),
        ("seed: 3\nvalidate:\n  min_solve_rate: 1.0\n", r"profile\.yaml:2: validate: no data can pass"),
    ],
)
def test_the_problem_of_a_profile_has_the_line_of_the_profile(profile: str, says: str, write: Any) -> None:
    text = (ROOT / "params.yaml").read_text()
    with pytest.raises(ParamsError, match=says):
        apply_profile(write(text), write(profile, "profile.yaml"))


def test_a_key_of_a_profile_is_held_against_the_plugin_of_the_file_under_it(write: Any) -> None:
    profile = write("world: {train_tasks: 48}\n", "profile.yaml")
    with pytest.raises(ParamsError, match=r"profile\.yaml:1: world\.train_tasks: unknown key, did you mean 'tasks'"):
        apply_profile(write("world: {use: functions}\n"), profile)


def test_what_dvc_cannot_read_is_refused_with_its_line(write: Any) -> None:
    """DVC reads params.yaml by another parser, which takes no colon between braces without quotes."""
    with pytest.raises(ParamsError, match=r"params\.yaml:2: not YAML: found unexpected ':'") as raised:
        load_params(write("seed: 17\nworld: {use: functions, module: tools.py:Shop}\n"))
    assert "quotes around the value that holds the colon" in str(raised.value)


@pytest.mark.parametrize("profile", ["seed: 3\n", "world:\n  tasks: x\n  module: tools.py:Shop\n"])
def test_what_a_profile_writes_can_be_read_by_dvc(profile: str, write: Any) -> None:
    text = "world: {use: functions, module: 'tools.py:Shop', tasks: \"mine.jsonl\"}\n"
    changed = apply_profile(write(text), write(profile, "profile.yaml"))
    assert YAML(typ="safe").load(changed)["world"]["module"] == "tools.py:Shop"
    assert "module: 'tools.py:Shop'" in changed


@pytest.mark.parametrize("entry", re.findall(r"`(\w+: \{.*?\})`", (ROOT / "examples/plugins/README.md").read_text()))
def test_dvc_can_read_what_the_examples_say_to_write(entry: str) -> None:
    (section,) = YAML(typ="safe").load(entry).values()
    assert "use" in section or "use" in next(iter(section.values()))


def test_a_profile_over_an_empty_file_is_refused(write: Any) -> None:
    base = write("")
    with pytest.raises(ParamsError, match=r"params\.yaml: holds no settings"):
        apply_profile(base, ROOT / "profiles/tiny.yaml")


@pytest.mark.parametrize("text", ["seed: .inf\n", LAUGHS, "<<<<<<< HEAD\n"])
def test_the_command_ends_with_status_2_and_without_a_traceback(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    command = [str(Path(sys.executable).with_name("steptool")), "params"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("steptool: params.yaml:1: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("key", ["model.base", "world.path", "demonstrations.path"])
@pytest.mark.parametrize(
    "named",
    ["models/base", "./models/mine", "x/../data/tasks", "{here}/models/base", "{here}/x/../data/tasks/mine", "link"],
)
def test_what_the_user_keeps_does_not_lie_where_stages_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, named: str
) -> None:
    """DVC removes the output models/base before `base` would read it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "link").symlink_to("models/base")
    section, name = key.split(".")
    path = tmp_path / "params.yaml"
    use = {"world": "use: recorded, ", "demonstrations": "use: file, "}.get(section, "")
    path.write_text(f"{section}: {{{use}{name}: '{named.format(here=tmp_path)}'}}\n")
    with pytest.raises(ParamsError, match="lies where stages write"):
        load_params(path)
    path.write_text(f"{section}: {{{use}{name}: '{tmp_path.parent / 'mine'}'}}\n")
    load_params(path)
