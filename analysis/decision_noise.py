"""What other examples and seeds would make of a decision, for these same mixtures.

In: a `Decision`, and draws of the scores behind it in which early and late were drawn together (`analysis.noise`). Out:
intervals of its decision accuracy and of its regrets. They say nothing of other mixtures, as the bootstrap over
mixtures does.

An interval is the number -+ 1.96 standard deviations of its draws, cut at what is possible. Draws carry their noise
twice, so their own quantiles lie around a worse decision than the one observed (as in `noise.Draws.interval`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.decisions import TOP, Decision, ranked_alike, top_regret
from analysis.estimates import Z95

Ends = tuple[float, float]


@dataclass(frozen=True)
class SameMixtures:
    accuracy: Ends
    """Of `Decision.accuracy`."""
    regret: tuple[Ends, ...]
    """Of `Decision.regret`."""


def same_mixtures(decision: Decision, early: np.ndarray, late: np.ndarray) -> SameMixtures | None:
    """early, late: [draws, mixtures]. None without a decision, or where a mixture behind it has no draws."""
    drawn = np.isfinite(early).all(axis=0) & np.isfinite(late).all(axis=0)
    if decision.accuracy.value is None or drawn.sum() != decision.accuracy.n:
        return None
    early, late = early[:, drawn], late[:, drawn]
    regrets = zip(decision.regret, TOP, strict=False)  # few mixtures have no best of three
    return SameMixtures(
        _ends(decision.accuracy.value, ranked_alike(early, late), 1.0),
        tuple(_ends(value, top_regret(early, late, k), math.inf) for value, k in regrets),
    )


def _ends(value: float, drawn: np.ndarray, most: float) -> Ends:
    half = Z95 * float(drawn.std())
    return max(value - half, 0.0), min(value + half, most)
