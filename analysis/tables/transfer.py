"""Table 5: does what is seen after pretraining survive fine-tuning? With everything that is known about each number.

In: `Panel`; without single answers the noise of the examples is not measured. Out: `Table`. Two intervals are given:
Fisher's over mixtures (the true correlations that these mixtures are compatible with), and one for these same mixtures
(what other examples and seeds would give).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.paper.numbers import TITLES
from analysis.protocols import correlations as co
from analysis.protocols.noise import ENOUGH_FREEDOM, FLOOR, Corrected, Draws, corrected, draw, format_reliability, noise
from analysis.rendering.table import Row, Table, interval, signed, with_q_values, within_blocks
from analysis.stats.association import Association, pearson

OTHER_VIEWS = ("Spearman", "Kendall", "BCa interval", "p within web sources", "largest change without one mixture")
PROVISIONAL = (
    "provisional: noise of seeds, or of examples, is not measured, or that of seeds on fewer than half of the mixtures "
    f"or with fewer than {ENOUGH_FREEDOM} degrees of freedom; the reliability may be lower than shown"
)
SAME_RUN = (
    "r, its interval and p compare PT and SFT of the same run on the same examples: what a seed or a sample of "
    "examples does to both is in them, and lifts r"
)
SAME_MIXTURES = ("corrected for noise", "interval, same mixtures")
OTHER_SEEDS = "r, PT and SFT of different seeds"


def transfer_table(panel: Panel) -> Table:
    """Equations 1 and 2."""
    drawn = draw(panel)
    repeated: dict[str, None] = {}

    def rows() -> Iterator[Row]:
        for metric in filter(panel.has, ("accuracy", "confidence")):
            for scale in panel.scales:
                sides = [noise(panel, scale, stage, metric) for stage in STAGES]
                trust = np.minimum(*(s.reliability for s in sides))
                known, settled = np.all([s.measured for s in sides], axis=0), np.all([s.settled for s in sides], axis=0)
                repeated.update({str(some): None for s in sides for some in s.repeats if some.freedom})
                same, others = _same_mixtures(panel, drawn, scale, metric), co.across_seeds(panel, scale, metric)
                for b, association in enumerate(co.cross_stage(panel, scale, metric)):
                    slug = panel.benchmarks[b]
                    yield Row(
                        (scale, metric, panel.category_of[slug], panel.displays[slug]),
                        association.estimate,
                        panel.paper_number(scale, "5", metric, "{}", slug),
                        (
                            _reliability(trust[b], known[b]),
                            *same[b],
                            "" if math.isnan(others[b]) else signed(others[b]),
                            *_other_views(association),
                        ),
                        f"reliability {format_reliability(trust[b])}" if trust[b] < FLOOR else "",
                        provisional=not settled[b],
                    )
                yield Row(
                    (scale, metric, "Mean", f"{len(panel.benchmarks)} benchmarks"),
                    co.mean_cross_stage(panel, scale, metric),
                    panel.paper_number(scale, "5", metric, "{}", "mean"),
                    ("",) * len(extra),
                )

    extra = ("reliability", *SAME_MIXTURES, OTHER_SEEDS, *OTHER_VIEWS)
    made = list(rows())
    caveats = [SAME_RUN, *repeated]
    if any(row.provisional for row in made):
        caveats.append(PROVISIONAL)
    if drawn:
        caveats.append(drawn.caveat)
    title, keys = f"Table 5. {TITLES[5]}", "scale metric category benchmark"
    return with_q_values("table5", title, keys, made, extra, caveats=tuple(caveats))


def _reliability(value: float, measured: bool) -> str:
    """The lesser of the two stages'; a ceiling where seeds, or examples, are not measured."""
    if math.isnan(value):
        return "not measured"
    return format_reliability(value) if measured else f"≤ {format_reliability(value)}"


def _same_mixtures(panel: Panel, drawn: Draws | None, scale: str, metric: str) -> list[tuple[str, str]]:
    """As `SAME_MIXTURES` names them, of each benchmark."""
    if drawn is None:
        return [("", "")] * len(panel.benchmarks)
    pt, sft = (drawn.values[scale, stage, metric] for stage in STAGES)  # [draws, mixtures, benchmarks]
    observed = [panel.matrix(scale, stage, metric) for stage in STAGES]
    found = []
    for b, without in enumerate(corrected(panel, scale, metric)):
        keep = np.isfinite(observed[0][:, b]) & np.isfinite(observed[1][:, b])
        ends = None
        if keep.sum() > 2:
            value = _each_r(observed[0][None, keep, b], observed[1][None, keep, b])[0]
            ends = drawn.interval(value, _each_r(pt[:, keep, b], sft[:, keep, b]))
        found.append((_without_noise(without), "" if ends is None else interval(*ends)))
    return found


def _without_noise(without: Corrected) -> str:
    """An estimate beyond 1 is what noise makes of one that is high: it is said, for the low ones are not left out."""
    if without.value is None:
        return without.refused
    if abs(without.value) > 1:
        return f"{'≥ 1' if without.value > 0 else '≤ −1'} ({signed(without.value)})"
    return signed(without.value)


def _each_r(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson of each pair of rows [draws, mixtures]; [draws]."""
    return pearson(x, y, np.ones((1, x.shape[1])))[0]


def _other_views(association: Association) -> tuple[str, ...]:
    """As `OTHER_VIEWS` names them; empty where there is none."""
    e = association
    return (
        *("" if value is None else signed(value) for value in (e.spearman, e.kendall)),
        "" if e.bca is None else interval(*e.bca),
        within_blocks(e),
        "" if e.influence is None else f"{e.influence:.2f}",
    )
