"""How many mixtures and seeds would be enough? From the noise that a study measured.

In: `Panel` of a study that was scored. Out: a table with, for each benchmark and number of seeds, how far a
correlation between the stages is blurred, how many mixtures it takes to tell it from none, and which difference between
two mixtures can be seen, and how many seeds it takes to see one of a given size, so that a choice between them is no
toss of a coin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.noise import Errors, Noise, noise, shared_errors
from analysis.rendering.table import Column, Row, Table, with_q_values
from analysis.stats.estimates import Estimate, absent

SIGNIFICANT = 0.975
"""Quantile of the two-sided 5 % test."""


@dataclass(frozen=True)
class Goal:
    """The effects that a study should be able to find."""

    r: float
    """True correlation of PT with SFT over mixtures."""
    power: float
    """Chance of finding what is there."""
    difference_pp: float = 2.0
    """True difference of two mixtures, in percentage points."""


def planner_table(panel: Panel, goal: Goal, seeds: Sequence[int], metric: str = "accuracy") -> Table:
    """The value of a row is the correlation that would be seen on average if the true one were `goal.r`.

    The noise of both stages lowers it, and the run and the examples that both stages share raise it. That second part
    is no sign of a true r, so the mixtures needed are those that tell the rest from 0.
    """
    extra = (
        Column("reliability PT", "{:.2f}".format),
        Column("reliability SFT", "{:.2f}".format),
        Column("mixtures needed", "{:,}".format, missing="over 50,000"),
        Column("pairs ranked alike, %", "{:.0f}".format),
        Column("visible after PT, pp", "{:.1f}".format),
        # No number of seeds is enough where the examples alone hide the difference.
        Column(
            f"seeds for {goal.difference_pp:g} pp",
            lambda n: f"{n:,}" if math.isfinite(n) else "more examples",
            "not measured",
        ),
    )
    title = f"What it takes to see a correlation of {goal.r:g} between PT and SFT ({metric}, power {goal.power:g})"
    rows = _rows(panel, goal, seeds, metric)
    return with_q_values("planner", title, "scale benchmark seeds", rows, extra, brief_extra=len(extra))


def _rows(panel: Panel, goal: Goal, seeds: Sequence[int], metric: str) -> Iterator[Row]:
    for scale in panel.scales:
        sides = [noise(panel, scale, stage, metric) for stage in STAGES]
        shared = shared_errors(panel, scale, metric)
        for b, slug in enumerate(panel.benchmarks):
            known = all(np.isfinite(side.examples[b]) and side.observed[b] > 0 for side in sides)
            # More seeds of unknown noise change nothing that is known: one row is enough.
            repeated = not known or all(side.measured[b] for side in sides)
            for count in seeds if repeated else seeds[:1]:
                keys = scale, panel.displays[slug], str(count)
                if known:
                    yield _row(keys, len(panel.mixtures), sides, shared, b, count, goal)
                else:
                    yield Row(keys, absent("the noise of the examples is not measured"))


def _row(
    keys: tuple[str, ...], mixtures: int, sides: list[Noise], shared: Errors, b: int, count: int, goal: Goal
) -> Row:
    """The row of benchmark b with `count` seeds; sides: noise after PT and after SFT."""
    noises = [float(side.with_seeds(count)[b]) for side in sides]
    true = [max(float(side.observed[b] - side.with_seeds(1)[b]), 0.0) for side in sides]
    observed = [t + n for t, n in zip(true, noises, strict=True)]
    reliabilities = [t / o for t, o in zip(true, observed, strict=True)]
    signal = goal.r * math.sqrt(math.prod(reliabilities))
    from_shared_errors = float(shared.with_seeds(count)[b]) / math.sqrt(math.prod(observed))
    seen = min(max(signal + from_shared_errors, -1.0), 1.0)
    seeds_measured = all(side.measured[b] for side in sides)
    pt = sides[0]
    lasting, per_seed = float(pt.examples[b] - pt.crossed[b]), float(pt.crossed[b] + pt.seeds[b])
    enough = seeds_needed(lasting, per_seed, goal.difference_pp / 100, goal.power) if seeds_measured else None
    extra = (
        *reliabilities,
        mixtures_needed(signal, goal.power) if signal > 0.01 else None,
        100 * decision_accuracy(seen),
        100 * visible_difference(noises[0], goal.power),
        (enough or math.inf) if seeds_measured else None,
    )
    no_claim = "" if seeds_measured else "noise of seeds not measured: at best"
    return Row(keys, Estimate(seen, n=mixtures, points="mixtures"), extra=extra, no_claim=no_claim)


# ---------------------------------------------------------------------------------------------- formulas


def mixtures_needed(r: float, power: float) -> int:
    """Fewest points that tell a correlation r > 0 from none at 5 %, two-sided, with the given power.

    Fisher's z: n = 3 + ((z_0.975 + z_power) / atanh r)^2, rounded up (Cohen 1988, section 3.4).
    """
    # The small number keeps a whole n whole, should rounding have put it just above.
    return math.ceil(3 + (_detectable(power) / math.atanh(r)) ** 2 - 1e-9)


def visible_difference(noise: float, power: float) -> float:
    """Smallest true difference of two mixtures that a 5 % test of their scores finds with the given power.

    noise: variance of the error of one score; two are compared.
    """
    return _detectable(power) * math.sqrt(2 * noise)


def seeds_needed(examples: float, seeds: float, difference: float, power: float) -> int | None:
    """Fewest seeds of each of two mixtures with which `visible_difference` is at most `difference`.

    examples: variance of the error of one score that stays however many seeds there are. seeds: variance that one seed
    adds, also on single examples. None where the examples alone hide the difference.
    """
    allowed = (difference / visible_difference(1.0, power)) ** 2 - examples
    return max(1, math.ceil(seeds / allowed - 1e-9)) if allowed > 0 else None


def decision_accuracy(r: float) -> float:
    """Share of pairs that two scores with correlation r rank alike, if normal: 1/2 + arcsin(r) / pi (Kendall 1948)."""
    return 0.5 + math.asin(r) / math.pi


def _detectable(power: float) -> float:
    """Standard errors that a true effect must be away from 0 for the 5 % test to find it with this power."""
    return float(ndtri(SIGNIFICANT)) + float(ndtri(power))
