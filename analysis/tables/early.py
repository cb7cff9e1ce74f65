"""How early may one decide? Checkpoints on the way against the end, where they were scored.

In: `Panel` with milestones. Out: a `Table`: for each scale and number of training tokens how often two mixtures are
ranked as after fine-tuning, and how far scores correlate with the last checkpoint's and with those after SFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from analysis.panel.panel import Panel
from analysis.protocols.correlations import mean_correlation
from analysis.protocols.decisions import decide_on_average
from analysis.rendering.table import Row, Table, with_interval, with_q_values
from analysis.stats.estimates import Estimate


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
                    f"{100 * milestone.tokens / mine[-1].tokens:.0f}",
                    "" if flops is None else f"{flops * milestone.tokens:.1e}",
                    *(_mean_r(mean_correlation(milestone.accuracy, end), decided) for end in (late, last)),
                )
                yield Row((scale, f"{milestone.tokens:,}"), decided, extra=extra)

    return with_q_values(
        "early",
        "How early may one decide? Decision accuracy against SFT, mean over benchmarks, by tokens trained",
        "scale tokens",
        rows(),
        ("% of the tokens", "FLOPs", "mean r with SFT", "mean r with the last PT"),
        signed=False,
        brief_extra=4,
        caveats=("checkpoints on the way have not been decayed to the final learning rate",),
    )


def _mean_r(r: Estimate, decided: Estimate) -> str:
    """With how many benchmarks it is over, where they are not as many as the decisions': r needs both ends to vary."""
    return with_interval(r) + (f" ({r.points})" if r.value is not None and r.points != decided.points else "")


MAKERS: dict[str, Callable[[Panel], Table]] = {"early": early_table}
