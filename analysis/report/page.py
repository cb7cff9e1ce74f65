"""The report of a study: one self-contained page, its tables and figures as files.

In: <runs>/<study> (scores or metrics.parquet; study.yaml, declared.json and run folders where they exist). Out:
<runs>/<study>/report/index.html, tables/ and figures/. The page loads nothing from anywhere, and all it says can be
read without JavaScript (templates/page.js), which adds sorting, filters, tips and one page a benchmark.

    python -m analysis.report --study mini
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.figures.catalogue import sections, write_figures
from analysis.figures.loss import loss_curves, loss_figure
from analysis.figures.overview import declared_order
from analysis.panel.load import load_panel
from analysis.panel.panel import STAGES, Panel
from analysis.protocols import correlations
from analysis.protocols.noise import ENOUGH_FREEDOM
from analysis.rendering import formats
from analysis.rendering.table import NoteKind, Sheet, Table
from analysis.rendering.writers import write_tables
from analysis.report import reproduction, summary
from analysis.report.benchmarks import pages
from analysis.report.calibration import calibration_answers
from analysis.report.changes import scale_changes
from analysis.report.sources import source_answers
from analysis.report.tables import html_sheet, html_table
from analysis.report.verdict import choices, verdicts
from analysis.stats.estimates import FALSE_DISCOVERIES, Estimate
from analysis.tables.catalogue import build_tables
from analysis.tables.paper import describe_scales
from analysis.tables.settings import settings_tables
from configs.artifacts import read_json, write_text
from configs.drawing import scene
from configs.drawing.scene import Figure
from configs.errors import ArtifactError
from configs.layout import StudyFolder

TEMPLATES = Path(__file__).parent / "templates"
ANSWERS = {"calibration": "calibration_methods", "data": "web_differences"}
"""Section -> the table that has more than the sentences before its figures."""
SECTIONS = (
    ("transfer", "From pretraining to fine-tuning"),
    ("claims", "The paper's claims"),
    ("accuracy", "Accuracy"),
    ("calibration", "Calibration"),
    ("alignment", "Confidence and accuracy"),
    ("matrices", "Benchmarks with each other"),
    ("data", "Web sources and code"),
    ("noise", "Seed noise"),
    ("loss", "Loss"),
)
ABSENT = {
    "claims": "The claims are the paper's; these numbers stand for none of its scales.",
    "calibration": "Single answers are not here (published metrics only): reliability diagrams cannot be drawn.",
    "alignment": "Confidence is not measured.",
    "data": "Web sources and shares of code are not known.",
    "noise": "No mixture was run with two seeds: seed noise and reliability are not measured.",
    "loss": "The run folders are not here (published scores only).",
}
"""Section -> the sentence that replaces its figures where there are none."""
NUMBERS = {
    "figure1": "category_means",
    "figure5": "coherence",
    "figure6": "table6",
    "figure14": "code_share",
    "figure15": "code_share",
    "cross_stage_accuracy": "table5",
    "cross_stage_confidence": "table5",
    "specifications": "multiverse",
    "alignment": "table6",
    "seed_noise": "table5",
    "ece_by_web": "calibration_by_data",
    "ece_by_code": "calibration_by_data",
} | {f"figure{number}": "matrix_similarity" for number in ("3", "4a", "4b", "8", "9", "10")}
"""Figure -> the table that has its numbers or, where it shows single cells, what follows from them."""
BY_DATA = {"figure12": "web_means", "figure13": "web_differences"}
"""The same of figures whose names go on with a scale or a pair of web sources."""


def build_report(study: StudyFolder, average_seeds: bool = False) -> Path:
    """Write the report of <runs>/<study> and return the path of its index.html.

    average_seeds: of each mixture's mean over its seeds, else of its first seed.

    Raises ArtifactError where scores are missing, damaged or incomplete.
    """
    panel = load_panel(study, average_seeds=average_seeds)
    tables = build_tables(panel)
    loss = loss_figure(panel, loss_curves(panel))
    drawn = sections(panel, {table.name: table for table in tables}) | {"loss": [loss] if loss else []}
    folder = study.report
    settings = settings_tables(panel)
    # Files come before the page, so that an index.html is never there without them.
    write_tables([*settings, *tables], folder / "tables")
    html, declared = compose(panel, tables, settings, drawn)
    write_figures([figure for figures in (declared, *drawn.values()) for figure in figures], folder / "figures")
    write_text(folder / "index.html", html)
    return folder / "index.html"


def compose(
    panel: Panel,
    tables: Sequence[Table],
    settings: Sequence[Sheet],
    drawn: dict[str, list[Figure]],
) -> tuple[str, list[Figure]]:
    """The page, and the figures that it alone has; drawn: by section."""
    by_name = {table.name: table for table in tables}
    declared = read_declared(panel)
    extra = [declared_order(panel, declared)] if declared else []
    found = verdicts(panel, by_name["table5"], by_name["decisions"], by_name.get("replication"))
    yaml = panel.study.config
    parts = [(name, title, drawn[name]) for name, title in SECTIONS]
    html = (
        scene.environment(TEMPLATES)
        .get_template("report.html.j2")
        .render(
            panel=panel,
            styles=[scene.style(), _template("page.css")],
            scripts={name: _template(f"{name}.js") for name in ("theme", "page")},
            summary=summary,
            formats=formats,
            tallies=summary.tallies(panel, found),
            pages=pages(panel, tables, found),
            choices=choices(panel, by_name["decisions"]),
            cost_notes=[note.detail for note in by_name["decisions"].caveats if note.kind is NoteKind.SAME_MIXTURES],
            describe_scales=describe_scales,
            enough_freedom=ENOUGH_FREEDOM,
            replicated="replication" in by_name,
            seed_notes=[note.detail for note in by_name["table5"].caveats if note.kind is NoteKind.SEED_NOISE],
            tiles=summary.tiles(panel, declared),
            sentences=summary.sentences(by_name["table5"], by_name.get("replication")),
            changes=scale_changes(by_name.get("scale_differences"), by_name["table5"]),
            discovered=FALSE_DISCOVERIES,
            answers={
                "calibration": list(calibration_answers(by_name)),
                "data": list(source_answers(by_name.get("web_differences"))),
            },
            comparisons=summary.compare_with_paper(by_name) if panel.beside_paper else [],
            paper_means=summary.paper_means(by_name["table5"]),
            parts=[("declared", "Declared and measured order", extra), *parts] if extra else parts,
            answer_tables=ANSWERS,
            absent=ABSENT,
            numbers=_numbers(panel, by_name, [figure.name for figures in drawn.values() for figure in figures]),
            tables=[*map(html_sheet, settings), *map(html_table, tables)],
            missing=reproduction.missing_cells(panel),
            facts=reproduction.facts(panel),
            files=reproduction.file_names(panel.study),
            commands=reproduction.commands(panel, list(by_name), bool(reproduction.file_names(panel.study))),
            study_yaml=yaml.read_text() if yaml.is_file() else "",
        )
    )
    return html, extra


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text()


def table_of_figure(figure: str) -> str | None:
    """The table that has a figure's numbers; None where no table has them."""
    by_data = (table for prefix, table in BY_DATA.items() if figure.startswith(prefix))
    return NUMBERS.get(figure) or next(by_data, None)


def _numbers(panel: Panel, tables: dict[str, Table], figures: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Figure -> (address on the page, title) of the table that has its numbers, if this study has it."""
    known = {figure: table_of_figure(figure) for figure in figures}
    known |= {f"reliability_{scale}": "calibration" for scale in panel.scales}
    found = {
        figure: (f"#table-{name}", re.split(r"[.:?]", tables[name].title)[0])
        for figure, name in known.items()
        if name in tables
    }
    return found | {"accuracy": ("#benchmarks", "benchmarks one by one")}


def read_declared(panel: Panel) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Spearman of declared.json ({"learnable": {slug: {mixture: dose}}}) by scale and stage; empty without it."""
    path = panel.study.declared
    if not path.is_file():
        return {}
    learnable = read_json(path).get("learnable")
    if not isinstance(learnable, dict) or not all(isinstance(doses, dict) for doses in learnable.values()):
        raise ArtifactError("expected {learnable: {benchmark: {mixture: dose}}}", where=path, hint="rerun the study")
    if not learnable:
        return {}
    known = {slug: doses for slug, doses in learnable.items() if slug in panel.benchmarks}
    return {
        (scale, stage): correlations.declared_order(panel, known, scale, stage)
        for scale in panel.scales
        for stage in STAGES
    }
