"""The paper's own cross-stage correlations with the intervals that nine mixtures give them.

In: Table 5 as printed. Out: one `Figure`, drawn without any study. The README shows it as docs/published_intervals.svg.
"""

from __future__ import annotations

from collections.abc import Iterator

from analysis.paper.numbers import SCALES, category_of, displays
from analysis.paper.published import LEVEL, MIXTURES, estimates, q_values, significant
from analysis.rendering.drawing import WIDTH, Axis, Figure, Scene

NAMES = 128
ROW = 19
TICKS = (-1, -0.5, 0, 0.5, 1)
METRIC = "accuracy"


def published_intervals() -> Figure:
    """Pearson's r between PT and SFT accuracy over nine mixtures, one row a benchmark, one panel a scale.

    Filled: q < 0.05 (Benjamini-Hochberg over the 20 benchmarks of the scale). Hollow: not.
    """
    category = {name: category_of()[slug].lower() for slug, name in displays().items()}
    bottom = 40 + ROW * len(category)
    scene = Scene(WIDTH, bottom + 24, "The paper's cross-stage correlations of accuracy with their 95 % intervals")
    wide = (WIDTH - NAMES) / len(SCALES)
    for name, hue, y in _rows(category):
        scene.text(NAMES, y + 4, name, hue, "end")
    for number, scale in enumerate(SCALES):
        left = NAMES + number * wide
        x = Axis(-1, 1, left + 12, left + wide - 22)
        for tick in TICKS:
            scene.line(x(tick), 26, x(tick), bottom, "zero" if tick == 0 else "grid")
            scene.text(x(tick), bottom + 14, f"{tick:+g}".replace("-", "−") if tick else "0", "soft small", "middle")
        found, q = estimates(METRIC, scale), q_values(METRIC, scale)
        scene.text(left + 12, 14, f"{scale}: {len(significant(METRIC, scale))} of {len(q)} with q < {LEVEL:g}", "head")
        for name, hue, y in _rows(category):
            e = found[name]
            assert e.value is not None and e.low is not None and e.high is not None, "the paper printed all of them"
            tip = f"{name}, {scale}: r {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}], q {q[name]:.2g}"
            scene.line(x(e.low), y, x(e.high), y, f"whisker {hue}", tip)
            scene.dot(x(e.value), y, 4.2, hue if q[name] < LEVEL else "hollow", tip)
    return Figure(
        "published_intervals",
        "How much do nine mixtures say about each benchmark?",
        f"Cross-stage correlation of accuracy (PT with SFT) over {MIXTURES} mixtures, as the paper prints it, with the "
        f"95 % interval that r and n give (Fisher z). Filled: q < {LEVEL:g} over the benchmarks of a scale.",
        scene,
    )


def _rows(category: dict[str, str]) -> Iterator[tuple[str, str, float]]:
    """(benchmark, class of its marks, y) of each row."""
    for number, (name, hue) in enumerate(category.items()):
        yield name, hue, 38 + ROW * number
