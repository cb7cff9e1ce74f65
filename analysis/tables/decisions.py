"""Decisions as tables: what ranking mixtures early is worth, and how few benchmarks are enough.

In: `Panel`. Out: `Table`s in the form of the paper's, without numbers of the paper, which measured no decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from analysis.panel.panel import Panel
from analysis.protocols.decision_noise import SameMixtures, same_mixtures
from analysis.protocols.decisions import TOP, Decision, Protocol, decide, decide_on_average, protocols, subsets
from analysis.protocols.noise import draw
from analysis.rendering.table import Row, Table, with_q_values
from analysis.stats.estimates import Estimate, absent, mean_over_benchmarks

REGRETS = tuple(f"regret, pp, best of {k}" if k > 1 else "regret, pp" for k in TOP)
SAME_MIXTURES = "interval, same mixtures"
"""Of decision accuracy."""
REGRET_INTERVALS = tuple(f"{name}, {SAME_MIXTURES}" for name in REGRETS)
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
"""What may be looked at early: metric, normalisation, and whether more or less of it is better."""
HELD_OUT = "loss on held-out documents"


def decision_table(panel: Panel) -> Table:
    """Decision accuracy and regret, by accuracy over all benchmarks, over a category and on each benchmark."""
    drawn = draw(panel)

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            early, late = (panel.matrix(*side) for side in (protocol.early, protocol.late))
            there = np.isfinite(early).any(axis=0) & np.isfinite(late).any(axis=0)
            for what, columns in _groups(panel, there):
                seen = [mean_over_benchmarks(side[:, columns]) for side in (early, late)]
                decision = decide(*seen)
                same = None
                if drawn:
                    sides = (drawn.values[*side, "accuracy"] for side in (protocol.early, protocol.late))
                    same = same_mixtures(*seen, *(_mean_of_draws(side[:, :, columns]) for side in sides))
                regrets, (first, *others) = _regrets(decision), _intervals(same)
                names = (_names(panel, mixtures) for mixtures in (decision.chosen, decision.best))
                agreed = f"[{same.accuracy[0]:.2f}, {same.accuracy[1]:.2f}]" if same else ""
                extra = (agreed, regrets[0], first, *regrets[1:], *names, *others)
                yield Row((*_keys(protocol), what), decision.accuracy, extra=extra, brief=len(columns) > 1)

    title = "Decisions: does the early score rank two mixtures as the late one does, and what does its choice cost?"
    first, *others = REGRET_INTERVALS
    brief = (SAME_MIXTURES, REGRETS[0], first, *REGRETS[1:], "first early", "best late")
    extra, caveats = (*brief, *others), (drawn.caveat,) if drawn else ()
    keys = "early late score"
    return with_q_values("decisions", title, keys, rows(), extra, signed=False, brief_extra=len(brief), caveats=caveats)


def signal_table(panel: Panel) -> Table:
    """Which early metric ranks mixtures most as accuracy does later: decision accuracy, mean over benchmarks."""

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            late = panel.matrix(*protocol.late)
            for signal, (metric, normalisation, sign) in SIGNALS.items():
                early = sign * panel.matrix(*protocol.early, metric, normalisation)
                yield Row((*_keys(protocol), signal), decide_on_average(early, late))
            scale, stage = protocol.early
            if stage == "PT" and scale in panel.held_out:
                loss = np.repeat(panel.held_out_loss(scale)[:, None], late.shape[1], axis=1)
                yield Row((*_keys(protocol), HELD_OUT), decide_on_average(-loss, late))

    title = "Early signals: how well each ranks mixtures by their later accuracy"
    sources = {source: None for known in panel.held_out.values() for source in known.sources}
    caveat = f"{HELD_OUT}: mean over {', '.join(sources)}, which every mixture contains" if sources else ""
    caveats = (caveat or f"{HELD_OUT} is not known: the run folders are not here, or no source is in every mixture",)
    return with_q_values("signals", title, "early late signal", rows(), signed=False, caveats=caveats)


def subset_table(panel: Panel) -> Table:
    """Decision accuracy of the mean over few benchmarks, on mixtures that had no part in choosing them."""

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            early, late = (panel.matrix(*side) for side in (protocol.early, protocol.late))
            columns = np.flatnonzero(np.isfinite(early).any(axis=0) & np.isfinite(late).any(axis=0))
            early, late = early[:, columns], late[:, columns]
            whole = np.isfinite(early).all(axis=1) & np.isfinite(late).all(axis=1)
            n, points = int(whole.sum()), "mixtures, each left out of the choice"
            if n < 4 or not len(columns):
                missing = absent("fewer than 4 mixtures", n=n, points=points, missing=int((~whole).sum()))
                yield Row((*_keys(protocol), ""), missing)
                continue
            for subset in subsets(early[whole], late[whole]):
                names = (panel.displays[panel.benchmarks[columns[b]]] for b in subset.benchmarks)
                stable = zip(names, subset.chosen_in, strict=True)
                estimate = Estimate(subset.accuracy, n=n, points=points, missing=int((~whole).sum()))
                chosen = ", ".join(f"{name} ({count})" for name, count in stable)
                yield Row((*_keys(protocol), str(subset.size)), estimate, extra=(chosen,), brief=subset.size <= FEW)

    title = "Fewer benchmarks: decisions by the mean of some, against the late mean of all"
    extra = ("greedy choice (in how many of the leave-one-mixture-out choices)",)
    return with_q_values("fewer_benchmarks", title, "early late benchmarks", rows(), extra, signed=False)


def _keys(protocol: Protocol) -> tuple[str, str]:
    return " ".join(protocol.early), " ".join(protocol.late)


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
    """As `mean_over_benchmarks`, of each draw; values: [draws, mixtures, benchmarks]."""
    draws, mixtures, benchmarks = values.shape
    return mean_over_benchmarks(values.reshape(-1, benchmarks)).reshape(draws, mixtures)


def _regrets(decision: Decision) -> list[str]:
    """For each of `TOP`."""
    return [*map(_points, decision.regret), *[""] * (len(TOP) - len(decision.regret))]


def _intervals(same: SameMixtures | None) -> list[str]:
    """Of the regrets, for each of `TOP`."""
    known = [f"[{_points(low)}, {_points(high)}]" for low, high in (same.regret if same else ())]
    return [*known, *[""] * (len(TOP) - len(known))]


def _points(regret: float) -> str:
    return f"{round(100 * regret, 1) + 0.0:.1f}"  # no -0.0


def _names(panel: Panel, mixtures: tuple[int, ...]) -> str:
    return ", ".join(panel.mixtures[m] for m in mixtures)


MAKERS: dict[str, Callable[[Panel], Table]] = {
    "decisions": decision_table,
    "signals": signal_table,
    "fewer_benchmarks": subset_table,
}
