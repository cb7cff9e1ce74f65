"""Every table of a study, by name.

In: a study's panel. Out: `Table`s, in the order in which they are printed. A new table is added here: a module of this
folder with a `MAKERS` dictionary (name -> function of the panel), and its line in `makers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from analysis.panel.panel import Panel
    from analysis.rendering.table import Table


def makers() -> dict[str, Callable[[Panel], Table]]:
    """Name -> what makes the table, in the order in which they are shown."""
    from analysis.claims import multiverse
    from analysis.tables import calibration as calibration_tables
    from analysis.tables import decisions as decision_tables
    from analysis.tables import early, tiers
    from analysis.tables import paper as paper_tables
    from analysis.tables import protocols as protocol_tables

    return {
        **paper_tables.MAKERS,
        **protocol_tables.MAKERS,
        **tiers.MAKERS,
        **decision_tables.MAKERS,
        **early.MAKERS,
        **calibration_tables.MAKERS,
        **multiverse.MAKERS,
    }


def build_tables(panel: Panel, names: Sequence[str] | None = None) -> list[Table]:
    """names: of `makers`; default: all that have a row, as scale differences of one scale have none."""
    known = makers()
    made = (known[name](panel) for name in (known if names is None else names))
    return [_with_scores(table, panel) for table in made if table.rows or names is not None]


def _with_scores(table: Table, panel: Panel) -> Table:
    """Every number with the fingerprint of its score files."""
    from analysis.panel.panel import Scope

    scopes = ((row, row.scope or Scope.of_keys(table.keys, row.keys)) for row in table.rows)
    return replace(table, rows=tuple(replace(row, scope=s, scores=panel.scores_behind(s)) for row, s in scopes))


def parse_table_names(given: str | None) -> list[str] | None:
    """Names of tables from what a user writes: 5 is table5. Raises ConfigError for others."""
    from analysis.tables.settings import MAKERS as SETTINGS

    if given is None:
        return None
    names = [f"table{part}" if part.isdigit() else part for part in (p.strip() for p in given.split(","))]
    known = [*SETTINGS, *makers()]
    if unknown := [name for name in names if name not in known]:
        valid = ", ".join(name.removeprefix("table") for name in known)
        raise ConfigError(f"no table {unknown[0].removeprefix('table')!r}", where="--table", valid=valid)
    return names
