"""Panels made from matrices, without score files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analysis.panel.panel import Design, Panel
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, PAPER_MIXTURES

WEBS = {"1": "RefinedWeb", "2": "FineWeb-Edu", "3": "DCLM"}
Cube = dict[tuple[str, str, str], np.ndarray]


def panel_of(cube: Cube, benchmarks: tuple[str, ...] | None = None, **change: Any) -> Panel:
    """One seed; cube[scale, stage, metric] is [mixtures, benchmarks]; the first scale named is the smallest."""
    mixtures, columns = next(iter(cube.values())).shape
    names = change.get("mixtures", PAPER_MIXTURES[:mixtures])
    fields: dict[str, Any] = {
        "study": StudyFolder(Path("runs"), "demo"),
        "config": None,
        "synthetic": True,
        "scales": tuple(dict.fromkeys(scale for scale, _, _ in cube)),
        "mixtures": names,
        "benchmarks": benchmarks or BENCHMARKS[:columns],
        "recipe": "mini",
        "other_recipes": (),
        "other_variants": (),
        "seeds": (0,),
        "average_seeds": False,
        "design": {m: Design(WEBS[m[1]], 25.0 + 10 * int(m[3])) for m in names},
        "values": {(*key, "sum"): np.asarray(matrix)[None] for key, matrix in cube.items()},
        "stderrs": {},
        "examples": 0,
    }
    return Panel(**(fields | change))


def random_cube(
    seed: int, mixtures: int = 9, benchmarks: int = 20, scales: tuple[str, ...] = ("240m",), rho: float = 0.6
) -> Cube:
    """Accuracy and confidence of unrelated benchmarks whose SFT scores have correlation rho with those of PT."""
    random = np.random.default_rng(seed)
    cube: Cube = {}
    for scale in scales:
        for metric in ("accuracy", "confidence"):
            pt, noise = random.normal(size=(2, mixtures, benchmarks))
            cube[scale, "PT", metric] = 0.5 + 0.05 * pt
            cube[scale, "SFT", metric] = 0.6 + 0.05 * (rho * pt + np.sqrt(1 - rho**2) * noise)
    return cube
