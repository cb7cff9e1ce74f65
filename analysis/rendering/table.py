"""Tables as every part of the analysis makes them: of numbers with their uncertainty, and of facts.

In: `Estimate`s, or settings and published numbers. Out: `Table`s and `Sheet`s for the terminal, files and the report
(`analysis.rendering.writers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from analysis.stats.association import Association
from analysis.stats.estimates import Estimate, benjamini_hochberg

COUNTABLE = 10**15
"""Arrangements that are written out."""


@dataclass(frozen=True)
class Row:
    keys: tuple[str, ...]
    estimate: Estimate
    paper: float | None = None
    extra: tuple[str, ...] = ()
    no_claim: str = ""
    """Why the number supports no claim, if it does not."""
    provisional: bool = False
    """Some of its noise is not measured."""
    scores: str = ""
    """Fingerprint of the score files behind the number."""
    q: float | None = None
    brief: bool = True
    """Shown on the terminal; files have every row."""

    @property
    def difference(self) -> float | None:
        return None if self.paper is None or self.estimate.value is None else self.estimate.value - self.paper

    @property
    def verdict(self) -> str:
        """Where the paper's number lies relative to this run's interval, or why that cannot be said."""
        if self.estimate.value is None:
            return f"missing: {self.estimate.reason}"
        if self.no_claim:
            return f"no claim: {self.no_claim}"
        if self.paper is None:
            return ""
        inside = self.estimate.inside(self.paper)
        said = "no interval" if inside is None else "inside" if inside else "outside"
        return f"{said}, provisional" if self.provisional else said


@dataclass(frozen=True)
class Table:
    name: str
    """File name without suffix."""
    title: str
    keys: tuple[str, ...]
    extra: tuple[str, ...]
    rows: tuple[Row, ...]
    unit: str = ""
    digits: int = 2
    signed: bool = True
    """Numbers with their sign: correlations and differences."""
    brief_extra: int = 1
    """How many of `extra` are shown where there is little room: on the terminal, in LaTeX, in the report."""
    repeats_paper: bool = False
    """The paper's numbers in it stand in other tables, or follow from theirs."""
    caveats: tuple[str, ...] = ()
    """What the numbers alone would hide."""

    @property
    def notes(self) -> list[str]:
        """What points, intervals and nulls are, ranges where rows differ; then the caveats."""
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
                f"distinct arrangements: {_span(fewest, most, ',' if most < COUNTABLE else '.1e')}; "
                f"smallest possible p: {_span(min(smallest), max(smallest), '.2g')}"
            )
        if len(known) < len(self.rows):
            lines.append(f"{len(self.rows) - len(known)} of {len(self.rows)} numbers are missing and left empty")
        return [*lines, *self.caveats]

    def count(self, verdict: str) -> int:
        return sum(row.verdict.partition(",")[0] == verdict for row in self.rows)


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


def _span(low: float | Decimal, high: float | Decimal, spec: str) -> str:
    return f"{low:{spec}}" if low == high else f"{low:{spec}} to {high:{spec}}"


def signed(value: float) -> str:
    """A correlation as the tables print it, e.g. `−0.44`."""
    return f"{value:+.2f}".replace("-", "−")


def with_interval(e: Estimate) -> str:
    """Value and interval, e.g. `+0.44 [+0.12, +0.70]`."""
    if e.value is None:
        return ""
    return signed(e.value) + ("" if e.low is None or e.high is None else f" {interval(e.low, e.high)}")


def interval(low: float, high: float) -> str:
    return f"[{signed(low)}, {signed(high)}]"


def within_blocks(association: Association) -> str:
    """The permutation p within web sources, e.g. `0.028 of 216 (least 0.0046)`."""
    p, least = association.p_within, association.smallest_p_within
    return "" if p is None else f"{p:.2g} of {association.arrangements_within:,} (least {least:.2g})"


def with_q_values(
    name: str, title: str, keys: str, rows: Iterable[Row], extra: tuple[str, ...] = (), **form: Any
) -> Table:
    """A table whose rows carry Benjamini-Hochberg q-values over all their p-values; form: other fields of `Table`.

    A row that says nothing of `extra`, because its number is missing, is filled up with empty texts.
    """
    listed = list(rows)
    assert all(len(row.extra) == len(extra) or not row.extra for row in listed), name
    q = benjamini_hochberg([row.estimate.p for row in listed])
    empty = ("",) * len(extra)
    done = tuple(replace(row, q=value, extra=row.extra or empty) for row, value in zip(listed, q, strict=True))
    return Table(name, title, tuple(keys.split()), extra, done, **form)
