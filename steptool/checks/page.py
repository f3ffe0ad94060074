"""The validation report as one HTML page that needs no network: styles inside, no scripts, light and dark."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from steptool.checks.calibration import Calibration
from steptool.checks.diagnosis.findings import Diagnosis
from steptool.checks.gate import ValidationReport


def render_page(
    report: ValidationReport,
    title: str = "",
    diagnosis: Diagnosis | None = None,
    calibration: Calibration | None = None,
) -> str:
    """The page as text. Every value from the data is escaped; the same report gives the same bytes."""
    environment = Environment(
        loader=PackageLoader("steptool.checks", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        title=title or f"Validation of {report.source}",
        diagnosis=diagnosis,
        calibration=calibration,
    )
