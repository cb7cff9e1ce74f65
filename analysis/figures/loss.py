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
from analysis.rendering.drawing import WIDTH, Axis, Figure, Scene
from configs.untrusted.checks import is_name, understood

BINS = 60  # training loss is noisy from step to step; its curve is the mean over as many stretches


@dataclass(frozen=True)
class Curve:
    scale: str
    mixture: str
    seed: int
    kind: str
    """What `points` are: validation where there is more than one pass, else training."""
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
                path = panel.study.run(scale, mixture, seed, "pt").metrics
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
    webs = list(dict.fromkeys(d.web for d in panel.design.values()))
    wide, bottom = WIDTH / len(scales), 300
    scene = Scene(WIDTH, 350, "Pretraining loss against tokens, by mixture and scale")
    for i, scale in enumerate(scales):
        mine = [c for c in curves if c.scale == scale]
        losses = np.array([loss for c in mine for _, loss in (*c.points, *c.validation)])
        tokens = max(t for c in mine for t, _ in (*c.points, *c.validation))
        low, high = losses.min(), np.quantile(losses, 0.85)
        x = Axis(0, tokens, i * wide + 46, (i + 1) * wide - 70)
        y = Axis(low - 0.05 * (high - low) - 1e-9, high + 1e-9, bottom, 28)
        scene.text(i * wide + 46, 14, f"{scale}: {mine[0].kind} loss, nats a token", "head")
        for tick in y.ticks():
            scene.line(x.start, y(tick), x.end, y(tick), "grid")
            scene.text(x.start - 6, y(tick) + 4, f"{tick:g}", "soft small", "end")
        for tick in x.ticks(4):
            scene.text(x(tick), bottom + 16, _tokens(tick), "soft small", "middle")
        ends = []
        for c in mine:
            design = panel.design.get(c.mixture)
            same = [m for m, d in panel.design.items() if design and d.web == design.web]
            hue = f"hue{webs.index(design.web) % 3}" if design else ""
            dash = f"dash{same.index(c.mixture) % 3}" if design else ""
            tip = f"{c.mixture}" + (f": {design.web}, {design.code_percent or 0:g} % code" if design else "")
            scene.path([(x(t), y(loss)) for t, loss in c.points if loss <= high], f"curve {hue} {dash}", tip)
            for t, loss in c.validation:
                scene.dot(x(t), y(loss), 3.2, f"end {hue}", f"{tip}; validation loss {loss:.3f}")
            ends.append((y((c.validation or c.points)[-1][1]), c.mixture))
        place = np.inf
        for height, mixture in sorted(ends, reverse=True):
            place = min(height + 4, place - 12, bottom + 10)  # labels that would overlap move up
            scene.text(x.end + 10, place, mixture, "small")
        scene.text((x.start + x.end) / 2, bottom + 34, "training tokens", "soft small", "middle")
    return Figure(
        "loss",
        "Loss while pretraining",
        "Hue: web source; solid, dashed, dotted: rising share of code. Dots: loss on held-out documents, mean over the "
        "mixture's sources. Losses of different mixtures are on different text and do not rank them. The start is "
        "cut off.",
        scene,
    )


def _tokens(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"
