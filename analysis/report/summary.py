"""What the report says first: which benchmarks may be trusted, what would have been decided, the paper beside it.

In: `Panel` and its tables, by name. Out: rows and words for templates/report.html.j2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.decisions import Protocol, protocols
from analysis.protocols.usable import above_chance, clearance
from analysis.rendering.formats import format_estimate, format_per_cent, format_points, format_signed
from analysis.rendering.table import COMPARED, Row, RowVerdict, Table
from analysis.rendering.writers import format_verdict
from analysis.report.verdict import HALF, Choice, Level, Price, Verdict
from analysis.stats.estimates import FALSE_DISCOVERIES, Estimate
from analysis.tables.transfer import MEAN, RELIABILITY

MARKS = {Level.TRUST: "●", Level.WEAK: "◐", Level.NO: "○", Level.UNKNOWN: "–"}
"""A verdict has a sign of its own, so that it is not told by colour alone."""
FEW = 4
"""Points on which an interval of a correlation is so wide that hardly anything lies outside: r 0.5 is [-0.89, 0.99]."""
RANK = {Level.TRUST: 3, Level.WEAK: 2, Level.NO: 1}
"""Numbers to sort verdicts by; a score that was not measured has none."""
INK = {
    Price.RIGHT: "right",
    Price.WRONG: "wrong",
    Price.NOTHING: "soft wrap",
    Price.OPEN: "unsure",
    Price.UNKNOWN: "unsure",
}
"""Class of a price on the page. Only what noise cannot have made is green or red."""


def short(protocol: Protocol) -> str:
    """A protocol as the head of a column, e.g. `240m: PT → SFT`."""
    (small, before), (large, after) = protocol.early, protocol.late
    return f"{small}: {before} → {after}" if small == large else f"{small} {before} → {large} {after}"


@dataclass(frozen=True)
class Tally:
    """The verdicts of one protocol, as names of benchmarks."""

    protocol: str
    of: dict[Level, list[str]]

    def line(self) -> str:
        trusted, weak, refused, unknown = (self.of[level] for level in Level)
        total = sum(map(len, self.of.values()))
        words = [f"Trust {', '.join(trusted) or 'none'}.", f"Weak: {', '.join(weak)}." if weak else ""]
        words += [f"Do not trust: {len(refused)} of {total}." if refused else ""]
        words += [f"Not measured: {len(unknown)}." if unknown else ""]
        return " ".join(filter(None, words))


def tallies(panel: Panel, found: dict[tuple[str, Protocol], Verdict]) -> list[Tally]:
    """The tally of every protocol."""
    return [
        Tally(
            short(protocol),
            {
                level: [panel.displays[s] for s in panel.benchmarks if found[s, protocol].level is level]
                for level in Level
            },
        )
        for protocol in protocols(panel)
    ]


def seeds_shown(panel: Panel) -> str:
    """A sentence on the seeds behind the numbers."""
    if len(panel.seeds) < 2:
        return f"One seed of each mixture (seed {panel.seeds[0]})." if panel.seeds else "No seed was scored."
    if panel.average_seeds:
        return "Each mixture's mean over its seeds; checkpoints on the way are of the first seed."
    return (
        f"Numbers are of seed {panel.seeds[0]} of every mixture; only whether a score is above chance, and the "
        "declared order, are of means over all seeds."
    )


def format_mixtures(some: Sequence[str], mixtures: Sequence[str], between: str) -> str:
    """The mixtures that a score puts first, which may all be tied."""
    return f"any of the {len(some)}, all alike" if len(some) == len(mixtures) > 1 else between.join(some)


def format_share(e: Estimate) -> str:
    """Decision accuracy as a share of the pairs of mixtures, with its interval, e.g. `47 % [21, 79]`."""
    if e.value is None:
        return e.reason
    return f"{100 * e.value:.0f} % {format_per_cent(e.ends) or 'no interval'}".replace(
        " ", "\u00a0"
    )  # stays on one line


def describe_cost(choice: Choice) -> str:
    """The cost of a choice, or why there is none, as the end of a sentence."""
    if choice.regret is None:
        return f"there is no decision to price, because its benchmarks are {choice.no_price}"
    cost = f"the choice would have cost {format_points(choice.regret)} points of accuracy"
    scored_best = "no mixture scored better than the choice"
    match choice.price:
        case Price.RIGHT:
            return "the choice is right and costs nothing"
        case Price.WRONG:
            return f"the choice costs {format_points(choice.regret)} points of accuracy"
        case Price.OPEN if choice.right and choice.regret_interval:
            highest = format_points(choice.regret_interval[1])
            said = f"{scored_best}, but noise may hide a cost of up to {highest} points"
        case Price.OPEN:
            said = f"{cost}, which noise alone might make"
        case _:
            said = scored_best if choice.right else cost
    return "; ".join(filter(None, (said, _describe_unmeasured(choice))))


def _describe_unmeasured(choice: Choice) -> str:
    if len(choice.unmeasured) > 1:
        return "noise was not measured"
    if choice.unmeasured:
        return f"the noise of the {choice.unmeasured[0]} was not measured"
    return "" if choice.regret_interval else "not every mixture's noise was measured"


def describe_choices(choices: Sequence[Choice]) -> str:
    """A sentence that counts choices by what is known of their costs."""
    prices = Counter(choice.price for choice in choices)
    priced = [choice for choice in choices if choice.price is not Price.NOTHING]
    words = [f"Of the {len(choices)} choices below {prices[Price.NOTHING]} have no decision to price"]
    words.append(f"{sum(not choice.right for choice in priced)} are not the mixture that scored best in the end")
    if prices[Price.UNKNOWN]:
        words.append(f"for {prices[Price.UNKNOWN]} not all noise was measured")
    if len(priced) > prices[Price.UNKNOWN]:
        words.append(f"{prices[Price.WRONG]} cost more than noise alone might make")
    return f"{'; '.join(words)}."


def is_a_coin(e: Estimate) -> bool:
    """Does the interval hold a half?"""
    return bool(e.inside(HALF))


def tiles(panel: Panel, declared: dict[tuple[str, str], dict[str, Estimate]]) -> Iterator[tuple[str, str]]:
    """(number, what it is)."""
    measured, planned = panel.coverage()
    missing = "none missing" if measured == planned else f"{planned - measured} missing"
    yield f"{measured:,} / {planned:,}", f"evaluations of last checkpoints measured, {missing}"
    scales = f"{len(panel.scales)} scale{'s' * (len(panel.scales) > 1)}"
    yield f"{len(panel.planned()):,}", f"checkpoints: {len(panel.mixtures)} mixtures, {scales}, PT and SFT, all seeds"
    for scale in panel.scales:
        if np.isnan([clearance(panel, scale, stage) for stage in STAGES]).all():
            yield "–", f"benchmarks clearly above chance, {scale}: chance or standard errors are not known"
            continue
        counts = " → ".join(str(len(above_chance(panel, scale, stage))) for stage in STAGES)
        yield counts, f"of {len(panel.benchmarks)} benchmarks clearly above chance, {scale}, PT → SFT"
    if declared:
        (scale, stage), found = list(declared.items())[-2]  # the largest scale after pretraining
        values = [e.value for e in found.values() if e.value is not None]
        if values:
            what = f"Spearman, declared and measured order, mean of {len(values)} benchmarks, {scale} {stage}"
            yield format_signed(sum(values) / len(values)), what


def sentences(table5: Table, replication: Table | None) -> Iterator[str]:
    """Sentences on how many correlations replicate, and on what Table 5 rests."""
    tested = [row.q for row in replication.rows if row.q is not None] if replication else []
    yield (
        f"{sum(q <= FALSE_DISCOVERIES for q in tested)} of {len(tested)} correlations of an early with a late accuracy "
        f"replicate between different seeds (q at most {FALSE_DISCOVERIES:g})."
        if tested
        else "No correlation is tested between different seeds: too few mixtures have a second one."
    )
    rows = [row for row in table5.rows if row.keys[2] != MEAN]
    unsupported, unknown = sum(bool(row.no_claim) for row in rows), sum(row.provisional for row in rows)
    noise = (
        f"{unsupported} support no claim, for the benchmark is at chance or its mixtures differ by little more than "
        f"noise; for {unknown} part of the noise is not measured, or that of seeds on too few"
    )
    if all(math.isnan(table5.values(row)[RELIABILITY].value) for row in rows):
        noise = "it is not known which rest on noise: noise is not measured"
    yield f"Of {len(rows)} cross-stage correlations (accuracy and confidence) {noise}."


def paper_means(table5: Table) -> list[tuple[str, ...]]:
    """(scale, metric, benchmarks, the paper's mean r over the same benchmarks, this run's, verdict)."""
    return [
        (
            row.keys[0],
            row.keys[1],
            row.keys[3],
            format_signed(row.paper),
            format_estimate(row.estimate),
            format_verdict(row),
        )
        for row in table5.rows
        if row.keys[2] == MEAN and row.paper is not None
    ]


@dataclass(frozen=True)
class PaperComparison:
    """How the numbers of one table compare with the paper's."""

    name: str
    title: str
    counts: Counter[RowVerdict]
    few: int
    """Intervals, among those inside and outside, that rest on `FEW` points or fewer."""


def compare_with_paper(tables: dict[str, Table]) -> list[PaperComparison]:
    """Comparisons of the tables that have a number of the paper; each number counts once.

    A second reading of the same number does not count, nor does a table that repeats numbers of others.
    """
    found = []
    for table in tables.values():
        rows = [row for row in table.rows if row.paper is not None and not table.repeats_paper]
        rows = list({_keys_without_reading(table, row): row for row in reversed(rows)}.values())
        if rows:
            few = sum(row.estimate.n <= FEW for row in rows if row.verdict in COMPARED)
            found.append(PaperComparison(table.name, table.title, Counter(row.verdict for row in rows), few))
    return found


def _keys_without_reading(table: Table, row: Row) -> tuple[str, ...]:
    return tuple(key for name, key in zip(table.keys, row.keys, strict=True) if name != "reading")
