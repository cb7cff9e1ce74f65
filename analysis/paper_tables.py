"""Tables 5 to 11 of the paper beside the same numbers of a study, and the coherence of equations 3 to 6.

In: `Panel`. Out: `Table`s: one row a number, with the paper's number, the difference, and whether the paper's lies
inside this run's 95 % interval. Every table carries Benjamini-Hochberg q-values over its p-values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import correlations as co
from analysis import estimates as st
from analysis.association import Association
from analysis.estimates import Estimate
from analysis.panel import STAGES, Panel
from analysis.paper_numbers import CATEGORIES, TITLES, category_of, displays, numbers

OTHER_VIEWS = ("Spearman", "Kendall", "BCa interval", "p within web sources", "largest change without one mixture")
RELIABILITY_FLOOR = 0.2  # below it, differences between mixtures are mostly seed noise: no claim


@dataclass(frozen=True)
class Row:
    keys: tuple[str, ...]
    estimate: Estimate
    paper: float | None = None
    extra: tuple[str, ...] = ()
    no_claim: str = ""
    """Why the number supports no claim, if it does not."""
    q: float | None = None
    brief: bool = True
    """Shown on the terminal; files have every row."""

    @property
    def difference(self) -> float | None:
        return None if self.paper is None or self.estimate.value is None else self.estimate.value - self.paper

    @property
    def verdict(self) -> str:
        """Where the paper's number lies relative to this run's interval, or why that cannot be said."""
        if self.estimate.value is None:
            return f"missing: {self.estimate.reason}"
        if self.no_claim:
            return f"no claim: {self.no_claim}"
        if self.paper is None:
            return ""
        inside = self.estimate.inside(self.paper)
        return "no interval" if inside is None else "inside" if inside else "outside"


@dataclass(frozen=True)
class Table:
    name: str
    """File name without suffix."""
    title: str
    keys: tuple[str, ...]
    extra: tuple[str, ...]
    rows: tuple[Row, ...]
    unit: str = ""
    digits: int = 2
    signed: bool = True
    """Numbers with their sign: correlations and differences."""
    brief_extra: int = 1
    """How many of `extra` are shown where there is little room: on the terminal, in LaTeX, in the report."""
    caveats: tuple[str, ...] = ()
    """What the reader must know besides; the last of the notes."""

    @property
    def notes(self) -> list[str]:
        """What points, intervals and nulls are, ranges where rows differ; then the caveats."""
        known = [row.estimate for row in self.rows if row.estimate.value is not None]
        lines = []
        for field, label in (("points", "points"), ("interval", "95 % interval"), ("null", "null of p")):
            names = list(dict.fromkeys(getattr(e, field) for e in known if getattr(e, field)))
            if names:
                lines.append(f"{label}: {'; '.join(names)}")
        counts = [e.arrangements for e in known if e.arrangements is not None]
        smallest = [e.smallest_p for e in known if e.smallest_p is not None]
        if counts:
            lines.append(
                f"distinct arrangements: {_span(min(counts), max(counts), ',')}; "
                f"smallest possible p: {_span(min(smallest), max(smallest), '.2g')}"
            )
        if len(known) < len(self.rows):
            lines.append(f"{len(self.rows) - len(known)} of {len(self.rows)} numbers are missing and left empty")
        return [*lines, *self.caveats]

    def count(self, verdict: str) -> int:
        return sum(row.verdict == verdict for row in self.rows)


def _span(low: float, high: float, spec: str) -> str:
    return f"{low:{spec}}" if low == high else f"{low:{spec}} to {high:{spec}}"


def paper_tables(panel: Panel) -> list[Table]:
    """Tables 5 to 11 and the coherence table, in this order."""
    makers = (table5, table6, table7, table8, table9, table10, table11, coherence_table)
    return [make(panel) for make in makers]


def with_q_values(
    name: str, title: str, keys: str, rows: Iterable[Row], extra: tuple[str, ...] = (), **form: Any
) -> Table:
    """A table whose rows carry Benjamini-Hochberg q-values over all their p-values; form: other fields of `Table`."""
    listed = list(rows)
    q = st.benjamini_hochberg([row.estimate.p for row in listed])
    done = tuple(
        Row(r.keys, r.estimate, r.paper, r.extra, r.no_claim, q=value, brief=r.brief)
        for r, value in zip(listed, q, strict=True)
    )
    return Table(name, title, tuple(keys.split()), extra, done, **form)


def _paper(panel: Panel, scale: str, *key: str) -> float | None:
    """The paper's number for the scale that `scale` stands for; "{}" in the key is that scale."""
    stands_for = panel.paper_scale(scale)
    return None if stands_for is None else numbers().get(tuple(part.format(stands_for) for part in key))


# ---------------------------------------------------------------------------------------------- the tables


def table5(panel: Panel) -> Table:
    """Equations 1 and 2."""

    def rows() -> Iterator[Row]:
        for metric in ("accuracy", "confidence"):
            for scale in panel.scales:
                trust = [co.reliability(panel, scale, stage, metric) for stage in STAGES]
                for b, association in enumerate(co.cross_stage(panel, scale, metric)):
                    slug = panel.benchmarks[b]
                    least = min(part[b] for part in trust) if all(np.isfinite(part[b]) for part in trust) else math.nan
                    low = bool(least < RELIABILITY_FLOOR)
                    yield Row(
                        (scale, metric, category_of()[slug], displays()[slug]),
                        association.estimate,
                        _paper(panel, scale, "5", metric, "{}", slug),
                        ("not measured" if math.isnan(least) else f"{least:.2f}", *_other_views(association)),
                        f"reliability {least:.2f}" if low else "",
                    )
                yield Row(
                    (scale, metric, "Mean", f"{len(panel.benchmarks)} benchmarks"),
                    co.mean_cross_stage(panel, scale, metric),
                    _paper(panel, scale, "5", metric, "{}", "mean"),
                    ("",) * (1 + len(OTHER_VIEWS)),
                )

    return with_q_values(
        "table5", f"Table 5. {TITLES[5]}", "scale metric category benchmark", rows(), ("reliability", *OTHER_VIEWS)
    )


def _other_views(association: Association) -> tuple[str, ...]:
    """As `OTHER_VIEWS` names them; empty where there is none."""
    e = association
    within = (
        "" if e.p_within is None else f"{e.p_within:.2g} of {e.arrangements_within:,} (least {e.smallest_p_within:.2g})"
    )
    numbers = (f"{value:+.2f}".replace("-", "−") if value is not None else "" for value in (e.spearman, e.kendall))
    bca = "" if e.bca is None else "[{:+.2f}, {:+.2f}]".format(*e.bca).replace("-", "−")
    return (*numbers, bca, within, "" if e.influence is None else f"{e.influence:.2f}")


def table6(panel: Panel) -> Table:
    """Equation 8 over all mixtures."""

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            for stage in STAGES:
                for category in CATEGORIES:
                    for reading in co.READINGS:
                        paper = (
                            _paper(panel, scale, "6", "{}", stage, category) if reading != "chance-adjusted" else None
                        )
                        estimate = co.alignment(panel, scale, stage, category, reading)
                        yield Row((scale, stage, category, reading), estimate, paper)

    return with_q_values("table6", f"Table 6. {TITLES[6]}", "scale stage category reading", rows())


def table7(panel: Panel) -> Table:
    """Differences between two web sources at equal code percent; the interval is over the shares they both have."""

    def rows() -> Iterator[Row]:
        for quantity in ("accuracy", "alignment"):
            for scale in panel.scales:
                for category in CATEGORIES:
                    values = (
                        100 * _category_accuracy(panel, scale, "PT", category)
                        if quantity == "accuracy"
                        else co.alignment_by_mixture(panel, scale, "PT", category)
                    )
                    estimate = st.paired_difference(_web_differences(panel, values), "shares")
                    paper = _paper(panel, scale, "7", quantity, "{}", category)
                    yield Row(
                        (scale, f"{quantity} (pp)" if quantity == "accuracy" else quantity, category), estimate, paper
                    )

    return with_q_values("table7", f"Table 7. {TITLES[7]}", "scale quantity category", rows())


def table8(panel: Panel) -> Table:
    """Equation 8 over the mixtures of one web source."""
    return with_q_values(
        "table8", f"Table 8. {TITLES[8]}", "scale stage web_source category reading", _grouped(panel, "web", "8")
    )


def table9(panel: Panel) -> Table:
    """Equation 8 over the mixtures of one code percent."""
    return with_q_values(
        "table9", f"Table 9. {TITLES[9]}", "scale stage code_percent category reading", _grouped(panel, "code", "9")
    )


def _grouped(panel: Panel, by: str, number: str) -> Iterator[Row]:
    for scale in panel.scales:
        for stage in STAGES:
            for group, mixtures in co.groups(panel, by).items():
                for category in CATEGORIES:
                    for reading in co.READINGS:
                        estimate = co.alignment(panel, scale, stage, category, reading, mixtures)
                        paper = _paper(panel, scale, number, "{}", stage, group, category)
                        keys = (scale, stage, group, category, reading)
                        adjusted = reading == "chance-adjusted"
                        yield Row(keys, estimate, None if adjusted else paper, brief=reading == "averaged")


def table10(panel: Panel) -> Table:
    """Alignment after PT against after SFT, over mixtures."""

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            for category in CATEGORIES:
                yield Row(
                    (scale, category),
                    co.persistence(panel, scale, category),
                    _paper(panel, scale, "10", "{}", category),
                )

    return with_q_values("table10", f"Table 10. {TITLES[10]}", "scale category", rows())


def table11(panel: Panel) -> Table:
    """Per cent; the paper gives the 1B model after SFT."""

    def rows() -> Iterator[Row]:
        scale = panel.scales[-1]
        for web, mixtures in co.groups(panel, "web").items():
            index = [panel.mixtures.index(m) for m in mixtures]
            for category in CATEGORIES:
                values = 100 * _category_accuracy(panel, scale, "SFT", category)[index]
                paper = numbers().get(("11", web, category)) if panel.paper_scale(scale) == "1B" else None
                yield Row((scale, web, category), st.mean_estimate(values, "mixtures"), paper)

    return with_q_values(
        "table11", f"Table 11. {TITLES[11]}", "scale web_source category", rows(), unit="%", digits=1, signed=False
    )


def coherence_table(panel: Panel) -> Table:
    """Equations 3 to 6; the paper gives numbers for accuracy in Science only (Finding 8)."""

    def rows() -> Iterator[Row]:
        for metric in ("accuracy", "confidence"):
            for scale in panel.scales:
                for protocol in co.PROTOCOLS:
                    for reading in ("ordered", "i<j") if protocol == "cross" else ("ordered",):
                        for category in CATEGORIES:
                            estimate = co.coherence(panel, scale, category, protocol, metric, reading)
                            paper = _paper(panel, scale, "coherence", metric, protocol, "{}", category)
                            yield Row((scale, metric, protocol, reading, category), estimate, paper)

    title = "Intra-category coherence, equations 3 to 6 (Finding 8)"
    return with_q_values("coherence", title, "scale metric protocol reading category", rows())


# ---------------------------------------------------------------------------------------------- parts


def _category_accuracy(panel: Panel, scale: str, stage: str, category: str) -> np.ndarray:
    """Mean accuracy over the category's measured benchmarks, [mixtures]; NaN where a mixture lacks one of them."""
    values = panel.matrix(scale, stage)[:, panel.members(category)]
    measured = values[:, np.isfinite(values).any(axis=0)]
    return measured.mean(axis=1) if measured.shape[1] else np.full(len(values), math.nan)


def _web_differences(panel: Panel, values: np.ndarray) -> np.ndarray:
    """FineWeb-Edu minus RefinedWeb at each code percent that both have, [shares]; values [mixtures]."""
    by_cell: dict[tuple[str, float], list[float]] = {}
    for mixture, design in panel.design.items():
        by_cell.setdefault((design.web, design.code_percent), []).append(values[panel.mixtures.index(mixture)])
    shares = sorted(
        {code for web, code in by_cell if web == "FineWeb-Edu"} & {c for w, c in by_cell if w == "RefinedWeb"}
    )
    return np.array([np.mean(by_cell["FineWeb-Edu", s]) - np.mean(by_cell["RefinedWeb", s]) for s in shares])
