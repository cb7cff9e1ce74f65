"""The paper's correlation protocols, equations 1 to 8, on a study's matrices [mixtures, benchmarks].

In: `Panel`. Out: `Estimate`, each with its points, interval and null. Where the paper can be read in two ways both
readings are computed: coherence over all ordered pairs or over i < j (equations 5 and 6), alignment averaged over
mixtures or pooled over mixtures and benchmarks (equations 7 and 8, Tables 6, 8, 9).

Nulls. Cross-stage: mixtures shuffled. Coherence: the mixtures of every benchmark shuffled on their own. Alignment: the
confidences of a category's benchmarks shuffled, alike for all mixtures; its points are the benchmarks, whatever the
number of mixtures, since mixtures repeat the same benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.stats import resampling
from analysis.stats.association import (
    Association,
    correlate,
    correlate_one,
    pearson,
    pearson_matrix,
    ranks,
    unit,
)
from analysis.stats.estimates import (
    CONSTANT,
    Estimate,
    absent,
    correlation_interval,
    mean_measured,
    tested_estimate,
)

PROTOCOLS = ("PT", "SFT", "cross")
READINGS = ("averaged", "pooled", "chance-adjusted")


# ---------------------------------------------------------------------------------------------- equations 1, 2


def cross_stage(panel: Panel, scale: str, metric: str) -> list[Association]:
    """Equations 1 (accuracy) and 2 (confidence): PT against SFT over mixtures, one association a benchmark."""
    pt, sft = (panel.matrix(scale, stage, metric).T for stage in STAGES)
    return correlate(pt, sft, "mixtures", panel.web_blocks())


def mean_cross_stage(panel: Panel, scale: str, metric: str) -> Estimate:
    """Mean of the cross-stage correlations over the benchmarks that have one."""
    return mean_correlation(*(panel.matrix(scale, stage, metric) for stage in STAGES))


def mean_correlation(early: np.ndarray, late: np.ndarray) -> Estimate:
    """Mean over benchmarks of the correlations of two matrices [mixtures, benchmarks]; gaps leave a benchmark out.

    Interval: jackknife over mixtures, each left out of all benchmarks together. Null: the late mixtures shuffled alike
    for all benchmarks.
    """
    first, second = early.T, late.T
    whole = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    u, v = unit(first[whole]), unit(second[whole])
    keep = np.isfinite(u[:, 0]) & np.isfinite(v[:, 0])
    x, y, u, v = first[whole][keep], second[whole][keep], u[keep], v[keep]
    missing, m = len(first) - len(x), first.shape[1]
    if not len(x) or m < 3:
        return absent("no benchmark has a correlation", missing=missing, points="mixtures", n=m)
    value = np.array((u * v).sum(axis=1).mean())
    orders = resampling.all_orders(m)
    left_out = mean_measured(pearson(x, y, resampling.without_one(m)), axis=1)
    return tested_estimate(
        value,
        resampling.jackknife_interval(value, left_out),
        orders.p_value(value, orders.sums((u[:, :, None] * v[:, None]).mean(axis=0))),
        interval="jackknife of Fisher z over mixtures",
        null=f"mixtures shuffled, alike for all benchmarks ({orders.words})",
        arrangements=math.factorial(m),
        n=m,
        points=f"mixtures, mean of {len(x)} benchmarks",
        missing=missing,
    )


# ---------------------------------------------------------------------------------------------- equations 3 to 6


def coherence(panel: Panel, scale: str, category: str, protocol: str, metric: str, reading: str) -> Estimate:
    """Equations 3, 4 (protocols PT, SFT) and 5 (cross), averaged over pairs of a category's benchmarks (equation 6).

    reading `ordered`: all pairs i != j; `i<j`: PT of the earlier benchmark of Table 4 with SFT of the later one. For PT
    and SFT the two agree. Mixtures that lack one of the benchmarks are left out; so are benchmarks without variation.
    """
    first = panel.matrix(scale, "SFT" if protocol == "SFT" else "PT", metric)[:, panel.members(category)]
    second = panel.matrix(scale, "PT" if protocol == "PT" else "SFT", metric)[:, panel.members(category)]
    measured = np.isfinite(first).any(axis=0) & np.isfinite(second).any(axis=0)
    first, second = first[:, measured], second[:, measured]
    whole = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    x, y = first[whole].T, second[whole].T  # [benchmarks, mixtures]
    m = x.shape[1]
    if m >= 3:
        varies = np.isfinite(unit(x)[:, 0]) & np.isfinite(unit(y)[:, 0])
        x, y = x[varies], y[varies]
    b = len(x)
    missing = len(panel.members(category)) - b
    known: dict[str, Any] = {"n": m, "points": f"mixtures, {b} benchmarks", "missing": missing}
    if m < 3 or b < 2:
        return absent("fewer than 3 mixtures or 2 benchmarks", **known)
    weight = np.triu(np.ones((b, b)), 1) if reading == "i<j" else 1 - np.eye(b)
    u, v = unit(x), unit(y)
    value = float(mean_over_pairs(u @ v.T, weight))
    order, rows = resampling.independent_orders(m, b), np.arange(b)[:, None]
    null = np.einsum("dim,djm,ij->d", u[rows, order], v[rows, order], weight, optimize=True) / weight.sum()
    left_out = mean_over_pairs(pearson_matrix(x, y, resampling.without_one(m)), weight)
    return tested_estimate(
        value,
        resampling.jackknife_interval(value, left_out),
        resampling.Orders(order, False, "").p_value(np.array(value), [null]),
        interval="jackknife of Fisher z over mixtures",
        null=f"mixtures of each benchmark shuffled on their own ({resampling.DRAWS:,} draws)",
        arrangements=math.factorial(m) ** (b - 1),
        **known,
    )


def mean_over_pairs(r: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Equation 6: mean of the defined r [..., benchmarks, benchmarks] over the pairs whose weight is above 0."""
    return mean_measured(np.where(weight > 0, r, np.nan), axis=(-2, -1))


# ---------------------------------------------------------------------------------------------- equations 7, 8


def chance_adjusted(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """(x - 1/K) / (1 - 1/K) for accuracy or confidence, [mixtures, benchmarks]; 1/K is the mean over examples."""
    uniform = panel.matrix(scale, stage, "uniform", "")
    return (panel.matrix(scale, stage, metric) - uniform) / (1 - uniform)


def _accuracy_and_confidence(
    panel: Panel, scale: str, stage: str, category: str, adjusted: bool = False, confidence: str = "confidence"
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and confidence, [mixtures, benchmarks of the category] each; adjusted: for chance."""
    members = panel.members(category)
    hits, sure = (
        (chance_adjusted(panel, scale, stage, metric) if adjusted else panel.matrix(scale, stage, metric))[:, members]
        for metric in ("accuracy", confidence)
    )
    return hits, sure


def _without_gaps(accuracy: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(accuracy, confidence, whole): [mixtures, measured benchmarks] twice, and [mixtures] bool.

    A benchmark is measured if any mixture has it, and a mixture is whole if it has all measured benchmarks.
    """
    measured = (np.isfinite(accuracy) & np.isfinite(confidence)).any(axis=0)
    accuracy, confidence = accuracy[:, measured], confidence[:, measured]
    return accuracy, confidence, np.isfinite(accuracy).all(axis=1) & np.isfinite(confidence).all(axis=1)


def alignment_by_mixture(panel: Panel, scale: str, stage: str, category: str) -> np.ndarray:
    """Equation 8 for each mixture, [mixtures]: accuracy against confidence over a category's benchmarks, or NaN."""
    return row_correlations(*_accuracy_and_confidence(panel, scale, stage, category))


def row_correlations(accuracy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Equation 8 for each row of two matrices [mixtures, benchmarks], [mixtures].

    Benchmarks that no mixture has drop out. NaN for a mixture that lacks another one, and for fewer than 3 benchmarks.
    """
    accuracy, confidence, whole = _without_gaps(accuracy, confidence)
    found = np.full(len(whole), math.nan)
    if whole.any() and accuracy.shape[1] >= 3:
        found[whole] = pearson(accuracy[whole], confidence[whole], np.ones((1, accuracy.shape[1])))[0]
    return found


def alignment(
    panel: Panel,
    scale: str,
    stage: str,
    category: str,
    reading: str,
    mixtures: Sequence[str] | None = None,
    confidence: str = "confidence",
) -> Estimate:
    """Equation 8 for a group of mixtures (default: all), in one of `READINGS`.

    averaged: r of each mixture, then the mean. pooled: one r over all (mixture, benchmark) points. chance-adjusted: as
    averaged, after (x - 1/K) / (1 - 1/K). The interval is of as many points as there are benchmarks.
    confidence: the metric that accuracy is aligned with, as scored or after a temperature (`confidence_scaled`).
    """
    names = panel.mixtures if mixtures is None else tuple(mixtures)
    rows = [panel.mixtures.index(name) for name in names]
    sides = _accuracy_and_confidence(panel, scale, stage, category, reading == "chance-adjusted", confidence)
    accuracy, sure, whole = (part[rows] for part in _without_gaps(*sides))
    a, c = accuracy[whole], sure[whole]
    b = accuracy.shape[1]
    known: dict[str, Any] = {"n": b, "points": f"benchmarks, {len(a)} mixtures", "missing": len(names) - len(a)}
    if b < 3 or len(a) == 0:
        return absent("fewer than 3 benchmarks or no mixture measured", **known)
    if reading == "pooled":
        (u,), (v,) = unit(a.reshape(1, -1)), unit(c.reshape(1, -1))
        cells = u.reshape(a.shape).T @ v.reshape(c.shape)  # [i, j]: accuracy of i with confidence of j
    else:
        u, v = unit(a), unit(c)
        defined = np.isfinite(u[:, 0]) & np.isfinite(v[:, 0])
        known["missing"] = len(names) - int(defined.sum())
        cells = u[defined].T @ v[defined] / max(1, int(defined.sum())) if defined.any() else np.full((b, b), math.nan)
    value = np.trace(cells)
    if math.isnan(value):
        return absent(CONSTANT, **known)
    value = np.clip(value, -1.0, 1.0)
    orders = resampling.all_orders(b)
    ends, method = correlation_interval(float(value), _without_a_benchmark(a, c, reading), "benchmarks")
    return tested_estimate(
        value,
        ends,
        orders.p_value(value, orders.sums(cells)),
        interval=method,
        null=f"benchmarks shuffled, alike for all mixtures ({orders.words})",
        arrangements=math.factorial(b),
        **known,
    )


def _without_a_benchmark(accuracy: np.ndarray, confidence: np.ndarray, reading: str) -> np.ndarray:
    """Alignment without each of the benchmarks, [benchmarks]; accuracy, confidence: [mixtures, benchmarks]."""
    left_out = resampling.without_one(accuracy.shape[1])
    if reading == "pooled":
        every = np.tile(left_out, len(accuracy))
        return pearson(accuracy.reshape(1, -1), confidence.reshape(1, -1), every)[:, 0]
    return mean_measured(pearson(accuracy, confidence, left_out), axis=1)


def persistence(panel: Panel, scale: str, category: str) -> Estimate:
    """Table 10: alignment of each mixture after PT against after SFT, over mixtures."""
    pt, sft = (alignment_by_mixture(panel, scale, stage, category) for stage in STAGES)
    return correlate_one(pt, sft, "mixtures", panel.web_blocks()).estimate


def groups(panel: Panel, by: str) -> dict[str, list[str]]:
    """Mixtures by web source (`web`) or code percent (`code`); mixtures of which it is not known are in no group."""
    found: dict[str, list[str]] = {}
    for mixture, design in panel.design.items():
        if by == "code" and design.code_percent is None:
            continue
        found.setdefault(design.web if by == "web" else f"{design.code_percent:g}", []).append(mixture)
    return dict(sorted(found.items(), key=lambda item: float(item[0]))) if by == "code" else found


# ---------------------------------------------------------------------------------------------- seeds, declared order


def seed_spread(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """Standard deviation over seeds within a mixture, pooled by degrees of freedom, [benchmarks]; NaN: not measured."""
    return np.sqrt(seed_covariance(panel, scale, (stage, stage), metric))


def seed_covariance(panel: Panel, scale: str, stages: tuple[str, str], metric: str) -> np.ndarray:
    """Covariance over a mixture's seeds of the scores after two stages, pooled by degrees of freedom, [benchmarks].

    With one stage twice it is a variance. NaN where no mixture has two seeds.
    """
    first, second = (panel.over_seeds(scale, stage, metric) for stage in stages)
    both = np.isfinite(first) & np.isfinite(second)
    first, second = (side - mean_measured(np.where(both, side, np.nan)) for side in (first, second))
    products = np.where(both, first * second, 0.0).sum(axis=(0, 1))
    freedom = np.maximum(both.sum(axis=0) - 1, 0).sum(axis=0)
    return np.divide(products, freedom, out=np.full(len(products), np.nan), where=freedom > 0)


def seed_freedom(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """Degrees of freedom that each mixture gives `seed_spread`, int [mixtures, benchmarks]; 0: it has one seed."""
    return np.maximum(np.isfinite(panel.over_seeds(scale, stage, metric)).sum(axis=0) - 1, 0)


def declared_order(panel: Panel, learnable: dict[str, dict[str, float]], scale: str, stage: str) -> dict[str, Estimate]:
    """Spearman of the declared dose of each mixture against accuracy, the mean over its seeds; by benchmark."""
    accuracy = panel.mean_over_seeds(scale, stage)
    found = {}
    for slug, doses in learnable.items():
        if slug not in panel.benchmarks:
            found[slug] = absent("not in this study")
            continue
        dose = np.array([float(doses.get(m, math.nan)) for m in panel.mixtures])
        value = accuracy[:, panel.benchmarks.index(slug)]
        both = np.isfinite(dose) & np.isfinite(value)
        found[slug] = correlate_one(ranks(dose[both]), ranks(value[both]), "mixtures (ranks)").estimate
    return found
