"""What the local judge looks at in an attempt that ended with an answer: plain numbers, computed from its text. Pure.

Counts enter as log(1 + count), so that the tenth call says less than the second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from steptool.core.types import Task, Trajectory
from steptool.trajectories.links import moves_of
from steptool.trajectories.words import words

BEGINNING = 200
"""Characters of an answer in which an apology says most."""
SHORTEST_WORD = 4
"""Letters of a word that is looked for in replies and in the query; shorter ones stand everywhere. A digit is enough,
too."""
MOST_CHARACTERS = 20_000
"""Of a text that is looked at."""

SORRY = re.compile(
    r"sorry|apolog|unfortunately|unable|(?:can|could|did|do|does|was|were|is|are) ?n[o']t\b|cannot|no (?:results?|data|"
    r"information|records?)|not (?:available|found|able|provided|possible)|error|invalid|failed|issue with",
    re.IGNORECASE,
)
"""Words of an answer that says what it lacks."""
ASKS = re.compile(
    r"please (?:provide|try|check|make|let|specify|note|verify|ensure)|could you|let me know|try again", re.I
)
"""Words of an answer that leaves the work to the user."""
ADVISES = re.compile(
    r"you can (?:use|visit|check|try|find|search|access|refer)|i (?:will|would|recommend|suggest)|"
    r"you may (?:want|need)|to (?:get|find|obtain|access) (?:the|this|more)",
    re.IGNORECASE,
)
"""Words of an answer that says how one could find out."""

NAMES = (
    *("answer_words", "answer_numbers", "sorry_first", "sorry", "asks", "advises"),
    *("calls", "failed_share", "failed_all", "last_failed", "unknown_tools", "repeated", "useful_calls", "tools"),
    *("from_replies", "from_query", "query_covered", "numbers_shown", "reply_words", "cut_replies"),
)
"""In the order of `features`."""


def features(trajectory: Trajectory, task: Task) -> list[float]:
    """One number for each of NAMES. The attempt has an answer; without one there is nothing to look at."""
    answer = (trajectory.answer or "")[:MOST_CHARACTERS]
    made = [move for move in moves_of(trajectory) if not move.action.is_finish and move.action.message is None]
    replies = [(move.observation.text if move.observation else "")[:MOST_CHARACTERS] for move in made]
    failed = [move.call is None or move.observation is None or move.observation.error is not None for move in made]
    offered = {tool.name for tool in task.tools}
    called = [move.call for move in made if move.call is not None]
    names = [call.name for call in called]
    said, asked = words(answer), _telling(words(task.query[:MOST_CHARACTERS]))
    shown = {word for text, fault in zip(replies, failed, strict=True) if not fault for word in words(text)}
    telling = _telling(said)
    numbers = [word for word in said if any(map(str.isdigit, word))]
    return [
        math.log1p(len(said)),
        math.log1p(len(numbers)),
        float(SORRY.search(answer[:BEGINNING]) is not None),
        math.log1p(len(SORRY.findall(answer))),
        math.log1p(len(ASKS.findall(answer))),
        math.log1p(len(ADVISES.findall(answer))),
        math.log1p(len(made)),
        _share(failed),
        float(bool(made) and all(failed)),
        float(bool(made) and failed[-1]),
        math.log1p(sum(name not in offered for name in names)),
        math.log1p(len(called) - len({(call.name, str(call.arguments)) for call in called})),
        math.log1p(len(failed) - sum(failed)),
        math.log1p(len(set(names))),
        _share([word in shown for word in telling]),
        _share([word in asked for word in telling]),
        _share([word in telling for word in asked]),
        _share([word in shown for word in numbers]),
        math.log1p(sum(len(text.split()) for text in replies)),
        _share([text.endswith("...") for text in replies]),
    ]


def _telling(found: Sequence[str]) -> set[str]:
    return {word for word in found if len(word) >= SHORTEST_WORD or any(map(str.isdigit, word))}


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of) if of else 0.0
