"""A study under one specification, as the correlations, alignments and differences that claims are judged by.

In: accuracy and confidence [mixtures, benchmarks] at a small and a large scale, after PT and SFT. Out: `View`, the
`Evidence` of that study. The equations are those of `analysis.protocols`, without intervals and p-values, so that
hundreds of specifications take seconds. A correlation over mixtures is over those that have both values, whereas
`analysis.protocols.correlations.coherence` leaves out a mixture that lacks any benchmark of the category.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analysis.claims.evidence import SCALES, Evidence
from analysis.panel.panel import STAGES, Design
from analysis.paper.numbers import CATEGORIES, category_of
from analysis.protocols.correlations import PROTOCOLS, mean_over_pairs, row_correlations
from analysis.protocols.data_effects import group_differences
from analysis.protocols.matrices import METRICS, SIDES
from analysis.stats.association import every_pair
from analysis.stats.estimates import mean_measured, mean_over_benchmarks

QUANTITIES = ("accuracy", "alignment")
"""The metrics in which web sources and code percents are compared."""
POINTS = 3
"""Fewest mixtures that an alignment or an effect is computed from."""


@dataclass(frozen=True, eq=False)
class View(Evidence):
    values: np.ndarray
    """float64 [METRICS, SCALES, STAGES, mixtures, benchmarks]; NaN: not measured."""
    mixtures: tuple[str, ...]
    benchmarks: tuple[str, ...]
    """Slugs; their categories are those of Table 4."""
    designs: tuple[Design | None, ...]
    """Web source and code percent of each mixture; None: unknown."""
    answered: np.ndarray | None = None
    """Accuracy of the answers that confidence is of, [SCALES, STAGES, mixtures, benchmarks]; None: that of `values`."""
    computed: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict)
    """Results that views with the same scores share: `without` hands it on, as `views` does to all specifications."""

    def without(self, name: str) -> View:
        """The view without one benchmark or mixture."""
        at = self.benchmarks.index(name) if name in self.benchmarks else self.mixtures.index(name)
        axis = -1 if name in self.benchmarks else -2
        answered = None if self.answered is None else np.delete(self.answered, at, axis)
        view = replace(self, values=np.delete(self.values, at, axis), answered=answered)
        if axis == -1:
            return replace(view, benchmarks=self.benchmarks[:at] + self.benchmarks[at + 1 :])
        mixtures, designs = self.mixtures[:at] + self.mixtures[at + 1 :], self.designs[:at] + self.designs[at + 1 :]
        return replace(view, mixtures=mixtures, designs=designs)

    # ------------------------------------------------------------------------------------------ computed once

    def _once(self, compute: Callable[..., np.ndarray], *scores: np.ndarray) -> np.ndarray:
        """compute(*scores), or the result of another view for equal scores of the same benchmarks.

        A specification varies either the normalisation of accuracy or the reading of confidence; what is computed from
        the other one alone is the same. Slicing a larger view's results instead would not give the same last bits: BLAS
        sums in an order that depends on the size of the matrix.
        """
        key = (compute.__name__, self.benchmarks, *((part.shape, part.tobytes()) for part in scores))
        if key not in self.computed:
            self.computed[key] = compute(*scores)
        return self.computed[key]

    @cached_property
    def pairs(self) -> np.ndarray:
        """r over mixtures of every two benchmarks, [METRICS, SCALES, PROTOCOLS, benchmarks, benchmarks]."""
        return np.array([self._once(_pairs_of_benchmarks, metric) for metric in self.values])

    @cached_property
    def alignments(self) -> np.ndarray:
        """Equation 8 for each mixture, [SCALES, STAGES, CATEGORIES, mixtures]."""
        accuracy = self.values[0] if self.answered is None else self.answered
        return self._once(self._compute_alignments, accuracy, self.values[1])

    def _compute_alignments(self, accuracy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        columns = [self.members(category) for category in CATEGORIES]
        return np.array(
            [
                [[row_correlations(a[:, some], c[:, some]) for some in columns] for a, c in zip(*scale, strict=True)]
                for scale in zip(accuracy, confidence, strict=True)
            ]
        )

    def category_accuracies(self, stage: str) -> np.ndarray:
        """Mean accuracy of each category, [SCALES, CATEGORIES, mixtures]; NaN as in `alignments`."""
        columns, scores = [self.members(category) for category in CATEGORIES], self.values[0, :, STAGES.index(stage)]
        return np.array([[mean_over_benchmarks(scale[:, some], least=2) for some in columns] for scale in scores])

    @property
    def _sources(self) -> tuple[np.ndarray, np.ndarray]:
        """Web source and code percent of each mixture, [mixtures] each."""
        web = np.array(["" if design is None else design.web for design in self.designs], dtype=str)
        code = np.array([np.nan if design is None else design.code_percent for design in self.designs], dtype=float)
        return web, code

    @cached_property
    def source_gaps(self) -> np.ndarray:
        """Accuracy after SFT in percentage points, DCLM less FineWeb-Edu, [SCALES, CATEGORIES]."""
        web, code = self._sources
        return contrast(100 * self.category_accuracies("SFT"), web == "DCLM", web == "FineWeb-Edu", code)

    @cached_property
    def effects(self) -> tuple[np.ndarray, np.ndarray]:
        """Effects of web source and of code percent after PT, [QUANTITIES, SCALES, CATEGORIES] each."""
        web, code = self._sources
        most, least = np.fmax.reduce(code, initial=np.nan), np.fmin.reduce(code, initial=np.nan)
        compared = np.stack([self.category_accuracies("PT"), self.alignments[:, 0]])
        return (
            contrast(compared, web == "FineWeb-Edu", web == "RefinedWeb", code),
            contrast(compared, (code == most) & (most > least), code == least, web),
        )

    # ------------------------------------------------------------------------------------------ as Evidence names it

    def transfers(self, metric: str) -> np.ndarray:
        return np.diagonal(self._pairs(metric, "cross"), axis1=-2, axis2=-1)

    def structure(self) -> np.ndarray:
        first, second = np.triu_indices(len(self.benchmarks), 1)
        sides = (self._pairs("confidence", stage)[:, first, second] for stage in STAGES)
        return _each_correlation(*sides)

    def partners(self, slug: str) -> np.ndarray:
        if slug not in self.benchmarks:
            return np.full(len(SCALES), np.nan)
        b = self.benchmarks.index(slug)
        others = [i for i in self.members(category_of()[slug]) if i != b]
        return mean_measured(self._pairs("accuracy", "PT")[:, b, others], axis=-1)

    def coherence(self, metric: str, protocol: str, category: str) -> np.ndarray:
        members = self.members(category)
        r = self._pairs(metric, protocol)[:, members][:, :, members]
        varies = np.isfinite(np.diagonal(r, axis1=-2, axis2=-1))  # at both stages of the protocol
        r = np.where(varies[:, :, None] & varies[:, None], r, np.nan)
        return mean_over_pairs(r, 1 - np.eye(len(members)))

    def alignment(self, stage: str, category: str) -> np.ndarray:
        return mean_measured(self._alignment_by_mixture(stage, category), axis=-1, least=POINTS)

    def lowest_alignment(self, stage: str, category: str) -> np.ndarray:
        each = self._alignment_by_mixture(stage, category)
        lowest = np.fmin.reduce(each, axis=-1, initial=np.nan)
        return np.where(np.isfinite(each).sum(axis=-1) >= POINTS, lowest, np.nan)

    def persistence(self, category: str) -> np.ndarray:
        return _each_correlation(*(self._alignment_by_mixture(stage, category) for stage in STAGES))

    def web_effect(self, quantity: str, category: str) -> np.ndarray:
        return self.effects[0][QUANTITIES.index(quantity), :, CATEGORIES.index(category)]

    def code_effect(self, quantity: str, category: str) -> np.ndarray:
        return self.effects[1][QUANTITIES.index(quantity), :, CATEGORIES.index(category)]

    def source_gap(self, category: str) -> np.ndarray:
        return self.source_gaps[:, CATEGORIES.index(category)]

    def _pairs(self, metric: str, protocol: str) -> np.ndarray:
        return self.pairs[METRICS.index(metric), :, PROTOCOLS.index(protocol)]

    def _alignment_by_mixture(self, stage: str, category: str) -> np.ndarray:
        return self.alignments[:, STAGES.index(stage), CATEGORIES.index(category)]


def _pairs_of_benchmarks(values: np.ndarray) -> np.ndarray:
    """r over mixtures of every two benchmarks in one metric, [SCALES, PROTOCOLS, benchmarks, benchmarks]."""
    sides = [[STAGES.index(stage) for stage in SIDES[protocol]] for protocol in PROTOCOLS]
    return np.array([[every_pair(scale[i].T, scale[j].T)[0] for i, j in sides] for scale in values])


def _each_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of x with the same row of y, [rows]; NaN where it is not defined."""
    return every_pair(x, y)[0].diagonal()


def contrast(values: np.ndarray, treated: np.ndarray, control: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean over groups of treated less control, [...]; values: [..., mixtures]; masks and groups: [mixtures].

    NaN for fewer than `POINTS` mixtures.
    """
    differences = group_differences(values, treated, control, groups)
    enough = np.isfinite(values).sum(axis=-1) >= POINTS
    return np.where(enough, mean_measured(differences, axis=-1), np.nan)
