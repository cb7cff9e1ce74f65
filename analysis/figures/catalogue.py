"""Every figure of a study, by section of the report, and as files.

In: a study's panel and the tables whose numbers are drawn. Out: `Figure`s, SVG files that stand alone, and PDF files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.figures import overview
from analysis.figures.benchmarks import reliability_overview
from analysis.figures.by_data import calibration_figures, web_figures
from analysis.figures.claims import code_figure, specification_figure
from analysis.figures.intervals import category_figures, cross_stage
from analysis.figures.matrices import matrix_figures
from analysis.panel.panel import Panel
from analysis.rendering.table import Table
from configs.artifacts import write_text
from configs.drawing.scene import Figure, style

TABLES = (
    "table5",
    "table6",
    "coherence",
    "category_means",
    "code_share",
    "web_means",
    "web_differences",
    "calibration_by_data",
)
"""Tables whose numbers the figures show."""


def sections(panel: Panel, tables: Mapping[str, Table]) -> dict[str, list[Figure]]:
    """Section of the report -> its figures; tables: at least `TABLES`, by name. What was not measured is not drawn."""
    by_category = category_figures(panel, tables)
    metrics = [metric for metric in ("accuracy", "confidence") if panel.has(metric)]
    drawn: dict[str, list[Figure | None]] = {
        "transfer": [by_category.get("figure1"), *(cross_stage(panel, tables["table5"], metric) for metric in metrics)],
        "claims": [specification_figure(panel)],
        "accuracy": [overview.accuracy_heatmap(panel)],
        "alignment": [
            by_category.get("figure6"),
            overview.alignment_scatter(panel) if "confidence" in metrics else None,
        ],
        "calibration": [reliability_overview(panel, scale) for scale in panel.scales],
        "matrices": [by_category.get("figure5"), *matrix_figures(panel)],
        "data": [
            *web_figures(panel, tables).values(),
            by_category.get("figure14"),
            code_figure(panel),
            *calibration_figures(panel, tables.get("calibration_by_data")).values(),
        ],
        "noise": [overview.seed_noise(panel)],
    }
    return {section: [figure for figure in figures if figure is not None] for section, figures in drawn.items()}


def write_figures(figures: list[Figure], folder: Path, formats: Sequence[str] = ("svg",)) -> None:
    """<folder>/<name>.svg, each with its own style, and where asked <name>.pdf."""
    for figure in figures:
        if "svg" in formats:
            write_text(folder / f"{figure.name}.svg", figure.scene.svg(style()) + "\n")
        if "pdf" in formats:
            from analysis.rendering.pdf import write_pdf  # only PDFs need typst

            write_pdf(figure, folder / f"{figure.name}.pdf")
