"""Does DCLM match or exceed FineWeb-Edu? The answer that the report gives before its figures by web source.

In: the table `web_differences`. Out: sentences, of the largest scale after SFT, as Table 11 of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator

from analysis.claims.findings import COMPARABLE
from analysis.rendering.formats import format_interval, format_signed
from analysis.rendering.table import Row, Table

PAIR = "DCLM − FineWeb-Edu"


def source_answers(table: Table | None) -> Iterator[str]:
    """No sentence where the study has not both sources at one code per cent."""
    found = [row for row in (table.rows if table else ()) if row.keys[0] == "accuracy" and row.keys[4] == PAIR]
    rows = [row for row in found if row.keys[1:3] == (found[-1].keys[1], "SFT") and row.estimate.value is not None]
    if not rows:
        return
    parts = ", ".join(f"{row.keys[3]} {_points(row)}" for row in rows)
    yield f"DCLM less FineWeb-Edu at {rows[0].keys[1]} after SFT, accuracy in points at equal code per cent: {parts}."
    matched = [row for row in rows if (row.estimate.value or 0.0) >= -COMPARABLE]
    settled = [row for row in rows if _settled(row)]
    yield (
        f"DCLM matches or exceeds FineWeb-Edu (at most {COMPARABLE:g} point below it) in {len(matched)} of {len(rows)} "
        f"categories; the paper says so of most (C.4.3). In {len(settled)} of {len(rows)} the whole interval lies on "
        "one side of that point."
    )


def _points(row: Row) -> str:
    ends = format_interval(row.estimate.ends, lambda end: format_signed(end, 1))
    return f"{format_signed(row.estimate.value, 1)} {ends}".strip()


def _settled(row: Row) -> bool:
    """Does the whole interval lie on one side of a point below?"""
    return row.estimate.inside(-COMPARABLE) is False
