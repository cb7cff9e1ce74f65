"""Every figure of a study: the paper's 1 to 15 with this study's numbers, and ours.

In: score files (or a published metrics.parquet) of a study. Out: SVG files that stand alone or PDF files for a journal,
and `Figure`s by section for the report.

    python -m analysis.figures --study mini --out figures
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ArtifactError, ConfigError, user_errors
from configs.layout import runs_root

if TYPE_CHECKING:
    from analysis.drawing import Figure
    from analysis.panel import Panel
    from analysis.table import Table

EXAMPLES = """examples:
  python -m analysis.figures --study mini --out figures     every figure as SVG
  python -m analysis.figures --scores DIR --out figures     of score files from anywhere
  python -m analysis.figures --format svg,pdf               as PDF too, with its fonts inside
"""
FORMATS = ("svg", "pdf")


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.figures",
        description="Draw a study's figures: the paper's with this study's numbers, and ours.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--study", help="name of the study (default: the one scored last)")
    which.add_argument("--scores", type=Path, metavar="DIR", help="score files of one study, wherever they are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <runs>/<study>/report/figures")
    parser.add_argument("--format", metavar="NAMES", default="svg", help="svg, pdf or svg,pdf (default: svg)")
    args = parser.parse_args(argv)
    formats = chosen_formats(args.format)
    from analysis.studies import load_panel
    from analysis.tables import borrowed, build_tables, choose_study
    from configs.layout import report_dir

    with contextlib.ExitStack() as stack:
        runs, study = runs_root(args.runs), args.study
        if args.scores:
            runs, study = stack.enter_context(borrowed(args.scores))
        study = choose_study(runs, study)
        if study is None:
            raise ArtifactError("no study with scores", where=runs, hint="make study, or --scores DIR")
        panel = load_panel(runs, study)
        tables = {table.name: table for table in build_tables(panel, TABLES)}
        drawn = [figure for figures in sections(panel, tables).values() for figure in figures]
        out = args.out or (Path("figures") if args.scores else report_dir(runs, study) / "figures")
        write_figures(drawn, out, formats)
    print("\n".join(f"{out / figure.name}.{suffix}  {figure.title}" for figure in drawn for suffix in formats))


def chosen_formats(given: str) -> list[str]:
    """Of `FORMATS`, each once. Raises ConfigError for others."""
    formats = list(dict.fromkeys(part.strip() for part in given.split(",")))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"no format {unknown[0]!r}", where="--format", valid=", ".join(FORMATS))
    return formats


TABLES = ("table5", "table6", "coherence", "category_means", "code_share", "web_differences")
"""Whose numbers are drawn."""


def sections(panel: Panel, tables: dict[str, Table]) -> dict[str, list[Figure]]:
    """Section of the report -> its figures; tables: at least `TABLES`, by name. What was not measured is not drawn."""
    from analysis import overview_figures as overview
    from analysis.benchmark_figures import reliability_overview
    from analysis.claim_figures import code_figure, specification_figure
    from analysis.interval_figures import interval_figures
    from analysis.matrix_figures import matrix_figures

    intervals = {figure.name: figure for figure in interval_figures(panel, tables)}

    def some(*figures: Figure | None) -> list[Figure]:
        return [figure for figure in figures if figure is not None]

    metrics = [metric for metric in ("accuracy", "confidence") if panel.has(metric)]
    return {
        "transfer": some(
            intervals.get("figure1"), *(overview.cross_stage(panel, tables["table5"], metric) for metric in metrics)
        ),
        "claims": some(specification_figure(panel)),
        "accuracy": some(overview.accuracy_heatmap(panel)),
        "alignment": some(
            intervals.get("figure6"), overview.alignment_scatter(panel) if "confidence" in metrics else None
        ),
        "calibration": some(*(reliability_overview(panel, scale) for scale in panel.scales)),
        "matrices": some(intervals.get("figure5"), *matrix_figures(panel)),
        "data": some(intervals.get("figure13"), intervals.get("figure14"), code_figure(panel)),
        "noise": some(overview.seed_noise(panel)),
    }


def write_figures(figures: list[Figure], folder: Path, formats: Sequence[str] = ("svg",)) -> None:
    """<folder>/<name>.svg, each with its own style, and where asked <name>.pdf."""
    from analysis.drawing import style
    from configs.artifacts import write_text

    for figure in figures:
        if "svg" in formats:
            write_text(folder / f"{figure.name}.svg", figure.scene.svg(style()) + "\n")
        if "pdf" in formats:
            from analysis.pdf import write_pdf  # matplotlib takes a second

            write_pdf(figure, folder / f"{figure.name}.pdf")


if __name__ == "__main__":
    main()
