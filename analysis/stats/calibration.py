"""Is a model as often right as it is sure? Calibration of many cells (a checkpoint on a benchmark) at once.

In: probabilities over the candidates [examples, K] (0 for candidates that a row lacks), gold, and the number of the
cell of each example. Out: one number a cell. Confidence is the probability of the selected candidate, the largest.
Temperatures: `analysis.stats.temperature`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


# ---------------------------------------------------------------------------------------------- of one example


def of_candidate(values: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """values[i, candidate[i]] of each row i, [rows]; values [rows, K]."""
    out = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        np.copyto(out, values[:, k], where=candidate == k)
    return out


def softmax_and_nll(logprob: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax over the candidates [examples, K], and -log of the true candidate's share in nats [examples].

    logprob: [examples, K], -inf for candidates that a row lacks. The loss is finite however unlikely the candidate is.
    """
    relative = logprob - logprob.max(axis=1, keepdims=True)
    shares = np.exp(relative)
    total = shares.sum(axis=1)
    return shares / total[:, None], np.log(total) - of_candidate(relative, gold)


def brier(probability: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Sum over the candidates of (probability - 1 for the true one), squared; [examples], 0 to 2."""
    return (probability**2).sum(axis=1) - 2 * of_candidate(probability, gold) + 1


# ---------------------------------------------------------------------------------------------- of cells


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Reliability diagrams of cells, [cells, bins] each; an empty bin is NaN."""

    count: np.ndarray
    confidence: np.ndarray
    """Mean over the examples of the bin."""
    accuracy: np.ndarray

    @property
    def expected_error(self) -> np.ndarray:
        """ECE [cells]: |accuracy - confidence| of each bin, weighted by its examples (Guo et al. 2017, equation 3)."""
        gap = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        with np.errstate(invalid="ignore"):  # a cell without examples is NaN
            return (self.count * gap).sum(axis=1) / self.count.sum(axis=1)


def reliability_diagram(
    confidence: np.ndarray, right: np.ndarray, cell: np.ndarray, cells: int, bin_: np.ndarray, bins: int = BINS
) -> ReliabilityDiagram:
    """confidence, right: float and bool [examples]; cell: int [examples], below `cells`; bin_: int [examples]."""
    at = cell * bins + bin_
    count, total, hits = (
        np.bincount(at, weights, minlength=cells * bins).reshape(cells, bins) for weights in (None, confidence, right)
    )
    with np.errstate(invalid="ignore"):
        return ReliabilityDiagram(count.astype(float), total / count, hits / count)


def width_bins(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bin of each example, int [examples]; bins are equally wide over [0, 1] and closed above."""
    return np.clip(np.ceil(confidence * bins).astype(np.int16) - 1, 0, bins - 1)


def mass_bins(order: np.ndarray, cell: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bin of each example, int [examples]; the bins of a cell hold equally many examples, give or take one.

    order: `ascending`.
    """
    size = np.bincount(cell)
    size = size[size > 0]
    place = np.arange(len(cell)) - np.repeat(np.cumsum(size) - size, size)
    out = np.empty(len(cell), np.int16)
    out[order] = place * bins // np.repeat(size, size)
    return out


def ascending(confidence: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Order by cell, then from the least sure to the surest, int [examples]; equals keep theirs."""
    order = np.argsort(cell, kind="stable")
    ends = np.cumsum(np.bincount(cell))
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        mine = order[start:end]
        sure = confidence[mine]
        within = np.argsort(sure)  # several times as fast as a stable sort
        if (np.diff(sure[within]) == 0).any():
            within = np.argsort(sure, kind="stable")
        order[start:end] = mine[within]
    return order


def auroc(
    confidence: np.ndarray, right: np.ndarray, cell: np.ndarray, cells: int, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(AUROC [cells], its standard error [cells]); NaN where answers are of one kind, or one of a kind for the error.

    The chance that a right answer is surer than a wrong one, ties half; the error is DeLong's (1988, equation 4).
    order: `ascending`.
    """
    sure, hit, cell = confidence[order], right[order], cell[order]
    # Groups of equal confidence within a cell.
    first = np.flatnonzero(np.concatenate([[True], (np.diff(cell) != 0) | (np.diff(sure) != 0)]))
    owner = cell[first]
    hits = np.add.reduceat(hit, first, dtype=np.int64)
    misses = np.diff(np.append(first, len(cell))) - hits
    all_hits, all_misses = (np.bincount(owner, count, cells) for count in (hits, misses))
    opening = np.flatnonzero(np.concatenate([[True], np.diff(owner) != 0]))  # the first group of each cell

    def before(count: np.ndarray) -> np.ndarray:
        """How many of a cell's examples are in the groups before each group."""
        running = np.cumsum(count) - count
        return running - np.repeat(running[opening], np.diff(np.append(opening, len(owner))))

    with np.errstate(invalid="ignore", divide="ignore"):
        # Share of the other kind that each right answer is above, and that each wrong answer is below.
        above = (before(misses) + misses / 2) / all_misses[owner]
        below = (all_hits[owner] - before(hits) - hits / 2) / all_hits[owner]
        area = np.bincount(owner, hits * above, cells) / all_hits
        spread = [
            np.bincount(owner, count * (share - area[owner]) ** 2, cells) / (total - 1) / total
            for count, share, total in ((hits, above, all_hits), (misses, below, all_misses))
        ]
        return area, np.sqrt(spread[0] + spread[1])


@dataclass(frozen=True)
class BrierParts:
    """Brier score of being right at the selected answer = calibration - resolution + uncertainty (Murphy 1973).

    [cells] each. The sum is exact where the confidences in a bin are equal.
    """

    calibration: np.ndarray
    resolution: np.ndarray
    uncertainty: np.ndarray


def brier_parts(diagram: ReliabilityDiagram) -> BrierParts:
    total = diagram.count.sum(axis=1, keepdims=True)
    share, accuracy = diagram.count / total, np.nan_to_num(diagram.accuracy)
    base = (share * accuracy).sum(axis=1, keepdims=True)
    gap = np.nan_to_num(diagram.accuracy - diagram.confidence)
    return BrierParts(
        calibration=(share * gap**2).sum(axis=1),
        resolution=(share * (accuracy - base) ** 2 * (diagram.count > 0)).sum(axis=1),
        uncertainty=(base * (1 - base))[:, 0],
    )
