"""How far each benchmark's early score may be trusted, by the rule of the paper's Appendix C.2 and by the intervals.

In: `Panel`. Out: `Table`. The rule looks at correlations alone. By intervals a benchmark is in a tier only if the whole
of every interval that the tier rests on obeys the rule; few do over nine mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.panel.panel import Panel
from analysis.paper.published import HIGH, LOW, TIERS
from analysis.protocols import correlations as co
from analysis.rendering.formats import format_estimate
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import Estimate, absent

RELIABLE, BETWEEN, UNRELIABLE = "highly reliable", "between", "unreliable"
UNSETTLED = "not settled"


def tier(estimates: Sequence[Estimate]) -> tuple[str, str]:
    """(by value, by interval) of a benchmark's correlations, one for each scale and metric; "" where one is missing."""
    values = [e.value for e in estimates]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not values:
        return "", ""
    by_value = RELIABLE if min(known) > HIGH else UNRELIABLE if min(known) < LOW else BETWEEN
    lows, highs = ([end for e in estimates if (end := getattr(e, name)) is not None] for name in ("low", "high"))
    if len(lows) < len(values) or len(highs) < len(values):
        return by_value, ""
    return by_value, RELIABLE if min(lows) > HIGH else UNRELIABLE if min(highs) < LOW else UNSETTLED


def tier_table(panel: Panel) -> Table:
    """The least of a benchmark's correlations of PT and SFT over scales and metrics, and the tier that all make.

    The least has no interval and no p: it was picked.
    """
    columns = [
        (f"{metric} {scale}", [found.estimate for found in co.cross_stage(panel, scale, metric)])
        for metric in filter(panel.has, ("accuracy", "confidence"))
        for scale in panel.scales
    ]
    in_text = {name: kind for kind, names in TIERS.items() for name in names} if panel.beside_paper else {}
    rows = []
    for b, slug in enumerate(panel.benchmarks):
        name, estimates = panel.displays[slug], [found[b] for _, found in columns]
        known = [e.value for e in estimates if e.value is not None]
        n = min((e.n for e in estimates), default=0)
        whole = len(known) == len(estimates) > 0
        least = Estimate(min(known), n, "mixtures") if whole else absent("not measured everywhere", n=n)
        extra = (*tier(estimates), in_text.get(name, ""), *estimates)
        rows.append(Row((panel.category_of[slug], name), least, extra=extra))
    title = f"Tiers (Appendix C.2): reliable above {HIGH} everywhere, unreliable below {LOW} anywhere"
    by_rule = [Column(name) for name in ("by value", "by interval", "in the paper's text")]
    headings = (*by_rule, *(Column(name, format_estimate) for name, _ in columns))
    caveat = (
        "the paper's text lists its tiers for its own models; its rule on its own numbers gives other lists "
        "(docs/contradictions.md)"
    )
    return with_q_values("tiers", title, "category benchmark", rows, headings, brief_extra=3, caveats=(Note(caveat),))


MAKERS: dict[str, Callable[[Panel], Table]] = {"tiers": tier_table}
