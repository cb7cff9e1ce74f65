"""One page of the report a benchmark: what it is, how every mixture does on it, what it is worth as an early sign.

In: `Panel`, tables, verdicts; configs/benchmarks for the paper's 20. Out: `BenchmarkPage`s, which
templates/benchmark.html.j2 writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from analysis.figures.benchmarks import accuracy_figure, reliability_figure
from analysis.panel.panel import STAGES, Panel
from analysis.protocols.correlations import seed_spread
from analysis.protocols.decisions import Protocol, protocols
from analysis.rendering.table import Table
from analysis.report.summary import short
from analysis.report.tables import HtmlTable, benchmark_rows
from analysis.report.verdict import Verdict
from analysis.stats.estimates import mean_measured
from configs.drawing.scene import Figure
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import BenchmarkConfig

ELSEWHERE = ("code_share", "code_share_means")
"""Tables about mixtures rather than about what a benchmark is worth."""


@dataclass(frozen=True)
class BenchmarkPage:
    slug: str
    display: str
    category: str
    facts: list[tuple[str, str]]
    verdicts: list[tuple[str, Verdict]]
    """(protocol, verdict)"""
    accuracy: Figure
    sides: list[str]
    """Columns of `cells`: scale and stage."""
    cells: list[tuple[str, list[str]]]
    """(mixture, accuracy with its standard error under each of `sides`)."""
    reliability: Figure | None
    """None: only published metrics are here."""
    tables: list[HtmlTable]
    """The rows of the tables that are about this benchmark."""


def pages(panel: Panel, tables: Sequence[Table], found: dict[tuple[str, Protocol], Verdict]) -> list[BenchmarkPage]:
    sides = [(scale, stage) for scale in panel.scales for stage in STAGES]
    values = {side: panel.matrix(*side) for side in sides}
    errors = {side: panel.stderr(*side) for side in sides}
    made = []
    for b, slug in enumerate(panel.benchmarks):
        mine = (benchmark_rows(table, panel.displays[slug]) for table in tables if table.name not in ELSEWHERE)
        made.append(
            BenchmarkPage(
                slug=slug,
                display=panel.displays[slug],
                category=panel.category_of[slug],
                facts=list(_facts(panel, slug)),
                verdicts=[(short(protocol), found[slug, protocol]) for protocol in protocols(panel)],
                accuracy=accuracy_figure(panel, slug),
                sides=[" ".join(side) for side in sides],
                cells=[
                    (mixture, [_with_error(values[side][m, b], errors[side][m, b]) for side in sides])
                    for m, mixture in enumerate(panel.mixtures)
                ],
                reliability=reliability_figure(panel, slug),
                tables=[one for one in mine if one is not None],
            )
        )
    return made


def _with_error(value: float, error: float) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.3f}" + (f" ± {error:.3f}" if math.isfinite(error) else "")


def _facts(panel: Panel, slug: str) -> Iterator[tuple[str, str]]:
    """(term, text) of what is known of a benchmark; numbers that were not measured are named as such."""
    spec = load_benchmark(slug) if slug in BENCHMARKS else None
    sides = [(scale, stage) for scale in panel.scales for stage in STAGES]
    b = panel.benchmarks.index(slug)
    scored = {panel.answers_over_seeds(*side, slug).shape[-1] for side in sides}
    yield "Examples", _format_examples(scored - {0}, spec)
    chance = {side: float(mean_measured(panel.matrix(*side, "chance", "")[:, b])) for side in sides}
    yield "Chance", " or ".join(sorted({text for _, text in _known(chance)})) or "not known"
    if spec:
        yield from _configured_facts(spec, panel.synthetic)
    spreads = ", ".join(" ".join(known) for known in _known({s: seed_spread(panel, *s, "accuracy")[b] for s in sides}))
    yield "Seed noise", f"standard deviation {spreads}" if spreads else "not measured: no mixture has two seeds"


def _format_examples(scored: Set[int], spec: BenchmarkConfig | None) -> str:
    counts = " or ".join(f"{n:,}" for n in sorted(scored)) or "number not known (published metrics only)"
    return counts + (f"; {spec.examples:,} in the paper's Table 4" if spec and spec.examples else "")


def _known(numbers: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """(scale and stage, number as text) of those that were measured."""
    return [(" ".join(side), f"{number:.3f}") for side, number in numbers.items() if math.isfinite(number)]


def _configured_facts(spec: BenchmarkConfig, synthetic: bool) -> Iterator[tuple[str, str]]:
    if spec.choices:
        yield "Candidates", str(spec.choices)
    form = "generated in the form of " if synthetic else ""
    if spec.hub:
        yield "Source", f"{form}{spec.hub}{f' ({spec.config})' if spec.config else ''}, split {spec.split}"
    if spec.departure and not synthetic:
        yield "Departure from lm-eval", spec.departure
