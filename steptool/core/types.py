"""The data that flows between stages. Needs only pydantic; every value is frozen.

Tool and Task come from a world, Step and Trajectory from a rollout, Judgement from an annotator.
The scalar reward of a step is derived (`steptool.rewards.shaping`), never stored: re-weighting
costs no re-annotation.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FINISH = "Finish"
"""Name of the terminal tool: `Finish {"answer": ...}` answers, `Finish {"give_up": true}` gives up."""

TOOL_NAME = r"[A-Za-z_][\w.\-]*"
"""What a tool is called by, as an ASCII regular expression; another name cannot stand in a call."""

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
"""The six ToolBench subsets. G1: one tool; G2: tools of one category; G3: tools of one collection.
The last word says what is new against training: the instruction, the tool, or the whole category."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def content_hash(value: Any, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Tool(Frozen):
    """One callable API. `category` and `collection` place it as ToolBench does."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments, an object schema."""
    category: str = ""
    collection: str = ""


class AnswerCheck(Frozen):
    """How to verify a final answer exactly.

    text: equal after casefolding and trimming; number: equal within `tolerance`;
    set: the same items in any order; judge: no exact check, a judge must decide.
    """

    kind: Literal["text", "number", "set", "judge"]
    expected: Any = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)

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


class Task(Frozen):
    id: str
    subset: str
    query: str
    tools: tuple[Tool, ...]
    """Everything offered, distractors included, without `Finish`."""
    relevant_tools: tuple[str, ...] = ()
    answer_check: AnswerCheck | None = None

    @property
    def can_be_checked(self) -> bool:
        """Is there something exact to check an answer against? No judge is part of this version."""
        return self.answer_check is not None and self.answer_check.kind != "judge"

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


class ToolCall(Frozen):
    name: str
    arguments: dict[str, Any]


class Observation(Frozen):
    """What the world replied. Untrusted text, never trained on."""

    text: str
    error: str | None = None
    """Kind of failure (`unknown_id`, `missing_argument`, `rate_limit`, …) or None."""
    latency_s: float = Field(default=0.0, ge=0)


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Step(Frozen):
    """One action of the policy and the reply to it.

    `context_ids` are the tokens that are new since the previous step's action: the prompt in
    step 0, afterwards the rendered observation and the markers around it. `action_ids` are what
    the engine sampled, its stop token included; `action_logprobs` the engine's own log-probability
    of each, under the sampling distribution. All three are empty where we did not sample.
    """

    thought: str = ""
    call: ToolCall | None = None
    parse_error: str | None = None
    observation: Observation | None = None
    context_ids: tuple[TokenId, ...] = ()
    action_ids: tuple[TokenId, ...] = ()
    action_logprobs: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.call is None) == (self.parse_error is None):
            raise ValueError("a step has either a call or a parse_error")
        if len(self.action_ids) != len(self.action_logprobs):
            raise ValueError(f"{len(self.action_ids)} action_ids but {len(self.action_logprobs)} action_logprobs")
        return self

    @property
    def is_finish(self) -> bool:
        return self.call is not None and self.call.name == FINISH


class StopReason(StrEnum):
    finished = "finished"
    """`Finish` with an answer."""
    gave_up = "gave_up"
    """`Finish` with give_up."""
    call_budget = "call_budget"
    """The last allowed step was not `Finish`. An ending: counts as unsolved."""
    token_budget = "token_budget"
    """No room for another step. An ending too."""
    engine_error = "engine_error"
    """Generation failed: a truncation, the value of the next state is bootstrapped."""
    world_error = "world_error"
    """The world failed: a truncation."""

    @property
    def terminated(self) -> bool:
        """True for an ending (V = 0 after it), False for a truncation (bootstrap)."""
        return self not in (StopReason.engine_error, StopReason.world_error)


class Revision(Frozen):
    """A policy, world or annotator by name and content."""

    name: str
    revision: str


class Sampling(Frozen):
    """How a trajectory was sampled; equal settings are one precondition of a fair comparison."""

    temperature: float
    top_p: float
    max_calls: int
    """Most actions of one trajectory, `Finish` included."""
    max_step_tokens: int
    """Most sampled tokens of one action."""
    max_tokens: int
    """Most tokens of one trajectory, context included."""
    strategy: str = "cot"


class Trajectory(Frozen):
    id: str
    """Content hash of everything else but latencies; checked on construction."""
    task_id: str
    subset: str
    steps: tuple[Step, ...]
    stop_reason: StopReason
    answer: str | None = None
    """The argument of `Finish`, where it answered."""
    policy: Revision
    world: Revision
    sampling: Sampling
    seed: int
    attempt: int = 0
    """Which of the attempts at this task, from 0."""
    error: str | None = None
    """What broke, for engine_error and world_error."""

    @classmethod
    def create(cls, **fields: Any) -> Trajectory:
        """Build a trajectory, computing its id."""
        draft = cls.model_construct(id="", **fields)
        return cls(id=draft.computed_id(), **fields)

    def computed_id(self) -> str:
        data = self.model_dump(mode="json", exclude={"id": True, "steps": {"__all__": {"observation": {"latency_s"}}}})
        return content_hash(data)

    @model_validator(mode="after")
    def _check(self) -> Self:
        last = len(self.steps) - 1
        for index, step in enumerate(self.steps):
            if step.is_finish and index != last:
                raise ValueError(f"step {index} is Finish but not the last of {last + 1}")
            if step.observation is None and index != last:
                raise ValueError(f"step {index} has no observation but is not the last of {last + 1}")
        if self.stop_reason in (StopReason.finished, StopReason.gave_up) and not (
            self.steps and self.steps[-1].is_finish
        ):
            raise ValueError(f"stop_reason {self.stop_reason} but the last step is not Finish")
        if self.stop_reason is StopReason.finished and self.answer is None:
            raise ValueError("stop_reason finished but no answer")
        if self.id != self.computed_id():
            raise ValueError(f"id {self.id} does not match the content ({self.computed_id()})")
        return self

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The whole token stream: context and action of every step, in order."""
        return tuple(token for step in self.steps for token in (*step.context_ids, *step.action_ids))


Score = float  # in [0, 1]; a mean of votes


class Judgement(Frozen):
    """Scores of one step. Steps before the last carry `success` and `contribution`, the last `solved`."""

    success: Score | None = Field(default=None, ge=0, le=1)
    contribution: Score | None = Field(default=None, ge=0, le=1)
    solved: Score | None = Field(default=None, ge=0, le=1)
    reason: str = ""
    """Why, in a few words, for people who read the report."""


class ScoredTrajectory(Frozen):
    trajectory: Trajectory
    judgements: tuple[Judgement, ...]
    annotator: Revision

    @model_validator(mode="after")
    def _check(self) -> Self:
        steps, scores = len(self.trajectory.steps), len(self.judgements)
        if steps != scores:
            raise ValueError(f"{steps} steps but {scores} judgements")
        for index, judgement in enumerate(self.judgements):
            is_last = index == steps - 1
            if is_last and (
                judgement.solved is None or judgement.success is not None or judgement.contribution is not None
            ):
                raise ValueError(f"the last step ({index}) needs solved and nothing else")
            if not is_last and (
                judgement.solved is not None or judgement.success is None or judgement.contribution is None
            ):
                raise ValueError(f"step {index} needs success and contribution, not solved")
        return self

    @property
    def solved(self) -> float:
        """Verdict on the whole trajectory; 0 for one without steps."""
        return self.judgements[-1].solved or 0.0 if self.judgements else 0.0
