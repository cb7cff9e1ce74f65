"""Decisions as tables: what ranking mixtures early is worth, and how few benchmarks are enough.

In: `Panel`. Out: `Table`s in the form of the paper's, without numbers of the paper, which measured no decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from analysis.panel.panel import STAGES, Panel, Scope
from analysis.protocols.decision_noise import same_mixtures
from analysis.protocols.decisions import TOP, Protocol, decide, decide_on_average, protocols, subsets
from analysis.protocols.noise import draw
from analysis.protocols.usable import undecided
from analysis.rendering.formats import format_interval, format_points, format_points_interval, join_names
from analysis.rendering.table import Column, Note, NoteKind, Row, Table, with_q_values
from analysis.stats.estimates import Estimate, absent, mean_over_benchmarks

REGRETS = tuple(f"regret, pp, best of {k}" if k > 1 else "regret, pp" for k in TOP)
SAME_MIXTURES = "interval, same mixtures"
"""Heading of the interval of decision accuracy."""
REGRET_INTERVALS = tuple(f"{name}, {SAME_MIXTURES}" for name in REGRETS)
FIRST, BEST = "first early", "best late"
UNDECIDED = "all at chance or constant"
"""Why there is no decision to price; the scales and stages where it is so follow in brackets."""
FEW = 5
"""Benchmarks, up to which sets of them are shown where there is little room."""
SIGNALS = {
    "accuracy": ("accuracy", "sum", 1),
    "accuracy by character": ("accuracy", "char", 1),
    "accuracy by byte": ("accuracy", "byte", 1),
    "accuracy by PMI": ("accuracy", "pmi", 1),
    "confidence": ("confidence", "sum", 1),
    "probability of the true answer": ("gold_probability", "sum", 1),
    "log-probability of the true answer a byte": ("gold_logprob_per_byte", "byte", 1),
    "margin of the true answer": ("margin", "sum", 1),
    "NLL of the true answer": ("nll", "sum", -1),
}
"""Name of an early signal -> (metric, normalisation, 1 where more is better and -1 where less is)."""
HELD_OUT = "loss on held-out documents"


DECISIONS = (
    Column(SAME_MIXTURES, lambda ends: format_interval(ends, "{:.2f}".format)),
    Column(REGRETS[0], format_points),
    Column(REGRET_INTERVALS[0], format_points_interval),
    *(Column(name, format_points) for name in REGRETS[1:]),
    Column(FIRST, join_names),
    Column(BEST, join_names),
    *(Column(name, format_points_interval) for name in REGRET_INTERVALS[1:]),
)
"""Columns of the decision table. Regrets are shares, written in percentage points."""


def decision_table(panel: Panel) -> Table:
    """Decision accuracy and regret, by accuracy over all benchmarks (first), over a category and on each benchmark."""
    drawn = draw(panel)

    def rows() -> Iterator[Row]:
        mute = {(scale, stage): undecided(panel, scale, stage) for scale in panel.scales for stage in STAGES}
        for protocol in protocols(panel):
            early, late = (panel.matrix(*side) for side in (protocol.early, protocol.late))
            there = np.isfinite(early).any(axis=0) & np.isfinite(late).any(axis=0)
            for what, columns in _groups(panel, there):
                seen = [mean_over_benchmarks(side[:, columns]) for side in (early, late)]
                decision = decide(*seen)
                ends = [end for end in (protocol.early, protocol.late) if columns and mute[end][columns].all()]
                same = None
                if drawn and columns and there[columns].all():  # noise is known of what was scored early and late
                    sides = (drawn.values[*side, "accuracy"] for side in (protocol.early, protocol.late))
                    around = [_mean_of_draws(side[:, :, columns]) for side in sides]
                    seeds = drawn.seed_noise(protocol.early, protocol.late, columns)
                    same = same_mixtures(seen[0], seen[1], around[0], around[1], seeds)
                unpriced = f"{UNDECIDED} ({', '.join(map(' '.join, ends))})" if ends else ""
                costs = ((), ()) if unpriced else (decision.regret, same.regret if same else ())
                regrets, (first, *others) = map(_for_each_top, costs)
                names = (tuple(panel.mixtures[m] for m in some) for some in (decision.chosen, decision.best))
                extra = (same.accuracy if same else None, regrets[0], first, *regrets[1:], *names, *others)
                yield _row(protocol, what, decision.accuracy, extra, len(columns) > 1, unpriced)

    title = "Decisions: does the early score rank two mixtures as the late one does, and what does its choice cost?"
    brief = len(DECISIONS) - len(REGRET_INTERVALS[1:])
    made = list(rows())
    caveats = [Note(drawn.meaning, NoteKind.SAME_MIXTURES)] if drawn else []
    if any(row.no_claim for row in made):
        caveats.append(
            Note(f"{UNDECIDED}: of every benchmark in the score, early or late; there is no decision to price")
        )
    form: dict[str, Any] = {"signed": False, "brief_extra": brief, "caveats": tuple(caveats)}
    return with_q_values("decisions", title, "early late score", made, DECISIONS, **form)


def signal_table(panel: Panel) -> Table:
    """Decision accuracy of each early metric against later accuracy, mean over benchmarks."""

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            late = panel.matrix(*protocol.late)
            for signal, (metric, normalisation, sign) in SIGNALS.items():
                early = sign * panel.matrix(*protocol.early, metric, normalisation)
                yield _row(protocol, signal, decide_on_average(early, late))
            scale, stage = protocol.early
            if stage == "PT" and scale in panel.held_out:
                loss = np.repeat(panel.held_out_loss(scale)[:, None], late.shape[1], axis=1)
                yield _row(protocol, HELD_OUT, decide_on_average(-loss, late))

    title = "Early signals: how well each ranks mixtures by their later accuracy"
    sources = {source: None for known in panel.held_out.values() for source in known.sources}
    caveat = f"{HELD_OUT}: mean over {', '.join(sources)}, which every mixture contains" if sources else ""
    unknown = f"{HELD_OUT} is not known: the run folders are not here, or no source is in every mixture"
    return with_q_values(
        "signals", title, "early late signal", rows(), signed=False, caveats=(Note(caveat or unknown),)
    )


def subset_table(panel: Panel) -> Table:
    """Decision accuracy of the mean over few benchmarks, on mixtures that had no part in choosing them."""

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            early, late = (panel.matrix(*side) for side in (protocol.early, protocol.late))
            columns = np.flatnonzero(np.isfinite(early).any(axis=0) & np.isfinite(late).any(axis=0))
            early, late = early[:, columns], late[:, columns]
            # A choice must see the same benchmarks for every mixture: those that lack one are left out.
            whole = np.isfinite(early).all(axis=1) & np.isfinite(late).all(axis=1)
            n, points = int(whole.sum()), "mixtures, each left out of the choice"
            if n < 4 or not len(columns):
                missing = absent("fewer than 4 mixtures", n=n, points=points, missing=int((~whole).sum()))
                yield _row(protocol, "", missing)
                continue
            for subset in subsets(early[whole], late[whole]):
                names = (panel.displays[panel.benchmarks[columns[b]]] for b in subset.benchmarks)
                chosen = tuple(zip(names, subset.chosen_in, strict=True))
                estimate = Estimate(subset.accuracy, n=n, points=points, missing=int((~whole).sum()))
                yield _row(protocol, str(subset.size), estimate, (chosen,), brief=subset.size <= FEW)

    title = "Fewer benchmarks: decisions by the mean of some, against the late mean of all"
    heading = "greedy choice (in how many of the leave-one-mixture-out choices)"
    extra = (Column(heading, lambda chosen: join_names([f"{name} ({count})" for name, count in chosen])),)
    return with_q_values("fewer_benchmarks", title, "early late benchmarks", rows(), extra, signed=False)


def protocol_keys(protocol: Protocol) -> tuple[str, str]:
    """The keys `early` and `late` of a row."""
    return " ".join(protocol.early), " ".join(protocol.late)


def _row(
    protocol: Protocol,
    what: str,
    estimate: Estimate,
    extra: tuple[Any, ...] = (),
    brief: bool = True,
    no_claim: str = "",
) -> Row:
    scales, stages = zip(protocol.early, protocol.late, strict=True)
    keys, scope = (*protocol_keys(protocol), what), Scope(scales, stages)
    return Row(keys, estimate, extra=extra, scope=scope, brief=brief, no_claim=no_claim)


def _groups(panel: Panel, there: np.ndarray) -> Iterator[tuple[str, list[int]]]:
    """Benchmarks whose mean decides, and single ones; there: bool [benchmarks], scored early and late.

    A mean over other benchmarks early than late would rank mixtures by what is never paid for.
    """
    every = np.flatnonzero(there).tolist()
    yield f"mean of {len(every)} benchmarks", every
    for category in panel.categories:
        if members := panel.members(category):
            both = [b for b in members if there[b]]
            some = "" if len(both) == len(members) else f" ({len(both)} of {len(members)} benchmarks)"
            yield f"mean of {category}{some}", both
    for b, slug in enumerate(panel.benchmarks):
        yield panel.displays[slug], [b]


def _mean_of_draws(values: np.ndarray) -> np.ndarray:
    """`mean_over_benchmarks` of each draw; values: [draws, mixtures, benchmarks]."""
    draws, mixtures, benchmarks = values.shape
    return mean_over_benchmarks(values.reshape(-1, benchmarks)).reshape(draws, mixtures)


def _for_each_top(known: Sequence[Any]) -> list[Any]:
    """A value for each of `TOP`; None where there are too few mixtures for one."""
    return [*known, *[None] * (len(TOP) - len(known))]


MAKERS: dict[str, Callable[[Panel], Table]] = {
    "decisions": decision_table,
    "signals": signal_table,
    "fewer_benchmarks": subset_table,
}
