"""Views and panels whose correlations are known by construction: everything moves along orthogonal patterns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.claims.view import View
from analysis.panel.panel import STAGES, Design, Panel
from analysis.paper.numbers import CATEGORIES, WEB_SOURCES, category_of, numbers
from analysis.protocols.matrices import METRICS
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, PAPER_MIXTURES

DESIGNS = tuple(Design(web, code) for web in WEB_SOURCES for code in (25.0, 35.0, 45.0))


def waves(points: int) -> np.ndarray:
    """Orthogonal unit vectors with mean 0, [points - 1, points]: those of the cosine transform."""
    return np.sqrt(2 / points) * np.cos(np.pi * np.outer(np.arange(1, points), np.arange(points) + 0.5) / points)


ACROSS = waves(9)
"""Over mixtures."""
ALONG = waves(3)
"""Over three benchmarks."""
MEMBERS = {c: tuple(slug for slug in BENCHMARKS if category_of()[slug] == c) for c in CATEGORIES}


def turned(r: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A vector that has correlation r with `first`, given that `second` is orthogonal to it."""
    r = np.asarray(r, dtype=float)[..., None]
    return r * first + np.sqrt(1 - r**2) * second


def made(columns: Mapping[tuple[str, int, int, str], np.ndarray]) -> View:
    """columns[metric, scale, stage, slug]: [9]; what is not given was not measured."""
    benchmarks = tuple(slug for slug in BENCHMARKS if slug in {key[3] for key in columns})
    values = np.full((2, 2, 2, 9, len(benchmarks)), np.nan)
    for (metric, scale, stage, slug), column in columns.items():
        values[METRICS.index(metric), scale, stage, :, benchmarks.index(slug)] = 0.5 + 0.1 * column
    return View(values, PAPER_MIXTURES, benchmarks, DESIGNS)


def transfer_view(changes: Mapping[tuple[str, int, str], float] | None = None) -> View:
    """The cross-stage correlations of Table 5; changes[metric, scale, slug]: other ones."""
    columns = {}
    for metric in METRICS:
        for s, paper in enumerate(("240M", "1B")):
            for slug in BENCHMARKS:
                r = (changes or {}).get((metric, s, slug), numbers()["5", metric, paper, slug])
                columns[metric, s, 0, slug] = ACROSS[0]
                columns[metric, s, 1, slug] = turned(r, ACROSS[0], ACROSS[1])
    return made(columns)


def coherence_view(
    metric: str,
    pt: Mapping[str, tuple[float, float]],
    sft: Mapping[str, tuple[float, float]] | None = None,
    reversed_by_sft: tuple[str, int] | None = None,
) -> View:
    """Two benchmarks a category, whose r at (small, large) is pt[category] within PT and sft[category] within SFT.

    Across stages it is the mean of the two, or minus that in the (category, scale) which SFT reverses.
    """
    columns = {}
    for category in pt:
        for stage, within in enumerate((pt, sft or pt)):
            for scale in (0, 1):
                sign = -1 if stage == 1 and reversed_by_sft == (category, scale) else 1
                first, second = MEMBERS[category][:2]
                columns[metric, scale, stage, first] = sign * ACROSS[0]
                columns[metric, scale, stage, second] = sign * turned(within[category][scale], ACROSS[0], ACROSS[1])
    return made(columns)


def alignment_view(alignment: Mapping[str, Any], accuracy: Mapping[str, Any] | None = None) -> View:
    """Three benchmarks a category. alignment[category]: of shape [scales, stages, mixtures] or one that broadcasts.

    accuracy[category]: what the category's mean accuracy is above 0.5, in tenths, [scales, mixtures].
    """
    columns = {}
    for category, r in alignment.items():
        r = np.broadcast_to(np.asarray(r, dtype=float), (2, 2, 9))
        level = np.broadcast_to((accuracy or {}).get(category, 0.0), (2, 9))
        for scale in (0, 1):
            for stage in (0, 1):
                sure = turned(r[scale, stage], ALONG[0], ALONG[1])  # [mixtures, benchmarks]
                for b, slug in enumerate(MEMBERS[category][:3]):
                    columns["accuracy", scale, stage, slug] = level[scale] + ALONG[0][b]
                    columns["confidence", scale, stage, slug] = sure[:, b]
    return made(columns)


def by_web(refined: float, edu: float, dclm: float = 0.4) -> np.ndarray:
    """A value for each mixture by its web source, [9]."""
    return np.repeat([refined, edu, dclm], 3)


def by_code(least: float, most: float, between: float = -0.4) -> np.ndarray:
    """A value for each mixture by its code percent, [9]."""
    return np.tile([least, between, most], 3)


def panel_of(view: View, scales: tuple[str, ...] = ("240m", "1b"), **change: Any) -> Panel:
    """The study that a view was taken of: accuracy by sum, confidence in reading A, nothing else."""
    values = {
        (scale, stage, metric, "sum"): view.values[i, s, t][None]
        for i, metric in enumerate(METRICS)
        for s, scale in enumerate(scales)
        for t, stage in enumerate(STAGES)
    }
    fields: dict[str, Any] = {
        "study": StudyFolder(Path("runs"), "made"),
        "config": None,
        "synthetic": True,
        "scales": scales,
        "mixtures": view.mixtures,
        "benchmarks": view.benchmarks,
        "recipe": "",
        "other_recipes": (),
        "other_variants": (),
        "seeds": (0,),
        "average_seeds": False,
        "design": {m: d for m, d in zip(view.mixtures, view.designs, strict=True) if d is not None},
        "values": values,
        "stderrs": {},
        "examples": 0,
    }
    return Panel(**(fields | change))
