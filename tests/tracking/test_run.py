"""Tracking against a real MLflow, whole and broken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from steptool.core.errors import DataError, InputError, StorageError, TrackingError
from steptool.tracking import client as client_module
from steptool.tracking import delivery as delivery_module
from steptool.tracking.client import database_file, mlflow_errors, resolve_uri
from steptool.tracking.journal import Entry, Journal
from steptool.tracking.machine import host_name
from steptool.tracking.redaction import public
from steptool.tracking.run import PARENT_VARIABLE, Tracking, flatten


def only_stage_run(tracking: Tracking) -> Run:
    (run,) = runs(tracking, "stage")
    return run


def runs(tracking: Tracking, kind: str) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment_id], f"tags.`steptool.kind` = '{kind}'"))


@pytest.fixture
def cut_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[[], None]]:
    """Call it to lose MLflow, call what it returns to have it back."""
    whole = delivery_module.send

    def gone(*_: object) -> None:
        raise MlflowException("connection reset", error_code=10)  # TEMPORARILY_UNAVAILABLE

    def cut() -> Callable[[], None]:
        monkeypatch.setattr(delivery_module, "send", gone)
        return lambda: monkeypatch.setattr(delivery_module, "send", whole)

    return cut


def test_a_stage_leaves_a_whole_run(tracking: Tracking, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>fine</p>")
    with tracking.stage("train", argument="r1", params={"seed": 17, "train": {"gamma": 0.99, "steps": []}}) as run:
        for step in range(3):
            run.metrics(step, {"loss": 1.0 / (step + 1), "kl(ref)": 0.5})
        run.dataset(Path("data/validated/r1"), "validated", "0123456789abcdef")
        run.artifact(page, "validation")
        run.summary({"pass_rate": 0.5})

    logged = only_stage_run(tracking)
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "train-r1"
    assert logged.data.params == {"seed": "17", "train.gamma": "0.99", "train.steps": "[]"}
    losses = tracking.client.get_metric_history(logged.info.run_id, "loss")
    assert [(row.step, row.value) for row in losses] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert logged.data.metrics["kl_ref_"] == 0.5  # MLflow takes no parentheses
    assert logged.data.metrics["wall_time_s"] > 0
    dataset = logged.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("validated", "0123456789abcdef")
    assert json.loads(dataset.source) == {"uri": "data/validated/r1"}
    assert [file.path for file in tracking.client.list_artifacts(logged.info.run_id, "validation")] == [
        "validation/page.html"
    ]
    assert {"steptool.version", "steptool.host", "steptool.device", "package.torch"} <= logged.data.tags.keys()
    assert list(tracking.delivery.folder.iterdir()) == []


def test_stages_gather_under_one_parent_with_their_results(tracking: Tracking) -> None:
    parent = tracking.new_pipeline("nightly")
    for name, value in (("sft", 0.4), ("train", 0.6)):
        with tracking.stage(name, argument="r1") as run:
            run.summary({"pass_rate": value})
    children = tracking.client.search_runs([tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {child.info.run_name for child in children} == {"sft-r1", "train-r1"}
    assert tracking.client.get_run(parent).data.metrics == {"sft-r1.pass_rate": 0.4, "train-r1.pass_rate": 0.6}


def test_the_parent_of_a_stage(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracking.pipeline_run_id()
    assert tracking.pipeline_run_id() == first  # remembered in .steptool/pipeline_run
    assert Tracking(None, "test", root=tracking.root).pipeline_run_id() == first
    assert tracking.new_pipeline() != first
    tracking.client.delete_run(tracking.pipeline_run_id())
    reopened = tracking.pipeline_run_id()
    assert tracking.client.get_run(reopened).info.lifecycle_stage == "active"
    (tracking.root / ".steptool/pipeline_run").write_text("{cut off")
    assert tracking.pipeline_run_id() not in (first, reopened)
    monkeypatch.setenv(PARENT_VARIABLE, "named-by-the-flow")
    assert tracking.pipeline_run_id() == "named-by-the-flow"


@pytest.mark.parametrize(("error", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_broken_stage_ends_its_run_and_raises_on(tracking: Tracking, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), tracking.stage("sample") as run:  # noqa: PT012 - the stage's body is the case
        run.metrics(1, {"done": 3.0})
        raise error
    logged = only_stage_run(tracking)
    assert logged.info.status == status
    assert logged.data.metrics["done"] == 3.0
    assert logged.data.tags["steptool.error"].startswith(type(error).__name__)


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_pipeline_ends_as_what_happened_in_it(tracking: Tracking, error: BaseException | None, status: str) -> None:
    with pytest.raises(type(error)) if error else contextlib.nullcontext(), tracking.pipeline() as run:
        if error:
            raise error
    assert tracking.client.get_run(run.run_id).info.status == status


def test_a_pipeline_in_which_stages_failed_can_say_so(tracking: Tracking) -> None:
    with tracking.pipeline() as run:
        run.status = "FAILED"
    assert tracking.client.get_run(run.run_id).info.status == "FAILED"


def test_what_a_pipeline_lost_with_its_server_is_sent_by_the_next_stage(
    tracking: Tracking, cut_connection: Callable[[], Callable[[], None]], capsys: pytest.CaptureFixture
) -> None:
    with tracking.pipeline() as run:
        mend = cut_connection()
    mend()
    assert tracking.client.get_run(run.run_id).info.status == "RUNNING"
    assert "cannot log: connection reset" in capsys.readouterr().err
    with tracking.stage("sft"):
        assert tracking.client.get_run(run.run_id).info.status == "FINISHED"


def test_pipeline_has_its_settings_data_results_and_model(tracking: Tracking) -> None:
    settings = {"seed": 17, "train": {"gamma": 0.99}, "rounds": {f"r{n}": {"policy": "x" * 9000} for n in range(150)}}
    with tracking.pipeline(settings) as run:
        run.dataset(Path("data/tasks"), "data/tasks", "0123456789abcdef0123456789abcdef.dir", context="output")
        run.results({"pass_rate": 0.5})
        run.model("team tool", 3)
    logged = tracking.client.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert {"seed": "17", "train.gamma": "0.99"}.items() <= logged.data.params.items()
    assert len(logged.data.params) == 152
    assert logged.data.metrics == {"pass_rate": 0.5}
    assert [(given.dataset.name, given.tags[0].value) for given in logged.inputs.dataset_inputs] == [
        ("data/tasks", "output")
    ]
    assert logged.data.tags["steptool.model"] == "models:/team tool/3"
    assert "(#/models/team%20tool/versions/3)" in logged.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("kind", [None, "genai_development"])
def test_experiment_is_one_of_model_training_unless_somebody_chose_otherwise(
    kind: str | None, tracking: Tracking
) -> None:
    def found(name: str) -> str | None:
        return tracking.client.get_experiment_by_name(name).tags.get("mlflow.experimentKind")

    assert tracking.experiment_id
    assert found("test") == "custom_model_development"
    before = tracking.client.create_experiment("of an earlier version")
    if kind:
        tracking.client.set_experiment_tag(before, "mlflow.experimentKind", kind)
    assert Tracking(tracking.uri, "of an earlier version", root=tracking.root).experiment_id == before
    assert found("of an earlier version") == (kind or "custom_model_development")


KILLED = """
import os, signal
from pathlib import Path
from steptool.tracking.run import Tracking
with Tracking(None, "test").{} as run:
    run.params({{"seed": 1}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_the_middle(tracking: Tracking, of: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("MLFLOW_TRACKING_URI", None)  # which MLflow sets
    done = subprocess.run([sys.executable, "-c", KILLED.format(of)], cwd=tracking.root, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_pipeline_killed_outright_is_marked_by_the_next(tracking: Tracking) -> None:
    with tracking.pipeline() as alive:
        kill_in_the_middle(tracking, "pipeline()")
        with tracking.pipeline():
            pass
        (killed,) = [run for run in runs(tracking, "pipeline") if run.info.status == "KILLED"]
        assert killed.data.params == {"seed": "1"}
        assert tracking.client.get_run(alive.run_id).info.status == "RUNNING"


def test_a_stage_killed_outright_is_marked_when_it_runs_again_with_its_parent(tracking: Tracking) -> None:
    kill_in_the_middle(tracking, 'stage("train")')
    assert only_stage_run(tracking).info.status == "RUNNING"
    with tracking.stage("train") as run:
        (killed,) = [other for other in runs(tracking, "stage") if other.info.run_id != run.run_id]
        assert killed.info.status == "KILLED"
        assert killed.data.params == {"seed": "1"}
        assert [parent.info.status for parent in runs(tracking, "pipeline")] == ["KILLED"]
    assert [parent.info.status for parent in runs(tracking, "pipeline")] == ["FINISHED"]


def test_what_a_lost_server_missed_is_sent_by_the_next_stage(
    tracking: Tracking, cut_connection: Callable[[], Callable[[], None]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "page.html"
    with tracking.stage("train", params={"seed": 1}) as run:
        mend = cut_connection()
        run.metrics(0, {"loss": 2.0})
        page.write_text("before")
        run.artifact(page)
        page.write_text("replaced by a later run")
        run.metrics(1, {"loss": float("nan")})
        run.summary({"pass_rate": 0.5})
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert "connection reset" in warnings[0]
    assert str(tracking.delivery.folder) in warnings[0]
    assert tracking.client.get_run(run.run_id).info.status == "RUNNING"

    mend()
    with tracking.stage("evaluate"):
        pass
    logged = tracking.client.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["pass_rate"] == 0.5
    assert [row.step for row in tracking.client.get_metric_history(run.run_id, "loss")] == [0, 1]
    local = tracking.client.download_artifacts(run.run_id, "page.html")
    assert Path(local).read_text() == "before"
    assert list(tracking.delivery.folder.iterdir()) == []


def test_sending_twice_changes_nothing(tracking: Tracking, cut_connection: Callable[[], Callable[[], None]]) -> None:
    with tracking.stage("train") as run:
        mend = cut_connection()
        run.metrics(7, {"loss": 2.0})
        run.params({"seed": 1})
        run.dataset(Path("data"), "data", "abc")
    mend()
    kept = {path: path.read_bytes() for path in tracking.delivery.folder.iterdir()}
    tracking.delivery.deliver()
    assert not run.journal.path.exists()
    for path, content in kept.items():
        path.write_bytes(content)  # as if killed after sending, before forgetting
    tracking.delivery.deliver()
    assert len(tracking.client.get_metric_history(run.run_id, "loss")) == 1
    assert len(tracking.client.get_run(run.run_id).inputs.dataset_inputs) == 1
    assert only_stage_run(tracking).info.status == "FINISHED"


def test_a_journal_cut_off_by_a_kill_loses_only_its_last_line(
    tracking: Tracking, cut_connection: Callable[[], Callable[[], None]]
) -> None:
    with tracking.stage("train") as run:
        mend = cut_connection()
        run.params({"seed": 1})
    mend()
    with run.journal.path.open("ab") as file:
        file.write('{"tags": {"note": "ü'.encode()[:-1])  # half a character
    tracking.delivery.deliver()
    assert tracking.client.get_run(run.run_id).data.params == {"seed": "1"}


def test_metrics_of_many_steps_are_one_request(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """wrote   loss 0 … loss 2999, pass_rate | the parent's pass_rate | wall_time_s | end
    sent    one                            | one                    | one         | one
    """
    with tracking.stage("train") as run:
        for step in range(3000):
            run.metrics(step, {"loss": 1.0 / (step + 1)})
        run.summary({"pass_rate": 0.5})
        requests = []
        whole = delivery_module.send
        monkeypatch.setattr(delivery_module, "send", lambda *given: (requests.append(given), whole(*given)))
    assert [len(entry.metrics) for _, _, entry in requests if entry.metrics] == [3001, 1, 1]
    history = tracking.client.get_metric_history(run.run_id, "loss")
    assert sorted((row.step, row.value) for row in history) == [(step, 1.0 / (step + 1)) for step in range(3000)]


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"5", b"{}", b'{"run_id": []}', b"[" * 200_000, b"9" * 5000, None])
def test_note_of_the_parent_of_any_wrong_shape_is_replaced(tracking: Tracking, content: bytes | None) -> None:
    note = tracking.root / ".steptool/pipeline_run"
    note.parent.mkdir()
    if content is None:
        note.symlink_to("gone")
    else:
        note.write_bytes(content)
    assert tracking.pipeline_run_id() == tracking.pipeline_run_id()


def test_run_of_another_tool_in_the_experiment_is_left_alone(tracking: Tracking) -> None:
    tags = {"steptool.kind": "pipeline", "steptool.host": host_name()}
    create = tracking.client.create_run
    other = [create(tracking.experiment_id, tags=tags | more) for more in ({}, {"steptool.pid": "many"})]
    tracking.new_pipeline()
    assert {tracking.client.get_run(run.info.run_id).info.status for run in other} == {"RUNNING"}


def test_what_is_written_while_another_process_sends_is_not_lost(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stage A writes on while B, which had begun to read A's journal, sends it."""
    other = Tracking(None, "test", root=tracking.root)
    with tracking.stage("train") as run:
        run.params({"before": 1})
        whole = delivery_module.send

        def send(client: object, run_id: str, entry: Entry) -> None:
            if "before" in entry.params:
                run.params({"meanwhile": 1})
            whole(client, run_id, entry)

        with monkeypatch.context() as patch:
            patch.setattr(delivery_module, "send", send)
            other.delivery.deliver()
        assert tracking.client.get_run(run.run_id).data.params == {"before": "1"}
    assert tracking.client.get_run(run.run_id).data.params == {"before": "1", "meanwhile": "1"}
    assert tracking.client.get_run(run.run_id).info.status == "FINISHED"


def test_half_a_line_that_a_full_disk_took_spoils_nothing(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from steptool.core.errors import StorageError
from steptool.tracking.journal import Entry, Journal
journal = Journal(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))  # the file may grow to 20 bytes
for size in (20, 300):
    try:
        journal.append(Entry(params={"a": "x" * 100}))
    except StorageError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 100, resource.RLIM_INFINITY))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r.jsonl")],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert "the log cannot be kept: File too large" in done.stdout
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").open()] == [{"params": {"a": "x" * 100}}]


def test_error_of_a_stage_is_not_hidden_by_a_log_that_cannot_be_kept(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the log cannot be kept: No space left on device")

    with pytest.raises(ValueError, match="the cause"), tracking.stage("train"):  # noqa: PT012 - the body is the case
        monkeypatch.setattr(Journal, "append", full)
        raise ValueError("the cause")
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("revision", ["1bd49d398cd2", "of_a_newer_one"])
def test_database_of_another_version_of_mlflow_is_named(revision: str, tracking: Tracking) -> None:
    with contextlib.closing(sqlite3.connect(tracking.root / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    with pytest.raises(TrackingError) as caught:
        Tracking(None, "test", root=tracking.root).new_pipeline()
    assert "`mlflow db upgrade sqlite:///" in (caught.value.fix or "")


def test_what_mlflow_refuses_is_set_aside_and_the_rest_goes_on(
    tracking: Tracking, capsys: pytest.CaptureFixture
) -> None:
    with tracking.stage("train", params={"seed": 1}) as run:
        run.params({"seed": 2})  # MLflow: a parameter cannot change
        run.params({"gamma": 1})
    assert tracking.client.get_run(run.run_id).data.params == {"seed": "1", "gamma": "1"}
    assert "refused" in capsys.readouterr().err
    assert '"seed":"2"' in run.journal.refused_path.read_text()
    assert only_stage_run(tracking).info.status == "FINISHED"


def test_journals_for_another_server_stay(tracking: Tracking) -> None:
    with tracking.stage("train") as run:
        header = run.journal.header()
        assert header
    journal = Journal.begin(tracking.delivery.folder, header.model_copy(update={"uri": "http://elsewhere"}))
    with journal.path.open("a") as file:
        file.write("not even json\n")
    tracking.delivery.deliver()
    assert journal.path.exists()
    assert len(runs(tracking, "stage")) == 1


def test_deleted_experiment_does_not_hold_up_the_journals_of_others(
    tracking: Tracking, cut_connection: Callable[[], Callable[[], None]]
) -> None:
    """Its own stays, until somebody restores it."""
    gone = Tracking(None, "gone", root=tracking.root)
    mend = cut_connection()
    with gone.stage("sft") as deleted, tracking.stage("train") as run:
        gone.client.delete_experiment(gone.experiment_id)
    mend()
    fresh = Tracking(None, "test", root=tracking.root)
    with pytest.raises(TrackingError, match="'gone' was deleted"):
        fresh.delivery.deliver()
    assert tracking.client.get_run(run.run_id).info.status == "FINISHED"
    fresh.client.restore_experiment(gone.experiment_id)
    fresh.delivery.deliver()
    assert tracking.client.get_run(deleted.run_id).info.status == "FINISHED"


def test_a_password_in_the_uri_is_neither_said_nor_kept(
    tracking: Tracking,
    cut_connection: Callable[[], Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    uri = "http://someone:secret@127.0.0.1:1"
    with pytest.raises(TrackingError) as caught, mlflow_errors(uri, "log"):
        raise MlflowException(f"API request to {uri}/api failed")
    assert "secret" not in str(caught.value)
    served = Tracking(uri, "test", root=tracking.root)
    monkeypatch.setattr(served.delivery, "connection", tracking.delivery.connection)
    with served.stage("train") as run:
        cut_connection()
        run.params({"seed": 1})
    kept = [file.read_text() for file in (tracking.root / ".steptool").rglob("*") if file.is_file()]
    assert "secret" not in "".join(kept) + capsys.readouterr().err


def test_an_artifact_that_is_not_there_is_an_error_of_the_caller(tracking: Tracking, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"), tracking.stage("train") as run:
        run.artifact(tmp_path / "missing")


def test_a_server_that_refuses_connections_stops_the_stage_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{port}")
    worked = False
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught, Tracking(None, "test", root=tmp_path).stage("train"):
        worked = True
    assert time.monotonic() - started < 5
    assert not worked
    text = str(caught.value)
    assert f"127.0.0.1:{port}" in text
    assert "mlflow server" in text
    assert "unset MLFLOW_TRACKING_URI" in text
    assert "secret" not in text
    assert not list((tmp_path / ".steptool/unlogged").iterdir())


def test_a_server_that_never_answers_is_given_up_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sum(client_module.PROBE_TIMEOUT_S) < 15
    monkeypatch.setattr(client_module, "PROBE_TIMEOUT_S", (1, 1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(TrackingError, match="cannot reach MLflow"):
            Tracking(f"http://127.0.0.1:{listener.getsockname()[1]}", "test", root=tmp_path).pipeline_run_id()
    assert time.monotonic() - started < 5


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but long enough to be read as one" * 50)
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        Tracking(None, "test", root=tmp_path).new_pipeline()


FOLDERS = [
    "a%25b",
    "100%",
    "%",
    "%ff",
    "a b",
    "a#b",
    "a?b",
    "a%3Fb",
    "ünï✓",
    "it's",
    'q"q',
    "a&b=c",
    "a@b",
    "a\\b",
    "[x]",
    "a:b",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_checkout_may_have_any_name(name: str, tmp_path: Path, empty_database: Path) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_database, root)
    page = root / "page.html"
    page.write_text("fine")
    with Tracking(None, "test", root=root).stage("report", params={"seed": 1}) as run:
        run.artifact(page, "pages")
    again = Tracking(None, "test", root=root)  # MLflow has set MLFLOW_TRACKING_URI meanwhile
    assert again.client.get_run(run.run_id).data.params == {"seed": "1"}
    assert Path(again.client.download_artifacts(run.run_id, "pages/page.html")).read_text() == "fine"
    assert {path.name for path in root.iterdir()} >= {"mlflow.db", "mlruns"}
    assert [path.name for path in tmp_path.iterdir()] == [name]  # and no folder of a name that was misread


def test_checkout_whose_name_mlflow_cannot_write_down_is_refused(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/x\xff"))
    with pytest.raises(InputError, match="not UTF-8") as caught:
        Tracking(None, "test", root=root)
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sqlite:///{}/folder", "unable to open database file"),
        ("sqlite:///{}/file/mlflow.db", "exist"),
        ("sqlite:///{}/file", "not a database"),
        ("sqlite:///{}/torn.db", "malformed|not a database"),
        pytest.param("sqlite:///{}/locked.db", "locked", marks=pytest.mark.slow),  # SQLite waits for 5 s
        ("postgresql+psycopg2://127.0.0.1:1/mlflow", "refused"),
        ("postgresql+psycopg2://nowhere.invalid/mlflow", "nowhere.invalid"),
        ("postgresql+nodriver://127.0.0.1/mlflow", "nodriver"),
        ("unknown://127.0.0.1/mlflow", "unknown"),
        ("file:///tmp/runs", "migrate to a database"),
        ("me@127.0.0.1:5000", "migrate to a database"),
    ],
)
def test_database_that_cannot_be_used_is_noticed_within_seconds(
    uri: str, found: str, tmp_path: Path, empty_database: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("something else")
    (tmp_path / "torn.db").write_bytes(empty_database.read_bytes()[:5000])
    shutil.copy(empty_database, tmp_path / "locked.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(TrackingError, match=found) as caught:
            Tracking(uri.format(tmp_path), "test", root=tmp_path).new_pipeline()
    assert time.monotonic() - started < 12
    assert "mlflow.db" in (caught.value.fix or "") or "move it away" in (caught.value.fix or "")


def test_a_deleted_experiment_is_named(tracking: Tracking) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(TrackingError, match="'test' was deleted"):
        Tracking(None, "test", root=tracking.root).new_pipeline()


def test_where_runs_are_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///sub/own.db", tmp_path) == f"sqlite:///{tmp_path}/sub/own.db"
    assert resolve_uri("sqlite:////data/own.db", tmp_path) == "sqlite:////data/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert resolve_uri(None, tmp_path) == "http://mlflow:5000"
    assert database_file("postgresql://db/mlflow") is None
    assert public("https://me:secret@host:1/path") == "https://host:1/path"


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": "1", "a.c.d": "None", "e": "{}"}


@pytest.mark.slow
def test_two_processes_may_create_the_database_at_once(tmp_path: Path) -> None:
    code = "import sys; from steptool.tracking.run import Tracking; Tracking(None, 'x').pipeline_run_id()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    tracking = Tracking(None, "x", root=tmp_path)
    assert len(tracking.client.search_runs([tracking.experiment_id])) == 1


@pytest.mark.slow
def test_stages_of_several_processes_in_one_checkout_are_each_sent_once(tracking: Tracking) -> None:
    code = """
import sys, time
from steptool.tracking.run import Tracking
with Tracking(None, "test").stage("sample", argument=sys.argv[1]) as run:
    for step in range(20):
        run.metrics(step, {"done": step})
        time.sleep(0.1)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("MLFLOW_TRACKING_URI", None)
    names = [f"r{number}" for number in range(4)]
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, name], cwd=tracking.root, env=environment) for name in names]
    assert [process.wait(timeout=200) for process in processes] == [0] * 4
    tracking.delivery.deliver()
    logged = runs(tracking, "stage")
    assert sorted(str(run.info.run_name) for run in logged) == [f"sample@{name}" for name in names]
    assert {run.info.status for run in logged} == {"FINISHED"}
    assert {len(tracking.client.get_metric_history(run.info.run_id, "done")) for run in logged} == {20}
    assert [run.info.status for run in runs(tracking, "pipeline")] == ["FINISHED"]
    assert list(tracking.delivery.folder.iterdir()) == []


@pytest.mark.slow
def test_a_real_server_killed_in_the_middle_and_started_again_loses_nothing(
    serve: Callable[[], tuple[str, Callable[[], None]]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "page.html"
    page.write_text("fine")
    uri, kill = serve()
    tracking = Tracking(uri, "served", root=tmp_path)
    with tracking.stage("train", params={"seed": 1}) as run:
        run.artifact(page)
        kill()
        started = time.monotonic()
        run.summary({"pass_rate": 0.5})
        run.artifact(page, "again")
    assert time.monotonic() - started < 30
    assert "the work goes on" in capsys.readouterr().err
    with pytest.raises(TrackingError, match="cannot reach MLflow"):
        Tracking(uri, "served", root=tmp_path).delivery.deliver()

    serve()
    tracking.delivery.deliver()
    logged = tracking.client.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["pass_rate"] == 0.5
    assert {file.path for file in tracking.client.list_artifacts(run.run_id)} == {"page.html", "again"}


@pytest.mark.slow
def test_password_of_a_real_server_is_on_no_terminal_and_in_no_file(
    serve: Callable[[], tuple[str, Callable[[], None]]], tmp_path: Path
) -> None:
    """MLflow prints "View run ... at:" with the whole address when a run ends; here its server asks for no password."""
    uri, _ = serve()
    code = """
from pathlib import Path
from steptool.tracking.run import Tracking
tracking = Tracking(None, "served")
with tracking.pipeline({"seed": 1}) as run:
    with tracking.stage("train") as stage:
        stage.dataset(Path("data"), "data", "abc")
        stage.summary({"pass_rate": 0.5})
"""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MLFLOW_TRACKING_URI": uri.replace("://", "://someone:Zq1x%2FZq2y@"),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "false",  # the user's own choice, which a password overrules
    }
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    kept = [path.read_bytes() for folder in (checkout, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert len(kept) > 2
    for shown in [done.stdout.encode(), done.stderr.encode(), *kept]:
        assert b"Zq1x" not in shown
        assert b"Zq2y" not in shown
