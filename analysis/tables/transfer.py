"""Table 5: does what is seen after pretraining survive fine-tuning? With everything that is known about each number.

In: `Panel`; without single answers the noise of the examples is not measured. Out: `Table`. Two intervals are given.
One is over mixtures: the true correlations that these mixtures are compatible with. The other is for these same
mixtures: the r that other examples and seeds would give on average.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.paper.numbers import TITLES
from analysis.protocols import correlations as co
from analysis.protocols.noise import (
    ENOUGH_FREEDOM,
    FLOOR,
    Corrected,
    Draws,
    Repeats,
    corrected,
    draw,
    format_reliability,
    noise,
)
from analysis.protocols.replication import r_between_seeds
from analysis.protocols.usable import usable
from analysis.rendering.formats import format_interval, format_p_within, format_signed
from analysis.rendering.table import Column, Note, NoteKind, Row, Table, with_q_values
from analysis.stats.association import Association, pearson

PROVISIONAL = (
    "provisional: noise of seeds, or of examples, is not measured, or that of seeds on fewer than half of the mixtures "
    f"or with fewer than {ENOUGH_FREEDOM} degrees of freedom; the reliability may be lower than shown"
)
SAME_RUN = (
    "r, its interval and p compare PT and SFT of the same run on the same examples: what a seed or a sample of "
    "examples does to both is in them, and lifts r"
)
RELIABILITY = "reliability"
MEAN = "Mean"
"""The key in place of a category, of the row that is the mean over benchmarks."""
MEAN_MEANING = (
    'Mean: over the benchmarks that have r and are not marked "no claim", named by their number; the paper\'s number '
    "beside it is the mean of its rows for the same benchmarks"
)


class Reliability(NamedTuple):
    """The lesser of the two stages' reliabilities; NaN where none is measured."""

    value: float
    whole: bool
    """False: noise of seeds, or of examples, is not measured, so that the value is a ceiling."""

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        return format_reliability(self.value) if self.whole else f"≤ {format_reliability(self.value)}"


def format_corrected(without: Corrected) -> str:
    """A value beyond 1 is written too: leaving it out would keep the low ones alone, which noise makes as often."""
    if without.value is None:
        return without.refused
    if abs(without.value) > 1:
        return f"{'≥ 1' if without.value > 0 else '≤ −1'} ({format_signed(without.value)})"
    return format_signed(without.value)


EXTRA = (
    Column(RELIABILITY),
    Column("corrected for noise", format_corrected),
    Column("interval, same mixtures", format_interval),
    Column("r, PT and SFT of different seeds", format_signed),
    Column("Spearman", format_signed),
    Column("Kendall", format_signed),
    Column("BCa interval", format_interval),
    Column("p within web sources", format_p_within),
    Column("largest change without one mixture", lambda change: "{:.2f} ({})".format(*change)),
)


def transfer_table(panel: Panel) -> Table:
    """Equations 1 and 2."""
    drawn = draw(panel)
    repeated: dict[Repeats, None] = {}

    def rows() -> Iterator[Row]:
        for metric in filter(panel.has, ("accuracy", "confidence")):
            for scale in panel.scales:
                sides = [noise(panel, scale, stage, metric) for stage in STAGES]
                trust = np.minimum(*(s.reliability for s in sides))
                known, settled = np.all([s.measured for s in sides], axis=0), np.all([s.settled for s in sides], axis=0)
                repeated.update({some: None for s in sides for some in s.repeats if some.freedom})
                same = _same_mixtures(panel, drawn, scale, metric)
                others = r_between_seeds(*(panel.over_seeds(scale, stage, metric) for stage in STAGES))
                associations, fit = co.cross_stage(panel, scale, metric), usable(panel, scale, metric)
                for b, association in enumerate(associations):
                    slug = panel.benchmarks[b]
                    yield Row(
                        (scale, metric, panel.category_of[slug], panel.displays[slug]),
                        association.estimate,
                        panel.paper_number(scale, "5", metric, "{}", slug),
                        (
                            Reliability(float(trust[b]), bool(known[b])),
                            *same[b],
                            None if math.isnan(others[b]) else float(others[b]),
                            *(association.spearman, association.kendall, association.bca),
                            *(association, _influence(panel, association)),
                        ),
                        f"reliability {format_reliability(trust[b])}" if trust[b] < FLOOR else fit.reasons[b],
                        provisional=not settled[b],
                    )
                has_r = [association.estimate.value is not None for association in associations]
                counted = [b for b, defined in enumerate(has_r) if defined and not fit.reasons[b]]
                yield Row(
                    (scale, metric, MEAN, f"{len(counted)} of {len(panel.benchmarks)} benchmarks"),
                    co.mean_correlation(*(panel.matrix(scale, stage, metric)[:, counted] for stage in STAGES)),
                    paper_mean(panel, metric, scale, counted),
                )

    made = list(rows())
    caveats = [Note(SAME_RUN), Note(MEAN_MEANING), *(Note(some.counts, NoteKind.SEED_NOISE) for some in repeated)]
    if any(row.provisional for row in made):
        caveats.append(Note(PROVISIONAL))
    if drawn:
        caveats.append(Note(drawn.meaning, NoteKind.SAME_MIXTURES))
    title, keys = f"Table 5. {TITLES[5]}", "scale metric category benchmark"
    return with_q_values("table5", title, keys, made, EXTRA, caveats=tuple(caveats))


def paper_mean(panel: Panel, metric: str, scale: str, columns: Sequence[int]) -> float | None:
    """Mean over the rows of the paper's Table 5 of these benchmarks; None where it has none of them."""
    found = [panel.paper_number(scale, "5", metric, "{}", panel.benchmarks[b]) for b in columns]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _same_mixtures(
    panel: Panel, drawn: Draws | None, scale: str, metric: str
) -> list[tuple[Corrected | None, tuple[float, float] | None]]:
    """For each benchmark r corrected for noise, and its interval for these same mixtures."""
    if drawn is None:
        return [(None, None)] * len(panel.benchmarks)
    pt, sft = (drawn.values[scale, stage, metric] for stage in STAGES)  # [draws, mixtures, benchmarks]
    observed = [panel.matrix(scale, stage, metric) for stage in STAGES]
    found: list[tuple[Corrected | None, tuple[float, float] | None]] = []
    for b, without in enumerate(corrected(panel, scale, metric)):
        keep = np.isfinite(observed[0][:, b]) & np.isfinite(observed[1][:, b])
        # Two points always correlate perfectly, whatever the draws are.
        ends = None
        if keep.sum() > 2:
            value = _each_r(observed[0][None, keep, b], observed[1][None, keep, b])[0]
            ends = drawn.interval(value, _each_r(pt[:, keep, b], sft[:, keep, b]))
        found.append((without, ends))
    return found


def _influence(panel: Panel, association: Association) -> tuple[float, str] | None:
    """The largest change of r without one mixture, and the name of that mixture."""
    return association.influence and (association.influence[0], panel.mixtures[association.influence[1]])


def _each_r(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson of each pair of rows [draws, mixtures]; [draws]."""
    return pearson(x, y, np.ones((1, x.shape[1])))[0]
