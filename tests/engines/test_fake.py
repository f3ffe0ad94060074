"""The engine that answers by a file of rules: what a project tries its world out with, without a model.

the prompt holds      it says
role of a tool        Finish {"answer": "x"}
anything              ping {}
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from steptool.core.errors import DataError
from steptool.core.plugins import content_of
from steptool.core.types import Action
from steptool.engines.base import Request
from steptool.engines.fake import LOGPROB, RulesEngine, ScriptedEngine
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.testing import call, observation, task

CHAT = JsonCall(JsonCall.Config(), tiny_model.tokenizer())
RULES = [{"when": "<|im_start|>tool", "say": 'Finish {"answer": "x"}'}, {"when": "Where", "say": "ping {}"}]
PROMPT = CHAT.prompt(task("t1", "Where is it?"))
PING = Action(calls=(call("ping"),))


def config(folder: Path, *rules: Any) -> RulesEngine.Config:
    file = folder / "rules.jsonl"
    file.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    return RulesEngine.Config(rules=str(file))


@pytest.fixture
def engine(tmp_path: Path) -> RulesEngine:
    tiny_model.tokenizer().save_pretrained(tmp_path)
    return RulesEngine(config(tmp_path, *RULES), tmp_path, dtype="float32", max_model_len=9, concurrency=1, seed=0)


def asked(prompt: tuple[int, ...], most: int = 64) -> Request:
    return Request(prompt, most, temperature=1.0, top_p=1.0, seed=0, stop_ids=CHAT.stop_ids)


def test_the_first_rule_that_fits_the_prompt_speaks(engine: RulesEngine) -> None:
    first = asyncio.run(engine.generate(asked(PROMPT)))
    assert CHAT.parse(first.ids) == PING
    assert (first.stopped, set(first.logprobs)) == (True, {LOGPROB})
    reply = CHAT.reply(first.ids, [observation("pong")], None)
    second = asyncio.run(engine.generate(asked((*PROMPT, *first.ids, *reply))))
    assert CHAT.parse(second.ids) == Action(calls=(call("Finish", answer="x"),))


def test_an_action_is_cut_at_the_limit(engine: RulesEngine) -> None:
    made = asyncio.run(engine.generate(asked(PROMPT, most=1)))
    assert (len(made.ids), made.stopped) == (1, False)


def test_a_prompt_that_no_rule_fits_is_refused(engine: RulesEngine) -> None:
    with pytest.raises(LookupError, match="no rule fits the prompt"):
        asyncio.run(engine.generate(asked(CHAT.prompt(task("t1", "When?")))))


@pytest.mark.parametrize("rule", [{"when": 3, "say": "x"}, {"say": "x"}, {"when": "", "say": "x", "how": 1}, []])
def test_rules_that_cannot_be_read_are_named(tmp_path: Path, rule: Any) -> None:
    with pytest.raises(DataError, match=r"rules\.jsonl:2"):
        RulesEngine(config(tmp_path, RULES[0], rule), tmp_path)


def test_rules_that_are_missing_or_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rule"):
        RulesEngine(config(tmp_path), tmp_path)
    with pytest.raises(DataError, match="no such file"):
        RulesEngine(RulesEngine.Config(rules=str(tmp_path / "none.jsonl")), tmp_path)


def test_other_rules_are_another_content(tmp_path: Path) -> None:
    one = content_of(RulesEngine, config(tmp_path, *RULES))
    assert one == content_of(RulesEngine, config(tmp_path, *RULES))
    assert one != content_of(RulesEngine, config(tmp_path, RULES[0]))


def test_a_script_says_what_was_asked_and_ends() -> None:
    engine = ScriptedEngine([CHAT.render(PING), ValueError("broken")])
    assert CHAT.parse(asyncio.run(engine.generate(asked(PROMPT))).ids) == PING
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(engine.generate(asked(PROMPT)))
    with pytest.raises(IndexError, match="holds 2 actions"):
        asyncio.run(engine.generate(asked(PROMPT)))
    assert [each.prompt_ids for each in engine.asked] == [PROMPT] * 3
