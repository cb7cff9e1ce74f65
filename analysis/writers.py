"""A `Table` as text, CSV, Markdown and LaTeX.

CSV has every number at full precision, missing ones empty; the other forms are rounded for reading.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from analysis.paper_tables import Row, Table
from configs.artifacts import write_text

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
    chance = ["" if v is None else f"{v:.2g}" if v >= 1e-4 else f"{v:.0e}" for v in (e.p, row.q)]
    difference = "" if row.difference is None else f"{row.difference:+.{digits}f}".replace("-", "−")
    return [
        *row.keys,
        number(row.paper),
        number(e.value),
        interval,
        difference,
        row.verdict,
        str(e.n) if e.n else "",
        *chance,
        *(row.extra[: table.brief_extra] if brief else row.extra),
    ]


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
    body, previous = [], ("",) * len(table.keys)
    for row in shown:
        line = cells(table, row)
        for i in range(len(table.keys)):
            if row.keys[: i + 1] == previous[: i + 1]:
                line[i] = ""
        previous = row.keys
        body.append(line)
    lines = [table.title, *align(headings(table), body), *(f"  {note}" for note in table.notes)]
    if hidden := len(table.rows) - len(shown):
        lines.append(f"  {hidden} rows of other readings are in the files")
    return "\n".join(lines)


def as_csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.keys, "paper", *ESTIMATE, "difference", "verdict", "q", *table.extra])
    for row in table.rows:
        estimate = [getattr(row.estimate, name) for name in ESTIMATE]
        values = [*row.keys, row.paper, *estimate, row.difference, row.verdict, row.q, *row.extra]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def as_markdown(table: Table) -> str:
    header = headings(table, brief=False)
    lines = [f"# {table.title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells(table, row, brief=False))} |" for row in table.rows
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def as_latex(table: Table) -> str:
    """A longtable of booktabs rules; needs the packages longtable and booktabs."""
    header = headings(table)
    columns = "l" * len(table.keys) + "rrrr" + "l" + "rrr" + "r" * len(table.extra[: table.brief_extra])
    lines = [
        f"\\begin{{longtable}}{{{columns}}}",
        f"\\caption{{{_tex(table.title)}}}\\\\",
        "\\toprule",
        f"{' & '.join(_tex(h) for h in header)} \\\\",
        "\\midrule",
        "\\endhead",
        *(f"{' & '.join(_tex(c) for c in cells(table, row))} \\\\" for row in table.rows),
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


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """<folder>/<name>.{csv,md,tex} for every table."""
    for table in tables:
        for suffix, form in (("csv", as_csv), ("md", as_markdown), ("tex", as_latex)):
            write_text(folder / f"{table.name}.{suffix}", form(table))
