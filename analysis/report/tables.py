"""A `Table` as the report shows it: columns that have something to say, and exact numbers to sort by.

In: `Table`s. Out: `Grid`s for templates/macros.html.j2; sorting and filtering are the page's (templates/page.js).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.rendering.drawing import diverging, true_minus
from analysis.rendering.table import Row, Sheet, Table
from analysis.rendering.writers import VERDICT, cells, filled, headings
from analysis.rendering.writers import grid as words_of

KINDS = {"verdict": "verdict"}
"""Of the columns of a sheet behind its keys, where they are more than words."""


@dataclass(frozen=True)
class Column:
    name: str
    kind: str
    """key: what a row is about; name: the last of these, which a row is read by; number; verdict."""


@dataclass(frozen=True)
class Cell:
    text: str
    cls: str = ""
    exact: str = ""
    """The number behind a rounded text."""


@dataclass(frozen=True)
class Grid:
    name: str
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: Sequence[str] = ()
    inside: int = 0
    outside: int = 0
    """Rows whose interval holds the paper's number, and whose does not."""

    @property
    def number(self) -> str:
        """As `python -m analysis.tables --table` names it."""
        return self.name.removeprefix("table")


def grid(table: Table) -> Grid:
    """All rows of a table."""
    columns, rows = _shown(table, table.rows)
    return Grid(table.name, table.title, columns, rows, table.notes, table.count("inside"), table.count("outside"))


def of_facts(sheet: Sheet) -> Grid:
    """Settings beside the paper's; nothing in them is sorted by a number behind its text."""
    shown = words_of(sheet)
    kinds = ["key"] * (shown.keys - 1) + ["name"] + [KINDS.get(name, "") for name in shown.header[shown.keys :]]
    columns = [Column(name, kind) for name, kind in zip(shown.header, kinds, strict=True)]
    rows = [
        [Cell(text, "verdict" if kinds[i] == "verdict" else "") for i, text in enumerate(row)] for row in shown.rows
    ]
    return Grid(sheet.name, sheet.title, columns, rows, shown.notes)


def about(table: Table, name: str) -> Grid | None:
    """The rows of a table that are about one benchmark, without the columns that say so; None where it has none."""
    place = next((i for i, key in enumerate(table.keys) if key in ("benchmark", "score")), None)
    rows = [row for row in table.rows if place is not None and row.keys[place] == name]
    if not rows:
        return None
    said = [i for i, key in enumerate(table.keys) if i == place or key == "category"]
    columns, shown = _shown(table, rows, said, exact=False)
    return Grid(table.name, table.title, columns, shown)


def _shown(
    table: Table, rows: Sequence[Row], without: Sequence[int] = (), *, exact: bool = True
) -> tuple[list[Column], list[list[Cell]]]:
    """without: places of columns; exact: with the numbers to sort by."""
    header, body = headings(table), [cells(table, row) for row in rows]
    places = [i for i in filled(header, body) if i not in without]
    keys, verdict = len(table.keys), len(table.keys) + VERDICT
    kinds = ["key" if i < keys else "verdict" if i == verdict else "number" for i in range(len(header))]
    if named := [i for i in places if i < keys]:  # a row about nothing but its benchmark needs no name
        kinds[named[-1]] = "name"
    shown = [
        [_cell(table, row, i - keys, texts[i], kinds[i], exact) for i in places]
        for row, texts in zip(rows, body, strict=True)
    ]
    return [Column(header[i], kinds[i]) for i in places], shown


def _cell(table: Table, row: Row, place: int, text: str, kind: str, exact: bool) -> Cell:
    """place: of the column behind the keys, as `writers.headings` orders them."""
    if kind == "verdict":
        return Cell(true_minus(text), "verdict" if text.startswith(("inside", "outside")) else "weak")
    if kind in ("key", "name"):
        return Cell(text)
    e = row.estimate
    number = {1: e.value, 3: row.difference, 6: e.p, 7: row.q}.get(place) if exact else None
    tint = place == 1 and e.value is not None and table.signed and abs(e.value) <= 1
    cls = f"n {diverging(e.value)}" if tint and e.value is not None else "n"
    return Cell(text, cls, "" if number is None else f"{number:.5g}")
