"""The design's rules, held against the syntax trees: who may import what, what no module may do,
and that each stage of dvc.yaml depends on what its code means.

Each rule is shown to catch an offender first, so that a rule that sees nothing cannot pass.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from steptool.config.plugins import BUILT_IN
from steptool.core.revision import MEANS_NOTHING
from steptool.orchestration.graph.stages import read_graph

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "steptool" / "project" / "template"  # files of another project, some of them copies of these
SOURCES = sorted(
    file
    for top in ("steptool", "flows", "benchmarks")
    for file in (ROOT / top).rglob("*.py")
    if TEMPLATE not in file.parents
)

LEARNING = ("steptool/training/", "steptool/methods/", "steptool/policies/")
OWNERS = {
    "torch": (*LEARNING, "steptool/engines/vllm_local.py", "steptool/engines/cpu_kernels.py"),
    "transformers": LEARNING,
    "peft": LEARNING,
    "trl": LEARNING,
    "accelerate": LEARNING,
    "vllm": ("steptool/engines/vllm_local.py", "steptool/engines/cpu_kernels.py", "steptool/serving/tool_parser.py"),
    "great_expectations": ("steptool/checks/",),
    "renderers": ("steptool/formats/families.py",),
    "mlflow": ("steptool/registry/", "steptool/tracking/", "steptool/traces/mlflow.py"),
    "prefect": ("flows/", "steptool/orchestration/"),
    "dvc": ("steptool/orchestration/", "steptool/config/lineage.py"),
    "mcp": ("steptool/worlds/mcp/",),
    "openai": ("steptool/endpoints/client.py", "steptool/engines/openai_server.py"),
    "aiolimiter": ("steptool/endpoints/client.py",),
    "fastapi": ("steptool/gateway/", "steptool/report/viewer/"),
    "uvicorn": (
        "steptool/gateway/",
        "steptool/report/viewer/",
        "steptool/commands/view.py",
        "steptool/commands/serve_tools.py",
    ),
    "atif": ("steptool/traces/atif.py", "steptool/traces/export.py"),
    "detect_secrets": ("steptool/traces/patterns.py",),
    "phonenumbers": ("steptool/traces/patterns.py",),
}
"""Heavy package: where it may be imported, in a function too. benchmarks/ may import anything."""

PURE = (
    "steptool/formats/json_call.py",
    "steptool/formats/react.py",
    "steptool/formats/arguments.py",
    "steptool/formats/names.py",
    "steptool/formats/tool_text.py",
    "steptool/formats/marked.py",
    "steptool/formats/episode.py",
    "steptool/rollouts/branch.py",
    "steptool/rollouts/chain.py",
    "steptool/rollouts/dfsdt.py",
    "steptool/rollouts/beside.py",
    "steptool/rollouts/guard.py",
    "steptool/worlds/traces/replies.py",
    "steptool/worlds/likeness.py",
    *(f"steptool/worlds/toolbench/{name}.py" for name in ("metrics", "names", "replies", "requests")),
    "steptool/worlds/toollens/metrics.py",
    "steptool/traces/spans.py",
    "steptool/rollouts/ending.py",
    "steptool/rollouts/recording.py",
    "steptool/rollouts/sampled.py",
    *(f"steptool/gateway/{name}.py" for name in ("base", "body", "chat", "responses", "streams")),
    "steptool/annotators/rules.py",
    "steptool/annotators/judge_prompt.py",
    "steptool/annotators/judge_script.py",
    *(f"steptool/annotators/local/{name}.py" for name in ("features", "model")),
    "steptool/evaluation/agreement.py",
    "steptool/endpoints/base.py",
    "steptool/endpoints/chat.py",
    "steptool/rewards/auto.py",
    "steptool/rewards/calibrated.py",
    "steptool/rewards/evidence.py",
    "steptool/rewards/repeats.py",
    "steptool/checks/calibration.py",
    "steptool/checks/credit.py",
    "steptool/checks/audit/attacks.py",
    "steptool/checks/audit/measure.py",
    "steptool/rewards/costs.py",
    "steptool/rewards/grounded.py",
    "steptool/rewards/paper.py",
    "steptool/rewards/potential.py",
    *(f"steptool/checks/diagnosis/{name}.py" for name in ("attempts", "counts", "credit", "diagnose", "differences")),
    *(
        f"steptool/checks/diagnosis/{name}.py"
        for name in ("findings", "likelihoods", "policies", "round", "text", "tools")
    ),
    "steptool/core/failures.py",
    "steptool/traces/steps.py",
    "steptool/traces/merging.py",
    "steptool/traces/tools.py",
    "steptool/training/credit.py",
    "steptool/training/episode.py",
    "steptool/training/siblings.py",
    "steptool/training/compared.py",
    "steptool/training/groups.py",
    "steptool/training/release.py",
    "steptool/trajectories/states.py",
    "steptool/training/losses.py",
    "steptool/evaluation/built_in.py",
    "steptool/evaluation/metrics.py",
    "steptool/evaluation/compare.py",
    *(f"steptool/report/viewer/{name}.py" for name in ("records", "detail")),
)
IMPURE_MODULES = {
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap", "sqlite3", "subprocess", "signal"),
    *("socket", "ssl", "http", "urllib", "requests", "httpx", "aiohttp", "urllib3", "ftplib", "smtplib"),
    *("random", "secrets", "uuid", "time", "datetime", "sched", "logging"),
    "steptool.core.storage",
}
SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
"""What of numpy.random has no hidden global state."""

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "torch.load", "numpy.load", "np.load", "pandas.read_pickle"}


# Reading the trees


def name_of(file: Path) -> str:
    """steptool/annotators/rules.py -> steptool.annotators.rules; a package's __init__ has the package's name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in SOURCES}
TREES = {name: ast.parse(file.read_text(encoding="utf-8"), str(file)) for name, file in MODULES.items()}


def imports(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it: `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def without_type_checking(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run on import, those for type checkers left out."""
    return [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def internal(module: str) -> set[str]:
    """Our own modules that a module imports, and the packages that Python runs on the way to them."""
    found = imports(TREES[module], module, MODULES[module].name == "__init__.py")
    named = {name for name in found if name in MODULES}
    return {parent for name in named for parent in parents_and_self(name)} - {module}


def parents_and_self(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        if (parent := ".".join(parts[:length])) in MODULES:
            yield parent


# Rules; each returns what breaks it


def misplaced_imports(path: str, tree: ast.AST) -> set[str]:
    if path.startswith("benchmarks/"):
        return set()
    return {
        package
        for name in imports(tree, "x")
        for package, places in OWNERS.items()
        if within(name, {package}) and not path.startswith(places)
    }


def impurities(tree: ast.AST) -> set[str]:
    found = {name for name in imports(tree, "x") if within(name, IMPURE_MODULES)}
    for node in ast.walk(tree):
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        if called in ("open", "print", "input"):
            found.add(called)
        random = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", dotted(node))
        if random and random[1] not in SEEDED:
            found.add(random[0])
        if re.fullmatch(r"torch\.(manual_seed|seed|rand\w*|normal|bernoulli|multinomial)", called) and not (
            isinstance(node, ast.Call) and any(keyword.arg == "generator" for keyword in node.keywords)
        ):
            found.add(called)
    return found


def dangers(tree: ast.AST) -> set[str]:
    found = {name for name in imports(tree, "x") if within(name, FORBIDDEN_MODULES)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in FORBIDDEN_CALLS:
                found.add(called)
            if called.split(".")[-1] == "suppress" and {"Exception", "BaseException"} & set(map(dotted, node.args)):
                found.add("suppress(Exception)")
            for keyword in node.keywords:
                if keyword.arg in ("shell", "trust_remote_code") and ast.unparse(keyword.value) == "True":
                    found.add(f"{keyword.arg}=True")
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.add("bare except")
            if all(isinstance(line, ast.Pass) or ast.unparse(line) == "..." for line in node.body):
                found.add("except: pass")
    return found


# The rules catch offenders


@pytest.mark.parametrize(
    ("path", "code", "package"),
    [
        ("steptool/annotators/rules.py", "import torch", "torch"),
        ("steptool/formats/json_call.py", "from transformers import AutoTokenizer", "transformers"),
        ("steptool/cli.py", "def f():\n    import mlflow.pyfunc", "mlflow"),
        ("steptool/rollouts/branch.py", "from vllm.outputs import RequestOutput", "vllm"),
        ("steptool/stages/train.py", "import dvc.api", "dvc"),
    ],
)
def test_a_heavy_package_out_of_its_place_is_caught(path: str, code: str, package: str) -> None:
    assert misplaced_imports(path, ast.parse(code)) == {package}


@pytest.mark.parametrize(
    "code",
    [
        "import os.path",
        "from pathlib import Path",
        "from time import monotonic",
        "def f():\n    import random",
        "from steptool.core.storage import read_json",
        "open('x')",
        "np.random.shuffle(x)",
        "torch.randperm(3)",
        "torch.manual_seed(1)",
    ],
)
def test_an_impurity_is_caught(code: str) -> None:
    assert impurities(ast.parse(code))


@pytest.mark.parametrize("code", ["np.random.default_rng(1)", "torch.randperm(3, generator=g)", "import asyncio, math"])
def test_seeded_randomness_is_pure(code: str) -> None:
    assert impurities(ast.parse(code)) == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("eval('1')", "eval"),
        ("def f():\n    exec(x)", "exec"),
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("torch.load(p, weights_only=True)", "torch.load"),
        ("try:\n    f()\nexcept:\n    g()", "bare except"),
        ("try:\n    f()\nexcept OSError:\n    pass", "except: pass"),
        ("with suppress(Exception):\n    f()", "suppress(Exception)"),
        ("subprocess.run(x, shell=True)", "shell=True"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code=True"),
    ],
)
def test_a_danger_is_caught(code: str, found: str) -> None:
    assert found in dangers(ast.parse(code))


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from . import b\nfrom ..c import d\n")
    assert set(imports(tree, "p.q.a")) == {"p.q", "p.q.b", "p.c", "p.c.d"}
    assert set(imports(tree, "p.q", is_package=True)) == {"p.q", "p.q.b", "p.c", "p.c.d"}


# The sources keep to them


def test_there_is_something_to_look_at() -> None:
    assert {"steptool.core.types", "steptool.policies.base_models"} <= set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_packages_stay_in_their_places(module: str) -> None:
    assert misplaced_imports(str(MODULES[module].relative_to(ROOT)), TREES[module]) == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_dangerous(module: str) -> None:
    assert dangers(TREES[module]) == set()


@pytest.mark.parametrize("path", PURE)
def test_pure_modules_touch_nothing_outside(path: str) -> None:
    assert impurities(ast.parse((ROOT / path).read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("module", ["steptool.core.types", "steptool.core.errors"])
def test_types_and_errors_need_only_pydantic(module: str) -> None:
    allowed = {"pydantic", "steptool.core.types", "steptool.core.errors", *sys.stdlib_module_names}
    assert {name for name in imports(TREES[module], module) if not within(name, allowed)} == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_command_line_and_what_flows_are_made_of_know_the_stages(module: str) -> None:
    knowing = {"steptool.cli", "steptool.orchestration", "steptool.stages", "flows", "benchmarks"}
    knowing.add("steptool.commands.bench")  # the one command that measures as a stage does
    if within(module, knowing):
        return
    assert {name for name in internal(module) if within(name, {"steptool.stages", "steptool.cli", "flows"})} == set()


def test_imports_run_one_way() -> None:
    graph = {
        module: {
            name
            for node in without_type_checking(tree)
            for name in imports(ast.Module([node], []), module, MODULES[module].name == "__init__.py")
            if name in MODULES and name != module
        }
        for module, tree in TREES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


# dvc.yaml


def stages() -> dict[str, dict[str, Any]]:
    """Stages by name; one made by foreach or matrix counts once, by its template."""
    graph = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return {name: stage.get("do", stage) for name, stage in graph["stages"].items()}


def verbs(stage: dict[str, Any]) -> list[str]:
    command = stage["cmd"] if isinstance(stage["cmd"], str) else "\n".join(stage["cmd"])
    return re.findall(r"\bsteptool\s+([a-z][a-z-]*)", command)


def dep_paths(stage: dict[str, Any]) -> list[str]:
    return [dep if isinstance(dep, str) else next(iter(dep)) for dep in stage.get("deps", [])]


def test_every_stage_depends_on_what_its_code_means() -> None:
    """`steptool revisions` writes one file for each, which comes first among what the stage reads."""
    for name, stage in stages().items():
        (verb,) = verbs(stage)
        assert name.partition("-")[0] == verb, f"stage {name} runs `steptool {verb}`"
        assert f"steptool.stages.{verb}" in MODULES
        assert dep_paths(stage)[:1] == ([] if name == "revisions" else [f"data/revisions/{name}.json"])


BUILT_IN_MODULES = {path.partition(":")[0] for rows in BUILT_IN.values() for path in rows.values()}


def reached_without_table(module: str) -> set[str]:
    """Modules that a module imports, directly or through others; the table of plugins leads nowhere."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and not within(name, set(MEANS_NOTHING)):
            found.add(name)
            waiting += internal(name)
    return found


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("steptool.stages.")))
def test_no_stage_reaches_a_plugin_but_by_its_name_in_the_settings(module: str) -> None:
    """Else a run that does not use it would be stale where it changes."""
    reached = reached_without_table(module) - {module}
    assert reached & BUILT_IN_MODULES == set(), f"{module} imports a plugin"


def test_a_stage_that_reaches_a_plugin_is_caught() -> None:
    assert "steptool.formats.json_call" in reached_without_table("steptool.formats.json_call") & BUILT_IN_MODULES


def test_every_stage_runs_steptool_and_names_deps_that_exist() -> None:
    for name, stage in stages().items():
        assert verbs(stage), f"{name} runs no `steptool <verb>`"
        for dep in dep_paths(stage):
            if dep.startswith("steptool") and "$" not in dep:
                assert (ROOT / dep).exists(), f"{name} depends on {dep}, which is not there"


def test_every_output_stays_in_the_cache() -> None:
    """Without the cache, another clone cannot restore it."""
    for name, stage in stages().items():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                options = next(iter(out.values())) if isinstance(out, dict) else {}
                assert (options or {}).get("cache", True), f"{name}: {out} has `cache: false`"
                if not stage.get("always_changed"):  # which has no use for the run cache
                    assert not (options or {}).get("persist"), f"{name}: {out} has `persist`, disabling the run cache"


def test_every_stage_comes_after_the_one_that_runs_each_time() -> None:
    """It ends `dvc repro` where `steptool` cannot be found, before DVC has removed the output of any other."""
    nodes = {node.address: set(node.upstream) for node in read_graph(ROOT)}
    roots = {address for address, upstream in nodes.items() if not upstream}
    assert roots == {"revisions"}
