"""`Estimate`: a number never travels without its n, interval and p-value; means, differences and q-values.

In: NumPy vectors in which NaN means "not measured". Correlations: `analysis.stats.association`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from analysis.stats.resampling import DRAWS, SEED, Orders, fisher_z, jackknife_interval

Z95 = 1.959963984540054
FALSE_DISCOVERIES = 0.05
"""Rate of false discoveries that q-values up to it keep."""
EVERY_FLIP_UP_TO = 12
"""Pairs whose signs are flipped in all ways: 4,096."""
CONSTANT = "no variation"
"""Reason of a number that is missing because all points are alike, and not because one was not measured."""


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty; `value` None: not measured or undefined, never 0."""

    value: float | None
    n: int = 0
    """Points the number is computed from."""
    points: str = ""
    """The kind of points: mixtures, benchmarks, cells."""
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    interval: str = ""
    """The method of the interval."""
    p: float | None = None
    """Two-sided p-value; by permutation wherever the points are at hand."""
    null: str = ""
    """The points that the permutation shuffles, else the hypothesis and its test."""
    arrangements: int | None = None
    """Distinct arrangements under the null."""
    smallest_p: float | None = None
    """The smallest p that those (or the draws) allow."""
    missing: int = 0
    """Points, benchmarks or mixtures left out because they were not measured or constant."""
    reason: str = ""
    """The reason for no value."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval; None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def inside(self, other: float) -> bool | None:
        """Whether `other` lies in the interval; None without an interval."""
        return None if self.ends is None else self.ends[0] <= other <= self.ends[1]


def absent(reason: str, **known: Any) -> Estimate:
    """An estimate without a value."""
    return Estimate(None, reason=reason, **known)


def tested_estimate(
    value: float | np.ndarray,
    ends: tuple[Any, Any] | np.ndarray,
    p: tuple[Any, Any],
    *,
    interval: str,
    null: str,
    arrangements: int | None,
    **known: Any,
) -> Estimate:
    """A number with an interval and a permutation test.

    ends: low and high, NaN or None where there is no interval. p: two-sided, and the smallest possible.
    """
    low, high = (None if end is None or math.isnan(end) else float(end) for end in ends)
    return Estimate(
        value=float(value),
        low=low,
        high=high,
        interval="" if low is None else interval,
        p=float(p[0]),
        null=null,
        arrangements=arrangements,
        smallest_p=float(p[1]),
        **known,
    )


def fisher_interval(r: float, n: int) -> tuple[float | None, float | None]:
    """95 % interval of a Pearson r by Fisher's z, tanh(atanh r -+ 1.96 / sqrt(n - 3)); none for n <= 3."""
    if n <= 3:
        return None, None
    if abs(r) >= 1.0:
        return r, r
    half = Z95 / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


LEVERAGE = 1.0
"""Standard errors, 1 / sqrt(n - 3), by which the absence of one point may move Fisher's z; beyond it the jackknife is
taken."""


def correlation_interval(r: float, left_out: np.ndarray, points: str) -> tuple[tuple[float | None, float | None], str]:
    """95 % interval of a Pearson r, and the name of its method; left_out: r without each point [n].

    Fisher's is the narrower and right for normal points, also with ties. Where one point moves z by more than
    `LEVERAGE` standard errors, points are hardly normal and Fisher's covers 74 to 90 %: the jackknife is taken. There
    is no interval where r is not defined without one of the points, which then carries it alone.
    """
    n = len(left_out)
    if n <= 3 or not np.isfinite(left_out).all():
        return (None, None), ""
    moved = np.abs(fisher_z(left_out) - fisher_z(r)).max()
    if moved * math.sqrt(n - 3) <= LEVERAGE:
        return fisher_interval(r, n), f"Fisher z over {points}"
    low, high = jackknife_interval(r, left_out)
    return (float(low), float(high)), f"jackknife of Fisher z over {points}, where one of them carries much of r"


def t_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """95 % interval of the mean of independent values [n]; none for n < 2."""
    n = len(values)
    if n < 2:
        return None, None
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def paired_difference(differences: np.ndarray, points: str) -> Estimate:
    """Mean of paired differences [n] (NaN: a pair lacks a side), t interval, p by flipping signs.

    All 2^n flips where n is at most `EVERY_FLIP_UP_TO`, else random ones.
    """
    values = differences[np.isfinite(differences)]
    n = len(values)
    known: dict[str, Any] = {"n": n, "points": points, "missing": len(differences) - n}
    if n == 0:
        return absent("no pair measured", **known)
    every = n <= EVERY_FLIP_UP_TO
    if every:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        signs = np.random.default_rng([SEED, n]).choice((1.0, -1.0), (DRAWS, n))
    orders = Orders(signs, every, "all" if every else f"{DRAWS:,} draws")
    mean = np.array(values.mean())
    return tested_estimate(
        mean,
        t_interval(values),
        orders.p_value(mean, [signs @ values / n]),
        interval=f"t over {points}",
        null=f"signs of {points} flipped ({orders.words})",
        arrangements=2**n,
        **known,
    )


def mean_measured(values: np.ndarray, axis: int | tuple[int, int] = 0, least: int = 1) -> np.ndarray:
    """Mean over an axis of the values that are not NaN; NaN where there are fewer than `least`."""
    measured = np.isfinite(values)
    count = measured.sum(axis=axis)
    total = np.where(measured, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count >= least)


def mean_over_benchmarks(values: np.ndarray, least: int = 1) -> np.ndarray:
    """Mean of values [mixtures, benchmarks] over the benchmarks that any mixture has, [mixtures].

    NaN for a mixture that lacks one, and where there are fewer than `least` benchmarks.
    """
    values = values[:, np.isfinite(values).any(axis=0)]
    return values.mean(axis=1) if values.shape[1] >= least else np.full(len(values), np.nan)


def mean_estimate(values: np.ndarray, points: str) -> Estimate:
    """Mean of measured values [n] with its t interval; no test."""
    measured = values[np.isfinite(values)]
    known: dict[str, Any] = {"n": len(measured), "points": points, "missing": len(values) - len(measured)}
    if len(measured) == 0:
        return absent("not measured", **known)
    low, high = t_interval(measured)
    interval = f"t over {points}" if low is not None else ""
    return Estimate(float(measured.mean()), low=low, high=high, interval=interval, **known)


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """q-values of a table: q_(i) = min over j >= i of p_(j) m / j. Missing p-values stay missing, uncounted."""
    # scipy.stats has this function too, but importing it takes every command another second.
    values = np.array([value for value in p if value is not None], dtype=float)
    rank = np.argsort(values, kind="stable")
    scaled = values[rank] * len(values) / np.arange(1, len(values) + 1)
    q = np.empty(len(values))
    q[rank] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    present = iter(q.tolist())
    return [None if value is None else next(present) for value in p]


def benjamini_bogomolov(families: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """q-values of families of tests: those below `FALSE_DISCOVERIES` are discovered (Benjamini and Bogomolov, 2014).

    R of the A families that have a test are discovered by their Simes p with Benjamini-Hochberg. Inside a family the
    q-value of Benjamini-Hochberg is multiplied by A / R, so that picking the families is paid for. One
    Benjamini-Hochberg over all tests would lend the discoveries of one family to another without any. Missing p-values
    stay missing, uncounted.
    """
    inside = [benjamini_hochberg(family) for family in families]
    # The smallest q-value of a family is its Simes p.
    simes = [min((q for q in family if q is not None), default=None) for family in inside]
    discovered = sum(q is not None and q <= FALSE_DISCOVERIES for q in benjamini_hochberg(simes))
    price = sum(p is not None for p in simes) / max(discovered, 1)
    return [[None if q is None else min(price * q, 1.0) for q in family] for family in inside]
