"""The label prior of a checkpoint: how likely it finds each candidate whatever it is asked, judged on other examples.

In: for each cell (checkpoint and benchmark) whose examples all have the same candidates, the log-probabilities of the
candidates. Out: for each cell and fold the mean log-probability of each candidate over the other folds.

A checkpoint that answers "no" to everything may still find "no" less likely where "yes" is true. Subtracting the mean
log-probability of each candidate leaves what the example says: contextual calibration (Zhao et al. 2021) with the
benchmark's own questions in place of a question without content, as batch calibration has it (Zhou et al. 2024). It
uses no true answers, so that it assumes that the candidates are about equally often true. A temperature changes no
answer; this correction may.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.stats.temperature import FOLDS


@dataclass
class LabelPriors:
    """Sums over the examples of each cell and fold; grows as cells are met."""

    total: np.ndarray
    """Sums of the log-probabilities, float64 [cells, folds, candidates]."""
    count: np.ndarray
    """Number of examples that have each candidate, float64 [cells, folds, candidates]."""

    @classmethod
    def empty(cls) -> LabelPriors:
        return cls(np.zeros((0, FOLDS, 0)), np.zeros((0, FOLDS, 0)))

    def add(self, cell: np.ndarray, fold: np.ndarray, relative: np.ndarray) -> None:
        """Add rows; cell, fold: int [rows]; relative: log-probabilities [rows, K], -inf where a row has no candidate.

        A constant added to all candidates of a row shifts their means alike, and so changes no correction.
        """
        if not len(cell):
            return
        room = (max(0, int(cell.max()) + 1 - len(self.count)), max(0, relative.shape[1] - self.count.shape[2]))
        pad = ((0, room[0]), (0, 0), (0, room[1]))
        self.total, self.count = np.pad(self.total, pad), np.pad(self.count, pad)
        at, places = cell.astype(np.int64) * FOLDS + fold, len(self.count) * FOLDS
        for k, column in enumerate(relative.T):
            there = np.isfinite(column)
            self.count[:, :, k] += np.bincount(at, there, places).reshape(-1, FOLDS)
            self.total[:, :, k] += np.bincount(at, np.where(there, column, 0.0), places).reshape(-1, FOLDS)

    def without_own_fold(self) -> np.ndarray:
        """Mean log-probability of each candidate over the other folds, [cells, folds, candidates].

        NaN where only the fold itself has examples; 0 for a candidate that the cell does not have.
        """
        total, count = (part.sum(axis=1, keepdims=True) - part for part in (self.total, self.count))
        unknown = np.where(self.count.any(axis=1, keepdims=True), np.nan, 0.0)
        return np.divide(total, count, out=np.broadcast_to(unknown, total.shape).copy(), where=count > 0)
