"""Figures 3, 4 and 8 to 11: every benchmark with every other, as heat maps.

In: `Panel`. Out: `Figure`s; a cell's tip has its two benchmarks, r and n.
"""

from __future__ import annotations

import numpy as np

from analysis.panel.panel import Panel
from analysis.protocols.matrices import SIDES, Matrix, matrix
from analysis.rendering.formats import format_signed
from configs.drawing.scene import WIDTH, Figure, Scene, diverging, format_tick

LABELS = 112  # room for a benchmark's name
TOP = 112
TITLES = {
    ("confidence", "cross"): ("figure3", "Confidence after PT with confidence after SFT (Figures 3 and 11)"),
    ("confidence", "PT"): ("figure4a", "Confidence of benchmarks with each other after PT (Figure 4a)"),
    ("confidence", "SFT"): ("figure4b", "Confidence of benchmarks with each other after SFT (Figure 4b)"),
    ("accuracy", "PT"): ("figure8", "Accuracy of benchmarks with each other after PT (Figure 8)"),
    ("accuracy", "SFT"): ("figure9", "Accuracy of benchmarks with each other after SFT (Figure 9)"),
    ("accuracy", "cross"): ("figure10", "Accuracy after PT with accuracy after SFT (Figure 10)"),
}


def matrix_figures(panel: Panel) -> list[Figure]:
    return [matrix_figure(panel, metric, protocol) for metric, protocol in TITLES if panel.has(metric)]


def matrix_figure(panel: Panel, metric: str, protocol: str) -> Figure:
    """One heat map a scale, side by side; lines part the categories."""
    name, title = TITLES[metric, protocol]
    cell = min(20.0, (WIDTH / len(panel.scales) - LABELS - 16) / max(1, len(panel.benchmarks)))
    size = cell * len(panel.benchmarks)
    scene = Scene(WIDTH, TOP + size + 40, title)
    for i, scale in enumerate(panel.scales):
        left = i * (WIDTH / len(panel.scales)) + LABELS
        scene.text(left - LABELS, 14, scale, "head")
        _draw(scene, panel, matrix(panel, scale, protocol, metric), left, cell)
    _legend(scene, TOP + size + 14)
    rows, columns = SIDES[protocol]
    return Figure(
        name,
        title,
        f"Pearson r over mixtures; rows: {rows}, columns: {columns}. "
        + ("The diagonal is the cross-stage correlation of Table 5. " if protocol == "cross" else "")
        + "All pairs come from the same mixtures and are not independent. Dashed: not measured or without variation.",
        scene,
    )


def _draw(scene: Scene, panel: Panel, found: Matrix, left: float, cell: float) -> None:
    names = [panel.displays[slug] for slug in found.benchmarks]
    hues = [panel.hue(panel.category_of[slug]) for slug in found.benchmarks]
    rows, columns = SIDES[found.protocol]
    for b, (name, hue) in enumerate(zip(names, hues, strict=True)):
        middle = TOP + cell * (b + 0.5)
        scene.text(left - 5, middle + 4, name, f"small {hue}", "end")
        x = left + cell * (b + 0.5) + 4
        scene.text(x, TOP - 5, name, f"small {hue}", "start", turn=-90)
    for (i, j), r in np.ndenumerate(found.values):
        x, y = left + cell * j, TOP + cell * i
        tip = f"{rows} {names[i]} with {columns} {names[j]}: "
        if np.isnan(r):
            scene.rect(x + 1, y + 1, cell - 2, cell - 2, cls="empty", tip=f"{tip}not measured or no variation")
        else:
            tip += f"r {format_signed(r)}, n {found.n[i, j]}"
            scene.rect(x, y, cell - 0.7, cell - 0.7, cls=diverging(float(r)), tip=tip)
    for b in range(1, len(hues)):
        if hues[b] != hues[b - 1]:
            end = cell * len(hues)
            scene.line(left, TOP + cell * b, left + end, TOP + cell * b, "axis")
            scene.line(left + cell * b, TOP, left + cell * b, TOP + end, "axis")


def _legend(scene: Scene, top: float) -> None:
    """Draw the eight colours with the correlations that they stand for."""
    for k in range(9):
        if k < 8:
            scene.rect(LABELS + 40 * k, top, 39, 10, cls=diverging(-0.875 + k / 4))
        scene.text(LABELS + 40 * k, top + 22, format_tick(-1 + k / 4), "soft small", "middle")
