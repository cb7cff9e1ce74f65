"""A `Table` as the report shows it: columns that have something to say, and exact numbers to sort by.

In: `Table`s. Out: `HtmlTable`s for templates/macros.html.j2; sorting and filtering are the page's (templates/page.js).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.rendering.table import COMPARED, Row, Sheet, Table
from analysis.rendering.writers import Field, fields, grid
from configs.drawing.scene import diverging, true_minus


@dataclass(frozen=True)
class HtmlColumn:
    name: str
    kind: str
    """key: what a row is about; name: the last of these, which a row is read by; number; verdict."""


@dataclass(frozen=True)
class HtmlCell:
    text: str
    cls: str = ""
    """Empty for a plain number, which most cells are: the page is a tenth smaller than with a class on each."""
    exact: str = ""
    """The number behind a rounded text."""


@dataclass(frozen=True)
class HtmlTable:
    name: str
    title: str
    columns: list[HtmlColumn]
    rows: list[list[HtmlCell]]
    notes: Sequence[str] = ()
    inside: int = 0
    outside: int = 0
    """Rows whose interval holds the paper's number, and rows whose interval does not."""

    @property
    def short_title(self) -> str:
        """The title up to its first colon, stop or question mark."""
        return re.split(r"[.:?]", self.title)[0]

    @property
    def number(self) -> str:
        """The name as `python -m analysis.tables --table` takes it."""
        return self.name.removeprefix("table")


def html_table(table: Table) -> HtmlTable:
    """All rows of a table."""
    inside, outside = map(table.count, COMPARED)
    return HtmlTable(table.name, table.title, *_content(table, table.rows), table.notes, inside, outside)


def html_sheet(sheet: Sheet) -> HtmlTable:
    """Settings beside the paper's; nothing in them is sorted by a number behind its text."""
    shown = grid(sheet)
    named = ["key"] * (shown.keys - 1) + ["name"]
    kinds = named + ["verdict" if heading == "verdict" else "" for heading in shown.header[shown.keys :]]
    columns = [HtmlColumn(*column) for column in zip(shown.header, kinds, strict=True)]
    classes = ["verdict" if kind == "verdict" else "k" for kind in kinds]
    rows = [[HtmlCell(*cell) for cell in zip(row, classes, strict=True)] for row in shown.rows]
    return HtmlTable(sheet.name, sheet.title, columns, rows, shown.notes)


def benchmark_rows(table: Table, name: str) -> HtmlTable | None:
    """The rows of a table that are about one benchmark, without the columns that say so; None where it has none."""
    place = next((i for i, key in enumerate(table.keys) if key in ("benchmark", "score")), None)
    rows = [row for row in table.rows if place is not None and row.keys[place] == name]
    if not rows:
        return None
    without = [i for i, key in enumerate(table.keys) if i == place or key == "category"]
    return HtmlTable(table.name, table.title, *_content(table, rows, without, exact=False))


def _content(
    table: Table, rows: Sequence[Row], without: Sequence[int] = (), *, exact: bool = True
) -> tuple[list[HtmlColumn], list[list[HtmlCell]]]:
    """without: places of columns; exact: with the numbers to sort by."""
    every = [field for i, field in enumerate(fields(table)) if i not in without]
    body = [[field.text(row) for field in every] for row in rows]
    filled = [i for i in range(len(every)) if not body or any(texts[i] for texts in body)]
    columns = [HtmlColumn(every[i].heading, every[i].kind) for i in filled]
    if keys := [i for i, column in enumerate(columns) if column.kind == "key"]:
        columns[keys[-1]] = HtmlColumn(columns[keys[-1]].name, "name")
    cells = [
        [_cell(table, row, every[i], texts[i], exact) for i in filled] for row, texts in zip(rows, body, strict=True)
    ]
    return columns, cells


def _cell(table: Table, row: Row, field: Field, text: str, exact: bool) -> HtmlCell:
    if field.kind == "verdict":
        return HtmlCell(true_minus(text), "verdict" if row.verdict in COMPARED else "weak")
    if field.kind == "key":
        return HtmlCell(text, "k")
    number = field.exact(row)
    value = row.estimate.value if field.tinted and table.signed else None
    # Beyond 1 it is no correlation but, say, a difference in percentage points, for which there is no colour.
    tint = diverging(value) if value is not None and abs(value) <= 1 else ""
    return HtmlCell(text, tint, f"{number:.5g}" if exact and number is not None else "")
