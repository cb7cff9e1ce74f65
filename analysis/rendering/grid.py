"""A table as text: the widths of its columns, and how it is narrowed where there is little room.

In: headings and cells as text. Out: a `Grid`, narrowed for a terminal or a page of paper, and its lines. Libraries that
lay out tables wrap or cut cells that do not fit; here whole columns go, and the reader is told which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

NUMBER = re.compile(r"[+−\-\[.\d]")
"""Matches the first character of a number or an interval."""


@dataclass(frozen=True)
class Grid:
    title: str
    header: list[str]
    rows: list[list[str]]
    keys: int = 0
    """How many leading columns say what a row is about."""
    optional: tuple[str, ...] = ()
    """Columns that a narrow form does without, the first to go first."""
    weak: frozenset[int] = frozenset()
    """Numbers of rows that are shown faintly."""
    notes: tuple[str, ...] = ()

    def only(self, columns: Iterable[int]) -> Grid:
        kept = list(columns)
        return replace(
            self,
            header=[self.header[i] for i in kept],
            rows=[[row[i] for i in kept] for row in self.rows],
            keys=sum(i < self.keys for i in kept),
        )

    def filled(self) -> Grid:
        """The grid less the columns that are empty in every row."""
        return self.only(i for i in range(len(self.header)) if not self.rows or any(row[i] for row in self.rows))

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers only, which are aligned to the right."""
        return bool(self.rows) and all(not row[column] or NUMBER.match(row[column]) for row in self.rows)

    def above(self, grouped: int) -> list[str]:
        """The first `grouped` keys of each row as one heading; empty where the row above has the same."""
        groups = [", ".join(filter(None, row[:grouped])) for row in self.rows]
        return ["" if i and group == groups[i - 1] else group for i, group in enumerate(groups)]


def align(grid: Grid) -> list[str]:
    """Head, rule and a line for each row: columns padded to one width, columns of numbers to the right."""
    lines = [grid.header, *grid.rows]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["─" * w for w in width])
    pad = [str.rjust if grid.numeric(i) else str.ljust for i in range(len(width))]
    return ["  ".join(p(cell, w) for p, cell, w in zip(pad, line, width, strict=True)).rstrip() for line in lines]


def align_once(grid: Grid) -> list[str]:
    """`align`, with runs of equal keys shown once."""
    rows, before = [], [""] * grid.keys
    for row in grid.rows:
        known = next((i for i in range(grid.keys) if row[i] != before[i]), grid.keys)
        rows.append([""] * known + row[known:])
        before = row[: grid.keys]
    return align(replace(grid, rows=rows))


def narrow(wide: Grid, fits: Callable[[Grid], bool]) -> tuple[Grid, int]:
    """The widest form that fits, and how many of its keys are to stand above their rows.

    fits: says whether a grid without those keys has room. If none fits, the narrowest form is returned.
    """
    for shown, grouped in _narrower_forms(wide):
        if fits(below(shown, grouped)):
            break
    if left_out := [name for name in wide.optional if name in wide.header and name not in shown.header]:
        shown = replace(shown, notes=(*shown.notes, f"left out for want of room: {', '.join(left_out)}"))
    return shown, grouped


def _narrower_forms(grid: Grid) -> Iterator[tuple[Grid, int]]:
    """Keys that never change become a note, then all keys but the last move above their rows, then optional columns go.

    If even that is too wide, all columns come back, all keys move above, and optional columns go again.
    """
    yield grid, 0
    same = [i for i in range(grid.keys) if len(grid.rows) > 1 and len({row[i] for row in grid.rows}) == 1]
    constant = (f"{grid.header[i]}: {grid.rows[0][i]}" for i in same)
    grid = replace(grid, notes=(*constant, *grid.notes)).only(i for i in range(len(grid.header)) if i not in same)
    yield grid, 0
    for grouped in (max(grid.keys - 1, 0), grid.keys):
        shown = grid
        yield shown, grouped
        for name in grid.optional:
            if name in shown.header:
                shown = shown.only(i for i, heading in enumerate(shown.header) if heading != name)
                yield shown, grouped


def below(grid: Grid, grouped: int) -> Grid:
    """The grid less its first `grouped` keys, which stand above the rows."""
    return grid.only(range(grouped, len(grid.header)))
