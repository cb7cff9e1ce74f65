"""What is seen first: correlations by benchmark, accuracies, confidence, seed noise and the declared order.

In: matrices and estimates. Out: `Figure`s: title, caption and SVG. What was not measured is drawn as an empty place.
"""

from __future__ import annotations

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.correlations import alignment, seed_spread
from analysis.rendering.drawing import WIDTH, Axis, Figure, Scene, diverging, sequential
from analysis.rendering.table import Row, Table
from analysis.rendering.writers import format_verdict
from analysis.stats.estimates import Estimate, mean_measured

FIGURE_2 = {"accuracy": "2a", "confidence": "2b"}
NAMES = 128  # room for a benchmark's name
ROW = 19


def cross_stage(panel: Panel, table5: Table, metric: str) -> Figure:
    """Dots with intervals, one row a benchmark, one column of rows a scale; the paper's numbers as diamonds."""
    slugs = panel.benchmarks
    scene = Scene(WIDTH, 62 + ROW * (len(slugs) + 1), f"Cross-stage correlation of {metric}, by benchmark and scale")
    wide = (WIDTH - NAMES) / len(panel.scales)
    for i, scale in enumerate(panel.scales):
        left = NAMES + i * wide
        x = Axis(-1, 1, left + 12, left + wide - 22)
        scene.text(left + 12, 14, _scale_title(panel, scale), "head")
        bottom = 40 + ROW * (len(slugs) + 1)
        for tick in (-1, -0.5, 0, 0.5, 1):
            scene.line(x(tick), 26, x(tick), bottom, "zero" if tick == 0 else "grid")
            scene.text(x(tick), bottom + 14, f"{tick:+g}".replace("-", "−") if tick else "0", "soft small", "middle")
        rows = [row for row in table5.rows if row.keys[:2] == (scale, metric)]
        for k, row in enumerate(rows):
            y = 38 + ROW * k
            mean = row.keys[2] == "Mean"
            if i == 0:
                scene.text(
                    NAMES, y + 4, f"Mean of {len(slugs)}" if mean else row.keys[3], "strong" if mean else "", "end"
                )
            _whisker(scene, x, y, row, "mean" if mean else panel.hue(row.keys[2]))
    return Figure(
        f"cross_stage_{metric}",
        f"{metric.capitalize()}: does the order of mixtures survive fine-tuning? (Figure {FIGURE_2[metric]})",
        "Pearson r between PT and SFT over mixtures (equations 1 and 2), with its 95 % interval. ◇ the paper's number. "
        "Hollow: the benchmark's reliability is too low for a claim (mixtures differ by little more than noise).",
        scene,
    )


def _whisker(scene: Scene, x: Axis, y: float, row: Row, hue: str) -> None:
    e = row.estimate
    tip = (
        f"{row.keys[3]}: {_format_estimate(e)}"
        + (f"; paper {row.paper:+.2f}" if row.paper is not None else "")
        + f"; {format_verdict(row)}"
    )
    if e.low is not None and e.high is not None:
        scene.line(x(e.low), y, x(e.high), y, f"whisker {hue}", tip)
    if row.paper is not None:
        scene.diamond(x(row.paper), y, 5, "paper", tip)
    if e.value is not None:
        scene.dot(x(e.value), y, 4.2, "hollow" if row.no_claim else hue, tip)
    else:
        scene.text(x(0), y + 4, e.reason or "not measured", "soft small", "middle")


def accuracy_heatmap(panel: Panel) -> Figure:
    """Benchmark x mixture for every scale and stage."""
    cell_w = max(24.0, min(44.0, (WIDTH / 2 - NAMES - 70) / max(1, len(panel.mixtures))))
    block_w = NAMES + 58 + cell_w * len(panel.mixtures) + 24
    columns = 2 if 2 * block_w <= WIDTH + 30 else 1
    blocks = [(scale, stage) for scale in panel.scales for stage in STAGES]
    block_h = 58 + ROW * len(panel.benchmarks) + 18
    height = block_h * -(-len(blocks) // columns)
    scene = Scene(block_w * columns, height, "Accuracy by benchmark and mixture, for every scale and stage")
    for index, (scale, stage) in enumerate(blocks):
        left, top = block_w * (index % columns), block_h * (index // columns)
        values, stderr = panel.mean_over_seeds(scale, stage), panel.stderr(scale, stage)
        chance = panel.mean_over_seeds(scale, stage, "chance", "")
        scene.text(left + NAMES + 58, top + 14, f"{scale}, {stage}", "head")
        scene.text(left + NAMES + 50, top + 46, "chance", "soft small", "end")
        start = left + NAMES + 58
        for m, mixture in enumerate(panel.mixtures):
            scene.text(start + cell_w * (m + 0.5), top + 46, mixture, "soft small", "middle")
        for b, slug in enumerate(panel.benchmarks):
            y = top + 52 + ROW * b
            scene.text(left + NAMES, y + 13, panel.displays[slug], panel.hue(panel.category_of[slug]), "end")
            level = chance[np.isfinite(chance[:, b]), b]
            scene.text(left + NAMES + 50, y + 13, f"{level[0]:.2f}" if len(level) else "", "soft small", "end")
            for m, mixture in enumerate(panel.mixtures):
                x, value = start + cell_w * m, values[m, b]
                if not np.isfinite(value):
                    scene.rect(
                        x + 1,
                        y + 1,
                        cell_w - 2,
                        ROW - 2,
                        cls="empty",
                        tip=f"{panel.displays[slug]}, {mixture}: not measured",
                    )
                    continue
                fill, ink = sequential((value - 0.2) / 0.7)
                tip = f"{panel.displays[slug]}, {mixture}: {value:.3f} ± {stderr[m, b]:.3f}, chance {chance[m, b]:.3f}"
                scene.rect(x, y, cell_w - 1, ROW - 1, fill, tip=tip)
                clear = value - chance[m, b] > 3 * stderr[m, b]
                words = f"{value:.2f}".lstrip("0") or "0"
                scene.text(x + cell_w / 2, y + 13, words, "small strong" if clear else "small", "middle", ink)
    return Figure(
        "accuracy",
        "Accuracy of every benchmark on every mixture",
        "Argmax of the summed log-probability, mean over seeds; light is high. Bold: above chance by more than three "
        "standard errors. Chance is uniform guessing or, where all rows share their candidates, a larger majority "
        "class. Dashed: not measured.",
        scene,
    )


def alignment_scatter(panel: Panel) -> Figure:
    """Accuracy against confidence, a dot for each mixture and benchmark."""
    blocks = [(scale, stage) for scale in panel.scales for stage in STAGES]
    side = (WIDTH - 40) / max(4, len(blocks))
    scene = Scene(WIDTH, side + 118, "Confidence against accuracy, by category, scale and stage")
    for index, (scale, stage) in enumerate(blocks):
        left = 40 + index * side
        x, y = Axis(0, 1, left, left + side - 34), Axis(0, 1, 30 + side - 34, 30)
        scene.text(left, 16, f"{scale}, {stage}", "head")
        for tick in (0, 0.25, 0.5, 0.75, 1):
            scene.line(x(tick), y(0), x(tick), y(1), "grid")
            scene.line(x(0), y(tick), x(1), y(tick), "grid")
            if tick in (0, 0.5, 1):
                scene.text(x(tick), y(0) + 15, f"{tick:g}", "soft small", "middle")
                if index == 0:
                    scene.text(x(0) - 6, y(tick) + 4, f"{tick:g}", "soft small", "end")
        scene.line(x(0), y(0), x(1), y(1), "dashed", "confidence = accuracy")
        accuracy, confidence = panel.matrix(scale, stage), panel.matrix(scale, stage, "confidence")
        for k, category in enumerate(panel.categories):
            for b in panel.members(category):
                for m in np.flatnonzero(np.isfinite(accuracy[:, b]) & np.isfinite(confidence[:, b])):
                    tip = f"{panel.displays[panel.benchmarks[b]]}, {panel.mixtures[m]}"
                    tip += f": accuracy {accuracy[m, b]:.3f}, confidence {confidence[m, b]:.3f}"
                    scene.dot(x(accuracy[m, b]), y(confidence[m, b]), 2.6, f"cloud {panel.hue(category)}", tip)
            e = alignment(panel, scale, stage, category, "averaged")
            words = "not measured" if e.value is None else f"r {e.value:+.2f}, p {e.p:.1g}, n {e.n}".replace("-", "−")
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
    spreads = {
        (scale, stage): seed_spread(panel, scale, stage, "accuracy") for scale in panel.scales for stage in STAGES
    }
    if not any(np.isfinite(s).any() for s in spreads.values()):
        return None
    wide = (WIDTH - NAMES) / len(spreads)
    bottom = 40 + ROW * len(panel.benchmarks)
    scene = Scene(WIDTH, bottom + 24, "Spread of accuracy over seeds and over mixtures, by benchmark")
    parts = {}

    def spread(values: np.ndarray) -> float:
        measured = values[np.isfinite(values)]
        return float(np.std(measured, ddof=1)) if len(measured) > 1 else np.nan

    for (scale, stage), seeds in spreads.items():
        mixtures = np.array([spread(column) for column in panel.matrix(scale, stage).T])
        parts[scale, stage] = seeds, mixtures, mean_measured(panel.stderr(scale, stage))
    top = max(float(np.nanmax(np.stack(three))) for three in parts.values())
    for i, ((scale, stage), (seeds, mixtures, sample)) in enumerate(parts.items()):
        left = NAMES + i * wide
        x = Axis(0, top * 1.05, left + 12, left + wide - 20)
        scene.text(left + 12, 14, f"{scale}, {stage}", "head")
        for tick in x.ticks(4):
            scene.line(x(tick), 24, x(tick), bottom, "grid")
            scene.text(x(tick), bottom + 14, f"{tick:g}", "soft small", "middle")
        for b, slug in enumerate(panel.benchmarks):
            y = 36 + ROW * b
            if i == 0:
                scene.text(NAMES, y + 4, panel.displays[slug], panel.hue(panel.category_of[slug]), "end")
            if np.isfinite(sample[b]):
                scene.line(
                    x(sample[b]), y - 5, x(sample[b]), y + 5, "tick", f"standard error over examples {sample[b]:.3f}"
                )
            if np.isfinite(seeds[b]):
                scene.dot(x(seeds[b]), y, 4, "hollow", f"standard deviation over seeds {seeds[b]:.3f}")
            if np.isfinite(mixtures[b]):
                tip = f"standard deviation over mixtures {mixtures[b]:.3f}"
                scene.dot(x(mixtures[b]), y, 4, panel.hue(panel.category_of[slug]), tip)
    return Figure(
        "seed_noise",
        "Is the difference between mixtures more than noise?",
        "Standard deviation of accuracy: ● over mixtures, ○ over seeds of one mixture, | standard error over examples. "
        "Where ○ reaches ●, mixtures differ no more than seeds do and no order of mixtures can be claimed.",
        scene,
    )


def declared_order(panel: Panel, found: dict[tuple[str, str], dict[str, Estimate]]) -> Figure:
    """Spearman between declared and measured order of mixtures; found[scale, stage][slug]."""
    slugs = list(next(iter(found.values())))
    wide, bottom = (WIDTH - NAMES) / len(found), 42 + ROW * (len(slugs) + 1)
    scene = Scene(WIDTH, bottom + 4, "Spearman correlation between declared and measured order of mixtures")
    for i, ((scale, stage), estimates) in enumerate(found.items()):
        left = NAMES + i * wide
        scene.text(left + 12, 14, f"{scale}, {stage}", "head")
        values = [e.value for e in estimates.values() if e.value is not None]
        for k, slug in enumerate([*slugs, "mean"]):
            y = 24 + ROW * k + (6 if slug == "mean" else 0)
            if i == 0:
                name = "Mean" if slug == "mean" else panel.displays[slug]
                scene.text(
                    NAMES, y + 13, name, "strong" if slug == "mean" else panel.hue(panel.category_of[slug]), "end"
                )
            value = (float(np.mean(values)) if values else None) if slug == "mean" else estimates[slug].value
            if value is None:
                scene.rect(left + 12, y, wide - 24, ROW - 2, cls="empty")
                scene.text(
                    left + wide / 2, y + 13, "" if slug == "mean" else estimates[slug].reason, "soft small", "middle"
                )
                continue
            tip = f"mean of {len(values)} benchmarks" if slug == "mean" else _format_estimate(estimates[slug])
            scene.rect(left + 12, y, wide - 24, ROW - 2, cls=diverging(value), tip=tip)
            p = "" if slug == "mean" else f"   p {estimates[slug].p:.2g}, n {estimates[slug].n}"
            words = f"{value:+.2f}{p}".replace("-", "−")
            scene.text(left + wide / 2, y + 13, words, "strong small" if slug == "mean" else "small", "middle")
    return Figure(
        "declared_order",
        "Was the declared order of mixtures found?",
        "The generator of the synthetic world declared, before any training, which mixtures should do better on which "
        "benchmark. Spearman's rank correlation of the declared dose with measured accuracy (mean over seeds), over "
        "mixtures; blue agrees.",
        scene,
    )


def _scale_title(panel: Panel, scale: str) -> str:
    paper = panel.paper_scale(scale)
    return scale if paper is None or paper.lower() == scale.lower() else f"{scale} (beside the paper's {paper})"


def _format_estimate(e: Estimate) -> str:
    if e.value is None:
        return e.reason
    interval = "" if e.low is None else f" [{e.low:+.2f}, {e.high:+.2f}]"
    return (
        f"r {e.value:+.2f}{interval}, n {e.n}, p {e.p:.2g}" if e.p is not None else f"{e.value:+.2f}{interval}, n {e.n}"
    )
