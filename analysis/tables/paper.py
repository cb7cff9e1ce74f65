"""Tables 6 to 11 of the paper beside the same numbers of a study, and the coherence of equations 3 to 6.

In: `Panel`. Out: `Table`s: one row a number, with the paper's number, the difference, and whether the paper's lies
inside this run's 95 % interval. Every table carries Benjamini-Hochberg q-values over its p-values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from analysis.panel.panel import STAGES, Panel, Scope
from analysis.paper.numbers import TITLES, numbers
from analysis.protocols import correlations as co
from analysis.protocols.data_effects import web_difference
from analysis.rendering.formats import format_estimate
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats import estimates as st
from analysis.stats.estimates import Estimate
from analysis.tables.transfer import transfer_table

PAPER_READINGS = ("averaged", "pooled")
"""Readings of equation 8 that the paper's numbers may be of; it does not say which. It adjusts nothing for chance."""
SCALED = Column("after temperature", format_estimate)
"""Column of Tables 6, 8 and 9: the same alignment, of confidence after a temperature."""
SCALED_NOTES = (
    Note(
        "after temperature: the same number of confidences that were divided by a temperature of their benchmark and "
        "checkpoint, fitted on other examples"
    ),
    Note(
        "a temperature brings a benchmark's mean confidence towards its accuracy, and so lifts the alignment over "
        "benchmarks even where no single answer is told better from another"
    ),
)


def describe_scales(panel: Panel) -> Iterator[str]:
    """Sentences on the paper's scales that this study's scales stand for."""
    for scale in panel.scales:
        paper = panel.paper_scale(scale)
        if paper is None:
            yield f"Scale {scale}: the paper has no counterpart."
        elif paper.lower() == scale.lower():
            yield f"Scale {scale} is the paper's {paper}."
        else:
            yield f"Scale {scale} stands beside the paper's {paper}; it is not that size."


def category_accuracy(panel: Panel, scale: str, stage: str, category: str) -> np.ndarray:
    """Mean accuracy over the category's measured benchmarks, [mixtures]."""
    return st.mean_over_benchmarks(panel.matrix(scale, stage)[:, panel.members(category)])


def table6(panel: Panel) -> Table:
    """Equation 8 over all mixtures."""

    def rows() -> Iterator[Row]:
        for scale, stage, category, reading in product(panel.scales, STAGES, panel.categories, co.READINGS):
            estimate = co.alignment(panel, scale, stage, category, reading)
            paper = panel.paper_number(scale, "6", "{}", stage, category) if reading in PAPER_READINGS else None
            scaled = _after_temperature(panel, scale, stage, category, reading)
            yield Row((scale, stage, category, reading), estimate, paper, (scaled,))

    title, keys = f"Table 6. {TITLES[6]}", "scale stage category reading"
    return with_q_values("table6", title, keys, rows(), (SCALED,), caveats=SCALED_NOTES)


def table7(panel: Panel) -> Table:
    """Differences between two web sources at equal code percent; the interval is over the shares they both have."""

    def rows() -> Iterator[Row]:
        for scale, category in product(panel.scales, panel.categories):
            scores = 100 * category_accuracy(panel, scale, "PT", category)
            yield row("accuracy", "accuracy (pp)", scale, category, scores)
        for scale, category in product(panel.scales, panel.categories):
            yield row("alignment", "alignment", scale, category, co.alignment_by_mixture(panel, scale, "PT", category))

    def row(quantity: str, name: str, scale: str, category: str, scores: np.ndarray) -> Row:
        estimate = web_difference(panel, scores, "FineWeb-Edu", "RefinedWeb")
        paper = panel.paper_number(scale, "7", quantity, "{}", category)
        return Row((scale, name, category), estimate, paper)

    return with_q_values("table7", f"Table 7. {TITLES[7]}", "scale quantity category", rows())


def table8(panel: Panel) -> Table:
    """Equation 8 over the mixtures of one web source."""
    title, keys = f"Table 8. {TITLES[8]}", "scale stage web_source category reading"
    return with_q_values("table8", title, keys, _grouped(panel, "web", "8"), (SCALED,), caveats=SCALED_NOTES)


def table9(panel: Panel) -> Table:
    """Equation 8 over the mixtures of one code percent."""
    title, keys = f"Table 9. {TITLES[9]}", "scale stage code_percent category reading"
    return with_q_values("table9", title, keys, _grouped(panel, "code", "9"), (SCALED,), caveats=SCALED_NOTES)


def _grouped(panel: Panel, by: str, number: str) -> Iterator[Row]:
    for scale, stage in product(panel.scales, STAGES):
        for (group, mixtures), category in product(co.groups(panel, by).items(), panel.categories):
            for reading in co.READINGS:
                estimate = co.alignment(panel, scale, stage, category, reading, mixtures)
                paper = panel.paper_number(scale, number, "{}", stage, group, category)
                paper = paper if reading in PAPER_READINGS else None
                extra = (_after_temperature(panel, scale, stage, category, reading, mixtures),)
                yield Row((scale, stage, group, category, reading), estimate, paper, extra, brief=reading == "averaged")


def _after_temperature(
    panel: Panel, scale: str, stage: str, category: str, reading: str, mixtures: Sequence[str] | None = None
) -> Estimate | None:
    """Equation 8 of confidence after a temperature; None where it is not known."""
    found = co.alignment(panel, scale, stage, category, reading, mixtures, "confidence_scaled")
    return None if found.value is None else found


def table10(panel: Panel) -> Table:
    """Alignment after PT against after SFT, over mixtures."""

    def rows() -> Iterator[Row]:
        for scale, category in product(panel.scales, panel.categories):
            paper = panel.paper_number(scale, "10", "{}", category)
            yield Row((scale, category), co.persistence(panel, scale, category), paper)

    return with_q_values("table10", f"Table 10. {TITLES[10]}", "scale category", rows())


def table11(panel: Panel) -> Table:
    """Mean accuracy in per cent by web source; the paper gives the 1B model after SFT."""

    def rows() -> Iterator[Row]:
        scale = panel.scales[-1]
        for web, mixtures in co.groups(panel, "web").items():
            index = [panel.mixtures.index(m) for m in mixtures]
            for category in panel.categories:
                values = 100 * category_accuracy(panel, scale, "SFT", category)[index]
                paper = numbers().get(("11", web, category)) if panel.paper_scale(scale) == "1B" else None
                yield Row((scale, web, category), st.mean_estimate(values, "mixtures"), paper)

    return with_q_values(
        "table11", f"Table 11. {TITLES[11]}", "scale web_source category", rows(), digits=1, signed=False
    )


def coherence_table(panel: Panel) -> Table:
    """Equations 3 to 6; the paper gives numbers for accuracy in Science only (Finding 8)."""

    def rows() -> Iterator[Row]:
        for metric, scale, protocol in product(("accuracy", "confidence"), panel.scales, co.PROTOCOLS):
            scope = Scope((scale,), (protocol,) if protocol in STAGES else STAGES)
            for reading in ("ordered", "i<j") if protocol == "cross" else ("ordered",):
                for category in panel.categories:
                    estimate = co.coherence(panel, scale, category, protocol, metric, reading)
                    paper = panel.paper_number(scale, "coherence", metric, protocol, "{}", category)
                    yield Row((scale, metric, protocol, reading, category), estimate, paper, scope=scope)

    title = "Intra-category coherence, equations 3 to 6 (Finding 8)"
    return with_q_values("coherence", title, "scale metric protocol reading category", rows())


MAKERS: dict[str, Callable[[Panel], Table]] = {
    "table5": transfer_table,
    "table6": table6,
    "table7": table7,
    "table8": table8,
    "table9": table9,
    "table10": table10,
    "table11": table11,
    "coherence": coherence_table,
}
