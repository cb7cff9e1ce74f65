"""How often a category's mean r is called significant, and how often its interval holds the true one: simulated.

    python tests/perf/coverage/category_coverage.py --output tests/perf/results/category_coverage.json

In: nothing. Out: for each set of true r of four categories (7, 4, 4 and 5 benchmarks, nine mixtures, three seeds) what
`analysis.protocols.category_means` says of the third category, over all its benchmarks and over the usable ones; beside
it partial pooling of Fisher's z (random effects of benchmarks and categories, DerSimonian-Laird), which the analysis
does not use because of these numbers.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))

import numpy as np
from panels import panel_of

from analysis.protocols.category_means import category_means
from analysis.stats import resampling
from analysis.stats.association import pearson, unit
from analysis.stats.estimates import Estimate
from configs.artifacts import write_json
from configs.errors import user_errors

MIXTURES, SEEDS = 9, 3
GROUPS = np.repeat(np.eye(4), [7, 4, 4, 5], axis=1)
"""The paper's categories and their benchmarks, [categories, benchmarks]."""
WATCHED, NAME = 2, "NLI"
"""The category whose truth the cases vary."""
POOLED_ORDERS = 1000


@dataclass(frozen=True)
class Case:
    others: float
    """True r of the other categories."""
    watched: float
    """True r of the watched one."""
    shared: float = 0.0
    """Share of the mixtures' effects that all benchmarks have in common."""
    spread: float = 1.0
    """Standard deviation of the watched category's mixtures; 0: they do not differ."""
    run_noise: float = 0.0
    """Correlation of the run noise after PT with that after SFT."""


CASES = {
    "all 0.9": Case(0.9, 0.9),
    "all 0.9, a shared factor": Case(0.9, 0.9, 0.5),
    "one 0.5, the others 0.9": Case(0.9, 0.5),
    "one 0, the others 0.9": Case(0.9, 0.0),
    "one 0, the others 0.9, a shared factor": Case(0.9, 0.0, 0.5),
    "all 0": Case(0.0, 0.0),
    "one without differences, the others 0.9": Case(0.9, 0.0, spread=0.0),
    "one without differences, run noise of r 0.95": Case(0.9, 0.0, spread=0.0, run_noise=0.95),
}
NOISE = 1 / 3
"""Standard deviation of the noise of a run, where mixtures have one of 1: a reliability of 0.9."""


def study(random: np.random.Generator, case: Case) -> np.ndarray:
    """Scores, [stages, seeds, mixtures, benchmarks]."""
    of_category = np.array([case.others] * 4)
    of_category[WATCHED] = case.watched
    r = of_category @ GROUPS
    own, common = random.normal(size=(2, MIXTURES, 20)), random.normal(size=(2, MIXTURES, 1))
    first, other = math.sqrt(case.shared) * common + math.sqrt(1 - case.shared) * own
    truth = np.stack([first, r * first + np.sqrt(1 - r**2) * other])
    truth = truth * np.where(GROUPS[WATCHED] > 0, case.spread, 1.0)
    noise, more = random.normal(size=(2, SEEDS, MIXTURES, 20))
    noise = np.stack([noise, case.run_noise * noise + math.sqrt(1 - case.run_noise**2) * more])
    return np.asarray(truth[:, None] + NOISE * noise)


def pooled_means(r: np.ndarray) -> np.ndarray:
    """Partially pooled means of Fisher's z by category, [draws, categories], of r [draws, benchmarks]."""
    variance = 1 / (MIXTURES - 3)
    z, k = np.arctanh(np.clip(r, -resampling.NEARLY_ONE, resampling.NEARLY_ONE)), GROUPS.sum(axis=1)
    own = z @ GROUPS.T / k
    within = ((z - own @ GROUPS) ** 2).sum(axis=1) / (k - 1).sum()
    error = (np.maximum(0.0, within - variance)[:, None] + variance) / k
    w = 1 / error
    total = w.sum(axis=1)
    q = (w * (own - ((w * own).sum(axis=1) / total)[:, None]) ** 2).sum(axis=1)
    between = np.maximum(0.0, (q - (len(k) - 1)) / (total - (w**2).sum(axis=1) / total))[:, None]
    precision = 1 / (between + error)
    grand = ((precision * own).sum(axis=1) / precision.sum(axis=1))[:, None]
    return np.asarray(grand + between * precision * (own - grand))


def pooled(scores: np.ndarray) -> tuple[float, float]:
    """The watched category's pooled r, and its p when the mixtures of all benchmarks are shuffled alike."""
    x, y = scores[:, 0].transpose(0, 2, 1)
    u, v = unit(x), unit(y)
    order = resampling.independent_orders(MIXTURES, 1)[:POOLED_ORDERS, 0]
    value = pooled_means(pearson(x, y, np.ones((1, MIXTURES))))[0, WATCHED]
    null = pooled_means(np.einsum("bi,bdi->db", u, v[:, order]))[:, WATCHED]
    return math.tanh(value), float((1 + (np.abs(null) >= abs(value)).sum()) / (1 + POOLED_ORDERS))


def measure(name: str, studies: int) -> dict[str, Any]:
    case = CASES[name]
    random = np.random.default_rng([MIXTURES, list(CASES).index(name)])
    # The r that is estimated is that of scores with their noise, each with a share of it.
    differ = case.spread**2
    truth = (case.watched * differ + case.run_noise * NOISE**2) / (differ + NOISE**2)
    every: list[Estimate] = []
    usable: list[Estimate] = []
    pool: list[tuple[float, float]] = []
    for _ in range(studies):
        scores = study(random, case)
        values = {("240m", stage, "accuracy", "sum"): side for stage, side in zip(("PT", "SFT"), scores, strict=True)}
        cube = {key[:3]: side[0] for key, side in values.items()}
        found = category_means(panel_of(cube, seeds=tuple(range(SEEDS)), values=values), "240m", "accuracy")[NAME]
        every.append(found.every.estimate)
        usable.append(found.usable.estimate)
        pool.append(pooled(scores))
    shrunken, p = np.array(pool).T
    return {
        "true_r": round(truth, 3),
        "mean of r": summary(every, truth),
        "usable benchmarks": summary(usable, truth),
        "partial pooling": {
            "significant": round(float((p <= 0.05).mean()), 3),
            "error": round(float(np.sqrt(np.mean((shrunken - truth) ** 2))), 3),
        },
    }


def summary(estimates: Sequence[Estimate], truth: float) -> dict[str, float]:
    """Share that is given and, of those, shares that are significant and hold the truth; error: root mean square."""
    given = [e for e in estimates if e.value is not None]
    values = np.array([e.value for e in given], dtype=float)
    found = {
        "given": len(given) / len(estimates),
        "significant": float(np.mean([(e.p or 0.0) <= 0.05 for e in given])) if given else 0.0,
        "coverage": float(np.mean([bool(e.inside(truth)) for e in given])) if given else 0.0,
        "error": float(np.sqrt(np.mean((values - truth) ** 2))) if given else 0.0,
    }
    return {key: round(value, 3) for key, value in found.items()}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated for each line (default: 1,000)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    # Ten thousand drawn orders in place of all 362,880: as good at a level of 5 %, and fifty times as fast.
    resampling.EXACT_UP_TO = MIXTURES - 1
    found: list[dict[str, Any]] = []
    print(f"{'':<46}{'true r':>7}  p <= 0.05: all, usable, pooled   coverage: all, usable   error: all, pooled")
    for name in CASES:
        line = measure(name, options.studies)
        every, usable, shrunken = line["mean of r"], line["usable benchmarks"], line["partial pooling"]
        numbers = [every["significant"], usable["significant"], shrunken["significant"]]
        numbers += [every["coverage"], usable["coverage"], usable["given"], every["error"], shrunken["error"]]
        print(f"{name:<46}{line['true_r']:>7.2f}  " + "".join(f"{number:>8.3f}" for number in numbers), flush=True)
        found.append({"case": name} | line)
    if options.output:
        about = {"mixtures": MIXTURES, "seeds": SEEDS, "nominal": 0.95}
        write_json(options.output, about | {"studies": options.studies, "lines": found})


if __name__ == "__main__":
    main()
