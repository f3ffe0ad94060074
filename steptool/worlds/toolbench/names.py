"""What ToolBench calls things. Pure.

"👋 Demo Project"  ──standardize──▶  demo_project          a tool
"Get Order (v2)"   ──function────▶  get_order_v2          one of its functions
"Video, Images"    ──category────▶  Video_Images          where the tool is filed
                                    get_order_v2_for_demo_project    what a model calls, its last 64 characters

A name is never part of a path: a function is looked up by these three among what a folder was found to hold.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_OTHER = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9_^]")
_SEVERAL = re.compile(r"_+")
_KEYWORDS = ("from", "class", "return", "false", "true", "id", "and")
"""Names that Python, or the services' code, needs for itself: they get `is_` in front."""
LONGEST_NAME = 64
"""Characters of a function's name that a model is shown, the last ones."""


def standardize(name: str) -> str:
    """Lower case, with one `_` for all that is no letter, digit or `^`, and `get_` before a digit."""
    text = _SEVERAL.sub("_", _OTHER.sub("_", name)).lower().strip("_")
    return f"get_{text}" if text[:1].isdigit() else text


def function(name: str) -> str:
    """A function or a parameter as a model sees it."""
    text = standardize(name)
    return f"is_{text}" if text in _KEYWORDS else text


def category(name: str) -> str:
    return name.translate(str.maketrans(" ,/", "___")).replace("__", "_")


class Api(NamedTuple):
    """One function of one tool."""

    category: str
    tool: str
    name: str

    @classmethod
    def of(cls, kind: str, tool: str, name: str) -> Self:
        """As a request spells it. `tool` may end in `_for_<category>`, and `name` in `_for_<tool>`."""
        filed = category(kind)
        called = function(name).split(f"_for_{tool}")[0]
        return cls(filed, standardize(tool.removesuffix(f"_for_{filed}")), called)

    @property
    def offered(self) -> str:
        """The name that a model calls."""
        return f"{self.name}_for_{self.tool}"[-LONGEST_NAME:]

    def __str__(self) -> str:
        return "/".join(self)
