"""Facts that the score files of one study must agree on.

In: `Answers` and the files behind them. Refused by name are rows that appear twice, two checkpoints in the same place
of a study, one checkpoint in two places, and a checkpoint that was scored on other examples than the rest of the study,
or against other true answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.scores.answers import Answers
from configs.errors import ArtifactError
from configs.metrics import KEYS

ONE_OF_TWO = "keep one of the two files"


def check(answers: Answers, source: np.ndarray, paths: list[Path]) -> None:
    """Raise ArtifactError for contradictions between files; paths: of the files; source: each row's place in it."""
    # Later checks rely on earlier ones: examples are compared by place only where no row appears twice.
    _check_rows_are_single(answers, source, paths)
    files = [paths[number] for number in source[answers.starts]]
    _check_places(answers.cells, files)
    for _, group in answers.cells.groupby(["benchmark", "variant"], sort=False):
        _check_examples(answers, group, files)
        _check_gold(answers, group, files)


def _check_rows_are_single(answers: Answers, source: np.ndarray, paths: list[Path]) -> None:
    """Refuse an example that a checkpoint has twice; source, paths: as in `check`."""
    cell = answers.cell
    doubled = np.flatnonzero((np.diff(cell) == 0) & (np.diff(answers.example) == 0))
    if len(doubled):
        row = int(doubled[0])
        first = answers.cells.iloc[cell[row]]
        raise ArtifactError(
            f"{len(doubled)} rows appear twice; the first is {_name(first)} {answers.examples[answers.example[row]]}"
            f" of checkpoint {first['checkpoint'][:12]}, also in {paths[source[row]]}",
            where=paths[source[row + 1]],
            hint=ONE_OF_TWO,
        )


def _check_places(cells: pd.DataFrame, files: list[Path]) -> None:
    """Refuse two checkpoints in one place, and one in two; files: the first file of each cell."""
    for columns, problem in (
        (list(KEYS), "two checkpoints were scored for the same place in the study"),
        (["checkpoint", "benchmark", "variant"], "one checkpoint was scored for two places in the study"),
    ):
        again = np.flatnonzero(cells.duplicated(columns))
        if len(again):
            second = int(again[0])
            first = int(np.flatnonzero((cells[columns] == cells.loc[second, columns]).all(axis=1))[0])
            problem = f"{problem}: {_name(cells.iloc[second])}, also in {files[first]}"
            raise ArtifactError(problem, where=files[second], hint=ONE_OF_TWO)


def _check_examples(answers: Answers, group: pd.DataFrame, files: list[Path]) -> None:
    """Refuse a cell with fewer examples than the study has; group: the cells of one benchmark and variant."""
    seen = np.zeros(len(answers.examples), bool)
    for start, n in zip(answers.starts[group.index], group["n"], strict=True):
        seen[answers.example[start : start + n]] = True
    short = group.index[group["n"] < seen.sum()]
    if len(short):
        cell = group.loc[short[0]]
        raise ArtifactError(
            f"{_name(cell)} has {cell['n']} examples here, the study has {seen.sum()}",
            where=files[short[0]],
            hint="every checkpoint of a study is scored on the same examples; score it again with the study's sample",
        )


def _check_gold(answers: Answers, group: pd.DataFrame, files: list[Path]) -> None:
    """Refuse different true answers to one example; group: the cells of one benchmark and variant."""
    starts = answers.starts[group.index]
    golds = answers.gold[starts[:, None] + np.arange(group["n"].iloc[0])]  # [cells, examples]
    differing = np.argwhere(golds != golds[0])
    if len(differing):
        number, place = differing[0]
        raise ArtifactError(
            f"the true candidate of {_name(group.iloc[0])} {answers.examples[answers.example[starts[0] + place]]} is "
            f"{golds[number, place]} here, {golds[0, place]} in {files[group.index[0]]}",
            where=files[group.index[number]],
            hint="find out which is right, and score again what is wrong",
        )


def _name(cell: pd.Series) -> str:
    return f"{cell['benchmark']} ({cell['variant']})"
