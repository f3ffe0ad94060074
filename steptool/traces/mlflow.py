"""Traces of an MLflow server or store: the log of an agent that runs with `mlflow.openai.autolog()` or another autolog.

    steptool traces import http://mlflow:5000 --from mlflow --set experiment=support
    steptool traces import sqlite:///mlflow.db --from mlflow --set experiment=support --set "filter=status = 'OK'"

An attempt is a trace, made of its requests to chat models (`spans`). Its assessments are read: a feedback is its label,
an expectation what its answer should be. So that an attempt of several requests is one trace, let the agent run within
one span: `@mlflow.trace`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from steptool.core.errors import InputError, reason
from steptool.core.fields import Text
from steptool.traces.conversation import Conversation, Skipped
from steptool.traces.labels import RecordSettings
from steptool.traces.spans import attempt_of_spans, labels_of_trace
from steptool.tracking.client import database_file
from steptool.tracking.redaction import public, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Span, Trace

PAGE = 100
"""Traces that are asked for at once."""
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
SCHEMES = ("http://", "https://", "sqlite:", "sqlite+pysqlite:", "postgresql", "mysql", "mssql", "databricks")
_POOL = re.compile(r"(?: with exception|:)? HTTPS?ConnectionPool\(.*", re.DOTALL)
"""What the library for HTTP says of a server that refuses, after MLflow's own words."""
_NOT_GIVEN = "<openai."
"""How the text of an argument begins that an OpenAI client left out."""


class MlflowTraces:
    name: ClassVar[str] = "mlflow"

    class Config(RecordSettings):
        experiment: Text = ""
        """Name of the experiment; may be left out where the server has one alone."""
        filter: Text = ""
        """Which traces, as MLflow's search has it: `status = 'OK' AND timestamp_ms > 1767222000000`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def recognises(source: str, record: Any) -> bool:
        """Addresses of servers and databases."""
        return source.startswith(SCHEMES)

    def read(self, source: str) -> Iterator[Conversation | Skipped]:
        """Trace by trace, the oldest first. Raises InputError where MLflow is not installed, the server does not
        answer, or the experiment is not there."""
        database = database_file(source)
        if database is not None and not database.is_file():  # MLflow would make it
            raise InputError("no such database", where=public(source), fix="name one that is there")
        os.environ.setdefault(RETRIES, "2")
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            fix = "pip install 'steptool[flows]', or mlflow"
            found = "reading its traces needs the package mlflow"
            raise InputError(found, where=public(source), fix=fix) from error
        try:
            client = MlflowClient(tracking_uri=source)
            for trace in self._traces(client, source):
                yield from self._attempts(trace)
        except MlflowException as error:
            fix = "look at its address, and at MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where it asks"
            said = _POOL.sub("", redact(reason(error), source))[:200]
            raise InputError(f"MLflow does not answer: {said}", where=public(source), fix=fix) from error

    def _traces(self, client: MlflowClient, source: str) -> Iterator[Trace]:
        experiment, page = _experiment(client, self.config.experiment, source), None
        while True:
            found = client.search_traces(
                locations=[experiment],
                filter_string=self.config.filter or None,
                max_results=PAGE,
                order_by=["timestamp_ms ASC"],
                page_token=page,
            )
            yield from found
            if not (page := found.token):
                return

    def _attempts(self, trace: Trace) -> Iterator[Conversation | Skipped]:
        spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns or 0)
        labels, odd = labels_of_trace(_noted(trace), self.config), "a span is not what a request to a chat model is"
        return attempt_of_spans(f"trace {trace.info.trace_id}", spans, _request, labels, odd)


def _experiment(client: MlflowClient, name: str, source: str) -> str:
    """Its id. Raises InputError where it is not there, or none is named and there are several."""
    if name and (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    known = {each.name: str(each.experiment_id) for each in client.search_experiments()}
    alone = [each for each in known if each != "Default"] or list(known)
    if not name and len(alone) == 1:
        return known[alone[0]]
    names = ", ".join(alone[:10]) or "none"
    found_text = f"has no experiment {name!r}" if name else "holds several experiments"
    raise InputError(found_text, where=public(source), fix=f"name one with --set experiment=NAME: {names}")


def _request(span: Span) -> tuple[dict[str, Any], Any]:
    """Request and response of a span, empty where it is none to a chat model."""
    asked, said = span.inputs, span.outputs
    if span.span_type not in ("CHAT_MODEL", "LLM") or asked is None or said is None:
        return {}, {}
    beside = {name: span.get_attribute(name) for name in ("tools", "model", "instructions")}
    offered = beside["tools"] or span.get_attribute("mlflow.chat.tools")
    if isinstance(asked, list):  # items of Responses, as the Agents SDK notes them
        return {**beside, "input": asked, "tools": offered}, {"output": said}
    if not isinstance(asked, dict):
        return {}, {}
    given = {name: value for name, value in asked.items() if not str(value).startswith(_NOT_GIVEN)}
    model = given.get("model") or beside["model"] or span.get_attribute("mlflow.llm.model")
    return {**given, "tools": given.get("tools") or offered, "model": model}, said


def _noted(trace: Trace) -> dict[str, Any]:
    """Tags, and the assessments by name: the last of each, a person's before a judge's."""
    valid = [each for each in trace.info.assessments or [] if getattr(each, "valid", True) is not False]
    ordered = sorted(valid, key=lambda each: str(getattr(each.source, "source_type", "")) == "HUMAN")
    return {"tags": dict(trace.info.tags), **{each.name: each.value for each in ordered}}
