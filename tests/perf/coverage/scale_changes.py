"""How often "this correlation changes with scale" is said where none does, and where some do: simulated, not derived.

    python tests/perf/coverage/scale_changes.py --output tests/perf/results/scale_changes.json

In: nothing. Out: for each kind of study the share in which the report tells any change of a benchmark that has none,
the share of intervals that exclude 0 there, and the share of the true changes that are told. A study has nine mixtures,
20 benchmarks and two metrics, 40 changes; half of the variance of every score is shared by all benchmarks of a study.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from analysis.panel.panel import Panel
from analysis.protocols.scale import scale_differences
from analysis.stats.estimates import FALSE_DISCOVERIES, benjamini_hochberg
from configs.artifacts import write_json
from configs.errors import user_errors
from configs.layout import StudyFolder

MIXTURES, BENCHMARKS = 9, 20
SCALES, METRICS = ("small", "large"), ("accuracy", "confidence")
KINDS = (
    ("r 0 at both scales", 0.0, 0.0, 0),
    ("r 0.5 at both scales", 0.5, 0.5, 0),
    ("r 0.9 at both scales", 0.9, 0.9, 0),
    ("2 of 20 benchmarks from 0.95 to -0.95", 0.5, 0.5, 2),
    ("10 of 20 benchmarks from 0.95 to -0.95", 0.5, 0.5, 10),
)
"""(words, r of the others at the small scale, at the large one, benchmarks that change)"""


def study(random: np.random.Generator, small: float, large: float, changed: int) -> Panel:
    """The first `changed` benchmarks change in both metrics."""
    values = {}
    for metric in METRICS:
        for scale, r, other in ((SCALES[0], small, 0.95), (SCALES[1], large, -0.95)):
            rho = np.where(np.arange(BENCHMARKS) < changed, other, r)
            early, noise = math.sqrt(0.5) * (
                random.normal(size=(2, MIXTURES, 1)) + random.normal(size=(2, MIXTURES, BENCHMARKS))
            )
            values[scale, "PT", metric, "sum"] = early[None]
            values[scale, "SFT", metric, "sum"] = (rho * early + np.sqrt(1 - rho**2) * noise)[None]
    return Panel(
        study=StudyFolder(Path(), "simulated"),
        config=None,
        synthetic=True,
        scales=SCALES,
        mixtures=tuple(f"m{m}" for m in range(MIXTURES)),
        benchmarks=tuple(f"b{b}" for b in range(BENCHMARKS)),
        recipe="",
        other_recipes=(),
        other_variants=(),
        seeds=(0,),
        average_seeds=False,
        design={},
        values=values,
        stderrs={},
        examples=0,
    )


def measure(small: float, large: float, changed: int, studies: int) -> dict[str, float]:
    random = np.random.default_rng([round(10 * small), round(10 * large), changed])
    null = np.tile(np.arange(BENCHMARKS) >= changed, len(METRICS))
    told, outside = np.zeros((2, studies, len(null)), bool)
    for s in range(studies):
        panel = study(random, small, large, changed)
        each = [[b] for b in range(BENCHMARKS)]
        found = [one.estimate for metric in METRICS for one in scale_differences(panel, *SCALES, metric, each)]
        q = np.array(benjamini_hochberg([e.p for e in found]), float)
        told[s], outside[s] = q < FALSE_DISCOVERIES, [e.inside(0.0) is False for e in found]
    false = (told & null).sum(axis=1) / np.maximum(told.sum(axis=1), 1)
    return {
        "studies_that_tell_a_false_change": float((told & null).any(axis=1).mean()),
        "false_discovery_rate": float(false.mean()),
        "intervals_that_exclude_0_where_nothing_changes": float(outside[:, null].mean()),
        "true_changes_told": float(told[:, ~null].mean()) if changed else math.nan,
    }


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--studies", type=int, default=1_000, help="simulated for each line (default: 1,000)")
    add("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    lines = {}
    for words, *kind in KINDS:
        found = measure(*kind, options.studies)
        lines[words] = {name: round(value, 4) for name, value in found.items() if not math.isnan(value)}
        print(f"{words:<40}", *(f"{name} {value:.3f}" for name, value in lines[words].items()), sep="  ", flush=True)
    if options.output:
        about = {"mixtures": MIXTURES, "benchmarks": BENCHMARKS, "metrics": len(METRICS), "q_below": FALSE_DISCOVERIES}
        write_json(options.output, about | {"studies": options.studies, "lines": lines})


if __name__ == "__main__":
    main()
