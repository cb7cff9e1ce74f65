"""How early may one decide? Checkpoints on the way against the end, where they were scored.

In: `Panel` with milestones. Out: a `Table`: for each scale and number of training tokens how often two mixtures are
ranked as after fine-tuning, and how far scores correlate with the last checkpoint's and with those after SFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from analysis.panel.panel import Panel, Scope
from analysis.protocols.correlations import mean_correlation
from analysis.protocols.decisions import decide_on_average
from analysis.rendering.formats import format_estimate
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import Estimate


class MeanR(NamedTuple):
    """A mean correlation, and the decision accuracy that it stands beside."""

    r: Estimate
    decided: Estimate


def early_table(panel: Panel) -> Table:
    """No rows for a scale of which only the last checkpoint was scored."""

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            mine = [milestone for milestone in panel.milestones if milestone.scale == scale]
            flops = panel.flops_per_token.get(scale)
            for milestone in mine if len(mine) > 1 else ():
                last, late = panel.matrix(scale, "PT"), panel.matrix(scale, "SFT")
                decided = decide_on_average(milestone.accuracy, late)
                extra = (
                    100 * milestone.tokens / mine[-1].tokens,
                    None if flops is None else flops * milestone.tokens,
                    *(MeanR(mean_correlation(milestone.accuracy, end), decided) for end in (late, last)),
                )
                scope = Scope((scale,), tokens=milestone.tokens)
                yield Row((scale, f"{milestone.tokens:,}"), decided, extra=extra, scope=scope)

    return with_q_values(
        "early",
        "How early may one decide? Decision accuracy against SFT, mean over benchmarks, by tokens trained",
        "scale tokens",
        rows(),
        (
            Column("% of the tokens", "{:.0f}".format),
            Column("FLOPs", "{:.1e}".format),
            Column("mean r with SFT", _format_mean_r),
            Column("mean r with the last PT", _format_mean_r),
        ),
        signed=False,
        brief_extra=4,
        caveats=(Note("checkpoints on the way have not been decayed to the final learning rate"),),
    )


def _format_mean_r(cell: MeanR) -> str:
    """Name the benchmarks where they are not those of the decisions: r needs both ends to vary."""
    r, decided = cell
    return format_estimate(r) + (f" ({r.points})" if r.value is not None and r.points != decided.points else "")


MAKERS: dict[str, Callable[[Panel], Table]] = {"early": early_table}
