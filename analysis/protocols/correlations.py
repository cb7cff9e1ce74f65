"""The paper's correlation protocols, equations 1 to 8, on a study's matrices [mixtures, benchmarks].

In: `Panel`. Out: `Estimate`, each with its points, interval and null. Where the paper can be read in two ways both
readings are computed: coherence over all ordered pairs or over i < j (equations 5 and 6), alignment averaged over
mixtures or pooled over mixtures and benchmarks (equations 7 and 8, Tables 6, 8, 9).

Nulls. Cross-stage: mixtures shuffled. Coherence: the mixtures of every benchmark shuffled on their own. Alignment: the
confidences of a category's benchmarks shuffled, alike for all mixtures; its points are the benchmarks, whatever the
number of mixtures, since mixtures repeat the same benchmarks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.stats import estimates as st
from analysis.stats import resampling as rs
from analysis.stats.association import Association, associate, associate_one, pearson, pearson_matrix, ranks, unit
from analysis.stats.estimates import Estimate, mean_measured

PROTOCOLS = ("PT", "SFT", "cross")
READINGS = ("averaged", "pooled", "chance-adjusted")


# ---------------------------------------------------------------------------------------------- equations 1, 2


def cross_stage(panel: Panel, scale: str, metric: str) -> list[Association]:
    """Equations 1 (accuracy) and 2 (confidence): PT against SFT over mixtures, one association a benchmark."""
    pt, sft = (panel.matrix(scale, stage, metric).T for stage in STAGES)
    return associate(pt, sft, "mixtures", panel.web_blocks())


def across_seeds(panel: Panel, scale: str, metric: str) -> np.ndarray:
    """r over mixtures between PT of one seed and SFT of another, which share no run, [benchmarks].

    Mean over the ordered pairs of different seeds that more than half of the mixtures have; NaN where there is none.
    """
    pt, sft = (panel.over_seeds(scale, stage, metric) for stage in STAGES)
    found = []
    for first, second in itertools.permutations(range(len(panel.seeds)), 2):
        r = np.full(len(panel.benchmarks), math.nan)
        both = np.isfinite(pt[first]) & np.isfinite(sft[second])
        for b in np.flatnonzero((both.sum(axis=0) >= 3) & (2 * both.sum(axis=0) > len(panel.mixtures))):
            x, y = (side[both[:, b], b][None] for side in (pt[first], sft[second]))
            r[b] = pearson(x, y, np.ones(x.shape))[0, 0]
        found.append(r)
    return mean_measured(np.array(found).reshape(-1, len(panel.benchmarks)))


def mean_cross_stage(panel: Panel, scale: str, metric: str) -> Estimate:
    """Mean of the cross-stage correlations over the benchmarks that have one."""
    return mean_correlation(*(panel.matrix(scale, stage, metric) for stage in STAGES))


def mean_correlation(early: np.ndarray, late: np.ndarray) -> Estimate:
    """Mean over benchmarks of the correlations of two matrices [mixtures, benchmarks]; gaps leave a benchmark out.

    Interval: mixtures resampled for all benchmarks together. Null: the late mixtures shuffled alike for all benchmarks.
    """
    first, second = early.T, late.T
    whole = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    u, v = unit(first[whole]), unit(second[whole])
    keep = np.isfinite(u[:, 0]) & np.isfinite(v[:, 0])
    x, y, u, v = first[whole][keep], second[whole][keep], u[keep], v[keep]
    missing, m = len(first) - len(x), first.shape[1]
    if not len(x) or m < 3:
        return st.absent("no benchmark has a correlation", missing=missing, points="mixtures", n=m)
    value = np.array((u * v).sum(axis=1).mean())
    orders = rs.all_orders(m)
    p, smallest = orders.p_value(value, orders.sums((u[:, :, None] * v[:, None]).mean(axis=0)))
    low, high = _ends(rs.percentile_interval(_mean_defined(pearson(x, y, rs.bootstrap_counts(m)), axis=1)))
    return Estimate(
        value=float(value),
        n=m,
        points=f"mixtures, mean of {len(x)} benchmarks",
        low=low,
        high=high,
        interval="percentile bootstrap over mixtures",
        p=float(p),
        null=f"mixtures shuffled, alike for all benchmarks ({orders.words})",
        arrangements=math.factorial(m),
        smallest_p=float(smallest),
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
    known = {"n": m, "points": f"mixtures, {b} benchmarks", "missing": missing}
    if m < 3 or b < 2:
        return st.absent("fewer than 3 mixtures or 2 benchmarks", **known)
    weight = np.triu(np.ones((b, b)), 1) if reading == "i<j" else 1 - np.eye(b)

    def mean(r: np.ndarray) -> np.ndarray:
        return _mean_defined(np.where(weight > 0, r, np.nan).reshape(*r.shape[:-2], -1), axis=-1)

    u, v = unit(x), unit(y)
    value = float(mean(u @ v.T))
    order, rows = rs.independent_orders(m, b), np.arange(b)[:, None]
    null = np.einsum("dim,djm,ij->d", u[rows, order], v[rows, order], weight, optimize=True) / weight.sum()
    p, smallest = rs.Orders(order, False, "").p_value(np.array(value), [null])
    low, high = _ends(rs.percentile_interval(mean(pearson_matrix(x, y, rs.bootstrap_counts(m)))))
    return Estimate(
        value=value,
        low=low,
        high=high,
        interval="percentile bootstrap over mixtures",
        p=float(p),
        null=f"mixtures of each benchmark shuffled on their own ({rs.DRAWS:,} draws)",
        arrangements=math.factorial(m) ** (b - 1),
        smallest_p=float(smallest),
        **known,
    )


# ---------------------------------------------------------------------------------------------- equations 7, 8


def chance_adjusted(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """(x - 1/K) / (1 - 1/K) for accuracy or confidence, [mixtures, benchmarks]; 1/K is the mean over examples."""
    uniform = panel.matrix(scale, stage, "uniform", "")
    return (panel.matrix(scale, stage, metric) - uniform) / (1 - uniform)


def alignment_vectors(
    panel: Panel, scale: str, stage: str, category: str, adjusted: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(accuracy, confidence, whole): [mixtures, measured benchmarks of the category] twice, and [mixtures] bool.

    A mixture is whole if all those benchmarks were measured on it.
    """
    accuracy, confidence = (
        chance_adjusted(panel, scale, stage, m) if adjusted else panel.matrix(scale, stage, m)
        for m in ("accuracy", "confidence")
    )
    members = panel.members(category)
    accuracy, confidence = accuracy[:, members], confidence[:, members]
    measured = (np.isfinite(accuracy) & np.isfinite(confidence)).any(axis=0)
    accuracy, confidence = accuracy[:, measured], confidence[:, measured]
    return accuracy, confidence, np.isfinite(accuracy).all(axis=1) & np.isfinite(confidence).all(axis=1)


def alignment_by_mixture(panel: Panel, scale: str, stage: str, category: str, adjusted: bool = False) -> np.ndarray:
    """Equation 8 for each mixture, [mixtures]: accuracy against confidence over a category's benchmarks, or NaN."""
    accuracy, confidence, whole = alignment_vectors(panel, scale, stage, category, adjusted)
    found = np.full(len(whole), math.nan)
    if whole.any() and accuracy.shape[1] >= 3:
        found[whole] = pearson(accuracy[whole], confidence[whole], np.ones((1, accuracy.shape[1])))[0]
    return found


def alignment(
    panel: Panel, scale: str, stage: str, category: str, reading: str, mixtures: Sequence[str] | None = None
) -> Estimate:
    """Equation 8 for a group of mixtures (default: all), in one of `READINGS`.

    averaged: r of each mixture, then the mean. pooled: one r over all (mixture, benchmark) points. chance-adjusted: as
    averaged, after (x - 1/K) / (1 - 1/K). The interval is Fisher's for as many points as there are benchmarks.
    """
    names = panel.mixtures if mixtures is None else tuple(mixtures)
    rows = [panel.mixtures.index(name) for name in names]
    accuracy, confidence, whole = (
        part[rows] for part in alignment_vectors(panel, scale, stage, category, reading == "chance-adjusted")
    )
    a, c = accuracy[whole], confidence[whole]
    b = accuracy.shape[1]
    known = {"n": b, "points": f"benchmarks, {len(a)} mixtures", "missing": len(names) - len(a)}
    if b < 3 or len(a) == 0:
        return st.absent("fewer than 3 benchmarks or no mixture measured", **known)
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
        return st.absent(st.CONSTANT, **known)
    value = np.clip(value, -1.0, 1.0)
    orders = rs.all_orders(b)
    p, smallest = orders.p_value(value, orders.sums(cells))
    low, high = st.fisher_interval(float(value), b)
    return Estimate(
        value=float(value),
        low=low,
        high=high,
        interval="Fisher z over benchmarks" if b > 3 else "",
        p=float(p),
        null=f"benchmarks shuffled, alike for all mixtures ({orders.words})",
        arrangements=math.factorial(b),
        smallest_p=float(smallest),
        **known,
    )


def persistence(panel: Panel, scale: str, category: str) -> Estimate:
    """Table 10: alignment of each mixture after PT against after SFT, over mixtures."""
    pt, sft = (alignment_by_mixture(panel, scale, stage, category) for stage in STAGES)
    return associate_one(pt, sft, "mixtures", panel.web_blocks()).estimate


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
    values = panel.over_seeds(scale, stage, metric)
    n = np.isfinite(values).sum(axis=0)  # [mixtures, benchmarks]
    freedom = seed_freedom(panel, scale, stage, metric).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=0) / n
        square = np.nansum((values - mean) ** 2, axis=0)
        return np.sqrt(np.where(freedom > 0, np.where(n > 1, square, 0).sum(axis=0) / freedom, np.nan))


def seed_freedom(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """Degrees of freedom that each mixture gives `seed_spread`, int [mixtures, benchmarks]; 0: it has one seed."""
    return np.maximum(np.isfinite(panel.over_seeds(scale, stage, metric)).sum(axis=0) - 1, 0)


def declared_order(panel: Panel, learnable: dict[str, dict[str, float]], scale: str, stage: str) -> dict[str, Estimate]:
    """Spearman of the declared dose of each mixture against accuracy, the mean over its seeds; by benchmark."""
    accuracy = panel.mean_over_seeds(scale, stage)
    found = {}
    for slug, doses in learnable.items():
        if slug not in panel.benchmarks:
            found[slug] = st.absent("not in this study")
            continue
        dose = np.array([float(doses.get(m, math.nan)) for m in panel.mixtures])
        value = accuracy[:, panel.benchmarks.index(slug)]
        both = np.isfinite(dose) & np.isfinite(value)
        found[slug] = associate_one(ranks(dose[both]), ranks(value[both]), "mixtures (ranks)").estimate
    return found


def _ends(interval: tuple[np.ndarray, np.ndarray]) -> tuple[float | None, float | None]:
    """An interval as `Estimate` holds it."""
    low, high = map(float, interval)
    return (None, None) if math.isnan(low) else (low, high)


def _mean_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the defined entries; NaN where there is none (without NumPy's warning)."""
    defined = np.isfinite(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
