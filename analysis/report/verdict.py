"""May an early score be trusted, and what would it have decided? One rule over numbers that the tables already hold.

In: `Panel`, Table 5, the table of decisions and that of replication. Out: a `Verdict` for every benchmark and protocol
(which score is seen early, which is paid for late), and the `Choice`s of a mixture that an early score leads to. No
statistic is made here.

"Trust" says that the true correlation of the early with the late score over mixtures is above 0, not how far. It rests
on different seeds, which share no luck: their r (the table of replication) has a q-value of at most 0.05. Where no
effect is true, about 5 % of studies or fewer trust anything; where some are, about 5 % of what the test trusts is false
on average. It speaks of the examples that were asked: mixtures that differ on these alone are trusted too
(tests/perf/coverage/trust_rule.py, docs/statistics.md).

The rule, of one benchmark and protocol. Beside the replication stands the number of the shown runs: their r over
mixtures (Table 5) or, between scales, where no table has one, the share of the pairs of mixtures that both scores rank
alike (decisions).

    do not trust    a score that is not clearly above chance, at either end; or a reliability below `noise.FLOOR`; or
                    mixtures that are all alike; or an interval, of r or of the share of pairs, wholly below what no
                    relation gives (r 0, half of the pairs); or no replication, and an interval of the shown runs'
                    number that holds what no relation gives
    not measured    none of that, but cells are missing, so that there is no such number
    weak            none of that, but it does not replicate (q above 0.05, or no second seed); or something is not known
                    (provisional): chance, the noise of examples, or that of seeds, which few seeds of few mixtures do
                    not tell (`noise.Repeats`)
    trust           none of that
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analysis.panel.panel import Panel
from analysis.protocols.correlations import seed_freedom
from analysis.protocols.decisions import Protocol, protocols
from analysis.protocols.noise import FLOOR, Noise, format_reliability, noise
from analysis.protocols.usable import CLEAR, clearance
from analysis.rendering.formats import format_estimate, format_per_cent, format_points
from analysis.rendering.table import Table
from analysis.stats.estimates import CONSTANT, FALSE_DISCOVERIES, Estimate, absent
from analysis.tables.decisions import BEST, FIRST, REGRET_INTERVALS, REGRETS, protocol_keys

NOT_TESTED = absent("not tested between different seeds")
"""The replication of a benchmark that has no row in its table."""
HALF = 0.5
"""Share of the pairs of mixtures that a coin ranks alike."""

ABOVE, REVERSED, NO_INTERVAL = "above", "reversed", "no interval"
"""Positions of an interval; the fourth is that it includes the value of no relation."""


class Level(StrEnum):
    TRUST = "trust"
    WEAK = "weak"
    NO = "do not trust"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Signal:
    """Numbers of the tables on one benchmark under one protocol."""

    agreement: Estimate
    """Share of the pairs of mixtures that the early and the late score rank alike."""
    clearance: tuple[float, float]
    """Standard errors above chance, early and late; NaN: not known."""
    reliability: tuple[float, float]
    """Early and late; NaN: no noise is measured."""
    replication: Estimate
    """r over mixtures between different seeds, with its test."""
    q: float | None
    """The q-value of `replication`; None without a test."""
    unmeasured: tuple[str, ...] = ()
    """Kinds of noise that are not known, or on too few seeds."""
    r: Estimate | None = None
    """Early with late over mixtures, of the runs that are shown; None: no table has it."""

    @property
    def replicates(self) -> bool:
        return self.q is not None and self.q <= FALSE_DISCOVERIES


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not better."""

    what: str
    detail: str
    """The number, or the scores, that it is about."""

    def __str__(self) -> str:
        return f"{self.what} ({self.detail})"


@dataclass(frozen=True)
class Verdict:
    level: Level
    reasons: tuple[Reason, ...]
    """The graver first; none for `Level.TRUST`."""
    numbers: tuple[str, ...]
    """Numbers that the rule looked at, with their uncertainty; the one that decides comes first."""

    @property
    def brief(self) -> str:
        """One line below the level: what the gravest reason is about; of a verdict that is only provisional the number
        that decides."""
        if self.level in (Level.NO, Level.UNKNOWN):
            return self.reasons[0].detail
        return self.numbers[0]


def judge(signal: Signal, ends: tuple[str, str] = ("early", "late")) -> Verdict:
    """The rule above; ends: names of the early and the late score."""
    shown = signal.agreement if signal.r is None else signal.r
    refusals: list[Reason] = [*_at_chance(signal, ends), *_unreliable(signal, ends)]
    doubts: list[Reason] = []
    if shown.value is None:
        return _judge_without_number(shown.reason, refusals)
    numbers = [] if signal.replication.value is None else [_format_replication(signal)]
    for number, null in ((signal.r, 0.0), (signal.agreement, HALF)):
        if number is None or number.value is None:
            continue
        reason = Reason(_position(number, null), _format_number(number, null))
        numbers.append(reason.detail)
        if reason.what == REVERSED:
            refusals.append(reason)
        elif reason.what != ABOVE and number is shown and not signal.replicates:
            (doubts if reason.what == NO_INTERVAL else refusals).append(reason)
    doubts += [*_not_replicated(signal), *_unknowns(signal, ends)]
    level = Level.NO if refusals else Level.WEAK if doubts else Level.TRUST
    return Verdict(level, (*refusals, *doubts), tuple(numbers))


def _judge_without_number(reason: str, refusals: list[Reason]) -> Verdict:
    """A score may be refused for other reasons where the number that decides is missing."""
    if reason == CONSTANT:
        refusals = [*refusals, Reason(CONSTANT, "all mixtures score alike")]
    if refusals:
        return Verdict(Level.NO, tuple(refusals), ())
    return Verdict(Level.UNKNOWN, (Reason("no number", reason or "not measured"),), ())


def _unknowns(signal: Signal, ends: tuple[str, str]) -> Iterator[Reason]:
    """Doubts that come from what is not known."""
    if unknown := [end for end, above in zip(ends, signal.clearance, strict=True) if math.isnan(above)]:
        yield Reason("chance not known", ", ".join(unknown))
    yield from (Reason("provisional", kind) for kind in signal.unmeasured)


def _not_replicated(signal: Signal) -> Iterator[Reason]:
    """The doubt of a correlation that different seeds do not show."""
    if signal.q is None:
        yield Reason("not replicated", signal.replication.reason or "no test")
    elif not signal.replicates:
        yield Reason("not replicated", _format_replication(signal))


def _position(e: Estimate, null: float) -> str:
    """Where the interval lies relative to `null`."""
    if e.ends is None:
        return NO_INTERVAL
    low, high = e.ends
    return REVERSED if high < null else ABOVE if low > null else f"includes {50 if null == HALF else 0}"


def _at_chance(signal: Signal, ends: tuple[str, str]) -> list[Reason]:
    low = [end for end, above in zip(ends, signal.clearance, strict=True) if above <= CLEAR]
    return [Reason("at chance", ", ".join(low))] if low else []


def _unreliable(signal: Signal, ends: tuple[str, str]) -> list[Reason]:
    """The lower of the two reliabilities, if it is below the floor."""
    known = [(value, end) for value, end in zip(signal.reliability, ends, strict=True) if value < FLOOR]
    return [Reason("reliability", f"{format_reliability(value)}, {end}") for value, end in sorted(known)[:1]]


def _format_replication(signal: Signal) -> str:
    q = "" if signal.q is None else f", q {signal.q:.2g}"
    return f"other seeds: r {format_estimate(signal.replication)}{q}"


def _format_number(e: Estimate, null: float) -> str:
    if null != HALF:
        return f"r {format_estimate(e)}"
    assert e.value is not None
    return f"{100 * e.value:.0f} % of pairs {format_per_cent(e.ends)}".rstrip()


# ---------------------------------------------------------------------------------------------- of a study


def verdicts(
    panel: Panel, table5: Table, decisions: Table, replication: Table | None
) -> dict[tuple[str, Protocol], Verdict]:
    """Verdict on every benchmark (slug) under every protocol; replication: None where nothing was tested."""
    repeated = {row.keys: row for row in replication.rows} if replication else {}
    transfer = {(row.keys[0], row.keys[3]): row for row in table5.rows if row.keys[1] == "accuracy"}
    agreed = {row.keys: row for row in decisions.rows}
    ends = {end for protocol in protocols(panel) for end in (protocol.early, protocol.late)}
    above = {end: clearance(panel, *end) for end in ends}
    noises = {end: noise(panel, *end, "accuracy") for end in ends}
    found = {}
    for protocol, (b, slug) in itertools.product(protocols(panel), enumerate(panel.benchmarks)):
        early, late = protocol.early, protocol.late
        display = panel.displays[slug]
        keys = (*protocol_keys(protocol), display)
        row, test = transfer[early[0], display] if early[0] == late[0] else None, repeated.get(keys)
        sides = noises[early], noises[late]
        signal = Signal(
            agreement=agreed[keys].estimate,
            clearance=(float(above[early][b]), float(above[late][b])),
            reliability=(float(sides[0].reliability[b]), float(sides[1].reliability[b])),
            replication=test.estimate if test else NOT_TESTED,
            q=test.q if test else None,
            unmeasured=tuple(_unmeasured(sides, b)),
            r=row.estimate if row else None,
        )
        found[slug, protocol] = judge(signal, protocol_keys(protocol))
    return found


def _unmeasured(sides: tuple[Noise, Noise], b: int) -> Iterator[str]:
    """Kinds of noise of one benchmark that are not known, at the worse end."""
    few = [side.repeats[b] for side in sides if not side.repeats[b].enough]
    if any(np.isnan(side.seeds[b]) for side in sides):
        yield "seeds were not repeated"
    elif few:
        yield str(min(few, key=lambda end: end.freedom))
    if any(np.isnan(side.examples[b]) for side in sides):
        yield "single answers are not here"


class Price(StrEnum):
    """The cost of a choice, as far as it is known."""

    NOTHING = "nothing to price"
    """Every benchmark is at chance or constant, early or late."""
    UNKNOWN = "noise not measured"
    """A kind of noise is not measured, so that nobody knows what it makes."""
    OPEN = "within noise"
    RIGHT = "right"
    """The choice costs nothing, whatever the noise."""
    WRONG = "wrong"
    """It costs more than noise makes."""


@dataclass(frozen=True)
class Choice:
    """Consequence of training on the mixture that an early score puts first."""

    early: str
    late: str
    score: str
    """Name of the score, e.g. mean of 20 benchmarks."""
    first: tuple[str, ...]
    """Mixtures that the early score puts first; several are tied."""
    best: tuple[str, ...]
    """Mixtures that are best in the end."""
    over_all: bool
    """The score is the mean over all benchmarks, not over a category."""
    regret: float | None
    """Cost of the choice: late accuracy of the best mixture less that of the chosen one, a share. None: no decision."""
    regret_interval: tuple[float, float] | None
    """Its interval for these same mixtures; None without single answers."""
    agreement: Estimate
    """Share of the pairs of mixtures that both rank alike."""
    unmeasured: tuple[str, ...] = ()
    """Kinds of noise that are not measured: examples, seeds."""
    no_price: str = ""
    """Why there is no decision to price."""

    @property
    def right(self) -> bool:
        """Is every mixture that might be chosen among the best?"""
        return set(self.first) <= set(self.best)

    @property
    def price(self) -> Price:
        """Ends of the interval count as they are written."""
        if self.regret is None:
            return Price.NOTHING
        if self.regret_interval is None:
            return Price.UNKNOWN
        low, high = (float(format_points(end)) for end in self.regret_interval)
        if low <= 0 < high:
            return Price.OPEN
        if self.unmeasured:
            return Price.UNKNOWN
        return Price.WRONG if low > 0 else Price.RIGHT


def choices(panel: Panel, decisions: Table) -> list[Choice]:
    """Choices by the mean over all benchmarks and over each category, paid for after SFT at the largest scale."""
    paid = (panel.scales[-1], "SFT")
    singles = set(panel.displays.values())
    found = []
    for scale in panel.scales:
        protocol = Protocol((scale, "PT"), paid)
        early, late = protocol_keys(protocol)
        unmeasured = tuple(_unmeasured_everywhere(panel, protocol))
        mine = [row for row in decisions.rows if row.keys[:2] == (early, late)]
        for place, row in enumerate(mine):  # the mean over all benchmarks comes first
            value, score = decisions.values(row), row.keys[2]
            if score not in singles and (value[REGRETS[0]] is not None or row.no_claim):
                found.append(
                    Choice(
                        early,
                        late,
                        score,
                        value[FIRST],
                        value[BEST],
                        over_all=place == 0,
                        regret=value[REGRETS[0]],
                        regret_interval=value[REGRET_INTERVALS[0]],
                        agreement=row.estimate,
                        unmeasured=unmeasured,
                        no_price=row.no_claim,
                    )
                )
    return found


def _unmeasured_everywhere(panel: Panel, protocol: Protocol) -> Iterator[str]:
    """Kinds of noise that are not measured on any benchmark, at either end."""
    ends = (protocol.early, protocol.late)
    if panel.items is None:
        yield "examples"
    if not all(seed_freedom(panel, *end, "accuracy").any() for end in ends):
        yield "seeds"
