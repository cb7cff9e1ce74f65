"""`analysis.protocols.replication` against a brute-force permutation test, and its error rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.protocols.replication import FEWEST, ONE_SEED, Block, largest_block, r_between_seeds, replicate
from analysis.stats.resampling import DRAWS


def cross_products(early: np.ndarray, late: np.ndarray) -> float:
    """T of one benchmark by definition; early, late: [seeds, mixtures]."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (early, late))
    return sum(float(x[s] @ y[t]) for s, t in itertools.permutations(range(len(x)), 2))


def correlated_scores(
    random: np.random.Generator, r: float, seeds: int, mixtures: int
) -> tuple[np.ndarray, np.ndarray]:
    """PT and SFT [seeds, mixtures] whose true scores correlate by about r, with run noise of half their spread."""
    true = random.normal(size=mixtures)
    other = r * true + math.sqrt(1 - r**2) * random.normal(size=mixtures)
    luck = 0.5 * random.normal(size=(seeds, mixtures))
    return true + luck, other + luck


@pytest.mark.parametrize("r", [0.0, 0.6])
def test_both_p_values_are_those_of_every_permutation(r: float) -> None:
    early, late = correlated_scores(np.random.default_rng(3), r, seeds=2, mixtures=5)
    observed = cross_products(early, late)
    orders = [list(order) for order in itertools.permutations(range(5))]
    late_moved = np.mean([cross_products(early, late[:, order]) >= observed - 1e-9 for order in orders])
    moved = [[np.stack([side[0], side[1, order]]) for side in (early, late)] for order in orders]
    runs_moved = np.mean([cross_products(*sides) >= observed - 1e-9 for sides in moved])
    (found,) = replicate(early[:, :, None], late[:, :, None])
    # DRAWS random permutations: four standard errors around the p of all of them.
    for p, exact in ((found.p_late_moved, late_moved), (found.p_runs_moved, runs_moved)):
        assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / DRAWS))
    assert found.estimate.p == max(found.p_late_moved, found.p_runs_moved)  # type: ignore[type-var]
    pairs = [stats.pearsonr(early[s], late[t]).statistic for s, t in ((0, 1), (1, 0))]
    assert found.estimate.value == pytest.approx(np.mean(pairs), abs=1e-12)


def test_runs_of_one_seed_never_meet() -> None:
    """Luck that PT and SFT of a run share leaves no r between different seeds, and p keeps its level."""
    luck = np.random.default_rng(0).normal(size=(3, 9, 2_000))
    found = replicate(luck, luck)
    assert abs(np.mean([replication.estimate.value for replication in found])) < 0.02
    p = np.array([replication.estimate.p for replication in found])
    assert 0.03 < (p <= 0.05).mean() < 0.06  # .05 has a standard error of .005
    # Late scores moved alone would reject too often: shared luck makes T vary more than that null allows.
    assert np.mean([replication.p_late_moved <= 0.05 for replication in found]) > 0.06


def test_a_true_correlation_is_found() -> None:
    early, late = correlated_scores(np.random.default_rng(1), 0.99, seeds=5, mixtures=9)
    (found,) = replicate(early[:, :, None], late[:, :, None])
    assert found.estimate.p is not None and found.estimate.p < 0.02
    (opposite,) = replicate(early[:, :, None], -late[:, :, None])
    assert opposite.estimate.p is not None and opposite.estimate.p > 0.95  # one-sided
    assert opposite.estimate.value == pytest.approx(-found.estimate.value)  # type: ignore[operator]


def test_gaps_leave_the_best_block() -> None:
    there = np.ones((3, 9), bool)
    there[2, 4] = False
    block = largest_block(there, there)
    assert block is not None
    assert (len(block.mixtures), len(block.early), len(block.pairs)) == (8, 3, 6)
    one_large_seed = np.zeros((3, 9), bool)
    one_large_seed[0] = True
    block = largest_block(np.ones((3, 9), bool), one_large_seed)
    assert block is not None and block.pairs == [(1, 0), (2, 0)]


def test_seeds_of_one_mixture_are_no_block() -> None:
    there = np.zeros((3, 9), bool)
    there[0] = True
    there[:, 0] = True
    assert largest_block(there, there) is None
    scores = np.where(there, np.random.default_rng(0).normal(size=(3, 9)), np.nan)[:, :, None]
    (found,) = replicate(scores, scores)
    assert (found.estimate.value, found.estimate.reason) == (None, ONE_SEED)


def test_a_gap_changes_only_its_own_benchmark() -> None:
    random = np.random.default_rng(5)
    early, late = random.normal(size=(2, 3, 9, 2))
    whole = replicate(early, late)
    early[1, 3, 0] = np.nan
    gappy = replicate(early, late)
    assert gappy[1].estimate.p == whole[1].estimate.p
    # All mixtures stay: the early score of seed 1 goes, and four ordered pairs of different seeds are left.
    assert (gappy[0].estimate.n, gappy[0].estimate.points) == (9, "mixtures, 4 pairs of seeds")
    pairs = [stats.pearsonr(early[s, :, 0], late[t, :, 0]).statistic for s, t in ((0, 1), (0, 2), (2, 0), (2, 1))]
    assert gappy[0].estimate.value == pytest.approx(np.mean(pairs))


def test_alike_scores_have_no_correlation() -> None:
    (found,) = replicate(np.full((2, 6, 1), 0.25), np.random.default_rng(0).normal(size=(2, 6, 1)))
    assert found.estimate.value is None


def test_worth_prefers_mixtures_to_a_third_seed() -> None:
    nine_by_two, five_by_three = (Block(np.arange(m), np.arange(s), np.arange(s)) for m, s in ((9, 2), (5, 3)))
    assert nine_by_two.worth > five_by_three.worth
    assert Block(np.arange(FEWEST), np.arange(2), np.arange(2)).worth > 0


def test_r_between_seeds_is_that_of_the_test() -> None:
    early, late = np.random.default_rng(6).normal(size=(2, 3, 9, 4))
    early[2, :4, 1] = np.nan
    late[1:, 1:, 2] = np.nan
    found = r_between_seeds(early, late)
    for value, replication in zip(found, replicate(early, late), strict=True):
        assert value == pytest.approx(replication.estimate.value)
    late[1:, 1:] = np.nan
    early[1:, 1:] = np.nan
    assert np.isnan(r_between_seeds(early, late)).all()


def test_other_seeds_do_not_keep_what_a_run_does_to_both_stages() -> None:
    random = np.random.default_rng(7)
    luck, truth = random.normal(size=(4, 60, 4)), random.normal(size=(2, 1, 60, 4))
    early, late = truth + 2 * luck
    same_run = [stats.pearsonr(early[0, :, b], late[0, :, b]).statistic for b in range(4)]
    assert np.mean(same_run) > 0.7 and abs(r_between_seeds(early, late).mean()) < 0.1
