"""Pearson's r, Spearman's rho and Kendall's tau of many pairs of vectors at once, and of all their resamples.

In: vectors [pairs, points] and counts [draws, points], how often each point is in each resample. Out: coefficients
[draws, pairs], NaN where a resample has no variation. A coefficient of a resample is the coefficient with its counts
as weights, so that ten thousand resamples of nine points are a few small matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.stats import resampling
from analysis.stats.estimates import CONSTANT, Estimate, absent, fisher_interval

DUST = 1e-12
"""Share of the largest square below which a variance is rounding, not spread."""
Coefficient = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


# ---------------------------------------------------------------------------------------------- coefficients


def pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """x, y: [pairs, points]; counts: [draws, points]; [draws, pairs]."""
    u, v = _centred(x), _centred(y)
    total = counts.sum(axis=1, keepdims=True)
    means = (counts @ part.T / total for part in (u, v, u * u, v * v, u * v))
    mean_x, mean_y, squares_x, squares_y, products = means
    variances = squares_x - mean_x**2, squares_y - mean_y**2
    return _ratio(products - mean_x * mean_y, *variances, _dust(x, u), _dust(y, v))


def pearson_matrix(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Every vector of x [a, points] with every one of y [b, points]; [draws, a, b]."""
    u, v = _centred(x), _centred(y)
    total = counts.sum(axis=1, keepdims=True)
    mean_x, mean_y, squares_x, squares_y = (counts @ part.T / total for part in (u, v, u * u, v * v))
    products = counts @ (u[:, None] * v).reshape(-1, x.shape[1]).T / total
    covariance = products.reshape(len(counts), len(x), len(y)) - mean_x[:, :, None] * mean_y[:, None]
    variance_x, variance_y = squares_x - mean_x**2, squares_y - mean_y**2
    return _ratio(covariance, variance_x[:, :, None], variance_y[:, None], _dust(x, u)[:, None], _dust(y, v))


def spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """As `pearson`, of the ranks in each resample; ties share their mean rank."""
    ranks_x, ranks_y = _ranks(x, counts), _ranks(y, counts)  # [draws, pairs, points]
    weights = (counts / counts.sum(axis=1, keepdims=True))[:, None]
    ranks_x = ranks_x - (weights * ranks_x).sum(axis=2, keepdims=True)
    ranks_y = ranks_y - (weights * ranks_y).sum(axis=2, keepdims=True)
    covariance, variance_x, variance_y = (
        (weights * a * b).sum(axis=2) for a, b in ((ranks_x, ranks_y), (ranks_x, ranks_x), (ranks_y, ranks_y))
    )
    return _ratio(covariance, variance_x, variance_y, DUST, DUST)


def kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """tau-b; shapes as `pearson`. A point that was drawn twice is tied with itself."""
    signs_x, signs_y = (np.sign(v[:, :, None] - v[:, None]) for v in (x, y))  # [pairs, points, points]

    def pairs(signs: np.ndarray) -> np.ndarray:
        """Sum over ordered pairs of the points drawn; [draws, pairs]."""
        return np.einsum("di,pij,dj->dp", counts, signs, counts, optimize=True)

    untied_x, untied_y = pairs(np.abs(signs_x)), pairs(np.abs(signs_y))
    return _ratio(pairs(signs_x * signs_y), untied_x, untied_y, 0.5, 0.5)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis; ties share their mean rank."""
    flat = values.reshape(-1, values.shape[-1])
    return _ranks(flat, np.ones((1, values.shape[-1])))[0].reshape(values.shape)


def _ranks(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean rank of each point in each resample, [draws, pairs, points]; points that were not drawn have one too."""
    before = (x[:, None] < x[:, :, None]) + 0.5 * (x[:, None] == x[:, :, None])  # [pairs, point, others]
    return np.einsum("dj,pij->dpi", counts, before, optimize=True) + 0.5


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=1, keepdims=True)


def _dust(x: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """[pairs]: a variance that the rounding of vectors x [pairs, points], or of their squares, can leave behind."""
    return np.maximum(DUST * (centred**2).max(axis=1), (DUST * np.abs(x).max(axis=1)) ** 2)


def _ratio(
    covariance: np.ndarray,
    variance_x: np.ndarray,
    variance_y: np.ndarray,
    dust_x: np.ndarray | float,
    dust_y: np.ndarray | float,
) -> np.ndarray:
    defined = (variance_x > dust_x) & (variance_y > dust_y)
    size = np.sqrt(np.where(defined, variance_x, 1.0)) * np.sqrt(np.where(defined, variance_y, 1.0))
    return np.where(defined, np.clip(covariance / size, -1.0, 1.0), np.nan)


COEFFICIENTS: dict[str, Coefficient] = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


# ---------------------------------------------------------------------------------------------- with uncertainty


@dataclass(frozen=True)
class Association:
    """Everything that is said of one correlation."""

    estimate: Estimate
    """Pearson's r, Fisher's interval, the permutation p over all orders."""
    spearman: float | None = None
    kendall: float | None = None
    bca: tuple[float, float] | None = None
    """95 % bootstrap interval of r over the points; None where too many resamples have no variation."""
    p_within: float | None = None
    """Permutation p over the orders within blocks."""
    arrangements_within: int | None = None
    smallest_p_within: float | None = None
    without: tuple[float, ...] = ()
    """r without each point, in the order of the points measured; NaN where it is not defined."""

    @property
    def influence(self) -> float | None:
        """The largest change of r when one point is left out; None where it is not defined."""
        changes = [abs(r - self.estimate.value) for r in self.without if self.estimate.value is not None]
        return max(changes) if changes and not any(map(math.isnan, changes)) else None


def associate(
    x: np.ndarray, y: np.ndarray, points: str, blocks: Sequence[int] | None = None, draws: int = resampling.DRAWS
) -> list[Association]:
    """One association for each pair of vectors x, y [pairs, points]; NaN: not measured.

    points: what they are, e.g. mixtures.   blocks: number of the block of each point, for the restricted permutations.
    """
    assert x.shape == y.shape
    measured = np.isfinite(x) & np.isfinite(y)
    found: list[Association | None] = [None] * len(x)
    for kept in np.unique(measured, axis=0):
        rows = np.flatnonzero((measured == kept).all(axis=1))
        mine = None if blocks is None else tuple(int(b) for b in np.asarray(blocks)[kept])
        some = _associate(x[rows][:, kept], y[rows][:, kept], points, int((~kept).sum()), mine, draws)
        for row, association in zip(rows, some, strict=True):
            found[row] = association
    return [association for association in found if association is not None]


def associate_one(x: np.ndarray, y: np.ndarray, points: str, blocks: Sequence[int] | None = None) -> Association:
    """`associate` for one pair of vectors [points]."""
    return associate(x[None], y[None], points, blocks)[0]


def _associate(
    x: np.ndarray, y: np.ndarray, points: str, missing: int, blocks: tuple[int, ...] | None, draws: int
) -> list[Association]:
    """Of complete vectors."""
    n = x.shape[1]
    known: dict[str, Any] = {"n": n, "points": points, "missing": missing}
    if n < 3:
        return [Association(absent(f"only {n} {points}", **known))] * len(x)
    whole = np.ones((1, n))
    r, rho, tau = (coefficient(x, y, whole)[0] for coefficient in COEFFICIENTS.values())
    without = pearson(x, y, resampling.without_one(n))
    low, high = resampling.bca_interval(r, pearson(x, y, resampling.bootstrap_counts(n, draws)), without)
    every = resampling.all_orders(n)
    p, smallest = permuted(x, y, every)
    inside = None if blocks is None else permuted(x, y, resampling.orders_within(blocks))
    out = []
    for i in range(len(x)):
        if np.isnan(r[i]):
            out.append(Association(absent(CONSTANT, **known)))
            continue
        fisher = fisher_interval(float(r[i]), n)
        estimate = Estimate(
            value=float(r[i]),
            low=fisher[0],
            high=fisher[1],
            interval=f"Fisher z over {points}" if n > 3 else "",
            p=float(p[i]),
            null=f"{points} shuffled ({every.words})",
            arrangements=resampling.distinct_arrangements(y[i]),
            smallest_p=float(smallest[i]),
            **known,
        )
        out.append(
            Association(
                estimate,
                spearman=float(rho[i]),
                kendall=float(tau[i]),
                bca=None if np.isnan(low[i]) else (float(low[i]), float(high[i])),
                p_within=None if inside is None else float(inside[0][i]),
                arrangements_within=None if blocks is None else resampling.distinct_arrangements(y[i], blocks),
                smallest_p_within=None if inside is None else float(inside[1][i]),
                without=tuple(without[:, i].tolist()),
            )
        )
    return out


def permuted(x: np.ndarray, y: np.ndarray, orders: resampling.Orders) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of Pearson's r when y is put into other orders, and the smallest possible; [pairs] each."""
    u, v = unit(x), unit(y)
    observed = (u * v).sum(axis=1)
    defined = np.isfinite(observed)
    p, smallest = np.full(len(x), np.nan), np.full(len(x), np.nan)
    if defined.any():
        null = orders.sums(u[defined][:, :, None] * v[defined][:, None])
        p[defined], smallest[defined] = orders.p_value(observed[defined], null)
    return p, smallest


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors [pairs, points], centred and of length 1, so that a product is Pearson's r; NaN where nothing varies."""
    centred = _centred(x)
    squares = (centred**2).sum(axis=1, keepdims=True)
    spread = squares / x.shape[1] > _dust(x, centred)[:, None]
    return np.where(spread, centred / np.sqrt(np.where(spread, squares, 1.0)), np.nan)
