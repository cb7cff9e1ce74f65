"""One benchmark at a time: its accuracy on every mixture, and whether its answers are as often right as they are sure.

In: `Panel`, with single answers for the reliability diagrams. Out: `Figure`s for a benchmark's own page, and the
diagrams of all benchmarks of a scale in one figure. What was not measured is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.stats.calibration import ReliabilityDiagram, reliability_diagram, width_bins
from analysis.stats.estimates import Z95, mean_measured
from configs.drawing.scene import WIDTH, Axis, Figure, Scene

NAMES = 60  # px for a mixture's name
ROW = 19  # px
COLUMNS = 5  # benchmarks beside each other in the overview
SERIES = (
    ("confidence", "hollow", "curve", "as scored"),
    ("confidence_scaled", "end hue0", "curve hue0", "after its temperature"),
)
"""(metric, class of its dots, class of the line through them, its name under the pointer)."""
READING = (
    "Grey rings: confidence as scored; blue: after a temperature that was fitted on other examples. 15 equally wide "
    "bins of the answers of all mixtures; a larger dot has more answers. On the dashed line a bin is as often right as "
    "it is sure."
)


def accuracy_figure(panel: Panel, slug: str) -> Figure:
    """Accuracy on every mixture after both stages, one facet a scale, with chance."""
    b, name = panel.benchmarks.index(slug), panel.displays[slug]
    sides = [(scale, stage) for scale in panel.scales for stage in STAGES]
    values = {side: panel.matrix(*side)[:, b] for side in sides}
    errors = {side: np.nan_to_num(Z95 * panel.stderr(*side)[:, b]) for side in sides}
    chance = {scale: _chance(panel, scale, b) for scale in panel.scales}
    low, high = _range([*chance.values(), *(v + sign * errors[side] for side, v in values.items() for sign in (-1, 1))])
    bottom = 34 + ROW * len(panel.mixtures)
    scene = Scene(WIDTH, bottom + 44, f"{name}: accuracy on every mixture, after pretraining and after fine-tuning")
    wide = WIDTH / len(panel.scales)
    for i, scale in enumerate(panel.scales):
        x = Axis(low, high, i * wide + NAMES + 12, (i + 1) * wide - 24)
        scene.text(x.start, 14, scale, "head")
        scene.value_axis(x, x.ticks(), 24, bottom)
        if math.isfinite(chance[scale]):
            scene.line(x(chance[scale]), 24, x(chance[scale]), bottom, "dashed", f"chance {chance[scale]:.3f}")
        for m, mixture in enumerate(panel.mixtures):
            scene.text(i * wide + NAMES, 38 + ROW * m, mixture, "small", "end")
            # PT is drawn a little above the line of its mixture and SFT below it, so that neither hides the other.
            for stage, up in zip(STAGES, (-3.5, 3.5), strict=True):
                tip, y = f"{mixture}, {scale}, {stage}", 34 + ROW * m + up
                _draw_accuracy(scene, x, y, stage, values[scale, stage][m], errors[scale, stage][m], tip)
    _draw_legend(scene, NAMES + 12, bottom + 34)
    caption = "Share of right answers, with 95 % intervals (± 1.96 standard errors over examples)."
    return Figure(f"accuracy_{slug}", "Accuracy of every mixture", caption, scene)


def _range(numbers: Sequence[float | np.ndarray]) -> tuple[float, float]:
    """Ends of an axis that shows all finite numbers with a margin; [0, 1] where there are none."""
    known = np.hstack(numbers)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    margin = 0.04 * (high - low) + 0.005
    return low - margin, high + margin


def _draw_accuracy(scene: Scene, x: Axis, y: float, stage: str, value: float, error: float, tip: str) -> None:
    """A dot with its interval; nothing where it was not measured."""
    if not math.isfinite(value):
        return
    if error:
        hue = "soft" if stage == "PT" else "hue0"
        scene.line(x(value - error), y, x(value + error), y, f"whisker curve {hue}")
    interval = f"[{value - error:.3f}, {value + error:.3f}]"
    scene.dot(x(value), y, 3.6, "hollow" if stage == "PT" else "end hue0", f"{tip}: {value:.3f} {interval}")


def _draw_legend(scene: Scene, left: float, y: float) -> None:
    for stage, cls, words in (("PT", "hollow", "after pretraining"), ("SFT", "end hue0", "after fine-tuning")):
        scene.dot(left + 4, y, 3.6, cls)
        scene.text(left + 14, y + 4, f"{stage}, {words}", "small")
        left += 170
    scene.line(left, y, left + 20, y, "dashed")
    scene.text(left + 26, y + 4, "chance", "small")


def _chance(panel: Panel, scale: str, b: int) -> float:
    both = np.concatenate([panel.matrix(scale, stage, "chance", "")[:, b] for stage in STAGES])
    return float(mean_measured(both))


# ---------------------------------------------------------------------------------------------- reliability


def diagram(panel: Panel, scale: str, stage: str, slug: str, metric: str) -> ReliabilityDiagram | None:
    """Reliability over the answers of all mixtures; None: no answers. metric: confidence or confidence_scaled."""
    sure, right = (panel.answers_over_seeds(scale, stage, slug, name) for name in (metric, "accuracy"))
    if not panel.average_seeds:
        sure, right = sure[:1], right[:1]
    there = np.isfinite(sure) & np.isfinite(right)
    if not there.any():
        return None
    sure, right = sure[there], right[there]
    return reliability_diagram(sure, right, np.zeros(len(sure), np.int64), 1, width_bins(sure))


def reliability_figure(panel: Panel, slug: str) -> Figure | None:
    """One benchmark: a diagram for every scale and stage; None without single answers."""
    name, sides = panel.displays[slug], [(scale, stage) for scale in panel.scales for stage in STAGES]
    wide = WIDTH / max(4, len(sides))
    side = min(wide - 54, 216.0)
    scene = Scene(wide * len(sides), side + 80, f"{name}: accuracy against confidence, in bins of confidence")
    drawn = [
        _diagram(scene, panel, *place, slug, (i * wide + 38, 30.0), side, detailed=True)
        for i, place in enumerate(sides)
    ]
    if not any(drawn):
        return None
    for i, (scale, stage) in enumerate(sides):
        scene.text(i * wide + 38, 16, f"{scale}, {stage}", "head")
        scene.text(i * wide + 38 + side / 2, side + 62, "confidence", "soft small", "middle")
    scene.text(8, 30 + side / 2, "accuracy", "soft small", "middle", turn=-90)
    return Figure(f"reliability_{slug}", "As often right as sure?", READING, scene)


def reliability_overview(panel: Panel, scale: str) -> Figure | None:
    """Small diagrams of all benchmarks of a scale, PT and SFT side by side; None without single answers."""
    wide, high, side = WIDTH / COLUMNS, 142.0, 82.0
    lines = -(-len(panel.benchmarks) // COLUMNS)
    scene = Scene(WIDTH, high * lines + 10, f"{scale}: accuracy against confidence of every benchmark, PT and SFT")
    drawn = []
    for b, slug in enumerate(panel.benchmarks):
        left, top = wide * (b % COLUMNS) + 20, high * (b // COLUMNS)
        scene.text(left, top + 14, panel.displays[slug], f"strong {panel.hue(panel.category_of[slug])}")
        for s, stage in enumerate(STAGES):
            place = left + s * (side + 18), top + 34
            scene.text(place[0], top + 28, stage, "soft small")
            drawn.append(_diagram(scene, panel, scale, stage, slug, place, side, detailed=False))
    if not any(drawn):
        return None
    return Figure(
        f"reliability_{scale}",
        f"Are answers as often right as sure? {scale}",
        f"Accuracy (up) against confidence (right), both from 0 to 1, after PT and after SFT. {READING}",
        scene,
    )


def _diagram(
    scene: Scene,
    panel: Panel,
    scale: str,
    stage: str,
    slug: str,
    place: tuple[float, float],
    side: float,
    *,
    detailed: bool,
) -> bool:
    """One square; detailed: with its axes and a tip at every bin, else one tip for the whole. False: nothing known."""
    left, top = place
    x, y = Axis(0, 1, left, left + side), Axis(0, 1, top + side, top)
    found = [diagram(panel, scale, stage, slug, metric) for metric, *_ in SERIES]
    known = any(found)
    error = _format_errors(panel, scale, stage, slug, digits=3 if detailed else 2)
    if known and not detailed:
        tip = f"{panel.displays[slug]}, {scale}, {stage}: {error} (mean over mixtures, before and after temperature)"
        scene.rect(left, top, side, side, cls="ring", tip=tip)
    scene.unit_square(x, y, below=detailed, beside=detailed)
    for bins, (_, dot, line, reading) in zip(found, SERIES, strict=True):
        if bins is not None:
            _draw_bins(scene, x, y, bins, (dot, line), f"{stage}, {reading}" if detailed else "")
    if known:
        scene.text(x(0), y(0) + (46 if detailed else 13), error, "small" if detailed else "soft small")
    else:
        scene.text(x(0.5), y(0.5), "no answers", "soft small", "middle")
    return known


def _format_errors(panel: Panel, scale: str, stage: str, slug: str, digits: int) -> str:
    """Expected calibration error before and after the temperature, means over mixtures, e.g. `ECE 0.12 → 0.03`."""
    b = panel.benchmarks.index(slug)
    errors = [float(mean_measured(panel.matrix(scale, stage, name)[:, b])) for name in ("ece", "ece_scaled")]
    return "ECE " + " → ".join(f"{e:.{digits}f}" for e in errors if math.isfinite(e))


def _draw_bins(scene: Scene, x: Axis, y: Axis, bins: ReliabilityDiagram, classes: tuple[str, str], tip: str) -> None:
    """A dot for each bin that has answers, and the line through them; with a tip the dots are larger."""
    dot, line = classes
    filled = np.flatnonzero(bins.count[0])
    count, confidence, accuracy = (side[0, filled] for side in (bins.count, bins.confidence, bins.accuracy))
    scene.path([(x(sure), y(right)) for sure, right in zip(confidence, accuracy, strict=True)], line)
    for answers, sure, right in zip(count, confidence, accuracy, strict=True):
        # The area of a dot, not its radius, is in proportion to the answers.
        root = math.sqrt(answers / count.sum())
        words = f"{tip}: confidence {sure:.2f}, accuracy {right:.2f}, {answers:,.0f} answers" if tip else ""
        scene.dot(x(sure), y(right), (1.6 + 6 * root) if tip else (0.8 + 3 * root), dot, words)
