"""Scores by web source and by code per cent: Figures 7, 12 and 13, and the calibration error.

In: `Table`s. Out: `Figure`s of the form of `interval_figure`. They show every web source that a study has, and every
pair of them. A line has as many signs as `SIGNS`; of a study with more groups only the tables have the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from analysis.figures.intervals import CORRELATIONS, SIGNS, Place, interval_figure
from analysis.panel.panel import Panel
from analysis.rendering.table import Row, Table
from configs.drawing.scene import Figure

PUBLISHED_PAIR = "FineWeb-Edu − RefinedWeb"
SOURCES = "The web sources come with code sources of their own."
SHARES = "Shares of code, curated and web text are collinear."


def bounds_of(rows: Sequence[Row], *, around_zero: bool) -> tuple[float, float]:
    """Ends of an axis that holds all numbers; around_zero: with zero in the middle.

    An interval over three points is so wide that it would squeeze all numbers into the middle: intervals are cut at
    twice the largest number, or where they leave the numbers by more than these spread.
    """
    numbers = [v for row in rows for v in (row.estimate.value, row.paper) if v is not None]
    ends = [end for row in rows for end in row.estimate.ends or ()]
    if around_zero:
        largest = max(map(abs, numbers), default=0.0)
        top = 1.05 * (min(max(map(abs, [*numbers, *ends]), default=0.0), 2 * largest) or 1.0)
        return -top, top
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    room = (high - low) or 1.0
    return max(min([low, *ends]), low - room) - 0.05 * room, min(max([high, *ends]), high + room) + 0.05 * room


# ---------------------------------------------------------------------------------------------- web sources


def web_figures(panel: Panel, tables: Mapping[str, Table]) -> dict[str, Figure]:
    """Figure 12 at each scale, and Figure 13 for every pair of web sources, by name; tables: by name."""
    means, differences = (tables[name].rows if name in tables else () for name in ("web_means", "web_differences"))
    figures = {}
    # A line has no more signs than these; the table has every source.
    for scale in panel.scales if len({row.keys[4] for row in means}) <= len(SIGNS) else ():
        figures[f"figure12_{scale}"] = _web_figure(
            panel,
            f"figure12_{scale}",
            f"Accuracy and alignment by web source, {scale} (Figure 12)",
            f"Means over the mixtures of a web source, t interval over mixtures. {SOURCES}",
            [row for row in means if row.keys[1] == scale],
            series=4,
            unit="%",
        )
    for pair in dict.fromkeys(row.keys[4] for row in differences):
        name = "figure13" if pair == PUBLISHED_PAIR else f"figure13_{re.sub('[^a-z0-9]+', '_', pair.lower())}"
        figures[name] = _web_figure(
            panel,
            name,
            f"{pair.replace('−', 'minus')} at equal code per cent{' (Figures 7 and 13)' * (pair == PUBLISHED_PAIR)}",
            f"Differences of accuracy and alignment; t interval over the shares of code that both have. {SOURCES}",
            [row for row in differences if row.keys[4] == pair],
            series=1,
            unit="pp",
        )
    return {name: figure for name, figure in figures.items() if figure is not None}


def _web_figure(
    panel: Panel, name: str, title: str, caption: str, rows: Sequence[Row], *, series: int, unit: str
) -> Figure | None:
    """A facet for each quantity and stage; None where no number is known.

    series: place of the series in the keys. unit: of accuracy, `%` or, for differences, `pp`.
    """
    facets: dict[str, list[tuple[Place, Row]]] = {}
    for row in rows:
        quantity, _, stage, category, _ = row.keys
        facet = f"accuracy, {unit}, {stage}" if quantity == "accuracy" else f"{quantity}, {stage}"
        facets.setdefault(facet, []).append((Place(facet, category, row.keys[series], panel.hue(category)), row))
    # Accuracy and alignment have different units, so that no range fits both.
    bounds = {facet: bounds_of([row for _, row in drawn], around_zero=unit == "pp") for facet, drawn in facets.items()}
    bounds |= {facet: CORRELATIONS for facet in facets if unit == "%" and facet.startswith("alignment")}
    drawn = [place for facet in facets.values() for place in facet]
    if all(row.estimate.value is None for _, row in drawn):
        return None
    return interval_figure(name, title, caption, drawn, bounds=bounds)


# ---------------------------------------------------------------------------------------------- calibration

GROUPINGS = {"web source": ("web", SOURCES), "code per cent": ("code", SHARES)}


def calibration_figures(panel: Panel, table: Table | None) -> dict[str, Figure]:
    """Calibration error by web source and by code per cent, by name; a facet for each scale and stage."""
    figures = {}
    for grouping, (short, caveat) in GROUPINGS.items():
        rows = [row for row in (table.rows if table else ()) if row.keys[2] == grouping]
        if len({row.keys[3] for row in rows}) > len(SIGNS) or all(row.estimate.value is None for row in rows):
            continue
        places = []
        for row in rows:
            scale, stage, _, group, category = row.keys
            hue = panel.hue(category) if category in panel.categories else "mean"
            series = f"{group} % code" if short == "code" else group
            places.append((Place(f"{scale}, {stage}", category, series, hue, quantity="ECE"), row))
        top = bounds_of(rows, around_zero=True)[1]
        figures[f"ece_by_{short}"] = interval_figure(
            f"ece_by_{short}",
            f"Expected calibration error by {grouping}",
            "Means over a category's benchmarks and the mixtures of a group, t interval over mixtures; before any "
            f"temperature. {caveat}",
            places,
            bounds=(0.0, top),
        )
    return figures
