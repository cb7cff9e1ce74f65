"""How often 95 % intervals of a decision hold what is true: simulated over nine mixtures, not derived.

    python tests/perf/coverage/decision_coverage.py --output tests/perf/results/decision_coverage.json

In: nothing. Out: for each distribution of true scores (those of `interval_coverage`), true r and reliability of what is
seen, how often `analysis.protocols.decision_noise` holds the true decision accuracy and the true cost of the choice,
how wide it is, and how often what was seen is inside.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
from interval_coverage import DISTRIBUTIONS, POINTS

from analysis.protocols.decision_noise import same_mixtures
from analysis.protocols.decisions import ranked_alike, top_regret
from configs.artifacts import write_json
from configs.errors import user_errors

SD = {"normal": 1.0, "heavy tails": math.sqrt(3), "skewed": math.sqrt(math.e**2 - math.e)}
"""Of the distributions."""
TRUE_R = (0.0, 0.5, 0.9, 1.0)
RELIABILITIES = (0.3, 0.6, 0.9)
DRAWS = 300
"""From which the noise is known."""


def measure(name: str, r: float, reliability: float, studies: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng([POINTS, list(SD).index(name), round(100 * r), round(100 * reliability)])
    noise = math.sqrt(1 / reliability - 1)
    lines: dict[str, list[tuple[bool, float, bool]]] = {"decision accuracy": [], "regret": []}
    for early, late in np.moveaxis(DISTRIBUTIONS[name](random, studies, r) / SD[name], 1, 0):
        seen = np.stack([early, late]) + random.normal(0, noise, (2, POINTS))
        found = same_mixtures(*seen, *(seen[:, None] + random.normal(0, noise, (2, DRAWS, POINTS))))
        assert found is not None
        truths = float(ranked_alike(early, late)), float(top_regret(seen[0], late, 1))
        shown = float(ranked_alike(*seen)), float(top_regret(*seen, 1))
        ends = zip(lines.values(), (found.accuracy, found.regret[0]), truths, shown, strict=True)
        for line, (low, high), true, value in ends:
            held, inside = (low - 1e-9 <= number <= high + 1e-9 for number in (true, value))
            line.append((held, high - low, inside))
    keys = ("coverage", "mean_width", "seen_inside")
    return {
        what: {key: round(float(value), 3) for key, value in zip(keys, np.mean(line, axis=0), strict=True)}
        for what, line in lines.items()
    }


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated for each line (default: 1,000)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    print(f"{'':<14}{'true r':>8}{'reliability':>13}{'accuracy':>12}{'width':>8}{'regret':>12}{'width, sd':>11}")
    for name, r, reliability in itertools.product(SD, TRUE_R, RELIABILITIES):
        line = measure(name, r, reliability, options.studies)
        found.append({"points": name, "true_r": r, "reliability": reliability} | line)
        accuracy, regret = line.values()
        numbers = f"{100 * accuracy['coverage']:>10.1f} %{accuracy['mean_width']:>8.2f}"
        numbers += f"{100 * regret['coverage']:>10.1f} %{regret['mean_width']:>11.2f}"
        print(f"{name:<14}{r:>8.2f}{reliability:>13.1f}{numbers}", flush=True)
    if options.output:
        about = {"mixtures": POINTS, "nominal": 0.95}
        write_json(options.output, about | {"studies": options.studies, "lines": found})


if __name__ == "__main__":
    main()
