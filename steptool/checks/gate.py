"""The gate: runs the suites over scored trajectories and says, per expectation, what held and what did not."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context import EphemeralDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from steptool.checks.suites import group_suite, step_suite, trajectory_suite
from steptool.checks.table import group_table, step_table, trajectory_table
from steptool.config.settings import ValidateParams
from steptool.core.errors import StepToolError, ValidationFailed
from steptool.core.types import Frozen, ScoredTrajectory
from steptool.rewards.base import HasClosedForm, RewardForm, forms_of, needs_verdict

SHOWN_ROWS = 20
SHOWN_IN_ERROR = 5
ENOUGH = 0.5
"""Share of the attempts that need a verdict for the solve rate to be asked about, where the reward form needs none."""


class FailingRow(Frozen):
    """One row that breaks an expectation. `step` is None for rows that are whole trajectories or groups."""

    source: str
    """File and line of the record, or the group."""
    trajectory_id: str = ""
    task_id: str = ""
    step: int | None = None
    value: str

    def __str__(self) -> str:
        names = [f"trajectory {self.trajectory_id}"] if self.trajectory_id else []
        names += [f"step {self.step}"] if self.step is not None else []
        return f"{self.source}: {', '.join([*names, self.value])}"


class Finding(Frozen):
    """The outcome of one expectation."""

    says: str
    fix: str
    expectation: str
    """Great Expectations' name of it."""
    column: str
    passed: bool
    observed: str
    """The value that was judged, or the number of judged rows. The problem, if it could not be judged."""
    failing_count: int = 0
    failing: tuple[FailingRow, ...] = ()
    """The first of the failing rows."""


class SuiteReport(Frozen):
    name: str
    title: str
    rows: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)


class ValidationReport(Frozen):
    """Everything that the page and the error show. It holds no time and no machine: the same data give the same
    report."""

    source: str
    trajectories: int
    tasks: int
    steps: int
    verdicts: int
    """Trajectories that have one."""
    solve_rate: float | None
    """Of these; None where there is none."""
    mean_return: float
    by_calls: int
    """Trajectories that were rewarded by their calls, without a verdict; the others were by their outcome."""
    suites: tuple[SuiteReport, ...]

    @property
    def passed(self) -> bool:
        return all(suite.passed for suite in self.suites)

    @property
    def rewarded(self) -> str:
        """How many trajectories were rewarded by what."""
        return f"{self.trajectories - self.by_calls} rewarded by their outcome, {self.by_calls} by their calls alone"

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for suite in self.suites for finding in suite.findings)

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.passed)

    def raise_if_failed(self, page: str = "") -> None:
        """Raise ValidationFailed naming every failed expectation, the first rows that break it, and what to do.

        `page` is where the whole report lies.
        """
        if self.passed:
            return
        lines = [f"{len(self.failed)} of {len(self.findings)} expectations failed"]
        for finding in self.failed:
            lines.append(f"  ✗ {finding.says} ({finding.observed})")
            lines += [f"      {row}" for row in finding.failing[:SHOWN_IN_ERROR]]
            more = finding.failing_count - min(len(finding.failing), SHOWN_IN_ERROR)
            lines += [f"      … and {more} more"] if more > 0 else []
            lines.append(f"    → {finding.fix}")
        again = "do what the arrows say, then run `dvc repro`"
        raise ValidationFailed(
            "\n".join(lines), where=self.source, fix=f"{again}; the whole report is in {page}" if page else again
        )


def validate(
    scored: Sequence[ScoredTrajectory],
    form: RewardForm,
    params: ValidateParams,
    previous_solve_rate: float | None,
    *,
    groups: Mapping[str, str],
    source: str = "scored",
) -> ValidationReport:
    """Judge `scored` and the rewards that `form` gives for it.

    `previous_solve_rate` is that of the round before, None for the first. `groups` maps the id of every task of the
    round to its group. `source` is the file that `scored` was read from; failing rows name it with the line.
    """
    forms = forms_of(form, scored)
    rewards = [own.rewards(record) for own, record in zip(forms, scored, strict=True)]
    expected = _expected_returns(forms, scored)
    steps = step_table(scored, rewards, source)
    trajectories = trajectory_table(scored, rewards, source, gamma=form.gamma, expected_returns=expected)
    verdicts = int(trajectories["solved"].notna().sum())
    was_sampled = any(record.trajectory.conditions is not None for record in scored) or not scored
    of_trajectories = trajectory_suite(
        params,
        previous_solve_rate,
        was_sampled=was_sampled,
        has_closed_form=expected is not None,
        has_verdicts=needs_verdict(form) or (verdicts > 0 and verdicts >= ENOUGH * len(scored)),
    )
    of_steps = step_suite(params, needs_verdict=needs_verdict(form), was_sampled=was_sampled)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return ValidationReport(
        source=source,
        trajectories=len(trajectories),
        tasks=int(trajectories["task_id"].nunique()),
        steps=len(steps),
        verdicts=verdicts,
        solve_rate=_mean(trajectories["solved"]) if verdicts else None,
        mean_return=_mean(trajectories["discounted_return"]),
        by_calls=sum(not needs_verdict(own) for own in forms),
        suites=(
            _run(context, "trajectories", "Trajectories", trajectories, of_trajectories),
            _run(context, "steps", "Steps", steps, of_steps),
            _run(context, "groups", "Groups", group_table(trajectories, groups), group_suite(params)),
        ),
    )


def _expected_returns(forms: Sequence[RewardForm], scored: Sequence[ScoredTrajectory]) -> list[float] | None:
    """In closed form, of each; None unless all forms have one."""
    expected = [
        own.expected_return(record) for own, record in zip(forms, scored, strict=True) if isinstance(own, HasClosedForm)
    ]
    return expected if len(expected) == len(forms) else None


def _mean(column: pd.Series) -> float:
    mean = float(column.mean()) if len(column) else 0.0
    return mean if math.isfinite(mean) else 0.0


def _run(
    context: EphemeralDataContext, name: str, title: str, table: pd.DataFrame, expectations: list[Expectation]
) -> SuiteReport:
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]},
        )
    )
    outcome = next(iter(checkpoint.run(batch_parameters={"dataframe": table}).run_results.values()))
    if len(outcome.results) != len(expectations):
        # Great Expectations drops what it cannot load and only logs that. A lost check would count as passed.
        raise StepToolError(
            f"{len(expectations)} expectations went in, {len(outcome.results)} were judged",
            where=f"suite {name}",
            fix="`steptool doctor` says which packages have other versions than they should",
        )
    findings = {result.expectation_config.meta["says"]: _finding(result, table) for result in outcome.results}
    return SuiteReport(
        name=name,
        title=title,
        rows=len(table),
        findings=tuple(findings[expectation.meta["says"]] for expectation in expectations),
    )


def _finding(result: Any, table: pd.DataFrame) -> Finding:
    described = result.describe_dict()
    details, kwargs, meta = result.result, described["kwargs"], result.expectation_config.meta
    columns = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    columns += kwargs.get("column_list", [])
    failing = [_row(table, int(place["row"]), columns) for place in (details.get("unexpected_index_list") or [])]
    count = int(details.get("unexpected_count") or 0)
    return Finding(
        says=meta["says"],
        fix=meta["fix"],
        expectation=described["expectation_type"],
        column=", ".join(columns),
        passed=bool(described["success"]),
        observed=_observed(result, count),
        failing_count=count,
        failing=tuple(failing[:SHOWN_ROWS]),
    )


def _observed(result: Any, count: int) -> str:
    details = result.result
    if "observed_value" in details:
        return _text(details["observed_value"])
    if "element_count" in details:
        total = details["element_count"]
        return f"{count} of {total} rows" if count else f"all {total} rows" if total else "no such rows"
    problems = [info["exception_message"] for info in _exceptions(result.exception_info or {})]
    return f"could not be judged: {'; '.join(problems)}"


def _exceptions(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Great Expectations gives one record, or one a metric."""
    records = [info] if "exception_message" in info else list(info.values())
    return [record for record in records if record.get("exception_message")]


def _row(table: pd.DataFrame, number: int, columns: list[str]) -> FailingRow:
    row = table.iloc[number]
    value = ", ".join(f"{column} {_text(row[column])}" for column in columns if column != "trajectory_id")
    return FailingRow(
        source=str(row.get("source", row.get("group"))),
        trajectory_id=str(row.get("trajectory_id", "")),
        task_id=str(row.get("task_id", "")),
        step=int(row["step"]) if "step" in row else None,
        value=value or f"task {row['task_id']}, attempt {row['attempt']}",  # of a trajectory that is there twice
    )


def _text(value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{float(value):.4g}"
    return "no value" if value is None else str(value)
