"""Does cross-stage transfer change with scale (Finding 7)?

In: `Panel`. Out: differences of cross-stage correlations between two scales. The two correlations depend on each other,
since they are over the same mixtures: intervals leave out a mixture at both scales at once. How often they hold the
true difference is in docs/statistics.md.

Null: the scales are exchangeable. Each mixture's PT and SFT scores, standardised within their scale and stage, are
exchanged between the scales or not, and both correlations are computed anew; alike for all benchmarks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.complete_cases import complete_scores, mean_of_groups
from analysis.stats import resampling
from analysis.stats.association import pearson, unit
from analysis.stats.estimates import Estimate, absent, tested_estimate

EVERY_SWAP_UP_TO = 12
"""Mixtures whose exchanges are enumerated: 4,096."""


@dataclass(frozen=True)
class Difference:
    estimate: Estimate
    """r at the larger scale less r at the smaller, or the mean of such differences over benchmarks."""
    small: float | None = None
    """r, or mean r, at the smaller scale."""
    large: float | None = None
    averaged: tuple[int, ...] = ()
    """Columns of the benchmarks behind it: those of the group that vary at both scales."""


def scale_differences(
    panel: Panel, small: str, large: str, metric: str, groups: Sequence[Sequence[int]]
) -> list[Difference]:
    """One difference for each group of benchmarks (columns of the panel's matrices); their mean, where it has several.

    All are over the same mixtures: what lacks a score at either scale is left out and counted.
    """
    scores = complete_scores(panel, metric, [(scale, stage) for scale in (small, large) for stage in STAGES])
    member, m = scores.groups(groups), scores.n
    if m < 3:
        missing = (scores.missing(group) for group in groups)
        return [Difference(absent(f"only {m} mixtures", n=m, points="mixtures", missing=k)) for k in missing]
    before, after = scores.values[:2], scores.values[2:]  # [PT and SFT, benchmarks, mixtures]

    def means(sides: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Mean r of each group in each resample, [draws, groups]."""
        pt, sft = sides
        return mean_of_groups(pearson(pt, sft, counts), member)

    whole, left_out = np.ones((1, m)), resampling.without_one(m)
    at_small, at_large = means(before, whole)[0], means(after, whole)[0]
    change = means(after, left_out) - means(before, left_out)
    ends = resampling.pseudo_value_interval(at_large - at_small, change)
    lows, highs = (np.clip(end, -2.0, 2.0) for end in ends)  # two correlations differ by 2 at most
    swaps, words = every_swap(m)
    stay, go = np.hstack([swaps, 1 - swaps]), np.hstack([1 - swaps, swaps])
    both = np.array([np.hstack([unit(first), unit(second)]) for first, second in zip(before, after, strict=True)])
    null = means(both, stay) - means(both, go)
    orders = resampling.Orders(swaps, len(swaps) == 2**m, words)
    ps, smallest = orders.p_value(at_large - at_small, [null])

    found = []
    for g, group in enumerate(groups):
        averaged = tuple(scores.columns[member[g] > 0].tolist())
        several = f", mean of {len(averaged)} benchmarks" if len(group) > 1 else ""
        known: dict[str, Any] = {"n": m, "points": f"mixtures{several}", "missing": scores.missing(group)}
        if math.isnan(at_small[g]):
            found.append(Difference(absent("not measured on all mixtures, or no variation", **known)))
            continue
        estimate = tested_estimate(
            at_large[g] - at_small[g],
            (lows[g], highs[g]),
            (ps[g], smallest[g]),
            interval="jackknife over mixtures, alike at both scales",
            null=f"standardised scores of each mixture exchanged between the scales ({words})",
            arrangements=2**m,
            **known,
        )
        found.append(Difference(estimate, float(at_small[g]), float(at_large[g]), averaged))
    return found


def every_swap(points: int) -> tuple[np.ndarray, str]:
    """(1 for a point that is exchanged, else 0, float64 [swaps, points]; description): every set, or random ones."""
    if points <= EVERY_SWAP_UP_TO:
        return np.array(list(itertools.product((0.0, 1.0), repeat=points))), f"all {2**points:,} sets of mixtures"
    random = np.random.default_rng([resampling.SEED, points])
    return random.integers(0, 2, (resampling.DRAWS, points)).astype(float), f"{resampling.DRAWS:,} draws"
