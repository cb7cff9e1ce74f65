"""The report of a study: one self-contained page, its tables and figures as files.

In: <runs>/<study> (scores or metrics.parquet; study.yaml, declared.json and run folders where they exist). Out:
<runs>/<study>/report/index.html, tables/ and figures/. The page loads nothing from anywhere.

    python -m analysis.report --study mini
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import read_json, write_text
from configs.errors import ArtifactError, user_errors
from configs.layout import metrics_file, report_dir, runs_root

if TYPE_CHECKING:
    from analysis.estimates import Estimate
    from analysis.panel import Panel
    from analysis.table import Table

CLEAR = 3.0  # standard errors above chance
SECTIONS = (
    ("transfer", "From pretraining to fine-tuning"),
    ("claims", "The paper's claims"),
    ("accuracy", "Accuracy"),
    ("alignment", "Confidence and accuracy"),
    ("matrices", "Benchmarks with each other"),
    ("data", "Web sources and code"),
    ("noise", "Seed noise"),
    ("loss", "Loss"),
)
SHOWN = 4  # values of one key of provenance


def build_report(runs: Path, study: str) -> Path:
    """Write the report of <runs>/<study> and return the path of its index.html.

    Raises ArtifactError where scores are missing, damaged or incomplete.
    """
    from analysis import drawing
    from analysis.figures import sections, write_figures
    from analysis.overview_figures import declared_order
    from analysis.panel import load_panel
    from analysis.tables import build_tables
    from analysis.training import loss_curves, loss_figure
    from analysis.writers import write_tables

    panel = load_panel(runs, study)
    tables = build_tables(panel)
    declared = read_declared(runs, panel)
    loss = loss_figure(panel, loss_curves(runs, panel))
    drawn = sections(panel, {table.name: table for table in tables})
    drawn["loss"] = [loss] if loss else []
    parts = [(name, title, drawn[name]) for name, title in SECTIONS]
    if declared:
        parts.insert(0, ("declared", "Declared and measured order", [declared_order(panel, declared)]))
    yaml = runs / study / "study.yaml"
    html = (
        drawing.environment()
        .get_template("report.html.j2")
        .render(
            panel=panel,
            description=panel.config.description
            if panel.config
            else "Without study.yaml: what was planned is unknown.",
            style=drawing.style(),
            page_style=(drawing.TEMPLATES / "page.css").read_text(),
            sections=[
                ("summary", "Summary"),
                *((name, title) for name, title, _ in parts),
                ("tables", "Tables"),
                ("provenance", "Provenance"),
            ],
            tiles=_tiles(panel, tables, declared),
            findings=_findings(panel, tables),
            parts=parts,
            absent={
                "claims": "The claims are the paper's; these numbers stand for none of its scales.",
                "alignment": "Confidence is not measured.",
                "data": "Web sources and shares of code are not known.",
                "noise": "No mixture was run with two seeds: seed noise and reliability are not measured.",
                "loss": "The run folders are not here (published scores only).",
            },
            tables=[_html_table(table) for table in tables],
            provenance=_provenance(runs, panel),
            study_yaml=yaml.read_text() if yaml.is_file() else "",
        )
    )
    folder = report_dir(runs, study)
    write_tables(tables, folder / "tables")
    write_figures([figure for _, _, figures in parts for figure in figures], folder / "figures")
    write_text(folder / "index.html", html)
    return folder / "index.html"


def read_declared(runs: Path, panel: Panel) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Spearman of declared.json ({"learnable": {slug: {mixture: dose}}}) by scale and stage; empty without it."""
    from analysis.correlations import declared_order
    from analysis.panel import STAGES

    path = runs / panel.study / "declared.json"
    if not path.is_file():
        return {}
    learnable = read_json(path).get("learnable")
    if not isinstance(learnable, dict) or not all(isinstance(doses, dict) for doses in learnable.values()):
        raise ArtifactError("expected {learnable: {benchmark: {mixture: dose}}}", where=path, hint="rerun the study")
    if not learnable:
        return {}
    known = {slug: doses for slug, doses in learnable.items() if slug in panel.benchmarks}
    return {(scale, stage): declared_order(panel, known, scale, stage) for scale in panel.scales for stage in STAGES}


def above_chance(panel: Panel, scale: str, stage: str) -> list[str]:
    """Benchmarks whose mean accuracy over mixtures exceeds chance by more than three standard errors of one cell.

    Mixtures answer the same examples, so their mean is not credited with a smaller error than a single one.
    """
    from analysis.estimates import mean_measured

    accuracy = mean_measured(panel.mean_over_seeds(scale, stage))
    chance = mean_measured(panel.mean_over_seeds(scale, stage, "chance", ""))
    error = mean_measured(panel.stderr(scale, stage))
    return [s for b, s in enumerate(panel.benchmarks) if accuracy[b] - chance[b] > CLEAR * error[b]]


def _tiles(
    panel: Panel, tables: list[Table], declared: dict[tuple[str, str], dict[str, Estimate]]
) -> list[tuple[str, str]]:
    measured, planned = panel.coverage()
    missing = "none missing" if measured == planned else f"{planned - measured} missing"
    runs = len(panel.planned())
    tiles = [
        (f"{measured} / {planned}", f"benchmark evaluations measured, {missing}"),
        (
            str(runs),
            f"checkpoints: {len(panel.mixtures)} mixtures, {len(panel.scales)} scales, PT and SFT, all seeds",
        ),
    ]
    for scale in panel.scales:
        counts = " → ".join(str(len(above_chance(panel, scale, stage))) for stage in ("PT", "SFT"))
        tiles.append((counts, f"of {len(panel.benchmarks)} benchmarks clearly above chance, {scale}, PT → SFT"))
    for row in tables[0].rows:
        if row.keys[2] == "Mean" and row.estimate.value is not None:
            paper = "" if row.paper is None else f" (paper {row.paper:.2f})"
            tiles.append(
                (f"{row.estimate.value:+.2f}".replace("-", "−"), f"mean r, {row.keys[1]}, {row.keys[0]}{paper}")
            )
    if declared:
        (scale, stage), found = list(declared.items())[-2]  # the largest scale after pretraining
        values = [e.value for e in found.values() if e.value is not None]
        if values:
            mean = f"{sum(values) / len(values):+.2f}".replace("-", "−")
            tiles.append(
                (mean, f"Spearman, declared and measured order, mean of {len(values)} benchmarks, {scale} {stage}")
            )
    return tiles


def _findings(panel: Panel, tables: list[Table]) -> list[str]:
    from analysis.tables import preamble

    lines = [line for line in preamble(panel)[1:] if not line.startswith(("═", "SYNTHETIC", "Study "))]
    for scale in panel.scales:
        names = [panel.displays[s] for s in above_chance(panel, scale, "PT")]
        lines.append(
            f"{scale}, PT, clearly above chance (more than three standard errors): {', '.join(names) or 'none'}."
        )
    rows = [row for row in tables[0].rows if row.keys[2] != "Mean"]
    significant = sum(row.q is not None and row.q < 0.05 for row in rows)
    unsupported = sum(bool(row.no_claim) for row in rows)
    unknown = sum(row.provisional for row in rows)
    lines.append(
        f"Of {len(rows)} cross-stage correlations {significant} have q < 0.05; {unsupported} rest on benchmarks on "
        f"which mixtures differ by little more than noise; for {unknown} part of the noise is not measured."
    )
    return lines


def _html_table(table: Table) -> dict[str, Any]:
    from analysis.drawing import diverging
    from analysis.writers import VERDICT, cells, filled, headings

    header, body = headings(table), [cells(table, row) for row in table.rows]
    columns = filled(header, body)
    keys, mine, verdict = len(table.keys), len(table.keys) + 1, len(table.keys) + VERDICT
    rows = []
    for row, texts in zip(table.rows, body, strict=True):
        line = []
        for i in columns:
            cls = "number" if keys <= i < verdict or i > verdict else ""
            if i == mine and row.estimate.value is not None and table.signed and abs(row.estimate.value) <= 1:
                cls = f"number {diverging(row.estimate.value)}"
            if i == verdict:
                cls = "verdict" if texts[i].startswith(("inside", "outside")) else "weak"
            line.append((texts[i], cls))
        rows.append(line)
    return {"table": table, "header": [(header[i], keys <= i and i != verdict) for i in columns], "rows": rows}


def _provenance(runs: Path, panel: Panel) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    from analysis.scores import read_metadata, score_files

    files = score_files(runs, panel.study)
    metadata = pq.read_schema(metrics_file(runs, panel.study)).metadata or {}
    lines = [
        ("score files", f"{len(files)}, {panel.examples:,} scored examples in the cells shown"),
        ("fingerprint of the scores", metadata.get(b"scores", b"unknown").decode()),
    ]
    for key, values in read_metadata(files).items():
        shown = "; ".join(values[:SHOWN]) + (f"; and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
        lines.append((f"scores: {key}", re.sub(r"\s+", " ", shown)))
    return lines


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Write a study's report: index.html (one file, opens anywhere), tables and figures.",
        epilog="examples:\n  python -m analysis.report\n  python -m analysis.report --runs runs --study mini",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    parser.add_argument("--study", help="name of the study (default: the one scored last)")
    args = parser.parse_args(argv)
    from analysis.tables import choose_study

    runs = runs_root(args.runs)
    study = choose_study(runs, args.study)
    if study is None:
        raise ArtifactError("no study with scores", where=runs, hint="make study, or --runs DIR")
    print(build_report(runs, study))


if __name__ == "__main__":
    main()
