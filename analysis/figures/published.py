"""The paper's own cross-stage correlations with the intervals that nine mixtures give them.

In: Table 5 as printed. Out: one `Figure`, drawn without any study. The README shows it as docs/published_intervals.svg.
"""

from __future__ import annotations

from analysis.figures.intervals import Place, interval_figure
from analysis.paper.numbers import SCALES, category_of, displays
from analysis.paper.published import LEVEL, MIXTURES, estimates, q_values, significant
from analysis.rendering.table import Row
from configs.drawing.scene import Figure

METRIC = "accuracy"


def published_intervals() -> Figure:
    """Pearson's r between PT and SFT accuracy over nine mixtures, one row a benchmark, one facet a scale.

    Filled: q < 0.05 (Benjamini-Hochberg over the 20 benchmarks of the scale). Hollow: not.
    """
    category = {name: category_of()[slug].lower() for slug, name in displays().items()}
    rows, heads = [], {}
    for scale in SCALES:
        q = q_values(METRIC, scale)
        heads[scale] = f"{scale}: {len(significant(METRIC, scale))} of {len(q)} with q < {LEVEL:g}"
        for name, estimate in estimates(METRIC, scale).items():
            hollow, note = q[name] >= LEVEL, f"q {q[name]:.2g}"
            place = Place(scale, name, hue=category[name], hollow=hollow, quantity="r", note=note)
            rows.append((place, Row((), estimate)))
    return interval_figure(
        "published_intervals",
        "How much do nine mixtures say about each benchmark?",
        f"Cross-stage correlation of accuracy (PT with SFT) over {MIXTURES} mixtures, as the paper prints it, with the "
        f"95 % interval that r and n give (Fisher z). Filled: q < {LEVEL:g} over the benchmarks of a scale.",
        rows,
        heads=heads,
    )
