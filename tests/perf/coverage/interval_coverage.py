"""How often 95 % intervals of a correlation over nine mixtures hold the true one: simulated, not derived.

    python tests/perf/coverage/interval_coverage.py --output tests/perf/results/interval_coverage.json

In: nothing. Out: for each distribution and true r the coverage of each interval and its mean width, over simulated
studies; where the true r is 0 also the share of permutation p-values of at most .05. "shown" is the interval of the
tables: Fisher's, or the jackknife's where one point carries much of r. And the coverage of the interval of a mean r.

The distributions: normal; Student's t with three degrees of freedom (heavy tails); normal, rounded to whole standard
deviations (ties); lognormal (skewed).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from analysis.stats.association import pearson, permuted
from analysis.stats.estimates import correlation_interval, fisher_interval
from analysis.stats.resampling import (
    all_orders,
    bca_interval,
    bootstrap_counts,
    jackknife_interval,
    percentile_interval,
    without_one,
)
from configs.artifacts import write_json
from configs.errors import user_errors

POINTS = 9
TRUE_R = (0.0, 0.5, 0.9)
DRAWS = 2_000
"""Bootstrap draws: the first of the 10,000 that an interval takes, for a fifth of the time."""
AT_ONCE = 500
"""Studies whose bootstrap draws are held at the same time."""
MEAN_R = (0.0, 0.5, 0.8, 0.95)
BENCHMARKS, MEANS = 20, 4_000
"""Benchmarks of a mean, and studies, at most, in which it is simulated."""
TESTED = 2_000
"""Studies, at most, whose permutation p is computed from all 9! orders."""
KINDS = ("shown", "Fisher", "jackknife", "BCa", "percentile")
Intervals = dict[str, tuple[np.ndarray, ...]]


def normal(random: np.random.Generator, studies: int, rho: float) -> np.ndarray:
    """[2, studies, POINTS] with correlation rho."""
    x, noise = random.normal(size=(2, studies, POINTS))
    return np.stack([x, rho * x + math.sqrt(1 - rho**2) * noise])


def heavy_tails(random: np.random.Generator, studies: int, rho: float) -> np.ndarray:
    return normal(random, studies, rho) / np.sqrt(random.chisquare(3, (studies, POINTS)) / 3)


def ties(random: np.random.Generator, studies: int, rho: float) -> np.ndarray:
    return np.round(normal(random, studies, rho))


def skewed(random: np.random.Generator, studies: int, rho: float) -> np.ndarray:
    return np.exp(normal(random, studies, rho))


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int, float], np.ndarray]] = {
    "normal": normal,
    "heavy tails": heavy_tails,
    "ties": ties,
    "skewed": skewed,
}


def true_r(name: str, rho: float) -> float:
    """The correlation of the distribution itself."""
    if name == "skewed":
        return math.expm1(rho) / math.expm1(1.0)
    if name == "ties":
        many = DISTRIBUTIONS[name](np.random.default_rng(0), 1_000_000, rho).reshape(2, -1)
        return float(np.corrcoef(many)[0, 1])
    return rho


def intervals(x: np.ndarray, y: np.ndarray) -> Intervals:
    """x, y: [studies, POINTS]."""
    r = pearson(x, y, np.ones((1, POINTS)))[0]
    drawn = pearson(x, y, bootstrap_counts(POINTS)[:DRAWS])
    ends = [fisher_interval(float(value), POINTS) if np.isfinite(value) else (math.nan, math.nan) for value in r]
    low, high = np.array(ends, dtype=float).T
    without = pearson(x, y, without_one(POINTS))
    shown = [correlation_interval(*pair, "points")[0] for pair in zip(r.tolist(), without.T, strict=True)]
    return {
        "shown": tuple(np.array(shown, dtype=float).T),
        "Fisher": (low, high),
        "jackknife": jackknife_interval(r, without),
        "BCa": bca_interval(r, drawn, without),
        "percentile": percentile_interval(drawn),
    }


def measure(name: str, rho: float, studies: int) -> dict[str, Any]:
    random = np.random.default_rng([POINTS, list(DISTRIBUTIONS).index(name), round(100 * rho)])
    truth = true_r(name, rho)
    at_once = min(studies, AT_ONCE)
    parts = [intervals(*DISTRIBUTIONS[name](random, at_once, rho)) for _ in range(studies // at_once)]
    found: dict[str, Any] = {"true_r": round(truth, 4)}
    for kind in parts[0]:
        low, high = (np.concatenate([part[kind][side] for part in parts]) for side in (0, 1))
        there = np.isfinite(low)
        covered = (low <= truth) & (truth <= high)
        found[kind] = {
            "coverage": round(float(covered[there].mean()), 4),
            "mean_width": round(float((high - low)[there].mean()), 3),
            "refused": round(float(1 - there.mean()), 4),
        }
    if rho == 0:
        tested = [DISTRIBUTIONS[name](random, at_once, rho) for _ in range(max(min(studies, TESTED) // at_once, 1))]
        p = np.concatenate([permuted(*some, all_orders(POINTS))[0] for some in tested])
        found["rejected"] = round(float(np.mean(p[np.isfinite(p)] <= 0.05)), 4)
    return found


def measure_mean(mixtures: int, shared: float, rho: float, studies: int) -> dict[str, Any]:
    """Coverage of the jackknife's interval of the mean r of 20 benchmarks, over normal mixtures.

    shared: correlation of two benchmarks over mixtures, early and, without the early score, late.
    """
    random = np.random.default_rng([mixtures, round(10 * shared), round(100 * rho)])
    counts = np.vstack([np.ones(mixtures), without_one(mixtures)])
    held = []
    for _ in range(studies):
        x, e = (
            math.sqrt(shared) * random.normal(size=mixtures)
            + math.sqrt(1 - shared) * random.normal(size=(BENCHMARKS, mixtures))
            for _ in range(2)
        )
        means = pearson(x, rho * x + math.sqrt(1 - rho**2) * e, counts).mean(axis=1)
        low, high = jackknife_interval(means[0], means[1:])
        held.append(low <= rho <= high)
    return {"mixtures": mixtures, "shared": shared, "true_r": rho, "coverage": round(float(np.mean(held)), 4)}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--studies", type=int, default=10_000, help="simulated for each line (default: 10,000)")
    add("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    found: dict[str, dict[str, Any]] = {}
    print(f"{'':<14}{'true r':>8}" + "".join(f"{kind:>12}{'width':>8}" for kind in KINDS) + "  p <= .05")
    for name in DISTRIBUTIONS:
        for rho in TRUE_R:
            line = measure(name, rho, options.studies)
            found.setdefault(name, {})[f"rho {rho:g}"] = line
            kinds = [line[kind] for kind in KINDS]
            numbers = "".join(f"{100 * kind['coverage']:>10.1f} %{kind['mean_width']:>8.2f}" for kind in kinds)
            print(f"{name:<14}{line['true_r']:>8.2f}{numbers}  {line.get('rejected', '')}", flush=True)
    means = []
    for mixtures, shared, rho in itertools.product((9, 18), (0.0, 0.5, 0.9), MEAN_R):
        means.append(measure_mean(mixtures, shared, rho, min(options.studies, MEANS)))
        print("mean of 20 benchmarks", means[-1], flush=True)
    if options.output:
        about = {"points": POINTS, "nominal": 0.95, "studies": options.studies, "draws": DRAWS}
        write_json(options.output, about | {"coverage": found, "means": means})


if __name__ == "__main__":
    main()
