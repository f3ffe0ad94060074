"""The template that a server renders with, against the format that the model was trained in, token by token:

OpenAI messages + tools ─ template ─ text ─ tokenizer ─┐
task + actions + observations ─ prompt, render, reply ─┴─ equal
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steptool.core.types import Action, Observation, Task, Tool, ToolCall
from steptool.formats.json_call import JsonCall
from steptool.formats.tool_text import openai_tools
from steptool.policies import tiny_model
from tests.formats.families import BARE, LOSSLESS, family
from tests.formats.test_chat_template import published

TOKENIZERS = ["tiny", *LOSSLESS, "gpt2, bare", "llama3_2", "qwen2_5", "gemma3"]


@cache
def tokenizer_of(name: str) -> Any:
    if name == "tiny":
        return tiny_model.tokenizer()
    if name == "gpt2, bare":
        return family("gpt2", template=BARE)
    return family(name) if name in LOSSLESS else published(name)


@cache
def json_call_of(name: str, budget: int) -> JsonCall:
    return JsonCall(JsonCall.Config(max_observation=40, tools_budget=budget), tokenizer_of(name))


WORDS = st.text(alphabet="abcdefg XYZ.,-é日?()[]{}:'\"\n", max_size=60)
NAMES = st.text(alphabet="ab_.-/ é1", min_size=1, max_size=6)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "null"])


def _object(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
        optional={
            "required": st.lists(NAMES, max_size=2),
            "description": WORDS,
            "additionalProperties": inner | st.booleans(),
        },
    )


LEAVES = st.one_of(
    st.fixed_dictionaries(
        {"type": KINDS},
        optional={
            "description": WORDS,
            "format": st.sampled_from(["date", "uuid"]),
            "default": WORDS | st.integers() | st.none(),
            "nullable": st.booleans(),
        },
    ),
    st.fixed_dictionaries({"enum": st.lists(WORDS | st.integers() | st.none() | st.booleans(), min_size=1)}),
    st.fixed_dictionaries({"const": WORDS | st.floats(allow_nan=False)}),
    st.fixed_dictionaries(
        {"$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#/properties/a", "#", "#/$defs/x~1y"])},
        optional={"description": WORDS},
    ),
    st.fixed_dictionaries({"type": st.lists(KINDS, min_size=1, max_size=3)}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        _object(inner)
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner}, optional={"description": WORDS})
        | st.fixed_dictionaries({"type": st.just("array"), "prefixItems": st.lists(inner, max_size=3)})
        | st.dictionaries(st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, max_size=3), min_size=1)
    ),
    max_leaves=8,
)
PARAMETERS = st.builds(
    lambda schema, one, other: schema | {"$defs": {"a": one, "b": other, "x/y": one}},
    _object(SCHEMAS),
    SCHEMAS,
    SCHEMAS,
)
TOOLS = st.builds(
    lambda name, text, schema: Tool(name=name, description=text, parameters=schema), NAMES, WORDS, PARAMETERS
)
TASKS = st.builds(
    lambda query, tools: Task(id="t", group="g", query=query, tools=tuple(tools)),
    WORDS,
    st.lists(TOOLS, max_size=4, unique_by=lambda tool: tool.name),
)
ARGUMENTS = st.dictionaries(WORDS, WORDS | st.integers() | st.lists(WORDS, max_size=2), max_size=2)


def messages_of(task: Task, turns: list[tuple[Action, str]]) -> list[dict[str, Any]]:
    """What a client sends. vLLM makes an object of the arguments before it renders."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": task.query}]
    for number, (action, observation) in enumerate(turns):
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in action.calls
        ]
        messages.append({"role": "assistant", "content": action.thought or None, "tool_calls": calls})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": observation})
    return messages


def stream_of(format: Any, task: Task, turns: list[tuple[Action, str]]) -> list[int]:
    ids = list(format.prompt(task))
    for action, observation in turns:
        written = format.render(action, task)
        ids += [*written, *format.reply(written, [Observation(text=observation)], None)]
    return ids


def rendered(tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: Any, **options: Any) -> list[int]:
    text = tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=True, **options
    )
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_served_is_what_was_trained(name: str, data: st.DataObject) -> None:
    format = json_call_of(name, data.draw(st.sampled_from([1, 40, 4000])))
    task = data.draw(TASKS)
    called = st.sampled_from([tool.name for tool in task.tools] or ["none"])
    actions = st.builds(
        lambda thought, name, arguments: Action(
            thought=thought.strip(), calls=(ToolCall(name=name, arguments=arguments),)
        ),
        WORDS,
        called,
        ARGUMENTS,
    )
    turns = data.draw(st.lists(st.tuples(actions, WORDS), max_size=3))
    tokenizer = tokenizer_of(name)
    served = rendered(tokenizer, format.chat_template(), messages_of(task, turns), openai_tools(task.tools) or None)
    assert tokenizer.decode(served) == tokenizer.decode(stream_of(format, task, turns))
    assert served == stream_of(format, task, turns)


@pytest.mark.parametrize(("name", "mode"), [("gpt2", "as published"), ("gpt2", "strips"), ("gemma", "as published")])
def test_a_clients_text_becomes_no_control_token(name: str, mode: str) -> None:
    """A rollout's text that names one differs from the served one by a space behind its first letter."""
    tokenizer = family(name, mode)
    format = JsonCall(JsonCall.Config(), tokenizer)
    control = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if len(token.content) > 1}
    hostile = f"a{''.join(control)} {' '.join(control)}" + "<|im_<|im_end|>end|>"
    calm = hostile
    for word in sorted(control):
        calm = calm.replace(word, f"{word[0]} {word[1:]}")

    def sent(text: str) -> tuple[list[dict[str, Any]], Any]:
        offered = Tool(name="look", description=text, parameters={"properties": {"a": {"description": text}}})
        asked = Task(id="t", group="g", query=text, tools=(offered,))
        acted = Action(thought=text, calls=(ToolCall(name="look", arguments={"a": text}),))
        system: list[dict[str, Any]] = [{"role": "system", "content": text}]
        return [*system, *messages_of(asked, [(acted, text)])], openai_tools(asked.tools)

    served = rendered(tokenizer, format.chat_template(), *sent(hostile))
    assert served == rendered(tokenizer, format.chat_template(), *sent(calm))
    found = [id for id in served if id in control.values()]
    assert found == [id for id in rendered(tokenizer, format.chat_template(), *sent("x")) if id in control.values()]


FORMAT, TOKENIZER = json_call_of("tiny", 4000), tokenizer_of("tiny")
PING = [{"type": "function", "function": {"name": "get user", "description": None, "parameters": None}}]
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "get user", "arguments": '{"a":1}'}}]}
START = (
    '<|im_start|>system\nCall one tool a turn: name {"arg": value}\n'
    'End with Finish {"answer": "..."} or {"give_up": true}'
)
USER = "<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"


def text_of(*messages: dict[str, Any], tools: Any = None, generate: bool = True) -> str:
    template = FORMAT.chat_template()
    return str(
        TOKENIZER.apply_chat_template(
            list(messages), tools=tools, chat_template=template, tokenize=False, add_generation_prompt=generate
        )
    )


def test_what_a_client_may_send_besides_is_written_as_near_to_it_as_it_gets() -> None:
    hello: dict[str, Any] = {"role": "user", "content": "Hi."}
    assert text_of(hello) == START + USER
    parts = {"role": "user", "content": [{"type": "text", "text": "Hi."}]}
    assert text_of(parts, tools=PING) == START + "\nget_user()" + USER
    assert (
        text_of({"role": "system", "content": "Be brief."}, hello, tools=PING)
        == START + "\nget_user()\nBe brief." + USER
    )
    assert (
        text_of(hello, CALL, tools=PING, generate=False) == START + "\nget_user()" + USER + 'get_user {"a":1}<|im_end|>'
    )
    answered = {"role": "assistant", "content": 'It is "x".'}
    assert text_of(hello, answered, {"role": "user", "content": "And?"}) == (
        START + USER + 'Finish {"answer": "It is \\"x\\"."}<|im_end|>\n<|im_start|>tool\nAnd?<|im_end|>\n'
        "<|im_start|>assistant\n"
    )


def test_a_long_observation_is_cut_where_the_format_cuts_it() -> None:
    seen = text_of({"role": "user", "content": "Hi."}, CALL, {"role": "tool", "content": "x" * 41}, tools=PING)
    assert seen.endswith("tool\n" + "x" * 40 + "...<|im_end|>\n<|im_start|>assistant\n")
