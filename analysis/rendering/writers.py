"""A `Table` or `Sheet` as text, CSV, Markdown and LaTeX.

CSV has every number at full precision, missing ones empty; the other forms are rounded for reading.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.rendering.grid import Grid, align, align_once, below, filled, narrow, numeric
from analysis.rendering.table import Cell, Row, Sheet, Table
from configs.artifacts import write_text

if TYPE_CHECKING:
    from rich.console import Console

VERDICT = 4
"""Place of the verdict behind a table's keys."""
ESTIMATE = ("value", "low", "high", "n", "points", "interval", "p", "null", "arrangements", "smallest_p", "missing")


def headings(table: Table, *, brief: bool = True) -> list[str]:
    """Columns of the rounded forms. brief: where there is little room."""
    keys = [key.replace("_", " ") for key in table.keys]
    extra = table.extra[: table.brief_extra] if brief else table.extra
    return [*keys, "paper", "this run", "95 % interval", "difference", "verdict", "n", "p", "q", *extra]


def cells(table: Table, row: Row, *, brief: bool = True) -> list[str]:
    """One row under `headings`; missing numbers are empty."""
    e, digits = row.estimate, table.digits

    def number(value: float | None) -> str:
        if value is None:
            return ""
        text = f"{value:+.{digits}f}" if table.signed else f"{value:.{digits}f}"
        return text.replace("-", "−")

    interval = "" if e.low is None else f"[{number(e.low)}, {number(e.high)}]"
    difference = "" if row.difference is None else f"{row.difference:+.{digits}f}".replace("-", "−")
    return [
        *row.keys,
        number(row.paper),
        number(e.value),
        interval,
        difference,
        row.verdict,
        str(e.n) if e.n else "",
        chance(e.p),
        chance(row.q),
        *(row.extra[: table.brief_extra] if brief else row.extra),
    ]


def chance(p: float | None, digits: int = 2) -> str:
    """A p- or q-value; empty where there is none."""
    return "" if p is None else f"{p:.{digits}g}" if p >= 1e-4 else f"{p:.0e}"


def words(cell: Cell) -> str:
    """A fact for reading: 100864 is 100,864."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4g}"


def grid(table: Table | Sheet, *, brief: bool = True, on_terminal: bool = False) -> Grid:
    """Every cell as words, empty columns left out. brief: columns for little room; on_terminal: brief rows too."""
    if isinstance(table, Sheet):
        header = [name.replace("_", " ") for name in table.header]
        body = [[words(cell) for cell in row] for row in table.rows]
        whole = Grid(table.title, header, body, table.keys, table.optional, table.weak, table.notes)
    else:
        rows = [row for row in table.rows if row.brief or not on_terminal]
        header, body = headings(table, brief=brief), [cells(table, row, brief=brief) for row in rows]
        hidden = len(table.rows) - len(rows)
        notes = (*table.notes, *((f"{hidden} more rows are in the files",) if hidden else ()))
        optional = (*reversed(table.extra), "difference", "n", "q", "p")
        weak = frozenset(i for i, row in enumerate(rows) if row.estimate.value is None or row.no_claim)
        whole = Grid(table.title, header, body, len(table.keys), optional, weak, notes)
    return whole.only(filled(header, body))


# ---------------------------------------------------------------------------------------------- the terminal


def as_text(table: Table | Sheet) -> str:
    """For the terminal: brief rows, runs of equal keys shown once."""
    shown = grid(table, on_terminal=True)
    return "\n".join([shown.title, *align_once(shown), *(f"  {note}" for note in shown.notes)])


def show(table: Table | Sheet, console: Console | None = None) -> None:
    """On the terminal in its colours and width; elsewhere as `as_text`."""
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
    head, rule, *lines = align(rest.header, rest.rows) if grouped else align_once(shown)
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
    writer.writerow([*table.keys, "paper", *ESTIMATE, "difference", "verdict", "q", "scores", *table.extra])
    for row in table.rows:
        estimate = [getattr(row.estimate, name) for name in ESTIMATE]
        values = [*row.keys, row.paper, *estimate, row.difference, row.verdict, row.q, row.scores, *row.extra]
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
"""Of a character."""
SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "−": "$-$",
    }
)


def as_latex(table: Table | Sheet) -> str:
    """A longtable of booktabs rules for a page of paper; needs the packages array, booktabs and longtable.

    What a line cannot hold is left out, keys apart, and named in a comment: CSV has everything.
    """
    shown, grouped = narrow(grid(table), lambda grid: sum(_widths(grid)) + 2 * len(grid.header) <= LINE)
    rest = below(shown, grouped)
    widths, columns = _widths(rest), len(rest.header)
    sides = "".join(_sides(rest, widths))
    # LaTeX numbers tables itself.
    title = re.sub(r"^Table (\w+)\. (.*)", r"\2 (the paper's Table \1)", shown.title)
    lines = []
    for above, row in zip(shown.above(grouped), rest.rows, strict=True):
        if above:
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{_tex(above)}}}}} \\*")
        lines.append(rf"{' & '.join(map(_tex, row))} \\")
    return "\n".join(
        [
            r"{\footnotesize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}",
            rf"\begin{{longtable}}{{{sides}}}",
            rf"\caption{{{_tex(title)}}}\\",
            r"\toprule",
            rf"{' & '.join(_head(rest, i, w) for i, w in enumerate(widths))} \\",
            r"\midrule",
            r"\endhead",
            *lines,
            r"\bottomrule",
            r"\end{longtable}}",
            *(f"% {note}" for note in shown.notes),
            "",
        ]
    )


def _widths(grid: Grid) -> list[int]:
    """Characters of each column; headings are broken between words, and words in cells beyond `WRAPPED`."""
    cells = [n if numeric(grid.rows, i) else min(n, WRAPPED) for i, n in enumerate(_longest(grid))]
    return [max(cell, *map(len, heading.split())) for cell, heading in zip(cells, grid.header, strict=True)]


def _longest(grid: Grid) -> list[int]:
    return [max((len(row[i]) for row in grid.rows), default=0) for i in range(len(grid.header))]


def _sides(grid: Grid, widths: Sequence[int]) -> Iterator[str]:
    """What longtable is told of each column; broken ones share what room the line has left."""
    long = [longest > width for longest, width in zip(_longest(grid), widths, strict=True)]
    spare = max(LINE - sum(widths) - 2 * len(widths), 0) // max(sum(long), 1)
    for i, (longest, width) in enumerate(zip(_longest(grid), widths, strict=True)):
        if long[i] and longest > width + spare:
            yield rf">{{\raggedright\arraybackslash}}p{{{EM * (width + spare):.1f}em}}"
        else:
            yield "r" if numeric(grid.rows, i) else "l"


def _head(grid: Grid, column: int, width: int) -> str:
    parts = [_tex(part) for part in textwrap.wrap(grid.header[column], width)]
    if len(parts) == 1:
        return parts[0]
    side, stack = "r" if numeric(grid.rows, column) else "l", r" \\ ".join(parts)
    return rf"\shortstack[{side}]{{{stack}}}"


def _tex(text: str) -> str:
    escaped = re.sub(r'"([^"]*)"', r"``\1''", text.translate(SPECIAL))
    # A bracket or a star after \\ would be read as its argument.
    return f"{{{escaped}}}" if text.startswith(("[", "*")) else escaped


FORMS: dict[str, Callable[[Table | Sheet], str]] = {"text": as_text, "csv": as_csv, "md": as_markdown, "tex": as_latex}
"""By what a user calls them; all but text are the suffixes of files."""
FILES = ("csv", "md", "tex")


def write_tables(tables: Sequence[Table | Sheet], folder: Path) -> None:
    """<folder>/<name>.{csv,md,tex} for every table."""
    for table in tables:
        for suffix in FILES:
            write_text(folder / f"{table.name}.{suffix}", FORMS[suffix](table))
