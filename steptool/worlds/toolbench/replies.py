"""Which recorded reply a call of a function gets, and how replies are written. Pure.

exact      the arguments are equal
canonical  they are equal in one spelling: case, spaces, empty arguments, the way of writing a number
nearest    their texts have most letters in common, at least so many as the setting `nearest` says
simulated  a model posed as the service, now or earlier
missing    nothing of all this

A reply is a text, JSON with `error` and `response`. Environments of ToolBench show a model its first 1,024 characters
and `...`, and this is all that some recordings hold.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from steptool.core.types import Observation
from steptool.worlds.likeness import canonical, likeness, one_spelling

Source = Literal["exact", "canonical", "nearest", "simulated", "server", "missing"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""`server`: a server replied, and does not say more."""
SOURCE_HEADER = "x-reply-source"
"""Header in which a server of ours says it."""
MAX_SHOWN = 1024
"""Characters of a reply that a model is shown."""
NO_REPLY = "no answer is known to this call"
_FAILURES = re.compile(
    r"\W*(error\b|exception\b|(4\d\d|5\d\d)\b|not found|no (data|results?) |invalid|unauthori[sz]ed|forbidden"
    r"|access denied|bad request|internal server|too many|rate limit|you are not subscribed|failed|missing"
    r"|unable to|cannot|could not|sorry)",
    re.IGNORECASE,
)
_MESSAGE = re.compile(r"""\W*(message|messages|msg|error|errors|detail|status)\W+""", re.IGNORECASE)


class Reply(NamedTuple):
    text: str
    error: str | None
    """Kind of failure, as of an observation."""
    source: Source

    def observation(self, most: int = MAX_SHOWN) -> Observation:
        """As an environment of ToolBench shows it, `most` characters of it."""
        text = self.text if len(self.text) <= most + 3 and self.text.endswith("...") else shown(self.text, most)
        return Observation(text=text, error=self.error)


class Recorded(NamedTuple):
    """One reply to one call."""

    arguments: Mapping[str, Any]
    text: str
    error: str | None


def written(error: str, response: Any) -> str:
    """The text of a reply."""
    return json.dumps({"error": error, "response": response})


def missing(message: str = NO_REPLY, kind: str = "no_recording") -> Reply:
    return Reply(written(message, ""), kind, "missing")


def shown(text: str, most: int = MAX_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def error_kind(error: Any, response: Any) -> str | None:
    """`hard`: the error is filled; `empty`: nothing came; `soft`: the response begins like a failure. A word list, so
    it is wrong now and then."""
    if error not in (None, ""):
        return "hard"
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
    if text.strip() in ("", "null", "{}", "[]", "None"):
        return "empty"
    said = _MESSAGE.sub("", text[:200], count=1)
    return "soft" if _FAILURES.match(said) else None


@lru_cache(maxsize=4096)
def whole(text: str) -> str:
    """A reply as JSON. One of which only the beginning was recorded is ended where it breaks off, so that it is cut to
    the same text again."""
    if _is_json(text):
        return text
    kept = text.removesuffix("...")
    for cut in range(LONGEST_ESCAPE if text.startswith("{") else 0):
        begun = kept[: len(kept) - cut]
        closing = _closing(begun)
        if found := next((end for end in _ENDS if _is_json(begun + end + closing)), None):
            return begun + found + closing
    return written("", text)


LONGEST_ESCAPE = 12
"""Characters of one letter at most, such as that of an emoji: `\\ud83d\\udc4b`."""
_ENDS = (
    '..."',
    " ",
    "0",
    "null",
    '"": null',
    ": null",
    '...": null',
    *("e", "ue", "rue", "se", "lse", "alse", "l", "ll", "ull"),
)
"""What ends JSON that breaks off: in a text, after a value, after a sign or a comma, in a name, in a word."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _closing(text: str) -> str:
    """The brackets that close what is open at the end of `text`."""
    opened = [mark for mark in _MARKS.findall(text) if mark in "{[]}"]
    waiting: list[str] = []
    for mark in opened:
        if mark in "{[":
            waiting.append("}" if mark == "{" else "]")
        elif waiting:
            waiting.pop()
    return "".join(reversed(waiting))


_MARKS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[][{}]', re.DOTALL)
"""Brackets; texts in quotes are taken whole, so that theirs do not count."""


class Replies:
    """Those of one function. Of several to one call, the first counts."""

    def __init__(self, recorded: Iterable[Recorded]) -> None:
        self._exact: dict[str, Recorded] = {}
        self._alike: dict[str, Recorded] = {}
        self._near: dict[tuple[float, str], Reply | None] = {}
        for each in recorded:
            self._exact.setdefault(canonical(each.arguments), each)
            self._alike.setdefault(canonical(one_spelling(each.arguments)), each)
        self._spelled = [(one_spelling(each.arguments), each) for each in self._alike.values()]

    def find(self, arguments: Mapping[str, Any], nearest: float = 1.0) -> Reply | None:
        """The reply to a call; `nearest` is the least likeness that counts as near, 1 for none."""
        if found := self._exact.get(canonical(arguments)):
            return Reply(found.text, found.error, "exact")
        mine = one_spelling(arguments)
        spelled = canonical(mine)
        if found := self._alike.get(spelled):
            return Reply(found.text, found.error, "canonical")
        if nearest >= 1:
            return None
        key = (nearest, spelled)
        if key not in self._near:
            if len(self._near) >= MOST_NEAR:
                self._near.clear()
            self._near[key] = self._nearest(mine, nearest)
        return self._near[key]

    def examples(self, count: int) -> list[Recorded]:
        """Some that worked first."""
        return sorted(self._exact.values(), key=lambda each: each.error is not None)[:count]

    def _nearest(self, mine: Any, least: float) -> Reply | None:
        best, found = least, None
        for theirs, each in self._spelled[:MOST_COMPARED]:
            alike = likeness(mine, theirs, best)
            if alike > best or (alike == best and found is None):
                best, found = alike, each
        return None if found is None else Reply(found.text, found.error, "nearest")


EXAMPLES_AMONG = 20
"""Recorded replies from which a model is shown some."""
MOST_NEAR = 10_000
"""Calls of one function whose nearest is remembered."""
MOST_COMPARED = 2_000
"""Recorded calls of one function among which the nearest is looked for, the first ones."""


def mix(sources: Iterable[Source]) -> str:
    """`6 replies: 4 exact, 2 simulated`: how many from where, as the evidence of an outcome says it."""
    counts = Counter(sources)
    each = ", ".join(f"{counts[source]} {source}" for source in SOURCES if counts[source])
    return f"{counts.total()} replies: {each}" if each else "no replies"


_MIX = re.compile(r"\b\d+ replies: ((?:\d+ \w+(?:, )?)+)")


def read_mix(evidence: str) -> dict[Source, int]:
    """What `mix` wrote, wherever it stands in a text."""
    found = _MIX.search(evidence)
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", found[1] if found else "")}
    return {source: counts[source] for source in SOURCES if source in counts}
