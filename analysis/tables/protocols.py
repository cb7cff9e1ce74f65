"""The paper's other numbers as tables: Findings 2, 3 and 7, Figures 14 and 15, and Tables 7 and 11 at every scale.

In: `Panel`. Out: `Table`s in the form of the paper's. A caveat stands under a table where the number alone would
mislead: what the nine mixtures cannot tell apart, and what a p-value does not say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from analysis.panel.panel import STAGES, Panel, Scope
from analysis.paper.numbers import numbers
from analysis.protocols import correlations as co
from analysis.protocols.category_means import category_means
from analysis.protocols.data_effects import (
    code_over_mixtures,
    code_over_shares,
    share_confounds,
    source_confounds,
    web_differences,
    web_means,
)
from analysis.protocols.matrices import METRICS, similarity, unrelated_similarity
from analysis.protocols.noise import FLOOR
from analysis.protocols.scale import scale_differences
from analysis.rendering.formats import format_estimate, format_p_within, format_signed
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import mean_over_benchmarks
from analysis.tables.paper import category_accuracy
from analysis.tables.transfer import paper_mean

SMALL, LARGE = "r at the smaller", "r at the larger"
"""Columns of the table of scale differences."""

# ---------------------------------------------------------------------------------------------- Findings 2, 3, 7


def matrix_similarity_table(panel: Panel) -> Table:
    """Finding 3."""

    def rows() -> Iterator[Row]:
        for metric, scale in itertools.product(METRICS, panel.scales):
            chance = unrelated_similarity(panel, scale, metric)
            paper = panel.paper_number(scale, "similarity", metric, "{}")
            yield Row((scale, metric), similarity(panel, scale, metric), paper, (chance, chance.p))

    return with_q_values(
        "matrix_similarity",
        "Is the PT-PT matrix of correlations between benchmarks like the SFT-SFT one? (Finding 3)",
        "scale metric",
        rows(),
        (Column("unrelated benchmarks [95 %]", format_estimate), Column("p against it", "{:.2g}".format)),
        brief_extra=2,
        caveats=_notes(
            "all pairs come from the same mixtures: a p that takes them for independent (the paper's p < 1e-32) says "
            "nothing",
            "interval: how far the number depends on which mixtures there are, not what ever more mixtures would show: "
            "nine add noise of their own to both matrices",
            "unrelated benchmarks: the similarity to expect if no two had to do with each other (mixtures of each "
            "shuffled on their own, alike in both stages), from each one's cross-stage correlation alone; Mantel's p "
            "does not allow for it, its own p does",
        ),
    )


def category_means_table(panel: Panel) -> Table:
    """Finding 2 and Figure 1: the paper's number is the mean of its Table 5 over the same benchmarks."""

    def rows() -> Iterator[Row]:
        for metric, scale in itertools.product(METRICS, panel.scales):
            for category, found in category_means(panel, scale, metric).items():
                for reading, mean in (("mean of r", found.every), ("usable benchmarks", found.usable)):
                    paper = paper_mean(panel, metric, scale, mean.averaged)
                    extra = (found.left_out,) if reading == "usable benchmarks" else ()
                    yield Row((scale, metric, category, reading), mean.estimate, paper, extra)

    return with_q_values(
        "category_means",
        "Cross-stage correlation by category: the mean of r, over all benchmarks and over the usable ones",
        "scale metric category reading",
        rows(),
        (Column("not usable"),),
        repeats_paper=True,
        caveats=_notes(
            f"usable benchmarks: their mixtures differ by more than noise (reliability of at least {FLOOR:g} in both "
            "stages), and accuracy is clearly above chance in both; where noise is not measured a benchmark stays",
            "paper: mean of its Table 5 over the same benchmarks; a category and the others share the same mixtures",
        ),
    )


def scale_table(panel: Panel) -> Table:
    """Finding 7: the paper's difference is that of its Table 5."""
    singles = [(panel.category_of[slug], panel.displays[slug], [b]) for b, slug in enumerate(panel.benchmarks)]
    means = [(category, "", panel.members(category)) for category in panel.categories if panel.members(category)]
    asked = [*singles, *means, ("all", "", list(range(len(panel.benchmarks))))]

    def rows() -> Iterator[Row]:
        for metric in METRICS:
            for small, large in itertools.combinations(panel.scales, 2):
                found = scale_differences(panel, small, large, metric, [columns for _, _, columns in asked])
                for (category, display, _), difference in zip(asked, found, strict=True):
                    before, after = (paper_mean(panel, metric, scale, difference.averaged) for scale in (small, large))
                    paper = None if before is None or after is None else after - before
                    # A mean is named after the benchmarks that have a change; the paper's is over the same ones.
                    name = display or f"mean of {len(difference.averaged)} benchmarks"
                    keys, scope = (f"{small} to {large}", metric, category, name), Scope((small, large))
                    extra = (difference.small, difference.large)
                    yield Row(keys, difference.estimate, paper, extra, scope=scope, brief=not display)

    return with_q_values(
        "scale_differences",
        "Change of the cross-stage correlation from one scale to the other (Finding 7)",
        "scales metric category benchmark",
        rows(),
        (Column(SMALL, format_signed), Column(LARGE, format_signed)),
        brief_extra=2,
        repeats_paper=True,
        caveats=_notes("paper: difference of its Table 5, rounded to ±0.01"),
    )


# ---------------------------------------------------------------------------------------------- code share


def code_table(panel: Panel) -> Table:
    """Figures 14 (categories) and 15 (benchmarks) over mixtures."""

    def rows() -> Iterator[Row]:
        keys, papers, scores = _accuracies(panel)
        for key, paper, found in zip(keys, papers, code_over_mixtures(panel, scores), strict=True):
            yield Row(key, found.estimate, paper, (found,), brief=not key[3])

    return with_q_values(
        "code_share",
        "Correlation of code per cent and accuracy over mixtures (Figures 14 and 15)",
        "scale stage category benchmark",
        rows(),
        (Column("p within web sources", format_p_within),),
        caveats=_notes(*share_confounds(panel), *source_confounds(panel)),
    )


def code_means_table(panel: Panel) -> Table:
    """Figures 14 and 15 over the means by code share; the paper does not say which of the two it shows."""

    def rows() -> Iterator[Row]:
        keys, papers, scores = _accuracies(panel)
        for key, paper, found in zip(keys, papers, code_over_shares(panel, scores), strict=True):
            yield Row(key, found.estimate, paper, brief=not key[3])

    three = len({design.code_percent for design in panel.design.values()}) == 3
    few = "three points: no interval, no p below 1/3, and half of all random triples have |r| > 0.71"
    return with_q_values(
        "code_share_means",
        "Correlation of code per cent and accuracy over the means by code share",
        "scale stage category benchmark",
        rows(),
        repeats_paper=True,
        caveats=_notes(*((few,) if three else ()), *share_confounds(panel)),
    )


def _accuracies(panel: Panel) -> tuple[list[tuple[str, str, str, str]], list[float | None], np.ndarray]:
    """Keys, the paper's numbers on code share, and accuracy [rows, M] of category means and benchmarks, everywhere."""
    keys, papers, scores = [], [], []
    for scale, stage in itertools.product(panel.scales, STAGES):
        accuracy = panel.matrix(scale, stage)
        for category in panel.categories:
            if members := panel.members(category):
                keys.append((scale, stage, category, ""))
                papers.append(panel.paper_number(scale, "code", "{}", stage, category))
                scores.append(mean_over_benchmarks(accuracy[:, members]))
        for b, slug in enumerate(panel.benchmarks):
            keys.append((scale, stage, panel.category_of[slug], panel.displays[slug]))
            papers.append(panel.paper_number(scale, "code", "{}", stage, slug))
            scores.append(accuracy[:, b])
    return keys, papers, np.array(scores)


# ---------------------------------------------------------------------------------------------- web source


def web_means_table(panel: Panel) -> Table:
    """Tables 8 and 11 at every scale and stage: accuracy (per cent) and the alignment of equation 8, by mixture."""

    def rows() -> Iterator[Row]:
        for keys, scores in _category_scores(panel):
            for web, mean in web_means(panel, scores).items():
                yield Row((*keys, web), mean, _paper_web(panel, keys, web), brief=keys[0] == "accuracy")

    return with_q_values(
        "web_means",
        "Accuracy (%) and alignment by web source, after PT and SFT (Tables 8 and 11 extended)",
        "quantity scale stage category web_source",
        rows(),
        signed=False,
        repeats_paper=True,
        caveats=_notes(*source_confounds(panel)),
    )


def web_table(panel: Panel) -> Table:
    """Table 7 for every pair of web sources, scale and stage."""

    def rows() -> Iterator[Row]:
        for keys, scores in _category_scores(panel):
            for (web, other), difference in web_differences(panel, scores).items():
                paper = _paper_web_difference(panel, keys, web, other)
                yield Row((*keys, f"{web} − {other}"), difference, paper, brief=keys[0] == "accuracy")

    return with_q_values(
        "web_differences",
        "Differences of accuracy (pp) and alignment between web sources at equal code per cent (Table 7 extended)",
        "quantity scale stage category web_sources",
        rows(),
        repeats_paper=True,
        caveats=_notes(
            *source_confounds(panel),
            "paper: Table 7 where it has the difference, else that of the rounded means of Tables 8 and 11",
        ),
    )


def _category_scores(panel: Panel) -> Iterator[tuple[tuple[str, str, str, str], np.ndarray]]:
    """(quantity, scale, stage, category) and the scores of the mixtures, [M]."""
    for scale, stage, category in itertools.product(panel.scales, STAGES, panel.categories):
        yield ("accuracy", scale, stage, category), 100 * category_accuracy(panel, scale, stage, category)
    for scale, stage, category in itertools.product(panel.scales, STAGES, panel.categories):
        yield ("alignment", scale, stage, category), co.alignment_by_mixture(panel, scale, stage, category)


# ---------------------------------------------------------------------------------------------- the paper's numbers


def _paper_web(panel: Panel, keys: tuple[str, str, str, str], web: str) -> float | None:
    """Table 8 for alignment, Table 11 for the accuracy of 1B after SFT."""
    quantity, scale, stage, category = keys
    if quantity == "alignment":
        return panel.paper_number(scale, "8", "{}", stage, web, category)
    return numbers().get(("11", web, category)) if (panel.paper_scale(scale), stage) == ("1B", "SFT") else None


def _paper_web_difference(panel: Panel, keys: tuple[str, str, str, str], web: str, other: str) -> float | None:
    quantity, scale, stage, category = keys
    if (web, other, stage) == ("FineWeb-Edu", "RefinedWeb", "PT"):
        return panel.paper_number(scale, "7", quantity, "{}", category)
    means = [_paper_web(panel, keys, name) for name in (web, other)]
    return None if means[0] is None or means[1] is None else means[0] - means[1]


def _notes(*caveats: str) -> tuple[Note, ...]:
    return tuple(map(Note, caveats))


MAKERS: dict[str, Callable[[Panel], Table]] = {
    "matrix_similarity": matrix_similarity_table,
    "category_means": category_means_table,
    "scale_differences": scale_table,
    "code_share": code_table,
    "code_share_means": code_means_table,
    "web_means": web_means_table,
    "web_differences": web_table,
}
