"""How often each printed interval holds the true number, and how often each printed p rejects a true null.

    python tests/perf/coverage/printed_numbers.py --output tests/perf/results/printed_numbers.json

In: nothing. Out: for each number of the tables, by true r, the coverage of its 95 % interval and the share of p-values
of at most .05. All come from the functions that make the tables, on simulated panels of nine mixtures, 20 benchmarks
and two scales. A p-value has a level only where its null is true; elsewhere the share is its power.

The mixtures are drawn from a population, in which PT and SFT of a benchmark correlate by r at both scales, and the
benchmarks of a stage by 0.3. Over benchmarks, accuracy and confidence correlate by r too.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))

import numpy as np
from panels import panel_of

from analysis.panel.panel import Panel
from analysis.protocols import correlations as co
from analysis.protocols.decisions import decide, decide_on_average
from analysis.protocols.scale import scale_differences
from analysis.stats.estimates import Estimate, paired_difference
from configs.artifacts import write_json
from configs.errors import user_errors

MIXTURES, BENCHMARKS = 9, 20
SHARED = 0.3
"""Correlation of two benchmarks over mixtures."""
TRUE_R = (0.0, 0.5, 0.8, 0.95)
SCALES = ("240m", "1b")
LEVEL = 0.05
Shown = tuple[str, Estimate, float]
"""Name of a number, its estimate, the true value."""


def panel(random: np.random.Generator, r: float) -> Panel:
    def correlated(shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal scores whose benchmarks share a factor of the mixture."""
        return math.sqrt(SHARED) * random.normal(size=(shape[0], 1)) + math.sqrt(1 - SHARED) * random.normal(size=shape)

    cube = {}
    shape = (MIXTURES, BENCHMARKS)
    for scale in SCALES:
        pt = correlated(shape)
        for stage, score in (("PT", pt), ("SFT", r * pt + math.sqrt(1 - r**2) * correlated(shape))):
            # Over benchmarks the level of a benchmark is far larger than the differences between mixtures.
            level, other = random.normal(size=(2, 1, BENCHMARKS))
            cube[scale, stage, "accuracy"] = 0.5 + 0.001 * score + 0.1 * level
            own = 0.001 * random.normal(size=shape)
            cube[scale, stage, "confidence"] = 0.5 + own + 0.1 * (r * level + math.sqrt(1 - r**2) * other)
    return panel_of(cube)


def shown(random: np.random.Generator, r: float) -> Iterator[Shown]:
    """Every number of one study."""
    study = panel(random, r)
    scale, category = SCALES[0], "Commonsense"
    pt, sft = (study.matrix(scale, stage) for stage in ("PT", "SFT"))
    single = co.cross_stage(study, scale, "accuracy")[0]
    yield "r of a benchmark (Fisher, or jackknife)", single.estimate, r
    low, high = single.bca or (None, None)
    yield "r of a benchmark (BCa; p within web sources)", Estimate(r, low=low, high=high, p=single.p_within), r
    yield "mean r over 20 benchmarks", co.mean_correlation(pt, sft), r
    for protocol, true in (("PT", SHARED), ("cross", r * SHARED)):
        yield f"coherence, {protocol}", co.coherence(study, scale, category, protocol, "accuracy", "ordered"), true
    for reading in ("averaged", "pooled"):
        yield f"alignment, {reading}", co.alignment(study, scale, "PT", category, reading), r
    alike = 0.5 + math.asin(r) / math.pi  # of two normal scores
    yield "decision accuracy of a benchmark", decide(pt[:, 0], sft[:, 0]).accuracy, alike
    yield "decision accuracy, mean over benchmarks", decide_on_average(pt, sft), alike
    changes = scale_differences(study, *SCALES, "accuracy", [[0], list(range(BENCHMARKS))])
    for name, change in zip(("a benchmark", "the mean"), changes, strict=True):
        yield f"change of r between scales, {name}", change.estimate, 0.0
    yield "difference of two web sources", paired_difference(pt[:3, 0] - pt[3:6, 0], "pairs"), 0.0


def measure(r: float, studies: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng([MIXTURES, round(100 * r)])
    numbers: dict[str, list[Shown]] = defaultdict(list)
    for _ in range(studies):
        for number in shown(random, r):
            numbers[number[0]].append(number)
    return {name: _rates(found) for name, found in numbers.items()}


def _rates(found: list[Shown]) -> dict[str, float]:
    ends = [(*estimate.ends, true) for _, estimate, true in found if estimate.ends is not None]
    p = [estimate.p for _, estimate, _ in found if estimate.p is not None]
    return {
        "coverage": round(float(np.mean([low - 1e-9 <= true <= high + 1e-9 for low, high, true in ends])), 3),
        "mean_width": round(float(np.mean([high - low for low, high, _ in ends])), 3),
        "without_interval": round(1 - len(ends) / len(found), 3),
        "rejected": round(float(np.mean([value <= LEVEL for value in p])), 3),
    }


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1_000, help="simulated for each true r (default: 1,000)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {}
    for r in TRUE_R:
        found[f"r {r:g}"] = measure(r, options.studies)
        for name, rates in found[f"r {r:g}"].items():
            print(f"r {r:<6g}{name:<44}{rates}", flush=True)
    if options.output:
        write_json(options.output, {"mixtures": MIXTURES, "studies": options.studies, "numbers": found})


if __name__ == "__main__":
    main()
