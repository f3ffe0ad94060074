"""params.yaml, typed. Unknown keys and bad values are all reported together, each with its line.

A field's docstring line gives its unit or range where the name does not. A section that names a plugin (`use`) holds
the settings of its `Config`, which stands beside the plugin's class.
"""

from __future__ import annotations

import difflib
import os
from copy import deepcopy
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError, MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from steptool.config.places import BASE, PARAMS
from steptool.config.plugins import Section, Use, plugin_keys
from steptool.core.errors import ParamsError
from steptool.core.fields import (
    Bound,
    Duration,
    Fraction,
    Key,
    Many,
    ModelName,
    Name,
    Natural,
    Outside,
    Positive,
    Settings,
    Text,
    Weight,
    not_an_output,
)
from steptool.core.storage import conflict_line, read_bounded

SMOLLM2, TINY = "smollm2", "tiny-random"
"""Values of `model.base` that are neither a folder nor a hub model: the bundled one, and one of random weights."""
BASES = f"{SMOLLM2}, {TINY}, a model folder, or owner/name of a hub model"
BASE_ARM, DEMONSTRATIONS = "base", "demonstrations"
"""What an arm may start from, and learn from, beside other arms and rounds."""
EVALUATION_FILES = ("summary", "comparisons")
"""Files beside those of the arms in metrics/evaluation."""
MOST_ROUNDS = 97
MIN_TEMPERATURE = 0.01
"""vLLM raises a lower temperature to this one, and returns the log-probabilities of this one."""
MAX_FILE = 1 << 18
"""Bytes of a params file; the one that is shipped has 4,000."""
MAX_DEPTH = 8
"""Levels of a params file; settings have 4."""
MAX_PROBLEMS = 20
"""How many problems of a file are listed."""
Demonstrated = Literal["last", "alike"]
"""Where training tasks that have a demonstration stand among the others."""
WHERE_SETTINGS_STAND = (
    "every key and its range stand in steptool/config/settings.py, those of a plugin in its `Config`, beside its class"
)


def _sampled_or_greedy(value: float) -> float:
    if 0 < value < MIN_TEMPERATURE:
        raise ValueError(f"vLLM samples at {MIN_TEMPERATURE} instead; give that or more, or 0 for greedy, got {value}")
    return value


class ModelParams(Settings):
    base: Annotated[Outside, Field(min_length=1)] = SMOLLM2
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; weights are stored as bfloat16. auto: what this machine is faster with."""


def _steps_fit(sample: SampleParams) -> SampleParams:
    if sample.max_step_tokens >= sample.max_tokens:
        raise ValueError("no call fits: max_step_tokens is not below max_tokens, which counts the prompt too")
    return sample


class SampleParams(Settings):
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
    """Another number: other training tasks, other random numbers. A nightly run raises it."""
    demonstrated: Demonstrated = "last"
    """Training tasks that have a demonstration come after the others, or where they stand among them. Where only
    attempts that succeeded are shown, the others are the tasks that the demonstrator failed at: take `alike` there."""
    tool_timeout_s: Bound = 10.0


class ValidateParams(Settings):
    min_solve_rate: Fraction = 0.02
    max_solve_rate: Fraction = 0.99
    min_return_spread: Weight = 1e-6
    """Least standard deviation of the discounted returns."""
    max_drift: Fraction = 0.4
    max_broken: Fraction = 0.1
    """Share of the trajectories that an engine or world fault may cut short."""
    min_per_group: Natural = 1
    max_logprob: Weight = 1e-3


class EvaluateParams(Settings):
    split: Literal["test", "dev"] = "test"
    temperature: Annotated[float, Field(ge=0, le=5), AfterValidator(_sampled_or_greedy)] = 0.0
    attempts: Many = 1
    max_broken: Fraction = 0.02
    """Share of the attempts that faults of the engine or the world may end, each tried three times; more and nothing is
    written: what was not measured counts as unsolved, and the policy that lost more would lose the comparison."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class PromoteParams(Settings):
    measure: Literal["solved", "grounded"] = "solved"
    """What a candidate must do better, and what `register.best_on` chooses by: solve tasks, or where no task has a
    verdict, give answers that hold a value which a tool showed. The latter is no proof that they are right."""
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.0
    min_pass_rate: Fraction = 0.3
    """Of the measure."""
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


class TrackingParams(Settings):
    experiment: Name = "steptool"
    model_name: ModelName = "steptool"


WORLD = Section("world", "mini")
DEMONSTRATED = Section("demonstrations", "experts")
FORMAT = Section("format", "json_call")
ENGINE = Section("engine", "vllm")
ENDPOINT = Section("endpoint", "openai")
SEARCH = Section("search", "chain")
ANNOTATE = Section("annotate", "rules")
REWARD = Section("reward", "potential")
METHOD = Section("methods", None, is_heavy=True)
METRIC = Section("metrics", None)


class RoundParams(Settings):
    """Attempts to learn from: sampled from a policy, or imported."""

    from_: Key | None = Field(default=None, alias="from")
    """Arm that this round samples from, or base."""
    traces: Outside = ""
    """Folder that `steptool traces import` wrote: what was done in earnest, by whatever model."""

    @model_validator(mode="after")
    def _is_one_of_two(self) -> RoundParams:
        if (self.from_ is None) == (not self.traces):
            raise ValueError(
                "a round has either `from`, such as {from: sft}, or `traces`, such as {traces: traces/log}"
            )
        return self


def _given_folder(path: str) -> str:
    return path if path == BASE.as_posix() else not_an_output(path)


class ArmParams(Settings):
    """A policy: one that is trained, by a method from data, or only evaluated, from a folder or behind an endpoint."""

    method: Key | None = None
    """Name under `methods`, or of a method of this package."""
    from_: Key | None = Field(default=None, alias="from")
    """Arm that it starts from, or base."""
    data: list[Text] = Field(default_factory=list)
    """What it learns from: demonstrations, and rounds by their names."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Laid over the method's, for this arm alone."""
    folder: Annotated[Text, AfterValidator(_given_folder)] = ""
    """Of a policy that is there already: it is evaluated, not trained. models/base is the base model."""

    endpoint: Annotated[Use, ENDPOINT] | None = None
    """Where a policy answers whose weights are not here: it is evaluated, not trained."""

    @model_validator(mode="after")
    def _is_one_of_three(self) -> ArmParams:
        trained = (self.method is not None, self.from_ is not None, bool(self.data))
        elsewhere = "folder" if self.folder else "endpoint"
        if self.folder and self.endpoint:
            raise ValueError("an arm has either a folder or an endpoint")
        if (self.folder or self.endpoint) and (any(trained) or self.settings):
            raise ValueError(f"an arm with `{elsewhere}` is not trained: leave out method, from, data and settings")
        if not self.folder and not self.endpoint and not all(trained):
            raise ValueError("an arm has method, from and data, such as {method: sft, from: base, data: "
                             "[demonstrations]}; or a folder, or an endpoint")  # fmt: skip
        return self


class RegisterParams(Settings):
    arm: Key | None = None
    """Arm that `steptool register` registers; the first of `compare` where neither is given."""
    best_on: Literal["dev"] | None = None
    """Or the trained arm that does best on this split by `promote.measure`; no evaluation of the report looks at it."""

    @model_validator(mode="after")
    def _is_one_of_two(self) -> RegisterParams:
        if self.arm is not None and self.best_on is not None:
            raise ValueError("give either arm or best_on")
        return self


def _some_rate_passes(validate: ValidateParams) -> ValidateParams:
    if validate.min_solve_rate > validate.max_solve_rate:
        raise ValueError("no data can pass: min_solve_rate is above max_solve_rate")
    return validate


def _named_methods(value: Any) -> Any:
    """A method is what its key names where it has no `use`; torch takes seconds to import, so it is checked later."""
    if not isinstance(value, dict):
        return value
    return {key: {"use": key, **item} if isinstance(item, dict) else item for key, item in value.items()}


class MachineParams(Settings):
    """What changes the speed and the memory of a run and nothing else; no stage runs again for it."""

    concurrency: Many = 128
    """Trajectories in flight."""
    row_tokens: Positive = 1024
    """Most tokens of one packed row in training."""


class Params(Settings):
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 17
    world: Annotated[Use, WORLD] = Field(default_factory=WORLD)
    demonstrations: Annotated[Use, DEMONSTRATED] = Field(default_factory=DEMONSTRATED)
    model: ModelParams = ModelParams()
    format: Annotated[Use, FORMAT] = Field(default_factory=FORMAT)
    engine: Annotated[Use, ENGINE] = Field(default_factory=ENGINE)
    search: Annotated[Use, SEARCH] = Field(default_factory=SEARCH)
    sample: Annotated[SampleParams, AfterValidator(_steps_fit)] = SampleParams()
    annotate: Annotated[Use, ANNOTATE] = Field(default_factory=ANNOTATE)
    reward: Annotated[Use, REWARD] = Field(default_factory=REWARD)
    validate_: Annotated[ValidateParams, AfterValidator(_some_rate_passes)] = Field(
        default=ValidateParams(), alias="validate"
    )
    methods: Annotated[dict[Key, Annotated[Use, METHOD]], BeforeValidator(_named_methods)] = Field(default_factory=dict)
    evaluate: EvaluateParams = EvaluateParams()
    metrics: dict[Key, Annotated[Use, METRIC]] = Field(default_factory=dict)
    """What is measured beside the metrics of this package, by the name in tables."""
    rounds: Annotated[dict[Key, RoundParams], Field(max_length=MOST_ROUNDS)] = Field(default_factory=dict)
    """Data that is sampled, each round on the next training tasks."""
    arms: dict[Key, ArmParams] = Field(default_factory=dict)
    """Policies, in the order of tables: the one list that training, evaluation, report and registry read."""
    compare: list[Annotated[list[Key], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    """Pairs of arms, the candidate first; every arm with the first one where none is given."""
    register_: RegisterParams = Field(default=RegisterParams(), alias="register")
    promote: PromoteParams = PromoteParams()
    tracking: TrackingParams = TrackingParams()
    machine: MachineParams = MachineParams()

    @property
    def acting_search(self) -> Use:
        """How attempts are made: as the world makes them, where it does so itself."""
        own = getattr(self.world.cls, "search", None)
        return SEARCH.read({"use": own}) if isinstance(own, str) and own != self.search.name else self.search

    @model_validator(mode="after")
    def _search_is_the_worlds(self) -> Params:
        own = self.acting_search
        if "search" in self.model_fields_set and own.name != self.search.name:
            found = f"the world {self.world.name} makes its attempts itself, by the search {own.name}; leave it out"
            raise _misplaced(found, "search")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Params:
        """Every arm and round reads what is made before it."""
        with_weights = [name for name, arm in self.arms.items() if not arm.endpoint]
        for name in self.arms:
            if name in (BASE_ARM, *EVALUATION_FILES):
                raise _misplaced("an arm cannot be called that, it is the name of something else", "arms", name)
        if DEMONSTRATIONS in self.rounds:
            raise _misplaced("a round cannot be called that, it names the demonstrations", "rounds", DEMONSTRATIONS)
        for name, wanted in self.rounds.items():
            if wanted.from_ is not None:
                _require(wanted.from_, [BASE_ARM, *with_weights], "rounds", name, "from")
        for name, arm in self.arms.items():
            if arm.method is not None:
                _require(str(arm.from_), [BASE_ARM, *with_weights], "arms", name, "from")
            for source in arm.data:
                _require(source, [DEMONSTRATIONS, *self.rounds], "arms", name, "data")
        self.made_in_order()
        return self

    def made_in_order(self) -> list[tuple[str, str]]:
        """("arm" or "round", name) of each, after what it reads. Raises ValueError where they wait for each other."""
        reads: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for name, arm in self.arms.items():
            wanted = [("round", source) for source in arm.data if source != DEMONSTRATIONS]
            reads["arm", name] = [*wanted, *([("arm", arm.from_)] if arm.from_ else [])]
        for name, wanted_round in self.rounds.items():
            reads["round", name] = [] if wanted_round.from_ is None else [("arm", wanted_round.from_)]
        try:
            order = list(TopologicalSorter(reads).static_order())
        except CycleError as error:
            found = " → ".join(" ".join(each) for each in error.args[1])
            raise ValueError(f"arms and rounds wait for each other: {found}") from error
        return [each for each in order if each != ("arm", BASE_ARM)]

    @model_validator(mode="after")
    def _pairs_are_of_arms(self) -> Params:
        for pair in self.compare:
            for name in pair:
                _require(name, list(self.arms), "compare")
            if pair[0] == pair[1]:
                raise _misplaced(f"{pair[0]} is compared with itself", "compare")
        trained = [name for name, arm in self.arms.items() if arm.method is not None]
        if self.register_.arm is not None:
            _require(self.register_.arm, trained, "register", "arm")
        if self.register_.best_on is not None and not trained:
            raise _misplaced("chooses among arms that are trained, and there is none", "register", "best_on")
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


def _require(name: str, known: list[str], *place: str) -> None:
    if name not in known:
        raise _misplaced(f"is {name[:80]!r}; it can be {', '.join(known) or 'nothing yet'}", *place)


def _misplaced(said: str, *place: str) -> ValidationError:
    """What is wrong with the value at a place, such as arms.sft.data, of several sections together."""
    kind = PydanticCustomError("value_error", "{said}", {"said": said})
    details = InitErrorDetails(type=kind, loc=place, input=None)
    return ValidationError.from_exception_data("Params", [details])


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


class _Representer(RoundTripRepresenter):
    """Puts the quotes that DVC's parser wants around a text such as `tools.py:Shop`, which may go between braces."""

    def represent_str(self, data: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="'" if ":" in data else None)


_Representer.add_representer(str, _Representer.represent_str)


def _load_yaml(path: Path) -> Any:
    yaml = YAML(typ="rt")  # round-trip: safe types only, and it keeps line numbers, comments and quotes
    yaml.preserve_quotes = True
    yaml.Composer, yaml.Constructor, yaml.max_depth = _NoAliases, _Constructor, MAX_DEPTH
    try:
        text = read_bounded(path, MAX_FILE).decode()
    except FileNotFoundError as error:
        raise ParamsError("no such file", where=str(path), fix="run steptool from the project's root") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"not UTF-8 text: {error.reason}", where=str(path), fix="save it as UTF-8") from error
    except OSError as error:
        fix = "put a file of settings there that you may read"
        raise ParamsError(f"cannot be read: {error.strerror or error}", where=str(path), fix=fix) from error
    if line := conflict_line(text):
        fix = "keep one of the two sides and delete the marks"
        raise ParamsError("a mark of a merge conflict", where=f"{path}:{line}", fix=fix)
    try:
        data = yaml.load(text)
        YAML(typ="safe").load(text)  # DVC's parser, which wants quotes around `use: tools:Shop` between braces
        return data
    except MaxDepthExceededError as error:
        found, line = f"more than {MAX_DEPTH} levels; settings have 3", error.problem_mark.line + 1
        raise ParamsError(found, where=f"{path}:{line}", fix="mend that line") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = str(error.problem).splitlines()[0] if error.problem else "broken"
        fix = "put quotes around the value that holds the colon" if "':'" in found else "mend that line"
        raise ParamsError(f"not YAML: {found}", where=f"{path}:{line}", fix=fix) from error
    except YAMLError as error:  # a character that no YAML file may hold
        raise ParamsError(f"not YAML: {error}".splitlines()[0], where=str(path), fix="save it as plain text") from error


def parse_params(path: Path, data: Any, *, written: Any = None) -> Params:
    """Check settings; `path` and `written` (`data` itself where None) are what errors and their lines refer to."""
    if not isinstance(data, dict):
        raise _no_settings(path)
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise _listed(error, path, data, data if written is None else written) from error


def problems_of(error: ValidationError, path: Path, *places: tuple[str, ...]) -> ParamsError:
    """What a method refuses of its settings, which stand in one of `places` of the file at `path`."""
    written = _load_yaml(path) if path.exists() else {}

    def place(location: tuple[Any, ...]) -> tuple[Any, ...]:
        return next((where for where in places if location[:1] and location[0] in _at(written, where)), places[-1])

    found = [{**item, "loc": (*place(item["loc"]), *item["loc"])} for item in error.errors()]
    lines = [_problem(path, written, written, item) for item in found]
    return ParamsError("\n".join(lines), fix=WHERE_SETTINGS_STAND)


def _listed(error: ValidationError, path: Path, data: Any, written: Any) -> ParamsError:
    problems = error.errors()
    lines = [_problem(path, data, written, item) for item in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"{path}: and {len(problems) - MAX_PROBLEMS} problems more")
    return ParamsError("\n".join(lines), fix=WHERE_SETTINGS_STAND)


def _no_settings(path: Path) -> ParamsError:
    return ParamsError("holds no settings", where=str(path), fix="restore it with `git checkout params.yaml`")


def _problem(path: Path, data: Any, written: Any, error: Any) -> str:
    """`data` names the plugins whose keys are known, `written` has the line."""
    location = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], data)
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


def _known_keys(location: tuple[Any, ...], data: Any) -> list[str]:
    """The keys that the section at `location` may have."""
    if plugin := _plugin_at(location, data):
        return plugin_keys(_at(data, location), plugin)
    model: type[BaseModel] = Params
    for part in location:
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is None:  # a key of a mapping, such as the name of a round
            continue
        kinds = [field.annotation, *get_args(field.annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _plugin_at(location: tuple[Any, ...], data: Any) -> Section | None:
    """The section of a plugin that has its settings at `location`."""
    match location:
        case ("methods", key):
            return Section("methods", str(key))
        case ("metrics", _):
            return METRIC
        case ("arms", _, "endpoint"):
            return ENDPOINT
        case ("arms", _, "settings"):
            return Section("methods", str(_at(data, location[:2]).get("method")))
        case (key,) if key in Params.model_fields:
            return next((item for item in Params.model_fields[key].metadata if isinstance(item, Section)), None)
    return None


def _at(written: Any, location: tuple[Any, ...]) -> dict[str, Any]:
    for part in location:
        written = written.get(part) if isinstance(written, dict) else None
    return written if isinstance(written, dict) else {}


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

    What a profile says of `rounds`, `arms` and `compare` replaces the whole of each: it chooses which there are. A
    section that uses another plugin replaces the whole section, too.
    """
    if not os.path.exists(profile):
        known = ", ".join(sorted(file.stem for file in Path("profiles").glob("*.yaml")))
        fix = f"name one of these, or a file: {known}" if known else "run it from the project's root"
        raise ParamsError(f"no profile {profile.stem!r}", where=str(profile), fix=fix)
    changes = _load_yaml(profile)
    if not isinstance(changes, dict):
        raise ParamsError("holds no settings", where=str(profile), fix="give it at least one key")
    return _changed(path, changes, read_in=profile)


def laid_over(path: Path, changes: dict[str, Any]) -> Params:
    """The settings of params file `path` with `changes` laid over them as `apply_profile` does; the defaults with them
    where there is no such file. Raises ParamsError as `load_params` does."""
    data = _load_yaml(path) if path.exists() else {}
    if not isinstance(data, dict):
        raise _no_settings(path)
    _lay_over(data, changes)
    return parse_params(path, data)


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of the settings of a section with `changes` laid over them as `apply_profile` does."""
    made = deepcopy(settings)
    _lay_over(made, changes)
    return made


def next_draw(path: Path) -> str:
    """The text of params file `path` with `sample.draw` one higher: new trajectories, the same settings."""
    return _changed(path, {"sample": {"draw": load_params(path).sample.draw + 1}}, read_in=path)


REPLACED_WHOLE = ("rounds", "arms", "compare")


def _changed(path: Path, changes: dict[str, Any], *, read_in: Path) -> str:
    data = _load_yaml(path)
    if not isinstance(data, dict):
        raise _no_settings(path)
    for key in REPLACED_WHOLE:
        if key in changes and key in data:
            del data[key]
    _lay_over(data, changes)
    parse_params(read_in, data, written=None if read_in == path else changes)
    text = StringIO()
    yaml = YAML(typ="rt")
    yaml.width, yaml.Representer = 120, _Representer
    yaml.dump(data, text)
    return text.getvalue()


def _lay_over(data: Any, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        before = data.get(key)
        merges = isinstance(value, dict) and isinstance(before, dict)
        if merges and value.get("use", before.get("use")) == before.get("use"):
            _lay_over(before, value)
        else:
            data[key] = value
