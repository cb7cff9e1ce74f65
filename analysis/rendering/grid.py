"""A table as words: the width of its columns, and what it does without where there is little room.

In: headings and cells as text. Out: a `Grid`, narrowed for a terminal or a page of paper, and its lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

NUMBER = re.compile(r"[+−\-\[.\d]")
"""Begins what stands at the right of its column."""


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

    def above(self, grouped: int) -> list[str]:
        """What stands above each row where its first `grouped` keys do; empty where that is said already."""
        groups = [", ".join(filter(None, row[:grouped])) for row in self.rows]
        return ["" if i and group == groups[i - 1] else group for i, group in enumerate(groups)]


def filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns in which any row has something to say."""
    return [i for i in range(len(header)) if not rows or any(row[i] for row in rows)]


def numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column holds numbers only, which stand at its right."""
    return bool(rows) and all(not row[column] or NUMBER.match(row[column]) for row in rows)


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Head, rule and a line for each row: columns padded to one width, columns of numbers to the right."""
    width = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    right = [numeric(rows, i) for i in range(len(header))]
    lines = []
    for line in (header, ["─" * w for w in width], *rows):
        parts = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, width, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return lines


def align_once(grid: Grid) -> list[str]:
    """`align`, with runs of equal keys shown once."""
    rows, before = [], [""] * grid.keys
    for row in grid.rows:
        known = next((i for i in range(grid.keys) if row[i] != before[i]), grid.keys)
        rows.append([""] * known + row[known:])
        before = row[: grid.keys]
    return align(grid.header, rows)


def narrow(wide: Grid, fits: Callable[[Grid], bool]) -> tuple[Grid, int]:
    """The grid, and how many of its keys are to stand above their rows so that the rest fits.

    fits: of a grid without those keys. First keys that never change become a note, then all keys but the last move
    above, then optional columns go, then all keys move above. What does not fit even then is returned all the same.
    """
    if fits(wide):
        return wide, 0
    wide = _without_constant_keys(wide)
    if fits(wide):
        return wide, 0
    for grouped in (max(wide.keys - 1, 0), wide.keys):
        shown, left_out = wide, []
        for name in wide.optional:
            if fits(below(shown, grouped)):
                break
            if name in shown.header:
                shown = shown.only(i for i, heading in enumerate(shown.header) if heading != name)
                left_out.append(name)
        if fits(below(shown, grouped)):
            break
    if left_out:
        shown = replace(shown, notes=(*shown.notes, f"left out for want of room: {', '.join(left_out)}"))
    return shown, grouped


def below(grid: Grid, grouped: int) -> Grid:
    """Without its first `grouped` keys."""
    return grid.only(range(grouped, len(grid.header)))


def _without_constant_keys(grid: Grid) -> Grid:
    same = [i for i in range(grid.keys) if len(grid.rows) > 1 and len({row[i] for row in grid.rows}) == 1]
    said = (f"{grid.header[i]}: {grid.rows[0][i]}" for i in same)
    kept = grid.only(i for i in range(len(grid.header)) if i not in same)
    return replace(kept, notes=(*said, *grid.notes))
