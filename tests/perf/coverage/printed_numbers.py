"""How often each printed interval holds the true number, and how often each printed p rejects a true null.

    python tests/perf/coverage/printed_numbers.py --output tests/perf/results/printed_numbers.json

In: nothing. Out: for each number of the tables, by true r, the coverage of its 95 % interval and the share of p-values
of at most .05. All come from the functions that make the tables, on simulated panels of nine mixtures, 20 benchmarks
and two scales. A p-value has a level only where its null is true; elsewhere the share is its power.

The mixtures are drawn from a population, in which PT and SFT of a benchmark correlate by r at both scales, and the
benchmarks of a stage by 0.3. Over benchmarks, accuracy and confidence correlate by r too. Numbers whose uncertainty is
of seeds and examples have mixtures, three seeds and 300 examples of their own.
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

from analysis.compare.comparison import Pair, comparison_table
from analysis.panel.items import Items
from analysis.panel.panel import STAGES, Panel
from analysis.protocols import correlations as co
from analysis.protocols.decisions import decide, decide_on_average
from analysis.protocols.matrices import similarity, unrelated_similarity
from analysis.protocols.replication import replicate
from analysis.protocols.scale import scale_differences
from analysis.stats.estimates import Estimate, paired_difference
from analysis.tables.transfer import transfer_table
from configs.artifacts import write_json
from configs.errors import user_errors

MIXTURES, BENCHMARKS = 9, 20
SHARED = 0.3
"""Correlation of two benchmarks over mixtures."""
TRUE_R = (0.0, 0.5, 0.8, 0.95)
SEEDS, EXAMPLES = 3, 300
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
    for name, estimate in (("Mantel", similarity), ("unrelated benchmarks", unrelated_similarity)):
        tested = estimate(study, scale, "accuracy")
        yield f"similarity of matrices, p ({name})", Estimate(None, p=tested.p), math.nan
    yield from runs_and_examples(random, r)


def runs_and_examples(random: np.random.Generator, r: float) -> Iterator[Shown]:
    """Numbers whose uncertainty is of seeds and examples: mixtures are what they are."""
    true = random.normal(size=(2, MIXTURES))
    true[1] = r * true[0] + math.sqrt(1 - r**2) * true[1]
    luck = random.normal(size=(SEEDS, MIXTURES))
    (repeated,) = replicate((true[0] + luck)[:, :, None], (true[1] + luck)[:, :, None])
    yield "r between different seeds, p", Estimate(None, p=repeated.estimate.p), math.nan
    # An example has EXAMPLES / 4 of the variance that mixtures have, so that a mean over all has a quarter.
    answers = true[:, :, None] + math.sqrt(EXAMPLES / 4) * random.normal(size=(2, MIXTURES, EXAMPLES))
    # What other examples give on average is less than the true r: noise lowers it.
    others = true + 0.5 * random.normal(size=(2_000, 2, MIXTURES))
    expected = float(np.mean([np.corrcoef(side)[0, 1] for side in others]))
    for low, high in filter(None, [same_mixtures_interval(answers)]):
        yield "r that other examples give, same mixtures", Estimate(expected, low=low, high=high), expected
    hard = random.random(EXAMPLES)
    a, b = (random.random((2, EXAMPLES)) < hard).astype(float)
    compared = comparison_table([Pair("piqa", a, b, 0)], "A", "B").rows[0].estimate
    yield "difference of two checkpoints, percentage points", compared, 0.0


def same_mixtures_interval(answers: np.ndarray) -> tuple[float, float] | None:
    """The interval of Table 5 for these same mixtures; answers: PT and SFT [2, mixtures, examples]."""
    cube = {
        (SCALES[0], stage, "accuracy"): side.mean(axis=1)[:, None] for stage, side in zip(STAGES, answers, strict=True)
    }
    places = [(SCALES[0], stage, "piqa") for stage in STAGES]
    values = {(*place, "accuracy"): side[None].astype(np.float32) for place, side in zip(places, answers, strict=True)}
    study = panel_of(cube, ("piqa",), items=Items(values, dict.fromkeys(places, "same")))
    table = transfer_table(study)
    found: tuple[float, float] | None = table.values(table.rows[0])["interval, same mixtures"]
    return found


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
    rates: dict[str, float] = {}
    if ends:
        rates["coverage"] = float(np.mean([low - 1e-9 <= true <= high + 1e-9 for low, high, true in ends]))
        rates["mean_width"] = float(np.mean([high - low for low, high, _ in ends]))
        rates["without_interval"] = 1 - len(ends) / len(found)
    if p:
        rates["rejected"] = float(np.mean([value <= LEVEL for value in p]))
    return {name: round(rate, 3) for name, rate in rates.items()}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300, help="simulated for each true r (default: 300)")
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
