"""What the score files of one study must agree on.

In: `Answers` and the files behind them. Refused by name are rows that appear twice, two checkpoints in the same place
of a study, one checkpoint in two places, and a checkpoint that was scored on other examples than the rest of the study,
or against other true answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.errors import ArtifactError
from configs.metrics import KEYS

if TYPE_CHECKING:
    from analysis.scores.answers import Answers


def check(answers: Answers, source: np.ndarray, paths: list[Path]) -> None:
    """paths: of the files; source: number of the file of each row. Raises ArtifactError as the module says."""
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
