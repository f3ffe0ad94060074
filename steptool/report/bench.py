"""Several worlds on one page, as Markdown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from steptool.evaluation.metrics import ALL
from steptool.report.page import ReportData
from steptool.report.wording import points, text_table


@dataclass(frozen=True)
class Benchmarks:
    measured: dict[str, ReportData]
    """By world."""
    left_out: dict[str, str]
    """World → why it was not measured."""


def page(found: Benchmarks) -> str:
    """One table of all policies on all worlds, then the table of each world, then what is left out."""
    names = list(dict.fromkeys(each.name for data in found.measured.values() for each in data.evaluations))
    rows = [("world", "tasks", "measured on", *names)]
    for world, data in found.measured.items():
        known = {each.name: each.metrics[ALL][data.metric] for each in data.evaluations}
        cells = []
        for name in names:
            estimate = known.get(name)
            if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
                cells.append("–")
            else:
                low, high = (points(number, 1) for number in (estimate.low, estimate.high))
                cells.append(f"{points(estimate.value, 1)} [{low}, {high}]")
        rows.append((world, str(len(data.tasks)), data.measure, *cells))
    first = next(iter(found.measured.values()))
    level = f"{100 * first.evaluations[0].confidence:.0f}"
    lines = [
        "# Policies on worlds whose verdicts need no judge",
        "",
        f"In percent, with the {level} % interval of a bootstrap over tasks; tasks of one cluster, such as paraphrases "
        "of a template, are drawn together. All policies of a world were measured on the same tasks under equal "
        "conditions.",
        "",
        *("| " + " | ".join(row) + " |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:])),
    ]
    for world, data in found.measured.items():
        settings = "; ".join(f"{key} {value}" for key, value in data.meta.items())
        lines += ["", f"## {world}", "", settings, "", "```", text_table(data), "```"]
    if found.left_out:
        lines += ["", "## Left out", ""]
        lines += [f"- {world}: {'; '.join(map(str.strip, why.splitlines()))}" for world, why in found.left_out.items()]
    return "\n".join(lines) + "\n"
