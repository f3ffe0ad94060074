"""The data that flows between stages, version 2. Needs only pydantic; every value is frozen.

A world gives Task and Reference, a rollout gives Trajectory, an annotator gives Judgement. A policy sees the Task and
nothing else. The scalar reward of a step is derived (`steptool.rewards`), never stored: re-weighting costs no
re-annotation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

FINISH = "Finish"
"""Name of the call that ends an attempt: `Finish {"answer": ...}` answers, `Finish {"give_up": true}` gives up."""

TOOL_NAME = r"[A-Za-z_][\w.\-]*"
"""A tool's name as formats of plain text write it, an ASCII regular expression; any other is mapped to one that is."""

MAX_NUMBER = 1e300
"""Largest number that an answer is checked against."""
MAX_ANSWER = 500
"""Characters of an answer that is checked; a longer one is wrong."""

SUBSETS = (
    "G1_instruction",
    "G1_tool",
    "G1_category",
    "G2_instruction",
    "G2_category",
    "G3_instruction",
)
"""The six ToolBench subsets, groups of the worlds that have them. G1: one tool; G2: tools of one category; G3: tools of
one collection. The last word says what is new against training: the instruction, the tool, or the whole category."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def content_hash(value: Any, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Revision(Frozen):
    """A policy, world, format or another part of a run, by name and content."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name} {self.revision}"


# What a world gives


class Tool(Frozen):
    """One callable API. `category` and `collection` place it as ToolBench does."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments, an object schema."""
    category: str = ""
    collection: str = ""


class Task(Frozen):
    """What a policy may see of a task."""

    id: str
    group: str
    """The part of the tables that it counts in, such as a ToolBench subset."""
    query: str
    tools: tuple[Tool, ...]
    """Everything offered, tools that do not help included, without `Finish`."""
    system: str = ""
    """What the policy is told before the query beside its tools, as by the system message of a team's agent."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`system` is left out where it is empty, as tasks were written before there was one."""
        written: dict[str, Any] = write(self)
        return written if self.system else {name: value for name, value in written.items() if name != "system"}

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


class AnswerCheck(Frozen):
    """How to verify a final answer exactly.

    text: equal after casefolding and trimming; number: equal within `tolerance`;
    set: the same items in any order; judge: no exact check, a judge must decide.
    """

    kind: Literal["text", "number", "set", "judge"]
    expected: Any = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    strict: bool = True
    """Whether the answer must be nothing but what is expected. Else prose may say it (`steptool.worlds.prose`)."""

    @model_serializer(mode="wrap")
    def _without_the_usual(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`strict` is left out where it is the default, as records were written before there was another value."""
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key != "strict" or value is False}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what no answer could equal, and what any answer would."""
        if self.kind != "number" and self.tolerance:
            raise ValueError(f"a check of kind {self.kind} has no tolerance")
        if self.kind == "text" and not _is_answer(self.expected):
            raise ValueError(f"expects {_cut(self.expected)}, which is not a text of 1 to {MAX_ANSWER} characters")
        if self.kind == "number" and not _is_number(self.expected):
            raise ValueError(f"expects {_cut(self.expected)}, which is not a finite number")
        if self.kind == "set":
            items = self.expected if isinstance(self.expected, (list, tuple)) else ()
            if not items or not all(map(_is_answer, items)) or len(json.dumps(items)) > MAX_ANSWER:
                raise ValueError(f"expects {_cut(self.expected)}, which is not a list of short texts")
            if len({" ".join(item.casefold().split()) for item in items}) < len(items):
                raise ValueError(f"expects {_cut(self.expected)}, which names one of its items twice")
        return self


def _is_answer(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ANSWER and value.strip(" .\"'\t\r\n") != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _cut(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, str) and len(value) > 80 else f"{value!r:.80}"


class Reference(Frozen):
    """What is known of a task and must never reach a rollout: for annotators, metrics and the report."""

    task_id: str
    answer_check: AnswerCheck | None = None
    has_own_check: bool = False
    """Whether the world judges attempts by something else than `answer_check`, such as a function of the project."""
    relevant_tools: tuple[str, ...] = ()
    goal: str = ""
    """What a solution must bring about, in words for a judge."""
    cluster: str = ""
    """Tasks of the same cluster, such as paraphrases of one request, are solved or failed together: an interval counts
    them as one draw. Empty where the task is a cluster of its own."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`cluster` is left out where it is empty, as references were written before there was one."""
        written: dict[str, Any] = write(self)
        return written if self.cluster else {name: value for name, value in written.items() if name != "cluster"}

    @property
    def can_be_checked(self) -> bool:
        """Does the world know whether an attempt solved the task? Else a judge does, or nobody."""
        return self.has_own_check or (self.answer_check is not None and self.answer_check.kind != "judge")


class Outcome(Frozen):
    """What came of an attempt, judged by its session while the state that its calls made was alive."""

    solved: float | None = Field(default=None, ge=0, le=1)
    """1.0 solved, 0.0 not solved, None where the world cannot tell. None never becomes 0."""
    evidence: str = ""
    """What the verdict was read from, in a few words."""


# What a rollout gives


class ToolCall(Frozen):
    name: str
    arguments: dict[str, Any]


class Action(Frozen):
    """One turn of the policy: calls, or a message, or text that could not be read."""

    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    """One, or several that are made at the same time."""
    message: str | None = None
    """What the policy said to the user without calling a tool."""
    unreadable: str | None = None
    """Why the text could not be read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.calls) + (self.message is not None) + (self.unreadable is not None) != 1:
            raise ValueError("an action has either calls, or a message, or unreadable")
        if len(self.calls) > 1 and any(call.name == FINISH for call in self.calls):
            raise ValueError(f"{FINISH} is called beside other tools")
        return self

    @property
    def is_finish(self) -> bool:
        return bool(self.calls) and self.calls[0].name == FINISH

    @property
    def answer(self) -> str | None:
        """What `Finish` answers, as text; None where it gives up. What is not a string becomes JSON: 12, ["a"]."""
        answer = self.calls[0].arguments.get("answer") if self.is_finish else None
        return answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


class Observation(Frozen):
    """What the world replied. Untrusted text, never trained on."""

    text: str
    error: str | None = None
    """Kind of failure (`unknown_id`, `missing_argument`, `rate_limit`, …) or None."""


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Step(Frozen):
    """One action of the policy and what came back.

    `context_ids` are the tokens that are new since the previous step's action: the prompt in step 0, afterwards what
    came back, rendered, and the markers around it. `action_ids` are what the engine sampled, its stop token included;
    `action_logprobs` the engine's own log-probability of each, under the sampling distribution. All three are empty
    where we did not sample.
    """

    action: Action
    observations: tuple[Observation, ...] = ()
    """One a call, in their order; one hint for an action that could not be read. Empty where the attempt ended."""
    reply: str | None = None
    """The user's next message, where the action was one. Untrusted text, too."""
    context_ids: tuple[TokenId, ...] = ()
    action_ids: tuple[TokenId, ...] = ()
    action_logprobs: tuple[float, ...] = ()
    state: str | None = Field(default=None, exclude_if=lambda state: state is None)
    """The world's own name for the state that the action was taken in, where its session tells it
    (`steptool.worlds.base.HasState`). Left out of what is written where it is None."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = len(self.action.calls) + (self.action.unreadable is not None)
        if self.observations and len(self.observations) != expected:
            raise ValueError(f"{len(self.observations)} observations of {expected} calls")
        if self.reply is not None and self.action.message is None:
            raise ValueError("a reply to an action that is no message")
        if len(self.action_ids) != len(self.action_logprobs):
            raise ValueError(f"{len(self.action_ids)} action_ids but {len(self.action_logprobs)} action_logprobs")
        return self

    @property
    def is_finish(self) -> bool:
        return self.action.is_finish

    @property
    def is_answered(self) -> bool:
        """Whether something came back, so that another step can follow."""
        return bool(self.observations) or self.reply is not None


class StopReason(StrEnum):
    finished = "finished"
    """The policy answered: `Finish` with an answer, or a message that nobody answers. An agent of its own may take any
    action for the last, calls and a text that cannot be read included: it has the answer."""
    gave_up = "gave_up"
    """`Finish` with give_up."""
    call_budget = "call_budget"
    """The last allowed step did not end the attempt, or the agent failed before one did. An ending: counts as
    unsolved."""
    token_budget = "token_budget"
    """No room for another step. An ending too."""
    rewritten = "rewritten"
    """The agent rewrote its history, so the token stream cannot be extended: a truncation."""
    engine_error = "engine_error"
    """The engine or the format failed: a truncation, the value of the next state is bootstrapped."""
    world_error = "world_error"
    """The world failed: a truncation."""

    @property
    def terminated(self) -> bool:
        """True for an ending (V = 0 after it), False for a truncation (bootstrap)."""
        return self not in (StopReason.rewritten, StopReason.engine_error, StopReason.world_error)

    @property
    def broken(self) -> bool:
        """Whether a fault of the engine or the world ended the attempt, which then says nothing of the policy."""
        return self in (StopReason.engine_error, StopReason.world_error)


class Sampling(Frozen):
    """How actions are sampled, and how many of them."""

    temperature: float
    top_p: float
    max_calls: int
    """Most actions of one trajectory, the last one included."""
    max_step_tokens: int
    """Most sampled tokens of one action."""
    max_tokens: int
    """Most tokens of one trajectory, context included."""


ENDPOINT = "endpoint"
"""What format and engine of a policy are called that answers somewhere else, by messages."""


class Conditions(Frozen):
    """Everything that decides what a policy does with a task, but for the policy and the seed.

    Each revision is computed from sources, settings and data: where a prompt, a tool's description, the limit of an
    observation or the type of the computation changes, a revision changes by itself.
    """

    world: Revision
    format: Revision
    engine: Revision
    dtype: Literal["float32", "bfloat16"] | None
    """Type of the engine's computation; None where nobody knows it, as behind an endpoint."""
    search: Revision
    sampling: Sampling

    @property
    def is_endpoint(self) -> bool:
        """Whether the policy answered somewhere else, by messages."""
        return self.engine.name == ENDPOINT

    def differences(self, other: Conditions, *, apart: Collection[str] = ()) -> list[str]:
        """What differs, a line each: `world: mini 12ab against mini 34cd`; what `apart` names may."""
        mine, theirs = _flat(self), _flat(other)
        return [
            f"{key}: {mine[key]} against {theirs[key]}" for key in mine if key not in apart and mine[key] != theirs[key]
        ]


def _flat(conditions: Conditions) -> dict[str, Any]:
    parts: dict[str, Any] = {
        name: str(getattr(conditions, name)) for name in ("world", "format", "engine", "dtype", "search")
    }
    return parts | conditions.sampling.model_dump()


class Trajectory(Frozen):
    id: str
    """Content hash of everything else; checked on construction."""
    task_id: str
    steps: tuple[Step, ...]
    stop_reason: StopReason
    answer: str | None = None
    """What the policy answered, where it did."""
    outcome: Outcome = Outcome()
    policy: Revision
    conditions: Conditions | None
    """None where we did not sample: a demonstration, an imported trace."""
    seed: int = 0
    attempt: int = Field(default=0, ge=0)
    """Which of the attempts at this task, from 0."""
    search: str | None = None
    """Id of the search tree that it is a branch of."""
    error: str | None = None
    """What broke, for engine_error and world_error, and how an agent failed."""

    @classmethod
    def create(cls, **fields: Any) -> Trajectory:
        """Build a trajectory, computing its id; an `id` among the fields is left out."""
        fields.pop("id", None)
        draft = cls.model_construct(id="", **fields)
        return cls(id=draft.computed_id(), **fields)

    def computed_id(self) -> str:
        return content_hash(self.model_dump(mode="json", exclude={"id"}))

    @model_validator(mode="after")
    def _check(self) -> Self:
        last = len(self.steps) - 1
        for index, step in enumerate(self.steps):
            if step.is_finish and index != last:
                raise ValueError(f"step {index} is Finish but not the last of {last + 1}")
            if not step.is_answered and index != last:
                raise ValueError(f"step {index} has no observation but is not the last of {last + 1}")
        ends = bool(self.steps) and (self.steps[-1].is_finish or self.steps[-1].action.message is not None)
        if self.stop_reason is StopReason.gave_up and not ends:
            raise ValueError(f"stop_reason {self.stop_reason} but the last step is neither Finish nor a message")
        goes_on = not self.steps or (not ends and bool(self.steps[-1].observations))
        if self.stop_reason is StopReason.finished and goes_on:
            raise ValueError("stop_reason finished but no last step that ends the attempt")
        if self.stop_reason is StopReason.finished and self.answer is None:
            raise ValueError("stop_reason finished but no answer")
        if self.id != self.computed_id():
            raise ValueError(f"id {self.id} does not match the content ({self.computed_id()})")
        return self

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The whole token stream: context and action of every step, in order."""
        return tuple(token for step in self.steps for token in (*step.context_ids, *step.action_ids))


# What an annotator gives

Score = Annotated[float, Field(ge=0, le=1)]
"""A mean of votes, in [0, 1]."""


class Judgement(Frozen):
    """Scores of one step, by name; None where nobody could tell.

    What the reward forms of this package read: `success` and `contribution` of every step but the last, `solved` of the
    last. An annotator may add others.
    """

    scores: dict[str, Score | None] = {}
    reason: str = ""
    """Why, in a few words, for people who read the report."""
    votes: int = Field(default=1, ge=1)
    """How many verdicts the scores are means of."""
    cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """What the verdict cost, in US dollars."""

    @property
    def success(self) -> float | None:
        return self.scores.get("success")

    @property
    def contribution(self) -> float | None:
        return self.scores.get("contribution")

    @property
    def solved(self) -> float | None:
        return self.scores.get("solved")


class ScoredTrajectory(Frozen):
    trajectory: Trajectory
    judgements: tuple[Judgement, ...]
    annotator: Revision

    @model_validator(mode="after")
    def _check(self) -> Self:
        steps, judged = len(self.trajectory.steps), len(self.judgements)
        if steps != judged:
            raise ValueError(f"{steps} steps but {judged} judgements")
        for index, judgement in enumerate(self.judgements):
            scores, is_last = judgement.scores.keys(), index == steps - 1
            if is_last and ("solved" not in scores or scores & {"success", "contribution"}):
                raise ValueError(f"the last step ({index}) needs solved, and neither success nor contribution")
            if not is_last and ("solved" in scores or not {"success", "contribution"} <= scores):
                raise ValueError(f"step {index} needs success and contribution, not solved")
        return self

    @property
    def solved(self) -> float | None:
        """Verdict on the whole trajectory, None where there is none; of an attempt without steps the session's."""
        return self.judgements[-1].solved if self.judgements else self.trajectory.outcome.solved
