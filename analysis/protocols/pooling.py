"""The cross-stage correlation of a whole category, from the correlations of its few benchmarks.

In: `Panel`. Out: the plain mean of r that the paper gives for a category, and a partially pooled one: Fisher's z of the
benchmarks, averaged by category and drawn towards the grand mean, the more so the less the categories' means differ
for what is known of each (random effects at two levels).

Benchmarks share their mixtures, so that the errors of their z are not independent as random-effects formulas assume:
the variances serve as weights only, and intervals leave out or resample mixtures for all benchmarks together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.complete_cases import complete_scores, mean_of_groups
from analysis.stats import resampling
from analysis.stats.association import pearson, unit
from analysis.stats.estimates import Estimate, absent, fisher_z, jackknife_interval, tested_estimate


@dataclass(frozen=True)
class Pooled:
    plain: Estimate
    """Mean of the benchmarks' r."""
    shrunken: Estimate
    """Partially pooled mean of Fisher's z, as r."""
    spread: float | None = None
    """Standard deviation of the benchmarks' true z within a category; one for all categories."""
    weight: float | None = None
    """Weight of the category's own mean in `shrunken`; the grand mean has the rest."""


class _TestedMeans(NamedTuple):
    """A mean of each category and, last, of all; [groups + 1] each."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    smallest_p: np.ndarray
    interval: str
    null: str

    def estimate(self, group: int, **known: Any) -> Estimate:
        return tested_estimate(
            self.value[group],
            (self.low[group], self.high[group]),
            (self.p[group], self.smallest_p[group]),
            interval=f"{self.interval} over mixtures",
            null=f"mixtures shuffled, alike for all benchmarks ({self.null})",
            arrangements=math.factorial(known["n"]),
            **known,
        )


def category_means(panel: Panel, scale: str, metric: str) -> dict[str, Pooled]:
    """Cross-stage correlation by category, and in `all` the mean over benchmarks and the grand mean.

    Intervals: mixtures resampled for all benchmarks together. Null: SFT's mixtures shuffled alike for all benchmarks.
    """
    scores = complete_scores(panel, metric, [(scale, stage) for stage in STAGES])
    members = {category: panel.members(category) for category in panel.categories if panel.members(category)}
    names, m = [*members, "all"], scores.n
    missing = [*map(scores.missing, members.values()), scores.missing(range(len(panel.benchmarks)))]
    if m < 4:
        absences = [absent(f"only {m} mixtures", n=m, points="mixtures", missing=k) for k in missing]
        return {name: Pooled(gone, gone) for name, gone in zip(names, absences, strict=True)}
    x, y = scores.values
    groups = scores.groups(list(members.values()))
    every = np.vstack([groups, np.ones(groups.shape[1])])
    plain, (pooling, pooled) = _plain_means(x, y, every), _pooled_means(x, y, groups)
    found = {}
    for g, name in enumerate(names):
        size = int(every[g].sum())
        known: dict[str, Any] = {"n": m, "points": f"mixtures, mean of {size} benchmarks", "missing": missing[g]}
        if not size:
            gone = absent("no benchmark measured on all mixtures", **known)
            found[name] = Pooled(gone, gone)
            continue
        weight = None if name == "all" else float(pooling.weight[0, g])
        estimates = plain.estimate(g, **known), pooled.estimate(g, **known)
        found[name] = Pooled(*estimates, float(pooling.spread[0]), weight)
    return found


def _plain_means(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> _TestedMeans:
    """Means of r over each group of benchmarks; x, y: PT and SFT [benchmarks, mixtures]."""
    m = x.shape[1]
    value = mean_of_groups(pearson(x, y, np.ones((1, m))), groups)[0]
    left_out = mean_of_groups(pearson(x, y, resampling.without_one(m)), groups)
    share = groups / np.maximum(groups.sum(axis=1, keepdims=True), 1)
    u, v = unit(x), unit(y)
    orders = resampling.all_orders(m)
    # The mean r of every order is a sum over mixtures, so that all orders are one matrix product.
    p = orders.p_value(value, orders.sums(np.tensordot(share, u[:, :, None] * v[:, None], axes=1)))
    return _TestedMeans(value, *jackknife_interval(value, left_out), *p, "jackknife of Fisher z", orders.words)


def _pooled_means(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[Pooling, _TestedMeans]:
    """Partially pooled means of Fisher's z, as r; x, y: PT and SFT [benchmarks, mixtures]."""
    m = x.shape[1]

    def pool(r: np.ndarray) -> Pooling:
        return partial_pooling(fisher_z(r), 1 / (m - 3), groups)

    pooled = pool(pearson(x, y, np.ones((1, m))))
    drawn = pool(pearson(x, y, resampling.bootstrap_counts(m))).means
    left_out = pool(pearson(x, y, resampling.without_one(m))).means
    low, high = np.tanh(resampling.bca_interval(pooled.means[0], drawn, left_out))
    # Pooling is not linear in r: every order needs a pooling of its own, so orders are drawn even where few exist.
    u, v = unit(x), unit(y)
    order = resampling.independent_orders(m, 1)[:, 0]
    orders = resampling.Orders(order, False, f"{resampling.DRAWS:,} draws")
    p = orders.p_value(pooled.means[0], [pool(np.einsum("bi,bdi->db", u, v[:, order])).means])
    return pooled, _TestedMeans(np.tanh(pooled.means[0]), low, high, *p, "BCa bootstrap", orders.words)


# ---------------------------------------------------------------------------------------------- random effects


@dataclass(frozen=True)
class Pooling:
    means: np.ndarray
    """Partially pooled category means of z and, last, the grand mean; [draws, groups + 1]."""
    spread: np.ndarray
    """Standard deviation between benchmarks of a category; [draws]."""
    weight: np.ndarray
    """Weight of each category's own mean; [draws, groups]."""


def partial_pooling(z: np.ndarray, variance: float, groups: np.ndarray) -> Pooling:
    """Pool z [draws, benchmarks] by groups, 0 or 1 [groups, benchmarks]; a benchmark whose z is NaN takes no part.

    variance: of the errors of z. Model: z_b ~ N(mean of its category, tau2 + variance), category means ~ N(grand mean,
    omega2). tau2 is the variance of DerSimonian and Laird pooled over the categories, (sum Q - sum df) / sum C
    (Borenstein, Hedges, Higgins and Rothstein 2009, chapter 19), which for equal variances is the pooled sample
    variance within categories less `variance`; omega2 is theirs for the category means. A category's mean y of k
    benchmarks becomes the posterior mean w y + (1 - w) grand, w = omega2 / (omega2 + (tau2 + variance) / k).
    """
    defined = np.isfinite(z)
    k, own = defined @ groups.T, mean_of_groups(z, groups)
    deviation = np.where(defined, z - np.nan_to_num(own) @ groups, 0.0)
    freedom = np.maximum(k - 1, 0).sum(axis=1)
    within = (deviation**2).sum(axis=1) / np.maximum(freedom, 1)
    tau2 = np.maximum(0.0, np.where(freedom > 0, within - variance, 0.0))
    error = np.where(k > 0, (tau2[:, None] + variance) / np.maximum(k, 1), np.inf)
    omega2 = dersimonian_laird(own, error)[:, None]
    precision, weight = 1 / (omega2 + error), omega2 / (omega2 + error)
    with np.errstate(invalid="ignore"):
        grand = ((precision * np.nan_to_num(own)).sum(axis=1) / precision.sum(axis=1))[:, None]
    return Pooling(np.hstack([weight * own + (1 - weight) * grand, grand]), np.sqrt(tau2), weight)


def dersimonian_laird(effects: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Variance between true effects [...] from effects [..., k] and the variances of their errors; NaN effect: no part.

    max(0, (Q - (k - 1)) / C), Q = sum w (y - mean_w)^2, C = sum w - sum w^2 / sum w, w = 1 / variance (DerSimonian and
    Laird 1986, equation 8). 0 for one effect.
    """
    w = np.where(np.isfinite(effects), 1 / variances, 0.0)
    y = np.nan_to_num(effects)
    total = np.maximum(w.sum(axis=-1), np.finfo(float).tiny)
    mean = (w * y).sum(axis=-1, keepdims=True) / total[..., None]
    q, c = (w * (y - mean) ** 2).sum(axis=-1), total - (w**2).sum(axis=-1) / total
    excess = q - (np.isfinite(effects).sum(axis=-1) - 1)
    several = np.isfinite(effects).sum(axis=-1) > 1
    return np.where(several, np.maximum(0.0, excess / np.where(several, c, 1.0)), 0.0)
