"""How far a correlation corrected for noise is from the true one, and what its bootstrap would cover: simulated.

    python tests/perf/coverage/corrected_correlation.py

In: nothing. Out: the numbers of docs/statistics.md, "Corrected for noise". Studies of nine normal mixtures; the
variance of the noise is known, as it nearly is from many examples, and the errors of the two stages are unrelated.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from analysis.protocols.noise import FLOOR
from configs.artifacts import write_json

POINTS = 9
RELIABILITIES = (0.5, 0.7, 0.9)
TRUE_R = (0.3, 0.6, 0.9)
RESAMPLED = 0.6
"""True r of the studies that are resampled."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--resampled", type=int, default=400, help="studies whose mixtures are resampled")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    args = parser.parse_args()
    lines: list[dict[str, float]] = []
    resampled: list[dict[str, float]] = []
    random = np.random.default_rng(0)
    print("reliability, true r, share shown, mean r, corrected: mean, median, sd, share beyond 1, mean of the rest")
    for reliability in RELIABILITIES:
        noise = 1 / reliability - 1  # of a true variance of 1
        for rho in TRUE_R:
            x, y = studies(random, args.studies, noise, rho)
            r, corrected = both(x, y, noise, FLOOR)
            found = corrected[np.isfinite(corrected)]
            line = {
                "reliability": reliability,
                "true_r": rho,
                "share_shown": len(found) / len(r),
                "mean_r": r.mean(),
                "corrected_mean": found.mean(),
                "corrected_median": np.median(found),
                "corrected_sd": found.std(),
                "share_beyond_1": (abs(found) > 1).mean(),
                "mean_of_the_rest": found[abs(found) <= 1].mean(),
            }
            lines.append({name: float(value) for name, value in line.items()})
            print("  ".join(f"{value:.2f}" for value in line.values()), flush=True)
    print("reliability, resamples without a true variance, percentile intervals that hold the true r")
    for reliability in RELIABILITIES:
        noise, undefined, held = 1 / reliability - 1, [], []
        for x, y in zip(*studies(random, args.resampled, noise, RESAMPLED), strict=True):
            if math.isnan(both(x[None], y[None], noise, FLOOR)[1][0]):
                continue
            drawn = random.integers(0, POINTS, (400, POINTS))
            _, again = both(x[drawn], y[drawn], noise, 0.0)
            undefined.append(np.isnan(again).mean())
            if undefined[-1] < 0.5:
                low, high = np.nanquantile(again, [0.025, 0.975])
                held.append(low <= RESAMPLED <= high)
        shares = float(np.mean(undefined)), float(np.mean(held))
        resampled.append(dict(zip(("reliability", "undefined", "coverage"), (reliability, *shares), strict=True)))
        print(reliability, *(f"{share:.2f}" for share in shares), flush=True)
    if args.output:
        write_json(args.output, {"studies": args.studies, "lines": lines, "resampled": resampled})


def studies(random: np.random.Generator, count: int, noise: float, rho: float) -> np.ndarray:
    """Scores seen early and late, [2, studies, POINTS]."""
    early, other = random.normal(size=(2, count, POINTS))
    truth = np.stack([early, rho * early + math.sqrt(1 - rho**2) * other])
    return truth + math.sqrt(noise) * random.normal(size=truth.shape)


def both(x: np.ndarray, y: np.ndarray, noise: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """r and r corrected, [studies]; NaN below the floor of reliability."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (x, y))
    xx, yy, xy = ((u * v).sum(axis=1) / (POINTS - 1) for u, v in ((x, x), (y, y), (x, y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        enough = np.minimum(1 - noise / xx, 1 - noise / yy) >= floor
        return xy / np.sqrt(xx * yy), np.where(enough, xy / np.sqrt((xx - noise) * (yy - noise)), np.nan)


if __name__ == "__main__":
    main()
