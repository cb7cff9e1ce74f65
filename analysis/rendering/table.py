"""Tables as every part of the analysis makes them: of numbers with their uncertainty, and of facts.

In: `Estimate`s, or settings and published numbers. Out: `Table`s and `Sheet`s that hold values; text is made of them
last, for the terminal, files and the report (`analysis.rendering.writers`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from analysis.stats.estimates import Estimate, benjamini_bogomolov

if TYPE_CHECKING:
    from analysis.panel.panel import Scope

COUNTABLE = 10**15
"""Fewer arrangements than this are written out; more are given in powers of ten."""


class RowVerdict(StrEnum):
    """Where the paper's number lies relative to this run's interval, or why that cannot be said."""

    MISSING = "missing"
    NO_CLAIM = "no claim"
    NO_INTERVAL = "no interval"
    INSIDE = "inside"
    OUTSIDE = "outside"
    NOT_COMPARED = ""
    """The paper has no such number."""


COMPARED = (RowVerdict.INSIDE, RowVerdict.OUTSIDE)


@dataclass(frozen=True)
class Column:
    """A further column of a table: its heading, and how one of its values is written."""

    name: str
    write: Callable[[Any], str] = str
    missing: str = ""
    """Written in place of None."""

    def text(self, value: Any) -> str:
        return self.missing if value is None else self.write(value)


class NoteKind(StrEnum):
    """The subject of a note; the value is the beginning of its text."""

    CAVEAT = ""
    SEED_NOISE = "seed noise from "
    SAME_MIXTURES = "interval, same mixtures: "


@dataclass(frozen=True)
class Note:
    detail: str
    kind: NoteKind = NoteKind.CAVEAT

    def __str__(self) -> str:
        return f"{self.kind}{self.detail}"


@dataclass(frozen=True)
class Row:
    keys: tuple[str, ...]
    estimate: Estimate
    paper: float | None = None
    extra: tuple[Any, ...] = ()
    """A value for each column of `Table.extra`, or nothing where the row has none of them."""
    no_claim: str = ""
    """Why the number supports no claim, if it does not."""
    provisional: bool = False
    """Some of its noise is not measured."""
    scope: Scope | None = None
    """None: the key columns `scale` and `stage` tell."""
    scores: str = ""
    """Fingerprint of the score files behind the number."""
    q: float | None = None
    brief: bool = True
    """Shown on the terminal; files have every row."""

    @property
    def difference(self) -> float | None:
        return None if self.paper is None or self.estimate.value is None else self.estimate.value - self.paper

    @property
    def verdict(self) -> RowVerdict:
        if self.estimate.value is None:
            return RowVerdict.MISSING
        if self.no_claim:
            return RowVerdict.NO_CLAIM
        if self.paper is None:
            return RowVerdict.NOT_COMPARED
        inside = self.estimate.inside(self.paper)
        if inside is None:
            return RowVerdict.NO_INTERVAL
        return RowVerdict.INSIDE if inside else RowVerdict.OUTSIDE


@dataclass(frozen=True)
class Table:
    name: str
    """File name without suffix."""
    title: str
    keys: tuple[str, ...]
    extra: tuple[Column, ...]
    rows: tuple[Row, ...]
    digits: int = 2
    signed: bool = True
    """Numbers with their sign: correlations and differences."""
    brief_extra: int = 1
    """How many of `extra` are shown where there is little room: on the terminal, in LaTeX, in the report."""
    repeats_paper: bool = False
    """The paper's numbers in it stand in other tables, or follow from theirs."""
    caveats: tuple[Note, ...] = ()
    """Warnings about facts that the numbers alone would hide."""

    @property
    def notes(self) -> list[str]:
        """Lines that name the points, intervals and nulls, with ranges where rows differ; then the caveats."""
        known = [row.estimate for row in self.rows if row.estimate.value is not None]
        lines = []
        for field, label in (("points", "points"), ("interval", "95 % interval"), ("null", "null of p")):
            names = list(dict.fromkeys(getattr(e, field) for e in known if getattr(e, field)))
            if names:
                lines.append(f"{label}: {'; '.join(names)}")
        counts = [e.arrangements for e in known if e.arrangements is not None]
        smallest = [e.smallest_p for e in known if e.smallest_p is not None]
        if counts:
            fewest, most = Decimal(min(counts)), Decimal(max(counts))  # of many mixtures they are no float
            lines.append(
                f"distinct arrangements: {_format_range(fewest, most, ',' if most < COUNTABLE else '.1e')}; "
                f"smallest possible p: {_format_range(min(smallest), max(smallest), '.2g')}"
            )
        if len(known) < len(self.rows):
            lines.append(f"{len(self.rows) - len(known)} of {len(self.rows)} numbers are missing and left empty")
        return [*lines, *map(str, self.caveats)]

    def count(self, verdict: RowVerdict) -> int:
        return sum(row.verdict is verdict for row in self.rows)

    def values(self, row: Row) -> dict[str, Any]:
        """Heading of each further column -> its value in a row; None where the row has none."""
        return dict(zip((column.name for column in self.extra), row.extra or (None,) * len(self.extra), strict=True))

    def texts(self, row: Row) -> list[str]:
        """The further columns of a row as they are written; empty where the row has none of them."""
        if not row.extra:
            return [""] * len(self.extra)
        return [column.text(value) for column, value in zip(self.extra, row.extra, strict=True)]


Cell = str | int | float | None
"""None: unknown, or not said."""


@dataclass(frozen=True)
class Sheet:
    """Facts under headings: settings and published numbers, which have neither interval nor p-value."""

    name: str
    """File name without suffix."""
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 0
    """How many leading columns say what a row is about."""
    optional: tuple[str, ...] = ()
    """Columns that a narrow terminal does without, the first to go first."""
    weak: frozenset[int] = frozenset()
    """Numbers of rows that are shown faintly."""
    notes: tuple[str, ...] = ()


def _format_range(low: float | Decimal, high: float | Decimal, spec: str) -> str:
    return f"{low:{spec}}" if low == high else f"{low:{spec}} to {high:{spec}}"


def with_q_values(
    name: str,
    title: str,
    keys: str,
    rows: Iterable[Row],
    extra: tuple[Column, ...] = (),
    *,
    family_keys: int = 0,
    **form: Any,
) -> Table:
    """A table whose rows carry q-values: Benjamini-Hochberg's over all their p-values.

    family_keys: number of leading keys that name a family of tests; with any, Benjamini and Bogomolov's over families.
    form: other fields of `Table`.
    """
    listed = list(rows)
    assert all(len(row.extra) == len(extra) or not row.extra for row in listed), name
    families: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(listed):
        families.setdefault(row.keys[:family_keys], []).append(place)
    # Of a single family, Benjamini and Bogomolov's q-values are Benjamini-Hochberg's.
    q = benjamini_bogomolov([[listed[place].estimate.p for place in family] for family in families.values()])
    by_place = dict(zip(itertools.chain(*families.values()), itertools.chain(*q), strict=True))
    done = tuple(replace(row, q=by_place[place]) for place, row in enumerate(listed))
    return Table(name, title, tuple(keys.split()), extra, done, **form)
