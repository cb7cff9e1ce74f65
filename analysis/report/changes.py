"""Which correlations between PT and SFT change with scale? The answer in the report's summary.

In: the tables `scale_differences` and `table5`. Out: `ScaleChanges`, which templates/changes.html.j2 puts into words.

A change is told from chance where its q is below `FALSE_DISCOVERIES`. The q-values here are Benjamini-Hochberg over the
changes of single benchmarks, both metrics and all pairs of scales: the question is asked of all of them at once. The
q-values of the table are over the means of categories too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.rendering.table import Row, Table
from analysis.stats.estimates import FALSE_DISCOVERIES, Estimate, benjamini_hochberg
from analysis.tables.protocols import LARGE, SMALL

SHOWN = 5
"""Changes that are shown where none can be told from chance: those with the smallest p."""
BY_CHANCE = 0.05
"""Share of the intervals that exclude 0 where nothing changes, by simulation (docs/statistics.md)."""


@dataclass(frozen=True)
class ScaleChange:
    scales: str
    metric: str
    name: str
    """The benchmark, or the benchmarks of a mean."""
    small: float
    """r at the smaller scale, or the mean of such r."""
    large: float
    change: Estimate
    q: float | None
    """None for a mean."""
    unreliable: bool
    """Table 5 makes no claim of the benchmark at one of the scales: it is at chance, or noise hides its mixtures."""


@dataclass(frozen=True)
class ScaleChanges:
    singles: list[ScaleChange]
    """Changes of single benchmarks that have a test, the smallest p first."""
    smallest_p: float
    """The smallest p that the number of mixtures allows."""
    means: list[ScaleChange]
    """Means over all benchmarks."""

    @property
    def asked(self) -> int:
        return len(self.singles)

    @property
    def told(self) -> list[ScaleChange]:
        """Changes that chance does not make: q below `FALSE_DISCOVERIES`."""
        return [one for one in self.singles if one.q is not None and one.q < FALSE_DISCOVERIES]

    @property
    def shown(self) -> list[ScaleChange]:
        return self.told or self.singles[:SHOWN]

    @property
    def outside(self) -> int:
        """Intervals of single benchmarks that exclude 0."""
        return sum(one.change.inside(0.0) is False for one in self.singles)

    @property
    def outside_by_chance(self) -> int:
        """How many intervals would exclude 0 if nothing changed."""
        return round(BY_CHANCE * self.asked)

    @property
    def needed(self) -> int:
        """How many benchmarks must have the smallest p at once before any q is below `FALSE_DISCOVERIES`."""
        return math.floor(self.smallest_p * self.asked / FALSE_DISCOVERIES) + 1


def scale_changes(table: Table | None, table5: Table) -> ScaleChanges | None:
    """None where no benchmark has a change: one scale, or nothing measured at two."""
    rows = [row for row in table.rows if row.estimate.p is not None] if table else []
    single = [row for row in rows if not _is_mean(row)]
    if table is None or not single:
        return None
    return ScaleChanges(
        singles=_single_changes(table, single, table5),
        smallest_p=min(row.estimate.smallest_p or 1.0 for row in single),
        means=[_change(table, row, None, False) for row in rows if _is_mean(row) and row.keys[2] == "all"],
    )


def _single_changes(table: Table, rows: list[Row], table5: Table) -> list[ScaleChange]:
    """Changes of single benchmarks, the smallest p first and of equals the largest change."""
    unclaimed = {(row.keys[0], row.keys[1], row.keys[3]) for row in table5.rows if row.no_claim}
    q = benjamini_hochberg([row.estimate.p for row in rows])
    found = []
    for row, value in zip(rows, q, strict=True):
        scales = row.scope.scales if row.scope else ()
        unreliable = any((scale, row.keys[1], row.keys[3]) in unclaimed for scale in scales)
        found.append(_change(table, row, value, unreliable))
    return sorted(found, key=lambda one: (one.change.p, -abs(one.change.value or 0)))


def _is_mean(row: Row) -> bool:
    """Means over several benchmarks are the brief rows of the table."""
    return row.brief


def _change(table: Table, row: Row, q: float | None, unreliable: bool) -> ScaleChange:
    scales, metric, _, name = row.keys
    values = table.values(row)
    return ScaleChange(scales, metric, name, values[SMALL], values[LARGE], row.estimate, q, unreliable)
