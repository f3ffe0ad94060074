"""A policy leaves the project as one folder that needs nothing of it.

models/base ─┐
models/new ──┴─ out/: merged weights, tokenizer, template, parser, canary, card
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from steptool.cli import app
from steptool.config.settings import Params, load_params
from steptool.core.errors import InputError, ModelError
from steptool.formats.json_call import JsonCall
from steptool.policies.canary import ask_folder, read_canary
from steptool.policies.model_folder import load_model, load_tokenizer
from steptool.serving.export import export
from steptool.serving.files import write_serving_files
from steptool.serving.policy import find
from tests.formats.native_families import native_tokenizer
from tests.policies.test_canary import half_the_scaling

FILES = {
    *("README.md", "canary.json", "chat_template.jinja", "config.json", "generation_config.json"),
    *("model.safetensors", "tokenizer.json", "tokenizer_config.json", "tool_parser.py"),
}


@pytest.fixture
def params(policy: Path) -> Params:
    Path("params.yaml").write_text("model: {dtype: float32}\nsample: {max_step_tokens: 40}\n", encoding="utf-8")
    return load_params()


def test_what_is_exported_is_the_policy_and_all_that_serves_it(policy: Path, params: Params) -> None:
    said = export(params, find(params, str(policy)), Path("out/new"))
    out = Path("out/new")
    assert {file.name for file in out.iterdir()} == FILES
    ask_folder(out, read_canary(policy), "float32")
    template = JsonCall(JsonCall.Config(), load_tokenizer(policy)).chat_template()
    assert load_tokenizer(out).chat_template == (out / "chat_template.jinja").read_text() == template
    settings = load_model(out, dtype=torch.float32).generation_config
    assert settings is not None and (settings.max_new_tokens, settings.temperature) == (40, 0.0)
    assert "vllm serve out/new --served-model-name new" in said
    card = (out / "README.md").read_text()
    assert "vllm serve . --served-model-name new --enable-auto-tool-choice --tool-call-parser json_call" in card
    assert "base with the adapter new, merged" in card and "not evaluated" in card
    assert "--tool-parser-plugin tool_parser.py" in card, "vLLM takes ./tool_parser.py for a relative import"


def test_a_native_policy_leaves_with_its_template_guarded_and_its_date(
    policy: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for base in (policy, Path("models/base")):
        native_tokenizer("gpt-oss").save_pretrained(base)
    Path("params.yaml").write_text("format: {use: native}\nmodel: {dtype: float32}\n", encoding="utf-8")
    monkeypatch.setattr("steptool.serving.export.ask_folder", lambda *_: None)  # its weights know another tokenizer
    said = export(load_params(), find(params, str(policy)), Path("out"))
    assert "VLLM_SYSTEM_START_DATE=2024-07-26 vllm serve out " in said
    assert "--tool-call-parser openai" in said
    assert "Current date: 2024-07-26" in load_tokenizer(Path("out")).apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False
    )


def test_a_plain_model_is_copied_without_what_its_stage_noted(policy: Path, params: Params) -> None:
    for name in ("manifest.json", "training.json"):
        (Path("models/base") / name).write_text("{}")
    export(params, find(params, "models/base"), Path("out"))
    assert {file.name for file in Path("out").iterdir()} == FILES - {"canary.json"}
    assert (Path("out") / "model.safetensors").read_bytes() == (Path("models/base") / "model.safetensors").read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_modes_are_those_of_any_new_file(policy: Path, params: Params, umask: int) -> None:
    before = os.umask(umask)
    try:
        export(params, find(params, str(policy)), Path("out"))
    finally:
        os.umask(before)
    assert Path("out").stat().st_mode & 0o777 == 0o777 & ~umask
    assert {file.name: file.stat().st_mode & 0o777 for file in Path("out").iterdir()} == dict.fromkeys(
        FILES, 0o666 & ~umask
    )


def test_a_folder_with_something_in_it_stays_as_it_is(policy: Path, params: Params) -> None:
    Path("out").mkdir()
    (Path("out") / "notes").write_text("mine")
    with pytest.raises(InputError, match="out: is not an empty folder"):
        export(params, find(params, str(policy)), Path("out"))
    assert [file.name for file in Path("out").iterdir()] == ["notes"]


def test_nothing_is_left_of_weights_that_compute_something_else(policy: Path, params: Params) -> None:
    half_the_scaling(policy)
    Path("made").mkdir()
    with pytest.raises(ModelError, match="computes something else than the trainer did"):
        export(params, find(params, str(policy)), Path("made/out"))
    assert list(Path("made").iterdir()) == []


def test_the_base_of_an_adapter_is_found_from_another_folder(
    policy: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named from the project's root, and the command runs elsewhere."""
    folder, elsewhere = policy.resolve(), Path("elsewhere")
    elsewhere.mkdir()
    shutil.copy("params.yaml", elsewhere)
    monkeypatch.chdir(elsewhere)
    export(params, find(params, str(folder)), Path("out"))
    moved = folder.parents[1] / "kept"
    (folder.parent / "base").rename(moved)
    with pytest.raises(ModelError, match="its base models/base does not exist"):
        find(params, str(folder))
    done = CliRunner().invoke(app, ["export", str(folder), "second", "--base", str(moved)])
    assert done.exit_code == 0, done.output
    assert (Path("second") / "model.safetensors").read_bytes() == (Path("out") / "model.safetensors").read_bytes()


def test_a_policy_that_does_not_exist_is_refused(params: Params) -> None:
    with pytest.raises(InputError, match="ppo7: no such policy"):
        find(params, "ppo7")


def test_an_arm_that_is_not_trained_yet_names_what_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("arms: {sft: {method: sft, from: base, data: [demonstrations]}}\n", encoding="utf-8")
    with pytest.raises(ModelError, match="models/sft: has not been trained yet") as caught:
        find(load_params(), "sft")
    assert str(caught.value.fix).startswith("`steptool run` trains it")


def test_a_format_that_no_server_can_speak_is_refused(policy: Path, tmp_path: Path) -> None:
    silent: Any = SimpleNamespace(format=SimpleNamespace(name="Mine", build=lambda tokenizer: object()))
    with pytest.raises(InputError, match="the format Mine has no chat_template"):
        write_serving_files(silent, policy, tmp_path)
