"""Scores that several scales and stages have of the same mixtures and benchmarks.

In: `Panel`. Out: `Scores` without a missing cell, so that one resample of mixtures serves them all; and means over
groups of benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.panel.panel import Panel
from analysis.stats.association import unit


@dataclass(frozen=True)
class Scores:
    values: np.ndarray
    """[cells, benchmarks, mixtures]; no NaN, and every benchmark varies over the mixtures."""
    columns: np.ndarray
    """The benchmarks' columns in the panel's matrices."""
    mixtures_left_out: int

    @property
    def n(self) -> int:
        """Number of mixtures."""
        return self.values.shape[2]

    def groups(self, columns: Sequence[Sequence[int]]) -> np.ndarray:
        """1 for each benchmark that is in a group of the panel's columns, else 0, float64 [groups, benchmarks]."""
        return np.array([np.isin(self.columns, list(group)) for group in columns], float).reshape(
            len(columns), len(self.columns)
        )

    def missing(self, columns: Sequence[int]) -> int:
        """Number of mixtures, and of benchmarks of a group, that were left out."""
        return self.mixtures_left_out + len(set(columns) - set(self.columns.tolist()))


def complete_scores(panel: Panel, metric: str, cells: Sequence[tuple[str, str]]) -> Scores:
    """The largest complete block of the panel's scores at some cells, (scale, stage) each."""
    values = np.array([panel.matrix(scale, stage, metric).T for scale, stage in cells])
    benchmarks, mixtures = complete_block(np.isfinite(values).all(axis=0))
    values, columns = values[:, benchmarks][:, :, mixtures], np.flatnonzero(benchmarks)
    if values.size:
        varies = np.all([np.isfinite(unit(part)[:, 0]) for part in values], axis=0)
        values, columns = values[:, varies], columns[varies]
    return Scores(values, columns, int((~mixtures).sum()))


def complete_block(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [bool] of `measured` [rows, columns] between which every cell is measured.

    Rows and columns without any cell are left out first; then incomplete rows or incomplete columns, whichever leaves
    more cells.
    """
    rows, columns = np.any(measured, axis=1), np.any(measured, axis=0)
    whole_rows = np.logical_and(rows, np.all(measured[:, columns], axis=1))
    whole_columns = np.logical_and(columns, np.all(measured[rows], axis=0))
    if whole_rows.sum() * columns.sum() > rows.sum() * whole_columns.sum():
        return whole_rows, columns
    return rows, whole_columns


def mean_of_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means of values [draws, benchmarks] over the defined ones of each group, 0 or 1 [groups, benchmarks].

    [draws, groups]; NaN where a group has no defined value.
    """
    defined = np.isfinite(values)
    total, count = np.where(defined, values, 0.0) @ groups.T, defined @ groups.T
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
