"""Loss curves from run folders, and their figure.

In: <runs>/<study>/<scale>/<mixture>/seed<k>/pt/metrics.jsonl. Out: `Curve`s and a `Figure`. A study of
published score files has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.panel.held_out import read_lines
from analysis.panel.panel import Panel
from analysis.rendering.formats import format_count
from configs.drawing.scene import WIDTH, Axis, Figure, Scene
from configs.layout import stage_name
from configs.untrusted.checks import is_name, understood

BINS = 60  # training loss is noisy from step to step; its curve is the mean over as many stretches
BOTTOM = 300  # of the plots, in px


@dataclass(frozen=True)
class Curve:
    scale: str
    mixture: str
    seed: int
    kind: str
    """Kind of the losses in `points`: validation where there is more than one pass, else training."""
    points: tuple[tuple[float, float], ...]
    """(tokens, loss in nats a token)."""
    validation: tuple[tuple[float, float], ...]
    """Mean over the held-out sources."""


def loss_curves(panel: Panel) -> list[Curve]:
    """Curves of the pretraining runs that exist."""
    curves = []
    for scale in panel.scales:
        for mixture in panel.mixtures:
            for seed in panel.seeds:
                if not (is_name(scale) and is_name(mixture)):
                    continue  # numbers that were given: nothing was trained here
                path = panel.study.run(scale, mixture, seed, stage_name()).metrics
                if path.is_file():
                    with understood(path, hint="rerun the training"):
                        curves.append(_curve(read_lines(path), scale, mixture, seed))
    return curves


def _curve(lines: list[dict[str, Any]], scale: str, mixture: str, seed: int) -> Curve:
    validation = tuple(
        (float(line["tokens"]), float(np.mean(list(line["validation"].values()))))
        for line in lines
        if line.get("validation")
    )
    if len(validation) > 1:
        return Curve(scale, mixture, seed, "validation", validation, validation)
    points = tuple((point["tokens"], point["loss"]) for point in binned(lines))
    return Curve(scale, mixture, seed, "training", points, validation)


def binned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `BINS` training lines of a metrics.jsonl, each the mean of those since the one before; binned ones are
    their own."""
    steps = np.array([[line[key] for key in ("step", "tokens", "loss")] for line in lines if "loss" in line], float)
    parts = np.array_split(steps, min(BINS, len(steps))) if len(steps) else []
    return [
        {"step": int(part[-1, 0]), "tokens": float(part[:, 1].mean()), "loss": float(part[:, 2].mean())}
        for part in parts
    ]


def loss_figure(panel: Panel, curves: Sequence[Curve]) -> Figure | None:
    """Loss against tokens for the first seed of every mixture; None without run folders."""
    curves = [c for c in curves if c.seed == panel.seeds[0] and c.points]
    scales = [s for s in panel.scales if any(c.scale == s for c in curves)]
    if not scales:
        return None
    wide = WIDTH / len(scales)
    scene = Scene(WIDTH, BOTTOM + 50, "Pretraining loss against tokens, by mixture and scale")
    for i, scale in enumerate(scales):
        _draw_scale(scene, panel, [c for c in curves if c.scale == scale], i * wide + 46, (i + 1) * wide - 70)
    return Figure(
        "loss",
        "Loss while pretraining",
        "Hue: web source; solid, dashed, dotted: rising share of code. Dots: loss on held-out documents, mean over the "
        "mixture's sources. Losses of different mixtures are on different text and do not rank them. The start is "
        "cut off.",
        scene,
    )


def _draw_scale(scene: Scene, panel: Panel, curves: Sequence[Curve], left: float, right: float) -> None:
    """The curves of one scale between two positions, with axes and a label at the end of each curve."""
    points = [point for c in curves for point in (*c.points, *c.validation)]
    losses = np.array([loss for _, loss in points])
    # The steep start would flatten all that follows: the highest 15 % of the losses are cut off.
    low, high = losses.min(), np.quantile(losses, 0.85)
    x = Axis(0, max(tokens for tokens, _ in points), left, right)
    y = Axis(low - 0.05 * (high - low) - 1e-9, high + 1e-9, BOTTOM, 28)
    scene.text(left, 14, f"{curves[0].scale}: {curves[0].kind} loss, nats a token", "head")
    for tick in y.ticks():
        scene.line(x.start, y(tick), x.end, y(tick), "grid")
        scene.text(x.start - 6, y(tick) + 4, f"{tick:g}", "soft small", "end")
    for tick in x.ticks(4):
        scene.text(x(tick), BOTTOM + 16, format_count(tick), "soft small", "middle")
    for c in curves:
        hue, dash, tip = _style(panel, c.mixture)
        scene.path([(x(t), y(loss)) for t, loss in c.points if loss <= high], f"curve {hue} {dash}", tip)
        for t, loss in c.validation:
            scene.dot(x(t), y(loss), 3.2, f"end {hue}", f"{tip}; validation loss {loss:.3f}")
    ends = [(y((c.validation or c.points)[-1][1]), c.mixture) for c in curves]
    place = np.inf
    for height, mixture in sorted(ends, reverse=True):
        place = min(height + 4, place - 12, BOTTOM + 10)  # labels that would overlap move up
        scene.text(x.end + 10, place, mixture, "small")
    scene.text((x.start + x.end) / 2, BOTTOM + 34, "training tokens", "soft small", "middle")


def _style(panel: Panel, mixture: str) -> tuple[str, str, str]:
    """(hue of the web source, dash of the code share, tip) of a mixture's curve."""
    design = panel.design.get(mixture)
    if design is None:
        return "", "", mixture
    webs = list(dict.fromkeys(d.web for d in panel.design.values()))
    same = [m for m, d in panel.design.items() if d.web == design.web]
    tip = f"{mixture}: {design.web}, {design.code_percent or 0:g} % code"
    return f"hue{webs.index(design.web) % 3}", f"dash{same.index(mixture) % 3}", tip
