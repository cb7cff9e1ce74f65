"""Is a model as often right as it is sure? Calibration of many cells (a checkpoint on a benchmark) at once.

In: probabilities over the candidates [examples, K] (0 for candidates that a row lacks), gold, and the number of the
cell of each example. Out: one number a cell. Confidence is the probability of the selected candidate, the largest.
Temperatures: `analysis.temperature`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

BINS = 15


# ---------------------------------------------------------------------------------------------- of one example


def softmax(logprob: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Over the candidates; logprob [examples, K], -inf for candidates that a row lacks."""
    shifted = np.exp((logprob - logprob.max(axis=1, keepdims=True)) / temperature)
    return shifted / shifted.sum(axis=1, keepdims=True)


def softmax_and_nll(logprob: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`softmax` [examples, K] and `negative_log_likelihood` [examples] in one go."""
    relative = logprob - logprob.max(axis=1, keepdims=True)
    shares = np.exp(relative)
    total = shares.sum(axis=1)
    return shares / total[:, None], np.log(total) - relative[np.arange(len(gold)), gold]


def brier(probability: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Sum over the candidates of (probability - 1 for the true one), squared; [examples], 0 to 2."""
    right = probability[np.arange(len(gold)), gold]
    return (probability**2).sum(axis=1) - 2 * right + 1


def negative_log_likelihood(logprob: np.ndarray, gold: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """-log of the true candidate's `softmax`, in nats; [examples]. Finite however unlikely it is."""
    scaled = (logprob - logprob[np.arange(len(gold)), gold][:, None]) / temperature
    peak = scaled.max(axis=1)
    return np.log(np.exp(scaled - peak[:, None]).sum(axis=1)) + peak


# ---------------------------------------------------------------------------------------------- of cells


@dataclass(frozen=True)
class Reliability:
    """Reliability diagrams of cells, [cells, bins] each; an empty bin is NaN."""

    count: np.ndarray
    confidence: np.ndarray
    """Mean of its examples."""
    accuracy: np.ndarray

    @property
    def expected_error(self) -> np.ndarray:
        """ECE [cells]: |accuracy - confidence| of each bin, weighted by its examples (Guo et al. 2017, equation 3)."""
        gap = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        with np.errstate(invalid="ignore"):  # a cell without examples is NaN
            return (self.count * gap).sum(axis=1) / self.count.sum(axis=1)

    @property
    def largest_error(self) -> np.ndarray:
        """MCE [cells]: of the worst bin."""
        gap = np.nan_to_num(np.abs(self.accuracy - self.confidence), nan=-1.0).max(axis=1)
        return np.where(gap < 0, np.nan, gap)


def reliability(
    confidence: np.ndarray,
    right: np.ndarray,
    cell: np.ndarray,
    cells: int,
    bins: int = BINS,
    *,
    equal_mass: bool = False,
) -> Reliability:
    """confidence, right: float and bool [examples]; cell: int [examples], below `cells`.

    Bins are equally wide over [0, 1], closed above; with `equal_mass` each holds as many examples of its cell as the
    others, as far as whole examples allow.
    """
    if equal_mass:
        order = np.lexsort((confidence, cell))
        size = np.bincount(cell, minlength=cells)
        place = np.empty(len(cell), np.int64)
        place[order] = np.arange(len(cell)) - np.repeat(np.cumsum(size) - size, size)
        bin_ = place * bins // size[cell]
    else:
        bin_ = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    at = cell * bins + bin_
    count, total, hits = (
        np.bincount(at, weights, minlength=cells * bins).reshape(cells, bins)
        for weights in (None, confidence, right.astype(float))
    )
    with np.errstate(invalid="ignore"):
        return Reliability(count.astype(float), total / count, hits / count)


def auroc(confidence: np.ndarray, right: np.ndarray, cell: np.ndarray, cells: int) -> np.ndarray:
    """Chance that a right answer is surer than a wrong one, ties half, [cells]; NaN where answers are of one kind."""
    found = np.full(cells, math.nan)
    order = np.argsort(cell, kind="stable")
    ends = np.cumsum(np.bincount(cell, minlength=cells))
    for number, mine in enumerate(np.split(order, ends[:-1])):
        hits = int(right[mine].sum())
        misses = len(mine) - hits
        if hits and misses:
            ranks = rankdata(confidence[mine])[right[mine]]
            found[number] = (ranks.sum() - hits * (hits + 1) / 2) / (hits * misses)
    return found


@dataclass(frozen=True)
class BrierParts:
    """Of being right at the selected answer: Brier score = calibration - resolution + uncertainty (Murphy 1973).

    Exact where the confidences in a bin are equal; [cells] each.
    """

    calibration: np.ndarray
    resolution: np.ndarray
    uncertainty: np.ndarray


def brier_parts(diagram: Reliability) -> BrierParts:
    total = diagram.count.sum(axis=1, keepdims=True)
    share, accuracy = diagram.count / total, np.nan_to_num(diagram.accuracy)
    base = (share * accuracy).sum(axis=1, keepdims=True)
    gap = np.nan_to_num(diagram.accuracy - diagram.confidence)
    return BrierParts(
        calibration=(share * gap**2).sum(axis=1),
        resolution=(share * (accuracy - base) ** 2 * (diagram.count > 0)).sum(axis=1),
        uncertainty=(base * (1 - base))[:, 0],
    )
