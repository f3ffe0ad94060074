"""Every command that a message tells somebody to type can be typed, and those that mend a checkout mend it.

fix="restore it: dvc checkout --force {path}"     found in the syntax trees of steptool/ and flows/
         └──────────────────────────────────────── parsed by the tool itself, and run where MENDS says how
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from dvc.cli.parser import get_main_parser

from steptool import doctor
from steptool.cli import app
from steptool.config.arms import round_of
from steptool.config.lineage import check_state, read_lock
from steptool.core.errors import InputError, StepToolError, printable
from steptool.core.storage import read_json, read_jsonl, read_text
from steptool.core.types import Task
from tests.project import copy_project
from tests.stages.test_external import ENVIRONMENT

ROOT = Path(__file__).parents[1]
TOOLS = ("dvc", "steptool", "git", "make", "mlflow", "prefect", "hf", "rm")


def fixes(tree: ast.AST) -> Iterator[str]:
    """What stands behind `fix=` or `what_to_do=`, or in a variable of that name; {…} of an f-string as the letter x."""
    for node in ast.walk(tree):
        value = None
        if (isinstance(node, ast.keyword) and node.arg in ("fix", "what_to_do")) or (
            isinstance(node, ast.Assign)
            and any(re.search(r"(?i)fix|again|restore", ast.unparse(t)) for t in node.targets)
        ):
            value = node.value
        elif isinstance(node, ast.FunctionDef) and re.search(r"restore|way_out", node.name):
            value = node
        for part in ast.walk(value) if value else ():
            if isinstance(part, ast.JoinedStr):
                yield "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in part.values)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value.replace("{}", "x")


def commands(fix: str) -> Iterator[str]:
    """Those in backticks, and one that begins the text or follows a colon."""
    for quoted in re.findall(r"`([^`]+)`", fix):
        yield from re.split(r" && |; ", quoted)
    plain = re.sub(r"`[^`]+`", "", fix)
    for bare in re.findall(r"(?:^|: )((?:dvc|steptool|git|mlflow|prefect|rm|make (?=[a-z]+(?: [A-Z]|$)))[^`]*)", plain):
        yield from re.split(r" && |; ", re.split(r"  +\(|, (?=or|and|then)", bare)[0])


FOUND = sorted(
    {
        command.strip()
        for top in ("steptool", "flows")
        for file in (ROOT / top).rglob("*.py")
        for fix in fixes(ast.parse(file.read_text(encoding="utf-8")))
        for command in commands(fix)
        if command.split()[0] in TOOLS
    }
)


def test_the_commands_are_found() -> None:
    assert list(commands("`rm -r .venv && make setup`, or so: dvc checkout --force x")) == [
        "rm -r .venv",
        "make setup",
        "dvc checkout --force x",
    ]
    assert {"dvc checkout --force x", "rm -r x", "dvc repro --force --single-item x", "make setup BACKEND=gpu"} <= set(
        FOUND
    )


def parse(command: str) -> None:
    """Raise where the tool would not take it."""
    tool, *arguments = shlex.split(command)
    if tool == "dvc":
        get_main_parser().parse_args(arguments)
    elif tool == "steptool" and arguments:
        group = typer.main.get_command(app)
        context = group.make_context("steptool", list(arguments))
        name, verb, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        needed = {p.opts[0]: "x" for p in verb.params if p.required and p.param_type_name == "option"}
        missing = [part for option, value in needed.items() if option not in rest for part in (option, value)]
        some = ["x"] if not rest and any(p.param_type_name == "argument" and p.required for p in verb.params) else []
        verb.make_context(name, [*rest, *some, *missing], parent=context)
    elif tool == "make":
        target = next(word for word in arguments if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target
    elif tool == "git":
        known = subprocess.run(["git", "--list-cmds=main,others"], capture_output=True, text=True, check=True).stdout
        assert arguments[0] in (*known.split(), "lfs")  # an extension that need not be here
    elif tool in ("mlflow", "prefect", "hf"):
        verbs = [word for word in arguments if not word.startswith("-") and "/" not in word and word != "x"]
        verbs = verbs[: 1 if verbs[0] == "server" else 2 if tool != "prefect" else 3]
        verbs = [word for word in verbs if not word.isdigit()]
        help_of = [str(Path(sys.executable).with_name(tool)), *verbs, "--help"]
        said = subprocess.run(help_of, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
        assert all(option.split("=")[0] in said for option in arguments if option.startswith("--"))


def is_slow(command: str) -> bool:
    return command.split()[0] in ("mlflow", "prefect", "hf")


@pytest.mark.parametrize("command", [command for command in FOUND if not is_slow(command)])
def test_a_printed_command_can_be_typed(command: str) -> None:
    parse(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in FOUND if is_slow(command)])
def test_a_printed_command_of_a_large_tool_can_be_typed(command: str) -> None:
    parse(command)


def test_a_command_that_nobody_can_type_is_caught() -> None:
    for wrong in ("steptool smaple r1", "make it", "git restroe x"):
        with pytest.raises(BaseException):  # noqa: B017 - each parser has an error of its own
            parse(wrong)


def test_no_message_sends_anybody_to_write_into_an_output() -> None:
    outputs = r"data/(tasks|trajectories|scored|validated|revisions)|models|metrics|reports"
    for top in ("steptool", "flows"):
        for file in (ROOT / top).rglob("*.py"):
            for fix in fixes(ast.parse(file.read_text(encoding="utf-8"))):
                assert not re.search(rf"(write|put|copy|save)\b[^:;]*\b({outputs})\b", fix), f"{file}: {fix}"
                assert not re.search(r"\bwrite\b.*\b(there|into it|into x)\b", fix), f"{file}: {fix}"


# Those that mend a checkout, run as they are printed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `prepare` has run, committed."""
    folder = tmp_path_factory.mktemp("made")
    copy_project(folder)
    small = "train_tasks: 24\n  dev_tasks: 12\n  test_tasks: 12"
    params = (folder / "params.yaml").read_text()
    params = re.sub(r"train_tasks: .*\n.*\n  test_tasks: \d+", small, params).replace("count: 320", "count: 16")
    (folder / "params.yaml").write_text(params)
    for command in ("git init -q", "dvc repro -q prepare", "git add -A", "git commit -qm made"):
        sh(folder, command)
    return folder


def sh(folder: Path, command: str, code: int = 0) -> str:
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = ENVIRONMENT | who | {"PYTHONPATH": str(folder)}
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def cut(path: str) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:-9])


def conflict() -> None:
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> theirs\n")


MENDS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    # what breaks it; what then raises the error
    "cut rows": (cut("data/tasks/train.jsonl"), lambda: read_jsonl(Path("data/tasks/train.jsonl"), Task)),
    "a byte": (
        lambda: Path("data/tasks/manifest.json").write_bytes(b"\xff"),
        lambda: read_text(Path("data/tasks/manifest.json")),
    ),
    "cut json": (cut("data/tasks/manifest.json"), lambda: read_json(Path("data/tasks/manifest.json"))),
    "gone": (Path("data/tasks/train.jsonl").unlink, lambda: read_jsonl(Path("data/tasks/train.jsonl"), Task)),
    "no rwlock": (lambda: Path(".dvc/tmp/rwlock").write_text(""), check_state),
    "cut rwlock": (lambda: Path(".dvc/tmp/rwlock").write_text('{"a": {'), check_state),
    "merged lock": (conflict, read_lock),
    "cut lock": (lambda: Path("dvc.lock").write_text("stages: ["), read_lock),
    "shapeless lock": (lambda: Path("dvc.lock").write_text("stages: 3"), read_lock),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", MENDS)
def test_a_printed_fix_mends_what_it_was_printed_for(made: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(made)
    spoil, look = MENDS[case]
    spoil()
    with pytest.raises(InputError) as caught:
        look()
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.fix is not None
    (command,) = list(commands(caught.value.fix))[:1]
    if command == "dvc repro":  # of this stage, for time's sake; the file is deleted first where the message says so
        if f"delete {caught.value.where}".partition(":")[0] in caught.value.fix:
            Path(str(caught.value.where).partition(":")[0]).unlink()
        command = "dvc repro prepare"
    sh(made, command)
    look()
    assert "up to date" in sh(made, "dvc status prepare")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fix_of_a_lock_that_disagrees_makes_both_agree(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    text = Path("dvc.lock").read_text()
    assert "count: 16" in text
    Path("dvc.lock").write_text(text.replace("count: 16", "count: 15"))
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("count: 16", "count: 15"))
    check = doctor.dvc(made)
    assert (check.ok, check.fix) == (False, "dvc repro --force --single-item prepare")
    sh(made, check.fix)
    assert doctor.dvc(made).ok
    sh(made, "git checkout params.yaml && dvc repro -q prepare")


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (lambda: Path(".dvc/tmp/rwlock").write_text(""), "rm -r .*/rwlock"),
        (lambda: Path("dvc.lock").write_text("a:\n<<<<<<< HEAD\n"), "git checkout --ours .*dvc.lock"),
        (lambda: Path("dvc.yaml").unlink(), "git checkout dvc.yaml"),
    ],
)
def test_doctor_says_what_keeps_dvc_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[], object], fix: str
) -> None:
    copy_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path(".dvc/tmp").mkdir()
    assert doctor.dvc(tmp_path).ok
    spoil()
    check = doctor.dvc(tmp_path)
    assert not check.ok
    assert re.search(fix, check.fix)


# Messages to who typed something else


def test_an_unknown_round_is_answered_with_those_that_there_are() -> None:
    from steptool.config.settings import Params

    params = Params.model_validate({"rounds": {"r2": {"from": "base"}}})
    with pytest.raises(InputError, match="no round 'r3'; there are r2") as caught:
        round_of(params, "r3")
    assert not [command for command in commands(str(caught.value.fix)) if command.startswith("steptool")]
    assert round_of(params, "r2").index == 0


def test_an_unknown_profile_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    copy_project(tmp_path)
    said = sh(tmp_path, f"{sys.executable} -m steptool.cli params --profile tinny", code=2)
    assert "no profile 'tinny'" in said
    assert "paper, qwen2.5-7b-gpu, tiny" in said


@pytest.mark.parametrize("command", ["run", "results", "params", "base", "report", "params --profile tiny"])
def test_outside_of_a_repository_a_command_says_so_and_writes_nothing(tmp_path: Path, command: str) -> None:
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "steptool.cli", *command.split()]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "the project's root" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\u202e", "\x00", "\udc80"])
def test_what_a_message_quotes_cannot_steer_the_terminal(hostile: str) -> None:
    shown = printable(str(StepToolError(f"Task {hostile}: é", fix="x")))
    assert hostile not in shown
    assert shown.isascii() or shown.replace("\n", "").isprintable()
    assert "é" in shown
    assert shown.endswith("\n  fix: x")
