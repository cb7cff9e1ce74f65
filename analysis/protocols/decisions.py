"""The worth of an early score as a decision: how often it ranks two mixtures rightly, and what its choice costs.

In: two vectors over mixtures, the score seen early and the score paid for late. Out: decision accuracy (share of the
pairs of mixtures that both rank alike; a tie in either is half a hit) with its interval and permutation p, and the
regret of training on the best of the k mixtures that the early score puts first.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.panel.panel import Panel
from analysis.stats import resampling
from analysis.stats.estimates import CONSTANT, Estimate, absent, tested_estimate

TIED = 1e-12
"""Scores closer than this are equal: accuracies are shares of whole examples."""
TOP = (1, 2, 3)


@dataclass(frozen=True)
class Protocol:
    """The score that is seen early and the one that is paid for."""

    early: tuple[str, str]
    """Scale and stage of the score that is seen."""
    late: tuple[str, str]

    def __str__(self) -> str:
        return "{} {} to {} {}".format(*self.early, *self.late)


@dataclass(frozen=True)
class Decision:
    accuracy: Estimate
    """Decision accuracy over the pairs of mixtures."""
    regret: tuple[float, ...] = ()
    """Late score of the best mixture less that of the best among the k first by the early score, for k in `TOP`."""
    chosen: tuple[int, ...] = ()
    """Mixtures that the early score puts first; several only if they are tied."""
    best: tuple[int, ...] = ()
    """Mixtures that are best in the end."""


def protocols(panel: Panel) -> Iterator[Protocol]:
    """PT to SFT at each scale; between scales PT to PT, SFT to SFT and PT to SFT."""
    for scale in panel.scales:
        yield Protocol((scale, "PT"), (scale, "SFT"))
    for small, large in itertools.combinations(panel.scales, 2):
        for before, after in (("PT", "PT"), ("SFT", "SFT"), ("PT", "SFT")):
            yield Protocol((small, before), (large, after))


def decide(early: np.ndarray, late: np.ndarray) -> Decision:
    """Decide by the early scores and pay for the late ones; [M] over mixtures. NaN: not measured, left out, counted."""
    measured = np.flatnonzero(np.isfinite(early) & np.isfinite(late))
    known: dict[str, Any] = {"n": len(measured), "points": "mixtures", "missing": len(early) - len(measured)}
    if len(measured) < 3:
        return Decision(absent(f"only {len(measured)} mixtures", **known))
    early, late = early[measured], late[measured]
    agreement = pair_agreement(early, late)
    value = float(_over_pairs(agreement, np.ones((1, len(early))))[0])
    accuracy = tested_estimate(
        value,
        resampling.percentile_interval(_over_pairs(agreement, resampling.bootstrap_counts(len(early)))),
        _chance(value, _ties(early), _ties(late)),
        interval="percentile bootstrap over mixtures",
        null=f"mixtures shuffled ({resampling.all_orders(len(early)).words})",
        arrangements=resampling.distinct_arrangements(late),
        **known,
    )
    regret = tuple(float(top_regret(early, late, k)) for k in TOP if k <= len(early))
    first, best = (tuple(measured[values >= values.max() - TIED].tolist()) for values in (early, late))
    return Decision(accuracy, regret, first, best)


def decide_on_average(early: np.ndarray, late: np.ndarray) -> Estimate:
    """Mean over benchmarks of their decision accuracies; early, late: [M, benchmarks].

    Benchmarks that a mixture lacks are left out and counted, and so are those whose late scores are all alike: they
    leave nothing to decide, and no correlation. Interval: mixtures resampled for all benchmarks together. Null: the
    late mixtures shuffled alike for all benchmarks.
    """
    whole = np.isfinite(early).all(axis=0) & np.isfinite(late).all(axis=0)
    reason = CONSTANT if whole.any() else "no benchmark measured on all mixtures"
    whole[whole] = np.ptp(late[:, whole], axis=0) > TIED
    m = len(early)
    points = f"mixtures, mean of {int(whole.sum())} benchmarks"
    known: dict[str, Any] = {"n": m, "points": points, "missing": int((~whole).sum())}
    if not whole.any() or m < 3:
        return absent(reason, **known)
    pairs = list(zip(early[:, whole].T, late[:, whole].T, strict=True))
    agreements = np.mean([pair_agreement(a, b) for a, b in pairs], axis=0)
    value = float(_over_pairs(agreements, np.ones((1, m)))[0])
    order = resampling.independent_orders(m, 1)[:, 0]
    first, second = np.triu_indices(m, 1)
    seen = np.array([_signs(a)[first, second] for a, _ in pairs])
    paid = np.array([_signs(b).ravel() for _, b in pairs])
    together = seen.T @ paid  # [pairs, where an order puts them]: one sum over benchmarks serves every order
    null = together[np.arange(len(first)), order[:, first] * m + order[:, second]].sum(axis=1)
    null /= 2 * len(pairs) * len(first)
    return tested_estimate(
        value,
        resampling.percentile_interval(_over_pairs(agreements, resampling.bootstrap_counts(m))),
        resampling.Orders(order, False, "").p_value(np.array(value - 0.5), [null]),
        interval="percentile bootstrap over mixtures",
        null=f"mixtures shuffled, alike for all benchmarks ({resampling.DRAWS:,} draws)",
        arrangements=math.factorial(m),
        **known,
    )


def pair_agreement(early: np.ndarray, late: np.ndarray) -> np.ndarray:
    """[M, M]: 1 where both rank a pair alike, 0 where they differ, 1/2 where either has a tie; 0 on the diagonal."""
    agreement = (1 + _signs(early) * _signs(late)) / 2
    np.fill_diagonal(agreement, 0.0)
    return agreement


def ranked_alike(early: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Decision accuracy of each pair of vectors over mixtures [..., M]; [...]."""
    m = early.shape[-1]
    net = np.zeros(early.shape[:-1])
    for step in range(1, m):  # pairs of mixtures so far apart
        seen, paid = (_direction(side[..., step:] - side[..., :-step]) for side in (early, late))
        net += (seen * paid).sum(axis=-1)
    return (1 + net / (m * (m - 1) / 2)) / 2


def top_regret(early: np.ndarray, late: np.ndarray, k: int) -> np.ndarray:
    """max(late) less the best late score among the k first by the early score; [...] of vectors over mixtures [..., M].

    Where a tie decides which are the k first, the mean over all ways to break it: from the best mixture downwards, each
    is the best of the chosen if no better one is among them and it is itself, for which its chance is the places left
    among the tied over the tied mixtures left.
    """
    downwards = np.argsort(-late, axis=-1, kind="stable")
    early, late = (np.take_along_axis(side, downwards, axis=-1) for side in (early, late))
    threshold = np.sort(early, axis=-1)[..., -k, None]
    sure, tied = early > threshold + TIED, np.abs(early - threshold) <= TIED
    places = k - sure.sum(axis=-1, keepdims=True)
    left = np.cumsum(tied[..., ::-1], axis=-1)[..., ::-1]
    chance = np.where(sure, 1.0, np.where(tied, np.minimum(places / np.maximum(left, 1), 1.0), 0.0))
    none_better = np.cumprod(1 - chance, axis=-1)
    none_better = np.concatenate([np.ones_like(none_better[..., :1]), none_better[..., :-1]], axis=-1)
    return np.asarray(late[..., 0] - (late * chance * none_better).sum(axis=-1))


def _signs(values: np.ndarray) -> np.ndarray:
    return _direction(values[:, None] - values)


def _direction(differences: np.ndarray) -> np.ndarray:
    """Sign of each difference: 1, -1, or 0 for a tie."""
    return np.where(np.abs(differences) <= TIED, 0.0, np.sign(differences))


def _over_pairs(agreement: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the pairs of different mixtures in each resample [draws]; NaN where only one mixture was drawn."""
    total = ((counts @ agreement) * counts).sum(axis=1)
    pairs = ((counts @ (1 - np.eye(len(agreement)))) * counts).sum(axis=1)
    return np.divide(total, pairs, out=np.full(len(counts), math.nan), where=pairs > 0)


def _chance(value: float, ties_early: tuple[int, ...], ties_late: tuple[int, ...]) -> tuple[float, float]:
    """Two-sided p of a decision accuracy among all orders of the late scores, and the smallest possible.

    Around a half, so that the two sides of "no better than a coin" are alike.
    """
    mixtures = sum(ties_early)
    counts = _margins(*sorted((ties_early, ties_late), key=lambda ties: (-len(ties), ties)))
    margin = round(abs(2 * value - 1) * (mixtures * (mixtures - 1) // 2))
    extreme, most, total = int(counts[margin:].sum()), int(counts[np.flatnonzero(counts)[-1]]), int(counts.sum())
    if resampling.all_orders(mixtures).exact:
        return extreme / total, most / total
    return (extreme + 1) / (total + 1), 1 / (total + 1)


def _ties(values: np.ndarray) -> tuple[int, ...]:
    """How many mixtures share each score, from the lowest up or from the highest down: p is the same for both."""
    ascending = np.sort(values)
    groups = np.cumsum(np.concatenate([[0], np.diff(ascending) > TIED]))
    ties = tuple(np.bincount(groups.astype(int)).tolist())
    return min(ties, ties[::-1])


@functools.cache
def _margins(ties_early: tuple[int, ...], ties_late: tuple[int, ...]) -> np.ndarray:
    """How many orders of the late scores rank k more pairs alike than not, or k fewer, [pairs + 1].

    The number depends only on where the ties are, so that benchmarks with the same ties share one count.
    """
    if resampling.all_orders(sum(ties_early)).exact:
        net = _counted(ties_early, ties_late)
        middle = len(net) // 2
        return np.concatenate([net[middle : middle + 1], net[middle + 1 :] + net[:middle][::-1]])
    early = np.repeat(np.arange(len(ties_early)), ties_early).astype(float)
    first, second = np.triu_indices(len(early), 1)
    late = np.repeat(np.arange(len(ties_late), dtype=np.int16), ties_late)[resampling.all_orders(len(early)).index].T
    total = np.zeros(late.shape[1], np.int16)
    for i, j, seen in zip(first, second, _signs(early)[first, second], strict=True):
        if seen:
            total += np.sign(late[i] - late[j]) * np.int16(seen)
    return np.bincount(np.abs(total), minlength=len(first) + 1)


def _counted(ties_early: tuple[int, ...], ties_late: tuple[int, ...]) -> np.ndarray:
    """Number of different orders of the late scores by the pairs ranked alike less the pairs ranked otherwise.

    [-pairs ... pairs]. Scores of few examples have many ties, and then counting is several times as fast as writing
    down 9! orders. The early score's groups of equals take their late scores from what is left, the lowest group first;
    only the number taken of each late score matters to the groups above.
    """
    mixtures = sum(ties_early)
    pairs = mixtures * (mixtures - 1) // 2
    ways = {ties_late: np.eye(1, 2 * pairs + 1, pairs, dtype=np.int64)[0]}  # late scores left -> orders so far
    for size in ties_early:
        further: dict[tuple[int, ...], np.ndarray] = {}
        for left, counts in ways.items():
            for taken in _taken(left, size):
                rest = tuple(a - b for a, b in zip(left, taken, strict=True))
                lower = np.cumsum(rest) - rest
                net = int(np.dot(taken, sum(rest) - lower - rest - lower))  # with each that is left: above less below
                alike = math.factorial(size) // math.prod(map(math.factorial, taken))
                further[rest] = further.get(rest, 0) + alike * np.roll(counts, net)
        ways = further
    (found,) = ways.values()
    return found


def _taken(left: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """Every way to take `size` of what is left."""
    if not left:
        yield ()
        return
    for first in range(max(0, size - sum(left[1:])), min(left[0], size) + 1):
        yield from ((first, *others) for others in _taken(left[1:], size - first))


# ---------------------------------------------------------------------------------------------- fewer benchmarks


@dataclass(frozen=True)
class Subset:
    """The first `size` benchmarks of a greedy choice, judged on mixtures that had no part in choosing them."""

    size: int
    benchmarks: tuple[int, ...]
    """The benchmarks chosen with all mixtures."""
    accuracy: float
    """Decision accuracy over the pairs of a mixture that was left out with the others; choosing did not see it."""
    chosen_in: tuple[int, ...]
    """Number of leave-one-out choices that hold each of `benchmarks`."""


def subsets(early: np.ndarray, late: np.ndarray) -> list[Subset]:
    """Sets of benchmarks of every size whose mean early score best ranks the mixtures by the mean late score of all.

    early, late: [M, benchmarks], complete. Greedy: each step adds the benchmark that raises decision accuracy most, and
    of equals the one whose mean correlates best, then the first.
    """
    target, everyone = late.mean(axis=1), np.arange(len(early))
    whole = _greedy(early, target, everyone)
    without = [_greedy(early, target, np.delete(everyone, left_out)) for left_out in everyone]
    found = []
    for size in range(1, early.shape[1] + 1):
        hits = []
        for left_out, order in enumerate(without):
            agreement = pair_agreement(early[:, order[:size]].mean(axis=1), target)[left_out]
            hits.append(np.delete(agreement, left_out).mean())
        counts = tuple(sum(b in order[:size] for order in without) for b in whole[:size])
        found.append(Subset(size, tuple(whole[:size]), float(np.mean(hits)), counts))
    return found


def _greedy(early: np.ndarray, target: np.ndarray, mixtures: np.ndarray) -> list[int]:
    """All benchmarks in the order in which they are added, seen on some mixtures only."""
    scores, wanted = early[mixtures].T, target[mixtures]
    centred = wanted - wanted.mean()
    order: list[int] = []
    while len(order) < len(scores):
        rest = np.setdiff1d(np.arange(len(scores)), order)
        means = (scores[order].sum(axis=0) + scores[rest]) / (len(order) + 1)  # [benchmarks left, mixtures]
        spread = means.std(axis=1) * wanted.std()
        covariance = (means - means.mean(axis=1, keepdims=True)) @ centred / len(wanted)
        r = np.divide(covariance, spread, out=np.zeros(len(rest)), where=spread > TIED)
        order.append(int(rest[np.lexsort((rest, -np.round(r, 12), -ranked_alike(means, wanted)))[0]]))
    return order
