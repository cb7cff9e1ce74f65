"""What each checkpoint answered to each example: was it right, how sure was it.

In: score files, read and let go one after another. Out: `Answers`, rows sorted by cell (checkpoint, benchmark, variant)
and example, from which metrics are means over slices, and in which the same place of two cells of a benchmark is the
same example.

Refused by name are rows that appear twice, two checkpoints in the same place of a study, one checkpoint in two places,
and a checkpoint that was scored on other examples than the rest of the study, or against other true answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis import calibration as ca
from analysis.measures import Measured, Measures, measure
from analysis.metrics import KEYS
from analysis.scores import ScoreFile
from analysis.temperature import Curves, fold_of, temperatures
from configs.artifacts import fingerprint
from configs.errors import ArtifactError

NUMBERS = ("seed", "step", "tokens")
RIGHT = "right_"
"""What the names of columns begin with that say which answers were right."""


@dataclass(frozen=True)
class Answers:
    cells: pd.DataFrame
    """`KEYS`, checkpoint, temperature, n (examples) and fingerprint (of the score files) of each cell, sorted."""
    example: np.ndarray
    """int32 [rows]: index into `examples`, ascending within a cell."""
    examples: tuple[str, ...]
    gold: np.ndarray
    """int16 [rows]"""
    chosen: np.ndarray
    """int16 [rows]: candidate with the largest summed log-probability."""
    values: Measures
    """(metric, normalisation) -> float [rows]; NaN where it cannot be derived."""
    fingerprint: str
    """Of all score files."""

    @property
    def starts(self) -> np.ndarray:
        """First row of each cell, int64 [cells]."""
        n = self.cells["n"].to_numpy()
        return np.cumsum(n) - n

    @property
    def cell(self) -> np.ndarray:
        """Number of the cell of each row, int64 [rows]."""
        return np.repeat(np.arange(len(self.cells)), self.cells["n"].to_numpy())


@dataclass
class _Part:
    """One file's rows, in its own order."""

    cell: np.ndarray
    example: np.ndarray
    fold: np.ndarray
    measured: Measured


def gather(files: Iterable[ScoreFile]) -> Answers:
    """Raises ArtifactError as the module says, and what reading the files raises."""
    paths, hashes, parts = [], [], []
    cells: dict[tuple[Any, ...], int] = {}
    known, curves = _Names(), Curves.empty()
    for file in files:
        cell, example, measured = _cells(file, cells), known.numbers(file), measure(file.table)
        part = _Part(cell, example, np.array(known.folds, np.int8)[example], measured)
        curves.add(cell, part.fold, measured.relative, measured.gold)
        parts.append(part)
        paths.append(file.path)
        hashes.append(file.sha256)
    head = pd.DataFrame(list(cells), columns=[*KEYS, "checkpoint"])
    _scale(head, curves, parts)

    order = head.sort_values([*KEYS, "checkpoint"]).index.to_numpy()
    head, number = head.iloc[order].reset_index(drop=True), _places(order)
    names = known.in_order()
    rank = _places(np.array([known.known[name] for name in names]))
    at = np.concatenate([number[part.cell].astype(np.int64) * len(names) + rank[part.example] for part in parts])
    order = np.argsort(at, kind="stable")  # quick where files are in order themselves
    ends = np.cumsum([len(part.cell) for part in parts])
    places = np.split(_places(order), ends[:-1])

    def in_order(columns: list[np.ndarray]) -> np.ndarray:
        """[rows]; columns: of each part."""
        out = np.empty(len(order), np.result_type(*columns))
        for place, column in zip(places, columns, strict=True):
            out[place] = column
        return out

    cell, example = np.divmod(at[order], len(names))
    source = np.searchsorted(ends, order, side="right").astype(np.int32)
    gold, chosen = (in_order([getattr(part.measured, name) for part in parts]) for name in ("gold", "chosen"))
    values = {}
    for key in list(parts[0].measured.values):  # one after another, so that nothing is here twice
        values[key] = in_order([part.measured.values.pop(key) for part in parts])
    head["n"] = np.bincount(cell, minlength=len(head))
    head["fingerprint"] = _fingerprints(cell, source, hashes)
    answers = Answers(head, example.astype(np.int32), tuple(names), gold, chosen, values, fingerprint(sorted(hashes)))
    _check(answers, source, paths)
    return answers


def _scale(head: pd.DataFrame, curves: Curves, parts: list[_Part]) -> None:
    """Add the temperature of each cell, and what it and that of its pretraining make of each example."""
    alike = [name for name in KEYS if name != "benchmark"]
    own, whole = temperatures(curves, head.groupby([*alike, "checkpoint"], sort=False).ngroup().to_numpy())
    head["temperature"] = whole
    before = _pretraining(head)
    inherited = np.where(before >= 0, whole[before], np.nan)
    for part in parts:
        for suffix, temperature in (("scaled", own[part.cell, part.fold]), ("pt_scaled", inherited[part.cell])):
            some = part.measured
            if np.isnan(temperature).all():
                unknown = np.full(len(temperature), np.float32(np.nan))
                some.values.update(((f"{name}_{suffix}", "sum"), unknown) for name in ("confidence", "nll", "brier"))
                continue
            with np.errstate(invalid="ignore"):
                logprob = some.relative / temperature.astype(np.float32)[:, None]
                probability, nll = ca.softmax_and_nll(logprob, some.gold)
            some.values[f"confidence_{suffix}", "sum"] = probability.max(axis=1)
            some.values[f"nll_{suffix}", "sum"] = nll
            some.values[f"brier_{suffix}", "sum"] = ca.brier(probability, some.gold)
        part.measured = replace(some, relative=np.empty((0, 0), np.float32))


def _pretraining(head: pd.DataFrame) -> np.ndarray:
    """For each SFT cell the number of the PT cell that it was fine-tuned from, asked alike; -1 where there is none."""
    same = ["scale", "mixture", "seed", "benchmark", "variant"]
    pt = head[head["stage"] == "PT"].sort_values("step").drop_duplicates(same, keep="last")
    number = {key: int(i) for i, key in zip(pt.index, pt[same].itertuples(index=False, name=None), strict=True)}
    keys = head[same].itertuples(index=False, name=None)
    return np.array(
        [number.get(key, -1) if stage == "SFT" else -1 for key, stage in zip(keys, head["stage"], strict=True)]
    )


def _places(order: np.ndarray) -> np.ndarray:
    """Where each number stands in an order."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    return place


def _fingerprints(cell: np.ndarray, source: np.ndarray, hashes: list[str]) -> list[str]:
    """Of the files behind each cell; cell, source (number of the file): of each row."""
    behind: list[list[str]] = [[] for _ in range(int(cell.max()) + 1)]
    for pair in np.unique(cell.astype(np.int64) * len(hashes) + source).tolist():
        behind[pair // len(hashes)].append(hashes[pair % len(hashes)])
    return [fingerprint(sorted(found)) for found in behind]


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

    def numbers(self, file: ScoreFile) -> np.ndarray:
        """Of each row's example, int32 [rows]."""
        column = file.table.column("example_id").combine_chunks()
        if self._last is None or not self._last[0].equals(column.dictionary):
            names = column.dictionary.to_pylist()
            numbers = np.array([self.known.setdefault(name, len(self.known)) for name in names], np.int32)
            self.folds += map(fold_of, list(self.known)[len(self.folds) :])
            self._last = column.dictionary, numbers
        return np.asarray(self._last[1][column.indices.to_numpy(zero_copy_only=False)])

    def in_order(self) -> list[str]:
        """By split and row, as a person would sort them."""
        return sorted(self.known, key=_split_and_row)


def _split_and_row(name: str) -> tuple[str, int, str]:
    split, _, row = name.rpartition("/")
    return split, int(row) if row.isdecimal() else -1, row


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


# ---------------------------------------------------------------------------------------------- what is refused


def _check(answers: Answers, source: np.ndarray, paths: list[Path]) -> None:
    """source: number of the file of each row."""
    cells, starts = answers.cells, answers.starts

    def path(cell: int) -> Path:
        return paths[source[starts[cell]]]

    def name(cell: int) -> str:
        return f"{cells['benchmark'].iloc[cell]} ({cells['variant'].iloc[cell]})"

    cell = answers.cell
    doubled = np.flatnonzero((np.diff(cell) == 0) & (np.diff(answers.example) == 0))
    if len(doubled):
        row = int(doubled[0])
        raise ArtifactError(
            f"{len(doubled)} rows appear twice; the first is {name(cell[row])} {answers.examples[answers.example[row]]}"
            f" of checkpoint {cells['checkpoint'].iloc[cell[row]][:12]}, also in {paths[source[row]]}",
            where=paths[source[row + 1]],
            hint="keep one of the two files",
        )
    for columns, what in (
        (list(KEYS), "two checkpoints were scored for the same place in the study"),
        (["checkpoint", "benchmark", "variant"], "one checkpoint was scored for two places in the study"),
    ):
        again = cells.duplicated(columns).to_numpy()
        if again.any():
            second = int(np.flatnonzero(again)[0])
            first = int(np.flatnonzero((cells[columns] == cells.loc[second, columns]).all(axis=1))[0])
            raise ArtifactError(
                f"{what}: {name(second)}, also in {path(first)}",
                where=path(second),
                hint="keep one of the two files",
            )
    for _, group in cells.groupby(["benchmark", "variant"], sort=False):
        seen = np.zeros(len(answers.examples), bool)
        for start, n in zip(starts[group.index], group["n"], strict=True):
            seen[answers.example[start : start + n]] = True
        short = group.index[group["n"] < seen.sum()]
        if len(short):
            raise ArtifactError(
                f"{name(short[0])} has {cells['n'][short[0]]} examples here, the study has {seen.sum()}",
                where=path(short[0]),
                hint="every checkpoint of a study is scored on the same examples; score it again with the study's"
                " sample",
            )
        golds = answers.gold[starts[group.index][:, None] + np.arange(group["n"].iloc[0])]  # [cells, examples]
        differing = np.argwhere(golds != golds[0])
        if len(differing):
            number, place = differing[0]
            example = answers.examples[answers.example[starts[group.index[0]] + place]]
            raise ArtifactError(
                f"the true candidate of {name(group.index[0])} {example} is {golds[number, place]} here, "
                f"{golds[0, place]} in {path(group.index[0])}",
                where=path(group.index[number]),
                hint="find out which is right, and score again what is wrong",
            )
