"""Table 5: does what is seen after pretraining survive fine-tuning? With everything that is known about each number.

In: `Panel`; without single answers the noise of the examples is not measured. Out: `Table`. Two intervals are given:
Fisher's over mixtures (what other mixtures would give), and one for these same mixtures (what other examples and seeds
would give).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from analysis import correlations as co
from analysis.association import Association, pearson
from analysis.noise import FLOOR, Draws, corrected, draw, in_words, noise
from analysis.panel import STAGES, Panel
from analysis.paper_numbers import TITLES
from analysis.table import Row, Table, interval, signed, with_q_values, within_blocks

OTHER_VIEWS = ("Spearman", "Kendall", "BCa interval", "p within web sources", "largest change without one mixture")
PROVISIONAL = "provisional: noise of seeds, or of examples, is not measured; the reliability may be lower than shown"
SAME_MIXTURES = ("corrected for noise", "interval, same mixtures")


def transfer_table(panel: Panel) -> Table:
    """Equations 1 and 2."""
    drawn = draw(panel)

    def rows() -> Iterator[Row]:
        for metric in filter(panel.has, ("accuracy", "confidence")):
            for scale in panel.scales:
                sides = [noise(panel, scale, stage, metric) for stage in STAGES]
                trust, known = np.minimum(*(s.reliability for s in sides)), np.all([s.measured for s in sides], axis=0)
                same = _same_mixtures(panel, drawn, scale, metric)
                for b, association in enumerate(co.cross_stage(panel, scale, metric)):
                    slug = panel.benchmarks[b]
                    yield Row(
                        (scale, metric, panel.category_of[slug], panel.displays[slug]),
                        association.estimate,
                        panel.paper_number(scale, "5", metric, "{}", slug),
                        (_reliability(trust[b], known[b]), *same[b], *_other_views(association)),
                        f"reliability {in_words(trust[b])}" if trust[b] < FLOOR else "",
                        provisional=not known[b],
                    )
                yield Row(
                    (scale, metric, "Mean", f"{len(panel.benchmarks)} benchmarks"),
                    co.mean_cross_stage(panel, scale, metric),
                    panel.paper_number(scale, "5", metric, "{}", "mean"),
                    ("",) * (1 + len(SAME_MIXTURES) + len(OTHER_VIEWS)),
                )

    made = list(rows())
    caveats = [PROVISIONAL] if any(row.provisional for row in made) else []
    if drawn:
        caveats.append(drawn.caveat)
    extra = ("reliability", *SAME_MIXTURES, *OTHER_VIEWS)
    title, keys = f"Table 5. {TITLES[5]}", "scale metric category benchmark"
    return with_q_values("table5", title, keys, made, extra, caveats=tuple(caveats))


def _reliability(value: float, measured: bool) -> str:
    """The lesser of the two stages'; a ceiling where seeds, or examples, are not measured."""
    if math.isnan(value):
        return "not measured"
    return in_words(value) if measured else f"≤ {in_words(value)}"


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
        number = without.refused if without.value is None else signed(without.value)
        found.append((number, "" if ends is None else interval(*ends)))
    return found


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
