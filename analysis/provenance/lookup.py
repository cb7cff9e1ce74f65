"""A number of the report by its keys: its table, the key values of its row, perhaps the heading of its column.

In: what a user writes, e.g. `table5 hellaswag mini_m accuracy`. Out: rows of the table. A word is a whole key or
heading. Order, case, spaces, hyphens and underscores make no difference, so that no shell needs quotes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from analysis.panel.panel import Scope
from analysis.paper.numbers import displays
from analysis.rendering.table import Sheet, Table
from analysis.rendering.writers import fields, grid
from analysis.report.page import NUMBERS, table_of_figure
from analysis.scores.metrics import read_metrics
from analysis.tables.catalogue import MAKERS
from analysis.tables.settings import MAKERS as SETTINGS
from configs.errors import ConfigError
from configs.layout import StudyFolder

METRICS = "metrics"
"""The table of metrics.parquet: a row for each checkpoint, benchmark, metric and normalisation."""
EMPTY = "empty"
"""Word for a key that a row lacks, e.g. the recipe of a pretraining."""
LISTED = 12
"""Names that a message lists at most."""


def find_table(given: str) -> str:
    """The name of a table from what a user writes: `5`, `Table 5`; of a figure, the table with its numbers.

    Raises ConfigError listing all.
    """
    known = [*SETTINGS, *MAKERS, METRICS]
    by_name = {plain(name): NUMBERS.get(name, name) for name in (*known, *NUMBERS)}
    wanted = plain(f"table{given}" if given.isdigit() else given)
    found = by_name.get(wanted) or table_of_figure(wanted)
    if found is None:
        raise ConfigError(f"no table {given!r}", valid=", ".join(known))
    return found


def find_rows(table: Table | Sheet, words: Sequence[str], scores: Sequence[str]) -> tuple[list[int], str | None]:
    """(rows that the words fit, the heading of one of `column_names` if they name it).

    scores: the fingerprint of each row's score files; all rows found have the same.

    Raises ConfigError where no row has all words, or rows of different score files have.
    """
    plainly = functools.cache(plain)  # metrics.parquet repeats the same names a hundred thousand times
    keys = [{plainly(key or EMPTY) for key in row} for row in row_keys(table)]
    headings = {plain(name): name for name in column_names(table)}
    rows, column = list(range(len(keys))), None
    for word in words:
        # A key is tried before a heading: `accuracy` is a key of Table 5 and could be a column elsewhere.
        if fitting := [i for i in rows if plain(word) in keys[i]]:
            rows = fitting
        elif plain(word) in headings:
            column = headings[plain(word)]
        else:
            others = " ".join(other for other in words if other != word)
            beside = f" beside {others}" if others else ""
            raise ConfigError(f"no row of {table.name} has {word!r}{beside}", valid=_choices(table, rows))
    if len({scores[i] for i in rows}) > 1:
        raise ConfigError(f"{len(rows)} rows of {table.name} fit; add words of these", valid=_choices(table, rows))
    return rows, column


def plain(text: str) -> str:
    return re.sub(r"[\s_\-−]+", "", text.casefold())


def key_names(table: Table | Sheet) -> tuple[str, ...]:
    return table.keys if isinstance(table, Table) else table.header[: table.keys]


def row_keys(table: Table | Sheet) -> list[tuple[str, ...]]:
    if isinstance(table, Table):
        return [row.keys for row in table.rows]
    return [tuple(map(str, row[: table.keys])) for row in table.rows]


def row_scope(table: Table | Sheet, row: int) -> Scope:
    own = table.rows[row].scope if isinstance(table, Table) else None
    return own or Scope.of_keys(key_names(table), row_keys(table)[row])


def column_names(table: Table | Sheet) -> list[str]:
    """Headings behind the keys."""
    if isinstance(table, Sheet):
        return [*table.header[table.keys :]]
    return [field.heading for field in fields(table, brief=False)][len(table.keys) :]


def describe_row(table: Table | Sheet, row: int) -> dict[str, Any]:
    """Keys by name, the cells behind them as they are shown, by heading, and the exact numbers of an estimate."""
    single = replace(table, rows=table.rows[row : row + 1])  # type: ignore[arg-type]  # rows of the table's own kind
    shown = grid(single, brief=False)
    cells = dict(zip(shown.header[shown.keys :], shown.rows[0][shown.keys :], strict=True))
    known = {"keys": dict(zip(key_names(table), row_keys(single)[0], strict=True)), "shown": cells}
    if isinstance(table, Sheet):
        return known
    e = table.rows[row].estimate
    return known | {"value": e.value, "low": e.low, "high": e.high, "n": e.n, "paper": table.rows[row].paper}


def _choices(table: Table | Sheet, rows: Sequence[int]) -> str:
    """`scale 240m, 1b; metric accuracy, confidence`: the keys by which rows differ, or all of one row's."""
    every = row_keys(table)
    columns = zip(key_names(table), zip(*(every[i] for i in rows), strict=True), strict=True)
    known = [(name, list(dict.fromkeys(values))) for name, values in columns]
    differing = [(name, values) for name, values in known if len(values) > 1] or known
    return "; ".join(f"{name.replace('_', ' ')} {_some(values)}" for name, values in differing)


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name or EMPTY for name in names[:LISTED]) + more


def metrics_sheet(study: StudyFolder) -> tuple[Sheet, list[str]]:
    """(metrics.parquet as a sheet, fingerprint of the score files of each of its rows)."""
    frame = read_metrics(study)
    fingerprints = frame["fingerprint"].tolist()
    frame["benchmark"] = frame["benchmark"].replace(displays())
    for name in ("seed", "step"):
        frame[name] = name + frame[name].astype(str)
    frame["stderr"] = frame["stderr"].astype(object).where(frame["stderr"].notna(), None)
    keys = ["scale", "stage", "recipe", "mixture", "seed", "step", "benchmark", "variant", "metric", "normalisation"]
    columns = (*keys, "value", "stderr", "n", "tokens")
    rows = tuple(zip(*(frame[name].tolist() for name in columns), strict=True))
    title = "metrics.parquet: every metric of every checkpoint"
    return Sheet(METRICS, title, columns, rows, len(keys)), fingerprints
