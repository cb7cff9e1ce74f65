"""Settings beside the paper's: each is the same, differs, or is unknown.

In: a value, and what the paper's tables (analysis/paper) print in its place. Out: rows and the `Sheet` of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence

from analysis.panel.panel import Panel
from analysis.paper.numbers import frame
from analysis.rendering.table import Cell, Sheet

SAME, DIFFERS, UNKNOWN = "same", "differs", "unknown"
SILENT, NO_COUNTERPART = "the paper is silent", "no counterpart"
LABELS = {
    "batch_size_sequences": "batch size, sequences",
    "lr_schedule": "learning rate schedule",
    "adam_beta1": "Adam beta 1",
    "adam_beta2": "Adam beta 2",
    "sft_dataset": "SFT data set",
    "total_parameters_as_stated": "total parameters",
    "tokens_as_stated_in_text": "tokens (section 3.1)",
    "epochs_as_stated_in_text": "epochs (section 3.1)",
}
"""Rows of analysis/paper that read badly by their names."""


def in_paper(panel: Panel, scale: str, number: str, name: str) -> Cell:
    """The paper's value of a setting, counts as counts; "" where it is silent, None where it has no such scale."""
    paper_scale = panel.paper_scale(scale)
    if paper_scale is None:
        return None
    column = frame(f"table{number}").set_index("hyperparameter")[paper_scale]
    return exact(str(column[name])) if name in column.index else ""


def exact(text: str) -> Cell:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def setting_row(keys: Iterable[str], paper: Cell, value: Cell, note: str = "") -> tuple[Cell, ...]:
    if value is None:
        verdict = UNKNOWN
    elif paper is None:
        verdict = NO_COUNTERPART
    elif paper == "":
        verdict = SILENT
    else:
        verdict = SAME if agrees(paper, value) else DIFFERS
    return (*keys, paper, value, verdict, note)


def agrees(paper: Cell, value: Cell) -> bool:
    """Whether the paper would print the value so: 12B is what rounds to whole billions as 12."""
    rounded = re.fullmatch(r"(\d+)(?:\.(\d+))?([MB])", paper) if isinstance(paper, str) else None
    if rounded is None or not isinstance(value, int | float):
        return paper == value
    whole, decimals, unit = rounded.groups(default="")
    return f"{value / {'M': 1e6, 'B': 1e9}[unit]:.{len(decimals)}f}" == whole + (f".{decimals}" if decimals else "")


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def setting_sheet(
    name: str, title: str, keys: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], notes: tuple[str, ...]
) -> Sheet:
    header = (*keys, "paper", "this study", "verdict", "note")
    same = frozenset(i for i, cells in enumerate(rows) if cells[len(keys) + 2] == SAME)
    full = f"Table {name.removeprefix('table')}. {title}"
    return Sheet(name, full, header, tuple(rows), len(keys), ("note",), same, notes)


def verdict_column(made: Sheet) -> int:
    return made.header.index("verdict")
