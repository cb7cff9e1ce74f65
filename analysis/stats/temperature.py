"""One temperature a benchmark and checkpoint, chosen without the examples it is judged on.

In: for each cell (checkpoint and benchmark) the log-probabilities of its examples' candidates, relative to the largest.
Out: for each cell and fold the temperature by which that fold's confidences are divided, and one for the whole cell.

Guo et al. (2017) fit a temperature by the likelihood of held-out answers. A benchmark of 56 examples cannot carry its
own, so it is drawn, on the scale of logarithms, towards the temperature that serves all benchmarks of the checkpoint;
how far is chosen from `PRIORS` by cross-validation inside the examples that remain when a fold is left out
(nested), for all benchmarks of a checkpoint together.

The likelihood of every example is computed once at each temperature of a grid. Sums of it over folds are all that fits
and cross-validation need; between grid points a parabola serves. At half the temperature a candidate's share is the
square of what it was, so exponentials are needed at few temperatures (rounding doubles with each square).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PER_OCTAVE = 4
LOG_GRID = math.log(2) * np.arange(-3 * PER_OCTAVE, 7 * PER_OCTAVE + 2) / PER_OCTAVE
EDGES = (math.exp(LOG_GRID[0]), math.exp(LOG_GRID[-1]))
"""The lowest and the highest temperature that is tried."""
SQUARES = 3
"""One after another, before exponentials are computed again."""
FOLDS = 5
PRIORS = (0.0, 50.0, 200.0, 800.0, np.inf)
"""Examples that the temperature common to a checkpoint counts for."""


def fold_of(example: str) -> int:
    """Fold of an example: the same for all checkpoints, whatever else is scored."""
    return zlib.crc32(example.encode()) % FOLDS


def at_edge(temperatures: np.ndarray) -> np.ndarray:
    """Whether a better temperature may lie beyond `EDGES`, bool of the same shape; False for NaN.

    A parabola through the first three points of the grid is lowest within half a step of the first one exactly where
    that point is the lowest of the grid; so too at the other end.
    """
    half = (LOG_GRID[1] - LOG_GRID[0]) / 2 + 1e-6
    with np.errstate(invalid="ignore"):
        log = np.log(temperatures)
        return np.asarray((log <= LOG_GRID[0] + half) | (log >= LOG_GRID[-1] - half))


class Likelihood:
    """Negative log-likelihood of the true candidates of some rows, along the grid."""

    def __init__(self, relative: np.ndarray, gold: np.ndarray) -> None:
        """relative: log-probabilities less the row's largest, float32 [rows, K], -inf where a row has no candidate."""
        size = np.isfinite(relative).sum(axis=1)
        self.order = np.argsort(-size, kind="stable")
        ordered = relative[self.order].T
        # Rows with most candidates first: those that have a k-th are the first so many.
        self._columns = [np.ascontiguousarray(column[: (size > k).sum()]) for k, column in enumerate(ordered)]
        self._gold = ordered[gold[self.order], np.arange(len(gold))]

    def along_grid(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index into `LOG_GRID`, float32 [rows] in the order of `order`, overwritten by the next)."""
        loss, part = np.empty_like(self._gold), np.empty_like(self._gold)
        for step in range(PER_OCTAVE):
            octaves = range(len(LOG_GRID) - 1 - step, -1, -PER_OCTAVE)  # from hot to cold
            for number, i in enumerate(octaves):
                inverse = np.float32(math.exp(-LOG_GRID[i]))
                if number % (SQUARES + 1) == 0:
                    shares = [np.exp(column * inverse) for column in self._columns]
                else:
                    shares = [np.square(share, out=share) for share in shares]
                loss[:] = shares[0]
                for share in shares[1:]:
                    loss[: len(share)] += share
                np.log(loss, out=loss)
                loss -= np.multiply(self._gold, inverse, out=part)
                yield i, loss


@dataclass
class Curves:
    """Sums over the examples of each cell and fold of their `Likelihood` along the grid; grows as cells are met."""

    total: np.ndarray
    """Sums of the likelihood, float64 [cells, folds, grid]."""
    count: np.ndarray
    """Number of examples, float64 [cells, folds]."""

    @classmethod
    def empty(cls) -> Curves:
        return cls(np.zeros((0, FOLDS, len(LOG_GRID))), np.zeros((0, FOLDS)))

    def add(self, cell: np.ndarray, fold: np.ndarray, relative: np.ndarray, gold: np.ndarray) -> None:
        """Add the rows of a file; cell, fold: int [rows]; relative, gold: as in `Likelihood`."""
        extra = max(0, int(cell.max()) + 1 - len(self.count))
        self.total = np.pad(self.total, ((0, extra), (0, 0), (0, 0)))
        self.count = np.pad(self.count, ((0, extra), (0, 0)))
        likelihood = Likelihood(relative, gold)
        at, places = (cell.astype(np.int64) * FOLDS + fold)[likelihood.order], self.count.size
        self.count += np.bincount(at, minlength=places).reshape(-1, FOLDS)
        for i, loss in likelihood.along_grid():
            self.total[:, :, i] += np.bincount(at, loss, places).reshape(-1, FOLDS)


def temperatures(curves: Curves, checkpoint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(of each cell and fold, fitted on the other folds [cells, folds]; of each whole cell [cells]).

    checkpoint: int [cells]; cells with the same number share one prior temperature.
    """
    checkpoints = int(checkpoint.max()) + 1
    prior = np.empty((len(checkpoint), FOLDS + 1))
    logs = np.empty((len(checkpoint), FOLDS + 1))
    for left_out in range(FOLDS + 1):  # the last leaves nothing out
        losses = np.zeros((len(PRIORS), checkpoints))
        for inner in set(range(FOLDS)) - {left_out}:
            own, n, common = _fits(curves, checkpoint, {left_out, inner})
            for i, examples in enumerate(PRIORS):
                loss = _at(curves.total[:, inner], shrunk(own, n, common, examples)) / curves.count.sum(axis=1)
                losses[i] += np.bincount(checkpoint, loss, checkpoints)
        prior[:, left_out] = np.array(PRIORS)[losses.argmin(axis=0)][checkpoint]
        logs[:, left_out] = shrunk(*_fits(curves, checkpoint, {left_out}), prior[:, left_out])
    return np.exp(logs[:, :FOLDS]), np.exp(logs[:, FOLDS])


def common_temperatures(curves: Curves, checkpoint: np.ndarray) -> np.ndarray:
    """One temperature for all cells of a checkpoint, fitted on the other folds, [cells, folds]; each cell counts alike.

    checkpoint: as in `temperatures`.
    """
    return np.exp(np.stack([_fits(curves, checkpoint, {left_out})[2] for left_out in range(FOLDS)], axis=1))


def shrunk(own: np.ndarray, n: np.ndarray, common: np.ndarray, examples: np.ndarray | float) -> np.ndarray:
    """Logarithms of temperatures fitted on n examples, drawn towards the common one that counts for `examples`."""
    examples = np.broadcast_to(np.asarray(examples, float), own.shape)
    weight = np.where(
        np.isinf(examples) | (n == 0), 0.0, n / np.maximum(n + np.where(np.isinf(examples), 0, examples), 1)
    )
    return weight * own + (1 - weight) * common


def _fits(curves: Curves, checkpoint: np.ndarray, without: set[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log temperature of each cell alone, its examples, that of all cells of its checkpoint), without some folds."""
    kept = [fold for fold in range(FOLDS) if fold not in without]
    total, n = curves.total[:, kept].sum(axis=1), curves.count[:, kept].sum(axis=1)
    each = total / np.maximum(n, 1)[:, None]
    together = np.zeros((int(checkpoint.max()) + 1, len(LOG_GRID)))
    np.add.at(together, checkpoint, each)
    return _lowest(total), n, _lowest(together)[checkpoint]


def _lowest(curve: np.ndarray) -> np.ndarray:
    """Log temperature at which a parabola through the lowest grid point and its neighbours is lowest, [cells]."""
    middle = np.clip(curve.argmin(axis=1), 1, curve.shape[1] - 2)
    left, centre, right = (np.take_along_axis(curve, (middle + d)[:, None], axis=1)[:, 0] for d in (-1, 0, 1))
    bend = left - 2 * centre + right
    step = LOG_GRID[1] - LOG_GRID[0]
    move = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), np.sign(left - right))
    return LOG_GRID[middle] + step * np.clip(move, -1, 1)


def _at(curve: np.ndarray, log_temperature: np.ndarray) -> np.ndarray:
    """Each cell's curve [cells, grid] at a temperature of its own [cells]."""
    step = LOG_GRID[1] - LOG_GRID[0]
    place = np.clip((log_temperature - LOG_GRID[0]) / step, 0, len(LOG_GRID) - 1)
    middle = np.clip(np.round(place).astype(int), 1, len(LOG_GRID) - 2)
    left, centre, right = (np.take_along_axis(curve, (middle + d)[:, None], axis=1)[:, 0] for d in (-1, 0, 1))
    t = place - middle
    return centre + t * (right - left) / 2 + t * t * (left - 2 * centre + right) / 2
