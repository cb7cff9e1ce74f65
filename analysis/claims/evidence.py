"""The numbers that the paper's claims are judged by, and the same numbers as the paper prints them.

In: `paper_numbers`, or a study under one specification (`analysis.claims.view`). Out: `Evidence`, which
`analysis.claims.findings` holds against thresholds: bare numbers, NaN where not known. Both sources answer the same
questions, so that one predicate judges a study and the paper's own tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from analysis.paper.numbers import SCALES as PAPER_SCALES
from analysis.paper.numbers import WEB_SOURCES, category_of, numbers
from analysis.protocols.correlations import PROTOCOLS
from analysis.stats.estimates import mean_measured
from analysis.stats.resampling import TOLERANCE
from configs.load import BENCHMARKS

SCALES = ("small", "large")


class Evidence(ABC):
    """[scales]: the small one, then the large one; NaN: not known."""

    benchmarks: tuple[str, ...]

    @abstractmethod
    def transfers(self, metric: str) -> np.ndarray:
        """Equations 1 and 2: r over mixtures of PT with SFT, [scales, benchmarks]."""

    @abstractmethod
    def structure(self) -> np.ndarray:
        """Finding 3: r of the two within-stage confidence matrices over pairs of benchmarks i < j, [scales]."""

    @abstractmethod
    def partners(self, slug: str) -> np.ndarray:
        """Finding 6: mean accuracy r of a benchmark with the others of its category after PT, [scales]."""

    @abstractmethod
    def coherence(self, metric: str, protocol: str, category: str) -> np.ndarray:
        """Equations 3 to 6: mean r over all ordered pairs of a category's benchmarks, [scales]."""

    @abstractmethod
    def alignment(self, stage: str, category: str) -> np.ndarray:
        """Equation 8 (Table 6): mean over mixtures of the r over benchmarks, [scales]."""

    @abstractmethod
    def lowest_alignment(self, stage: str, category: str) -> np.ndarray:
        """Equation 8 of the mixture that has the least, [scales]."""

    @abstractmethod
    def persistence(self, category: str) -> np.ndarray:
        """Table 10: r over mixtures of the alignment after PT with that after SFT, [scales]."""

    @abstractmethod
    def web_effect(self, quantity: str, category: str) -> np.ndarray:
        """Table 7: accuracy or alignment after PT, FineWeb-Edu less RefinedWeb at equal code percent, [scales]."""

    @abstractmethod
    def code_effect(self, quantity: str, category: str) -> np.ndarray:
        """C.3.5: accuracy or alignment after PT, highest code percent less lowest within a web source, [scales]."""

    @abstractmethod
    def source_gap(self, category: str) -> np.ndarray:
        """Table 11: accuracy after SFT in percentage points, DCLM less FineWeb-Edu at equal code percent, [scales]."""

    def members(self, category: str) -> list[int]:
        """Columns of the category's benchmarks."""
        return [i for i, slug in enumerate(self.benchmarks) if category_of()[slug] == category]

    def transfer(self, metric: str, slug: str) -> np.ndarray:
        """Equation 1 or 2 of one benchmark, [scales]."""
        if slug not in self.benchmarks:
            return np.full(len(SCALES), np.nan)
        return self.transfers(metric)[:, self.benchmarks.index(slug)]

    def mean_transfer(self, metric: str, category: str | None = None) -> np.ndarray:
        """Mean over the benchmarks (of a category) that have a correlation, at least two, [scales]."""
        every = self.transfers(metric)
        return mean_measured(every if category is None else every[:, self.members(category)], axis=-1, least=2)

    def mean_coherence(self, metric: str, category: str) -> np.ndarray:
        """Mean of the three protocols of Figure 5, [scales]."""
        return np.mean([self.coherence(metric, protocol, category) for protocol in PROTOCOLS], axis=0)


class PublishedEvidence(Evidence):
    """Tables 5 to 11, and the coherences of Finding 8. What is only drawn, or only said in the text, is not known."""

    benchmarks = BENCHMARKS

    def transfers(self, metric: str) -> np.ndarray:
        return np.stack([_printed("5", metric, "{}", slug) for slug in self.benchmarks], axis=1)

    def structure(self) -> np.ndarray:
        return np.full(len(SCALES), np.nan)

    def partners(self, slug: str) -> np.ndarray:
        return np.full(len(SCALES), np.nan)

    def coherence(self, metric: str, protocol: str, category: str) -> np.ndarray:
        return _printed("coherence", metric, protocol, "{}", category)

    def alignment(self, stage: str, category: str) -> np.ndarray:
        return _printed("6", "{}", stage, category)

    def lowest_alignment(self, stage: str, category: str) -> np.ndarray:
        """The least mean of a web source (Table 8); the lowest mixture is no higher: a no is certain, a yes is not."""
        return np.min([_printed("8", "{}", stage, web, category) for web in WEB_SOURCES], axis=0)

    def persistence(self, category: str) -> np.ndarray:
        return _printed("10", "{}", category)

    def web_effect(self, quantity: str, category: str) -> np.ndarray:
        return _printed("7", quantity, "{}", category)

    def code_effect(self, quantity: str, category: str) -> np.ndarray:
        """Highest less lowest code percent of Table 9; no table has accuracy by code percent."""
        if quantity == "accuracy":
            return np.full(len(SCALES), np.nan)
        return _printed("9", "{}", "PT", "45", category) - _printed("9", "{}", "PT", "25", category)

    def source_gap(self, category: str) -> np.ndarray:
        """The paper prints the large scale alone."""
        dclm, educational = (numbers()["11", web, category] for web in ("DCLM", "FineWeb-Edu"))
        return np.array([np.nan, dclm - educational])


def _printed(*key: str) -> np.ndarray:
    """The paper's number at both scales, [scales]; "{}" in the key is the scale."""
    every = numbers()
    return np.array([every.get(tuple(part.format(scale) for part in key), np.nan) for scale in PAPER_SCALES])


# ---------------------------------------------------------------------------------------------- yes, no, not known


def above(value: ArrayLike, threshold: ArrayLike) -> np.ndarray:
    """1 where value > threshold by more than rounding, 0 where not, NaN where either is."""
    excess = np.subtract(value, threshold)
    return np.where(np.isnan(excess), np.nan, excess > TOLERANCE)


def below(value: ArrayLike, threshold: ArrayLike) -> np.ndarray:
    """1 where value < threshold by more than rounding, 0 where not, NaN where either is."""
    return above(threshold, value)


def holds(*parts: np.ndarray) -> bool | None:
    """Whether all parts are 1; None where any is NaN, even if another is 0."""
    every = np.concatenate([np.ravel(part) for part in parts])
    return None if np.isnan(every).any() else bool(every.all())
