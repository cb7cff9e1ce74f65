"""Which benchmarks can tell mixtures apart: above chance, not all alike, and by more than noise.

In: `Panel`. Out: clearance above chance, and why a benchmark cannot carry a claim about mixtures. Where chance or noise
is not measured nothing can be held against a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.noise import FLOOR, noise
from analysis.stats.estimates import CONSTANT, mean_measured

CLEAR = 3.0
"""Standard errors above chance."""
AT_CHANCE, TOO_NOISY = "at chance", f"reliability below {FLOOR:g}"
ALIKE = 1e-12
"""Scores closer than this are equal: accuracies are shares of whole examples."""


def clearance(panel: Panel, scale: str, stage: str) -> np.ndarray:
    """(mean accuracy over mixtures - chance) / standard error of one checkpoint, [benchmarks]; NaN: not known.

    Mixtures answer the same examples, so their mean is not credited with a smaller error than a single one.
    """
    accuracy = mean_measured(panel.mean_over_seeds(scale, stage))
    chance = mean_measured(panel.mean_over_seeds(scale, stage, "chance", ""))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((accuracy - chance) / mean_measured(panel.stderr(scale, stage)))


def above_chance(panel: Panel, scale: str, stage: str) -> list[str]:
    """Benchmarks whose mean accuracy over mixtures exceeds chance by more than `CLEAR` standard errors."""
    return [slug for slug, above in zip(panel.benchmarks, clearance(panel, scale, stage), strict=True) if above > CLEAR]


def constant(panel: Panel, scale: str, stage: str, metric: str = "accuracy") -> np.ndarray:
    """Whether all measured mixtures score alike, bool [benchmarks]."""
    values = panel.matrix(scale, stage, metric)
    there = np.isfinite(values)
    highest = np.where(there, values, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(there, values, np.inf).min(axis=0, initial=np.inf)
    return np.asarray(there.any(axis=0) & (highest <= lowest + ALIKE))


def undecided(panel: Panel, scale: str, stage: str) -> np.ndarray:
    """Whether accuracy is at chance or constant, so that it ranks mixtures by nothing, bool [benchmarks]."""
    return np.asarray((clearance(panel, scale, stage) <= CLEAR) | constant(panel, scale, stage))


@dataclass(frozen=True)
class Usable:
    """Which benchmarks a claim about PT against SFT may rest on."""

    reasons: tuple[str, ...]
    """Why a benchmark is not usable, for each; empty if it is."""
    noise_measured: np.ndarray
    """Whether any noise is measured in both stages, bool [benchmarks]."""


def usable(panel: Panel, scale: str, metric: str) -> Usable:
    """Chance is that of accuracy, so it says nothing against another metric."""
    with np.errstate(invalid="ignore"):
        reliability = np.minimum(*(noise(panel, scale, stage, metric).reliability for stage in STAGES))
    alike = np.any([constant(panel, scale, stage, metric) for stage in STAGES], axis=0)
    low = np.any([clearance(panel, scale, stage) <= CLEAR for stage in STAGES], axis=0) & (metric == "accuracy")
    reasons = (
        CONSTANT if same else AT_CHANCE if guessed else TOO_NOISY if noisy else ""
        for same, guessed, noisy in zip(alike, low, reliability < FLOOR, strict=True)
    )
    return Usable(tuple(reasons), np.isfinite(reliability))
