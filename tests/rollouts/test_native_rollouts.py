"""A whole attempt in each family's own format.

step  model says                                   comes back
0     (thinks) two calls at once, or one           an observation of each
1     a broken call                                a hint, as the user's message
2     a question                                   the user's answer
3     a message                                    nothing: it is the answer
"""

from __future__ import annotations

import asyncio

import pytest

from steptool.core.types import Action, Observation, StopReason
from steptool.engines.fake import ScriptedEngine
from steptool.formats.episode import encode
from steptool.formats.native import Native
from steptool.testing import call
from tests.formats.native_families import TOKENS, native_tokenizer
from tests.rollouts.test_chain import SAMPLING, TASK, ScriptedSession, job


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_an_attempt_of_calls_questions_and_an_answer(name: str) -> None:
    format = Native(Native.Config(), native_tokenizer(name))
    calls = (call("find_order", id="a-1"), call("ping"))[: 2 if format.family.parallel else 1]
    look = format.render(Action(thought="It may be late.", calls=calls), TASK)
    broken = (*look[: len(look) // 2], format.stop_ids[0])
    ask = format.render(Action(thought="Whose?", message="Which one?"), TASK)
    tell = format.render(Action(message="It is on its way."), TASK)
    session = ScriptedSession(*[Observation(text=f"reply {n}") for n in range(2)], says=["The red one.", None])
    script = ScriptedEngine([look, broken, ask, tell])
    sampling = SAMPLING.model_copy(update={"max_tokens": 8192, "max_step_tokens": 512})
    (done,) = asyncio.run(job(script, session, sampling, format=format))
    assert (done.stop_reason, done.answer, done.error) == (StopReason.finished, "It is on its way.", None)
    assert session.calls == list(calls)
    assert session.heard == ["Which one?", "It is on its way."], "a thought is nobody's business"
    assert [len(step.observations) for step in done.steps] == [len(calls), 1, 0, 0]
    assert [step.reply for step in done.steps] == [None, None, "The red one.", None]
    stream, mask = encode(format, TASK, done.steps)
    assert stream == done.token_ids
    text = native_tokenizer(name).decode(stream)
    for part in ("reply 0", "That could not be read", "Which one?", "The red one.", "It is on its way."):
        assert part in text
    assert sum(mask) == sum(map(len, (look, broken, ask, tell)))
