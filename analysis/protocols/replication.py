"""Whether a correlation replicates across runs: the early score of one seed against the late score of another.

In: two scores [seeds, mixtures, benchmarks], NaN where not measured. Out: for each benchmark the mean r between
different seeds, with a one-sided p-value of the null that the true scores of mixtures do not correlate positively.

Why. The PT and the SFT checkpoint of one run share the luck of its seed. With run noise of 3 points and mixtures that
do not differ at all, their scores still correlate, and a permutation of mixtures calls that significant. Two seeds
share no luck, so only what the mixtures themselves do to both scores can make them agree.

Statistic. Scores are centred over mixtures within each seed. T is the sum over mixtures m and ordered pairs of
different seeds s, s' of early[s, m] * late[s', m].

Two nulls; p is the larger of their p-values:

    late scores moved: the late scores of a mixture, all its seeds together, go to another mixture. Right where mixtures
        differ in both scores and these differences have nothing to do with each other.
    runs moved: within each seed, whole runs (early and late score together) go to another mixture. Right where mixtures
        do not differ. What both scores of a run share then makes T vary more than the first null allows.

Neither is exact between these extremes. tests/perf/coverage/trust_rule.py simulates the error rate there too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.stats import resampling
from analysis.stats.association import pearson
from analysis.stats.estimates import CONSTANT, Estimate, absent

FEWEST = 4
"""Mixtures needed for a test. The 3! orders of three mixtures cannot reach a p below 0.17."""
ONE_SEED = f"fewer than {FEWEST} mixtures have the same two seeds"
"""Reason for no test."""
NULL = "one-sided, the larger p of two: late scores of a mixture moved to another, and runs moved within each seed"


@dataclass(frozen=True)
class Replication:
    """The correlation of an early with a late score between different seeds."""

    estimate: Estimate
    """Mean r over ordered pairs of different seeds; p is the larger of the two below. It has no interval."""
    p_late_moved: float | None = None
    p_runs_moved: float | None = None


@dataclass(frozen=True)
class Block:
    """Runs without gaps: each of the mixtures has each of the seeds."""

    mixtures: np.ndarray
    early: np.ndarray
    """Seeds with the early score."""
    late: np.ndarray
    """Seeds with the late score."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Ordered pairs of different seeds, as places in `early` and `late`."""
        places = itertools.product(range(len(self.early)), range(len(self.late)))
        return [(i, j) for i, j in places if self.early[i] != self.late[j]]

    @property
    def worth(self) -> float:
        """A number to choose among blocks by: more mixtures count in full, more pairs of seeds less and less.

        It looks at no score, so that choosing by it leaves the test exact.
        """
        root = math.sqrt(len(self.pairs))
        return (len(self.mixtures) - FEWEST + 1) * root / (1 + root)


def replicate(early: np.ndarray, late: np.ndarray, draws: int = resampling.DRAWS) -> list[Replication]:
    """One `Replication` for each benchmark; early, late: float64 [seeds, mixtures, benchmarks].

    draws: of the permutations, the first of the `resampling.DRAWS`.
    """
    untested = Replication(absent(ONE_SEED, points="mixtures", missing=early.shape[1]))
    found = [untested] * early.shape[2]
    for columns, block in _blocks(early, late):
        for b, replication in zip(columns, _replicate_block(early, late, columns, block, draws), strict=True):
            found[b] = replication
    return found


def r_between_seeds(early: np.ndarray, late: np.ndarray) -> np.ndarray:
    """The mean r of `replicate` alone, [benchmarks]; NaN where there is none."""
    found = np.full(early.shape[2], np.nan)
    for columns, block in _blocks(early, late):
        found[columns] = _mean_r(*_cut(early, late, columns, block), block)
    return found


def _blocks(early: np.ndarray, late: np.ndarray) -> Iterator[tuple[list[int], Block]]:
    """Benchmarks that have the same gaps, and their block; those without one are left out."""
    measured = np.isfinite(early), np.isfinite(late)
    gaps: dict[bytes, list[int]] = {}
    for b in range(early.shape[2]):
        gaps.setdefault(b"".join(side[:, :, b].tobytes() for side in measured), []).append(b)
    for columns in gaps.values():
        if block := largest_block(*(side[:, :, columns[0]] for side in measured)):
            yield columns, block


def _cut(early: np.ndarray, late: np.ndarray, columns: list[int], block: Block) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a block, [its seeds, its mixtures, columns] each."""
    runs = ((early, block.early), (late, block.late))
    first, second = (side[:, :, columns][np.ix_(seeds, block.mixtures)] for side, seeds in runs)
    return first, second


def _mean_r(early: np.ndarray, late: np.ndarray, block: Block) -> np.ndarray:
    """Mean over the pairs of seeds of Pearson's r over mixtures, [benchmarks]; NaN where any pair has none."""
    ones = np.ones((1, len(block.mixtures)))
    return np.asarray(np.mean([pearson(early[i].T, late[j].T, ones)[0] for i, j in block.pairs], axis=0))


def largest_block(early: np.ndarray, late: np.ndarray) -> Block | None:
    """The `Block` of the most worth; early, late: which runs were measured, bool [seeds, mixtures].

    The seeds of the best block are those that some set of mixtures has in common. None where no block has `FEWEST`
    mixtures and two seeds.
    """
    patterns = {(column[: len(early)].tobytes(), column.tobytes()): column for column in np.vstack([early, late]).T}
    shared = {column.tobytes(): column for column in patterns.values()}
    for column in patterns.values():
        shared |= {both.tobytes(): both for both in (column & other for other in list(shared.values()))}
    blocks = []
    for seeds in shared.values():
        has = (np.vstack([early, late])[seeds]).all(axis=0)
        block = Block(np.flatnonzero(has), np.flatnonzero(seeds[: len(early)]), np.flatnonzero(seeds[len(early) :]))
        if len(block.mixtures) >= FEWEST and block.pairs:
            blocks.append(block)
    return max(blocks, key=lambda block: block.worth, default=None)


def _replicate_block(
    early: np.ndarray, late: np.ndarray, columns: list[int], block: Block, draws: int
) -> Iterator[Replication]:
    """`replicate` for benchmarks that have the same gaps."""
    x, y = _cut(early, late, columns, block)
    r, p = _mean_r(x, y, block), _p_values(_unit(x), _unit(y), block, draws)
    m = len(block.mixtures)
    known: dict[str, Any] = {"n": m, "points": f"mixtures, {len(block.pairs)} pairs of seeds"}
    known["missing"] = early.shape[1] - m
    for value, moved in zip(r.tolist(), p.T.tolist(), strict=True):
        if math.isnan(value):
            yield Replication(absent(CONSTANT, **known))
        else:
            test: dict[str, Any] = {"null": f"{NULL} ({draws:,} draws)", "smallest_p": 1 / (draws + 1)}
            yield Replication(Estimate(value, p=max(moved), **test, **known), *moved)


def _p_values(x: np.ndarray, y: np.ndarray, block: Block, draws: int) -> np.ndarray:
    """p of both nulls, [2, benchmarks]; x, y: early and late scores, centred, [seeds, mixtures, benchmarks]."""
    seeds = sorted({*block.early.tolist(), *block.late.tolist()})
    order = resampling.independent_orders(x.shape[1], len(seeds))[:draws]
    # products[s, s']: cell (m, n) is the product of one score of mixture m with the other score of mixture n.
    products: dict[tuple[int, int], np.ndarray] = {}
    for i, j in block.pairs:
        cells = np.einsum("mb,nb->mnb", x[i], y[j])
        first, second = seeds.index(block.early[i]), seeds.index(block.late[j])
        if first > second:  # the same two seeds the other way round are put into the same two orders
            first, second, cells = second, first, cells.swapaxes(0, 1)
        products[first, second] = products.get((first, second), 0.0) + cells
    early, late = ([pair[side] for pair in block.pairs] for side in (0, 1))
    together = np.einsum("pmb,pnb->mnb", x[early], y[late])
    observed = np.einsum("mmb->b", together)
    unmoved = np.broadcast_to(np.arange(x.shape[1]), order[:, 0].shape)
    late_moved = _sums(together, unmoved, order[:, 0])
    runs_moved = np.sum([_sums(c, order[:, s], order[:, t]) for (s, t), c in products.items()], axis=0)
    # The observed arrangement counts as one more draw (Phipson and Smyth, 2010).
    extreme = [(null >= observed - resampling.TOLERANCE).sum(axis=0) for null in (late_moved, runs_moved)]
    return (np.array(extreme) + 1) / (draws + 1)


def _unit(scores: np.ndarray) -> np.ndarray:
    """Scores [seeds, mixtures, benchmarks] centred within each seed, with a sum of squares of 1 over a benchmark."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=(0, 1)))
    return np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)


def _sums(cells: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sum over k of cells[rows[d, k], columns[d, k]] for every draw, [draws, benchmarks].

    cells: [m, m, benchmarks]; rows, columns: [draws, m]. Few mixtures have few cells, so that all sums are one matrix
    product.
    """
    m = len(cells)
    flat, found = cells.reshape(m * m, -1), []
    # In parts: with a hundred mixtures the chosen cells of all draws would take 0.8 GB.
    for part in np.array_split(rows * m + columns, -(-len(rows) * m * m // resampling.CELLS_AT_ONCE)):
        chosen = np.zeros((len(part), m * m))
        np.put_along_axis(chosen, part, 1.0, axis=1)
        found.append(chosen @ flat)
    return np.concatenate(found)
