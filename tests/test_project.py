"""`steptool init`: what it writes is a project that the package can run, in a folder that is no checkout."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from importlib import import_module
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML

from steptool.core.types import StopReason
from steptool.project.init import DVC_CONFIG, template
from steptool.project.own import Own
from steptool.traces.file import TraceFile
from steptool.worlds.checks import check_demonstrations, check_tasks
from steptool.worlds.functions import FunctionsWorld

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "vllm", "mlflow", "prefect", "pandas", "scipy", "numpy")
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from steptool.cli import main
main()
"""
"""The command line where only the base installation is there."""


def steptool(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in an environment that knows who commits, and with packages from nowhere but the environment."""
    known = {f"GIT_{who}_{what}": f"t@{who}.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = {"HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": str(ROOT), **known, **environment}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, cwd=folder, env=inherited | own, capture_output=True, text=True, check=False)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project, and what the command printed."""
    folder = tmp_path_factory.mktemp("work")
    done = steptool(folder, "init", "my agent")
    assert done.returncode == 0, done.stderr
    return folder / "my agent", done.stdout


@pytest.fixture
def project(written: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(written[0])
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield written[0]
    sys.modules.pop("tools", None)


def test_what_a_project_shares_with_the_repository_is_the_same() -> None:
    files = {str(path): text for path, text in template()}
    shared = [*(str(path.relative_to(ROOT)) for path in (ROOT / "flows").glob("*.py")), "infra/prefect.yaml"]
    assert len(shared) > 5
    for path in (*shared, "profiles/workbench.yaml", ".gitignore", ".dvcignore"):
        assert files[path] == (ROOT / path).read_bytes(), f"copy {path} to steptool/project/template"
    assert (ROOT / ".dvc" / "config").read_text() == DVC_CONFIG
    assert {path for path in files if path.startswith("flows/")} == {
        path for path in shared if path.startswith("flows/")
    }


def test_everything_is_written_and_committed(written: tuple[Path, str]) -> None:
    folder, said = written
    for name in ("params.yaml", "dvc.yaml", "tools.py", "tasks.jsonl", "demonstrations.jsonl", "Makefile", "README.md"):
        assert (folder / name).is_file()
    assert (folder / ".dvc" / "config").read_text() == DVC_CONFIG
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "log", "--format=%s") == "Start the project my-agent\n"
    assert [line.split("  ")[0] for line in said.partition("Next:\n  ")[2].splitlines()] == [
        "cd 'my agent'",
        "",
        "",
        "",
    ]
    assert "PROJECT" not in "".join(path.read_text() for path in folder.glob("*.*") if path.is_file())
    assert (folder / "README.md").read_text().startswith("# my-agent\n")
    assert len((folder / "README.md").read_text().splitlines()) <= 40, "one screen"


def test_its_settings_and_graph_are_valid(project: Path) -> None:
    done = steptool(project, "graph")
    assert done.stdout == "dvc.yaml is the graph that params.yaml asks for\n", done.stderr
    stages = YAML(typ="safe").load((project / "dvc.yaml").read_text())["stages"]
    assert [name for name in stages if name.startswith("train")] == ["train-sft", "train-ppo", "train-rft"]


def test_its_tasks_and_demonstrations_are_right(project: Path) -> None:
    """Each demonstration, called again, gets the same replies, and is solved."""
    world = FunctionsWorld(FunctionsWorld.Config(module="tools.py", tasks="tasks.jsonl"), 17)
    splits = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert {split: len(tasks) for split, tasks in splits.items()} == {"train": 6, "dev": 2, "test": 2}
    tasks = {task.id: task for found in splits.values() for task in found}
    check_tasks(splits, {name: world.reference(task) for name, task in tasks.items()}, "functions")
    shown = list(TraceFile(TraceFile.Config(path="demonstrations.jsonl")).read(world, tasks, 17))
    check_demonstrations(shown, splits, "demonstrations.jsonl")

    async def replay(index: int) -> float | None:
        demonstration = shown[index]
        session = world.open(tasks[demonstration.task_id], 17)
        for step in demonstration.steps[:-1]:
            assert [await session.call(call) for call in step.action.calls] == list(step.observations)
        return (await session.close(demonstration.answer)).solved

    assert len(shown) == 5
    for index, demonstration in enumerate(shown):
        assert demonstration.stop_reason is StopReason.finished
        assert asyncio.run(replay(index)) == 1


TOOLS = '''"""Tools of a team."""

def double(number: int) -> int:
    """Twice a number.

    Args:
        number: any
    """
    return 2 * number
'''


def _brought(tmp_path: Path, tasks: int, demonstrations: int = 0) -> list[str]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "calc.py").write_text(TOOLS)
    lines = [
        {"id": f"t{n}", "query": f"Double {n}?", "check": {"kind": "number", "expected": 2 * n}} for n in range(tasks)
    ]
    (tmp_path / "in" / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = {"call": {"name": "double", "arguments": {"number": 1}}}
    shown = {"task_id": "t1", "steps": [step, {"call": {"name": "Finish", "arguments": {"answer": "2"}}}]}
    (tmp_path / "in" / "d.jsonl").write_text((json.dumps(shown) + "\n") * demonstrations)
    more = ["--demonstrations", "in/d.jsonl"] if demonstrations else []
    return ["init", "mine", "--tools", "in/calc.py", "--tasks", "in/t.jsonl", *more]


@pytest.mark.parametrize(
    ("tasks", "demonstrations", "sampled", "gate", "arms", "epochs"),
    [(10, 0, 5, True, ["start", "ppo"], None), (300, 100, 60, False, ["sft", "ppo", "rft"], 4)],
)
def test_tools_of_a_team_take_the_place_of_the_example(
    tmp_path: Path, tasks: int, demonstrations: int, sampled: int, gate: bool, arms: list[str], epochs: int | None
) -> None:
    done = steptool(tmp_path, *_brought(tmp_path, tasks, demonstrations))
    assert done.returncode == 0, done.stderr
    project = tmp_path / "mine"
    params = YAML(typ="safe").load((project / "params.yaml").read_text())
    assert params["world"] == {"use": "functions", "module": "calc.py", "tasks": "tasks.jsonl"}
    assert params["sample"]["tasks"] == sampled
    assert ("validate" in params) is gate, "a few tasks pass any gate, many are held to its limits"
    assert list(params["arms"]) == arms
    assert params.get("methods", {}).get("sft", {}).get("epochs") == epochs
    assert not (project / "tools.py").exists()
    assert (project / "demonstrations.jsonl").exists() is bool(demonstrations)
    assert (project / "tasks.jsonl").read_bytes() == (tmp_path / "in" / "t.jsonl").read_bytes()
    checked = steptool(project, "graph")
    assert checked.stdout == "dvc.yaml is the graph that params.yaml asks for\n", checked.stderr
    assert git(project, "status", "--porcelain") == ""


def test_without_any_check_no_arm_learns_from_solved_attempts(tmp_path: Path) -> None:
    arguments = _brought(tmp_path, 10, 3)
    (tmp_path / "in" / "t.jsonl").write_text('{"id": "t1", "query": "Double 1?"}\n')
    done = steptool(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    params = YAML(typ="safe").load((tmp_path / "mine" / "params.yaml").read_text())
    assert (list(params["arms"]), params["compare"], params["reward"]) == (
        ["sft", "ppo"],
        [["ppo", "sft"]],
        {"use": "auto"},
    )


@pytest.mark.parametrize(
    ("options", "world", "files"),
    [
        (["--openapi", "in/api.yaml"], {"use": "openapi", "document": "api.yaml"}, ["api.yaml"]),
        (["--openapi", "https://a.org/api.json"], {"use": "openapi", "document": "https://a.org/api.json"}, []),
        (
            ["--mcp", "python in/server.py --fast"],
            {"use": "mcp", "command": ["python", "server.py", "--fast"]},
            ["server.py"],
        ),
        (["--mcp", "http://127.0.0.1:9/mcp"], {"use": "mcp", "url": "http://127.0.0.1:9/mcp"}, []),
    ],
)
def test_services_of_a_team_are_named_in_its_settings(
    tmp_path: Path, options: list[str], world: dict[str, object], files: list[str]
) -> None:
    own = Own(**{options[0].removeprefix("--"): options[1]}, tasks="in/t.jsonl")
    (tmp_path / "in").mkdir()
    for name in ("api.yaml", "server.py", "t.jsonl"):
        (tmp_path / "in" / name).write_text("{}\n")
    with chdir(tmp_path):
        own.check()
        made = own.laid_over(dict(template()))
    params = YAML(typ="safe").load(made[PurePosixPath("params.yaml")].decode())
    assert params["world"] == {**world, "tasks": "tasks.jsonl"}
    assert {str(path) for path in made} >= {*files, "tasks.jsonl"}


def _log(tmp_path: Path, questions: int, *, expected: bool, answer: str = "It is {}.") -> None:
    lines = []
    for number in range(questions):
        function = {"name": "double", "arguments": json.dumps({"number": number})}
        call = {"id": "c", "type": "function", "function": function}
        messages = [
            {"role": "user", "content": f"Double {number}, asks {number}@corp.com."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": str(2 * number)},
            {"role": "assistant", "content": answer.format(2 * number)},
        ]
        lines.append({"messages": messages, **({"expected": 2 * number} if expected else {})})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _chats(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    (tmp_path / "log.jsonl").write_text(json.dumps({"messages": messages}) + "\n")


@pytest.mark.parametrize("expected", [False, True])
def test_a_log_alone_makes_a_project(tmp_path: Path, expected: bool) -> None:
    """Its tools reply as they did; budgets fit what was done; arms learn from what can be known."""
    _log(tmp_path, 20, expected=expected, answer="It is {}, " + "as you may see, " * 20)
    done = steptool(tmp_path, "init", "mine", "--traces", "log.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("traces/log: 20 attempts at 20 tasks, 1 tool (--from openai)")
    params = YAML(typ="safe").load((tmp_path / "mine" / "params.yaml").read_text())
    assert params["world"] == {"use": "traces", "path": "traces/log"}
    assert params["demonstrations"] == {"use": "traces", "path": "traces/log"}
    assert params["sample"]["tasks"] == 10
    assert params["sample"]["max_step_tokens"] > 340 // 4, "the longest answer has room"
    assert list(params["arms"]) == (["start", "sft", "ppo", "rft"] if expected else ["start", "sft", "ppo"])
    assert params.get("promote") == (None if expected else {"measure": "grounded"})
    project = tmp_path / "mine"
    assert steptool(project, "graph").stdout == "dvc.yaml is the graph that params.yaml asks for\n"
    assert git(project, "status", "--porcelain") == ""
    assert "corp.com" not in git(project, "grep", "-h", "Double", "--", "traces")
    assert steptool(project, "tasks", "check").returncode == 0
    assert steptool(project, "tools", "try", "double", '{"number": 4}').stdout == "8\n"


def test_options_of_an_import_hold_for_the_log_of_a_new_project(tmp_path: Path) -> None:
    _log(tmp_path, 4, expected=False)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write("{\n")
    refused = steptool(tmp_path, "init", "mine", "--traces", "log.jsonl")
    assert refused.returncode != 0 and "--lenient" in refused.stderr and not (tmp_path / "mine").exists()
    options = ("--lenient", "--drop", "number", "--region", "de", "--set", "label=right")
    done = steptool(tmp_path, "init", "mine", "--traces", "log.jsonl", *options)
    assert done.returncode == 0, done.stderr
    assert "not JSON: cut off" in done.stdout and "4 dropped fields" in done.stdout
    assert "nothing to read there: --set label=right\n" in done.stdout


def test_a_log_with_tools_and_tasks_of_a_team_only_shows_how_it_is_done(tmp_path: Path) -> None:
    arguments = _brought(tmp_path, 10)
    _log(tmp_path, 10, expected=False)
    done = steptool(tmp_path, *arguments, "--traces", "log.jsonl")
    assert done.returncode == 0, done.stderr
    params = YAML(typ="safe").load((tmp_path / "mine" / "params.yaml").read_text())
    assert params["world"] == {"use": "functions", "module": "calc.py", "tasks": "tasks.jsonl"}
    assert params["demonstrations"] == {"use": "traces", "path": "traces/log"}


@pytest.mark.parametrize(
    ("write", "options", "says"),
    [
        (lambda folder: None, ["--traces", "log.jsonl"], "log.jsonl: no such file or folder"),
        (lambda folder: _log(folder, 1, expected=False), ["--traces", "log.jsonl"], "asks 1 question"),
        (_chats, ["--traces", "log.jsonl"], "log.jsonl: no conversation in it offers or calls a tool"),
        (lambda folder: _log(folder, 3, expected=False), ["--traces", "log.jsonl", "--from", "x"], "--from"),
        (lambda folder: _log(folder, 3, expected=False), ["--from", "openai"], "--from says what traces hold"),
        (lambda folder: _log(folder, 3, expected=False), ["--traces", "log.jsonl", "--region", "XX"], "no country"),
        (lambda folder: None, ["--lenient"], "say how traces are read, and there are none"),
        (lambda folder: None, ["--traces", "sqlite:///log.db"], "log.db: no such database"),
        (lambda folder: None, ["--traces", "sqlite:///log.db", "--from", "x:Y"], "x: cannot be imported"),
    ],
)
def test_a_log_that_cannot_be_used_leaves_nothing_behind(
    tmp_path: Path, write: Callable[[Path], None], options: list[str], says: str
) -> None:
    write(tmp_path)
    done = steptool(tmp_path, "init", "mine", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "mine").exists() and not (tmp_path / "log.db").exists()


READER = """
from typing import ClassVar
from steptool.core.fields import Settings
from steptool.core.messages import Message, MessageCall
from steptool.traces.conversation import Conversation

class Mine:
    name: ClassVar[str] = "mine"
    class Config(Settings): ...
    def __init__(self, config): ...
    def read(self, source):
        for line in open(source):
            user, tool = Message(role="user", text=line), Message(role="tool", text="4")
            call = Message(role="assistant", calls=(MessageCall(name="double", arguments="{}"),))
            yield Conversation(where=source, messages=(user, call, tool, Message(role="assistant", text="4")))
"""


def test_a_log_may_have_a_reader_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_reader.py").write_text(READER)
    (tmp_path / "log.txt").write_text("What is twice 2?\nAnd 1 + 3?\n")
    done = steptool(tmp_path, "init", "mine", "--traces", "log.txt", "--from", "my_reader:Mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "traces" / "log-txt").is_dir()


@pytest.mark.parametrize(
    ("agent", "world"),
    [
        ("my_agent:run", {"use": "agent", "callable": "my_agent:run"}),
        ("python my_agent.py --ask {query}", {"use": "agent", "command": "python my_agent.py --ask {query}"}),
    ],
)
def test_an_agent_of_a_team_comes_with_the_modules_that_it_imports(
    tmp_path: Path, agent: str, world: dict[str, str]
) -> None:
    files = ["my_agent.py", "shop/__init__.py", "shop/stock.py"]
    for name in (*files, "other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from shop.stock import *\n" if name == "my_agent.py" else "")
    (tmp_path / "t.jsonl").write_text('{"query": "Double 1?"}\n')
    done = steptool(tmp_path, "init", "mine", "--agent", agent, "--tasks", "t.jsonl")
    assert done.returncode == 0, done.stderr
    params = YAML(typ="safe").load((tmp_path / "mine" / "params.yaml").read_text())
    assert params["world"] == {**world, "tasks": "tasks.jsonl"}
    found = {str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*.py")}
    assert {path for path in found if not path.startswith("flows/")} == set(files)
    assert git(tmp_path / "mine", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--agent", "desk/my_agent:run"], "cd desk, then write --agent my_agent:run"),
        (["--agent", "desk/my_agent.py"], "cd desk, then write --agent my_agent:FUNCTION"),
        (["--agent", "gone:run"], "gone: no such module"),
        (["--agent", "python 'gone.py"], "--agent cannot be read as a command: No closing quotation"),
        (["--agent", "a:b", "--mcp", "python c.py"], "--mcp and --agent are given"),
        (["--tools", "gone.py"], "gone.py: no such file"),
        (["--tools", "a.py", "--openapi", "b.yaml"], "--tools and --openapi are given"),
        (["--tasks", "t.jsonl"], "tasks of your own need tools of your own"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, options: list[str], says: str) -> None:
    done = steptool(tmp_path, "init", "mine", *options)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert says in done.stderr


def test_deployments_name_flows_that_are_there() -> None:
    deployments = YAML(typ="safe").load((ROOT / "infra" / "prefect.yaml").read_text())
    for deployment in deployments["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert callable(getattr(import_module(module), name))
    (step,) = deployments["pull"][0]
    module, _, name = step.rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_where_no_folder_can_be_made_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = steptool(tmp_path, "init", "file/mine")
    assert done.returncode == 1
    assert done.stderr.startswith("steptool: file/mine: cannot be written: Not a directory\n  fix: name a folder")


def test_a_clone_of_an_empty_repository_becomes_a_project(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "mine")
    git(tmp_path / "mine", "remote", "add", "origin", "https://example.org/mine.git")
    done = steptool(tmp_path, "init", "mine")
    assert done.returncode == 0, done.stderr
    assert git(tmp_path / "mine", "remote") == "origin\n"
    assert git(tmp_path / "mine", "log", "--format=%s") == "Start the project mine\n"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "mine"
    if kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    else:
        target.write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    done = steptool(tmp_path, "init", "mine")
    assert done.returncode == 2
    assert ("is not empty: it holds thesis.txt" if kind == "folder" else "cannot be read as a folder") in done.stderr
    assert "fix: name a folder that is new or empty" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_without_git_nothing_is_written(tmp_path: Path) -> None:
    done = steptool(tmp_path, "init", "mine", PATH="/nowhere")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "git is not on the PATH" in done.stderr


def test_where_git_does_not_know_who_commits_it_says_what_to_type(tmp_path: Path) -> None:
    nobody = {f"GIT_{who}_{what}": "" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    (tmp_path / "mine").mkdir()
    done = steptool(tmp_path, "init", "mine", **nobody)
    assert done.returncode == 0, done.stderr
    next_lines = done.stdout.partition("Next:\n")[2].splitlines()
    assert next_lines[0] == "  cd mine"
    assert next_lines[1].startswith("  git config --global user.name NAME")
    assert git(tmp_path / "mine", "rev-list", "--all") == ""
    assert (tmp_path / "mine" / "dvc.yaml").exists()


@pytest.mark.slow
def test_a_wheel_is_enough(tmp_path: Path) -> None:
    """Built from the sources, unpacked elsewhere, and used from a third place."""
    source, wheels, unpacked, work = (tmp_path / name for name in ("source", "wheels", "unpacked", "work"))
    entries = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for entry in entries:
        if (ROOT / entry).is_file():
            (source / entry).parent.mkdir(parents=True, exist_ok=True)
            (source / entry).write_bytes((ROOT / entry).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    done = subprocess.run([*build, str(wheels), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"steptool"}, "no tests, no flows"
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    packaged = {name for name in entries if name.startswith("steptool/") and (ROOT / name).is_file()}
    assert packaged == {name for name in names if name.startswith("steptool/")}
    for name in names:
        text = (unpacked / name).read_bytes()
        assert str(ROOT).encode() not in text, f"{name} holds a path of this machine"
        assert str(tmp_path).encode() not in text, f"{name} holds a path of this machine"
    work.mkdir()
    where = [sys.executable, "-c", "import steptool; print(steptool.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    found = subprocess.run(where, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(unpacked)
    done = steptool(work, "init", "agent", PYTHONPATH=str(unpacked))
    assert done.returncode == 0, done.stderr
    done = steptool(work / "agent", "graph", PYTHONPATH=str(unpacked))
    assert done.returncode == 0, done.stderr
    assert (work / "agent" / "flows" / "pipeline.py").read_bytes() == (ROOT / "flows" / "pipeline.py").read_bytes()
