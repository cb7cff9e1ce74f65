"""What one example's scores say: which candidate is chosen under each normalisation, how sure, how well.

In: rows of a score file. Out: `Measured`, a number for each row and measure. What cannot be derived (PMI without
unconditional scores, per token without the candidates' tokens) is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis import calibration as ca

LENGTHS = {"char": "num_chars", "token": "num_tokens", "byte": "num_bytes"}

Measures = dict[tuple[str, str], np.ndarray]
"""(metric, normalisation) -> float [rows]"""


class Lists:
    """Lists of some rows, as long in every column, to matrices [rows, longest list]."""

    def __init__(self, column: Any) -> None:
        """column: that none of the rows lacks."""
        self.length = pc.list_value_length(column).to_numpy()
        self._row = np.repeat(np.arange(len(self.length)), self.length)
        self._place = np.arange(len(self._row)) - np.repeat(np.cumsum(self.length) - self.length, self.length)

    def padded(self, column: Any, fill: float) -> np.ndarray:
        """float64; short rows are filled, rows without a list wholly.

        In memory a candidate's rows lie side by side: sums over few candidates are then sums of long vectors.
        """
        out = np.full((int(self.length.max()), len(self.length)), fill)
        there = slice(None) if column.null_count == 0 else column.is_valid().to_numpy()[self._row]
        out[self._place[there], self._row[there]] = pc.list_flatten(column).to_numpy()
        return out.T


def select(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen candidate [rows] (ties: the lowest index) and whether the row was tied [rows]; score [rows, K]."""
    best = score.max(axis=1)
    chosen, highest = np.zeros(len(score), np.int64), np.zeros(len(score), np.int8)
    for k in reversed(range(score.shape[1])):
        equal = score[:, k] == best
        chosen[equal] = k
        highest += equal
    return chosen, highest > 1


def confidence(logprob: np.ndarray) -> np.ndarray:
    """Reading A, [rows]: softmax over the candidates at the selected one, the largest; logprob [rows, K], -inf pads."""
    return 1.0 / np.exp(logprob - logprob.max(axis=1, keepdims=True)).sum(axis=1)


@dataclass(frozen=True)
class Measured:
    """Some rows."""

    gold: np.ndarray
    chosen: np.ndarray
    relative: np.ndarray
    """Log-probabilities less the row's largest, float32 [rows, K], -inf for candidates that a row lacks."""
    values: Measures


def measure(rows: pa.Table) -> Measured:
    lists = Lists(rows.column("logprob_sum"))
    logprob, gold = lists.padded(rows.column("logprob_sum"), -np.inf), rows.column("gold").to_numpy()
    every = np.arange(len(gold))
    chosen, _ = select(logprob)
    probability, nll = ca.softmax_and_nll(logprob, gold)
    others = logprob.copy()
    others[every, gold] = -np.inf
    values: Measures = {
        ("confidence", "sum"): probability.max(axis=1),
        ("confidence_joint", "sum"): np.exp(logprob.max(axis=1)),
        ("gold_probability", "sum"): probability[every, gold],
        ("nll", "sum"): nll,
        ("brier", "sum"): ca.brier(probability, gold),
        ("margin", "sum"): logprob[every, gold] - others.max(axis=1),
        ("uniform", ""): 1.0 / lists.length,
    }
    for name, score, there in _normalised(rows, lists, logprob):
        picked, tied = select(score)
        values["accuracy", name] = _where(there, picked == gold)
        values["ties", name] = _where(there, tied)
        if name == "byte":
            values["gold_logprob_per_byte", name] = np.where(there, score[every, gold], np.nan)
    relative = (logprob - logprob.max(axis=1, keepdims=True)).astype(np.float32)
    return Measured(gold.astype(np.int16), chosen.astype(np.int16), relative, values)


def _normalised(rows: pa.Table, lists: Lists, logprob: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(normalisation, scores [rows, K], which rows have it [rows])."""
    yield "sum", logprob, np.ones(len(logprob), bool)
    for name, column in LENGTHS.items():
        sizes = rows.column(column)
        yield name, logprob / lists.padded(sizes, 1.0), sizes.is_valid().to_numpy()
    alone = rows.column("logprob_unconditional")
    yield "pmi", logprob - lists.padded(alone, 0.0), alone.is_valid().to_numpy()


def _where(there: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """1, 0 or NaN as float32 [rows]."""
    return np.where(there, holds, np.float32(np.nan)).astype(np.float32)
