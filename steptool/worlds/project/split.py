"""Tasks by split: train, dev and test. Questions that ask the same are never on two sides.

Two queries are the same question where they hold the same words, each as often, and differ only in

    casing, punctuation      What does Dune cost?    what does dune cost ??
    order of the words       What does Dune cost?    Dune, what does it cost?
    filler                   What does Dune cost?    Hi, could you please tell me what Dune costs?
    endings and contractions What's Dune's price?    What is the price of Dune?

An order that says something counts: "from Oslo to Bergen" is not "from Bergen to Oslo". Any other word makes another
question, which is how most tasks are written: "What does Emma cost?" is none of the above. What is said in other words
altogether ("How expensive is Dune?") is not found.

    tasks of the same question,     one cluster, dealt as one; with one of them that names a split, they all go there
    or that name the same cluster
    a cluster with two splits       an error that names both lines, as is a question in two clusters
    clusters without a split        dealt out, each group for itself, by their ids and the seed
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

from steptool.core.errors import DataError
from steptool.core.types import content_hash
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.in_turn import in_turn
from steptool.worlds.project.tasks import TaskLine
from steptool.worlds.prose.words import word_set

_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W_]+(?:'[^\W_]+)?")
_FILLER = word_set("""
    a an the of is are was were am be been do does did has have had will would could can shall should and
    please kindly hi hello hey dear sir madam assistant ok okay so just thanks thank
    i i'd i'm i'll i've me my we us our it its you your this that there
    tell show give let know say want like need wonder wondering check look find help what which
""")
_SAME = (
    (re.compile(r"'s\b"), ""),
    (re.compile(r"\bcan't\b"), "cannot"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bhow much\b"), "what"),
)
_ORDERED = word_set("from to into than before after until by with without not no")
"""The word behind one of these belongs to it."""


def question_of(query: str) -> str:
    """What a query asks, the same text for each way of asking it that this module knows."""
    text = unicodedata.normalize("NFKC", query).casefold().replace("’", "'")
    for written, meant in _SAME:
        text = written.sub(meant, text)
    kept = [_stem(word) for word in _WORD.findall(text) if word not in _FILLER]
    pairs = [f"{first} {second}" for first, second in pairwise(kept) if first in _ORDERED]
    return " ".join(sorted(kept) + sorted(pairs)) or " ".join(text.split())


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def clusters(lines: Mapping[str, TaskLine]) -> list[list[str]]:
    """Where tasks of the same question stand, and those that name the same cluster, in the order of the file; most
    clusters hold one. Raises DataError for the same question in two clusters that are named."""
    cluster_of: dict[str, tuple[str, str]] = {}
    for asked in same_questions(lines):
        names = {where: name for where in asked if (name := lines[where].cluster)}
        if len(set(names.values())) > 1:
            raise _of_two_clusters(names)
        name = next(iter(names.values()), "")
        cluster_of |= dict.fromkeys(asked, (name, "") if name else ("", asked[0]))
    found: dict[tuple[str, str], list[str]] = {}
    for where in lines:
        found.setdefault(cluster_of[where], []).append(where)
    return list(found.values())


def same_questions(lines: Mapping[str, TaskLine]) -> list[list[str]]:
    """Where tasks of the same question stand, in the order of the file."""
    found: dict[str, list[str]] = {}
    for where, line in lines.items():
        found.setdefault(question_of(line.query), []).append(where)
    return list(found.values())


def cluster_names(lines: Mapping[str, TaskLine]) -> dict[str, str]:
    """Task id → name of its cluster, of those that hold several tasks: the name that the tasks give, else one that
    says whose question it is, lest it is taken for a cluster that is named like a task. Raises DataError as `clusters`
    does."""
    found: dict[str, str] = {}
    for cluster in clusters(lines):
        if len(cluster) > 1:
            members = [lines[where] for where in cluster]
            name = next((line.cluster for line in members if line.cluster), f"question of {members[0].id}")
            found |= {line.id: name for line in members}
    return found


def deal(lines: Mapping[str, TaskLine], shares: Mapping[Split, float], seed: int) -> dict[Split, list[TaskLine]]:
    """The tasks by split, the groups of each in turn. Those that name no split are dealt out by `shares`, each group
    for itself, in an order that the seed and their ids decide; what is left of a group is for training.

    `lines` are the tasks by where they stand. Raises DataError for a cluster on two sides, and as `clusters` does.
    """
    splits: dict[str, Split] = {}
    free: dict[str, list[list[str]]] = {}
    for cluster in clusters(lines):
        named = {where: split for where in cluster if (split := lines[where].split)}
        if len(set(named.values())) > 1:
            raise _on_two_sides(named, lines)
        if named:
            splits |= dict.fromkeys(cluster, next(iter(named.values())))
        else:
            free.setdefault(lines[cluster[0]].group, []).append(cluster)
    for of_group in free.values():
        splits |= _dealt(of_group, lines, shares, seed)
    return {
        split: in_turn((line for where, line in lines.items() if splits[where] == split), lambda line: line.group)
        for split in SPLITS
    }


def _dealt(
    of_group: Sequence[list[str]], lines: Mapping[str, TaskLine], shares: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    waiting = sorted(of_group, key=lambda cluster: content_hash([seed, lines[cluster[0]].id]))
    total = sum(map(len, waiting))
    splits: dict[str, Split] = {}
    for split, share in shares.items():
        room, left = int(total * share + 0.5), []
        for cluster in waiting:
            if len(cluster) <= room:
                splits |= dict.fromkeys(cluster, split)
                room -= len(cluster)
            else:
                left.append(cluster)
        waiting = left
    return splits | {where: "train" for cluster in waiting for where in cluster}


def _on_two_sides(named: Mapping[str, Split], lines: Mapping[str, TaskLine]) -> DataError:
    first, second = _two(named)
    asks_the_same = question_of(lines[first].query) == question_of(lines[second].query)
    relation = f"asks what {first} asks" if asks_the_same else f"is of the same cluster as {first}"
    return DataError(
        f"is for {named[second]} and {relation}, which is for {named[first]}: what is tested would be trained on",
        where=second,
        fix="give both the same split, or leave one of them out",
    )


def _of_two_clusters(names: Mapping[str, str]) -> DataError:
    first, second = _two(names)
    found = f"is of the cluster {names[second]!r:.80} and asks what {first} asks, which is of {names[first]!r:.80}"
    return DataError(found, where=second, fix="give both the same cluster, or leave one of them out")


def _two(named: Mapping[str, str]) -> tuple[str, str]:
    """The first key, and the first whose value is another."""
    (first, value), *others = named.items()
    return first, next(where for where, each in others if each != value)
