"""params.yaml, typed. Unknown keys and bad values are all reported together, each with its line.

A field's docstring line gives its unit or range where the name does not.
"""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from steptool.errors import ParamsError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _read_duration(value: object) -> object:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value) if isinstance(value, str) else None
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]]) if match else value


def write_duration(value: timedelta) -> str:
    """`90s`, `30m` or `24h`: the largest of these units that gives a whole number."""
    seconds = value.total_seconds()
    unit = next((unit for unit in "hm" if seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_read_duration), PlainSerializer(write_duration)]
"""`90s`, `30m`, `6h` or `1d`; a number is in seconds."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class WorldParams(Section):
    name: Literal["mini", "recorded"] = "mini"
    path: str = ""
    """Folder of a recorded world; empty takes the environment variable STEPTOOL_RECORDED."""
    train_tasks: Positive = 640
    dev_tasks: Positive = 240
    test_tasks: Positive = 300


class DemonstrationParams(Section):
    count: Positive = 320
    flawed: Fraction = 0.22
    """Share of the demonstrations that end unsolved."""


class ModelParams(Section):
    base: str = "smollm2"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; weights are stored as bfloat16. auto: what this machine is faster with."""


class SftParams(Section):
    learning_rate: Rate = 1.5e-4
    epochs: Positive = 1
    batch_size: Positive = 1
    frozen_layers: Annotated[int, Field(ge=0)] = 14
    """Lowest layers (and, if any, the embeddings) that do not train."""


class SampleParams(Section):
    tasks: Positive = 60
    attempts: Positive = 6
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_calls: Positive = 8
    """Actions of one trajectory, Finish included."""
    max_step_tokens: Positive = 48
    max_tokens: Positive = 1024
    """Tokens of one trajectory, context included."""
    concurrency: Positive = 128
    draw: Annotated[int, Field(ge=0)] = 0
    """Which draw of tasks and random numbers; another begins elsewhere among the tasks, with other numbers."""
    tool_timeout_s: Annotated[float, Field(gt=0)] = 10.0


class RewardParams(Section):
    form: Literal["potential", "paper"] = "potential"
    alpha: Annotated[float, Field(ge=0)] = 0.2
    step_cost: Annotated[float, Field(ge=0)] = 0.02
    budget_cost: Annotated[float, Field(ge=0)] = 0.2


class ValidateParams(Section):
    min_solve_rate: Fraction = 0.02
    max_solve_rate: Fraction = 0.99
    min_return_spread: Annotated[float, Field(ge=0)] = 1e-6
    """Least standard deviation of the discounted returns."""
    max_drift: Fraction = 0.4
    max_broken: Fraction = 0.1
    """Share of the trajectories that an engine or world fault may cut short."""
    min_per_subset: Annotated[int, Field(ge=0)] = 1
    max_logprob: Annotated[float, Field(ge=0)] = 1e-3


class TrainParams(Section):
    credit: Literal["token", "step"] = "token"
    baseline: Literal["branches", "attempts", "critic"] = "branches"
    gamma_step: Fraction = 0.99
    lambda_step: Fraction = 0.9
    """Of GAE, and of the lambda-returns that attempts are compared by. At 1 what `form: potential` pays for calls
    cancels where `branches` are compared. 0.9 was chosen by `benchmarks/credit.py` on training tasks."""
    gamma_token: Fraction = 1.0
    lambda_token: Fraction = 1.0
    whiten: bool = True
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.8
    clip_high: Annotated[float, Field(gt=0)] = 4.0
    dual_clip: Annotated[float, Field(gt=1)] = 3.0
    kl_in: Literal["none", "reward", "loss"] = "loss"
    kl_to: Literal["start", "reference"] = "start"
    """The policy that the round starts from, as PPO's penalty form has it (arXiv 1707.06347, 4), or the one before
    all rounds. In the loss, the divergence from it is exact, over the whole vocabulary."""
    kl_coef: Annotated[float, Field(ge=0)] = 1.0
    kl_clamp: Annotated[float, Field(gt=0)] = 5.0
    """Bound on the log-ratio to the reference in the reward, in nats."""
    importance_cap: Annotated[float, Field(gt=0)] = 2.0
    epochs: Positive = 1
    minibatches: Positive = 16
    """Optimiser steps an epoch."""
    learning_rate: Rate = 1e-3
    """At first; it falls linearly over the optimiser steps of a round."""
    round_decay: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Learning rate of a round over that of the round before. Later rounds find less to gain, and as much to break."""
    value_learning_rate: Rate = 1e-3
    value_warmup: Annotated[int, Field(ge=0)] = 20
    value_coef: Annotated[float, Field(ge=0)] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    row_tokens: Positive = 1024
    """Most tokens of one packed row."""
    lora_rank: Positive = 16
    lora_alpha: Positive = 32
    lora_plus: Annotated[float, Field(ge=1)] = 16.0
    """How much faster the adapter's B learns than its A (arXiv 2402.12354)."""
    lora_first_layer: Annotated[int, Field(ge=0)] = 16
    """LoRA adapts this layer and all above; gradients stop below it."""

    @model_validator(mode="after")
    def _kl_belongs_somewhere(self) -> TrainParams:
        if (self.kl_in == "none") != (self.kl_coef == 0):
            raise ValueError("kl_coef is above 0 exactly when kl_in is reward or loss")
        if self.kl_in == "reward" and self.kl_to == "start":
            raise ValueError("kl_in: reward needs kl_to: reference; what was sampled is 0 away from where it started")
        return self


class RftParams(Section):
    learning_rate: Rate = 3e-4
    epochs: Positive = 2


class EvaluateParams(Section):
    split: Literal["test", "dev"] = "test"
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    attempts: Positive = 1
    resamples: Annotated[int, Field(ge=100)] = 10_000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class PromoteParams(Section):
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.0
    min_pass_rate: Fraction = 0.3
    min_finish_rate: Fraction = 0.7
    max_broken: Fraction = 0.02
    """Share of the attempts that faults of the engine or the world may have ended, of the candidate and of what it is
    compared with: such attempts count as unsolved, so they make the other side better than it is."""
    looks: Positive = 1
    """How many candidates are going to be compared with a champion on the same tasks. Each is asked for a confidence of
    1 - (1 - evaluate.confidence) / looks (Bonferroni), so that the chance that any of them is promoted by luck is at
    most 1 - evaluate.confidence."""
    approval: Literal["none", "human"] = "none"
    """human: what passes the gate waits for `steptool approve`."""
    approval_timeout: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=24)
    """Silence for this long is a rejection."""


class TrackingParams(Section):
    experiment: str = "steptool"
    model_name: str = "steptool"


class RoundParams(Section):
    policy: str
    """Folder of the policy that this round samples from."""
    previous: str
    """Folder of the previous round's validated data, or of the policy in the first round."""


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 17
    world: WorldParams = WorldParams()
    demonstrations: DemonstrationParams = DemonstrationParams()
    model: ModelParams = ModelParams()
    sft: SftParams = SftParams()
    sample: SampleParams = SampleParams()
    reward: RewardParams = RewardParams()
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    train: TrainParams = TrainParams()
    rft: RftParams = RftParams()
    evaluate: EvaluateParams = EvaluateParams()
    promote: PromoteParams = PromoteParams()
    tracking: TrackingParams = TrackingParams()
    rounds: dict[Annotated[str, Field(pattern=r"^r[1-9][0-9]*$")], RoundParams] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shaping_is_of_steps(self) -> Params:
        if self.reward.form == "potential" and self.reward.alpha > 0 and self.train.gamma_token < 1:
            raise ValueError("reward.form: potential is one of steps, not of tokens: it needs train.gamma_token: 1")
        return self

    @model_validator(mode="after")
    def _resamples_reach_the_tails(self) -> Params:
        beyond = self.evaluate.resamples * (1 - self.evaluate.confidence) / self.promote.looks / 2
        if self.promote.looks > 1 and beyond < 5:
            raise ValueError(
                f"promote.looks: {self.promote.looks} puts {beyond:.1f} of evaluate.resamples beyond each end of the "
                "interval, which is then a guess: raise evaluate.resamples until there are 5"
            )
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file; raises one ParamsError that lists every problem with its line."""
    return parse_params(path, _load_yaml(path))


def _load_yaml(path: Path) -> Any:
    yaml = YAML(typ="rt")  # round-trip: safe types only, and it keeps line numbers and comments
    try:
        return yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError("no such file", where=str(path), fix="run steptool from the repository's root") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"not UTF-8 text: {error.reason}", where=str(path), fix="save it as UTF-8") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ParamsError(f"not YAML: {error.problem}", where=f"{path}:{line}", fix="mend that line") from error
    except YAMLError as error:  # a character that no YAML file may hold
        raise ParamsError(f"not YAML: {error}".splitlines()[0], where=str(path), fix="save it as plain text") from error


def parse_params(path: Path, data: Any) -> Params:
    if not isinstance(data, dict):
        raise ParamsError("holds no settings", where=str(path), fix="restore it with `git checkout params.yaml`")
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        lines = [_problem(path, data, item) for item in error.errors()]
        raise ParamsError("\n".join(lines), fix="every key and range is in steptool/params.py") from error


def _problem(path: Path, data: Any, error: Any) -> str:
    location = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        import difflib

        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        message = "unknown key" + (f", did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}")
    elif error["type"] != "value_error":
        message += f", got {error['input']!r}"
    return f"{path}:{_line(data, location)}: {'.'.join(map(str, location)) or 'params'}: {message}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Params
    for part in location:
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            model = RoundParams
            continue
        model = field.annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _line(data: Any, location: tuple[Any, ...]) -> int:
    """Line of the innermost key of `location` that the file holds, from 1."""
    line = 1
    for part in location:
        if not isinstance(data, dict) or part not in data:
            break
        if hasattr(data, "lc") and data.lc.data and part in data.lc.data:
            line = data.lc.key(part)[0] + 1
        data = data[part]
    return line


def apply_profile(path: Path, profile: Path) -> str:
    """The text of params file `path` with the values of `profile` laid over it, comments kept and the result checked.

    A mapping under `rounds` replaces the whole of it: a profile chooses how many rounds there are.
    """
    changes = _load_yaml(profile)
    if not isinstance(changes, dict):
        raise ParamsError("holds no settings", where=str(profile), fix="give it at least one key")
    return _changed(path, changes, told_of=profile)


def next_draw(path: Path) -> str:
    """The text of params file `path` with `sample.draw` one higher: new trajectories, the same settings."""
    return _changed(path, {"sample": {"draw": load_params(path).sample.draw + 1}}, told_of=path)


def _changed(path: Path, changes: dict[str, Any], *, told_of: Path) -> str:
    data = _load_yaml(path)
    for section, values in changes.items():
        if isinstance(values, dict) and section != "rounds" and isinstance(data.get(section), dict):
            for key, value in values.items():
                data[section][key] = value
        else:
            data[section] = values
    parse_params(told_of, data)
    text = StringIO()
    yaml = YAML(typ="rt")
    yaml.width = 120
    yaml.dump(data, text)
    return text.getvalue()
