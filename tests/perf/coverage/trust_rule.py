"""Error rate and power of the verdict "trust": simulated studies in which the true correlations are known.

    python tests/perf/coverage/trust_rule.py --output tests/perf/results/trust_rule.json

In: nothing. Out: a line for each setting. For studies without any true correlation it has the share of studies that
trust anything; where some are true, the false discovery rate (mean share of the trusted that are false) and the power
(share of the true that are trusted). The rule is the one of the report: `analysis.protocols.replication` and
`benjamini_bogomolov` over the arrows, then the floor of reliability.

A study has nine mixtures, 20 benchmarks of 200 to 2,000 examples, and two scales. Differences between mixtures have a
standard deviation of 3 percentage points. Runs of one mixture differ by run noise, which PT and SFT of a run share
(r 0.95). Half of what examples add to the variance of an accuracy is the checkpoint's own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from analysis.protocols.noise import FLOOR
from analysis.protocols.replication import replicate
from analysis.stats.estimates import FALSE_DISCOVERIES, benjamini_bogomolov, mean_measured
from configs.artifacts import write_json
from configs.errors import user_errors

BENCHMARKS = 20
EFFECT_PP = 3.0
"""Standard deviation of the true differences between mixtures."""
SHARED_BY_STAGES = 0.95
"""Correlation of the run noise of PT and SFT."""
DRAWS = 4_000
"""Permutations: the first of the 10,000 that a verdict takes, for less than half of the time."""
AT_ONCE = 10
"""Studies whose permutations are computed together."""
SCALE_0, SCALE_1 = (0, 1), (2, 3)
"""Places of PT and SFT in the arrays below."""
ARROWS = (SCALE_0, SCALE_1, (0, 2), (1, 3), (0, 3))
"""PT to SFT at both scales; between scales PT to PT, SFT to SFT and PT to SFT."""


@dataclass(frozen=True)
class Setting:
    """What is true in the simulated studies, and what was trained."""

    truth: str
    """A key of `TRUTHS`."""
    r: float = 0.0
    """True correlation of the benchmarks and arrows that have one."""
    seeds: int = 3
    noise_pp: float = 1.0
    """Standard deviation of the run noise."""
    mixtures: int = 9
    special: str = ""
    """A further condition, a key of `SPECIAL`."""


TRUTHS = {
    "no differences": "mixtures do not differ",
    "unrelated differences": "mixtures differ after PT and after SFT, true r 0",
    "PT alone": "mixtures differ after PT only",
    "all": "all benchmarks correlate on all arrows",
    "some": "4 of 20 benchmarks correlate on all arrows",
    "one arrow": "all benchmarks correlate on one arrow of five",
}
SPECIAL = {
    "unequal seeds": "a third of the mixtures has two seeds more",
    "gaps": "a tenth of the runs was not scored",
    "one large seed": "the larger scale has one seed",
    "shared by scales": "run noise of the two scales correlates too (r 0.9)",
    "heavy tails": "differences have Student's t distribution with 4 degrees of freedom",
    "own examples": "half of the checkpoint's own part of examples is the mixture's at every seed, stage and scale: "
    "mixtures differ on these examples, though not on others",
}
NULLS = ("no differences", "unrelated differences", "PT alone")


def settings() -> list[Setting]:
    found = [Setting(truth, seeds=s, noise_pp=n) for truth in NULLS[:2] for s in (2, 3, 5) for n in (0.5, 1, 2, 3)]
    found += [Setting(truth, mixtures=18) for truth in NULLS[:2]]
    found += [Setting("PT alone", noise_pp=n) for n in (1, 3)]
    found += [Setting(truth, noise_pp=n, special=s) for s in SPECIAL for truth in NULLS[:2] for n in (1, 3)]
    found += [Setting("some", r, seeds=s) for r in (0.95, 0.8) for s in (2, 3, 5)]
    found += [Setting("one arrow", 0.95, noise_pp=n) for n in (1, 3)]
    found += [Setting("all", r, s, n) for r in (0.95, 0.8, 0.3) for s in (2, 3, 5) for n in (0.5, 1, 2, 3)]
    found += [Setting("all", r, mixtures=18) for r in (0.95, 0.8)]
    return found + [Setting("all", r, special=s) for s in SPECIAL for r in (0.95, 0.8)]


def related(setting: Setting) -> np.ndarray:
    """Whether each benchmark truly correlates on each arrow, bool [arrows, benchmarks]."""
    found = np.zeros((len(ARROWS), BENCHMARKS), bool)
    if setting.truth == "all":
        found[:] = True
    elif setting.truth == "some":
        found[:, :4] = True
    elif setting.truth == "one arrow":
        found[0] = True
    return found


def simulate(random: np.random.Generator, setting: Setting, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """(accuracies, noise): percentage points [4 scales and stages, seeds, mixtures, studies, benchmarks], NaN where not
    scored; and the variance of a mixture's own examples [studies, benchmarks], which single answers tell.
    """
    m, s = setting.mixtures, setting.seeds + 2 * (setting.special == "unequal seeds")
    values = np.repeat(_effects(random, setting, studies)[:, None], s, axis=1)
    values += setting.noise_pp * _run_noise(random, setting, (s, m, studies, BENCHMARKS))
    examples = np.exp(random.uniform(math.log(200), math.log(2_000), (studies, BENCHMARKS)))
    own = 100 * np.sqrt(0.25 * 0.5 / examples)
    of_mixture = np.zeros_like(own)
    if setting.special == "own examples":
        own /= math.sqrt(2)
        of_mixture = own**2
        values += own * random.normal(size=(m, studies, BENCHMARKS))
    values += own * random.normal(size=values.shape)
    if setting.special == "unequal seeds":
        values[:, setting.seeds :, m // 3 :] = np.nan
    if setting.special == "gaps":
        values[:, random.random((s, m)) < 0.1] = np.nan
    if setting.special == "one large seed":
        values[2:, 1:] = np.nan
    return values, of_mixture


def _effects(random: np.random.Generator, setting: Setting, studies: int) -> np.ndarray:
    """True differences between mixtures, [4, mixtures, studies, benchmarks]."""
    shape = (setting.mixtures, studies, BENCHMARKS)
    own = random.normal(size=(4, *shape))
    if setting.truth == "no differences":
        return np.zeros_like(own)
    if setting.truth == "PT alone":
        own[[1, 3]] = 0.0
        return EFFECT_PP * own
    common = random.normal(size=shape)
    if setting.special == "heavy tails":
        own, common = (side / np.sqrt(random.chisquare(4, side.shape) / 2) for side in (own, common))
    among = related(setting)
    for place, correlated in {0: among[[0, 2, 4]], 1: among[[0, 3]], 2: among[[1, 2]], 3: among[[1, 3, 4]]}.items():
        # With a common factor of weight sqrt(r), any two places correlate by r.
        some = correlated.any(axis=0)
        own[place][..., some] = (math.sqrt(setting.r) * common + math.sqrt(1 - setting.r) * own[place])[..., some]
    return EFFECT_PP * own


def _run_noise(random: np.random.Generator, setting: Setting, shape: tuple[int, ...]) -> np.ndarray:
    """Run noise of standard deviation 1, [4, ...]."""
    by_run = random.normal(size=(2, *shape))  # of the two scales
    if setting.special == "shared by scales":
        by_run = math.sqrt(0.9) * random.normal(size=shape) + math.sqrt(0.1) * by_run
    return math.sqrt(SHARED_BY_STAGES) * np.repeat(by_run, 2, axis=0) + math.sqrt(1 - SHARED_BY_STAGES) * random.normal(
        size=(4, *shape)
    )


def reliable(values: np.ndarray, of_mixture: np.ndarray) -> np.ndarray:
    """Whether a single run's reliability reaches the floor, bool [4, studies, benchmarks].

    Noise is the spread of seeds, which holds the examples' own part of a run, and that of a mixture's own examples.
    """
    with np.errstate(invalid="ignore"):  # NaN, and below the floor, where no mixture has two seeds
        by_seed, observed = _variance(values), _variance(values[:, :1].swapaxes(1, 2))[:, 0]
        return np.asarray(1 - (mean_measured(by_seed, axis=1) + of_mixture) / observed >= FLOOR)


def _variance(values: np.ndarray) -> np.ndarray:
    """Variance over axis 1 of the values that are not NaN; NaN for fewer than two."""
    count = np.isfinite(values).sum(axis=1)
    deviations = values - mean_measured(values, axis=1)[:, None]
    with np.errstate(divide="ignore"):
        return np.where(count > 1, np.nansum(deviations**2, axis=1) / (count - 1), np.nan)


def trusted(values: np.ndarray, of_mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(by the test alone, with the floor of reliability), bool [studies, arrows, benchmarks] each."""
    studies = values.shape[3]
    p = []
    for early, late in ARROWS:
        sides = (values[place].reshape(*values.shape[1:3], -1) for place in (early, late))
        p.append([replication.estimate.p for replication in replicate(*sides, draws=DRAWS)])
    found = np.zeros((studies, len(ARROWS), BENCHMARKS), bool)
    for study in range(studies):
        mine = [arrow[study * BENCHMARKS : (study + 1) * BENCHMARKS] for arrow in p]
        q = np.array(benjamini_bogomolov(mine), dtype=float)  # None becomes NaN
        found[study] = q <= FALSE_DISCOVERIES
    floor = reliable(values, of_mixture)
    above = np.stack([floor[early] & floor[late] for early, late in ARROWS], axis=1)
    return found, found & above


def measure(setting: Setting, studies: int) -> dict[str, Any]:
    random = np.random.default_rng(list(repr(setting).encode()))
    parts = [trusted(*simulate(random, setting, AT_ONCE)) for _ in range(-(-studies // AT_ONCE))]
    test, rule = (np.concatenate([part[side] for part in parts])[:studies] for side in (0, 1))
    true = related(setting)
    found: dict[str, Any] = {"any_trust": round(float(rule.any(axis=(1, 2)).mean()), 4)}
    found["any_trust_without_floor"] = round(float(test.any(axis=(1, 2)).mean()), 4)
    if true.any():
        false = (test & ~true).sum(axis=(1, 2)) / np.maximum(test.sum(axis=(1, 2)), 1)
        found["false_discovery_rate"] = round(float(false.mean()), 4)
        for name, arrows in (("PT_to_SFT", [0, 1]), ("between_scales", [2, 3, 4])):
            if true[arrows].any():
                found[f"power_{name}"] = round(float(rule[:, arrows][:, true[arrows]].mean()), 4)
                found[f"power_{name}_without_floor"] = round(float(test[:, arrows][:, true[arrows]].mean()), 4)
    return found


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1_000, help="simulated without effect (default: 1,000)")
    parser.add_argument("--settings", type=int, help="only so many of the settings, evenly chosen (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    chosen = settings()
    if options.settings:
        chosen = chosen[:: -(-len(chosen) // options.settings)]
    lines = []
    for setting in chosen:
        # Power needs fewer studies than a rate of 5 %.
        studies = options.studies if setting.truth in NULLS else -(-options.studies // 5)
        found = measure(setting, studies)
        lines.append(asdict(setting) | {"studies": studies} | found)
        about = f"{setting.truth:<22}r {setting.r:<5g}{setting.mixtures:>3} mixtures{setting.seeds:>2} seeds"
        print(f"{about}{setting.noise_pp:>5g} points {setting.special:<18}{found}", flush=True)
    if options.output:
        write_json(options.output, {"truths": TRUTHS, "special": SPECIAL, "draws": DRAWS, "lines": lines})


if __name__ == "__main__":
    main()
