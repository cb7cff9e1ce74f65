"""The cross-stage correlation of a whole category: the mean of r over its benchmarks.

In: `Panel`. Out: the mean that the paper gives for a category, and the mean over those of its benchmarks that can tell
mixtures apart. Value, interval and p of a row belong to that category alone.

Benchmarks share their mixtures, so their r are not independent: the interval leaves out one mixture at a time for all
benchmarks together, and the test shuffles mixtures alike for all benchmarks of the category.

Categories are not pooled. With nine mixtures pooling drew a category without any correlation towards the others, made
its error larger, and called it significant in a third of studies (tests/perf/coverage/category_coverage.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.complete_cases import complete_scores, mean_of_groups
from analysis.protocols.usable import usable
from analysis.stats import resampling
from analysis.stats.association import pearson, unit
from analysis.stats.estimates import Estimate, absent, tested_estimate


@dataclass(frozen=True)
class MeanOfCategory:
    """A mean of r, and the benchmarks behind it."""

    estimate: Estimate
    averaged: tuple[int, ...]
    """Columns of the benchmarks in it."""


@dataclass(frozen=True)
class LeftOut:
    """How many benchmarks of a category no claim may rest on."""

    reasons: Counter[str]
    """Reason -> number of benchmarks."""
    unmeasured: int
    """Benchmarks that stay because their noise is not measured."""

    def __str__(self) -> str:
        words = [f"{count} {reason}" for reason, count in self.reasons.items()]
        if self.unmeasured:
            words.append(f"noise of {self.unmeasured} not measured")
        return ", ".join(words) or "none"


@dataclass(frozen=True)
class CategoryMeans:
    every: MeanOfCategory
    """Over the benchmarks that vary."""
    usable: MeanOfCategory
    """Over those of them that can tell mixtures apart."""
    left_out: LeftOut


def category_means(panel: Panel, scale: str, metric: str) -> dict[str, CategoryMeans]:
    """Means of the cross-stage correlations by category, and in `all` over all benchmarks."""
    members = {c: tuple(panel.members(c)) for c in panel.categories if panel.members(c)}
    members["all"] = tuple(range(len(panel.benchmarks)))
    fit = usable(panel, scale, metric)
    kept = {name: tuple(b for b in some if not fit.reasons[b]) for name, some in members.items()}
    groups = list(dict.fromkeys([*members.values(), *kept.values()]))
    means = dict(zip(groups, _means(panel, scale, metric, groups), strict=True))
    found = {}
    for name, some in members.items():
        every, reliable = means[some], means[kept[name]]
        reasons = Counter(fit.reasons[b] for b in some if fit.reasons[b])
        unmeasured = sum(not fit.noise_measured[b] for b in reliable.averaged)
        found[name] = CategoryMeans(every, reliable, LeftOut(reasons, unmeasured))
    return found


def _means(panel: Panel, scale: str, metric: str, columns: Sequence[Sequence[int]]) -> list[MeanOfCategory]:
    """The mean of r over each group of the panel's columns; one sweep over the orders serves all groups."""
    scores = complete_scores(panel, metric, [(scale, stage) for stage in STAGES])
    m, missing = scores.n, [scores.missing(some) for some in columns]
    if m < 4:
        return [MeanOfCategory(absent(f"only {m} mixtures", n=m, points="mixtures", missing=k), ()) for k in missing]
    x, y = scores.values
    groups = scores.groups(columns)
    value = mean_of_groups(pearson(x, y, np.ones((1, m))), groups)[0]
    ends = resampling.jackknife_interval(value, mean_of_groups(pearson(x, y, resampling.without_one(m)), groups))
    share = groups / np.maximum(groups.sum(axis=1, keepdims=True), 1)
    u, v = unit(x), unit(y)
    orders = resampling.all_orders(m)
    # The mean r of every order is a sum over mixtures, so that all orders are one matrix product.
    p = orders.p_value(np.nan_to_num(value), orders.sums(np.tensordot(share, u[:, :, None] * v[:, None], axes=1)))
    found = []
    for g, row in enumerate(groups):
        averaged = tuple(scores.columns[row > 0].tolist())
        known: dict[str, Any] = {
            "n": m,
            "points": f"mixtures, mean of {len(averaged)} benchmarks",
            "missing": missing[g],
        }
        if not averaged:
            reason = "no benchmark measured on all mixtures" if columns[g] else "no usable benchmark"
            found.append(MeanOfCategory(absent(reason, **known), ()))
            continue
        estimate = tested_estimate(
            value[g],
            (ends[0][g], ends[1][g]),
            (p[0][g], p[1][g]),
            interval="jackknife of Fisher z over mixtures",
            null=f"mixtures shuffled, alike for all benchmarks of the category ({orders.words})",
            arrangements=math.factorial(m),
            **known,
        )
        found.append(MeanOfCategory(estimate, averaged))
    return found
