"""Every table of a study, by name.

In: a study's panel. Out: `Table`s, in the order in which they are printed. A new table is added here: a module of this
folder with a `MAKERS` dictionary (name -> function of the panel), and its line in `MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from analysis.claims import multiverse
from analysis.panel.panel import Panel, Scope
from analysis.rendering.table import Table
from analysis.tables import calibration, decisions, early, paper, protocols, replication, settings, tiers
from configs.errors import ConfigError

MAKERS: dict[str, Callable[[Panel], Table]] = {
    **paper.MAKERS,
    **protocols.MAKERS,
    **tiers.MAKERS,
    **replication.MAKERS,
    **decisions.MAKERS,
    **early.MAKERS,
    **calibration.MAKERS,
    **multiverse.MAKERS,
}
"""Name -> what makes the table, in the order in which they are shown."""


def build_tables(panel: Panel, names: Sequence[str] | None = None) -> list[Table]:
    """names: of `MAKERS`; default: all that have a row, as scale differences of one scale have none."""
    made = (MAKERS[name](panel) for name in (MAKERS if names is None else names))
    return [_with_scores(table, panel) for table in made if table.rows or names is not None]


def _with_scores(table: Table, panel: Panel) -> Table:
    """The table with the fingerprint of the score files behind every number."""
    scopes = ((row, row.scope or Scope.of_keys(table.keys, row.keys)) for row in table.rows)
    return replace(table, rows=tuple(replace(row, scope=s, scores=panel.scores_behind(s)) for row, s in scopes))


def parse_table_names(given: str | None) -> list[str] | None:
    """Names of tables from what a user writes: 5 is table5. Raises ConfigError for others."""
    if given is None:
        return None
    names = [f"table{part}" if part.isdigit() else part for part in (p.strip() for p in given.split(","))]
    known = [*settings.MAKERS, *MAKERS]
    if unknown := [name for name in names if name not in known]:
        valid = ", ".join(name.removeprefix("table") for name in known)
        raise ConfigError(f"no table {unknown[0].removeprefix('table')!r}", where="--table", valid=valid)
    return names
