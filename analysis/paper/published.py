"""What follows from the paper's Table 5 alone: intervals, p- and q-values, means, tiers, changes with the scale.

In: the published correlations (analysis/paper) and their number of points, nine mixtures. Out: `Estimate`s and plain
numbers. Why: the paper prints its correlations bare. Under the rules that a run's numbers obey here, many of them
support less than the text says. docs/contradictions.md tells it in words. Benchmarks are named as the paper does.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from scipy.special import ndtr, stdtr, stdtrit

from analysis.paper.numbers import SCALES, category_of, displays, in_text, numbers
from analysis.stats.estimates import Estimate, benjamini_hochberg, fisher_interval

MIXTURES = 9
"""Points of every correlation of Table 5: M in equation 1."""
LEVEL = 0.05
ROUNDING = 0.005 + 1e-9
"""Most that printing two decimals moves a number."""

COLUMNS = tuple(itertools.product(("accuracy", "confidence"), SCALES))
"""Metric and scale: Table 5 from left to right."""
ACCURACY, CONFIDENCE = COLUMNS[:2], COLUMNS[2:]

HIGH, LOW = 0.6, 0.3
"""Appendix C.2: highly reliable above the one in every column, unreliable below the other at either scale."""
TIERS = {
    "highly reliable": ("HellaSwag", "PIQA", "COPA", "QQP"),
    "unreliable": ("WiC", "WSC", "MultiRC", "WinoGrande", "MNLI"),
}
"""Tier -> its benchmarks as the text of C.2 lists them; the tier between the two has no rule."""


# ---------------------------------------------------------------------------------------------- correlations


def p_of(r: float, n: int) -> float:
    """Two-sided p of Pearson's r over n points: t = r sqrt((n - 2) / (1 - r^2)) on n - 2 degrees of freedom.

    It takes the points for independent and normal: without the points themselves nothing can be permuted.
    """
    if abs(r) >= 1:
        return 0.0
    return 2 * float(stdtr(n - 2, -abs(r) * math.sqrt((n - 2) / (1 - r * r))))


def critical_r(n: int) -> float:
    """The |r| over n points at which `p_of` is `LEVEL`."""
    t = float(stdtrit(n - 2, 1 - LEVEL / 2))
    return t / math.sqrt(n - 2 + t * t)


def published(r: float, n: int = MIXTURES, points: str = "mixtures") -> Estimate:
    """A printed correlation with the interval and the p that r and n alone give."""
    low, high = fisher_interval(r, n)
    null = "r = 0: t with n − 2 degrees of freedom"
    return Estimate(r, n, points, low=low, high=high, interval=f"Fisher z over {points}", p=p_of(r, n), null=null)


def correlations(metric: str, scale: str) -> dict[str, float]:
    """One of Table 5's four columns: benchmark -> r."""
    return {name: numbers()["5", metric, scale, slug] for slug, name in displays().items()}


@functools.cache
def estimates(metric: str, scale: str) -> dict[str, Estimate]:
    """`correlations` with what they are worth: benchmark -> estimate."""
    return {name: published(r) for name, r in correlations(metric, scale).items()}


def q_values(metric: str, scale: str) -> dict[str, float]:
    """Benjamini-Hochberg over the 20 benchmarks of a column."""
    column = estimates(metric, scale)
    q = benjamini_hochberg([estimate.p for estimate in column.values()])
    return {name: value for name, value in zip(column, q, strict=True) if value is not None}


def significant(metric: str, scale: str) -> list[str]:
    return [name for name, q in q_values(metric, scale).items() if q < LEVEL]


def significant_range(metric: str, scale: str) -> tuple[int, int]:
    """Fewest and most significant benchmarks among all correlations that print as these: |r| off by half a digit."""
    column = [abs(r) for r in correlations(metric, scale).values()]
    # Smaller |r| have larger p: the two ends of the rounding bound the number of discoveries.
    moved = ([min(max(r + shift, 0), 1) for r in column] for shift in (-ROUNDING, ROUNDING))
    q = (benjamini_hochberg([p_of(r, MIXTURES) for r in column]) for column in moved)
    fewest, most = (sum(value is not None and value < LEVEL for value in column) for column in q)
    return fewest, most


# ---------------------------------------------------------------------------------------------- means


def mean(metric: str, scale: str, without: Collection[str] = (), category: str | None = None) -> float:
    """Mean over a column of Table 5, or over a category in it; without: benchmarks left out."""
    of = {displays()[slug]: name for slug, name in category_of().items()}
    column = correlations(metric, scale)
    chosen = [r for name, r in column.items() if name not in without and category in (None, of[name])]
    return math.fsum(chosen) / len(chosen)


def means_in_text() -> dict[tuple[str, str], float]:
    """The four means that Findings 2 and 7 print, by metric and scale."""
    return {
        (metric, scale): in_text(quantity=f"mean {metric} cross-stage", scale=scale, category_or_benchmark="all 20")
        for metric, scale in COLUMNS
    }


def deletions_that_fit(count: int) -> list[tuple[str, ...]]:
    """The sets of `count` benchmarks without which Table 5 gives the text's four means, to its two decimals."""
    text = means_in_text()
    return [
        left_out
        for left_out in itertools.combinations(displays().values(), count)
        if all(abs(mean(*key, without=left_out) - text[key]) <= ROUNDING for key in COLUMNS)
    ]


# ---------------------------------------------------------------------------------------------- tiers


def above(bound: float, field: str = "value", columns: Sequence[tuple[str, str]] = COLUMNS) -> list[str]:
    """Benchmarks whose `field` (value, or low or high end of the interval) exceeds the bound in all the columns."""
    chosen = [estimates(*key) for key in columns]
    return [name for name in chosen[0] if all(getattr(column[name], field) > bound for column in chosen)]


def below(bound: float, field: str = "value", columns: Sequence[tuple[str, str]] = COLUMNS) -> list[str]:
    """Benchmarks whose `field` lies under the bound in at least one of the columns."""
    chosen = [estimates(*key) for key in columns]
    return [name for name in chosen[0] if any(getattr(column[name], field) < bound for column in chosen)]


# ---------------------------------------------------------------------------------------------- scale


@dataclass(frozen=True)
class Change:
    """Change of one benchmark's correlation from 240M to 1B."""

    z: float
    """Difference of Fisher's z over its standard error sqrt(2 / (n - 3))."""
    p: float
    q: float
    """Benjamini-Hochberg over the 20 benchmarks."""


def scale_changes(metric: str) -> dict[str, Change]:
    """Benchmark -> change. The scales share their mixtures, but are taken for independent: the table holds no more."""
    small, large = (correlations(metric, scale) for scale in SCALES)
    error = math.sqrt(2 / (MIXTURES - 3))
    z = [(math.atanh(large[name]) - math.atanh(r)) / error for name, r in small.items()]
    p = [2 * float(ndtr(-abs(value))) for value in z]
    q = [value for value in benjamini_hochberg(p) if value is not None]
    return {name: Change(*parts) for name, *parts in zip(small, z, p, q, strict=True)}
