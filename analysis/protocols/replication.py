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
from dataclasses import dataclass

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
    measured = np.isfinite(early), np.isfinite(late)
    gaps: dict[bytes, list[int]] = {}
    for b in range(early.shape[2]):
        gaps.setdefault(b"".join(side[:, :, b].tobytes() for side in measured), []).append(b)
    found: dict[int, Replication] = {}
    for columns in gaps.values():
        block = largest_block(*(side[:, :, columns[0]] for side in measured))
        if block is None:
            some = [Replication(absent(ONE_SEED, points="mixtures", missing=early.shape[1]))] * len(columns)
        else:
            some = _replicate_block(early[:, :, columns], late[:, :, columns], block, draws)
        found.update(zip(columns, some, strict=True))
    return [found[b] for b in range(early.shape[2])]


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


def _replicate_block(early: np.ndarray, late: np.ndarray, block: Block, draws: int) -> list[Replication]:
    """`replicate` for benchmarks that have the same gaps."""
    x, y = (_unit(side[np.ix_(seeds, block.mixtures)]) for side, seeds in ((early, block.early), (late, block.late)))
    m, benchmarks = x.shape[1:]
    # products[s, s']: cell (m, n) is the product of the early score of mixture m with the late one of mixture n.
    seeds = sorted({*block.early.tolist(), *block.late.tolist()})
    products: dict[tuple[int, int], np.ndarray] = {}
    for i, j in block.pairs:
        cells = np.einsum("mb,nb->mnb", x[i], y[j])
        first, second = seeds.index(block.early[i]), seeds.index(block.late[j])
        if first > second:  # the same pair of seeds the other way round takes the same two orders
            first, second, cells = second, first, cells.swapaxes(0, 1)
        products[first, second] = products.get((first, second), 0.0) + cells
    together = np.einsum("pmb,pnb->mnb", x[[i for i, _ in block.pairs]], y[[j for _, j in block.pairs]])
    observed = np.einsum("mmb->b", together)
    order = resampling.independent_orders(m, len(seeds))[:draws]
    nulls = (
        _sums(together, np.broadcast_to(np.arange(m), order[:, 0].shape), order[:, 0]),
        sum(_sums(cells, order[:, first], order[:, second]) for (first, second), cells in products.items()),
    )
    p = [((null >= observed - resampling.TOLERANCE).sum(axis=0) + 1) / (len(order) + 1) for null in nulls]
    ones = np.ones((1, m))
    r = np.mean([pearson(x[i].T, y[j].T, ones)[0] for i, j in block.pairs], axis=0)
    found = []
    known = {"n": m, "points": f"mixtures, {len(block.pairs)} pairs of seeds", "missing": early.shape[1] - m}
    for b in range(benchmarks):
        if math.isnan(r[b]):
            found.append(Replication(absent(CONSTANT, **known)))
            continue
        own = [float(side[b]) for side in p]
        estimate = Estimate(
            float(r[b]),
            p=max(own),
            null=f"{NULL} ({len(order):,} draws)",
            smallest_p=1 / (len(order) + 1),
            **known,
        )
        found.append(Replication(estimate, *own))
    return found


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
    chosen = np.zeros((len(rows), m * m))
    np.put_along_axis(chosen, rows * m + columns, 1.0, axis=1)
    return np.asarray(chosen @ cells.reshape(m * m, -1))
