"""All benchmarks at once: accuracies, confidence, seed noise and the declared order of mixtures.

In: matrices and estimates. Out: `Figure`s: title, caption and SVG. What was not measured is drawn as an empty place.
"""

from __future__ import annotations

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.correlations import alignment, seed_spread
from analysis.rendering.formats import format_estimate_of, format_signed
from analysis.stats.estimates import Estimate, mean_measured
from configs.drawing.scene import WIDTH, Axis, Figure, Scene, diverging, sequential

NAMES = 128  # room for a benchmark's name
ROW = 19


def accuracy_heatmap(panel: Panel) -> Figure:
    """Benchmark x mixture for every scale and stage."""
    cell = max(24.0, min(44.0, (WIDTH / 2 - NAMES - 70) / max(1, len(panel.mixtures))))
    block_w = NAMES + 58 + cell * len(panel.mixtures) + 24
    columns = 2 if 2 * block_w <= WIDTH + 30 else 1
    blocks = [(scale, stage) for scale in panel.scales for stage in STAGES]
    block_h = 58 + ROW * len(panel.benchmarks) + 18
    height = block_h * -(-len(blocks) // columns)
    scene = Scene(block_w * columns, height, "Accuracy by benchmark and mixture, for every scale and stage")
    for index, side in enumerate(blocks):
        _draw_block(scene, panel, side, block_w * (index % columns), block_h * (index // columns), cell)
    return Figure(
        "accuracy",
        "Accuracy of every benchmark on every mixture",
        "Argmax of the summed log-probability, mean over seeds; light is high. Bold: above chance by more than three "
        "standard errors. Chance is uniform guessing or, where all rows share their candidates, a larger majority "
        "class. Dashed: not measured.",
        scene,
    )


def _draw_block(scene: Scene, panel: Panel, side: tuple[str, str], left: float, top: float, cell: float) -> None:
    """One heat map; side: scale and stage, cell: width of a cell in px."""
    values, stderr, chance = (
        panel.mean_over_seeds(*side),
        panel.stderr(*side),
        panel.mean_over_seeds(*side, "chance", ""),
    )
    start = left + NAMES + 58
    scene.text(start, top + 14, ", ".join(side), "head")
    scene.text(start - 8, top + 46, "chance", "soft small", "end")
    for m, mixture in enumerate(panel.mixtures):
        scene.text(start + cell * (m + 0.5), top + 46, mixture, "soft small", "middle")
    for b, slug in enumerate(panel.benchmarks):
        # Chance is the same for every mixture, so that any measured one tells it.
        y, level = top + 52 + ROW * b, chance[np.isfinite(chance[:, b]), b]
        _name_benchmark(scene, panel, slug, y + 13, left)
        scene.text(start - 8, y + 13, f"{level[0]:.2f}" if len(level) else "", "soft small", "end")
        for m, mixture in enumerate(panel.mixtures):
            x, value, tip = start + cell * m, values[m, b], f"{panel.displays[slug]}, {mixture}: "
            if not np.isfinite(value):
                scene.rect(x + 1, y + 1, cell - 2, ROW - 2, cls="empty", tip=f"{tip}not measured")
                continue
            # Chance of five candidates is 0.2, and hardly a score is above 0.9: the colours cover what is between.
            fill, ink = sequential((value - 0.2) / 0.7)
            tip += f"{value:.3f} ± {stderr[m, b]:.3f}, chance {chance[m, b]:.3f}"
            scene.rect(x, y, cell - 1, ROW - 1, fill, tip=tip)
            clear = value - chance[m, b] > 3 * stderr[m, b]
            words = f"{value:.2f}".lstrip("0") or "0"
            scene.text(x + cell / 2, y + 13, words, "small strong" if clear else "small", "middle", ink)


def alignment_scatter(panel: Panel) -> Figure:
    """Accuracy against confidence, a dot for each mixture and benchmark."""
    blocks = [(scale, stage) for scale in panel.scales for stage in STAGES]
    side = (WIDTH - 40) / max(4, len(blocks))
    scene = Scene(WIDTH, side + 118, "Confidence against accuracy, by category, scale and stage")
    for index, (scale, stage) in enumerate(blocks):
        left = 40 + index * side
        x, y = Axis(0, 1, left, left + side - 34), Axis(0, 1, 30 + side - 34, 30)
        scene.text(left, 16, f"{scale}, {stage}", "head")
        scene.unit_square(x, y, below=True, beside=index == 0, tip="confidence = accuracy")
        accuracy, confidence = panel.matrix(scale, stage), panel.matrix(scale, stage, "confidence")
        for k, category in enumerate(panel.categories):
            for b in panel.members(category):
                for m in np.flatnonzero(np.isfinite(accuracy[:, b]) & np.isfinite(confidence[:, b])):
                    tip = f"{panel.displays[panel.benchmarks[b]]}, {panel.mixtures[m]}"
                    tip += f": accuracy {accuracy[m, b]:.3f}, confidence {confidence[m, b]:.3f}"
                    scene.dot(x(accuracy[m, b]), y(confidence[m, b]), 2.6, f"cloud {panel.hue(category)}", tip)
            e = alignment(panel, scale, stage, category, "averaged")
            words = "not measured" if e.value is None else f"r {format_signed(e.value)}, p {e.p:.1g}, n {e.n}"
            line = y(0) + 48 + 15 * k
            scene.dot(left + 4, line - 4, 3.6, panel.hue(category))
            scene.text(left + 12, line, f"{category}: {words}" if index == 0 else words, "small")
        scene.text((x(0) + x(1)) / 2, y(0) + 29, "accuracy", "soft small", "middle")
    scene.text(12, 30 + side / 2, "confidence", "soft small", "middle", turn=-90)
    return Figure(
        "alignment",
        "Do confident benchmarks score higher?",
        "One dot a mixture and benchmark. r: equation 8 within a category, averaged over mixtures; its points are the "
        "category's benchmarks. 1/K drives both axes, so Table 6 also gives chance-adjusted values. "
        "Dashed: confidence = accuracy.",
        scene,
    )


def seed_noise(panel: Panel) -> Figure | None:
    """Spread over seeds, over mixtures and of the sample, in accuracy; None where no mixture has two seeds."""
    sides = [(scale, stage) for scale in panel.scales for stage in STAGES]
    over_seeds = [seed_spread(panel, *side, "accuracy") for side in sides]
    if not np.isfinite(over_seeds).any():
        return None
    over_mixtures = [_spreads(panel.matrix(*side)) for side in sides]
    of_examples = [mean_measured(panel.stderr(*side)) for side in sides]
    # One range for all facets, so that spreads can be compared across scales and stages.
    highest = float(np.nanmax([over_seeds, over_mixtures, of_examples]))
    wide, bottom = (WIDTH - NAMES) / len(sides), 40 + ROW * len(panel.benchmarks)
    scene = Scene(WIDTH, bottom + 24, "Spread of accuracy over seeds and over mixtures, by benchmark")
    for b, slug in enumerate(panel.benchmarks):
        _name_benchmark(scene, panel, slug, 40 + ROW * b)
    for i, side in enumerate(sides):
        x = Axis(0, highest * 1.05, NAMES + i * wide + 12, NAMES + (i + 1) * wide - 20)
        scene.text(x.start, 14, ", ".join(side), "head")
        scene.value_axis(x, x.ticks(4), 24, bottom)
        for b, slug in enumerate(panel.benchmarks):
            y, examples, seeds, mixtures = 36 + ROW * b, of_examples[i][b], over_seeds[i][b], over_mixtures[i][b]
            if np.isfinite(examples):
                scene.line(
                    x(examples), y - 5, x(examples), y + 5, "tick", f"standard error over examples {examples:.3f}"
                )
            if np.isfinite(seeds):
                scene.dot(x(seeds), y, 4, "hollow", f"standard deviation over seeds {seeds:.3f}")
            if np.isfinite(mixtures):
                hue, tip = panel.hue(panel.category_of[slug]), f"standard deviation over mixtures {mixtures:.3f}"
                scene.dot(x(mixtures), y, 4, hue, tip)
    return Figure(
        "seed_noise",
        "Is the difference between mixtures more than noise?",
        "Standard deviation of accuracy: ● over mixtures, ○ over seeds of one mixture, | standard error over examples. "
        "Where ○ reaches ●, mixtures differ no more than seeds do and no order of mixtures can be claimed.",
        scene,
    )


def _spreads(accuracy: np.ndarray) -> np.ndarray:
    """Standard deviation over the measured mixtures of each benchmark; NaN for fewer than two."""
    measured = (column[np.isfinite(column)] for column in accuracy.T)
    return np.array([np.std(values, ddof=1) if len(values) > 1 else np.nan for values in measured])


def declared_order(panel: Panel, found: dict[tuple[str, str], dict[str, Estimate]]) -> Figure:
    """Spearman between declared and measured order of mixtures; found[scale, stage][slug]."""
    slugs = list(next(iter(found.values())))
    wide, bottom = (WIDTH - NAMES) / len(found), 42 + ROW * (len(slugs) + 1)
    scene = Scene(WIDTH, bottom + 4, "Spearman correlation between declared and measured order of mixtures")
    for k, slug in enumerate(slugs):
        _name_benchmark(scene, panel, slug, 24 + ROW * k + 13)
    mean_top = 30 + ROW * len(slugs)
    scene.text(NAMES, mean_top + 13, "Mean", "strong", "end")
    for i, ((scale, stage), estimates) in enumerate(found.items()):
        left = NAMES + i * wide + 12
        scene.text(left, 14, f"{scale}, {stage}", "head")
        for k, e in enumerate(estimates.values()):
            words = "" if e.value is None else f"{format_signed(e.value)}   p {e.p:.2g}, n {e.n}"
            _draw_correlation(scene, left, 24 + ROW * k, wide - 24, e, words)
        values = [e.value for e in estimates.values() if e.value is not None]
        mean = Estimate(float(np.mean(values)) if values else None, len(values), reason="not measured")
        words = "" if mean.value is None else f"{format_signed(mean.value)}, mean of {len(values)} benchmarks"
        _draw_correlation(scene, left, mean_top, wide - 24, mean, words)
    return Figure(
        "declared_order",
        "Was the declared order of mixtures found?",
        "The generator of the synthetic world declared, before any training, which mixtures should do better on which "
        "benchmark. Spearman's rank correlation of the declared dose with measured accuracy (mean over seeds), over "
        "mixtures; blue agrees.",
        scene,
    )


def _draw_correlation(scene: Scene, left: float, top: float, wide: float, e: Estimate, words: str) -> None:
    """A bar in the colour of a correlation with `words` in it, or an empty one with the reason."""
    cls = "empty" if e.value is None else diverging(e.value)
    scene.rect(left, top, wide, ROW - 2, cls=cls, tip=format_estimate_of(e))
    look = "soft small" if e.value is None else "small"
    scene.text(left + wide / 2, top + 13, words or e.reason, look, "middle")


def _name_benchmark(scene: Scene, panel: Panel, slug: str, y: float, left: float = 0) -> None:
    """The name of a row, in the colour of its category."""
    scene.text(left + NAMES, y, panel.displays[slug], panel.hue(panel.category_of[slug]), "end")
