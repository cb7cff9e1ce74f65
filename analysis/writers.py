"""A `Table` as text, CSV, Markdown and LaTeX.

CSV has every number at full precision, missing ones empty; the other forms are rounded for reading.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.table import Row, Table
from configs.artifacts import write_text

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


def filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns in which any row has something to say."""
    return [i for i in range(len(header)) if not rows or any(row[i] for row in rows)]


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to one width; columns of numbers to the right."""
    width = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    right = [bool(rows) and all(not r[i] or r[i][0] in "+−-.0123456789[" for r in rows) for i in range(len(header))]
    lines = []
    for line in (header, ["─" * w for w in width], *rows):
        parts = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, width, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return lines


def as_text(table: Table) -> str:
    """For the terminal: brief rows, runs of equal keys shown once."""
    shown = [row for row in table.rows if row.brief]
    header, body = headings(table), [cells(table, row) for row in shown]
    columns = filled(header, body)
    keys = ("",) * len(table.keys)
    for row, line in zip(shown, body, strict=True):
        for i in range(len(table.keys)):
            if row.keys[: i + 1] == keys[: i + 1]:
                line[i] = ""
        keys = row.keys
    aligned = align(*_only(columns, header, body))
    lines = [table.title, *aligned, *(f"  {note}" for note in table.notes)]
    if hidden := len(table.rows) - len(shown):
        lines.append(f"  {hidden} more rows are in the files")
    return "\n".join(lines)


def show(table: Table) -> None:
    """On the terminal in colours and as wide as it is; elsewhere as `as_text`."""
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    if not console.is_terminal:
        print(as_text(table), end="\n\n")
        return
    shown = [row for row in table.rows if row.brief]
    header, body = headings(table), [cells(table, row) for row in shown]
    columns = filled(header, body)
    grid = Grid(title=table.title, title_justify="left", title_style="bold", row_styles=["", "dim"])
    for name in _only(columns, header, [])[0]:
        grid.add_column(name, justify="left" if name.replace(" ", "_") in table.keys or name == "verdict" else "right")
    for row, line in zip(shown, _only(columns, header, body)[1], strict=True):
        grid.add_row(*line, style="" if row.estimate.value is not None and not row.no_claim else "bright_black")
    console.print(grid)
    for note in table.notes:
        console.print(f"  {note}", style="bright_black", highlight=False)
    console.print()


def _only(
    columns: Sequence[int], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    return [header[i] for i in columns], [[row[i] for i in columns] for row in rows]


def as_csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.keys, "paper", *ESTIMATE, "difference", "verdict", "q", "scores", *table.extra])
    for row in table.rows:
        estimate = [getattr(row.estimate, name) for name in ESTIMATE]
        values = [*row.keys, row.paper, *estimate, row.difference, row.verdict, row.q, row.scores, *row.extra]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def as_markdown(table: Table) -> str:
    header, rows = headings(table, brief=False), [cells(table, row, brief=False) for row in table.rows]
    header, rows = _only(filled(header, rows), header, rows)
    lines = [f"# {table.title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def as_latex(table: Table) -> str:
    """A longtable of booktabs rules; needs the packages longtable and booktabs."""
    header, rows = headings(table), [cells(table, row) for row in table.rows]
    columns = filled(header, rows)
    words = {*range(len(table.keys)), len(table.keys) + VERDICT}
    header, rows = _only(columns, header, rows)
    lines = [
        f"\\begin{{longtable}}{{{''.join('l' if i in words else 'r' for i in columns)}}}",
        f"\\caption{{{_tex(table.title)}}}\\\\",
        "\\toprule",
        f"{' & '.join(_tex(h) for h in header)} \\\\",
        "\\midrule",
        "\\endhead",
        *(f"{' & '.join(_tex(c) for c in row)} \\\\" for row in rows),
        "\\bottomrule",
        "\\end{longtable}",
        *(f"% {note}" for note in table.notes),
        "",
    ]
    return "\n".join(lines)


def _tex(text: str) -> str:
    for plain, escaped in (("&", "\\&"), ("%", "\\%"), ("_", "\\_"), ("#", "\\#"), ("−", "$-$"), ("<", "$<$")):
        text = text.replace(plain, escaped)
    # A bracket after \\ would be read as its optional argument.
    return f"{{{text}}}" if text.startswith("[") else text


FORMS: dict[str, Callable[[Table], str]] = {"text": as_text, "csv": as_csv, "md": as_markdown, "tex": as_latex}
"""By what a user calls them; all but text are the suffixes of files."""
FILES = ("csv", "md", "tex")


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """<folder>/<name>.{csv,md,tex} for every table."""
    for table in tables:
        for suffix in FILES:
            write_text(folder / f"{table.name}.{suffix}", FORMS[suffix](table))
