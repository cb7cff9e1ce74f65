"""A `Table` or `Sheet` as text, CSV, Markdown and LaTeX.

CSV has every number at full precision, missing ones empty; the other forms are rounded for reading.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.rendering.formats import format_fact, format_interval, format_p, format_signed
from analysis.rendering.grid import Grid, align, align_once, below, narrow
from analysis.rendering.table import Row, RowVerdict, Sheet, Table
from configs.artifacts import write_text
from configs.drawing.scene import true_minus

if TYPE_CHECKING:
    from rich.console import Console

ESTIMATE = ("value", "low", "high", "n", "points", "interval", "p", "null", "arrangements", "smallest_p", "missing")
"""Columns of a CSV file that every number has."""


@dataclass(frozen=True)
class Field:
    """A column of a table in the rounded forms."""

    heading: str
    kind: str
    """key, number or verdict."""
    text: Callable[[Row], str]
    """Empty where a row has nothing to say."""
    exact: Callable[[Row], float | None] = lambda row: None
    """The number behind a rounded text."""
    tinted: bool = False
    """Correlations in it may be coloured by their size."""


def fields(table: Table, *, brief: bool = True) -> list[Field]:
    """Columns of the rounded forms. brief: those for little room."""

    def number(value: float | None) -> str:
        if table.signed or value is None:
            return format_signed(value, table.digits)
        return true_minus(f"{value:.{table.digits}f}")

    def key_of(place: int) -> Callable[[Row], str]:
        return lambda row: row.keys[place]

    def extra_of(place: int) -> Callable[[Row], str]:
        return lambda row: table.texts(row)[place]

    extra = table.extra[: table.brief_extra] if brief else table.extra
    return [
        *(Field(key.replace("_", " "), "key", key_of(i)) for i, key in enumerate(table.keys)),
        Field("paper", "number", lambda row: number(row.paper)),
        Field("this run", "number", lambda row: number(row.estimate.value), lambda row: row.estimate.value, True),
        Field("95 % interval", "number", lambda row: format_interval(row.estimate.ends, number)),
        Field(
            "difference", "number", lambda row: format_signed(row.difference, table.digits), lambda row: row.difference
        ),
        Field("verdict", "verdict", format_verdict),
        Field("n", "number", lambda row: str(row.estimate.n or "")),
        Field("p", "number", lambda row: format_p(row.estimate.p), lambda row: row.estimate.p),
        Field("q", "number", lambda row: format_p(row.q), lambda row: row.q),
        *(Field(column.name, "number", extra_of(i)) for i, column in enumerate(extra)),
    ]


def format_verdict(row: Row) -> str:
    if row.verdict is RowVerdict.MISSING:
        return f"{row.verdict}: {row.estimate.reason}"
    if row.verdict is RowVerdict.NO_CLAIM:
        return f"{row.verdict}: {row.no_claim}"
    return f"{row.verdict}, provisional" if row.provisional and row.verdict else row.verdict


def grid(table: Table | Sheet, *, brief: bool = True, on_terminal: bool = False) -> Grid:
    """The table with every cell as text, less its empty columns.

    brief: only the columns for little room; on_terminal: only the brief rows too.
    """
    if isinstance(table, Sheet):
        header = [name.replace("_", " ") for name in table.header]
        body = [[format_fact(cell) for cell in row] for row in table.rows]
        return Grid(table.title, header, body, table.keys, table.optional, table.weak, table.notes).filled()
    rows = [row for row in table.rows if row.brief or not on_terminal]
    columns = fields(table, brief=brief)
    header, body = [field.heading for field in columns], [[field.text(row) for field in columns] for row in rows]
    hidden = len(table.rows) - len(rows)
    notes = (*table.notes, *([f"{hidden} more rows are in the files"] if hidden else []))
    # Number, interval and verdict stay: without them a row says nothing that can be trusted.
    optional = (*(column.name for column in reversed(table.extra)), "difference", "n", "q", "p")
    weak = frozenset(i for i, row in enumerate(rows) if row.verdict in (RowVerdict.MISSING, RowVerdict.NO_CLAIM))
    return Grid(table.title, header, body, len(table.keys), optional, weak, notes).filled()


# ---------------------------------------------------------------------------------------------- the terminal


def as_text(table: Table | Sheet) -> str:
    """Plain text with the brief rows, in which runs of equal keys are shown once."""
    shown = grid(table, on_terminal=True)
    return "\n".join([shown.title, *align_once(shown), *(f"  {note}" for note in shown.notes)])


def show(table: Table | Sheet, console: Console | None = None) -> None:
    """Print a table in the colours and width of the terminal; elsewhere as `as_text`."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console.print(Text(as_text(table)), end="\n\n", soft_wrap=True)
        return
    width = console.width
    shown, grouped = narrow(grid(table, on_terminal=True), lambda grid: max(map(len, align_once(grid))) <= width)
    # Keys above their rows may come again, where others have changed: they are repeated, not left blank.
    rest = below(shown, grouped)
    head, rule, *lines = align(rest) if grouped else align_once(shown)
    console.print(Text(shown.title, "bold"))
    console.print(Text(head, "bold"), soft_wrap=True)
    console.print(Text(rule, "bright_black"), soft_wrap=True)
    for number, (above, line) in enumerate(zip(shown.above(grouped), lines, strict=True)):
        if above:
            console.print(Text(above, "italic"))
        console.print(Text(line, "bright_black" if number in shown.weak else ""), soft_wrap=True)
    for note in shown.notes:
        console.print(Padding(Text(note, "bright_black"), (0, 0, 0, 2), expand=False))
    console.print()


# ---------------------------------------------------------------------------------------------- CSV and Markdown


def as_csv(table: Table | Sheet) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if isinstance(table, Sheet):
        writer.writerows([table.header, *table.rows])
        return out.getvalue()
    extra = [column.name for column in table.extra]
    writer.writerow([*table.keys, "paper", *ESTIMATE, "difference", "verdict", "q", "scores", *extra])
    for row in table.rows:
        estimate = [getattr(row.estimate, name) for name in ESTIMATE]
        verdict = format_verdict(row)
        values = [*row.keys, row.paper, *estimate, row.difference, verdict, row.q, row.scores, *table.texts(row)]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def as_markdown(table: Table | Sheet) -> str:
    shown = grid(table, brief=False)
    lines = [f"# {shown.title}", "", f"| {' | '.join(shown.header)} |", f"|{'---|' * len(shown.header)}"]
    lines += [f"| {' | '.join(map(_marked, row))} |" for row in shown.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in shown.notes), ""])


def _marked(cell: str) -> str:
    """A cell as Markdown shows it: a bar ends no column, `<` opens no HTML, and brackets make no link."""
    return re.sub(r"([\\|<]|\](?=\())", r"\\\1", cell)


# ---------------------------------------------------------------------------------------------- LaTeX

LINE = 108
"""Characters of \\footnotesize that a line of 160 mm holds, two between columns included."""
WRAPPED = 26
"""Characters of a column of words beyond which it is broken into lines."""
EM = 0.5
"""Width of a character."""
NAMED = {"\\": "backslash", "^": "asciicircum", "~": "asciitilde", "<": "less", ">": "greater", "|": "bar"}
ESCAPED = {sign: rf"\{sign}" for sign in "{}$&#%_"} | {sign: rf"\text{name}{{}}" for sign, name in NAMED.items()}
SPECIAL = str.maketrans(ESCAPED | {"−": "$-$"})


def as_latex(table: Table | Sheet) -> str:
    """A longtable of booktabs rules for a page of paper; needs the packages array, booktabs and longtable.

    Columns that a line cannot hold are left out, keys apart, and named in a comment: CSV has everything.
    """
    shown, grouped = narrow(grid(table), lambda grid: _room_left(grid) >= 0)
    rest = below(shown, grouped)
    # LaTeX numbers tables itself.
    title = re.sub(r"^Table (\w+)\. (.*)", r"\2 (the paper's Table \1)", shown.title)
    lines = []
    for above, row in zip(shown.above(grouped), rest.rows, strict=True):
        if above:
            lines.append(rf"\multicolumn{{{len(rest.header)}}}{{l}}{{\textit{{{_tex(above)}}}}} \\*")
        lines.append(rf"{' & '.join(map(_tex, row))} \\")
    columns = list(_tex_columns(rest))
    return "\n".join(
        [
            r"{\footnotesize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}",
            rf"\begin{{longtable}}{{{''.join(declared for declared, _ in columns)}}}",
            rf"\caption{{{_tex(title)}}}\\",
            r"\toprule",
            rf"{' & '.join(heading for _, heading in columns)} \\",
            r"\midrule",
            r"\endhead",
            *lines,
            r"\bottomrule",
            r"\end{longtable}}",
            *(f"% {note}" for note in shown.notes),
            "",
        ]
    )


def _widths(grid: Grid) -> list[tuple[int, int]]:
    """(characters of the longest cell, characters allotted) of each column.

    Headings are broken between words, and words in cells beyond `WRAPPED`.
    """
    found = []
    for i, heading in enumerate(grid.header):
        longest = max((len(row[i]) for row in grid.rows), default=0)
        cell = longest if grid.numeric(i) else min(longest, WRAPPED)
        found.append((longest, max(cell, *map(len, heading.split()))))
    return found


def _room_left(grid: Grid) -> int:
    """Characters of a line that the columns leave; below 0: they do not fit."""
    return LINE - sum(width + 2 for _, width in _widths(grid))


def _tex_columns(grid: Grid) -> Iterator[tuple[str, str]]:
    """(its letter in longtable's argument, heading) of each column; broken ones share the room that is left."""
    widths = _widths(grid)
    spare = max(_room_left(grid), 0) // max(sum(longest > width for longest, width in widths), 1)
    for i, (longest, width) in enumerate(widths):
        side = "r" if grid.numeric(i) else "l"
        parts = [_tex(part) for part in textwrap.wrap(grid.header[i], width)]
        stack = r" \\ ".join(parts)
        heading = rf"\shortstack[{side}]{{{stack}}}" if len(parts) > 1 else stack
        if longest > width + spare:
            side = rf">{{\raggedright\arraybackslash}}p{{{EM * (width + spare):.1f}em}}"
        yield side, heading


def _tex(text: str) -> str:
    escaped = re.sub(r'"([^"]*)"', r"``\1''", text.translate(SPECIAL))
    # A bracket or a star after \\ would be read as its argument.
    return f"{{{escaped}}}" if text.startswith(("[", "*")) else escaped


FORMS: dict[str, Callable[[Table | Sheet], str]] = {"text": as_text, "csv": as_csv, "md": as_markdown, "tex": as_latex}
"""Name of a format on the command line -> its writer; all but `text` are suffixes of files too."""
FILES = ("csv", "md", "tex")


def write_tables(tables: Sequence[Table | Sheet], folder: Path) -> None:
    """<folder>/<name>.{csv,md,tex} for every table."""
    for table in tables:
        for suffix in FILES:
            write_text(folder / f"{table.name}.{suffix}", FORMS[suffix](table))
