"""Every figure of a study: the paper's 1 to 15 with this study's numbers, and ours.

In: score files (or a published metrics.parquet) of a study. Out: SVG files that stand alone or PDF files for a journal,
and `Figure`s by section for the report.

    python -m analysis.figures --study mini --out figures
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import ConfigError, user_errors
from configs.layout import runs_root

EXAMPLES = """examples:
  python -m analysis.figures --study mini --out figures     every figure as SVG
  python -m analysis.figures --scores DIR --out figures     of score files from anywhere
  python -m analysis.figures --format svg,pdf               as PDF too, with its fonts inside
  python -m analysis.figures --paper --out docs             the paper's correlations with their intervals, no study
"""
FORMATS = ("svg", "pdf")


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.figures",
        description="Draw a study's figures: the paper's with this study's numbers, and ours.",
        examples=EXAMPLES,
    )
    parser.add_common("runs")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--study", help="name of the study (default: the one scored last)")
    which.add_argument("--scores", type=Path, metavar="DIR", help="score files of one study, wherever they are")
    which.add_argument("--paper", action="store_true", help="no study: the paper's correlations with their intervals")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <runs>/<study>/report/figures")
    parser.add_argument("--format", metavar="NAMES", default="svg", help="svg, pdf or svg,pdf (default: svg)")
    args = parser.parse(argv)
    formats = chosen_formats(args.format)
    from analysis.figures.catalogue import TABLES, sections, write_figures
    from analysis.panel.load import load_panel
    from analysis.panel.studies import require_study, study_of_scores
    from analysis.tables.catalogue import build_tables

    with contextlib.ExitStack() as stack:
        out = args.out or Path("figures")
        if args.paper:
            from analysis.figures.published import published_intervals

            drawn = [published_intervals()]
        else:
            if args.scores:
                study = stack.enter_context(study_of_scores(args.scores))
            else:
                study = require_study(runs_root(args.runs), args.study)
                out = args.out or study.report / "figures"
            panel = load_panel(study)
            tables = {table.name: table for table in build_tables(panel, TABLES)}
            drawn = [figure for figures in sections(panel, tables).values() for figure in figures]
        write_figures(drawn, out, formats)
    print("\n".join(f"{out / figure.name}.{suffix}  {figure.title}" for figure in drawn for suffix in formats))


def chosen_formats(given: str) -> list[str]:
    """Names from `FORMATS`, each once. Raises ConfigError for others."""
    formats = list(dict.fromkeys(part.strip() for part in given.split(",")))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"no format {unknown[0]!r}", where="--format", valid=", ".join(FORMATS))
    return formats


if __name__ == "__main__":
    main()
