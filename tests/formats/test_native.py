"""Each family that `native` claims, on a tokenizer with its own control tokens and the template that it came with.

prompt                          the template's own text, token by token, and what `renderers` writes
hostile query, tools, reply     no control token more than with harmless ones
parallel calls                  written and read back, or refused where the family has one call a turn
no call                         a message
cut action                      unreadable, and its turn is ended for it
resumed turn                    prompt + action + reply + … is the beginning of what comes next
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from renderers import Llama3RendererConfig
from renderers.gemma4 import Gemma4Renderer
from renderers.llama_3 import Llama3Renderer
from renderers.qwen3 import Qwen3Renderer

from steptool.core.errors import InputError, ModelError
from steptool.core.messages import GAVE_UP
from steptool.core.types import Action, Observation, Task, ToolCall
from steptool.formats.base import Served
from steptool.formats.episode import encode
from steptool.formats.families import CHATML, FAMILIES
from steptool.formats.native import Native
from steptool.formats.tool_text import openai_tools
from steptool.policies import tiny_model
from steptool.testing import call, finish, message, step, tool, unreadable
from tests.formats.native_families import PUBLISHED, TOKENS, native_tokenizer
from tests.formats.test_chat_template import Tomorrow
from tests.formats.test_served_template import rendered

NAMES = sorted(TOKENS)
PARALLEL = [family.name for family in FAMILIES if family.parallel]
FIND = tool(
    "find_order",
    "Finds an order.",
    needs={"id": {"type": "string", "description": "its id"}},
    allows={"deep": "boolean"},
)
TASK = Task(id="t", group="g", query="Where is order a-1?", tools=(FIND, tool("ping", "Pings.")))
FIND_ID: dict[str, Any] = {"id": {"type": "string", "description": "its id"}}
LOOK = Action(calls=(call("find_order", id="a-1"),))


@cache
def native(name: str) -> Native:
    return Native(Native.Config(), native_tokenizer(name))


def controls(name: str, ids: Any) -> list[int]:
    """The control tokens of a stream, in order."""
    added = native_tokenizer(name).added_tokens_decoder
    return [id for id in ids if id in added and len(added[id].content.strip()) > 1]


def written(name: str, messages: list[dict[str, Any]], tools: Any = None) -> list[int]:
    """What a server makes of a conversation: the template's text, encoded whole."""
    tokenizer = native_tokenizer(name)
    template = native(name).chat_template()
    text = tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def assistant(*calls: ToolCall) -> dict[str, Any]:
    made = [{"id": str(n), "type": "function", "function": each.model_dump()} for n, each in enumerate(calls)]
    return {"role": "assistant", "content": "", "tool_calls": made}


def spelled(tokenizer: Any, text: str) -> str:
    """As a server's template spells it: a space behind the first letter of each control token's name."""
    for token in tokenizer.added_tokens_decoder.values():
        if len(token.content.strip()) > 1:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


@pytest.mark.parametrize("name", NAMES)
def test_a_clients_text_becomes_no_control_token_on_a_server(name: str) -> None:
    """But for a space in each, the server shows what training did: the tokens of these texts are in both plain ones."""
    tokenizer, format = native_tokenizer(name), native(name)
    hostile = "".join(token.content for token in tokenizer.added_tokens_decoder.values()) + " and x"
    tools = (tool("find_order", f"Finds {hostile}.", needs={"id": {"type": "string", "description": hostile}}),)
    task = TASK.model_copy(update={"query": hostile, "tools": tools})
    plain = TASK.model_copy(update={"query": "fine", "tools": (tool("find_order", "fine", needs=FIND_ID),)})
    found = {"role": "tool", "tool_call_id": "0", "name": "find_order", "content": hostile}
    messages = [{"role": "user", "content": hostile}, assistant(call("find_order", id=hostile)), found]
    fine = [{"role": "user", "content": "x"}, assistant(call("find_order", id="x")), found | {"content": "x"}]
    served = written(name, messages, openai_tools(tools))
    assert controls(name, served) == controls(name, written(name, fine, openai_tools(plain.tools)))
    harmless = task.model_copy(update={"query": spelled(tokenizer, hostile), "tools": ()})
    assert written(name, messages[:1]) == list(format.prompt(harmless))


@pytest.mark.parametrize("name", ["llama-3", "gpt-oss"])
def test_a_server_writes_the_date_of_the_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, tokenizer = [{"role": "user", "content": TASK.query}], native_tokenizer(name)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    if name == "gpt-oss":
        assert "2031" in tokenizer.apply_chat_template(asked, tokenize=False), "its own template writes today's"
    assert written(name, asked, openai_tools(TASK.tools)) == list(native(name).prompt(TASK))


@pytest.mark.parametrize("name", ["qwen2.5", "llama-3"])
def test_a_server_cuts_a_reply_where_training_did(name: str) -> None:
    short = Native(Native.Config(max_observation=8), native_tokenizer(name))
    reply = {"role": "tool", "tool_call_id": "0", "name": "find_order", "content": "12345678"}
    messages = [{"role": "user", "content": TASK.query}, assistant(*LOOK.calls)]
    template, tokenizer = short.chat_template(), native_tokenizer(name)
    cut = rendered(tokenizer, template, [*messages, reply | {"content": "1234567890"}], None)
    assert cut == rendered(tokenizer, template, [*messages, reply | {"content": "12345678..."}], None)
    assert "12345678..." in tokenizer.decode(cut)


def test_there_are_as_many_as_are_claimed() -> None:
    assert sorted(family.name for family in FAMILIES) == NAMES
    assert {"qwen2.5", "qwen3", "llama-3", "gemma-4", "gpt-oss", "smollm"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_tells_its_family(name: str) -> None:
    assert native(name).family.name == name
    assert isinstance(native(name), Served)
    assert Native(Native.Config(family=name), native_tokenizer(name)).family.name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_what_a_server_shows(name: str) -> None:
    asked = [{"role": "user", "content": TASK.query}]
    assert list(native(name).prompt(TASK)) == written(name, asked, openai_tools(TASK.tools))
    alone = TASK.model_copy(update={"tools": ()})
    assert list(native(name).prompt(alone)) == written(name, asked)


@pytest.mark.parametrize("name", ["qwen2.5", "smollm", "llama-3", "gemma-4", "gpt-oss"])
def test_a_conversation_is_what_a_server_shows(name: str) -> None:
    """Qwen3 is left out: its template forgets what was thought before, which our stream keeps as it was sampled."""
    format = native(name)
    action = format.render(LOOK, TASK)
    stream = [*format.prompt(TASK), *action, *(format.reply(action, [Observation(text="shipped {}")], None) or ())]
    reply = {"role": "tool", "tool_call_id": "0", "name": "find_order", "content": "shipped {}"}
    messages = [{"role": "user", "content": TASK.query}, assistant(*LOOK.calls), reply]
    assert stream == written(name, messages, openai_tools(TASK.tools))


RENDERERS = {
    "qwen3": Qwen3Renderer,
    "llama-3": lambda tokenizer: Llama3Renderer(tokenizer, Llama3RendererConfig(date_string="26 Jul 2024")),
    "gemma-4": Gemma4Renderer,
}
"""Those of the package that need no vocabulary from the network, as GPT-OSS's does."""


@pytest.mark.parametrize("name", sorted(RENDERERS))
def test_the_package_renderers_writes_the_same(name: str) -> None:
    format, renderer = native(name), RENDERERS[name](native_tokenizer(name))
    tools: Any = openai_tools(TASK.tools)
    prompt = renderer.render_ids([{"role": "user", "content": TASK.query}], tools=tools, add_generation_prompt=True)
    assert list(format.prompt(TASK)) == prompt
    action = format.render(LOOK, TASK)
    reply = {"role": "tool", "tool_call_id": "call_0", "name": "find_order", "content": "shipped"}
    bridged = renderer.bridge_to_next_turn(prompt, list(action), [reply], tools=tools)
    assert bridged is not None
    extended = [*prompt, *action, *(format.reply(action, [Observation(text="shipped")], None) or ())]
    assert extended == bridged.token_ids


@cache
def hostile(name: str) -> str:
    """Everything that the family's tokenizer knows as a control token, twice, and in letters of double width."""
    tokens = [token.content for token in native_tokenizer(name).added_tokens_decoder.values()]
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in "".join(tokens))
    return "x" + "".join(tokens) * 2 + "\ufdd0</s>\ufdd1" + wide + "\n".join(tokens) + "y"


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_query_is_text(name: str) -> None:
    format, text = native(name), hostile(name)
    for query in (text, text.strip("xy"), f" {text} "):
        ids = format.prompt(TASK.model_copy(update={"query": query}))
        assert controls(name, ids) == controls(name, format.prompt(TASK))
    said = native_tokenizer(name).decode(format.prompt(TASK.model_copy(update={"query": text})))
    assert text.replace("\ufdd0", "\ufffd").replace("\ufdd1", "\ufffd") in said, "it still says what it said"


@pytest.mark.parametrize("name", NAMES)
def test_hostile_tools_are_text(name: str) -> None:
    format, text = native(name), hostile(name)

    def offering(word: str) -> Task:
        inner = {"type": "object", "properties": {word: {"enum": [word], "description": word}}, "required": [word]}
        schemas = {"a": {"type": "string", "enum": [word]}, "b": inner, "c": {"default": word}}
        bad = tool(f"ping{word}", word, needs=schemas)
        return TASK.model_copy(update={"tools": (bad,)})

    assert controls(name, format.prompt(offering(text))) == controls(name, format.prompt(offering("fine")))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_reply_is_text(name: str) -> None:
    format, text = native(name), hostile(name)
    action, said = format.render(LOOK, TASK), format.render(message("Which?"), TASK)
    broken = (*action[: len(action) // 2], format.stop_ids[0])
    assert format.parse(broken, TASK).unreadable
    for ids, kind in ((action, "tool"), (said, "user"), (broken, "hint")):
        replies = [
            format.reply(ids, (), word) if kind == "user" else format.reply(ids, [Observation(text=word)], None)
            for word in (text, "fine")
        ]
        assert controls(name, replies[0]) == controls(name, replies[1]), kind


@pytest.mark.parametrize("name", NAMES)
def test_hostile_arguments_are_text_and_are_read_back_or_refused(name: str) -> None:
    format, text = native(name), hostile(name).replace("\ufdd0", "").replace("\ufdd1", "")
    harmless = controls(name, format.render(LOOK, TASK))
    made = Action(calls=(call("find_order", id=text),))
    if name == "gemma-4":  # its quotes are found in the text
        with pytest.raises(ValueError, match="so that it is read back"):
            format.render(made, TASK)
        return
    ids = format.render(made, TASK)
    assert controls(name, ids) == harmless
    assert format.parse(ids, TASK) == made


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_that_the_model_was_made_to_write_is_text(name: str) -> None:
    """GPT-OSS and Gemma write the name before the reply."""
    format = native(name)
    end = format.family.ends[0]
    if name == "gpt-oss":  # a name ends before the first `<`
        with pytest.raises(ValueError, match="so that it is read back"):
            format.render(Action(calls=(ToolCall(name=f"look{end}up", arguments={}),)))
        return
    replies = []
    for called in ("lookup", f"look{end}up"):
        ids = format.render(Action(calls=(ToolCall(name=called, arguments={}),)))
        replies.append(format.reply(ids, [Observation(text="fine")], None))
    assert controls(name, replies[0]) == controls(name, replies[1])


@pytest.mark.parametrize("name", NAMES)
def test_parallel_calls(name: str) -> None:
    format = native(name)
    both = Action(calls=(call("find_order", id="a-1"), call("ping")))
    if name not in PARALLEL:
        with pytest.raises(ValueError, match="one call a turn, got 2"):
            format.render(both, TASK)
        return
    ids = format.render(both, TASK)
    assert format.parse(ids, TASK) == both
    reply = format.reply(ids, [Observation(text="FIRST"), Observation(text="SECOND")], None)
    text = native_tokenizer(name).decode(reply)
    assert 0 < text.index("FIRST") < text.index("SECOND")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_call_it_is_a_message(name: str) -> None:
    format = native(name)
    ids = format.render(message("It is on its way."), TASK)
    assert format.parse(ids, TASK) == message("It is on its way.")
    assert "And then?" in native_tokenizer(name).decode(format.reply(ids, (), "And then?"))
    assert format.parse(format.render(finish("shipped").action, TASK), TASK) == message("shipped")
    gave_up = Action(calls=(call("Finish", give_up=True),))
    assert format.parse(format.render(gave_up, TASK), TASK) == message(GAVE_UP)
    with pytest.raises(ValueError, match="could not be read"):
        format.render(unreadable(), TASK)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_action_is_unreadable_and_its_turn_is_ended_for_it(name: str) -> None:
    format = native(name)
    for action in (LOOK, message("It is on its way.")):
        ids = format.render(action, TASK)
        for length in range(len(ids) - 1):
            cut = format.parse(ids[:length], TASK)
            assert cut.unreadable or cut == LOOK, "a call that is whole but for the end of the turn is a call"
    cut_ids = format.render(LOOK, TASK)[:4]
    reply = format.reply(cut_ids, [Observation(text="a hint")], None)
    assert reply is not None
    assert native_tokenizer(name).decode(reply[:1]) in (*format.family.ends, *format.family.between)
    assert "a hint" in native_tokenizer(name).decode(reply)
    assert format.parse(format.stop_ids[:1], TASK).unreadable == "neither a call nor a message" or name == "gpt-oss"


@pytest.mark.parametrize("name", NAMES)
def test_reasoning_is_the_thought_and_no_world_sees_it(name: str) -> None:
    format = native(name)
    thinking = Action(thought="It may be late.", calls=LOOK.calls)
    ids = format.render(thinking, TASK)
    assert format.parse(ids, TASK) == (thinking if format.family.thought else LOOK)
    if format.family.thought not in ("", "content"):
        said = Action(thought="It may be late.", message="Wait a day.")
        assert format.parse(format.render(said, TASK), TASK) == said


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_turn_begins_with_all_that_was_before(name: str) -> None:
    format = native(name)
    steps = [step(call("find_order", id="a-1"), "shipped"), step(call("ping"), "pong"), step(message("It is shipped."))]
    whole, mask = encode(format, TASK, steps)
    for count in (1, 2):
        part, _ = encode(format, TASK, steps[:count])
        assert whole[: len(part)] == part
    acted = [id for id, sampled in zip(whole, mask, strict=True) if sampled]
    assert acted == [id for each in steps for id in format.render(each.action, TASK)]


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_is_cut_where_it_is_long(name: str) -> None:
    format = Native(Native.Config(max_observation=5), native_tokenizer(name))
    for action, observations, said in ((LOOK, [Observation(text="x" * 6)], None), (message("Which?"), (), "x" * 6)):
        text = native_tokenizer(name).decode(format.reply(format.render(action, TASK), observations, said))
        assert "x" * 5 + "..." in text
        assert "x" * 6 not in text


@pytest.mark.parametrize("name", NAMES)
def test_finish_is_no_tool(name: str) -> None:
    format = native(name)
    stand_in = Action(calls=(ToolCall(name="Finisx", arguments={"answer": "x"}),))
    ids = format.render(stand_in)
    tokenizer = native_tokenizer(name)
    text = tokenizer.decode(ids).replace("Finisx", "Finish")
    parsed = format.parse(tokenizer.encode(text, add_special_tokens=False), TASK)
    assert parsed.unreadable == "there is no tool Finish; to end, answer without a call"


@pytest.mark.parametrize("name", NAMES)
def test_names_that_the_family_cannot_carry_are_mapped(name: str) -> None:
    format, names = native(name), ["get user", "get.user", "größe/cm", "x" * 100]
    task = TASK.model_copy(update={"tools": tuple(tool(each) for each in names)})
    for each in names:
        action = Action(calls=(ToolCall(name=each, arguments={}),))
        assert format.parse(format.render(action, task), task) == action


TEXTS = st.text(alphabet="ab <|>{}\"'\\\n:,é日_", max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(thought=TEXTS, arguments=st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=3), said=TEXTS)
def test_what_is_rendered_is_read_back_or_refused(name: str, thought: str, arguments: Any, said: str) -> None:
    format = native(name)
    for action in (Action(thought=thought, calls=(call("ping", **arguments),)), Action(message=said)):
        try:
            ids = format.render(action, TASK)
        except ValueError:
            continue
        read = format.parse(ids, TASK)
        assert (read.calls, read.message) == (action.calls, action.message and action.message.strip())


# Other tokenizers


def test_a_family_that_is_not_claimed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelError, match="of no family") as caught:
        Native(Native.Config(), any_without_chatml())
    assert "gpt-oss, gemma-4, llama-3, qwen3, qwen2.5, smollm" in str(caught.value)
    assert "json_call" in str(caught.value.fix)
    with pytest.raises(ModelError, match="its tokenizer is no gpt-oss"):
        Native(Native.Config(family="gpt-oss"), native_tokenizer("qwen3"))


def any_without_chatml() -> Any:
    from transformers import PreTrainedTokenizerFast

    from tests.formats.families import FAMILIES as BPE

    return PreTrainedTokenizerFast(tokenizer_object=BPE["gpt2"](), eos_token="!", chat_template=CHATML)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no') }}", "{{ messages[-1].content }}", tiny_model.CHATML, "{{ 10 ** (10 ** 10) }}"],
    ids=["raises", "forgets", "has no tools", "is endless"],
)
def test_a_template_that_is_not_the_familys_is_refused(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from steptool.formats import bounded as limits

    monkeypatch.setattr(limits.bounded, "__kwdefaults__", {"seconds": 1.0, "memory": 1 << 28})
    with pytest.raises(ModelError, match="its chat template is not that of qwen3"):
        Native(Native.Config(), native_tokenizer("qwen3", template))


OTHERS = {
    "qwen3": {
        "qwen3_instruct_2507": True,
        "qwen3_vl": True,
        "qwen3_5_think": False,
        "qwen3_6": False,
        "qwen3_8": False,
    },
    "qwen2.5": {"lfm2": False},
    "llama-3": {"llama3_1": True, "llama3": False},
    "gemma-4": {"gemma4": True, "gemma4_v2": True, "gemma4_v3": True, "gemma4_v4": True, "gemma3": False},
    "smollm": {"lfm2": False, "qwen2_5": False},
}
"""Templates of relatives: True where the calls are those of the family, whatever becomes of a thought."""


@pytest.mark.parametrize(("name", "template"), [(name, each) for name, those in OTHERS.items() for each in those])
def test_a_relative_is_claimed_exactly_if_it_writes_its_familys_calls(name: str, template: str) -> None:
    tokenizer = native_tokenizer(name, (PUBLISHED / f"{template}.jinja").read_text(encoding="utf-8"))
    if not OTHERS[name][template]:
        with pytest.raises(ModelError, match="native formats: gpt-oss, gemma-4"):
            Native(Native.Config(), tokenizer)
        return
    format = Native(Native.Config(), tokenizer)
    ids = format.render(Action(thought="It may be late.", calls=LOOK.calls), TASK)
    assert format.parse(ids, TASK).calls == LOOK.calls
    assert format.reply(ids, [Observation(text="shipped")], None)


def test_thinking_can_be_switched_off_where_there_is_a_switch() -> None:
    off = Native(Native.Config(thinking=False), native_tokenizer("qwen3"))
    text = native_tokenizer("qwen3").decode(off.prompt(TASK))
    assert text.endswith("<think>\n\n</think>\n\n")
    ids = off.render(LOOK, TASK)
    assert not native_tokenizer("qwen3").decode(ids).startswith("<think>")
    assert off.parse(ids, TASK) == LOOK
    asked = [{"role": "user", "content": TASK.query}]
    tokenizer, tools = native_tokenizer("qwen3"), openai_tools(TASK.tools)
    for options in ({}, {"enable_thinking": True}):
        assert rendered(tokenizer, off.chat_template(), asked, tools, **options) == list(off.prompt(TASK))
    with pytest.raises(ModelError, match="no switch for thinking"):
        Native(Native.Config(thinking=False), native_tokenizer("qwen2.5"))


def test_the_tools_of_a_model_without_them_are_written_by_a_template_of_ours() -> None:
    assert native("smollm").chat_template().endswith(CHATML)
    assert native("smollm").tool_parser() == "hermes"


def test_without_the_package_that_reads_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "renderers.parsing", None)
    with pytest.raises(InputError, match="native formats need a package") as caught:
        Native(Native.Config(), native_tokenizer("llama-3"))
    assert caught.value.fix == "pip install 'steptool[native]'"
