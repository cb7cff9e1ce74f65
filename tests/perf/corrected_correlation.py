"""How far a correlation corrected for noise is from the true one, and what its bootstrap would cover: simulated.

    python tests/perf/corrected_correlation.py

In: nothing. Out: the numbers of docs/statistics.md, "Corrected for noise". Studies of nine normal mixtures; the
variance of the noise is known, as it nearly is from many examples, and the errors of the two stages are unrelated.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from analysis.protocols.noise import FLOOR

POINTS = 9
RELIABILITIES = (0.5, 0.7, 0.9)
TRUE_R = (0.3, 0.6, 0.9)
RESAMPLED = 0.6
"""True r of the studies that are resampled."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--resampled", type=int, default=400, help="studies whose mixtures are resampled")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    print("reliability  true r  shown %  mean r  corrected: mean  median  sd  beyond %  mean of the rest")
    for reliability in RELIABILITIES:
        noise = 1 / reliability - 1  # of a true variance of 1
        for rho in TRUE_R:
            x, y = studies(random, args.studies, noise, rho)
            r, corrected = both(x, y, noise, FLOOR)
            found = corrected[np.isfinite(corrected)]
            print(
                f"{reliability} {rho} {100 * len(found) / len(r):.0f} {r.mean():.2f} {found.mean():.2f} "
                f"{np.median(found):.2f} {found.std():.2f} {100 * (abs(found) > 1).mean():.0f} "
                f"{found[abs(found) <= 1].mean():.2f}"
            )
    print("reliability  resamples without a true variance %  percentile intervals that hold the true r %")
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
        print(f"{reliability} {100 * np.mean(undefined):.0f} {100 * np.mean(held):.0f}")


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
