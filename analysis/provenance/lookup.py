"""A number of the report by the words beside it: its table, the keys of its row, perhaps its column.

In: what a user writes, e.g. `table5 hellaswag 1b`. Out: `Found`. Upper and lower case, spaces, hyphens and underscores
are the same, and the beginning of a word is enough where it fits one name only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.rendering.table import Sheet, Table
from configs.errors import ConfigError
from configs.layout import StudyFolder

METRICS = "metrics"
"""What every table is made from: metrics.parquet, a row a cell, metric and normalisation."""
EMPTY = "empty"
"""A key that is not there, e.g. the recipe of a pretraining."""
LISTED = 12
"""Names or rows that a message has room for."""


@dataclass(frozen=True)
class Found:
    table: Table | Sheet
    rows: tuple[int, ...]
    """Several where the words fit more, all of the same score files."""
    column: str | None
    """Of `columns_of`; None: the whole row."""

    def keys(self, row: int) -> dict[str, str]:
        return dict(zip(key_names(self.table), keys_of(self.table, row), strict=True))

    def cells(self, row: int) -> dict[str, str]:
        """Heading -> cell as it is shown, empty ones left out; of the row's keys none."""
        from analysis.rendering.writers import cells, words

        if isinstance(self.table, Table):
            shown = cells(self.table, self.table.rows[row], brief=False)
        else:
            shown = [words(cell) for cell in self.table.rows[row]]
        start = len(key_names(self.table))
        return {name: cell for name, cell in zip(columns_of(self.table), shown[start:], strict=True) if cell}


def table_named(given: str) -> str:
    """The name of a table from what a user writes: `5`, `Table 5`, `deci`; of a figure, the table with its numbers.

    Raises ConfigError listing all.
    """
    from analysis.report.page import NUMBERS
    from analysis.tables.catalogue import makers
    from analysis.tables.settings import MAKERS as SETTINGS

    known = [*SETTINGS, *makers(), METRICS]
    wanted = f"table{given}" if given.isdigit() else given
    try:
        name = the_one(wanted, [*known, *NUMBERS])
    except ConfigError:
        raise ConfigError(f"no table {given!r}", valid=", ".join(known)) from None
    return NUMBERS.get(name, name)


def find(table: Table | Sheet, words: Sequence[str], scores: Sequence[str]) -> Found:
    """scores: of each row, the fingerprint of its score files.

    Raises ConfigError where no row has all words, or rows of different score files have.
    """
    plainly = functools.cache(plain)  # a metrics.parquet says the same names a hundred thousand times
    shown, columns = [keys_of(table, i) for i in range(len(table.rows))], columns_of(table)
    keys = [tuple(map(plainly, row)) for row in shown]
    rows, column = list(range(len(keys))), None
    for word in words:
        names = {key: name for i in rows for key, name in zip(keys[i], shown[i], strict=True) if key}
        if plain(word) not in names and plain(word) in map(plain, columns):
            column = next(name for name in columns if plain(name) == plain(word))
            continue
        beginnings = [name for key, name in names.items() if key.startswith(plain(word))]
        if beginnings or plain(word) in names:
            chosen = plain(the_one(word, beginnings))
            rows = [i for i in rows if chosen in keys[i]]
        elif word == EMPTY and any("" in keys[i] for i in rows):
            rows = [i for i in rows if "" in keys[i]]
        elif any(plain(name).startswith(plain(word)) for name in columns):
            column = the_one(word, columns)
        else:
            others = " ".join(other for other in words if other != word)
            beside = f" beside {others}" if others else ""
            raise ConfigError(f"no row of {table.name} has {word!r}{beside}", valid=_choices(table, rows))
    if len({scores[i] for i in rows}) > 1:
        raise ConfigError(f"{len(rows)} rows of {table.name} fit; add words of these", valid=_choices(table, rows))
    return Found(table, tuple(rows), column)


def plain(text: str) -> str:
    return re.sub(r"[\s_\-−]+", "", text.casefold())


def the_one(given: str, names: Iterable[str]) -> str:
    """The name that is `given`, or the only one that begins with it. Raises ConfigError."""
    found = [name for name in dict.fromkeys(names) if plain(name).startswith(plain(given))]
    exact = [name for name in found if plain(name) == plain(given)]
    if len(exact or found) != 1:
        raise ConfigError(f"{given!r} fits {len(found) or 'no'} names", valid=_some(found))
    return (exact or found)[0]


def key_names(table: Table | Sheet) -> tuple[str, ...]:
    return table.keys if isinstance(table, Table) else table.header[: table.keys]


def keys_of(table: Table | Sheet, row: int) -> tuple[str, ...]:
    if isinstance(table, Table):
        return table.rows[row].keys
    return tuple(str(cell) for cell in table.rows[row][: table.keys])


def columns_of(table: Table | Sheet) -> list[str]:
    """Headings behind the keys."""
    from analysis.rendering.writers import headings

    names = headings(table, brief=False) if isinstance(table, Table) else list(table.header)
    return names[len(key_names(table)) :]


def _choices(table: Table | Sheet, rows: Sequence[int]) -> str:
    """`scale 240m, 1b; metric accuracy, confidence`: the keys by which rows differ, or all of one row's."""
    values = list(zip(*(keys_of(table, i) for i in rows), strict=True))
    several = [(name, list(dict.fromkeys(v))) for name, v in zip(key_names(table), values, strict=True)]
    told = [(name, found) for name, found in several if len(found) > 1] or several
    return "; ".join(f"{name.replace('_', ' ')} {_some(found)}" for name, found in told)


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name or EMPTY for name in names[:LISTED]) + more


def metrics_sheet(study: StudyFolder) -> tuple[Sheet, list[str]]:
    """(metrics.parquet as a sheet, fingerprint of the score files of each of its rows)."""
    from analysis.paper.numbers import displays
    from analysis.scores.metrics import read_metrics

    frame = read_metrics(study)
    names = displays()
    keys = {
        "scale": frame["scale"],
        "stage": frame["stage"],
        "recipe": frame["recipe"],
        "mixture": frame["mixture"],
        "seed": "seed" + frame["seed"].astype(str),
        "step": "step" + frame["step"].astype(str),
        "benchmark": frame["benchmark"].map(lambda slug: names.get(slug, slug)),
        "variant": frame["variant"],
        "metric": frame["metric"],
        "normalisation": frame["normalisation"],
    }
    numbers = {"value": frame["value"], "stderr": frame["stderr"].astype(object).where(frame["stderr"].notna(), None)}
    columns = {**keys, **numbers, "n": frame["n"], "tokens": frame["tokens"]}
    rows = tuple(zip(*(column.tolist() for column in columns.values()), strict=True))
    sheet = Sheet(METRICS, "metrics.parquet: every metric of every checkpoint", tuple(columns), rows, len(keys))
    return sheet, frame["fingerprint"].tolist()
