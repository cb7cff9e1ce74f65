"""Every benchmark with every other over mixtures, and whether that structure survives fine-tuning (Finding 3).

In: `Panel`. Out: `Matrix`, the heat maps of Figures 4, 8 and 9 (PT with PT, SFT with SFT) and 3, 10 and 11 (rows: PT,
columns: SFT; its diagonal is equations 1 and 2); Figure 5 averages their blocks. `Estimate`: how alike the PT and the
SFT matrix are. All pairs of benchmarks come from the same few mixtures, so they are not independent observations.

Nulls of the similarity. Mantel: which benchmark is which, in one stage. Unrelated benchmarks: the mixtures of each
benchmark shuffled on their own, alike in both stages. The second keeps each benchmark's cross-stage correlation, and
that alone makes the matrices alike: chance relations of two benchmarks in PT come back in SFT with its mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.complete_cases import complete_scores
from analysis.stats import resampling
from analysis.stats.association import DUST, every_pair, pearson, pearson_matrix, unit
from analysis.stats.estimates import Estimate, absent, tested_estimate

METRICS = ("accuracy", "confidence")
SIDES = {"PT": ("PT", "PT"), "SFT": ("SFT", "SFT"), "cross": ("PT", "SFT")}
"""Protocol -> stage of the rows, stage of the columns."""
PAIRS_AT_ONCE = 1 << 14
"""Product of draws and pairs of benchmarks: parts that fit a processor's cache take half the time."""


@dataclass(frozen=True)
class Matrix:
    scale: str
    protocol: str
    """PT, SFT or cross (rows: PT, columns: SFT)."""
    metric: str
    benchmarks: tuple[str, ...]
    values: np.ndarray
    """Pearson's r over mixtures, [B, B]; NaN with fewer than 3 mixtures or without variation."""
    n: np.ndarray
    """Mixtures behind each r, [B, B]."""


def matrix(panel: Panel, scale: str, protocol: str, metric: str) -> Matrix:
    rows, columns = (panel.matrix(scale, stage, metric).T for stage in SIDES[protocol])
    return Matrix(scale, protocol, metric, panel.benchmarks, *every_pair(rows, columns))


# ---------------------------------------------------------------------------------------------- similarity


def similarity(panel: Panel, scale: str, metric: str) -> Estimate:
    """Pearson's r of the upper triangles of the PT-PT and the SFT-SFT matrix (Finding 3).

    p: Mantel's test. Interval: mixtures resampled, the same ones in both stages. It says how far the number depends on
    which mixtures there are; the similarity that ever more mixtures would show is another one, since nine add noise of
    their own to every cell, and lies outside it far more often than in 5 % of studies (simulated: 15 to over 90 %).
    """
    x, y, known = _both_stages(panel, scale, metric)
    if x.shape[1] < 3 or len(x) < 3:
        return absent("fewer than 3 mixtures or 3 benchmarks", **known)
    whole = np.ones((1, x.shape[1]))
    value, p, smallest = mantel(pearson_matrix(x, x, whole)[0], pearson_matrix(y, y, whole)[0])
    if math.isnan(value):
        return absent("no variation", **known)
    return tested_estimate(
        value,
        resampling.percentile_interval(resampled_similarity(x, y, resampling.bootstrap_counts(x.shape[1]))),
        (p, smallest),
        interval="percentile bootstrap over mixtures, alike in both stages",
        null=f"benchmark labels of one stage shuffled ({resampling.all_orders(len(x)).words}; Mantel)",
        arrangements=math.factorial(len(x)),
        **known,
    )


def unrelated_similarity(panel: Panel, scale: str, metric: str) -> Estimate:
    """The similarity to expect if no two benchmarks had to do with each other.

    Its mean and central 95 % over draws, and the p of `similarity` as a departure from that mean. Two correlations over
    the same mixtures err alike: for independent benchmarks i, j with cross-stage correlations r_i, r_j, the errors of
    their PT and SFT correlation are correlated by r_i r_j.
    """
    x, y, known = _both_stages(panel, scale, metric)
    b, m = x.shape
    if m < 3 or b < 3:
        return absent("fewer than 3 mixtures or 3 benchmarks", **known)
    value = float(resampled_similarity(x, y, np.ones((1, m)))[0])
    if math.isnan(value):
        return absent("no variation", **known)
    order, rows = resampling.independent_orders(m, b), np.arange(b)[:, None]
    first, second = np.triu_indices(b, 1)
    shuffled = (unit(side)[rows, order] for side in (x, y))  # [draws, benchmarks, mixtures]
    null = _across((side @ side.swapaxes(1, 2))[:, first, second] for side in shuffled)
    null = null[np.isfinite(null)]
    centre = float(null.mean())
    return tested_estimate(
        centre,
        resampling.percentile_interval(null),
        resampling.Orders(order, False, "").p_value(np.array(value - centre), [null - centre]),
        interval="central 95 % of the null",
        null=f"mixtures of each benchmark shuffled on their own, alike in both stages ({resampling.DRAWS:,} draws)",
        arrangements=math.factorial(m) ** (b - 1),
        **known,
    )


def mantel(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Pearson's r of the upper triangles of two symmetric matrices [B, B], its two-sided p, and the smallest possible.

    Null: rows and columns of b permuted together (Mantel 1967), all orders or fixed draws, in which case the observed
    one is counted in addition. All three are NaN where a triangle does not vary.
    """
    first, second = np.triu_indices(len(a), 1)
    (u,), (v,) = unit(a[first, second][None]), unit(b[first, second][None])
    observed = np.array(u @ v)
    if np.isnan(observed):
        return math.nan, math.nan, math.nan
    square = np.zeros(b.shape)
    square[first, second] = square[second, first] = v  # mean and length of the triangle are those of every order
    orders = resampling.all_orders(len(a))
    parts = np.array_split(orders.index, -(-len(orders.index) * len(first) // resampling.CELLS_AT_ONCE))
    p, smallest = orders.p_value(observed, (square[part[:, first], part[:, second]] @ u for part in parts))
    return float(np.clip(observed, -1.0, 1.0)), float(p), float(smallest)


def resampled_similarity(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Similarity of the matrices of x and of y [benchmarks, mixtures] in each resample; [draws].

    A benchmark without variation in a resample has no part in it.
    """
    first, second = np.triu_indices(len(x), 1)
    parts = np.array_split(counts, -(-len(counts) * len(first) // PAIRS_AT_ONCE))
    return np.concatenate([_across(pearson(s[first], s[second], part) for s in (x, y)) for part in parts])


def _both_stages(panel: Panel, scale: str, metric: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """PT and SFT [benchmarks, mixtures], and the fields that all their estimates share."""
    scores = complete_scores(panel, metric, [(scale, stage) for stage in STAGES])
    x, y = scores.values
    points = f"mixtures, {len(x) * (len(x) - 1) // 2} pairs of {len(x)} benchmarks"
    return x, y, {"n": scores.n, "points": points, "missing": scores.missing(range(len(panel.benchmarks)))}


def _across(sides: Iterator[np.ndarray]) -> np.ndarray:
    """Pearson's r of two arrays [draws, pairs] along the pairs that both have; [draws], NaN without variation."""
    a, b = sides
    both = np.isfinite(a) & np.isfinite(b)
    n = np.maximum(both.sum(axis=1, keepdims=True), 1)
    u, v = (np.where(both, side, 0.0) for side in (a, b))
    u, v = (np.where(both, side - side.sum(axis=1, keepdims=True) / n, 0.0) for side in (u, v))
    squares = (u * u).sum(axis=1), (v * v).sum(axis=1)
    defined = (squares[0] > DUST) & (squares[1] > DUST)
    size = np.sqrt(np.where(defined, squares[0] * squares[1], 1.0))
    return np.where(defined, np.clip((u * v).sum(axis=1) / size, -1.0, 1.0), np.nan)
