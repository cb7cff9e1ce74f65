"""The measures of one example's scores: the candidate chosen under each normalisation, how sure it is, how good.

In: rows of a score file. Out: `MeasuredRows`, a number for each row and measure. A measure that cannot be derived (PMI
without unconditional scores, per token without the candidates' tokens) is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.stats import calibration

LENGTHS = {"char": "num_chars", "token": "num_tokens", "byte": "num_bytes"}

Measures = dict[tuple[str, str], np.ndarray]
"""(metric, normalisation) -> float [rows]"""


class Lists:
    """A column of lists, any part of whose rows may become a matrix."""

    def __init__(self, column: Any) -> None:
        self.length = np.nan_to_num(pc.list_value_length(column).to_numpy()).astype(np.int32)
        self._flat = pc.list_flatten(column).to_numpy()
        self._start = np.cumsum(self.length) - self.length

    def matrix(self, rows: np.ndarray, size: int, fill: float) -> tuple[np.ndarray, np.ndarray]:
        """(float64 or int32 [rows, size], which rows have a list [rows]); rows: numbers of those with lists so long.

        Rows without a list are filled. In memory a candidate's rows lie side by side: sums over few candidates are then
        sums of long vectors.
        """
        there = self.length[rows] > 0
        at = self._start[rows] + np.arange(size)[:, None]
        if there.all():
            return self._flat[at].T, there
        out = np.full((size, len(rows)), fill)
        out[:, there] = self._flat[at[:, there]]
        return out.T, there


def select(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen candidate [rows] (ties: the lowest index) and whether the row was tied [rows]; score [rows, K]."""
    best = score.max(axis=1)
    chosen, highest = np.zeros(len(score), np.int64), np.zeros(len(score), np.int8)
    for k in reversed(range(score.shape[1])):
        equal = score[:, k] == best
        chosen[equal] = k
        highest += equal
    return chosen, highest > 1


@dataclass(frozen=True)
class MeasuredRows:
    """Rows of a score file with their measures."""

    gold: np.ndarray
    chosen: np.ndarray
    relative: np.ndarray
    """Log-probabilities less the row's largest, float32 [rows, K], -inf for candidates that a row lacks."""
    values: Measures


def measure(table: pa.Table) -> MeasuredRows:
    """Rows with equally many candidates are measured together: no row carries another's candidates."""
    lists = {name: Lists(table.column(name)) for name in ("logprob_sum", *LENGTHS.values(), "logprob_unconditional")}
    length, gold = lists["logprob_sum"].length, table.column("gold").to_numpy()
    chosen = np.empty(len(gold), np.int16)
    relative = np.full((int(length.max()), len(gold)), -np.inf, np.float32)
    values: Measures = {}
    for size in np.unique(length).tolist():
        rows = np.flatnonzero(length == size)
        logprob, _ = lists["logprob_sum"].matrix(rows, size, -np.inf)
        relative[:size, rows] = (logprob - logprob.max(axis=1, keepdims=True)).T
        chosen[rows] = select(logprob)[0]
        for key, found in _measures(lists, rows, logprob, gold[rows]):
            values.setdefault(key, np.empty(len(gold), found.dtype))[rows] = found
    return MeasuredRows(gold.astype(np.int16), chosen, relative.T, values)


def _measures(
    lists: dict[str, Lists], rows: np.ndarray, logprob: np.ndarray, gold: np.ndarray
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield the measures of some rows of a file; logprob: [rows, K]."""
    probability, nll = calibration.softmax_and_nll(logprob, gold)
    others = np.where(gold == np.arange(logprob.shape[1])[:, None], -np.inf, logprob.T).max(axis=0)
    yield ("confidence", "sum"), probability.max(axis=1)
    yield ("confidence_joint", "sum"), np.exp(logprob.max(axis=1))
    yield ("gold_probability", "sum"), calibration.of_candidate(probability, gold)
    yield ("nll", "sum"), nll
    yield ("brier", "sum"), calibration.brier(probability, gold)
    yield ("margin", "sum"), calibration.of_candidate(logprob, gold) - others
    yield ("uniform", ""), np.full(len(gold), 1.0 / logprob.shape[1])
    for name, score, there in _normalised(lists, rows, logprob):
        picked, tied = select(score)
        yield ("accuracy", name), _where(there, picked == gold)
        yield ("ties", name), _where(there, tied)
        if name == "byte":
            yield ("gold_logprob_per_byte", name), np.where(there, calibration.of_candidate(score, gold), np.nan)


def _normalised(
    lists: dict[str, Lists], rows: np.ndarray, logprob: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(normalisation, scores [rows, K], which rows have it [rows])."""
    size = logprob.shape[1]
    yield "sum", logprob, np.ones(len(logprob), bool)
    for name, column in LENGTHS.items():
        sizes, there = lists[column].matrix(rows, size, 1.0)
        yield name, logprob / sizes, there
    alone, there = lists["logprob_unconditional"].matrix(rows, size, 0.0)
    yield "pmi", logprob - alone, there


def _where(there: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """1, 0 or NaN as float32 [rows]."""
    return np.where(there, holds, np.float32(np.nan)).astype(np.float32)
