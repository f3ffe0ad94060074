"""What a team brings to its new project: tools, tasks and demonstrations, in place of the template's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from steptool.core.errors import InputError
from steptool.core.plugins import search_here
from steptool.core.revision import sources
from steptool.project.log import Log
from steptool.worlds.agent.program import callable_name, command_words

PARAMS = PurePosixPath("params.yaml")
TOOLS, TASKS, DEMONSTRATIONS = "tools.py", "tasks.jsonl", "demonstrations.jsonl"
TASK = '{"query": "What does Dune cost?", "check": {"kind": "number", "expected": 9.5}}'
KINDS = ("tools", "openapi", "mcp", "agent")
"""What a team's tools may come as."""
SCRIPTS = (".py", ".js", ".mjs", ".ts")
"""How the files of an MCP server end that are copied with its command."""
MOST_SAMPLED = 60
"""Tasks of a round; half of the tasks are for training, so with fewer of them a round takes these."""
MANY_TASKS = 100
"""From so many tasks on, data that is too easy, too hard or too alike to teach anything is refused."""
ENOUGH_SHOWN = 400
"""Demonstrations that are seen in all, each several times where there are fewer."""


@dataclass(frozen=True)
class Own:
    """`tools` is FILE.py or FILE.py:Class, `openapi` a document or its address, `mcp` a command or an address, `agent`
    a command or MODULE:FUNCTION. At most one of them is given; with none, the project has the template's example, or
    tools that reply as in `traces`.
    """

    tools: str = ""
    openapi: str = ""
    mcp: str = ""
    tasks: str = ""
    demonstrations: str = ""
    agent: str = ""
    traces: str = ""
    """Conversations of an agent: a file, a folder or the address of a server, as `steptool traces import` takes it."""
    kind: str = ""
    """What it holds, where that cannot be told from its content."""
    lenient: bool = False
    drop: tuple[str, ...] = ()
    region: str = "US"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of their import, as `steptool.traces.kinds.import_from` has them."""

    def check(self) -> None:
        """Raises InputError where two kinds of tools are given, or a file or module is not there."""
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} are given", fix="give one of them; a world has one kind")
        if not given and not self.traces and (self.tasks or self.demonstrations):
            fix = (
                "add --tools tools.py, --openapi openapi.yaml, --mcp 'python server.py' or --agent my_agent:run; "
                "or --traces log.jsonl"
            )
            raise InputError("tasks of your own need tools of your own", fix=fix)
        if self.kind and not self.traces:
            raise InputError("--from says what traces hold, and there are none", fix="add --traces log.jsonl")
        if not self.traces and (self.lenient or self.drop or self.settings or self.region != "US"):
            found = "--lenient, --drop, --region and --set say how traces are read, and there are none"
            raise InputError(found, fix="add --traces log.jsonl")
        if self.traces and "://" not in self.traces and not Path(self.traces).exists():
            raise InputError("no such file or folder", where=self.traces, fix="mend the path; nothing was written")
        for path in self._brought().values():
            if not path.is_file():
                raise InputError("no such file", where=str(path), fix="mend the path; nothing was written")

    @property
    def has_tools(self) -> bool:
        """Whether it says where tools come from, other than a log."""
        return any(getattr(self, kind) for kind in KINDS)

    def laid_over(self, files: Mapping[PurePosixPath, bytes], log: Log | None = None) -> dict[PurePosixPath, bytes]:
        """The files of the project: those of the template, with the team's own in their place. `log`: what the traces
        hold."""
        if self == EXAMPLE:
            return dict(files)
        example = {PurePosixPath(name) for name in (TOOLS, TASKS, DEMONSTRATIONS)}
        kept = {path: text for path, text in files.items() if path not in example}
        brought = {path: source.read_bytes() for path, source in self._brought().items()}
        return {**kept, **brought, PARAMS: self._params(files[PARAMS], log)}

    def next_steps(self) -> Iterator[tuple[str, str]]:
        """What to type, and what it does."""
        if self != EXAMPLE and not self.tasks and not self.traces:
            yield f"echo '{TASK}' > {TASKS}", "your tasks, one a line: the more, the better"
        if self != EXAMPLE:
            yield "steptool tools list", "the tools, as the model is shown them"
            yield "steptool tasks check", "whether the tasks are sound, and what they can show"
        yield "steptool check", "the prompt of a task, and an attempt with its scores; no training"
        yield "steptool params --profile tiny", "a toy model first: shows that the parts fit together"
        yield "make run", "tasks to registered model, and a report"
        if self.traces:
            yield "steptool serve-model --policy ppo", "the trained model, for an OpenAI client"

    def _brought(self) -> dict[PurePosixPath, Path]:
        """Place in the project and source of every file that is copied."""
        found: dict[str, str] = {}
        if self.tools:
            file = self.tools.partition(":")[0]
            found[Path(file).name] = file
        if self.openapi and "://" not in self.openapi:
            found[Path(self.openapi).name] = self.openapi
        if self.mcp and "://" not in self.mcp:
            found |= {Path(word).name: word for word in shlex.split(self.mcp) if word.endswith((".py", ".js", ".mjs"))}
        if self.agent:
            found |= {str(path): str(path) for path in _files_of_agent(self.agent)}
        found |= {TASKS: self.tasks} if self.tasks else {}
        found |= {DEMONSTRATIONS: self.demonstrations} if self.demonstrations else {}
        return {PurePosixPath(name): Path(source) for name, source in found.items()}

    def _world(self, log: Log | None) -> dict[str, Any]:
        world = self._tools()
        if not world and log is not None:
            return {"use": "traces", "path": log.path, **({"tasks": TASKS} if self.tasks else {})}
        return {**world, "tasks": f"{log.path}/{TASKS}" if log is not None and not self.tasks else TASKS}

    def _tools(self) -> dict[str, Any]:
        """Where the tools come from; nothing where that is the log."""
        brought = {str(source): str(path) for path, source in self._brought().items()}
        if self.openapi:
            return {"use": "openapi", "document": brought.get(str(Path(self.openapi)), self.openapi)}
        if self.mcp and "://" in self.mcp:
            return {"use": "mcp", "url": self.mcp}
        if self.mcp:
            command = [brought.get(str(Path(word)), word) for word in shlex.split(self.mcp)]
            return {"use": "mcp", "command": command}
        if self.agent:
            return {"use": "agent", "callable" if _is_callable(self.agent) else "command": self.agent}
        if not self.tools:
            return {}
        file, _, cls = self.tools.partition(":")
        return {"use": "functions", "module": f"{Path(file).name}:{cls}" if cls else Path(file).name}

    def _params(self, template: bytes, log: Log | None) -> bytes:
        yaml = YAML()
        yaml.width, yaml.preserve_quotes = 120, True
        params = yaml.load(template)
        params["world"] = _flow(self._world(log))
        tasks, demonstrations = _lines(self.tasks), _lines(self.demonstrations)
        can_be_solved = _can_be_solved(self.tasks)  # rft learns from solved attempts alone
        if log is not None:
            tasks, can_be_solved = (tasks, can_be_solved) if self.tasks else (log.tasks, log.checked > 0)
            params["sample"].update(log.sample())
            if log.talks * 2 > log.shown:
                params["format"] = _flow({"use": "native"})
        if log is not None and not demonstrations:
            demonstrations = (log.shown + 1) // 2  # half of the tasks are for training
            params["demonstrations"] = _flow({"use": "traces", "path": log.path})
        params["sample"]["tasks"] = max(1, min(MOST_SAMPLED, tasks // 2))
        if tasks >= MANY_TASKS:
            del params["validate"]
        if demonstrations:
            params["methods"]["sft"]["epochs"] = max(1, min(8, ENOUGH_SHOWN // demonstrations))
            if not can_be_solved:
                del params["arms"]["rft"]
                params["compare"] = _flow([["ppo", "sft"]])
            if log is not None:  # does the log teach anything?
                params["arms"].insert(0, "start", _flow({"folder": "models/base"}))
                params["compare"].append(_flow(["sft", "start"]))
        else:
            del params["demonstrations"], params["methods"]
            params["rounds"]["r1"]["from"] = "base"
            params["arms"] = {
                "start": _flow({"folder": "models/base"}),
                "ppo": _flow({"method": "step_ppo", "from": "base", "data": ["r1"]}),
            }
            params["compare"] = _flow([["ppo", "start"]])
        if log is not None and not can_be_solved:
            params["promote"] = _flow({"measure": "grounded"})
        written = BytesIO()
        yaml.dump(params, written)
        return written.getvalue()


def _is_callable(agent: str) -> bool:
    try:
        return bool(callable_name(agent))
    except ValueError:
        return False


def _files_of_agent(agent: str) -> Iterator[Path]:
    """The files of this folder that an agent consists of: those that its command names, and the modules that it
    imports. Raises InputError for a module that cannot be read, or a command that is none.
    """
    if found := re.fullmatch(r"(?:(.*)/)?(\w+)(?:(?:\.py)?:(\w+)|\.py)", agent):
        folder, module, function = found.groups()
        if folder is not None or not _is_callable(agent):
            cd = f"cd {folder}, then " if folder else ""
            fix = f"{cd}write --agent {module}:{function or 'FUNCTION'}, or --agent 'python {module}.py'"
            raise InputError("is neither MODULE:FUNCTION nor a command", where=f"--agent {agent}", fix=fix)
    if _is_callable(agent):
        words, modules = [], [agent.partition(":")[0]]
    else:
        try:
            words = [word for word in command_words(agent) if not Path(word).is_absolute() and Path(word).is_file()]
        except ValueError as error:
            raise InputError(f"--agent {error}", fix="write it as in a shell; nothing was written") from error
        modules = [word.removesuffix(".py") for word in words if "/" not in word and word.endswith(".py")]
    search_here()
    here = [path.relative_to(Path.cwd()) for path in sources(modules) if path.is_relative_to(Path.cwd())]
    yield from dict.fromkeys([*map(Path, words), *(path for path in here if "site-packages" not in path.parts)])


def _lines(path: str) -> int:
    """Lines of a file that hold something; 0 where none is named."""
    return sum(bool(line.strip()) for line in Path(path).read_bytes().splitlines()) if path else 0


def _can_be_solved(path: str) -> bool:
    """Whether any task of the file has a check. A file that holds something else has none; `tasks check` names it."""
    return bool(path) and b'"check"' in Path(path).read_bytes()


def _flow(value: Any) -> Any:
    """The value, to be written on one line: there DVC's YAML parser takes no colon without quotes."""
    if isinstance(value, str):
        return SingleQuotedScalarString(value) if ":" in value else value
    if not isinstance(value, dict | list):
        return value
    inner: Any = {key: _flow(each) for key, each in value.items()} if isinstance(value, dict) else map(_flow, value)
    node: Any = CommentedMap(inner) if isinstance(value, dict) else CommentedSeq(inner)
    node.fa.set_flow_style()
    return node


EXAMPLE = Own()
"""The template's example."""
