"""The tool-call format that a model was published with: its own chat template writes, its family's parser reads.

    prompt   the template over the query and `tools`, with the generation prompt
    action   reasoning, text and calls, one or several, as the family writes them; without a call it is a message
    reply    what the template writes behind an action: the tools' replies or the user's message, and the next header

So a model is trained on what any server shows it. Reasoning is sampled and trained on like the rest; worlds do not see
it. `Finish` is not offered: a message that nobody answers ends an attempt. Texts from outside are marked before the
template gets them, and can become no control token (`marked`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import Any, ClassVar, Literal

from steptool.core.errors import InputError, ModelError
from steptool.core.fields import Positive, Settings
from steptool.core.messages import GAVE_UP, Message, task_messages
from steptool.core.types import FINISH, Action, Observation, Task, Tool, ToolCall
from steptool.formats.arguments import MAX_DEPTH, depth_of, read_arguments
from steptool.formats.bounded import bounded
from steptool.formats.chat_template import TODAY
from steptool.formats.families import FAMILIES, Family, Name, Turn
from steptool.formats.harmless import around
from steptool.formats.marked import MarkedEncoder, clean, find_outside, mark
from steptool.formats.names import OPENAI, Names
from steptool.formats.text import shorten
from steptool.formats.tool_text import openai_tools

_ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Hello."}]
"""A conversation before an action. What the template writes of an action does not depend on it."""
_OFFERED: list[Any] = [{}]
"""A tokenizer may have one template for conversations with tools and another for those without."""
_SENTINEL = "SENTINELACTIONLENITNES"
_TRIALS = (
    Action(thought="Let me see.", calls=(ToolCall(name="look_up", arguments={"id": "a-1", "deep": True}),)),
    Action(calls=(ToolCall(name="look_up", arguments={}),)),
    Action(message="It is on its way."),
)


class Native:
    """`tokenizer` is a Hugging Face tokenizer of a family in `families.FAMILIES`.

    Raises ModelError for another, and for a chat template that does not do what its family's does.
    """

    name: ClassVar[str] = "native"

    class Config(Settings):
        family: Name | Literal["auto"] = "auto"
        """Whose format it is; `auto` tells by the tokenizer's control tokens."""
        thinking: bool | None = None
        """Whether the model is asked to reason before it acts, where its template has that switch (Qwen3);
        None leaves it as the template has it."""
        max_observation: Positive = 1024
        """Characters of an observation: what is longer is cut and ends in `...`."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        self.config = config
        self.max_observation = config.max_observation
        self._tokenizer = tokenizer
        self.family = family = self._find(config.family)
        if config.thinking is not None and not family.thinks:
            raise self._unfit(f"the template of {family.name} has no switch for thinking", "leave format.thinking out")
        self._thought = "content" if config.thinking is False else family.thought
        """Key of a message that holds a thought; empty where the template has no place for it."""
        self._try_template()
        self._lead = self._render(_ASKED, prompt=True)
        whole = [self._render([*_ASKED, self._message(action, marked=False)]) for action in _TRIALS]
        self._encoder = MarkedEncoder(tokenizer, [self._lead, *whole, *family.ends, *family.between])
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*family.ends, *family.between)}
        known = {token: id for token, id in ids.items() if self._encoder.is_control(id)}
        self._closing = tuple(known)
        self._ends = {known[token] for token in family.ends if token in known}
        self.stop_ids: tuple[int, ...] = tuple(sorted(self._ends | ({tokenizer.eos_token_id} - {None})))
        """Tokens at which sampling an action stops."""
        self._lead_ids = self._encoder.encode(self._lead)
        try:
            self._read = family.reader(tokenizer, self._lead_ids, set(self.stop_ids))
        except ImportError as error:
            raise InputError(f"native formats need a package: {error}", fix="pip install 'steptool[native]'") from error
        self._fit_thought()

    def prompt(self, task: Task) -> tuple[int, ...]:
        """What the template writes of the tools and the query, and the generation prompt."""
        return self.conversation(task_messages(task), task.tools)

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """What the template writes of the tools and the messages, and the generation prompt.

        A tool's reply, and a user's message behind the first of another than the system, is cut as in `reply`.
        Raises ValueError for what the template refuses, and where nothing is asked.
        """
        if not messages or messages[-1].role in ("system", "assistant"):
            raise ValueError("the last message is neither a user's nor a tool's")
        names = Names.of(tools, OPENAI)
        offered = openai_tools(tools)
        for tool in offered:
            tool["function"]["name"] = names.written[tool["function"]["name"]]
        written = self._messages(messages, names)
        try:
            text = self._render(written, tools=self._encoder.mark_within(offered) or None, prompt=True)
        except Exception as error:  # templates refuse by raising whatever they like
            raise ValueError(f"the chat template refuses the messages: {error!s:.200}") from error
        return tuple(self._encoder.encode(text))

    def reply(
        self, action_ids: Sequence[int], observations: Sequence[Observation], message: str | None
    ) -> tuple[int, ...] | None:
        """What the template writes between an action and the next; the end of a cut action's turn included.

        A hint after an action that could not be read is the user's: no call is there that it could answer.
        None where the template cannot write it.
        """
        action = self._action(action_ids)
        outside = [observation.text for observation in observations] if message is None else [message]
        texts = [mark(shorten(text, self.max_observation)) for text in outside]
        if action.calls:
            before = self._message(Action(calls=_with_sentinel(action.calls)))
            texts_of = zip(count(), action.calls, texts, strict=False)
            said = [self._answer(number, call, text) for number, call, text in texts_of]
        else:
            before = {"role": "assistant", "content": _SENTINEL}
            said = [{"role": "user", "content": text} for text in texts]
        try:
            text = self._render([*_ASKED, before, *said], prompt=True)
        except Exception:  # noqa: BLE001 - templates refuse by raising whatever they like
            return None
        sentinel = find_outside(text, [_SENTINEL])
        end = sentinel and find_outside(text, self._closing, sentinel[1])
        if end is None:
            return None
        ended = bool(action_ids) and action_ids[-1] in self._ends
        return tuple(self._encoder.encode(text[end[1] if ended else end[0] :]))

    def parse(self, ids: Sequence[int], task: Task | None = None) -> Action:
        """Read a sampled action. Never raises: what cannot be read is `unreadable`, and all of it the thought.

        Without a task, names stay as they are written.
        """
        action = self._action(ids)
        return action if task is None else Names.of(task.tools, OPENAI).read(action)

    def render(self, action: Action, task: Task | None = None) -> tuple[int, ...]:
        """Ids of a demonstrated action, its end of turn included; `parse` gives it back, `Finish` as a message.

        Raises ValueError for what the family cannot write.
        """
        action = self._writable(action if task is None else Names.of(task.tools, OPENAI).write(action))
        ids = self._write(action)
        if self._action(ids) != action:
            raise ValueError(f"the format of {self.family.name} cannot write {action!r:.200} so that it is read back")
        return ids

    def hint(self, problem: str) -> str:
        return f"That could not be read: {problem}. Call a tool in your format, or answer."

    def chat_template(self) -> str:
        """The model's own, or its family's, behind what makes a server's conversation that of the training."""
        own = self.family.template or self._tokenizer.get_chat_template(tools=_OFFERED)
        return around(own, self._encoder.names, max_observation=self.max_observation, thinking=self.config.thinking)

    def tool_parser(self) -> str:
        return self.family.tool_parser

    # Reading

    def _action(self, ids: Sequence[int]) -> Action:
        ended = bool(ids) and ids[-1] in self.stop_ids
        try:
            turn = self._read(ids)
        except Exception as error:  # noqa: BLE001 - another's parser, over whatever was sampled
            turn = Turn("", problem=f"{type(error).__name__} in a call")
        problem = turn.problem or next(filter(None, map(_problem, turn.calls)), "")
        if not problem and not turn.calls:
            problem = "" if ended and turn.content else "neither a call nor a message" if ended else "it does not end"
        if problem:
            return Action(thought=self._decode([id for id in ids if id not in self.stop_ids]), unreadable=problem)
        if not turn.calls:
            return Action(thought=turn.reasoning, message=turn.content)
        calls = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in turn.calls)
        thought = "\n\n".join(filter(None, (turn.reasoning, turn.content)))
        return Action(thought=thought, calls=calls)

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.strip()

    # Writing

    def _writable(self, action: Action) -> Action:
        """As `parse` will give it back. A thought without a place is left out, as the family's template does."""
        thought = clean(action.thought).strip()
        if action.is_finish:
            action = Action(message=GAVE_UP if action.answer is None else action.answer)
        if action.unreadable is not None:
            raise ValueError("an action that could not be read cannot be written")
        if len(action.calls) > 1 and not self.family.parallel:
            raise ValueError(f"the format of {self.family.name} has one call a turn, got {len(action.calls)}")
        if self._thought == "" or (self._thought == "content" and action.message is not None):
            thought = ""
        message = None if action.message is None else clean(action.message).strip()
        return action.model_copy(update={"thought": thought, "message": message})

    def _write(self, action: Action) -> tuple[int, ...]:
        text = self._render([*_ASKED, self._message(action)])
        if not text.startswith(self._lead):
            raise ValueError("the chat template does not keep the prompt before an action")
        end = find_outside(text, [token for token in self._closing if token in self.family.ends], len(self._lead))
        if end is None:
            raise ValueError("the chat template does not end a turn as its family does")
        written, lead = text[len(self._lead) : end[1]], self._lead_ids
        ids = self._encoder.encode(self._lead + written)
        return tuple(ids[len(lead) :] if ids[: len(lead)] == lead else self._encoder.encode(written))

    def _message(self, action: Action, marked: bool = True) -> dict[str, Any]:
        """An action as a message of OpenAI's, its texts marked."""
        quote = mark if marked else str
        message: dict[str, Any] = {"role": "assistant", "content": quote(action.message or "")}
        if action.calls:
            within = self._encoder.mark_within if marked else lambda value: value
            message["tool_calls"] = [
                {
                    "id": f"call_{number}",
                    "type": "function",
                    "function": {"name": within(call.name), "arguments": within(call.arguments)},
                }
                for number, call in enumerate(action.calls)
            ]
        if action.thought and self._thought:
            message[self._thought] = quote(action.thought)
        return message

    def _messages(self, messages: Sequence[Message], names: Names) -> list[dict[str, Any]]:
        """Any messages, as those of OpenAI's that stand before the next action."""
        written: list[dict[str, Any]] = []
        waiting: list[tuple[str, int, ToolCall]] = []
        for message in messages:
            if message.role == "assistant":
                action = names.write(_action_of(message))
                waiting = [
                    (said.id, number, call)
                    for number, (said, call) in enumerate(zip(message.calls, action.calls, strict=True))
                ]
                written.append(self._message(action))
            elif message.role == "tool":
                if not waiting:
                    raise ValueError("a tool's message replies to no call")
                answered = next((each for each in waiting if each[0] == message.call_id), waiting[0])
                waiting.remove(answered)
                _, number, call = answered
                written.append(self._answer(number, call, mark(shorten(message.text, self.max_observation))))
            else:
                is_first = all(other["role"] == "system" for other in written)
                text = message.text if is_first else shorten(message.text, self.max_observation)
                written.append({"role": message.role, "content": mark(text)})
        return written

    def _answer(self, number: int, call: ToolCall, text: str) -> dict[str, Any]:
        """A tool's message. The name is what the model wrote, so it may be anything."""
        name = self._encoder.mark_within(call.name)
        return {"role": "tool", "tool_call_id": f"call_{number}", "name": name, "content": text}

    def _render(self, messages: Sequence[dict[str, Any]], *, tools: Any = None, prompt: bool = False) -> str:
        options = {} if self.config.thinking is None else {"enable_thinking": self.config.thinking}
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            chat_template=self.family.template,
            tokenize=False,
            add_generation_prompt=prompt,
            date_string=TODAY.strftime("%d %b %Y"),
            strftime_now=TODAY.strftime,
            **options,
        )
        return text

    # Fitness

    def _find(self, name: str) -> Family:
        added = self._tokenizer.get_added_vocab()
        has_tools = "tools" in (self._tokenizer.chat_template or "")
        for family in FAMILIES:
            is_meant = name in ("auto", family.name) and not (has_tools and family.template)
            if is_meant and all(token in added for token in family.tokens):
                return family
        found = (
            "its tokenizer is of no family whose format is known" if name == "auto" else f"its tokenizer is no {name}"
        )
        raise self._unfit(found, "use one of their models, or `format: {use: json_call}`, which takes any")

    def _try_template(self) -> None:
        """Run it once where it can do no harm."""
        trial = self._message(_TRIALS[0], marked=False)
        try:
            bounded(lambda: [self._render(_ASKED, prompt=True), self._render([*_ASKED, trial])])
        except (TimeoutError, ValueError) as error:
            raise self._not_its_template(str(error)) from None

    def _fit_thought(self) -> None:
        """Take the place that this template has for a thought: models of one family differ in it."""
        problems = []
        for place in dict.fromkeys((self._thought, "content", "")):
            self._thought = place
            try:
                self._try_actions()
            except Exception as error:  # noqa: BLE001 - whatever another's template raises
                problems.append(str(error))
            else:
                return
        raise self._not_its_template(problems[0])

    def _try_actions(self) -> None:
        for trial in _TRIALS:
            ids = self.render(trial)
            behind = self.reply(ids, [Observation(text="a")], None) if trial.calls else self.reply(ids, (), "Thanks.")
            if behind is None:
                raise ValueError("it cannot hold a reply")

    def _not_its_template(self, found: str) -> ModelError:
        return self._unfit(
            f"its chat template is not that of {self.family.name}: {found:.300}",
            "take the template that the model was published with, or `format: {use: json_call}`",
        )

    def _unfit(self, found: str, fix: str) -> ModelError:
        families = ", ".join(family.name for family in FAMILIES)
        where = getattr(self._tokenizer, "name_or_path", "tokenizer")
        return ModelError(f"{found}; native formats: {families}", where=where, fix=fix)


def _action_of(message: Message) -> Action:
    """An assistant's message of any origin. Raises ValueError where the arguments of a call are no JSON object."""
    if not message.calls:
        return Action(thought=message.thought, message=message.text)
    calls = []
    for call in message.calls:
        arguments = read_arguments(call.arguments.strip() or "{}")
        if isinstance(arguments, str):
            raise ValueError(f"a call of {call.name}: {arguments}")
        calls.append(ToolCall(name=call.name, arguments=arguments))
    return Action(thought="\n\n".join(filter(None, (message.thought, message.text))), calls=tuple(calls))


def _with_sentinel(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """The names of these calls, and a sentinel in the last."""
    names = [call.name for call in calls]
    empty = tuple(ToolCall(name=name, arguments={}) for name in names[:-1])
    return (*empty, ToolCall(name=names[-1], arguments={"a": _SENTINEL}))


def _problem(call: tuple[str, Any]) -> str:
    """Why a call that was read is none, or nothing."""
    name, arguments = call
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return "a call has a name, and an object of arguments"
    if name == FINISH:
        return f"there is no tool {FINISH}; to end, answer without a call"
    if depth_of(arguments) > MAX_DEPTH:
        return "arguments are nested too deeply"
    return "" if _is_json(arguments) else "arguments are not JSON"


def _is_json(value: Any) -> bool:
    """No infinite number, no half of a surrogate pair."""
    if isinstance(value, dict):
        return all(_is_json(key) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or clean(value) == value
