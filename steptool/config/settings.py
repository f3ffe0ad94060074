"""params.yaml, typed. Unknown keys and bad values are all reported together, each with its line.

A field's docstring line gives its unit or range where the name does not.
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import timedelta
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError, MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from steptool.config.places import PARAMS
from steptool.core.errors import ParamsError
from steptool.core.storage import conflict_line, read_bounded

SMOLLM2, TINY = "smollm2", "tiny-random"
"""Values of `model.base` that are neither a folder nor a hub model: the bundled one, and one of random weights."""
BASES = f"{SMOLLM2}, {TINY}, a model folder, or owner/name of a hub model"
MOST = 10_000_000
"""Most tasks, tokens or optimiser steps that a setting may ask for."""
MOST_ROUNDS = 97
OUTPUTS = ("data", "models", "metrics", "reports", ".steptool", ".dvc", ".git")
"""Folders that stages and tools write. A setting may name only what one of them makes there."""
LARGEST = 1e6
"""The largest weight or bound: more than is of any use, and far below where float32 overflows."""
MIN_TEMPERATURE = 0.01
"""vLLM raises a lower temperature to this one, and returns the log-probabilities of this one."""
MAX_FILE = 1 << 18
"""Bytes of a params file; the one that is shipped has 4,000."""
MAX_DEPTH = 8
"""Levels of a params file; settings have 3."""
MAX_PROBLEMS = 20
"""How many problems of a file are listed."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Many = Annotated[int, Field(ge=1, le=10_000)]
"""Of things that are held in memory together, or of repetitions."""
Weight = Annotated[float, Field(ge=0, le=LARGEST)]
Bound = Annotated[float, Field(gt=0, le=LARGEST)]
Rate = Annotated[float, Field(gt=0, le=1)]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"holds a character that cannot be printed, got {text[:80]!r}")
    return text


def _without_outer_spaces(text: str) -> str:
    if text != text.strip():
        raise ValueError(f"begins or ends with a space, got {text[:80]!r}")
    return text


def _model_name(text: str) -> str:
    if not re.fullmatch(r"\w[\w .\-]*", text):
        raise ValueError(
            "a model's name begins with a letter, a digit or '_' and holds nothing but these, '.', '-' and spaces, "
            f"got {text[:80]!r}"
        )
    return text


def _sampled_or_greedy(value: float) -> float:
    if 0 < value < MIN_TEMPERATURE:
        raise ValueError(f"vLLM samples at {MIN_TEMPERATURE} instead; give that or more, or 0 for greedy, got {value}")
    return value


Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
"""A path or an identifier."""
Name = Annotated[Text, Field(min_length=1, max_length=250), AfterValidator(_without_outer_spaces)]
"""A name that MLflow keeps; its databases hold 256 characters."""
ModelName = Annotated[Name, AfterValidator(_model_name)]
"""It stands in paths, in `models:/NAME@ALIAS` and in filters of MLflow, where `/`, `:`, `@`, `%` and quotes have a
meaning."""


def _read_duration(value: object) -> timedelta:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([smhd])", value, re.ASCII) if isinstance(value, str) else None
    try:
        if match:
            return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError) as error:  # more seconds than there are, or not a number of them
        raise ValueError("is not a number of seconds that a clock counts") from error
    if isinstance(value, timedelta):
        return value
    raise ValueError(f"a duration is a number and its unit, such as 90s, 30m, 24h or 7d, got {_shown(value)}")


def write_duration(value: timedelta) -> str:
    """`90s`, `30m` or `24h`: the largest of these units that gives a whole number."""
    seconds = value.total_seconds()
    unit = next((unit for unit in "hm" if seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:.15g}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_read_duration), PlainSerializer(write_duration)]
"""`90s`, `30m`, `6h` or `1d`; a number is in seconds."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _not_an_output(path: str) -> str:
    """Refuse what lies where stages write, by whatever path: through a link, or from the root of the disk."""
    place = os.path.relpath(os.path.realpath(path), os.path.realpath(os.curdir))
    if path and {PurePosixPath(name).parts[:1] for name in (place, os.path.normpath(path))} & {(n,) for n in OUTPUTS}:
        raise ValueError(
            f"{path[:80]!r} lies where stages write, and would be lost: keep it outside of {', '.join(OUTPUTS)}"
        )
    return path


Outside = Annotated[Text, AfterValidator(_not_an_output)]
"""A path of something that the user keeps and a stage reads."""


class WorldParams(Section):
    name: Literal["mini", "recorded"] = "mini"
    path: Outside = ""
    """Folder of a recorded world; empty takes the environment variable STEPTOOL_RECORDED."""
    train_tasks: Positive = 640
    dev_tasks: Positive = 240
    test_tasks: Positive = 300


class DemonstrationParams(Section):
    count: Positive = 320
    flawed: Fraction = 0.22
    """Share of the demonstrations that end unsolved."""
    path: Outside = ""
    """File with demonstrations of your own, one a line; empty takes `count` of the world's experts, if it has any."""


class ModelParams(Section):
    base: Annotated[Outside, Field(min_length=1)] = SMOLLM2
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; weights are stored as bfloat16. auto: what this machine is faster with."""


class SftParams(Section):
    learning_rate: Rate = 1.5e-4
    epochs: Many = 1
    batch_size: Many = 1
    frozen_layers: Natural = 14
    """Lowest layers (and, if any, the embeddings) that do not train."""


def _steps_fit(sample: SampleParams) -> SampleParams:
    if sample.max_step_tokens >= sample.max_tokens:
        raise ValueError("no call fits: max_step_tokens is not below max_tokens, which counts the prompt too")
    return sample


class SampleParams(Section):
    tasks: Positive = 60
    attempts: Many = 6
    temperature: Annotated[float, Field(ge=MIN_TEMPERATURE, le=5)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_calls: Many = 8
    """Actions of one trajectory, Finish included."""
    max_step_tokens: Positive = 48
    max_tokens: Positive = 1024
    """Tokens of one trajectory, context included."""
    draw: Natural = 0
    """Which draw of tasks and random numbers; another begins elsewhere among the tasks, with other numbers."""
    tool_timeout_s: Bound = 10.0


class RewardParams(Section):
    form: Literal["potential", "paper"] = "potential"
    alpha: Weight = 0.2
    step_cost: Weight = 0.02
    budget_cost: Weight = 0.2


class ValidateParams(Section):
    min_solve_rate: Fraction = 0.02
    max_solve_rate: Fraction = 0.99
    min_return_spread: Weight = 1e-6
    """Least standard deviation of the discounted returns."""
    max_drift: Fraction = 0.4
    max_broken: Fraction = 0.1
    """Share of the trajectories that an engine or world fault may cut short."""
    min_per_group: Natural = 1
    max_logprob: Weight = 1e-3


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
    clip_high: Bound = 4.0
    dual_clip: Annotated[float, Field(gt=1, le=LARGEST)] = 3.0
    kl_in: Literal["none", "reward", "loss"] = "loss"
    kl_to: Literal["start", "reference"] = "start"
    """The policy that the round starts from, as PPO's penalty form has it (arXiv 1707.06347, 4), or the one before
    all rounds. In the loss, the divergence from it is exact, over the whole vocabulary."""
    kl_coef: Weight = 1.0
    kl_clamp: Bound = 5.0
    """Bound on the log-ratio to the reference in the reward, in nats."""
    importance_cap: Bound = 2.0
    max_engine_kl: Weight = 0.05
    """Most divergence, in nats a token, between the policy as it is trained and as the engine sampled from it."""
    epochs: Many = 1
    minibatches: Many = 16
    """Optimiser steps an epoch."""
    learning_rate: Rate = 1e-3
    """At first; it falls linearly over the optimiser steps of a round."""
    round_decay: Rate = 0.4
    """Learning rate of a round over that of the round before. Later rounds find less to gain, and as much to break."""
    value_learning_rate: Rate = 1e-3
    value_warmup: Natural = 20
    value_coef: Weight = 0.5
    max_grad_norm: Bound = 1.0
    row_tokens: Positive = 1024
    """Most tokens of one packed row."""
    lora_rank: Many = 16
    lora_alpha: Positive = 32
    lora_plus: Annotated[float, Field(ge=1, le=LARGEST)] = 16.0
    """How much faster the adapter's B learns than its A (arXiv 2402.12354)."""
    lora_first_layer: Natural = 16
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
    epochs: Many = 2


class EvaluateParams(Section):
    split: Literal["test", "dev"] = "test"
    temperature: Annotated[float, Field(ge=0, le=5), AfterValidator(_sampled_or_greedy)] = 0.0
    attempts: Many = 1
    max_broken: Fraction = 0.02
    """Share of the attempts that faults of the engine or the world may end, each tried three times; more and nothing is
    written: what was not measured counts as unsolved, and the policy that lost more would lose the comparison."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class PromoteParams(Section):
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.0
    min_pass_rate: Fraction = 0.3
    min_finish_rate: Fraction = 0.7
    max_broken: Fraction = 0.02
    """Share of the attempts that faults of the engine or the world may have ended, of the candidate and of what it is
    compared with: such attempts count as unsolved, so they make the other side better than it is."""
    looks: Many = 1
    """How many candidates are going to be compared with a champion on the same tasks. Each is asked for a confidence of
    1 - (1 - evaluate.confidence) / looks (Bonferroni), so that the chance that any of them is promoted by luck is at
    most 1 - evaluate.confidence."""
    approval: Literal["none", "human"] = "none"
    """human: what passes the gate waits for `steptool approve`."""
    approval_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(days=366))] = timedelta(hours=24)
    """Silence for this long is a rejection."""


class TrackingParams(Section):
    experiment: Name = "steptool"
    model_name: ModelName = "steptool"


class RoundParams(Section):
    policy: Text
    """Folder of the policy that this round samples from: models/base, models/sft, that of an earlier round, or one of
    the user's own outside of models/."""
    previous: Text
    """Folder of the previous round's validated data, or of the policy in the first round."""


def _some_rate_passes(validate: ValidateParams) -> ValidateParams:
    if validate.min_solve_rate > validate.max_solve_rate:
        raise ValueError("no data can pass: min_solve_rate is above max_solve_rate")
    return validate


def _build_on_what_is_there(rounds: dict[str, RoundParams]) -> dict[str, RoundParams]:
    """A round reads what stages before it make, or a folder of the user's own, never what is made after it."""
    policies, data = ["models/base", "models/sft"], list[str]()
    for key, wanted in rounds.items():
        for name, value, made in (("policy", wanted.policy, policies), ("previous", wanted.previous, policies + data)):
            path = PurePosixPath(value)
            if path.as_posix() != value or path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"{key}.{name} is {value[:80]!r}; write a path below this folder, without `.` or `..`")
            if path.parts[0] in OUTPUTS and value not in made:
                raise ValueError(f"{key}.{name} is {value[:80]!r}; made before {key} are {', '.join(made)}")
        policies.append(f"models/{key}")
        data.append(f"data/validated/{key}")
    return rounds


Rounds = Annotated[
    dict[Annotated[str, Field(pattern=r"^r[1-9][0-9]{0,3}$")], RoundParams],
    Field(max_length=MOST_ROUNDS),
    AfterValidator(_build_on_what_is_there),
]


class MachineParams(Section):
    """What changes the speed and the memory of a run and nothing else; no stage runs again for it."""

    concurrency: Many = 128
    """Trajectories in flight."""


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 17
    world: WorldParams = WorldParams()
    demonstrations: DemonstrationParams = DemonstrationParams()
    model: ModelParams = ModelParams()
    sft: SftParams = SftParams()
    sample: Annotated[SampleParams, AfterValidator(_steps_fit)] = SampleParams()
    reward: RewardParams = RewardParams()
    validate_: Annotated[ValidateParams, AfterValidator(_some_rate_passes)] = Field(
        default=ValidateParams(), alias="validate"
    )
    train: TrainParams = TrainParams()
    rft: RftParams = RftParams()
    evaluate: EvaluateParams = EvaluateParams()
    promote: PromoteParams = PromoteParams()
    tracking: TrackingParams = TrackingParams()
    machine: MachineParams = MachineParams()
    rounds: Rounds = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shaping_is_of_steps(self) -> Params:
        if self.reward.form == "potential" and self.reward.alpha > 0 and self.train.gamma_token < 1:
            raise ValueError("reward.form: potential is one of steps, not of tokens: it needs train.gamma_token: 1")
        return self

    @model_validator(mode="after")
    def _experts_have_tasks_to_show(self) -> Params:
        count, tasks = self.demonstrations.count, self.world.train_tasks
        if self.world.name == "mini" and not self.demonstrations.path and count > tasks:
            raise ValueError(
                f"demonstrations.count: {count} is above world.train_tasks: {tasks}, and each shows another task"
            )
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


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a params file; raises one ParamsError that lists every problem with its line."""
    return parse_params(path, _load_yaml(path))


class _NoAliases(Composer):
    """An alias may stand for a value that holds ten aliases, and so on: nine lines that make a billion values."""

    def return_alias(self, a: Any) -> Any:
        raise ComposerError(None, None, "an alias refers to this anchor; write the value in both places", a.start_mark)


class _Constructor(RoundTripConstructor):
    """Gives a value that cannot be built, such as the date 2024-99-99, its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except YAMLError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            found = f"{type(error).__name__}: {error}"[:200]
            raise ConstructorError(None, None, found, node.start_mark) from error


def _load_yaml(path: Path) -> Any:
    yaml = YAML(typ="rt")  # round-trip: safe types only, and it keeps line numbers and comments
    yaml.Composer, yaml.Constructor, yaml.max_depth = _NoAliases, _Constructor, MAX_DEPTH
    try:
        text = read_bounded(path, MAX_FILE).decode()
    except FileNotFoundError as error:
        raise ParamsError("no such file", where=str(path), fix="run steptool from the repository's root") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"not UTF-8 text: {error.reason}", where=str(path), fix="save it as UTF-8") from error
    except OSError as error:
        fix = "put a file of settings there that you may read"
        raise ParamsError(f"cannot be read: {error.strerror or error}", where=str(path), fix=fix) from error
    if line := conflict_line(text):
        fix = "keep one of the two sides and delete the marks"
        raise ParamsError("a mark of a merge conflict", where=f"{path}:{line}", fix=fix)
    try:
        return yaml.load(text)
    except MaxDepthExceededError as error:
        found, line = f"more than {MAX_DEPTH} levels; settings have 3", error.problem_mark.line + 1
        raise ParamsError(found, where=f"{path}:{line}", fix="mend that line") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = str(error.problem).splitlines()[0] if error.problem else "broken"
        raise ParamsError(f"not YAML: {found}", where=f"{path}:{line}", fix="mend that line") from error
    except YAMLError as error:  # a character that no YAML file may hold
        raise ParamsError(f"not YAML: {error}".splitlines()[0], where=str(path), fix="save it as plain text") from error


def parse_params(path: Path, data: Any, *, written: Any = None) -> Params:
    """Check settings; `path` and `written` (`data` itself where None) are what errors and their lines refer to."""
    if not isinstance(data, dict):
        raise _no_settings(path)
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        problems = error.errors()
        written = data if written is None else written
        lines = [_problem(path, written, item) for item in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"{path}: and {len(problems) - MAX_PROBLEMS} problems more")
        raise ParamsError("\n".join(lines), fix="every key and range is in steptool/config/settings.py") from error


def _no_settings(path: Path) -> ParamsError:
    return ParamsError("holds no settings", where=str(path), fix="restore it with `git checkout params.yaml`")


def _problem(path: Path, written: Any, error: Any) -> str:
    location = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1])[:80], known, n=1)
        message = "unknown key" + (f", did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}")
    elif error["type"] in ("model_type", "dict_type"):
        message = f"holds settings, each as `name: value`, got {_shown(error['input'])}"
    elif error["type"] != "value_error":
        message += f", got {_shown(error['input'])}"
    name = ".".join(str(part)[:80] for part in location)
    return f"{path}:{_line(written, location)}: {name or 'params'}: {message}"


def _shown(value: Any) -> str:
    """The value, cut; its type where Python cannot write it, such as an integer of thousands of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."


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
    if not os.path.exists(profile):
        known = ", ".join(sorted(file.stem for file in Path("profiles").glob("*.yaml")))
        fix = f"name one of these, or a file: {known}" if known else "run it from the repository's root"
        raise ParamsError(f"no profile {profile.stem!r}", where=str(profile), fix=fix)
    changes = _load_yaml(profile)
    if not isinstance(changes, dict):
        raise ParamsError("holds no settings", where=str(profile), fix="give it at least one key")
    return _changed(path, changes, told_of=profile)


def next_draw(path: Path) -> str:
    """The text of params file `path` with `sample.draw` one higher: new trajectories, the same settings."""
    return _changed(path, {"sample": {"draw": load_params(path).sample.draw + 1}}, told_of=path)


def _changed(path: Path, changes: dict[str, Any], *, told_of: Path) -> str:
    data = _load_yaml(path)
    if not isinstance(data, dict):
        raise _no_settings(path)
    for section, values in changes.items():
        if isinstance(values, dict) and section != "rounds" and isinstance(data.get(section), dict):
            for key, value in values.items():
                data[section][key] = value
        else:
            data[section] = values
    parse_params(told_of, data, written=None if told_of == path else changes)
    text = StringIO()
    yaml = YAML(typ="rt")
    yaml.width = 120
    yaml.dump(data, text)
    return text.getvalue()
