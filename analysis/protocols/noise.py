"""How much of the difference between mixtures is noise: from the sample of examples, and from the seed.

In: the single answers and the seeds of a `Panel`. Out: error variances, reliabilities, correlations corrected for them,
and draws of a whole study with other examples and seeds, from which come intervals "for these same mixtures".

Examples. Mixtures answer the same examples, so an easy sample moves all of them alike and moves no difference; what is
left is the residual of the mixtures x examples table, and p (1 - p) / n overstates the noise. PT and SFT answer the
same examples too, so their errors are correlated, and a correlation between stages is corrected for that as well.

Seeds. The spread of a mixture's seeds on the same examples holds the residual of seeds x examples, which the mixtures'
residual holds too; it is counted once. With one seed, seed noise is unknown, not zero: a reliability is then a ceiling.
Seed noise is pooled over mixtures, so that few seeds of few mixtures may speak for all: `Repeats` counts them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.panel.items import Items
from analysis.panel.panel import STAGES, Panel
from analysis.protocols.correlations import seed_covariance, seed_freedom
from analysis.stats.estimates import Z95, mean_measured
from analysis.stats.resampling import SEED

ITEM_DRAWS = 2000
FLOOR = 0.2
"""Reliability below which a benchmark supports no claim about mixtures."""
ENOUGH_FREEDOM = 8
"""Degrees of freedom of seed noise below which it is only provisional. With 8 the true variance lies between 0.5 and
3.7 times the one found (95 %), with 2 between 0.3 and 39 times."""


# ---------------------------------------------------------------------------------------------- variances


def residual_covariance(x: np.ndarray, y: np.ndarray) -> float:
    """Covariance over mixtures that the sample of examples gives their means; x, y: [mixtures, examples], complete.

    Sum of the products of the residuals from both margins / ((M - 1) (E - 1)) / E: a two-way analysis of variance
    without replication (Brennan 2001, Generalizability Theory, section 3.2), here of two tables at once.
    """
    m, e = x.shape
    if m < 2 or e < 2:
        return math.nan
    u, v = (table - table.mean(axis=1, keepdims=True) for table in (x.astype(float), y.astype(float)))
    u, v = u - u.mean(axis=0), v - v.mean(axis=0)
    return float((u * v).sum() / ((m - 1) * (e - 1)) / e)


@dataclass(frozen=True)
class Repeats:
    """The seeds from which seed noise is measured."""

    mixtures: int
    """Mixtures with two seeds or more."""
    of: int
    """All mixtures that were measured."""
    freedom: int
    """Degrees of freedom: seeds less one, over those mixtures."""

    @property
    def enough(self) -> bool:
        """Many seeds of few mixtures do not count: how far seeds move a mixture may depend on the mixture."""
        return self.freedom >= ENOUGH_FREEDOM and 2 * self.mixtures >= self.of

    @property
    def counts(self) -> str:
        freedom = f"{self.freedom} degree{'s' * (self.freedom != 1)} of freedom"
        return f"{self.mixtures} of {self.of} mixtures, {freedom}"

    def __str__(self) -> str:
        return f"seed noise from {self.counts}"


@dataclass(frozen=True)
class Errors:
    """Variances of the errors of one (scale, stage, metric), or covariances of PT's with SFT's; [benchmarks] each."""

    examples: np.ndarray
    """Variance from the sample of examples; NaN where single answers are not here."""
    crossed: np.ndarray
    """Part of `examples` that is the seed's, seeds x examples; 0 where it is not known."""
    seeds: np.ndarray
    """Variance that seeds add to `examples`; NaN where no mixture has two."""

    def with_seeds(self, count: int) -> np.ndarray:
        """The variances of a mean over so many seeds, given those of one; unknown seed noise adds nothing."""
        return np.asarray(self.examples - self.crossed + (self.crossed + np.nan_to_num(self.seeds)) / count)


@dataclass(frozen=True)
class Noise(Errors):
    """Errors of one (scale, stage, metric), beside the variance that is observed between mixtures."""

    observed: np.ndarray
    repeats: tuple[Repeats, ...]
    """The seeds behind `seeds`, for each benchmark."""

    @property
    def measured(self) -> np.ndarray:
        """Whether both kinds of noise are measured, bool [benchmarks]."""
        return np.isfinite(self.examples) & np.isfinite(self.seeds)

    @property
    def settled(self) -> np.ndarray:
        """Whether noise is `measured`, from enough seeds, bool [benchmarks]."""
        return self.measured & np.array([repeats.enough for repeats in self.repeats], dtype=bool)

    @property
    def reliability(self) -> np.ndarray:
        """1 - noise / observed variance; a ceiling where one kind of noise is not `measured`, NaN where neither is.

        0 means that mixtures differ no more than noise does; it may be negative.
        """
        known = np.isfinite(self.examples) | np.isfinite(self.seeds)
        total = np.nan_to_num(self.examples) + np.nan_to_num(self.seeds)
        return np.where(known, 1 - total / np.where(self.observed > 0, self.observed, np.nan), np.nan)


def noise(panel: Panel, scale: str, stage: str, metric: str) -> Noise:
    """Noise of the differences between mixtures, as variances."""
    observed = np.array([_variance(column) for column in panel.matrix(scale, stage, metric).T])
    found = _errors(panel, scale, (stage, stage), metric)
    # A variance is not negative, whatever its estimate; the seed's part of the examples' noise is at most all of it.
    crossed = np.clip(found.crossed, 0.0, np.nan_to_num(found.examples))
    repeats = _repeats(panel, scale, stage, metric)
    return Noise(found.examples, crossed, np.maximum(found.seeds, 0.0), observed, repeats)


def shared_errors(panel: Panel, scale: str, metric: str) -> Errors:
    """Covariances of the errors of PT and SFT: of the same runs and examples; of other examples they are 0."""
    return _errors(panel, scale, (STAGES[0], STAGES[1]), metric)


def _errors(panel: Panel, scale: str, stages: tuple[str, str], metric: str) -> Errors:
    """Covariances of the errors after two stages; with one stage twice they are variances."""
    examples, crossed = np.zeros((2, len(panel.benchmarks)))
    for b, slug in enumerate(panel.benchmarks):
        if stages[0] == stages[1] or _same_examples(panel, scale, slug):
            tables = [panel.answers(scale, stage, slug, metric) for stage in stages]
            known = np.isfinite(tables).all(axis=(0, 2))
            examples[b] = residual_covariance(tables[0][known], tables[1][known])
            crossed[b] = _seeds_by_examples(panel, scale, stages, slug, metric)
    there = [np.isfinite(panel.over_seeds(scale, stage, metric)) for stage in stages]
    share = _share_of_a_seed(panel, there[0] & there[1])
    return Errors(examples, share * crossed, share * (seed_covariance(panel, scale, stages, metric) - crossed))


def _repeats(panel: Panel, scale: str, stage: str, metric: str) -> tuple[Repeats, ...]:
    """The repeats of each benchmark."""
    freedom = seed_freedom(panel, scale, stage, metric)
    there = np.isfinite(panel.matrix(scale, stage, metric))
    return tuple(
        Repeats(int((mine > 0).sum()), int(measured.sum()), int(mine.sum()))
        for mine, measured in zip(freedom.T, there.T, strict=True)
    )


def _seeds_by_examples(panel: Panel, scale: str, stages: tuple[str, str], slug: str, metric: str) -> float:
    """Covariance that the residual of seeds x examples gives one seed, pooled over mixtures with several.

    0 where it is not known.
    """
    first, second = (panel.answers_over_seeds(scale, stage, slug, metric) for stage in stages)
    whole = np.isfinite(first).all(axis=2) & np.isfinite(second).all(axis=2)  # [seeds, mixtures]
    several = np.flatnonzero(whole.sum(axis=0) > 1)
    found = [residual_covariance(*(values[whole[:, m], m] for values in (first, second))) for m in several]
    return float(np.nan_to_num(np.average(found, weights=whole.sum(axis=0)[several] - 1))) if found else 0.0


def _share_of_a_seed(panel: Panel, there: np.ndarray) -> np.ndarray | float:
    """Share of one seed's noise in the shown values, [benchmarks]: a k-th in a mean over k seeds.

    there: which runs were measured, bool [seeds, mixtures, benchmarks].
    """
    if not panel.average_seeds:
        return 1.0
    count = there.sum(axis=0)
    return mean_measured(np.divide(1.0, count, out=np.full(count.shape, np.nan), where=count > 0))


def _variance(values: np.ndarray) -> float:
    """Variance of the measured values, NaN for fewer than two."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return math.nan
    # Exactly 0 for equal values, whose mean need not be any of them in floating point.
    return float(values.var(ddof=1)) if np.ptp(values) > 0 else 0.0


# ---------------------------------------------------------------------------------------------- corrected correlations


def format_reliability(reliability: float) -> str:
    """A reliability below 0 says that noise exceeds the differences of mixtures; how far below means nothing."""
    return f"{reliability:.2f}" if reliability >= 0 else "below 0"


@dataclass(frozen=True)
class Corrected:
    """A cross-stage correlation without its noise (Spearman 1904, with correlated errors)."""

    value: float | None
    """The corrected correlation, which may lie beyond 1."""
    refused: str = ""
    """The reason for no value."""
    provisional: bool = False
    """Seed noise is unknown, so that only the examples' noise is taken out, or it is measured on too few seeds."""


def corrected(panel: Panel, scale: str, metric: str) -> list[Corrected]:
    """(covariance - that of the errors) / sqrt of the product of the true variances, for each benchmark.

    Refused where a reliability is below `FLOOR`. The corrected value may leave [-1, 1] by chance and is then given as
    it is: without it what is left would be too low on average.
    """
    sides = [noise(panel, scale, stage, metric) for stage in STAGES]
    errors = shared_errors(panel, scale, metric).with_seeds(1)
    pt, sft = (panel.matrix(scale, stage, metric) for stage in STAGES)
    found = []
    for b, slug in enumerate(panel.benchmarks):
        both = np.isfinite(pt[:, b]) & np.isfinite(sft[:, b])
        if both.sum() < 3 or not _same_examples(panel, scale, slug):
            found.append(Corrected(None, "fewer than 3 mixtures, or not the same examples in both stages"))
            continue
        trust = [float(side.reliability[b]) for side in sides]
        if not min(trust) >= FLOOR:
            found.append(Corrected(None, f"reliability is below {FLOOR}"))
            continue
        provisional = not all(side.settled[b] for side in sides)
        covariance = np.cov(pt[both, b], sft[both, b])[0, 1]
        true = math.prod(t * side.observed[b] for t, side in zip(trust, sides, strict=True))
        found.append(Corrected(float((covariance - errors[b]) / math.sqrt(true)), provisional=provisional))
    return found


def _same_examples(panel: Panel, scale: str, slug: str) -> bool:
    """Whether both stages were asked the same examples."""
    asked = {panel.items.examples.get((scale, stage, slug)) if panel.items else None for stage in STAGES}
    return len(asked) == 1 and None not in asked


# ---------------------------------------------------------------------------------------------- other examples, seeds


@dataclass(frozen=True)
class SeedNoise:
    """Part of the noise of an early and a late score that is the seeds', and how well it is known."""

    covariance: np.ndarray
    """[2, 2]; 0 where no mixture has two seeds."""
    freedom: tuple[int, int]
    """Degrees of freedom of the early and of the late variance; 0: not measured."""
    same_runs: bool
    """Both scores are of the same runs, so that one estimate errs for both."""


@dataclass(frozen=True)
class RepeatedRuns:
    """Runs of the mixtures with several seeds, at one scale."""

    deviations: dict[tuple[str, str, str], np.ndarray]
    """(scale, stage, metric) -> deviations from a mixture's mean, as large as those of one seed, [runs, benchmarks]."""
    freedom: int
    """Seeds less one, over the mixtures."""
    share: float
    """Part of one seed's variance that is in the shown values, mean over the mixtures."""


@dataclass(frozen=True)
class Draws:
    """The study with other examples, and other seeds where they are known, `ITEM_DRAWS` times."""

    values: dict[tuple[str, str, str], np.ndarray]
    """(scale, stage, metric) -> float64 [draws, mixtures, benchmarks]; NaN where not measured."""
    what: str
    """The kinds of noise drawn: examples, or examples and seeds."""
    few: Repeats | None = None
    """The smallest set of seeds behind any draw, where it is too small."""
    repeated: dict[str, RepeatedRuns] = field(default_factory=dict)
    """Scale -> its runs with several seeds."""

    @property
    def meaning(self) -> str:
        """The meaning of an interval "for these same mixtures", as a note says it."""
        known = f"other {self.what} for these very mixtures"
        if "seeds" not in self.what:
            return f"{known}; no mixture has two seeds: their noise is not measured"
        return f"{known}; {self.few}" if self.few else known

    def seed_noise(
        self, early: tuple[str, str], late: tuple[str, str], columns: Sequence[int], metric: str = "accuracy"
    ) -> SeedNoise | None:
        """The seeds' part of the noise of means over some benchmarks, early and late (scale, stage).

        None where no mixture has two seeds at either scale.
        """
        runs = [self.repeated.get(scale) for scale, _ in (early, late)]
        if not any(runs):
            return None
        means = [
            some.deviations[*side, metric][:, list(columns)].mean(axis=1) * math.sqrt(some.share)
            if some
            else np.zeros(1)
            for some, side in zip(runs, (early, late), strict=True)
        ]
        same = early[0] == late[0]
        between = float(np.mean(means[0] * means[1])) if same else 0.0
        first, second = (float(np.mean(mean**2)) for mean in means)
        freedom = tuple(some.freedom if some else 0 for some in runs)
        return SeedNoise(np.array([[first, between], [between, second]]), (freedom[0], freedom[1]), same)

    def interval(self, value: float, drawn: np.ndarray) -> tuple[float, float] | None:
        """95 % interval of a correlation whose draws are given, [draws].

        Fisher's z -+ 1.96 standard deviations of the drawn z: draws carry their noise twice, so they lie around a
        smaller r than the one observed, and their own quantiles would miss it.
        """
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < ITEM_DRAWS / 2 or abs(value) >= 1:
            return None
        half = Z95 * float(np.arctanh(np.clip(drawn, -1 + 1e-12, 1 - 1e-12)).std())
        return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


@functools.lru_cache(maxsize=1)  # two tables are made of it
def draw(panel: Panel, metrics: tuple[str, ...] = ("accuracy", "confidence"), draws: int = ITEM_DRAWS) -> Draws | None:
    """Examples of a benchmark are drawn once for all checkpoints; a mixture's seed deviates alike in both stages.

    None without single answers.
    """
    if panel.items is None:
        return None
    random = np.random.default_rng([SEED, draws])
    sides = [(scale, stage, metric) for scale in panel.scales for stage in STAGES for metric in metrics]
    values = {side: np.full((draws, len(panel.mixtures), len(panel.benchmarks)), np.nan) for side in sides}
    for b in range(len(panel.benchmarks)):
        _draw_examples(panel, panel.items, b, values, random)
    seeds = _add_seeds(panel, values, random)
    repeated = (repeats for side in sides for repeats in _repeats(panel, *side) if repeats.freedom)
    few = min((some for some in repeated if not some.enough), key=lambda some: some.freedom, default=None)
    return Draws(values, "examples and seeds" if seeds else "examples", few, seeds)


def _draw_examples(
    panel: Panel, items: Items, b: int, values: dict[tuple[str, str, str], np.ndarray], random: np.random.Generator
) -> None:
    """Fill in benchmark b of values[scale, stage, metric]; sides that were asked the same share their draws."""
    slug = panel.benchmarks[b]
    tables = {(scale, stage, metric): panel.answers(scale, stage, slug, metric) for scale, stage, metric in values}
    asked = {side: items.examples.get((*side[:2], slug)) for side, table in tables.items() if table.shape[1]}
    for same in dict.fromkeys(filter(None, asked.values())):
        mine = [side for side in asked if asked[side] == same]
        columns = np.concatenate([tables[side] for side in mine]).T  # [examples, checkpoints]
        means = _resampled_means(columns, random, len(values[mine[0]]))
        for side, part in zip(mine, np.split(means, len(mine), axis=1), strict=True):
            values[side][:, :, b] = part


def _resampled_means(columns: np.ndarray, random: np.random.Generator, draws: int) -> np.ndarray:
    """Means over examples drawn with replacement, [draws, checkpoints]; columns: [examples, checkpoints]."""
    size = len(columns)
    out = np.empty((draws, columns.shape[1]))
    at_once = max(1, (1 << 22) // size)
    for start in range(0, draws, at_once):
        some = min(at_once, draws - start)
        places = random.integers(0, size, (some, size)) + size * np.arange(some)[:, None]
        counts = np.bincount(places.ravel(), minlength=some * size).reshape(some, size).astype(np.float32)
        out[start : start + some] = counts @ columns / size
    return out


def _add_seeds(
    panel: Panel, values: dict[tuple[str, str, str], np.ndarray], random: np.random.Generator
) -> dict[str, RepeatedRuns]:
    """Add the deviation of a random run from the mean of its mixture's seeds, at the scales that have several seeds."""
    found = {}
    for scale in panel.scales:
        runs = {side: panel.over_seeds(*side) for side in values if side[0] == scale}
        runs = {side: run for side, run in runs.items() if np.isfinite(run).any()}
        if not runs:
            continue
        there = np.all([np.isfinite(run).any(axis=2) for run in runs.values()], axis=0)  # [seeds, mixtures]
        several = there & (there.sum(axis=0) > 1)
        if not several.any():
            continue
        draws, mixtures, _ = next(iter(values.values())).shape
        # One run for all stages and metrics: a seed's luck after PT is with it after SFT.
        picks = random.integers(0, int(several.sum()), (draws, mixtures))
        share = 1 / np.sqrt(np.maximum(there.sum(axis=0), 1)) if panel.average_seeds else np.ones(mixtures)
        deviations = {}
        for side, run in runs.items():
            own = _seed_deviations(run, there, several) * np.sqrt(_own_share_of_seeds(panel, *side))
            deviations[side] = np.nan_to_num(own)
            values[side] += deviations[side][picks] * share[:, None]
        freedom = int(several.sum()) - int(several.any(axis=0).sum())
        found[scale] = RepeatedRuns(deviations, freedom, float(np.mean(share**2)))
    return found


def _seed_deviations(run: np.ndarray, there: np.ndarray, several: np.ndarray) -> np.ndarray:
    """Deviations of the runs in `several` from their mixtures' means over seeds, [runs, benchmarks].

    run: [seeds, mixtures, benchmarks]; there, several: bool [seeds, mixtures].
    """
    deviations = []
    for seed, mixture in np.argwhere(several):
        mine = run[there[:, mixture], mixture]
        k = len(mine)
        # Deviations from a mean of k are smaller than those from the truth by sqrt(1 - 1 / k).
        deviations.append((run[seed, mixture] - mine.mean(axis=0)) * math.sqrt(k / (k - 1)))
    return np.array(deviations)


def _own_share_of_seeds(panel: Panel, scale: str, stage: str, metric: str) -> np.ndarray:
    """Share of the variance over seeds that is not seeds x examples, which the draws of examples hold; [benchmarks]."""
    spread = seed_covariance(panel, scale, (stage, stage), metric)
    crossed = [_seeds_by_examples(panel, scale, (stage, stage), slug, metric) for slug in panel.benchmarks]
    return np.clip(1 - np.array(crossed) / np.where(spread > 0, spread, np.nan), 0.0, 1.0)
