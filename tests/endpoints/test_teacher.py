"""A better model behind an endpoint as a teacher: what it shows is a demonstration that any format can write.

expert behind the endpoint ─ prepare ─ data/tasks/demonstrations.jsonl ─ encode ─ what SFT trains on
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from steptool.commands.check import check
from steptool.config.graph import dvc_document, stages_of
from steptool.config.lineage import stage_revision
from steptool.config.places import DEMONSTRATIONS, PARAMS
from steptool.config.settings import load_params
from steptool.core.errors import DataError, StepToolError
from steptool.core.storage import read_jsonl
from steptool.core.types import Observation, StopReason, Task, Trajectory
from steptool.formats.episode import encode
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model
from steptool.stages import prepare
from steptool.stages.rounds import read_tasks
from steptool.testing import call, finish, message, step, trajectory
from steptool.traces.endpoint import Teacher, demonstration_of
from steptool.tracking.run import PARENT_VARIABLE
from steptool.worlds.mini import MiniWorld
from tests.endpoints.expert import expert
from tests.endpoints.fake import Answer, Fake, Fault, fake, says

WORLD = "{train_tasks: 24, dev_tasks: 12, test_tasks: 12}"
SEED = 17


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)


@pytest.fixture
def world() -> MiniWorld:
    return MiniWorld(MiniWorld.Config(train_tasks=24, dev_tasks=12, test_tasks=12), seed=SEED)


@pytest.fixture
def endpoint(world: MiniWorld) -> Iterator[Fake]:
    """Does what the experts of the world show, flawed ones included."""
    tasks = world.tasks("train")
    shown = {demo.task_id: demo for demo in world.demonstrations(len(tasks), 0.25, SEED)}
    act = expert(tasks, shown.values())
    with fake(lambda request: act(request)) as served:
        yield served


def write(endpoint: Fake, more: str = "") -> None:
    PARAMS.write_text(
        f"world: {WORLD}\nmodel: {{base: tiny-random}}\n"
        "arms: {sft: {method: sft, from: base, data: [demonstrations]}}\n"
        f"demonstrations: {{use: endpoint, url: '{endpoint.url}', model: gpt-x, max_retries: 0, tasks: 12{more}}}\n"
    )


def test_what_the_check_accepts_is_kept(endpoint: Fake, world: MiniWorld, capsys: pytest.CaptureFixture[str]) -> None:
    write(endpoint, ", parallel: false")
    prepare.main()
    kept = read_jsonl(DEMONSTRATIONS, Trajectory)
    assert 0 < len(kept) < 12
    assert all(each.outcome.solved == 1.0 and each.conditions is None for each in kept)
    assert {each.task_id for each in kept} <= {task.id for task in world.tasks("train")[:12]}
    said = capsys.readouterr().out
    assert f"; {len(kept)} of 12 attempts are kept; " in said
    assert " not solved" in said
    assert "temperature" not in endpoint.requests[0]
    chat, tasks = JsonCall(JsonCall.Config(), tiny_model.tokenizer()), {task.id: task for task in read_tasks("train")}
    for each in kept:
        ids, mask = encode(chat, tasks[each.task_id], each.steps)
        assert any(mask) and len(ids) == len(mask), "SFT can learn from it"
    asked = len(endpoint.requests)
    prepare.main()
    assert len(endpoint.requests) == asked, "prepared again, it costs nothing"


def test_nothing_to_keep_is_an_error_that_says_why(endpoint: Fake) -> None:
    endpoint.act = lambda _: says("x")
    write(endpoint)
    with pytest.raises(DataError, match="none of the 12 attempts can be kept: 12 not solved"):
        prepare.main()
    endpoint.act = lambda _: Fault(503)
    write(endpoint, ", system: Otherwise.")
    with pytest.raises(DataError, match="none of the 12 attempts can be kept: EndpointFailed: 503"):
        prepare.main()


def test_a_ceiling_stops_it_and_it_goes_on_from_there(endpoint: Fake) -> None:
    right = endpoint.act
    endpoint.act = lambda request: _costly(right(request))
    write(endpoint, ", ceiling_tokens: 20000, concurrency: 1, max_completion_tokens: 100")
    with pytest.raises(StepToolError, match="raise `ceiling_tokens`"):
        prepare.main()
    before = len(endpoint.requests)
    assert before > 0
    write(endpoint, ", max_completion_tokens: 100")
    prepare.main()
    seen = [str(request["messages"]) for request in endpoint.requests]
    assert len(set(seen)) == len(seen) > before, "no conversation is paid for twice"


def _costly(answer: Answer) -> Answer:
    assert isinstance(answer, dict)
    return answer | {"usage": {"prompt_tokens": 4000, "completion_tokens": 50}}


def test_what_it_may_cost_and_how_fast_makes_no_demonstrations_stale(endpoint: Fake) -> None:
    def found(more: str) -> object:
        write(endpoint, more)
        params = load_params(PARAMS)
        return stage_revision(stages_of(params)["prepare"], params)

    before = found("")
    assert found(", ceiling_tokens: 9, concurrency: 2, price_in: 3, store: other.db") == before
    assert found(", attempts: 2") != before
    keys = dvc_document(load_params(PARAMS))["stages"]["prepare"]["params"]
    assert "demonstrations.attempts" in keys and "demonstrations.store" not in keys


def test_steptool_check_asks_no_model_that_costs_money(endpoint: Fake) -> None:
    write(endpoint)
    out = StringIO()
    check(None, None, Console(file=out, width=200))
    assert not endpoint.requests
    assert "`steptool prepare` asks gpt-x" in out.getvalue()


@pytest.mark.parametrize(("keep", "solved", "error", "is_kept"), [
    ("checked", 1.0, None, True),
    ("checked", 0.5, None, False),
    ("checked", None, None, True),
    ("checked", None, "unknown_id", False),
    ("finished", 0.0, "unknown_id", True),
])  # fmt: skip
def test_what_is_kept(
    world: MiniWorld, monkeypatch: pytest.MonkeyPatch, keep: str, solved: float | None, error: str | None, is_kept: bool
) -> None:
    """Without a check: what answers after calls that all succeeded."""
    task = world.tasks("train")[0]
    if solved is None:
        reference = world.reference(task).model_copy(update={"answer_check": None})
        monkeypatch.setattr(world, "reference", lambda _: reference)
    made = trajectory(
        step(call(task.tools[0].name), "{}", error=error), step(message("x")), of=task, solved=solved, answer="x",
        stop=StopReason.finished,
    )  # fmt: skip
    teacher = Teacher(Teacher.Config.model_validate({"url": "http://a/v1", "model": "x", "keep": keep}))
    assert (teacher._refused(made, task, world) is None) == is_kept


def test_a_demonstration_ends_with_finish_and_calls_at_once_can_stand_apart() -> None:
    both = step((call("find", a=1), call("find", a=2)), ["one", "two"], thought="")
    made = trajectory(both, step(message("shipped", thought="Both say so.")))
    together, apart = (demonstration_of(made, is_parallel=each) for each in (True, False))
    assert [len(each.action.calls) for each in together.steps] == [2, 1]
    assert apart.steps[-1] == finish("shipped", thought="Both say so.")
    assert [each.observations for each in apart.steps[:-1]] == [
        (Observation(text="one"),), (Observation(text="two"),),
    ]  # fmt: skip


def test_a_call_of_a_tool_that_is_not_offered_shows_nothing(world: MiniWorld) -> None:
    task: Task = world.tasks("train")[0]
    made = trajectory(step(call("no.such"), "{}"), step(message("x")), of=task, solved=1.0, answer="x",
                      stop=StopReason.finished)  # fmt: skip
    teacher = Teacher(Teacher.Config.model_validate({"url": "http://a/v1", "model": "x"}))
    assert teacher._refused(made, task, world) == "with a call of a tool that is not offered"
