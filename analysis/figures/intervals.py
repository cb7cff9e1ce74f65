"""Numbers with their intervals, beside the paper's: the cross-stage figures and Figures 1, 5, 6 and 14.

In: `Table`s. Out: `Figure`s of one form: facets side by side, a line for each name, a mark for each series in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.panel.panel import Panel
from analysis.rendering.formats import format_estimate_of, format_p, format_signed
from analysis.rendering.table import Row, Table
from analysis.rendering.writers import format_verdict
from analysis.tables.transfer import MEAN
from configs.drawing.scene import WIDTH, Axis, Figure, Scene

NAMES = 128  # px left of the facets, for the name of a line
STEP = 11  # px between the series of a line
SIGNS = ("●", "○", "■")  # in the legend, in the order of the series
CORRELATIONS = (-1.0, 1.0)
FIGURE_2 = {"accuracy": "2a", "confidence": "2b"}


@dataclass(frozen=True)
class Place:
    """Where and how a row of a table is drawn."""

    facet: str
    line: str
    series: str = ""
    hue: str = "mean"
    """Class of the mark, its interval and the name of its line."""
    hollow: bool = False
    """The number supports no claim."""
    quantity: str = ""
    """Name of the number, e.g. `r`, shown under the pointer."""
    note: str = ""
    """Further text shown under the pointer."""


def interval_figure(
    name: str,
    title: str,
    caption: str,
    rows: Iterable[tuple[Place, Row]],
    *,
    bounds: tuple[float, float] | Mapping[str, tuple[float, float]] = CORRELATIONS,
    heads: Mapping[str, str] | None = None,
) -> Figure:
    """bounds: of every facet's axis, or of each one's. heads: facet -> its heading."""
    drawn = list(rows)
    facets, lines, series = (
        list(dict.fromkeys(getattr(place, field) for place, _ in drawn)) for field in ("facet", "line", "series")
    )
    height = max(19, STEP * len(series) + 8)
    bottom = 40 + height * len(lines)
    legend = _legend(series, beside_paper=any(row.paper is not None for _, row in drawn))
    scene = Scene(WIDTH, math.ceil(bottom + (44 if legend else 24)), title)  # half a pixel would blur what is drawn
    wide = (WIDTH - NAMES) / max(len(facets), 1)
    for f, facet in enumerate(facets):
        mine = [(place, row) for place, row in drawn if place.facet == facet]
        x = Axis(
            *(bounds if isinstance(bounds, tuple) else bounds[facet]),
            NAMES + f * wide + 16,
            NAMES + (f + 1) * wide - 22,
        )
        scene.text(x.start, 14, (heads or {}).get(facet, facet), "head")
        scene.value_axis(x, x.ticks(4), 24, bottom, signed=x.low < 0)
        for place, row in mine:
            top = 36 + height * lines.index(place.line)
            _draw_mark(scene, x, top + STEP * series.index(place.series), place, row, series)
    # A name is written once for all facets and series: written again on itself, text looks bold.
    hues = {place.line: place.hue for place, _ in drawn}
    for number, line in enumerate(lines):
        middle = 36 + height * number + STEP * (len(series) - 1) / 2
        scene.text(NAMES, middle + 4, line, hues[line].replace("mean", "strong"), "end")
    scene.text(NAMES + 16, bottom + 36, legend, "small")
    return Figure(name, title, caption, scene)


def _legend(series: Sequence[str], *, beside_paper: bool) -> str:
    """The signs of the series, where there are several, and of the paper's numbers."""
    signs = [f"{sign} {one}" for sign, one in zip(SIGNS, series, strict=False)] if len(series) > 1 else []
    return "   ".join([*signs, *(["◇ paper"] if beside_paper else [])])


def _draw_mark(scene: Scene, x: Axis, y: float, place: Place, row: Row, series: Sequence[str]) -> None:
    """A number with its interval and the paper's; a line of one series says why its number is missing."""
    e, number = row.estimate, series.index(place.series)
    where = ", ".join(filter(None, (place.line, place.facet, place.series)))
    paper = "" if row.paper is None else f"paper {format_signed(row.paper)}"
    number_of = " ".join(filter(None, (place.quantity, format_estimate_of(e))))
    tip = "; ".join(filter(None, (f"{where}: {number_of}", paper, place.note)))
    if e.ends:
        scene.line(x.clip(e.ends[0]), y, x.clip(e.ends[1]), y, f"whisker {place.hue}", tip)
    if row.paper is not None:
        scene.diamond(x.clip(row.paper), y, 4.5, "paper", tip)
    if e.value is None:
        if len(series) == 1:
            scene.text((x.start + x.end) / 2, y + 4, e.reason or "not measured", "soft small", "middle")
    elif number == 2:  # a full dot and a ring are taken by the first two series
        scene.rect(x.clip(e.value) - 3.4, y - 3.4, 6.8, 6.8, cls=place.hue, tip=tip)
    else:
        look = "hollow" if place.hollow else place.hue if number == 0 else f"ring {place.hue}"
        scene.dot(x.clip(e.value), y, 3.8, look, tip)


def cross_stage(panel: Panel, table5: Table, metric: str) -> Figure:
    """Table 5, a line for each benchmark and a facet for each scale."""
    heads = {}
    for scale in panel.scales:
        paper = panel.paper_scale(scale)
        heads[scale] = scale if paper in (None, scale.upper()) else f"{scale} (beside the paper's {paper})"

    rows = []
    for row in table5.rows:
        scale, measured, category, name = row.keys
        if measured == metric:
            p = "" if row.estimate.p is None else f"p {format_p(row.estimate.p)}"
            # The scales share one line of means, whose benchmarks may differ in number: the tip of a mark has it.
            line, of = (MEAN, name) if category == MEAN else (name, "")
            note = "; ".join(filter(None, (of, p, format_verdict(row))))
            hue = "mean" if category == MEAN else panel.hue(category)
            rows.append((Place(scale, line, hue=hue, hollow=bool(row.no_claim), quantity="r", note=note), row))
    return interval_figure(
        f"cross_stage_{metric}",
        f"{metric.capitalize()}: does the order of mixtures survive fine-tuning? (Figure {FIGURE_2[metric]})",
        "Pearson r between PT and SFT over mixtures (equations 1 and 2), with its 95 % interval. ◇ the paper's number. "
        "Hollow: no claim, for the benchmark is at chance or its mixtures differ by little more than noise. The mean "
        "is over the other benchmarks.",
        rows,
        heads=heads,
    )


# ---------------------------------------------------------------------------------------------- means of categories

Where = tuple[str, str, str] | None
"""(facet, category, series) of a row; None: the figure leaves it out."""


def _place_mean(scale: str, metric: str, category: str, reading: str) -> Where:
    return (metric, category, scale) if reading == "mean of r" else None


def _place_coherence(scale: str, metric: str, protocol: str, reading: str, category: str) -> Where:
    return (f"{metric}, {scale}", category, protocol) if reading == "ordered" else None


def _place_alignment(scale: str, stage: str, category: str, reading: str) -> Where:
    return (scale, category, stage) if reading == "averaged" else None


def _place_code(scale: str, stage: str, category: str, benchmark: str) -> Where:
    return None if benchmark else (scale, category, stage)


FIGURES: dict[str, tuple[str, Callable[..., Where], str, str]] = {
    "figure1": (
        "category_means",
        _place_mean,
        "Cross-stage correlation by category (Figure 1)",
        "Mean over a category's benchmarks of Pearson's r between PT and SFT, 95 % interval over mixtures.",
    ),
    "figure5": (
        "coherence",
        _place_coherence,
        "Do the benchmarks of a category move together? (Figure 5)",
        "Mean r over the pairs of a category's benchmarks, within a stage and from PT to SFT (equations 3 to 6).",
    ),
    "figure6": (
        "table6",
        _place_alignment,
        "Performance-confidence alignment by category (Figure 6)",
        "Equation 8 averaged over mixtures; its points are 4 to 7 benchmarks, so that intervals are wide.",
    ),
    "figure14": (
        "code_share",
        _place_code,
        "Correlation of code per cent and accuracy (Figure 14)",
        "Over the nine mixtures, 95 % Fisher interval. Shares of code, curated and web text are collinear.",
    ),
}
"""Name -> (table, where a row with these keys is drawn, title, caption)."""


def category_figures(panel: Panel, tables: Mapping[str, Table]) -> dict[str, Figure]:
    """The figures of `FIGURES` for which a number is known, by name; tables: by name."""
    figures = {}
    for name, (table, place_of, title, caption) in FIGURES.items():
        rows = []
        for row in tables[table].rows if table in tables else ():
            if where := place_of(*row.keys):
                facet, category, series = where
                hue = panel.hue(category) if category in panel.categories else "mean"
                rows.append((Place(facet, category, series, hue), row))
        if any(row.estimate.value is not None for _, row in rows):
            figures[name] = interval_figure(name, title, caption, rows)
    return figures
