"""The answer of each checkpoint to each example: whether it was right, and how sure it was.

In: score files, read and let go one after another. Out: `Answers`, rows sorted by cell (checkpoint, benchmark, variant)
and example, from which metrics are means over slices, and in which the same place of two cells of a benchmark is the
same example.

Files that contradict each other are refused (`analysis.scores.consistency`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.scores.measures import Measures
from configs.artifacts import fingerprint
from configs.metrics import KEYS

RIGHT = "right_"
"""Prefix of the columns that say which answers were right."""


@dataclass(frozen=True)
class Answers:
    cells: pd.DataFrame
    """`KEYS`, checkpoint, temperature, fixed (whether all examples have the same candidates), n (examples) and
    fingerprint (of the score files) of each cell, sorted."""
    example: np.ndarray
    """int32 [rows]: index into `examples`, ascending within a cell."""
    examples: tuple[str, ...]
    gold: np.ndarray
    """The true candidate, int16 [rows]."""
    chosen: np.ndarray
    """int16 [rows]: candidate with the largest summed log-probability."""
    values: Measures
    """(metric, normalisation) -> float [rows]; NaN where it cannot be derived."""
    fingerprint: str
    """Fingerprint of all score files."""

    @property
    def starts(self) -> np.ndarray:
        """First row of each cell, int64 [cells]."""
        n = self.cells["n"].to_numpy()
        return np.cumsum(n) - n

    @property
    def cell(self) -> np.ndarray:
        """Number of the cell of each row, int64 [rows]."""
        return np.repeat(np.arange(len(self.cells)), self.cells["n"].to_numpy())


def as_table(answers: Answers) -> pa.Table:
    """A row for each cell: `KEYS`, checkpoint, examples (a fingerprint of their ids in order), confidence before and
    after its temperature and, by normalisation, right; lists in the order of the examples, null where not derivable."""
    columns = {name: pa.array(answers.cells[name]) for name in (*KEYS, "checkpoint")}
    n = answers.cells["n"].to_numpy()
    known: dict[bytes, str] = {}
    prints = []
    for start, size in zip(answers.starts.tolist(), n.tolist(), strict=True):
        mine = answers.example[start : start + size]
        key = mine.tobytes()
        if key not in known:
            known[key] = fingerprint([answers.examples[i] for i in mine])
        prints.append(known[key])
    columns["examples"] = pa.array(prints)
    offsets = pa.array(np.concatenate([[0], np.cumsum(n)]), pa.int32())
    for name in ("confidence", "confidence_scaled"):
        sure = answers.values[name, "sum"].astype(np.float32)
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(sure))
    for (metric, name), values in answers.values.items():
        if metric == "accuracy":
            absent = pa.array(np.isnan(np.add.reduceat(values, answers.starts)))
            columns[f"{RIGHT}{name}"] = pa.ListArray.from_arrays(offsets, pa.array(values > 0), mask=absent)
    return pa.table(columns)
