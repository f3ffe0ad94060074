"""`steptool <verb>`: one thin command a stage, and a few tools around them.

Heavy imports happen inside the verbs: `steptool --help` answers at once.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from steptool.commands import model
from steptool.commands.bench import app as bench
from steptool.commands.judge_agreement import judge_agreement
from steptool.commands.local_judge import app as local_judge
from steptool.commands.tasks import app as tasks
from steptool.commands.tools import app as tools
from steptool.commands.traces import Drop, Lenient, Region, Setting, settings_of
from steptool.commands.traces import app as traces
from steptool.commands.win_rate import win_rate
from steptool.core.errors import InputError, StepToolError, printable
from steptool.system.environment import be_quiet
from steptool.system.memory import keep_freed_memory, without_garbage_collection

HELP = """Train a language model on your tools and tasks, and see whether it uses them better.

`steptool init FOLDER` writes a project, `steptool run` runs all of it.
"""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)

START, RUN, USE = "Set up, and look before anything is trained", "Run, and see what came of it", "Use a policy"
REGISTRY, SERVICES, STAGES = "The registry", "Services of a team", "Stages, which `run` and `dvc repro` run"

INTERRUPTED = (130, 143, 129)
"""Exit statuses after Ctrl-C, SIGTERM and SIGHUP, as shells have them."""

Round = Annotated[str, typer.Argument(help="Key of the round in params.yaml, such as r1.")]
Arm = Annotated[str, typer.Argument(help="Name of the arm in params.yaml, such as ppo1.")]
WaitingRun = Annotated[str, typer.Argument(help="Name or id of the flow run; `steptool approvals` lists them.")]
Decider = Annotated[str, typer.Option(help="Who decides; goes on the receipt.")]
Reason = Annotated[str, typer.Option(help="Why; goes on the receipt.")]


def _stage(name: str, *arguments: str) -> None:
    from steptool.core.revision import MEANS_NOTHING, code_revision

    keep_freed_memory()
    code_revision([f"steptool.stages.{name}"], without=MEANS_NOTHING)  # read before it is imported: the code that runs
    with without_garbage_collection():
        module = importlib.import_module(f"steptool.stages.{name}")
    module.main(*arguments)


@app.command(rich_help_panel=START)
def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    tools: Annotated[str, typer.Option(help="Your functions: FILE.py, or FILE.py:Class for its methods.")] = "",
    openapi: Annotated[str, typer.Option(help="Or a service's OpenAPI 3 document: a file or its URL.")] = "",
    mcp: Annotated[str, typer.Option(help="Or an MCP server: 'python server.py', or its URL.")] = "",
    agent: Annotated[str, typer.Option(help="Or your agent: 'python my_agent.py', or my_agent:run.")] = "",
    tasks: Annotated[str, typer.Option(help="Your tasks, one a line, as tasks.jsonl of the example.")] = "",
    demonstrations: Annotated[str, typer.Option(help="Attempts that succeed, one a line.")] = "",
    traces: Annotated[
        str, typer.Option(help="Conversations of your agent: a file, a folder, a server's address.")
    ] = "",
    kind: Annotated[
        str, typer.Option("--from", help="What these are, as `traces import` has it; told by default.")
    ] = "",
    lenient: Lenient = False,
    drop: Drop = None,
    region: Region = "US",
    set_: Setting = None,
) -> None:
    """Write a new project: tools, tasks, params.yaml and flows, with Git and DVC set up.

    Without options it holds a small example.
    """
    from steptool.project.init import init as write_project
    from steptool.project.own import Own

    own = Own(
        tools=tools,
        openapi=openapi,
        mcp=mcp,
        agent=agent,
        tasks=tasks,
        demonstrations=demonstrations,
        traces=traces,
        kind=kind,
        lenient=lenient,
        drop=tuple(drop or ()),
        region=region,
        settings=settings_of(set_ or []),
    )
    write_project(folder, own)


@app.command(rich_help_panel=RUN)
def graph() -> None:
    """Write dvc.yaml: the stages that the rounds and arms of params.yaml ask for."""
    from steptool.config.lineage import write_graph

    typer.echo(write_graph())


@app.command(rich_help_panel=RUN)
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages to bring up to date; all by default.")] = None,
) -> None:
    """Bring everything up to date (`dvc repro`), as one tracked pipeline run, and print the results."""
    from steptool.orchestration.graph.repro import run_pipeline

    run_pipeline(targets or [])


@app.command(rich_help_panel=STAGES)
def revisions() -> None:
    """Note what the code of each stage means, and what lies outside of the repository."""
    _stage("revisions")


@app.command(rich_help_panel=STAGES)
def base() -> None:
    """Fetch the base model."""
    _stage("base")


@app.command(rich_help_panel=STAGES)
def prepare() -> None:
    """Write the tasks of the world and the expert demonstrations."""
    _stage("prepare")


@app.command(rich_help_panel=STAGES)
def sample(round: Round) -> None:
    """Sample trajectories of the arm that the round starts from."""
    _stage("sample", round)


@app.command(rich_help_panel=STAGES)
def annotate(round: Round) -> None:
    """Judge every step of the round's trajectories."""
    _stage("annotate", round)


@app.command(rich_help_panel=STAGES)
def validate(round: Round) -> None:
    """Check that the round's data may be trained on; exit 3 when not."""
    _stage("validate", round)


@app.command(rich_help_panel=STAGES)
def train(arm: Arm) -> None:
    """Train an arm by its method."""
    _stage("train", arm)


@app.command(rich_help_panel=STAGES)
def select() -> None:
    """Every arm on the dev tasks, to choose which to register (`register.best_on: dev`)."""
    _stage("select")


@app.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Every arm on the held-out tasks, under equal conditions."""
    _stage("evaluate")


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Write reports/index.html."""
    _stage("report")


@app.command(rich_help_panel=REGISTRY)
def register(
    arm: Annotated[str | None, typer.Argument(help="By default the one that `register` in params.yaml names.")] = None,
) -> None:
    """Put an arm's model into the MLflow registry as `candidate`."""
    from steptool.stages.register import main as register_arm

    register_arm(arm)


@app.command(rich_help_panel=REGISTRY)
def promote(
    by: Annotated[str, typer.Option(help="Who promotes; goes on the receipt.")] = os.environ.get("USER", "unknown"),
    reason: Annotated[str | None, typer.Option(help="Why; needed with `promote.approval: human`.")] = None,
) -> None:
    """Make `candidate` the `champion` if it is provably better; exit 1 when it is not."""
    from steptool.stages.promote import promote_candidate

    promote_candidate(by, reason)


@app.command(rich_help_panel=REGISTRY)
def approvals() -> None:
    """List the promotions that wait for a person, with the numbers of the gate."""
    from steptool.orchestration.approval.decisions import list_waiting

    list_waiting()


@app.command(rich_help_panel=REGISTRY)
def approve(run: WaitingRun, by: Decider, reason: Reason) -> None:
    """Let a promotion that waits go on; the evidence is looked at once more."""
    from steptool.orchestration.approval.decisions import decide

    decide(run, "approved", by, reason)


@app.command(rich_help_panel=REGISTRY)
def reject(run: WaitingRun, by: Decider, reason: Reason) -> None:
    """Turn down a promotion that waits."""
    from steptool.orchestration.approval.decisions import decide

    decide(run, "rejected", by, reason)


@app.command(rich_help_panel=SERVICES)
def deploy() -> None:
    """Register the deployments of infra/prefect.yaml with the Prefect server at PREFECT_API_URL."""
    from steptool.orchestration.services.deploy import deploy as register_deployments

    typer.echo("\n".join(register_deployments()))


@app.command(rich_help_panel=SERVICES)
def serve(
    port: Annotated[int, typer.Option(help="Of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's pages.")] = 5000,
) -> None:
    """Run a Prefect server, a worker and MLflow's pages on this machine until Ctrl-C."""
    from steptool.orchestration.services.serve import serve as run_services

    run_services(port, mlflow_port)


@app.command(rich_help_panel=SERVICES)
def data_arrived(path: Annotated[Path, typer.Argument(help="File or folder that is now in place.")]) -> None:
    """Announce data made outside of the pipeline, so that a Prefect automation may train on it."""
    from steptool.orchestration.graph.events import announce_arrival

    announce_arrival(path)


@app.command(rich_help_panel=REGISTRY)
def rollback(
    reason: Annotated[str, typer.Option(help="Why; goes on the receipt.")],
    by: Annotated[str, typer.Option(help="Who rolls back; goes on the receipt.")] = os.environ.get("USER", "unknown"),
) -> None:
    """Make the previous champion the champion again."""
    from steptool.stages.promote import roll_back

    roll_back(by, reason)


@app.command(rich_help_panel=START)
def params(
    profile: Annotated[str | None, typer.Option(help="Name in profiles/, or a file, to lay over params.yaml.")] = None,
) -> None:
    """Check params.yaml; with --profile, change it first (`git checkout params.yaml` undoes it)."""
    from steptool.config.arms import arms_of, check_methods
    from steptool.config.lineage import write_graph
    from steptool.config.places import PARAMS
    from steptool.config.settings import apply_profile, load_params
    from steptool.core.storage import write_bytes

    if profile:
        file = Path(profile) if profile.endswith(".yaml") else Path("profiles") / f"{profile}.yaml"
        write_bytes(PARAMS, apply_profile(PARAMS, file).encode())
    settings = load_params(PARAMS)
    arms = arms_of(settings)
    check_methods(settings)
    typer.echo(
        f"{PARAMS} is valid: world {settings.world.name}, base {settings.model.base}, "
        f"arms {', '.join(arm.name for arm in arms)}"
    )
    typer.echo(write_graph())


@app.command(rich_help_panel=START)
def check(
    task: Annotated[str | None, typer.Option(help="Id of the task to show, and whose attempt is replayed.")] = None,
    attempt: Annotated[
        Path | None,
        typer.Option(help="A file of attempts: lines as those of demonstrations, or data/trajectories/…"),
    ] = None,
) -> None:
    """Look before training: a prompt, an attempt replayed with its scores, what is missing; exit 2 where not ready."""
    from rich.console import Console

    from steptool.commands.check import check as look

    console = Console() if sys.stdout.isatty() else Console(width=140)
    raise typer.Exit(look(task, attempt, console))


@app.command(rich_help_panel=START)
def audit_rewards(
    tasks: Annotated[int, typer.Option(min=1, help="Most tasks that are attacked.")] = 120,
    attempts: Annotated[
        Path | None,
        typer.Option(help="Scored attempts whose solved ones are attacked; the world's experts by default."),
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="Such as use=paper,alpha=0.5; the form of params.yaml by default.")
    ] = None,
    lambda_step: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="As trained; by default as the first arm that compares.")
    ] = None,
    without_verdicts: Annotated[
        bool, typer.Option("--without-verdicts", help="Hide verdicts and relevant tools from the rewards.")
    ] = False,
    most: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the tasks on which an attack may earn more.")
    ] = 0.05,
    fitted_to: Annotated[
        Path | None, typer.Option(help="Scored attempts to fit the reward form to, where it is fitted to data.")
    ] = None,
    voted: Annotated[
        Path | None, typer.Option(help="Attempts with votes on their steps, to compare the annotator with.")
    ] = None,
) -> None:
    """Try to earn the step rewards without doing the tasks; exit 1 where that pays."""
    from rich.console import Console

    from steptool.commands.audit import audit

    console = Console() if sys.stdout.isatty() else Console(width=160)
    status = audit(
        tasks=tasks,
        attempts=attempts,
        reward=reward,
        lambda_step=lambda_step,
        verdicts=not without_verdicts,
        most=most,
        fitted_to=fitted_to,
        voted=voted,
        console=console,
    )
    raise typer.Exit(status)


@app.command(rich_help_panel=RUN)
def results() -> None:
    """Print the results table of the last evaluation."""
    from steptool.stages.table import results_table

    typer.echo(results_table())


@app.command(rich_help_panel=RUN)
def view(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders of attempts; by default all that the project has.")
    ] = None,
    port: Annotated[int, typer.Option(help="On loopback; 0 is a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, open no browser.")] = False,
) -> None:
    """Look at attempts in a local page: search, filter, and see where attempts at one task part."""
    try:
        from steptool.commands.view import view as serve_page
    except ImportError as error:
        raise InputError(f"the viewer needs a package: {error}", fix="pip install 'steptool[cpu]'") from error
    serve_page(paths or [], port, opens=not no_open, says=typer.echo)


@app.command(rich_help_panel=START)
def serve_tools(
    folder: Annotated[Path, typer.Argument(help="Recordings: a pack, or StableToolBench's folders.")],
    port: Annotated[int, typer.Option(help="On loopback; 0 is a free one.")] = 8080,
    kept: Annotated[Path, typer.Option(help="File of what the simulator replied.")] = Path("toolbench.db"),
    nearest: Annotated[float, typer.Option(min=0.5, max=1, help="Least likeness of arguments; 1: equal ones.")] = 0.9,
    simulator: Annotated[str, typer.Option(help="URL of an endpoint whose model replies to what is not there.")] = "",
    model: Annotated[str, typer.Option(help="What this endpoint calls the model.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of the endpoint, as key=value.")] = None,
) -> None:
    """Serve recorded replies of ToolBench's functions, as StableToolBench's server does (POST /virtual)."""
    from steptool.commands.serve_tools import serve_tools as serve_replies

    settings = {"url": simulator, "model": model, **settings_of(set_ or [])} if simulator else {}
    serve_replies(folder, port, kept=kept, nearest=nearest, simulator=settings, says=typer.echo)


for measure in (judge_agreement, win_rate):
    app.command(rich_help_panel=RUN)(measure)
for use in (model.chat, model.serve_model, model.export):
    app.command(rich_help_panel=USE)(use)
app.add_typer(bench, name="bench", rich_help_panel=RUN)
app.add_typer(tools, name="tools", rich_help_panel=START)
app.add_typer(tasks, name="tasks", rich_help_panel=START)
app.add_typer(traces, name="traces", rich_help_panel=START)
app.add_typer(local_judge, name="local-judge", rich_help_panel=START)


@app.command(rich_help_panel=START)
def doctor() -> None:
    """Say what is missing on this machine."""
    from steptool.doctor import report as examine

    raise typer.Exit(examine())


def main() -> None:
    """Entry point: one clear message for every error that was foreseen."""
    status = [1]  # of an error that was not, which Python prints before it calls `_leave`
    atexit.register(_leave, status)  # the first to be registered is the last to be called
    be_quiet()
    status[0] = _run()
    sys.exit(status[0])


def _run() -> int:
    """The exit status."""
    try:
        app()
    except SystemExit as ended:  # how Typer returns
        if ended.code in INTERRUPTED:
            print("steptool: interrupted; run the same command again to go on", file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except StepToolError as error:
        print(f"steptool: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _leave(status: list[int]) -> None:
    """End a process that loaded triton, as vLLM and some trainers do, and leave its memory to the system.

    Python would look through all that was loaded for up to 3 s, and triton's bindings print what they take for leaks.
    """
    if "triton" not in sys.modules:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status[0])


if __name__ == "__main__":
    main()
