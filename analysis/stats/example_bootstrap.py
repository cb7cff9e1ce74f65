"""Standard errors of metrics that are no mean over examples, from resampled examples: calibration errors, macro-F1.

In: single answers of many cells (a checkpoint on a benchmark). Out: one standard error a cell. All checkpoints of a
benchmark see the same draws. An example keeps its bin of confidence in every draw.
"""

from __future__ import annotations

import numpy as np

DRAWS = 200
"""A standard error from so many is itself uncertain by 5 %."""


def counts(examples: int, seed: int) -> np.ndarray:
    """Number of times that each example is drawn, float32 [DRAWS, examples]; rows add up to `examples`."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, examples, (DRAWS, examples))
    drawn += examples * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=DRAWS * examples).reshape(DRAWS, examples).astype(np.float32)


def calibration_errors(drawn: np.ndarray, gap: np.ndarray, bin_: np.ndarray, bins: int) -> np.ndarray:
    """Standard errors of `ReliabilityDiagram.expected_error`, [cells].

    drawn: `counts`; gap (right - confidence), bin_: [cells, examples]. n times the error of a draw is the sum over bins
    of |sum of the gaps of its examples|.
    """
    cells, examples = gap.shape
    placed = np.zeros((examples, cells, bins), np.float32)
    placed[np.arange(examples), np.arange(cells)[:, None], bin_] = gap
    sums = (drawn @ placed.reshape(examples, -1)).reshape(len(drawn), cells, bins)
    return np.asarray(np.abs(sums).sum(axis=2).std(axis=0, ddof=1) / examples)


def f1_errors(confusion: np.ndarray) -> np.ndarray:
    """Standard errors of `macro_f1`, [cells]; confusion: int [cells, classes, classes], true by chosen."""
    random = np.random.default_rng(0)
    out = np.full(len(confusion), np.nan)
    for number, matrix in enumerate(confusion):
        n = matrix.sum()
        if n > 1:
            drawn = random.multinomial(n, matrix.ravel() / n, DRAWS).reshape(DRAWS, *matrix.shape)
            out[number] = macro_f1(drawn).std(ddof=1)
    return out


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean over the classes that are true or chosen anywhere of 2 TP / (2 TP + FP + FN); [..., classes, classes]."""
    both, selected, true = np.einsum("...ii->...i", confusion), confusion.sum(axis=-2), confusion.sum(axis=-1)
    there = selected + true > 0
    f1 = np.divide(2 * both, selected + true, out=np.zeros(there.shape), where=there)
    return np.asarray(f1.sum(axis=-1) / there.sum(axis=-1))
