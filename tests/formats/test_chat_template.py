"""What others wrote is run: a model's chat template, as it should be, with a clock, and hostile.

writes today's date        the same prompt on every day
strips its texts           the stream has them stripped
loops, eats memory, raises ModelError (exit status 2) in seconds; this process is as it was
"""

import datetime as clock
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import trl

from steptool.core.errors import ModelError
from steptool.core.types import Task
from steptool.formats import bounded as limits
from steptool.formats import chat_template
from steptool.formats.bounded import bounded
from steptool.formats.chat_template import Slot, read_template
from steptool.formats.json_call import INSTRUCTIONS
from steptool.policies import tiny_model
from steptool.testing import task as make_task
from tests.formats.families import json_call

CHATML = tiny_model.CHATML
PUBLISHED = Path(trl.__file__).parent / "chat_templates"
NAMES = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<start_of_turn>"]
NAMES += ["<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<|turn>", "<turn|>", "<|end|>", "<|user|>", "<|assistant|>"]


def with_template(template: str) -> Any:
    tokenizer = tiny_model.tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": NAMES})
    tokenizer.chat_template = template
    return tokenizer


def published(name: str) -> Any:
    return with_template((PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8"))


class Tomorrow(clock.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Tomorrow":
        return cls(2031, 1, 9)


LLAMA = "{{ bos_token + 'Today: ' + strftime_now('%d %B %Y') }}"
ASKS = "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}"
GIVEN = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}"
)
RANDOM = "{{ range(10 ** 5) | random }}{{ lipsum() }}"


@pytest.mark.parametrize("start", [LLAMA, ASKS, GIVEN, RANDOM])
def test_a_prompt_does_not_change_overnight(start: str, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = with_template(start + CHATML)
    today = json_call(tokenizer).prompt(task)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    messages = [{"role": "user", "content": "x"}]
    if start in (LLAMA, ASKS):
        assert "2031" in tokenizer.apply_chat_template(messages, tokenize=False), "the clock is another one"
    assert json_call(tokenizer).prompt(task) == today
    assert start == RANDOM or "2024" in tokenizer.decode(today)


@pytest.mark.parametrize("name", ["llama3_2", "llama3_1", "muse_glimmer", "gptoss"])
def test_published_templates_do_not_know_the_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that write a date, whether a conversation of ours fits them or not."""
    tokenizer = published(name)
    messages = [{"role": "user", "content": "x"}]
    today = chat_template._apply(tokenizer, messages)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert today
    assert "2031" not in today
    assert chat_template._apply(tokenizer, messages) == today


@pytest.mark.parametrize(
    ("content", "slot"),
    [
        ("m['content']", Slot()),
        ("m['content'] | trim", Slot(left=True, right=True)),
        ("m['content'].strip()", Slot(left=True, right=True)),
        ("m['content'].lstrip()", Slot(left=True)),
        ("m['content'].rstrip()", Slot(right=True)),
    ],
)
@pytest.mark.parametrize("around", ["", " ", "\\n", "\\n\\n"])
def test_texts_are_stripped_as_the_template_strips_them(content: str, slot: Slot, around: str) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + 'AROUND' + (CONTENT) }}"
        "{{ '<|im_end|>AROUND' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistantAROUND' }}{% endif %}"
    )
    tokenizer = with_template(template.replace("CONTENT", content).replace("AROUND", around))
    read = read_template(tokenizer)
    assert (read.system, read.query, read.observation) == (slot, slot, slot)
    _is_the_templates(tokenizer)


def _is_the_templates(tokenizer: Any) -> None:
    chat = json_call(tokenizer)
    for text in ("plain", "  a\n\n", "\n\n b", "c \t", " ", "", "\n"):
        query = make_task("t", text)
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}]
        assert tokenizer.decode(chat.prompt(query)) == tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, strftime_now=chat_template.TODAY.strftime
        )


@pytest.mark.parametrize(
    "name",
    [
        "cohere",
        "gemma3",
        "gemma4",
        "lfm2_2_5",
        "llama3",
        "llama3_1",
        "llama3_2",
        "phi3",
        "qwen2_5",
        "qwen3",
        "qwen3_vl",
    ],
)
def test_published_templates_give_their_own_prompts(name: str) -> None:
    _is_the_templates(published(name))


FOR = "{% for i in range(99999) %}"
FOREVER = FOR * 3 + "{% endfor %}" * 3
HOSTILE = {
    "nested loops": FOREVER + CHATML,
    "loops once an assistant spoke": "{% if messages|length > 2 %}" + FOREVER + "{% endif %}" + CHATML,
    "loops in a macro": "{% macro f() %}" + FOREVER + "{% endmacro %}{{ f() }}" + CHATML,
    "one endless step, no alarm interrupts it": "{% set n = 10 ** 10 %}{{ (messages|length + 9) ** n }}" + CHATML,
    "endless while it is compiled": "{{ 10 ** (10 ** 10) }}" + CHATML,
    "memory at once": "{{ 'a' * 10 ** 10 }}" + CHATML,
    "memory by a filter": "{{ 'a' | center(10 ** 10) }}" + CHATML,
    "memory by a format": "{{ '%9999999999d' % 1 }}" + CHATML,
    "memory by and by": "{% set n = namespace(x='a') %}" + FOR + "{% set n.x = n.x + n.x %}{% endfor %}" + CHATML,
    "writes and writes": FOR + "aaaaaaaaaaaaaaaa{% endfor %}" + CHATML,
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + CHATML,
    "nested deeply": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}" + CHATML,
    "reaches for the interpreter": "{{ messages.__class__.__mro__[1].__subclasses__() }}" + CHATML,
    "raises": "{{ raise_exception('no') }}",
    "is no template": "{% for %}",
    "divides by zero": "{{ 1 / 0 }}" + CHATML,
    "half of a surrogate pair": "{{ '\\ud800' }}" + CHATML,
}  # fmt: skip


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused_in_seconds(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.bounded, "__kwdefaults__", {"seconds": 1.0, "memory": 1 << 28})
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"chat template (does not come to an end|cannot hold)") as caught:
        json_call(with_template(template))
    assert time.monotonic() - started < 5
    assert caught.value.exit_code == 2
    assert caught.value.fix


def test_the_limit_leaves_time_for_a_slow_machine_and_is_seconds() -> None:
    assert 5 <= limits.SECONDS <= 20


# The child


def test_what_a_child_returns_comes_back_and_what_it_changes_does_not() -> None:
    seen: list[int] = []

    def make() -> Any:
        seen.append(os.getpid())
        return {"texts": ["é\ud800", None], "pid": os.getpid()}

    value = bounded(make)
    assert value["texts"] == ["é\ud800", None]
    assert value["pid"] != os.getpid()
    assert seen == []


def test_a_child_that_dies_is_an_error_and_leaves_nobody_behind(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="ended with exit status -9"):
        bounded(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ValueError, match="ended with exit status 1"):
        bounded(lambda: "x" * (1 << 40))
    with pytest.raises(TimeoutError, match=r"runs longer than 0\.2 s"):
        bounded(lambda: time.sleep(60), seconds=0.2)
    assert multiprocessing.active_children() == []
    assert "Traceback" not in capfd.readouterr().err


def test_a_large_result_passes() -> None:
    assert len(bounded(lambda: "x" * 5_000_000)) == 5_000_000
