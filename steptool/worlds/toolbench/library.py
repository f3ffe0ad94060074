"""What a folder holds, in either layout or both: requests, functions, and the replies to calls of them.

    FOLDER/queries.jsonl.gz, tool_responses.jsonl.gz                       `pack`
    FOLDER/solvable_queries, tools, tool_response_cache                    `stable`; the last two also in FOLDER/server

Replies of StableToolBench are read when a function is first called: there are thousands of files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from steptool.core.errors import DataError
from steptool.core.storage import file_hash
from steptool.core.types import content_hash
from steptool.worlds.toolbench import pack, stable
from steptool.worlds.toolbench.names import Api
from steptool.worlds.toolbench.replies import Recorded, Replies
from steptool.worlds.toolbench.requests import Request


class Library:
    """Raises DataError where the folder holds nothing of either layout, and as its files are read for what is broken in
    them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        places = [folder, folder / "server"]
        self._pack = [file for name in (pack.QUERIES, pack.REPLIES) if (file := folder / name).is_file()]
        self._queries = folder / stable.QUERIES
        self._tools = next((place for each in places if (place := each / stable.TOOLS).is_dir()), None)
        self._cache = next((place for each in places if (place := each / stable.CACHE).is_dir()), None)
        if not (self._pack or self._queries.is_dir() or self._cache):
            raise DataError(
                f"holds no {pack.QUERIES}, and no folder {stable.QUERIES} or {stable.CACHE}",
                where=str(folder),
                fix="name the folder of the pack, or the one that has StableToolBench's folders in it",
            )
        self._replies: dict[Api, Replies] = {}

    def content(self) -> str:
        """Hash of all its files that are read."""
        read = [*self._pack, self._queries, self._tools, self._cache]
        return f"files {content_hash([file_hash(each) for each in read if each is not None and each.exists()])}"

    @cached_property
    def requests(self) -> list[Request]:
        """Of every subset; none offers nothing. Where two have one id, the later gets its subset in front."""
        found: list[Request] = []
        if pack.QUERIES in (file.name for file in self._pack):
            found += pack.requests(self.folder / pack.QUERIES)
        for subset, file in stable.query_files(self._queries).items():
            found += stable.requests(subset, file, self._tool_files)
        taken = Counter[str]()
        for number, each in enumerate(found):
            taken[each.id] += 1
            if taken[each.id] > 1:
                found[number] = replace(each, id=f"{each.subset}-{each.id}")
        return [each for each in found if any(function.is_shown for function in each.functions)]

    @cached_property
    def about(self) -> dict[Api, dict[str, Any]]:
        """What is known of each function that a request offers."""
        return {function.api: function.about for request in self.requests for function in request.functions}

    def describe(self, api: Api) -> dict[str, Any] | None:
        """What is known of a function; None where nobody knows it."""
        if (known := self.about.get(api)) is not None:
            return known
        filed = self._tool_files.get((api.category, api.tool))
        tool = stable.read_tool(filed) if filed else None
        own = tool.api(api.name) if tool else None
        if tool is None or own is None:
            return (
                {"tool": api.tool, "function": api.name} if api[1:] in self._recorded or api in self._cached else None
            )
        return {"tool": tool.tool_name, "tool_description": tool.tool_description, **own.model_dump()}

    def replies(self, api: Api) -> Replies:
        """Those that are recorded of a function, the pack's first."""
        if api not in self._replies:
            recorded = list(self._recorded.get(api[1:], ()))
            if api in self._cached:
                recorded += stable.recordings(self._cached[api])
            self._replies[api] = Replies(recorded)
        return self._replies[api]

    @cached_property
    def _recorded(self) -> Mapping[tuple[str, str], list[Recorded]]:
        """The pack's by tool and name: of one tool that stands in several categories it keeps one."""
        found: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
        if pack.REPLIES in (file.name for file in self._pack):
            for api, _, recorded in pack.recordings(self.folder / pack.REPLIES):
                found[api[1:]].append(recorded)
        return dict(found)

    @cached_property
    def _cached(self) -> Mapping[Api, Path]:
        return stable.cache_files(self._cache) if self._cache else {}

    @cached_property
    def _tool_files(self) -> Mapping[tuple[str, str], Path]:
        return stable.tool_files(self._tools) if self._tools else {}
