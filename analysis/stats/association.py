"""Pearson's r of many pairs of vectors at once and of all their resamples; Spearman's rho and Kendall's tau.

In: vectors [pairs, points] and counts [draws, points], how often each point is in each resample. Out: coefficients
[draws, pairs], NaN where a resample has no variation. The r of a resample is the r with its counts as weights, so that
ten thousand resamples of nine points are a few small matrix products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.stats import resampling
from analysis.stats.estimates import CONSTANT, Estimate, absent, correlation_interval, tested_estimate

DUST = 1e-12
"""Share of the largest square below which a variance is rounding, not spread."""


# ---------------------------------------------------------------------------------------------- coefficients


def pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of each pair in each resample, [draws, pairs]; x, y: [pairs, points]; counts: [draws, points]."""
    u, v = _centred(x), _centred(y)
    total = counts.sum(axis=1, keepdims=True)
    means = (counts @ part.T / total for part in (u, v, u * u, v * v, u * v))
    mean_x, mean_y, squares_x, squares_y, products = means
    variances = squares_x - mean_x**2, squares_y - mean_y**2
    return _ratio(products - mean_x * mean_y, *variances, _dust(x, u), _dust(y, v))


def pearson_matrix(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of every vector of x [a, points] with every one of y [b, points], [draws, a, b]."""
    u, v = _centred(x), _centred(y)
    total = counts.sum(axis=1, keepdims=True)
    mean_x, mean_y, squares_x, squares_y = (counts @ part.T / total for part in (u, v, u * u, v * v))
    products = counts @ (u[:, None] * v).reshape(-1, x.shape[1]).T / total
    covariance = products.reshape(len(counts), len(x), len(y)) - mean_x[:, :, None] * mean_y[:, None]
    variance_x, variance_y = squares_x - mean_x**2, squares_y - mean_y**2
    return _ratio(covariance, variance_x[:, :, None], variance_y[:, None], _dust(x, u)[:, None], _dust(y, v))


def every_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's r of x [a, points] with y [b, points] over the points that both have, and their number; [a, b] each.

    r is NaN for fewer than 3 points, or without variation.
    """
    in_x, in_y = np.isfinite(x), np.isfinite(y)
    n = in_x.astype(int) @ in_y.T.astype(int)
    r = np.full(n.shape, np.nan)
    for rows, columns in itertools.product(_equal_rows(in_x), _equal_rows(in_y)):
        both = in_x[rows[0]] & in_y[columns[0]]
        if both.sum() >= 3:
            whole = np.ones((1, int(both.sum())))
            r[np.ix_(rows, columns)] = pearson_matrix(x[rows][:, both], y[columns][:, both], whole)[0]
    return r, n


def _equal_rows(mask: np.ndarray) -> list[list[int]]:
    """Numbers of the rows of a bool matrix, grouped by their content."""
    groups: dict[bytes, list[int]] = {}
    for number, row in enumerate(mask):
        groups.setdefault(row.tobytes(), []).append(number)
    return list(groups.values())


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho of each pair of vectors [pairs, points], [pairs]; ties share their mean rank."""
    return pearson(ranks(x), ranks(y), np.ones((1, x.shape[1])))[0]


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each pair of vectors [pairs, points], [pairs]."""
    signs_x, signs_y = (np.sign(v[:, :, None] - v[:, None]) for v in (x, y))  # [pairs, points, points]
    products, untied_x, untied_y = (
        (a * b).sum(axis=(1, 2)) for a, b in ((signs_x, signs_y), (signs_x, signs_x), (signs_y, signs_y))
    )
    return _ratio(products, untied_x, untied_y, 0.5, 0.5)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis; ties share their mean rank."""
    own, others = values[..., :, None], values[..., None, :]
    return np.asarray(((others < own) + 0.5 * (others == own)).sum(axis=-1) + 0.5)


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


# ---------------------------------------------------------------------------------------------- with uncertainty


@dataclass(frozen=True)
class Association:
    """One correlation with every measure of its uncertainty."""

    estimate: Estimate
    """Pearson's r, Fisher's or the jackknife's interval, the permutation p over all orders."""
    spearman: float | None = None
    kendall: float | None = None
    bca: tuple[float, float] | None = None
    """95 % bootstrap interval of r over the points; None where too many resamples have no variation."""
    p_within: float | None = None
    """Permutation p over the orders within blocks."""
    arrangements_within: int | None = None
    smallest_p_within: float | None = None
    without: tuple[float, ...] = ()
    """r without each point; NaN without a point that was not measured, and where r is not defined."""

    @property
    def influence(self) -> tuple[float, int] | None:
        """The largest change of r when one point is left out, and which point; None where it is not defined."""
        if self.estimate.value is None:
            return None
        changes = np.abs(np.array(self.without) - self.estimate.value)
        if np.isfinite(changes).sum() < self.estimate.n:
            return None
        return float(np.nanmax(changes)), int(np.nanargmax(changes))


def correlate(x: np.ndarray, y: np.ndarray, points: str, blocks: Sequence[int] | None = None) -> list[Association]:
    """One association for each pair of vectors x, y [pairs, points]; NaN: not measured.

    points: their kind, e.g. mixtures. blocks: number of the block of each point, for the restricted permutations.
    """
    assert x.shape == y.shape
    measured = np.isfinite(x) & np.isfinite(y)
    found: list[Association | None] = [None] * len(x)
    for rows in _equal_rows(measured):
        kept = measured[rows[0]]
        mine = None if blocks is None else tuple(int(b) for b in np.asarray(blocks)[kept])
        some = _correlate_complete(x[rows][:, kept], y[rows][:, kept], points, int((~kept).sum()), mine)
        for row, association in zip(rows, some, strict=True):
            without = np.full(x.shape[1], np.nan)
            without[kept] = association.without or np.nan
            found[row] = replace(association, without=tuple(without.tolist()))
    return [association for association in found if association is not None]


def correlate_one(x: np.ndarray, y: np.ndarray, points: str, blocks: Sequence[int] | None = None) -> Association:
    """`correlate` for one pair of vectors [points]."""
    return correlate(x[None], y[None], points, blocks)[0]


def _correlate_complete(
    x: np.ndarray, y: np.ndarray, points: str, missing: int, blocks: tuple[int, ...] | None
) -> list[Association]:
    """`correlate` for vectors without gaps."""
    n = x.shape[1]
    known: dict[str, Any] = {"n": n, "points": points, "missing": missing}
    if n < 3:
        return [Association(absent(f"only {n} {points}", **known))] * len(x)
    r, rho, tau = pearson(x, y, np.ones((1, n)))[0], spearman(x, y), kendall(x, y)
    without = pearson(x, y, resampling.without_one(n))
    low, high = resampling.bca_interval(r, pearson(x, y, resampling.bootstrap_counts(n)), without)
    every = resampling.all_orders(n)
    p, smallest = permuted(x, y, every)
    inside = None if blocks is None else permuted(x, y, resampling.orders_within(blocks))
    out = []
    for i in range(len(x)):
        if np.isnan(r[i]):
            out.append(Association(absent(CONSTANT, **known)))
            continue
        ends, method = correlation_interval(float(r[i]), without[:, i], points)
        estimate = tested_estimate(
            r[i],
            ends,
            (p[i], smallest[i]),
            interval=method,
            null=f"{points} shuffled ({every.words})",
            arrangements=resampling.distinct_arrangements(y[i]),
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
