"""Figures 1, 5, 6, 7 and 12 to 14: numbers of a table with their intervals, beside the paper's.

In: `Table`s. Out: `Figure`s of one form: facets side by side, a line for each name, a mark for each series in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from analysis.panel.panel import Panel
from analysis.rendering.drawing import WIDTH, Axis, Figure, Scene
from analysis.rendering.table import Row, Table
from analysis.stats.estimates import Estimate

NAMES = 128
STEP = 11  # between the series of a line
MARKS = ("●", "○", "■")


@dataclass(frozen=True)
class Place:
    """Where a row of a table is drawn."""

    facet: str
    line: str
    series: str
    hue: str = ""


def interval_figure(
    name: str,
    title: str,
    caption: str,
    rows: Iterable[tuple[Place, Row]],
    *,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    share_bounds: bool = True,
) -> Figure | None:
    """bounds: of every facet's axis; None: what the numbers and intervals need, alike for all with `share_bounds`."""
    drawn = [(place, row) for place, row in rows]
    if not any(row.estimate.value is not None for _, row in drawn):
        return None
    facets, lines, series = (
        list(dict.fromkeys(getattr(place, field) for place, _ in drawn)) for field in ("facet", "line", "series")
    )
    height = max(20, STEP * len(series) + 8)
    bottom = 40 + height * len(lines)
    scene = Scene(WIDTH, bottom + 44, title)
    wide = (WIDTH - NAMES) / len(facets)
    for f, facet in enumerate(facets):
        mine = [(place, row) for place, row in drawn if place.facet == facet]
        left = NAMES + f * wide
        low, high = bounds or _bounds([row for _, row in (drawn if share_bounds else mine)])
        x = Axis(low, high, left + 20, left + wide - 20)
        scene.text(left + 20, 14, facet, "head")
        for tick in x.ticks(4):
            scene.line(x(tick), 24, x(tick), bottom, "zero" if tick == 0 else "grid")
            scene.text(x(tick), bottom + 14, f"{tick:+g}".replace("-", "−") if tick else "0", "soft small", "middle")
        for place, row in mine:
            top, number = 34 + height * lines.index(place.line), series.index(place.series)
            if f == 0:
                scene.text(NAMES, top + height / 2 - 2, place.line, place.hue.replace("mean", "strong"), "end")
            _mark(scene, x, top + STEP * number, row, place, number)
    named = [f"{mark} {one}" for mark, one in zip(MARKS, series, strict=False)] if len(series) > 1 else []
    scene.text(NAMES + 20, bottom + 36, "   ".join([*named, "◇ paper"]), "small")
    return Figure(name, title, caption, scene)


def _mark(scene: Scene, x: Axis, y: float, row: Row, place: Place, number: int) -> None:
    e, hue = row.estimate, place.hue or "mean"
    tip = f"{place.line}, {place.facet}, {place.series}: {_format_estimate(e)}" + (
        "" if row.paper is None else f"; paper {row.paper:+.2f}".replace("-", "−")
    )

    def inside(value: float) -> float:
        return x(min(max(value, x.low), x.high))

    if e.low is not None and e.high is not None:
        scene.line(inside(e.low), y, inside(e.high), y, f"whisker {hue}", tip)
    if row.paper is not None:
        scene.diamond(inside(row.paper), y, 4.5, "paper", tip)
    if e.value is None:
        return
    if number == 2:
        scene.rect(inside(e.value) - 3.4, y - 3.4, 6.8, 6.8, cls=hue, tip=tip)
    else:
        scene.dot(inside(e.value), y, 3.8, hue if number == 0 else f"ring {hue}", tip)


def _bounds(rows: Sequence[Row]) -> tuple[float, float]:
    """Around zero, wide enough for all numbers; intervals may be cut at twice that."""
    size = [abs(v) for row in rows for v in (row.estimate.value, row.paper) if v is not None]
    ends = [abs(v) for row in rows for v in (row.estimate.low, row.estimate.high) if v is not None]
    top = min(max([*size, *ends]), 2 * max(size))
    return -1.05 * top, 1.05 * top


def _format_estimate(e: Estimate) -> str:
    if e.value is None:
        return e.reason
    ends = "" if e.low is None or e.high is None else f" [{e.low:+.2f}, {e.high:+.2f}]"
    return f"{e.value:+.2f}{ends}, n {e.n}".replace("-", "−")


# ---------------------------------------------------------------------------------------------- the paper's


# Where each table's rows are drawn; the hue is the category, None leaves a row out.


def _of_category_mean(row: Row) -> Place | None:
    scale, metric, category, reading = row.keys
    return Place(metric, category, scale, category) if reading == "mean of r" else None


def _of_coherence(row: Row) -> Place | None:
    scale, metric, protocol, reading, category = row.keys
    return Place(f"{metric}, {scale}", category, protocol, category) if reading == "ordered" else None


def _of_alignment(row: Row) -> Place | None:
    scale, stage, category, reading = row.keys
    return Place(scale, category, stage, category) if reading == "averaged" else None


def _of_web_difference(row: Row) -> Place | None:
    quantity, scale, stage, category, webs = row.keys
    unit = "accuracy, pp" if quantity == "accuracy" else "alignment"
    return Place(f"{unit}, {stage}", category, scale, category) if webs == "FineWeb-Edu − RefinedWeb" else None


def _of_code(row: Row) -> Place | None:
    scale, stage, category, benchmark = row.keys
    return None if benchmark else Place(scale, category, stage, category)


def interval_figures(panel: Panel, tables: dict[str, Table]) -> list[Figure]:
    """tables: of `analysis.tables`, by name."""

    def rows(table: str, place_of: Callable[[Row], Place | None]) -> Iterator[tuple[Place, Row]]:
        for row in tables[table].rows if table in tables else ():
            if (place := place_of(row)) is not None:
                category = place.hue
                yield replace(place, hue=panel.hue(category) if category in panel.categories else "mean"), row

    made = (
        interval_figure(
            "figure1",
            "Cross-stage correlation by category (Figure 1)",
            "Mean over a category's benchmarks of Pearson's r between PT and SFT, 95 % interval over mixtures.",
            rows("category_means", _of_category_mean),
        ),
        interval_figure(
            "figure5",
            "Do the benchmarks of a category move together? (Figure 5)",
            "Mean r over the pairs of a category's benchmarks, within a stage and from PT to SFT (equations 3 to 6).",
            rows("coherence", _of_coherence),
        ),
        interval_figure(
            "figure6",
            "Performance-confidence alignment by category (Figure 6)",
            "Equation 8 averaged over mixtures; its points are 4 to 7 benchmarks, so that intervals are wide.",
            rows("table6", _of_alignment),
        ),
        interval_figure(
            "figure13",
            "FineWeb-Edu minus RefinedWeb at equal code per cent (Figures 7, 12 and 13)",
            "Differences of accuracy and alignment; t interval over the shares of code that both have. The two web "
            "sources come with code sources of their own.",
            rows("web_differences", _of_web_difference),
            bounds=None,
            share_bounds=False,
        ),
        interval_figure(
            "figure14",
            "Correlation of code per cent and accuracy (Figure 14)",
            "Over the nine mixtures, 95 % Fisher interval. Shares of code, curated and web text are collinear.",
            rows("code_share", _of_code),
        ),
    )
    return [figure for figure in made if figure is not None]
