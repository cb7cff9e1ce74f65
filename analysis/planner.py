"""How many mixtures and seeds would be enough? From the noise that a study measured.

In: `Panel` of a study that was scored. Out: a table with, for each benchmark and number of seeds, how far a
correlation between the stages is blurred, how many mixtures it takes to tell it from none, and which difference between
two mixtures can be seen, and how many seeds it takes to see one of a given size, so that a choice between them is no
toss of a coin.

    python -m analysis.planner --r 0.6 --difference 2
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.errors import ConfigError, user_errors
from configs.layout import runs_root

if TYPE_CHECKING:
    from analysis.panel.panel import Panel
    from analysis.rendering.table import Row, Table

EXAMPLES = """examples:
  python -m analysis.planner                         a true r of 0.6, power 0.8, with 1, 3 and 5 seeds
  python -m analysis.planner --study mini --r 0.4 --power 0.9 --seeds 1,2,4,8
  python -m analysis.planner --difference 1          seeds that two mixtures need which are a point of accuracy apart
"""
SIGNIFICANT = 0.975
"""Quantile of the two-sided 5 % test."""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.planner",
        description="How many mixtures and seeds a correlation or a decision of a given size needs, by benchmark.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    parser.add_argument("--study", help="name of the study (default: the one scored last)")
    parser.add_argument("--r", type=float, default=0.6, help="true correlation of PT with SFT (default: 0.6)")
    parser.add_argument(
        "--difference", type=float, default=2.0, metavar="PP", help="of two mixtures, in points (default: 2)"
    )
    parser.add_argument("--power", type=float, default=0.8, help="chance of finding what is there (default: 0.8)")
    parser.add_argument("--seeds", default="1,3,5", help="seeds of each mixture to plan for (default: 1,3,5)")
    parser.add_argument("--metric", choices=("accuracy", "confidence"), default="accuracy")
    args = parser.parse_args(argv)
    if not 0 < args.r < 1:
        raise ConfigError(f"--r is {args.r}", valid="between 0 and 1")
    if not args.difference > 0:
        raise ConfigError(f"--difference is {args.difference}", valid="points above 0, e.g. 2")
    if not 0.5 <= args.power < 1:
        raise ConfigError(f"--power is {args.power}", valid="at least 0.5, below 1")
    try:
        seeds = tuple(int(part) for part in args.seeds.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 1:
        raise ConfigError(f"--seeds is {args.seeds!r}", valid="whole numbers from 1, e.g. 1,3,5")
    from analysis.panel.load import load_panel
    from analysis.panel.studies import require_study
    from analysis.rendering.writers import as_text

    panel = load_panel(require_study(runs_root(args.runs), args.study))
    print(as_text(planner_table(panel, args.r, args.power, seeds, args.metric, args.difference)))


def mixtures_needed(r: float, power: float) -> int:
    """Fewest points that tell a correlation r > 0 from none at 5 %, two-sided, with the given power.

    Fisher's z: n = 3 + ((z_0.975 + z_power) / atanh r)^2, rounded up (Cohen 1988, section 3.4).
    """
    from scipy.special import ndtri

    return math.ceil(3 + ((float(ndtri(SIGNIFICANT)) + float(ndtri(power))) / math.atanh(r)) ** 2 - 1e-9)


def visible_difference(noise: float, power: float) -> float:
    """Smallest true difference of two mixtures that a 5 % test of their scores finds with the given power.

    noise: variance of the error of one score; two are compared.
    """
    from scipy.special import ndtri

    return (float(ndtri(SIGNIFICANT)) + float(ndtri(power))) * math.sqrt(2 * noise)


def seeds_needed(examples: float, seeds: float, difference: float, power: float) -> int | None:
    """Fewest seeds of each of two mixtures with which `visible_difference` is at most `difference`.

    examples, seeds: variances of the error of one score that stay however many seeds there are, and that one seed gives
    it, also on single examples. None where the examples alone hide it.
    """
    allowed = (difference / visible_difference(1.0, power)) ** 2 - examples
    return max(1, math.ceil(seeds / allowed - 1e-9)) if allowed > 0 else None


def decision_accuracy(r: float) -> float:
    """Share of pairs that two scores with correlation r rank alike, if normal: 1/2 + arcsin(r) / pi (Kendall 1948)."""
    return 0.5 + math.asin(r) / math.pi


def planner_table(
    panel: Panel, r: float, power: float, seeds: tuple[int, ...], metric: str = "accuracy", difference_pp: float = 2.0
) -> Table:
    """The value of a row is the correlation that would be seen on average if the true one were r.

    Less than r by the noise of both stages, and more by what a run and its examples do to both. That part is no sign of
    a true r, so that the mixtures needed are those that would tell the rest from 0.
    """
    from analysis.rendering.table import Column, with_q_values

    extra = (
        Column("reliability PT", "{:.2f}".format),
        Column("reliability SFT", "{:.2f}".format),
        Column("mixtures needed", "{:,}".format, missing="over 50,000"),
        Column("pairs ranked alike, %", "{:.0f}".format),
        Column("visible after PT, pp", "{:.1f}".format),
        # No number of seeds is enough where the examples alone hide the difference.
        Column(
            f"seeds for {difference_pp:g} pp",
            lambda n: f"{n:,}" if math.isfinite(n) else "more examples",
            "not measured",
        ),
    )
    title = f"What it takes to see a correlation of {r:g} between PT and SFT ({metric}, power {power:g})"
    rows = _rows(panel, r, power, seeds, metric, difference_pp / 100)
    return with_q_values("planner", title, "scale benchmark seeds", rows, extra, brief_extra=len(extra))


def _rows(
    panel: Panel, r: float, power: float, seeds: tuple[int, ...], metric: str, difference: float
) -> Iterator[Row]:
    import numpy as np

    from analysis.panel.panel import STAGES
    from analysis.protocols.noise import noise, shared_errors
    from analysis.rendering.table import Row
    from analysis.stats.estimates import Estimate, absent

    for scale in panel.scales:
        sides = [noise(panel, scale, stage, metric) for stage in STAGES]
        shared = shared_errors(panel, scale, metric)
        for b, slug in enumerate(panel.benchmarks):
            for count in seeds:
                keys = scale, panel.displays[slug], str(count)
                if any(not np.isfinite(side.examples[b]) or side.observed[b] <= 0 for side in sides):
                    yield Row(keys, absent("the noise of the examples is not measured"))
                    continue
                unknown = any(math.isnan(side.seeds[b]) for side in sides)
                if unknown and count != seeds[0]:
                    continue  # more seeds of unknown noise change nothing that is known
                noises = [float(side.with_seeds(count)[b]) for side in sides]
                true = [max(float(side.observed[b] - side.with_seeds(1)[b]), 0.0) for side in sides]
                shown = [t + n for t, n in zip(true, noises, strict=True)]
                trust = [t / s for t, s in zip(true, shown, strict=True)]
                signal = r * math.sqrt(math.prod(trust))
                alike = float(shared.with_seeds(count)[b]) / math.sqrt(math.prod(shown))
                seen = min(max(signal + alike, -1.0), 1.0)
                pt = sides[0]
                lasting, fading = float(pt.examples[b] - pt.crossed[b]), float(pt.crossed[b] + pt.seeds[b])
                enough = seeds_needed(lasting, fading, difference, power) or math.inf
                extra = (
                    *trust,
                    mixtures_needed(signal, power) if signal > 0.01 else None,
                    100 * decision_accuracy(seen),
                    100 * visible_difference(noises[0], power),
                    None if unknown else enough,
                )
                why = "noise of seeds not measured: at best" if unknown else ""
                yield Row(keys, Estimate(seen, n=len(panel.mixtures), points="mixtures"), extra=extra, no_claim=why)


if __name__ == "__main__":
    main()
