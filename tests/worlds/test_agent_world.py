"""A world of a team's own agent: what it is told, which tools it is seen to offer, and what makes its stages stale.

tasks.jsonl ─┐
agent.py  ───┴─ AgentWorld ── session.run ──▶ the agent ──▶ a gateway          saw, close ──▶ the verdict
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from steptool.cli import app
from steptool.config.plugins import Section
from steptool.core.errors import DataError, InputError, WorldError
from steptool.core.messages import Message, MessageCall
from steptool.core.plugins import revision_of
from steptool.core.revision import forget_sources
from steptool.core.types import Observation, Outcome, Task, ToolCall
from steptool.formats.json_call import JsonCall
from steptool.formats.native import Native
from steptool.gateway.base import ChatReply, ChatRequest
from steptool.gateway.server import Gateway
from steptool.policies import tiny_model
from steptool.traces.file import TraceFile
from steptool.worlds.agent.program import Program
from steptool.worlds.agent.world import AgentWorld
from steptool.worlds.base import Acts, AgentFailed
from steptool.worlds.project.lint import read as read_tasks

ASKING = '''
"""Asks the model in a loop, with nothing but Python's own library."""
import json, os, sys, urllib.request

def find(title):
    """Id of a book."""
    return {"id": title[::-1]}

TOOLS = [{"type": "function", "function": {"name": "find", "description": find.__doc__, "parameters": {
    "type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}}}]

def ask(messages, tools=TOOLS):
    body = {"model": "any", "messages": messages, **({"tools": tools} if tools else {})}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["choices"][0]["message"]
'''
AGENT = f"""{ASKING}
def run(query):
    messages = [{{"role": "user", "content": query}}]
    while True:
        message = ask(messages)
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        for call in message["tool_calls"]:
            reply = find(**json.loads(call["function"]["arguments"]))
            messages.append({{"role": "tool", "tool_call_id": call["id"], "content": json.dumps(reply)}})

if __name__ == "__main__":
    print(run(sys.stdin.read()))
"""
TASKS: list[dict[str, Any]] = [
    {"query": f"What is the id of book {number}?", "check": {"kind": "text", "expected": "a"}} for number in range(10)
]
FIND_TOOL = {"name": "find", "parameters": {"type": "object", "properties": {"title": {"type": "string"}}}}
Make = Callable[..., AgentWorld]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A world in a project of its own. Its tools stand in a file, unless it `is_run` to see them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    forget_sources()
    made: list[AgentWorld] = []

    def world(
        code: str = AGENT, tasks: list[dict[str, Any]] = TASKS, is_run: bool = False, **config: Any
    ) -> AgentWorld:
        if not is_run and "tools" not in config:
            Path("listed.json").write_text(json.dumps([FIND_TOOL]))
            config["tools"] = "listed.json"
        Path("agent.py").write_text(code)
        Path("tasks.jsonl").write_text("".join(f"{json.dumps(task)}\n" for task in tasks))
        forget_sources()
        if "command" not in config:
            config = {"callable": "agent:run", **config}
        made.append(AgentWorld(AgentWorld.Config(**config), 17))
        return made[-1]

    yield world
    for each in made:
        each.end()
    forget_sources()


def attempt(world: AgentWorld, replies: list[ChatReply], task: Task | None = None) -> tuple[str | None, Outcome, int]:
    """The answer of an agent that gets these replies, the verdict, and how many requests it made."""
    asked: list[ChatRequest] = []

    async def complete(request: ChatRequest) -> ChatReply:
        asked.append(request)
        return replies[len(asked) - 1]

    async def run() -> tuple[str | None, Outcome]:
        session = world.open(task or world.tasks("train")[0], seed=0)
        assert isinstance(session, Acts)
        key = gateway.open(complete)
        try:
            answer = await session.run(base_url, key)
            calls = [
                (ToolCall(name=call.name, arguments=json.loads(call.arguments)), Observation(text=message.text))
                for request in asked[-1:]
                for call in (c for m in request.messages for c in m.calls)
                for message in request.messages
                if message.call_id == call.id
            ]
            session.saw(calls)
            return answer, await session.close(answer)
        finally:
            gateway.close_key(key)

    gateway = Gateway()
    base_url = gateway.start()
    try:
        return *asyncio.run(run()), len(asked)
    finally:
        gateway.close()


FIND = ChatReply(calls=(MessageCall(id="c1", name="find", arguments='{"title": "Dune"}'),), finish="tool_calls")
SAYS_A = ChatReply(text="It is a.")


# An attempt


@pytest.mark.parametrize(
    "config",
    [{"callable": "agent:run"}, {"command": "python agent.py", "answer": "output"}, {"command": "python agent.py"}],
)
def test_an_agent_acts_by_itself_and_is_judged(make: Make, config: dict[str, str]) -> None:
    answer, outcome, asked = attempt(make(**config), [FIND, SAYS_A])
    has_own = config != {"command": "python agent.py"}
    assert (answer, asked) == ("It is a." if has_own else None, 2)
    assert outcome.solved == (1.0 if has_own else 0.0)  # of the other, the rollout takes the last message


def test_a_check_function_sees_the_calls_that_the_agent_made(make: Make) -> None:
    Path("checks.py").write_text(
        "def found(answer, calls, state):\n"
        '    return [c.name for c in calls] == ["find"] and "enuD" in calls[0].reply and state is None\n'
    )
    tasks = [{**task, "check": "found"} for task in TASKS]
    world = make(tasks=tasks, checks="checks.py")
    assert attempt(world, [FIND, SAYS_A])[1].solved == 1
    assert attempt(world, [SAYS_A])[1].solved == 0


# An agent that is led


def led(world: AgentWorld, *calls: ToolCall, answer: str | None = "a") -> tuple[list[Observation], Outcome]:
    async def run() -> tuple[list[Observation], Outcome]:
        session = world.open(world.tasks("train")[0], seed=0)
        try:
            found = [await session.call(call) for call in calls]
        finally:
            outcome = await session.close(answer)
        return found, outcome

    return asyncio.run(run())


def test_an_agent_can_be_led_to_call_its_tools(make: Make) -> None:
    calls = [ToolCall(name="find", arguments={"title": title}) for title in ("Dune", "Emma")]
    (first, second), outcome = led(make(), *calls)
    assert (first, second) == (Observation(text='{"id": "enuD"}'), Observation(text='{"id": "ammE"}'))
    assert outcome.solved == 1


def test_what_the_tools_of_a_led_agent_reply_with_may_be_an_error(make: Make) -> None:
    code = AGENT.replace('return {"id": title[::-1]}', 'return {"error": "no_such_book"}')
    (reply,), _ = led(make(code), ToolCall(name="find", arguments={"title": "Dune"}))
    assert reply.error == "no_such_book"


def test_a_led_agent_is_told_of_no_call_that_its_task_does_not_offer(make: Make) -> None:
    (reply,), _ = led(make(), ToolCall(name="fund", arguments={}))
    assert reply.error == "unknown_tool"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("messages.append(message)", "return 'enough'"), "the agent ended: it did not tell what find replied"),
        (('"role": "tool"', '"role": "user"'), "next request does not hold the reply of find"),
        (("reply = find", "reply = 1 / 0"), "failed .*TypeError.*: it did not tell what find replied"),
        (
            ("    while True:", "    if query != 'What is the id of book 0?': return\n    while True:"),
            "asked for nothing",
        ),
    ],
)
def test_an_agent_that_cannot_be_led_is_told(make: Make, change: tuple[str, str], message: str) -> None:
    world = make()
    world.end()
    Path("agent.py").write_text(AGENT.replace(*change))
    task = next(each for each in world.tasks("train") if each.query != TASKS[0]["query"])

    async def run() -> None:
        session = world.open(task, seed=0)
        try:
            await session.call(ToolCall(name="find", arguments={"title": "Dune"}))
        finally:
            await session.close(None)

    with pytest.raises(WorldError, match=message):
        asyncio.run(run())


def test_demonstrations_without_replies_are_carried_out_by_the_agent(make: Make) -> None:
    world = make()
    task = world.tasks("train")[0]
    steps = [
        {"call": {"name": "find", "arguments": {"title": "Dune"}}},
        {"call": {"name": "Finish", "arguments": {"answer": "a"}}},
    ]
    Path("shown.jsonl").write_text(json.dumps({"task_id": task.id, "steps": steps}))
    (shown,) = TraceFile(TraceFile.Config(path="shown.jsonl")).read(world, {task.id: task}, 0)
    assert shown.steps[0].observations == (Observation(text='{"id": "enuD"}'),)
    assert shown.outcome.solved == 1


def test_each_attempt_has_a_file_of_what_its_agent_printed(make: Make) -> None:
    world = make(AGENT.replace("def run(query):", "def run(query):\n    print('I was here')"))
    attempt(world, [SAYS_A], world.tasks("test")[0])
    log = Path(f".steptool/agent/{world.tasks('test')[0].id}-0.log")
    assert log.read_text() == "I was here\n"


def test_a_key_that_is_closed_fails_the_agent(make: Make) -> None:
    world = make()
    gateway = Gateway()
    with pytest.raises(AgentFailed, match="HTTP Error 401"):
        asyncio.run(world.open(world.tasks("train")[0], seed=0).run(gateway.start(), "sk-wrong"))
    gateway.close()


# Its tools


def test_the_tools_are_those_that_it_offers_and_it_is_asked_once(make: Make) -> None:
    code = AGENT.replace("def run(query):", "def run(query):\n    open('runs', 'a').write('x')")
    world = make(code, is_run=True)
    (tool,) = world.toolbox.tools.values()
    assert (tool.name, tool.description, list(tool.parameters["properties"])) == ("find", "Id of a book.", ["title"])
    assert world.tasks("train")[0].tools == (tool,)
    make(code, is_run=True)
    assert Path("runs").read_text() == "x"
    changed = make(code.replace('"""Id of a book."""', '"""The id of a book."""'), is_run=True)
    assert Path("runs").read_text() == "xx"
    assert changed.toolbox.tools["find"].description == "The id of a book."


def test_what_it_tells_the_model_first_is_in_the_prompt_of_every_task(make: Make) -> None:
    code = AGENT.replace("messages = [", "messages = [{'role': 'system', 'content': 'Be kind.'}, ")
    world = make(code, is_run=True)
    assert {task.system for task in world.tasks("train")} == {"Be kind."}
    tokenizer = tiny_model.tokenizer()
    asked = [Message(role="system", text="Be kind."), Message(role="user", text=world.tasks("train")[0].query)]
    for format in (JsonCall(JsonCall.Config(), tokenizer), Native(Native.Config(), tokenizer)):
        task = world.tasks("train")[0]
        assert format.prompt(task) == format.conversation(asked, task.tools)
        assert len(format.prompt(task)) > len(format.prompt(task.model_copy(update={"system": ""})))


def test_the_first_training_task_is_shown_to_it(make: Make) -> None:
    code = AGENT.replace("def run(query):", "def run(query):\n    open('asked', 'w').write(query)")
    make(code, is_run=True, tasks=[{**TASKS[0], "split": "test"}, *TASKS[1:]])
    assert Path("asked").read_text() == TASKS[1]["query"]


def test_tools_that_it_offers_later_and_to_others_count_too(make: Make) -> None:
    more = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}]
    code = f"""{ASKING}
def run(query):
    for tools in (TOOLS, [], {more}, TOOLS + {more}):
        ask([{{'role': 'user', 'content': query}}], tools)
"""
    assert list(make(code, is_run=True).toolbox.tools) == ["find", "price"]


def test_what_fails_behind_the_tools_does_not_matter(make: Make) -> None:
    code = f"{AGENT}\nrun_before = run\ndef run(query):\n    run_before(query)\n    raise RuntimeError('no answer')\n"
    assert list(make(code, is_run=True).toolbox.tools) == ["find"]


def test_an_agent_that_never_has_enough_is_stopped(make: Make) -> None:
    code = f"{ASKING}\ndef run(query):\n    while True:\n        ask([{{'role': 'user', 'content': query}}])\n"
    assert list(make(code, is_run=True).toolbox.tools) == ["find"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_its_tools_may_be_listed_in_a_file(make: Make, wrapped: bool) -> None:
    function = {"name": "order", "description": "Order a book.", "parameters": {"type": "object", "properties": {}}}
    Path("tools.json").write_text(json.dumps([{"type": "function", "function": function} if wrapped else function]))
    world = make("def run(query):\n    raise SystemExit", tools="tools.json")
    assert list(world.toolbox.tools) == ["order"]
    assert not Path(".steptool").exists(), "nothing was run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "tools.json"),
        ("{}", "holds no list of tools"),
        ('{"system": 7, "tools": []}', "its `system` is no text"),
        ("[]", "holds no list of tools"),
        ("[1]", "tool 1: is no tool with a name"),
        ('[{"name": "a"}, {"type": "function"}]', "tool 2: is no tool with a name"),
        ('[{"name": "a"}, {"name": "a"}]', "lists a twice"),
        ('[{"name": "Finish"}]', "lists Finish, which is how an attempt ends here"),
        ('[{"name": 7}]', "tool 1: is no tool: "),
    ],
)
def test_a_file_of_tools_that_is_none_is_refused(make: Make, text: str, message: str) -> None:
    Path("tools.json").write_text(text)
    with pytest.raises(DataError, match=message):
        make(tools="tools.json")


def test_what_was_seen_is_kept_in_its_order(make: Make) -> None:
    code = AGENT.replace(
        '"properties": {"title": {"type": "string"}}',
        '"properties": {"title": {"type": "string"}, "author": {}, "by": {}}',
    )
    make(code, is_run=True)
    assert list(make(code, is_run=True).toolbox.tools["find"].parameters["properties"]) == ["title", "author", "by"]


def test_what_it_was_seen_to_offer_can_be_kept_as_a_file_of_tools(make: Make) -> None:
    seen = make(is_run=True).toolbox.tools
    (kept,) = Path(".steptool/agent").glob("tools-*.json")
    kept.rename("tools.json")
    assert make(tools="tools.json").toolbox.tools == seen


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def run(query):\n    return 'I know it'", "the agent ended and never asked the model"),
        (
            f"{ASKING}\ndef run(query):\n    ask([], [])",
            "failed before it offered the model a tool: agent:run raised HTTP",
        ),
        (
            f"{ASKING}\ndef run(query):\n    ask([{{'role': 'user', 'content': query}}], [])",
            "offers the model no tool in its requests",
        ),
        (
            f"{ASKING}\ndef run(query):\n"
            "    ask([{'role': 'user', 'content': query}], [{'type': 'function', 'function': {'name': 'Finish'}}])",
            "it offers a tool called Finish, which is how an attempt ends here",
        ),
        ("import no_such_package\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import openai\nopenai.no_such_name\n", "cannot be imported: AttributeError"),
        ("def other(query):\n    pass", "agent: has no function run"),
        ("import time\ndef run(query):\n    time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_an_agent_that_cannot_be_used_is_refused_in_a_line(make: Make, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make(code, is_run=True, timeout_s=1.0)
    assert refused.value.exit_code == 2
    assert refused.value.fix
    assert refused.value.where == "agent:run"
    assert not list(Path(".steptool/agent").glob("tools-*")), "nothing is kept of it"


# Settings and tasks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either command"),
        ({"command": "a", "callable": "a:b"}, "give either command"),
        ({"command": "python 'agent.py"}, "No closing quotation"),
        ({"callable": "agent.py"}, "write MODULE:FUNCTION"),
        ({"callable": "agent:run", "answer": "output"}, "answer: output is for a command"),
        ({"callable": "agent:run", "record": "auto"}, "record is not for an agent"),
        ({"command": "   "}, "names no program"),
        ({"callable": "agent:run", "timeout_s": 0}, "greater than 0"),
        ({"callable": "agent:run", "tols": "t.json"}, "tols"),
    ],
)
def test_settings_that_make_no_agent_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Section("world", None).read({"use": "agent", **settings})


def test_a_check_of_the_state_is_refused_for_no_tool_can_be_asked(make: Make) -> None:
    state = {"kind": "state", "tool": "find", "arguments": {"title": "Dune"}, "expected": "a"}
    with pytest.raises(DataError, match="runs inside of the agent") as refused:
        make(tasks=[*TASKS, {**TASKS[0], "query": "Another?", "check": state}])
    assert refused.value.where == "tasks.jsonl:11"


def test_a_missing_module_is_told(make: Make) -> None:
    with pytest.raises(InputError, match="no such module"):
        make(callable="nowhere:run", is_run=True)


# What makes stages stale


def revision(world: AgentWorld) -> str:
    return revision_of(world).revision


def test_code_that_the_agent_reaches_counts_and_comments_do_not(make: Make) -> None:
    code = f"import helper\n{AGENT}"
    Path("helper.py").write_text("LIMIT = 1\n")
    before = revision(make(code))
    assert revision(make(f"# a comment\n{code}")) == before
    Path("helper.py").write_text("LIMIT = 2\n")
    assert revision(make(code)) != before


def test_what_the_model_reads_counts(make: Make) -> None:
    before = revision(make())
    assert revision(make(AGENT.replace("Id of a book.", "The id of a book."))) != before


def test_the_script_of_a_command_counts_with_its_imports(make: Make) -> None:
    code = f"import helper\n{AGENT}"
    Path("helper.py").write_text("LIMIT = 1\n")
    before = revision(make(code, command="python agent.py"))
    Path("helper.py").write_text("LIMIT = 2\n")
    assert revision(make(code, command="python agent.py")) != before


@pytest.mark.parametrize(
    ("command", "file"), [("python -m desk.main", "desk/main.py"), ("python -m desk", "desk/__main__.py")]
)
def test_a_module_that_a_command_runs_counts_with_its_imports(make: Make, command: str, file: str) -> None:
    Path("desk").mkdir()
    Path("desk/__init__.py").touch()
    Path(file).write_text("import desk.helper\n")
    Path("desk/helper.py").write_text("LIMIT = 1\n")
    before = revision(make(command=command))
    Path("desk/helper.py").write_text("LIMIT = 2\n")
    assert revision(make(command=command)) != before
    assert Program("python -m http.server").modules == []


def test_further_files_count_where_they_are_named(make: Make) -> None:
    Path("prompts").mkdir()
    Path("prompts/a.md").write_text("Be brief.")
    before = revision(make(files=["prompts/*.md"]))
    Path("prompts/a.md").write_text("Be long.")
    assert revision(make(files=["prompts/*.md"])) != before
    with pytest.raises(InputError, match=r"no file matches 'prompt/\*\.md'"):
        revision(make(files=["prompt/*.md"]))


def test_what_is_imported_once_does_not_count(make: Make) -> None:
    assert revision(make()) == revision(make(preload=["json"]))


# Commands


def test_its_tasks_are_checked_like_any(make: Make) -> None:
    world = make()
    tasks = Path("tasks.jsonl").read_text()
    Path("tasks.jsonl").write_text(f'{tasks}{{"query": "Who?", "tools": ["nothing"]}}\n')
    found = read_tasks(world.config, lambda config: AgentWorld(config, 17))
    (error,) = found.errors
    assert (len(found.lines), error.found, error.where) == (10, "no tool is called 'nothing'", ("tasks.jsonl:11",))
    assert found.world is not None
    found.world.end()


def test_its_tools_are_listed_and_tried(make: Make) -> None:
    make(is_run=True)
    Path("params.yaml").write_text("world: {use: agent, callable: 'agent:run'}\n")
    run = CliRunner().invoke
    assert run(app, ["tools", "list"]).output == "find(title: string)\n    Id of a book.\n"
    tried = run(app, ["tools", "try", "find", '{"title": "Dune"}'])
    assert tried.output.startswith('{"id": "enuD"}\nno error')
    assert "calls them itself" in str(run(app, ["tools", "check"]).exception)
    assert "tasks.jsonl: 10 tasks can be read" in run(app, ["tasks", "check"]).output
