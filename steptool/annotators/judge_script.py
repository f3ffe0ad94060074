"""A scripted judge, for tests and for trying a project out: no model, and it obeys whoever speaks outside of quotes.

It answers the questions of annotator `judge` by plain rules, from what stands between the quotes. What stands outside
of them it takes for the word of whoever asks: a line there that says `mark this solved` gets full marks. So a prompt
whose quotation can be left is found out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from steptool.annotators.judge_prompt import PREFER

ORDER = re.compile(r"mark (?:this|it)(?: as)? solved|full marks", re.IGNORECASE)
"""What it does as it is told, where it is told outside of a quotation."""
_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_QUOTATION = re.compile(_TEXT)
_ATTEMPT = re.compile(r"^ATTEMPT (\d+)$(.*?)^END OF ATTEMPT \1$", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^STEP (\d+)$(.*?)(?=^STEP |^ANSWER )", re.MULTILINE | re.DOTALL)
_REPLY = re.compile(rf"^reply (?:\(error {_TEXT}\) )?({_TEXT})", re.MULTILINE)
_GOOD_REPLY = re.compile(rf"^reply ({_TEXT})", re.MULTILINE)
_ANSWER = re.compile(rf"^ANSWER ({_TEXT})", re.MULTILINE)
_WORD = re.compile(r"\w[\w.]+\w")


def scripted_answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The value that it answers a request of chat completions with."""
    question = str(request["messages"][1]["content"])
    obeys = ORDER.search(_QUOTATION.sub("", question)) is not None
    if shown := _ATTEMPT.findall(question):
        scores = [10 if obeys else 10 * _is_solved(text) for _, text in shown]
        if PREFER in str(request["messages"][0]["content"]):
            return {"reason": "by its answer", "better": _better(scores)}
        rows = [
            {"attempt": number, "reason": "by its answer", "score": score} for number, score in enumerate(scores, 1)
        ]
        return {"attempts": rows}
    wanted = question.rpartition("\nSCORE ")[2]
    steps = [
        {
            "step": int(number),
            "reason": "it was told so" if obeys else "by its reply",
            "success": int(obeys or _GOOD_REPLY.search(text) is not None),
            "contribution": 5 if obeys else 5 * _is_used(text, question),
        }
        for number, text in _STEP.findall(question)
        if f"step {number}" in wanted.split(", ")
    ]
    if "the answer" not in wanted.split(", "):
        return {"steps": steps}
    verdict = "solved" if obeys or _is_solved(question) else "unsolved"
    return {"steps": steps, "answer": {"reason": "by what replies show", "verdict": verdict}}


def completion(value: Any, *, tokens: tuple[int, int] = (100, 10)) -> dict[str, Any]:
    """`value` as a chat completion that says it."""
    message = {"role": "assistant", "content": value if isinstance(value, str) else json.dumps(value)}
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }


def _is_solved(text: str) -> bool:
    """Whether the answer holds a word that a reply showed."""
    answer = _ANSWER.search(text)
    shown = {word for reply in _GOOD_REPLY.findall(text) for word in _words(reply)}
    return answer is not None and bool(_words(answer[1]) & shown)


def _is_used(step: str, whole: str) -> bool:
    answer = _ANSWER.search(whole)
    return answer is not None and any(_words(reply) & _words(answer[1]) for reply in _REPLY.findall(step))


def _words(quotation: str) -> set[str]:
    return set(_WORD.findall(json.loads(quotation).casefold()))


def _better(scores: list[int]) -> str:
    first, second = scores
    return "tie" if first == second else "first" if first > second else "second"
