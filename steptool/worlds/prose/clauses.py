"""What of a text is asserted. The rest is blanked, so that whoever reads on sees only what counts.

    It does not cost 13, it costs 12.5.        It             , it costs 12.5.     denied up to the comma
    The Amber Inn is cheaper than Misty Inn.   The Amber Inn is cheaper            what is compared with
    13 is wrong. Is it 14? If 15, then 12.5.                       , then 12.5.    denied, asked, supposed

Each pass over the text is linear in its length.
"""

from __future__ import annotations

import re
import unicodedata

from steptool.worlds.prose.words import word_set

_SAME = str.maketrans(
    dict.fromkeys("’‘ʼ", "'")
    | dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("−‐‑", "-")
    | dict.fromkeys("\u2007\u2009\u202f", "\u00a0")  # spaces between groups of digits
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
)
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?…]+[\"')*\]]*(?=\s)|\n|\Z)", re.DOTALL)
_TURN = r"(?<!thing )(?<!body )(?<!one )(?<!all )but|however|rather(?! than)|actually"
"""It ends what is denied: "not 13 but 12.5"; not in "anyone but 13"."""
_CLAUSE = re.compile(rf".*?(?:[,;:](?=\s|\Z)|[()—|=]| [-–] |--|\s(?=(?:{_TURN})\s)|\Z)", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"[^\s\"()\[\]{}<>*`,;:!?]+")

DENIES = word_set("""
    not no never cannot nothing nobody none hardly barely neither nor false untrue incorrect wrong unlikely impossible
    doubt deny denies except excluding excludes without than unlike versus if unless whether suppose supposing assuming
""")
"""What follows, up to the end of the clause, is denied, compared with, or supposed."""
_DENIES_WITH_THE_NEXT = frozenset(
    {("instead", "of"), ("compared", "to"), ("compared", "with"), ("opposed", "to"), ("used", "to"), ("all", "but")}
    | {(some, "but") for some in ("anyone", "anything", "anybody", "everyone", "everything", "everybody")}
)
_DENIES_THE_SENTENCE = word_set("neither none except excluding excludes")
"""What they deny is a list: "neither A, B nor C"."""
_DENIES_NOTHING = re.compile(r"\b(?:no (?:doubt|problem)|without (?:a )?doubt|not only|not just)\b", re.IGNORECASE)
_VERBS = word_set("is are was were be been has have had does do did can could would will should that which who there")

_DISCLAIMS = re.compile(
    r"\b(?:(?:do|does|did|can|could) ?not|(?:do|does|did|ca|could)n't|unable to|never)"
    r" (?:really )?(?:know|say|tell|determine|answer|confirm|verify|be (?:sure|certain))\b"
    r"|(?:\bnot|n't) (?:\w+ )?(?:sure|certain|known|clear)\b|\b(?:unsure|uncertain|unknown|no idea|guess(?:ing|ed)?)\b"
    r"|\b(?:maybe|perhaps|possibly|might|may be|may have|could be|could have been|could also)\b"
    r"|\b(?:that|this|which) (?:is|was) (?:\w+ )?(?:wrong|incorrect|false|untrue|not (?:right|true|correct))\b"
    r"|(?:^|[.:;,(!?] ?)(?:wrong|false|incorrect|untrue) ?(?:[.:;,)!?]|$)"
    r"|\bor (?:something|anything|another|other|else|is|was|are|were)\b|!=|≠|~~|(?<![\w!])!(?=[^\s!.?])"
    r"|\bif (?:\w+ )?(?:is |'s )?not\b|\bif \w+ (?:isn't|wasn't)"
    r"|\b(?:any|either|one) (?:one )?of (?:these|those|them|the following)\b"
)


def plain(text: str) -> str:
    """`text` with one kind of quotes, apostrophes, minus signs and fixed spaces."""
    return unicodedata.normalize("NFC", text).translate(_SAME)


def disclaims(text: str) -> bool:
    """Whether an answer says that it does not know, or that it names no more than a possibility."""
    return bool(_DISCLAIMS.search(" ".join(text.casefold().split())))


def asserted(text: str) -> str:
    """`text`, of the same length, with spaces in the place of what it does not assert."""
    text = _DENIES_NOTHING.sub(lambda match: _blank(match[0]), text)
    return "".join(_of_sentence(match[0]) for match in _SENTENCE.finditer(text))


def _of_sentence(sentence: str) -> str:
    if "?" in sentence[-4:]:
        return _blank(sentence)
    parts, denied = [], False
    for match in _CLAUSE.finditer(sentence):
        if denied:
            parts.append(_blank(match[0]))
        else:
            part, denied = _of_clause(match[0])
            parts.append(part)
    return "".join(parts)


def _of_clause(clause: str) -> tuple[str, bool]:
    """What the clause asserts, and whether it denies the rest of its sentence."""
    words = list(_WORD.finditer(clause))
    texts = [word[0].casefold().rstrip(".'") for word in words]
    start = next((index for index in range(len(texts)) if _denies(texts, index)), None)
    if start is None or texts[start:] == ["no"]:  # "No, it is ..." denies nothing of what follows
        return clause, False
    begin = 0 if _is_said_of_its_subject(texts, start) else words[start].start()
    return f"{clause[:begin]}{_blank(clause[begin:])}", bool(_DENIES_THE_SENTENCE & set(texts))


def _denies(texts: list[str], index: int) -> bool:
    pair = tuple(texts[index : index + 2])
    return texts[index] in DENIES or texts[index].endswith("n't") or pair in _DENIES_WITH_THE_NEXT


def _is_said_of_its_subject(texts: list[str], denial: int) -> bool:
    """ "13 is not the price", "Nora Lund didn't write it": what stands before is denied, too."""
    if texts[denial].endswith("n't") or texts[denial] in ("never", "cannot"):
        return not _VERBS & set(texts[:denial])
    return denial > 0 and texts[denial - 1] in _VERBS and not _VERBS & set(texts[: denial - 1])


def _blank(text: str) -> str:
    return " " * len(text)
