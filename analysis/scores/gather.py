"""Score files to `Answers`: every example of every checkpoint side by side.

In: score files, read and let go one after another. Out: `analysis.scores.answers.Answers`, sorted by cell and example.
Files that contradict each other are refused (`analysis.scores.consistency`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.scores.answers import Answers
from analysis.scores.consistency import check
from analysis.scores.measures import MeasuredRows, Measures, measure, select
from analysis.scores.score_files import ScoreFile
from analysis.stats import calibration
from analysis.stats.label_prior import LabelPriors
from analysis.stats.temperature import Curves, common_temperatures, fold_of, temperatures
from configs.artifacts import fingerprint
from configs.load import BENCHMARKS, load_benchmark
from configs.metrics import KEYS

NUMBERS = ("seed", "step", "tokens")


@dataclass
class _Part:
    """One file's rows, cell after cell."""

    cell: np.ndarray
    example: np.ndarray
    fold: np.ndarray
    measured: MeasuredRows


class _Block(NamedTuple):
    """The rows of one cell in one part."""

    cell: int
    part: int
    rows: slice


def gather(files: Iterable[ScoreFile]) -> Answers:
    """Raises ArtifactError as the module says, and what reading the files raises."""
    paths, hashes, parts = [], [], []
    cells: dict[tuple[Any, ...], int] = {}
    known, curves, priors = _Names(), Curves.empty(), LabelPriors.empty()
    for file in files:
        table, cell = _cell_by_cell(file.table, _cells(file, cells))
        example, measured = known.numbers(table), measure(table)
        part = _Part(cell, example, np.array(known.folds, np.int8)[example], measured)
        curves.add(cell, part.fold, measured.relative, measured.gold)
        fixed = _fixed(cells)[cell]
        priors.add(cell[fixed], part.fold[fixed], measured.relative[fixed])
        parts.append(part)
        paths.append(file.path)
        hashes.append(file.sha256)
    head = pd.DataFrame(list(cells), columns=[*KEYS, "checkpoint"])
    head["fixed"] = _fixed(cells)
    _correct_prior(head, priors, parts)
    _scale(head, curves, parts)

    order = head.sort_values([*KEYS, "checkpoint"]).index.to_numpy()
    head = head.iloc[order].reset_index(drop=True)
    # argsort of an order is the place of each number in it
    blocks = _blocks(parts, np.argsort(order))
    sizes = [block.rows.stop - block.rows.start for block in blocks]
    cell, source = (np.repeat(np.array(number, np.int32), sizes) for number in list(zip(*blocks, strict=True))[:2])

    def side_by_side(columns: list[np.ndarray]) -> np.ndarray:
        """[rows], cell after cell; columns: of each part."""
        return np.concatenate([columns[block.part][block.rows] for block in blocks])

    names = known.in_order()
    rank = np.argsort([known.known[name] for name in names]).astype(np.int32)
    example = side_by_side([rank[part.example] for part in parts])
    # Files are mostly written in the order of the examples; then blocks of rows need only be copied.
    scattered = bool(((np.diff(cell) == 0) & (np.diff(example) < 0)).any())
    within = np.lexsort((example, cell)) if scattered else slice(None)
    example, source = example[within], source[within]
    gold, chosen = (
        side_by_side([getattr(part.measured, name) for part in parts])[within] for name in ("gold", "chosen")
    )
    values = {}
    for key in list(parts[0].measured.values):  # one after another, so that nothing is here twice
        values[key] = side_by_side([part.measured.values.pop(key) for part in parts])[within]
    head["n"] = np.bincount(cell, minlength=len(head))
    head["fingerprint"] = _fingerprints(blocks, hashes)
    answers = Answers(head, example, tuple(names), gold, chosen, values, fingerprint(sorted(hashes)))
    check(answers, source, paths)
    return answers


def _cell_by_cell(table: pa.Table, cell: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Rows and the number of each one's cell, so ordered that those of a cell lie side by side."""
    if (np.diff(cell) >= 0).all():
        return table, cell
    order = np.argsort(cell, kind="stable")
    return table.take(order).combine_chunks(), cell[order]


def _blocks(parts: list[_Part], number: np.ndarray) -> list[_Block]:
    """The blocks in the order of the cells, and of the files within a cell; number: each cell's place in that order."""
    found = []
    for p, part in enumerate(parts):
        ends = [0, *(np.flatnonzero(np.diff(part.cell)) + 1).tolist(), len(part.cell)]
        found += [
            _Block(int(number[part.cell[start]]), p, slice(start, end)) for start, end in itertools.pairwise(ends)
        ]
    return sorted(found, key=lambda block: block[:2])


def _scale(head: pd.DataFrame, curves: Curves, parts: list[_Part]) -> None:
    """Add the temperature of each cell, and what it, its pretraining's and the common one make of each example."""
    alike = [name for name in KEYS if name != "benchmark"]
    checkpoint = head.groupby([*alike, "checkpoint"], sort=False).ngroup().to_numpy()
    (own, whole), common = temperatures(curves, checkpoint), common_temperatures(curves, checkpoint)
    head["temperature"] = whole
    before = _pretraining(head)
    inherited = np.where(before >= 0, whole[before], np.nan)
    for part in parts:
        of_rows = {
            "scaled": own[part.cell, part.fold],
            "pt_scaled": inherited[part.cell],
            "common_scaled": common[part.cell, part.fold],
        }
        for suffix, temperature in of_rows.items():
            some = part.measured
            if np.isnan(temperature).all():
                names, unknown = ("confidence", "nll", "brier"), _unknown(len(temperature))
                some.values.update(((f"{name}_{suffix}", "sum"), unknown) for name in names)
                continue
            with np.errstate(invalid="ignore"):
                logprob = some.relative / temperature.astype(np.float32)[:, None]
                _judge(some.values, suffix, logprob, some.gold, np.ones(len(logprob), bool))
        part.measured = replace(some, relative=np.empty((0, 0), np.float32))


def _correct_prior(head: pd.DataFrame, priors: LabelPriors, parts: list[_Part]) -> None:
    """Add what is left of each example without the label prior, NaN where candidates change from row to row."""
    fixed, mean = head["fixed"].to_numpy(), priors.without_own_fold()
    for part in parts:
        some, rows = part.measured, fixed[part.cell]
        if not rows.any():
            names = ("accuracy", "confidence", "nll", "brier")
            some.values.update(((f"{name}_prior_corrected", "sum"), _unknown(len(rows))) for name in names)
            continue
        logprob, gold = some.relative[rows], some.gold[rows]
        logprob = logprob - mean[part.cell[rows], part.fold[rows], : logprob.shape[1]].astype(np.float32)
        with np.errstate(invalid="ignore"):
            _judge(some.values, "prior_corrected", logprob, gold, rows)
            right = np.where(np.isnan(logprob).any(axis=1), np.float32(np.nan), select(logprob)[0] == gold)
        some.values["accuracy_prior_corrected", "sum"] = _spread(right, rows)


def _judge(values: Measures, suffix: str, logprob: np.ndarray, gold: np.ndarray, rows: np.ndarray) -> None:
    """Add confidence, NLL and Brier score of corrected log-probabilities; rows: which they are of, bool [all rows]."""
    probability, nll = calibration.softmax_and_nll(logprob, gold)
    found = probability.max(axis=1), nll, calibration.brier(probability, gold)
    for name, value in zip(("confidence", "nll", "brier"), found, strict=True):
        values[f"{name}_{suffix}", "sum"] = _spread(value, rows)


def _spread(some: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values of the rows that are marked, at their places; NaN elsewhere."""
    if rows.all():
        return some
    out = _unknown(len(rows))
    out[rows] = some
    return out


def _unknown(rows: int) -> np.ndarray:
    return np.full(rows, np.float32(np.nan))


def _fixed(cells: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Whether all examples of each cell have the same candidates, bool [cells]; cells: `KEYS` and checkpoint."""
    slug, variant = KEYS.index("benchmark"), KEYS.index("variant")
    return np.array([has_fixed_candidates(cell[slug], cell[variant]) for cell in cells], bool)


@functools.cache
def has_fixed_candidates(slug: str, variant: str) -> bool:
    """False for benchmarks that are not known here."""
    return slug in BENCHMARKS and load_benchmark(slug).fixed_in(variant.split("/")[0])


def _pretraining(head: pd.DataFrame) -> np.ndarray:
    """Number of the PT cell that each SFT cell was fine-tuned from and that was asked alike; -1 where there is none."""
    same = ["scale", "mixture", "seed", "benchmark", "variant"]
    pt = head[head["stage"] == "PT"].sort_values("step").drop_duplicates(same, keep="last")
    number = head[same].merge(pt[same].assign(number=pt.index), how="left", on=same)["number"].fillna(-1).to_numpy(int)
    return np.where(head["stage"] == "SFT", number, -1)


def _fingerprints(blocks: list[_Block], hashes: list[str]) -> list[str]:
    """Fingerprint of the files behind each cell."""
    behind: dict[int, list[str]] = {}
    for block in blocks:
        behind.setdefault(block.cell, []).append(hashes[block.part])
    return [fingerprint(sorted(found)) for found in behind.values()]


def _cells(file: ScoreFile, known: dict[tuple[Any, ...], int]) -> np.ndarray:
    """Number of each row's cell, int32 [rows]; new cells are added to `known` by `KEYS` and checkpoint."""
    at = np.zeros(len(file.table), np.int64)
    columns, meaning = [], []
    for key in (*KEYS, "checkpoint"):
        if key in NUMBERS:
            found, codes = np.unique(file.table.column(key).to_numpy(), return_inverse=True)
            names = found.tolist()
        else:
            codes, names = file.codes(key)
        columns.append(codes)
        meaning.append(names)
        if len(names) > 1:
            _, at = np.unique(at * len(names) + codes, return_inverse=True)
    _, first = np.unique(at, return_index=True)
    spelt = (tuple(names[codes[row]] for codes, names in zip(columns, meaning, strict=True)) for row in first.tolist())
    return np.array([known.setdefault(cell, len(known)) for cell in spelt], np.int32)[at]


class _Names:
    """Numbers for the examples' ids; files of a study mostly have the same ones, in the same order."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.folds: list[int] = []
        self._last: tuple[pa.Array, np.ndarray] | None = None

    def numbers(self, table: pa.Table) -> np.ndarray:
        """Number of each row's example, int32 [rows]."""
        column = table.column("example_id").combine_chunks()
        if self._last is None or not self._last[0].equals(column.dictionary):
            names = column.dictionary.to_pylist()
            numbers = np.array([self.known.setdefault(name, len(self.known)) for name in names], np.int32)
            self.folds += map(fold_of, list(self.known)[len(self.folds) :])
            self._last = column.dictionary, numbers
        return np.asarray(self._last[1][column.indices.to_numpy(zero_copy_only=False)])

    def in_order(self) -> list[str]:
        """The ids by split and row, as a person would sort them."""
        return sorted(self.known, key=_split_and_row)


def _split_and_row(name: str) -> tuple[str, int, str]:
    split, _, row = name.rpartition("/")
    return split, int(row) if row.isdecimal() else -1, row
