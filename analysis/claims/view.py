"""A study under one specification, as the correlations, alignments and differences that claims are judged by.

In: accuracy and confidence [mixtures, benchmarks] at a small and a large scale, after PT and SFT. Out: `View`, the
`Evidence` of that study. Everything is computed once and for all categories and scales together, without intervals or
p-values, so that hundreds of specifications take seconds. On complete matrices the numbers equal those of
`analysis.protocols.correlations`; where cells are missing, a correlation over mixtures is over those that have both
values.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analysis.claims.evidence import SCALES, Evidence, mean_known
from analysis.panel.panel import STAGES, Design
from analysis.paper.numbers import CATEGORIES, category_of
from analysis.protocols.correlations import PROTOCOLS
from analysis.stats.association import DUST

METRICS = ("accuracy", "confidence")
QUANTITIES = ("accuracy", "alignment")
"""What web sources and code percents are compared by."""
POINTS = 3
"""Fewest points of a correlation, and fewest mixtures that anything is said about."""


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

    @cached_property
    def pairs(self) -> np.ndarray:
        """r over mixtures of every two benchmarks, [METRICS, SCALES, STAGES, STAGES, benchmarks, benchmarks]."""
        rows = self.values.swapaxes(-1, -2)
        return pearson_along(rows[:, :, :, None, :, None], rows[:, :, None, :, None])

    @cached_property
    def coherences(self) -> np.ndarray:
        """[METRICS, SCALES, PROTOCOLS, CATEGORIES]; of benchmarks that vary, at both stages of the protocol."""
        found = np.full((len(METRICS), len(SCALES), len(PROTOCOLS), len(CATEGORIES)), np.nan)
        for p, (first, second) in enumerate(((0, 0), (1, 1), (0, 1))):
            for c, category in enumerate(CATEGORIES):
                columns = self.members(category)
                block = self.pairs[:, :, first, second][..., columns, :][..., columns]
                usable = np.isfinite(np.diagonal(block, axis1=-2, axis2=-1))
                block = np.where(usable[..., None] & usable[..., None, :], block, np.nan)
                found[:, :, p, c] = mean_known(block[..., ~np.eye(len(columns), dtype=bool)])
        return found

    @cached_property
    def alignments(self) -> np.ndarray:
        """[SCALES, STAGES, CATEGORIES, mixtures]; NaN for a mixture that lacks a benchmark which another has."""
        found = []
        for category in CATEGORIES:
            accuracy = self.values[0] if self.answered is None else self.answered
            accuracy, confidence = (side[..., self.members(category)] for side in (accuracy, self.values[1]))
            r = pearson_along(accuracy, confidence)
            found.append(np.where(_whole(np.isfinite(accuracy) & np.isfinite(confidence)), r, np.nan))
        return np.stack(found, axis=2)

    @cached_property
    def accuracies(self) -> np.ndarray:
        """Mean accuracy of each category after PT, [SCALES, CATEGORIES, mixtures]; NaN as in `alignments`."""
        found = []
        for category in CATEGORIES:
            accuracy = self.values[0, :, 0][..., self.members(category)]
            found.append(np.where(_whole(np.isfinite(accuracy)), mean_known(accuracy, least=2), np.nan))
        return np.stack(found, axis=1)

    @cached_property
    def effects(self) -> tuple[np.ndarray, np.ndarray]:
        """Of web source and of code percent after PT, [QUANTITIES, SCALES, CATEGORIES] each."""
        web = np.array(["" if design is None else design.web for design in self.designs], dtype=str)
        code = np.array([np.nan if design is None else design.code_percent for design in self.designs])
        most, least = np.fmax.reduce(code, initial=np.nan), np.fmin.reduce(code, initial=np.nan)
        compared = np.stack([self.accuracies, self.alignments[:, 0]])
        return (
            contrast(compared, web == "FineWeb-Edu", web == "RefinedWeb", code.tolist()),
            contrast(compared, (code == most) & (most > least), code == least, web.tolist()),
        )

    # ------------------------------------------------------------------------------------------ as Evidence names it

    def transfers(self, metric: str) -> np.ndarray:
        return np.diagonal(self.pairs[METRICS.index(metric), :, 0, 1], axis1=-2, axis2=-1)

    def structure(self) -> np.ndarray:
        first, second = np.triu_indices(len(self.benchmarks), 1)
        pt, sft = (self.pairs[1, :, stage, stage][:, first, second] for stage in (0, 1))
        return pearson_along(pt, sft)

    def partners(self, slug: str) -> np.ndarray:
        if slug not in self.benchmarks:
            return np.full(len(SCALES), np.nan)
        b = self.benchmarks.index(slug)
        others = [i for i in self.members(category_of()[slug]) if i != b]
        return mean_known(self.pairs[0, :, 0, 0, b][:, others])

    def coherence(self, metric: str, protocol: str, category: str) -> np.ndarray:
        return self.coherences[METRICS.index(metric), :, PROTOCOLS.index(protocol), CATEGORIES.index(category)]

    def alignment(self, stage: str, category: str) -> np.ndarray:
        return mean_known(self._alignment_by_mixture(stage, category), least=POINTS)

    def lowest_alignment(self, stage: str, category: str) -> np.ndarray:
        each = self._alignment_by_mixture(stage, category)
        lowest = np.fmin.reduce(each, axis=-1, initial=np.nan)
        return np.where(np.isfinite(each).sum(axis=-1) >= POINTS, lowest, np.nan)

    def persistence(self, category: str) -> np.ndarray:
        return pearson_along(*(self._alignment_by_mixture(stage, category) for stage in STAGES))

    def web_effect(self, quantity: str, category: str) -> np.ndarray:
        return self.effects[0][QUANTITIES.index(quantity), :, CATEGORIES.index(category)]

    def code_effect(self, quantity: str, category: str) -> np.ndarray:
        return self.effects[1][QUANTITIES.index(quantity), :, CATEGORIES.index(category)]

    def _alignment_by_mixture(self, stage: str, category: str) -> np.ndarray:
        return self.alignments[:, STAGES.index(stage), CATEGORIES.index(category)]


# ---------------------------------------------------------------------------------------------- arithmetic with NaN


def pearson_along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r over the last axis, [...], of the points that both have; x, y: [..., points], broadcast.

    NaN for fewer than `POINTS` points, or where either has no spread beyond rounding.
    """
    both = np.isfinite(x) & np.isfinite(y)
    n = both.sum(axis=-1)
    parts = []
    for values in (x, y):
        there = np.where(both, values, 0.0)
        mean = there.sum(axis=-1) / np.maximum(n, 1)
        centred = np.where(both, there - mean[..., None], 0.0)
        squares = (centred**2).sum(axis=-1)
        varies = squares > n * (DUST * np.abs(there).max(axis=-1, initial=0.0)) ** 2
        parts.append((centred, squares, varies))
    (u, uu, x_varies), (v, vv, y_varies) = parts
    defined = (n >= POINTS) & x_varies & y_varies
    size = np.sqrt(np.where(defined, uu, 1.0)) * np.sqrt(np.where(defined, vv, 1.0))
    return np.where(defined, np.clip((u * v).sum(axis=-1) / size, -1.0, 1.0), np.nan)


def contrast(values: np.ndarray, treated: np.ndarray, control: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Mean over groups of treated less control, [...]; values: [..., mixtures]; masks and groups: [mixtures].

    Groups that lack a side are left out, so that the rest stays balanced. NaN for fewer than `POINTS` mixtures.
    """
    differences = [np.full(values.shape[:-1], np.nan)]
    for group in dict.fromkeys(groups):
        inside = np.array([other == group for other in groups])
        sides = values[..., inside & treated], values[..., inside & control]
        if all(side.shape[-1] for side in sides):
            differences.append(sides[0].mean(axis=-1) - sides[1].mean(axis=-1))
    enough = np.isfinite(values).sum(axis=-1) >= POINTS
    return np.where(enough, mean_known(np.stack(differences, axis=-1)), np.nan)


def _whole(measured: np.ndarray) -> np.ndarray:
    """Mixtures that have every benchmark which any mixture has, [...]; measured: bool [..., mixtures, benchmarks]."""
    return (measured == measured.any(axis=-2, keepdims=True)).all(axis=-1)
