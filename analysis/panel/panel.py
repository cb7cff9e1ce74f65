"""One study's metrics as matrices [mixtures, benchmarks], with what the study planned and which cells it lacks.

`analysis.panel.load` reads it. A cell that was not measured is NaN; nothing is filled in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.panel.held_out import HeldOut
from analysis.panel.items import Items
from analysis.paper import numbers as paper_numbers
from analysis.paper.numbers import SCALES as PAPER_SCALES
from analysis.stats.estimates import mean_measured
from configs.artifacts import fingerprint
from configs.layout import StudyFolder
from configs.schema import StudyConfig

STAGES = ("PT", "SFT")
OWN_HUES = 4
"""Colours for categories that the paper does not have."""
Cube = dict[tuple[str, str, str, str], np.ndarray]
"""(scale, stage, metric, normalisation) -> [seeds, mixtures, benchmarks]"""


@dataclass(frozen=True)
class Scope:
    """The checkpoints that a number is computed from. An empty field stands for all of them."""

    scales: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    tokens: int | None = None
    """Tokens of a checkpoint before the last; None: the last one."""

    @classmethod
    def of_keys(cls, names: Sequence[str], keys: Sequence[Any]) -> Scope:
        """Read from the key columns `scale` and `stage`, where a table has them."""
        known = dict(zip(names, keys, strict=True))
        scales, stages = ((str(known[name]),) if name in known else () for name in ("scale", "stage"))
        return cls(scales, stages)


@dataclass(frozen=True)
class Design:
    """The properties of a mixture by which Tables 7 to 9 and 11 group."""

    web: str
    """Display name of the web source; several are joined by " + "."""
    code_percent: float | None
    """Share of the training tokens from code sources, in per cent; None: unknown."""


@dataclass(frozen=True)
class Milestone:
    """A checkpoint on the way, the last one too, of every mixture's first seed."""

    scale: str
    tokens: int
    accuracy: np.ndarray
    """float64 [mixtures, benchmarks] after pretraining so far; NaN where not measured."""
    cells: tuple[str, ...] = ()
    """Fingerprints of the score files behind each cell, sorted."""


@dataclass(frozen=True, eq=False)
class Panel:
    study: StudyFolder
    config: StudyConfig | None
    synthetic: bool
    scales: tuple[str, ...]
    """Names of the scales, the smallest first."""
    mixtures: tuple[str, ...]
    benchmarks: tuple[str, ...]
    """Slugs in the order of Table 4."""
    recipe: str
    """The SFT recipe shown."""
    other_recipes: tuple[str, ...]
    other_variants: tuple[str, ...]
    """Prompt variants that were scored but are not shown."""
    seeds: tuple[int, ...]
    average_seeds: bool
    design: dict[str, Design]
    """Mixtures whose configuration is known."""
    values: Cube
    """Last checkpoint of each run, one recipe, one prompt variant; NaN where not measured."""
    stderrs: Cube
    """Standard errors over examples of `values`."""
    examples: int
    """Scored examples behind the shown cells."""
    cells: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """(scale, stage) -> fingerprints of the score files behind each of the shown cells, sorted."""
    milestones: tuple[Milestone, ...] = ()
    """Milestones of each scale, in the order of training."""
    trained: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(scale, stage) -> steps and tokens of the shown checkpoints, as the scores have them."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Slug -> examples of a shown cell; the most, should the stages have been asked different ones."""
    flops_per_token: dict[str, float] = field(default_factory=dict)
    """FLOPs per token of training (forward and backward, causal attention), at the scales whose model is known."""
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    """Loss on held-out documents, at the scales whose run folders are here."""
    beside_paper: bool = True
    """False for numbers that were given, which stand for no scale of the paper."""
    items: Items | None = None
    """Single answers of the shown cells; None where only metrics are known."""
    category_of: dict[str, str] = field(default_factory=paper_numbers.category_of)
    """Slug -> category; by default the paper's, as `displays`."""
    displays: dict[str, str] = field(default_factory=paper_numbers.displays)
    """Slug -> name."""

    def over_seeds(self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum") -> np.ndarray:
        """float64 [seeds, mixtures, benchmarks]; NaN where not measured."""
        empty = np.full((len(self.seeds), len(self.mixtures), len(self.benchmarks)), np.nan)
        return self.values.get((scale, stage, metric, normalisation), empty)

    def matrix(self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum") -> np.ndarray:
        """float64 [mixtures, benchmarks]: the first seed, or with `average_seeds` the mean over those measured."""
        values = self.over_seeds(scale, stage, metric, normalisation)
        return mean_measured(values) if self.average_seeds else values[0]

    def mean_over_seeds(
        self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum"
    ) -> np.ndarray:
        """float64 [mixtures, benchmarks]: mean over the seeds that were measured."""
        return mean_measured(self.over_seeds(scale, stage, metric, normalisation))

    def held_out_loss(self, scale: str) -> np.ndarray:
        """Held-out loss after pretraining of the seeds that `matrix` shows, float64 [mixtures]; NaN where unknown."""
        if scale not in self.held_out:
            return np.full(len(self.mixtures), np.nan)
        loss = self.held_out[scale].loss
        return np.asarray(mean_measured(loss[:, :, None])[:, 0] if self.average_seeds else loss[0])

    def stderr(self, scale: str, stage: str, metric: str = "accuracy") -> np.ndarray:
        """Standard error over examples of one checkpoint, [mixtures, benchmarks]; the mean over seeds."""
        return mean_measured(self.stderrs.get((scale, stage, metric, "sum"), self.over_seeds(scale, stage, metric)))

    @property
    def fingerprints(self) -> dict[tuple[str, str], str]:
        """(scale, stage) -> fingerprint of the score files behind the shown cells."""
        return {key: fingerprint(list(cells)) for key, cells in self.cells.items()}

    def cells_behind(self, scope: Scope) -> list[tuple[str, ...]]:
        """`cells` of the checkpoints in a scope: the last ones, and those on the way whose tokens it names."""
        scales = [scale for scale in self.scales if scale in scope.scales] or self.scales
        stages = [stage for stage in STAGES if stage in scope.stages] or STAGES
        found = [self.cells.get(place, ()) for place in itertools.product(scales, stages)]
        found += [at.cells for at in self.milestones if at.scale in scales and at.tokens == scope.tokens]
        return list(filter(None, dict.fromkeys(found)))

    def scores_behind(self, scope: Scope) -> str:
        """Fingerprint of the score files of `cells_behind`."""
        found = {fingerprint(list(cells)) for cells in self.cells_behind(scope)}
        return fingerprint(sorted(found)) if found else ""

    def has(self, metric: str) -> bool:
        """Whether the metric was measured on any checkpoint."""
        return any(key[2] == metric and np.isfinite(values).any() for key, values in self.values.items())

    def answers(self, scale: str, stage: str, slug: str, metric: str = "accuracy") -> np.ndarray:
        """float32 [mixtures, examples] whose means `matrix` shows; no columns without `items`."""
        over_seeds = self.answers_over_seeds(scale, stage, slug, metric)
        return mean_measured(over_seeds) if self.average_seeds else over_seeds[0]

    def answers_over_seeds(self, scale: str, stage: str, slug: str, metric: str = "accuracy") -> np.ndarray:
        """float32 [seeds, mixtures, examples], NaN for checkpoints that were not scored."""
        known = self.items.values if self.items else {}
        empty = np.full((len(self.seeds), len(self.mixtures), 0), np.nan, np.float32)
        return known.get((scale, stage, slug, metric), empty)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.category_of.values()))

    def hue(self, category: str) -> str:
        """Class of its marks in configs/drawing/style.css; the categories that the paper does not have take turns."""
        own = [name for name in self.categories if name not in paper_numbers.CATEGORIES]
        return f"own{own.index(category) % OWN_HUES}" if category in own else category.lower()

    def members(self, category: str) -> list[int]:
        """Columns of the category's benchmarks."""
        return [i for i, slug in enumerate(self.benchmarks) if self.category_of[slug] == category]

    def web_blocks(self) -> tuple[int, ...] | None:
        """Number of each mixture's web source; None where one is unknown or all are the same."""
        webs = [self.design[mixture].web for mixture in self.mixtures if mixture in self.design]
        names = sorted(set(webs))
        return tuple(map(names.index, webs)) if len(webs) == len(self.mixtures) and len(names) > 1 else None

    def paper_scale(self, scale: str) -> str | None:
        """The paper's scale that this one stands for: the smallest for 240M, the largest for 1B, if there are two."""
        if not self.beside_paper:
            return None
        by_name = {name.lower(): name for name in PAPER_SCALES}
        if scale.lower() in by_name:
            return by_name[scale.lower()]
        if any(other.lower() in by_name for other in self.scales):
            return None
        if scale == self.scales[0]:
            return PAPER_SCALES[0]
        return PAPER_SCALES[1] if scale == self.scales[-1] else None

    def paper_number(self, scale: str, *key: str) -> float | None:
        """One of `paper_numbers.numbers`; "{}" in the key is the paper's scale that `scale` stands for."""
        paper = self.paper_scale(scale)
        return None if paper is None else paper_numbers.numbers().get(tuple(part.format(paper) for part in key))

    def planned(self) -> list[tuple[str, str, str, int]]:
        """(scale, stage, mixture, seed) of every final checkpoint that the shown recipe needs.

        Without study.yaml: the seeds that each mixture has scores of, at every scale and stage.
        """
        if self.config:
            runs = [(m, seed) for m in self.mixtures for seed in self.config.seeds_of(m)]
        else:
            scored = np.any([np.isfinite(cube).any(axis=2) for cube in self.values.values()], axis=0)
            runs = [(self.mixtures[m], self.seeds[s]) for m, s in np.argwhere(scored.T)]
        return [(scale, stage, m, s) for scale in self.scales for stage in STAGES for m, s in runs]

    def coverage(self) -> tuple[int, int]:
        """(measured, planned) evaluations, each a benchmark on the last checkpoint of a training."""
        planned = self.planned()
        done = 0
        for scale, stage, mixture, seed in planned:
            values = self.over_seeds(scale, stage)[self.seeds.index(seed), self.mixtures.index(mixture)]
            done += int(np.isfinite(values).sum())
        return done, len(planned) * len(self.benchmarks)
