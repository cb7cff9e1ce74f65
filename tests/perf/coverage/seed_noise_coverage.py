"""How often the interval of a cost holds the true one where few seeds tell the noise: simulated over nine mixtures.

    python tests/perf/coverage/seed_noise_coverage.py --output tests/perf/results/seed_noise_coverage.json

In: nothing. Out: for each number of repeated runs, true r and reliability the coverage and the mean width of
`analysis.protocols.decision_noise`, once with the noise of the seeds taken for known and once as the analysis does it,
with its uncertainty. All noise is the seeds'; the first seed of every mixture is the one that is seen.
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

from analysis.protocols.decision_noise import same_mixtures
from analysis.protocols.decisions import ranked_alike, top_regret
from analysis.protocols.noise import Draws, RepeatedRuns
from configs.artifacts import write_json
from configs.errors import user_errors

MIXTURES = 9
REPEATED = {"3 seeds of one mixture": (3, 1), "2 seeds of four mixtures": (2, 4), "3 seeds of all": (3, 9)}
"""Name -> (seeds, mixtures that have so many)."""
TRUE_R = (0.0, 0.5, 0.9)
RELIABILITIES = (0.3, 0.6, 0.9)
RUN_R = 0.5
"""Correlation of a run's noise early with that late."""
DRAWS = 2000
EARLY, LATE = ("240m", "PT"), ("240m", "SFT")
WAYS = ("noise taken for known", "noise with its uncertainty")


def correlated(random: np.random.Generator, r: float, shape: tuple[int, ...]) -> np.ndarray:
    """Two normal arrays, [2, *shape]."""
    first, other = random.normal(size=(2, *shape))
    return np.stack([first, r * first + math.sqrt(1 - r**2) * other])


def measure(name: str, r: float, reliability: float, studies: int) -> dict[str, dict[str, dict[str, float]]]:
    seeds, repeated = REPEATED[name]
    random = np.random.default_rng([MIXTURES, seeds, repeated, round(100 * r), round(100 * reliability)])
    noise = math.sqrt(1 / reliability - 1)
    lines: dict[str, dict[str, list[tuple[bool, float]]]] = {way: {"accuracy": [], "cost": []} for way in WAYS}
    for _ in range(studies):
        truth = correlated(random, r, (MIXTURES,))
        runs = truth[:, None] + noise * correlated(random, RUN_R, (seeds, MIXTURES))
        seen, again = runs[:, 0], runs[:, :, :repeated]
        deviations = (again - again.mean(axis=1, keepdims=True)).reshape(2, -1, 1) * math.sqrt(seeds / (seeds - 1))
        sides = {(*EARLY, "accuracy"): deviations[0], (*LATE, "accuracy"): deviations[1]}
        told = Draws({}, "seeds", repeated={EARLY[0]: RepeatedRuns(sides, (seeds - 1) * repeated, 1.0)})
        picks = random.integers(0, deviations.shape[1], (DRAWS, MIXTURES))
        drawn = seen[:, None] + deviations[:, picks, 0]
        true = {"accuracy": float(ranked_alike(*truth)), "cost": float(top_regret(seen[0], truth[1], 1))}
        for way, of_seeds in zip(WAYS, (None, told.seed_noise(EARLY, LATE, [0])), strict=True):
            found = same_mixtures(*seen, *drawn, of_seeds)
            assert found is not None
            for what, (low, high) in {"accuracy": found.accuracy, "cost": found.regret[0]}.items():
                lines[way][what].append((low - 1e-9 <= true[what] <= high + 1e-9, high - low))
    return {
        way: {
            what: {
                key: round(float(value), 3)
                for key, value in zip(("coverage", "mean_width"), np.mean(line, axis=0), strict=True)
            }
            for what, line in both.items()
        }
        for way, both in lines.items()
    }


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="simulated for each line (default: 500)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    print(f"{'':<26}{'true r':>7}{'reliability':>13}   coverage, width: cost (known, uncertain), accuracy (same)")
    for name, r, reliability in itertools.product(REPEATED, TRUE_R, RELIABILITIES):
        line = measure(name, r, reliability, options.studies)
        found.append({"repeated": name, "true_r": r, "reliability": reliability} | line)
        numbers = [
            line[way][what][key] for what in ("cost", "accuracy") for way in WAYS for key in ("coverage", "mean_width")
        ]
        print(f"{name:<26}{r:>7.2f}{reliability:>13.1f}   " + " ".join(f"{n:.3f}" for n in numbers), flush=True)
    if options.output:
        about = {"mixtures": MIXTURES, "nominal": 0.95, "run_r": RUN_R}
        write_json(options.output, about | {"studies": options.studies, "lines": found})


if __name__ == "__main__":
    main()
