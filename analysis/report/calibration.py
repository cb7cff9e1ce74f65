"""The answers on calibration that the report gives before its figures.

In: the tables `calibration_methods` and `calibration_by_data`. Out: sentences, of the largest scale after the last
stage. What was not measured gives none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from analysis.rendering.formats import format_interval, format_signed
from analysis.rendering.table import Row, Table
from analysis.stats.estimates import FALSE_DISCOVERIES


def calibration_answers(tables: Mapping[str, Table]) -> Iterator[str]:
    """tables: by name."""
    methods = tables.get("calibration_methods")
    if methods is not None and methods.rows:
        yield from _methods(methods)
    by_data = tables.get("calibration_by_data")
    if by_data is not None and (line := _by_data(by_data)):
        yield line


def _methods(table: Table) -> Iterator[str]:
    scale, stage = table.rows[-1].keys[:2]
    rows = {
        row.keys[2:]: row for row in table.rows if row.keys[:2] == (scale, stage) and row.estimate.value is not None
    }

    def change(measure: str, comparison: str) -> str:
        row = rows[measure, comparison]
        better = table.values(row)["better on"]
        sure = "" if row.q is not None and row.q < FALSE_DISCOVERIES else ", which chance may make"
        return f"{measure} by {_number(row)} (better on {better} benchmarks{sure})"

    at = f"At {scale} after {stage}"
    if own := [m for m in ("NLL", "ECE") if (m, "own − common temperature") in rows]:
        changed = " and ".join(change(m, "own − common temperature") for m in own)
        yield f"{at}, a temperature for each benchmark instead of one for all changes the held-out {changed}."
    prior = [m for m in ("accuracy", "ECE") if (m, "label prior − as scored") in rows]
    if prior:
        changed = " and ".join(change(m, "label prior − as scored") for m in prior)
        line = f"{at}, subtracting the label prior changes the held-out {changed}"
        if ("ECE", "label prior − own temperature") in rows:
            line += f"; instead of the own temperature it changes {change('ECE', 'label prior − own temperature')}"
        yield f"{line}."


def _number(row: Row) -> str:
    return f"{format_signed(row.estimate.value, 3)} {format_interval(row.estimate.ends, _three)}".strip()


def _unsigned(row: Row) -> str:
    return f"{row.estimate.value:.3f} {format_interval(row.estimate.ends, '{:.3f}'.format)}".strip()


def _three(value: float) -> str:
    return format_signed(value, 3)


def _by_data(table: Table) -> str:
    """The ECE of each web source and code per cent, over all benchmarks."""
    scale, stage = table.rows[-1].keys[:2] if table.rows else ("", "")
    rows = [row for row in table.rows if row.keys[:2] == (scale, stage) and row.keys[4] == "all"]
    known = [row for row in rows if row.estimate.value is not None]
    parts = []
    for grouping, unit in (("web source", ""), ("code per cent", " % code")):
        mine = [f"{row.keys[3]}{unit} {_unsigned(row)}" for row in known if row.keys[2] == grouping]
        parts += [", ".join(mine)] if mine else []
    return f"Expected calibration error at {scale} after {stage}: {'; '.join(parts)}." if parts else ""
