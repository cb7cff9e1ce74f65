"""Coefficients of resamples, permutation p-values and intervals, against scipy, brute force and simulation."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from analysis.stats import resampling
from analysis.stats.association import correlate, kendall, pearson, pearson_matrix, permuted, ranks, spearman
from analysis.stats.estimates import fisher_interval

REFERENCES = {pearson: stats.pearsonr, spearman: stats.spearmanr, kendall: stats.kendalltau}
BLOCKS = (0, 0, 0, 1, 1, 1, 2, 2, 2)


def pairs(count: int, points: int = 9, rho: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, count, points))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


# ---------------------------------------------------------------------------------------------- coefficients


@pytest.mark.parametrize("coefficient", REFERENCES)
@settings(max_examples=60, deadline=None)
@given(
    values=arrays(np.float64, (2, 7), elements=st.integers(-3, 3).map(float)),
    drawn=st.lists(st.integers(0, 6), min_size=7, max_size=7),
)
def test_counts_give_what_the_drawn_points_give(
    coefficient: Callable[..., np.ndarray], values: np.ndarray, drawn: list[int]
) -> None:
    """With ties, and with resamples that have no variation. Rank correlations are of the drawn points themselves."""
    x, y = values[:, drawn]
    if coefficient is pearson:
        found = pearson(values[:1], values[1:], np.bincount(drawn, minlength=7)[None].astype(float))[0, 0]
    else:
        found = coefficient(x[None], y[None])[0]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(REFERENCES[coefficient](x, y).statistic, abs=1e-9)


def test_a_matrix_holds_every_pair() -> None:
    x, y = pairs(4)
    counts = resampling.bootstrap_counts(9)[:50]
    found = pearson_matrix(x, y, counts)
    for a, b in itertools.product(range(4), repeat=2):
        expected = pearson(x[a : a + 1], y[b : b + 1], counts)[:, 0]
        np.testing.assert_allclose(found[:, a, b], expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (2, 9), elements=st.floats(-1, 1, width=32)),
    st.floats(0.01, 100),
    st.floats(-100, 100),
    st.permutations(range(9)),
)
def test_units_origin_and_order_do_not_matter(values: np.ndarray, scale: float, shift: float, order: list[int]) -> None:
    whole = np.ones((1, 9))
    x, y = values[:1], values[1:]
    if min(np.ptp(x), np.ptp(y)) < 1e-3:
        return
    for coefficient in (functools.partial(pearson, counts=whole), spearman, kendall):
        r = coefficient(x, y)
        np.testing.assert_allclose(coefficient(y, x), r, atol=1e-9)
        np.testing.assert_allclose(coefficient(x[:, order], y[:, order]), r, atol=1e-9)
    np.testing.assert_allclose(pearson(scale * x + shift, -y, whole), -pearson(x, y, whole), atol=1e-6)


def test_ranks_against_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 5, (3, 4, 9)).astype(float)
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values, axis=-1))


# ---------------------------------------------------------------------------------------------- permutations


def test_p_over_all_orders_against_scipy() -> None:
    x, y = pairs(5, points=6)
    p, smallest = permuted(x, y, resampling.all_orders(6))
    for i in range(5):

        def size(order: np.ndarray, i: int = i) -> float:
            return abs(stats.pearsonr(x[i], order).statistic)

        expected = stats.permutation_test(
            (y[i],), size, permutation_type="pairings", n_resamples=np.inf, alternative="greater"
        )
        assert p[i] == pytest.approx(expected.pvalue) and smallest[i] >= 1 / 720


def _two_sided(x: np.ndarray, y: np.ndarray, orders: list[tuple[int, ...]]) -> float:
    """Share of the orders of y with an |r| as large, one after another."""
    null = [abs(stats.pearsonr(x, y[list(order)]).statistic) for order in orders]
    return float(np.mean([r >= abs(stats.pearsonr(x, y).statistic) - 1e-10 for r in null]))


def test_p_within_blocks_against_brute_force() -> None:
    x, y = pairs(3)
    inside = [itertools.permutations(range(3 * block, 3 * block + 3)) for block in range(3)]
    orders = [sum(chosen, ()) for chosen in itertools.product(*inside)]
    assert len(orders) == 216
    found = resampling.orders_within(BLOCKS)
    assert sorted(map(tuple, found.index.tolist())) == sorted(orders) and found.exact
    p, smallest = permuted(x, y, found)
    assert p == pytest.approx([_two_sided(a, b, orders) for a, b in zip(x, y, strict=True)])
    assert (smallest >= 1 / 216).all() and resampling.distinct_arrangements(y[0], BLOCKS) == 216
    assert resampling.distinct_arrangements(np.repeat([1.0, 2.0, 3.0], 3), BLOCKS) == 1


def test_ten_points_are_drawn() -> None:
    x, y = pairs(2, points=10)
    orders = resampling.all_orders(10)
    assert not orders.exact and len(orders.index) == resampling.DRAWS
    p, smallest = permuted(x, y, orders)
    for i in range(2):
        drawn = np.abs(stats.pearsonr(x[i][None], y[i][orders.index], axis=1).statistic)
        expected = (1 + (drawn >= abs(stats.pearsonr(x[i], y[i]).statistic)).sum()) / (1 + len(drawn))
        assert p[i] == pytest.approx(expected) and smallest[i] == 1 / (resampling.DRAWS + 1)
    within = resampling.orders_within((0,) * 10 + (1,) * 10)
    assert not within.exact and (np.sort(within.index[:, :10], axis=1) == np.arange(10)).all()


@pytest.mark.parametrize("blocks", [None, (0, 0, 0, 1, 1, 1)])
def test_p_is_uniform_where_nothing_is_related(blocks: tuple[int, ...] | None) -> None:
    """As far as the orders allow: the share of p <= a is at most a, and not much less."""
    x, y = pairs(4000, points=6, rho=0.0)
    orders = resampling.all_orders(6) if blocks is None else resampling.orders_within(blocks)
    p, _ = permuted(x, y, orders)
    for level in (0.05, 0.25, 0.5, 0.75):
        allowed = np.floor(level * len(orders.index)) / len(orders.index)
        assert np.mean(p <= level + 1e-12) == pytest.approx(allowed, abs=4 * math.sqrt(level * (1 - level) / 4000))


# ---------------------------------------------------------------------------------------------- intervals


def test_bca_against_scipy() -> None:
    x, y = pairs(4, seed=3)
    for i, found in enumerate(correlate(x, y, "mixtures")):
        expected = stats.bootstrap(
            (x[i], y[i]),
            lambda a, b, axis=-1: stats.pearsonr(a, b, axis=axis).statistic,
            paired=True,
            vectorized=True,
            n_resamples=10_000,
            method="BCa",
            rng=1,
        ).confidence_interval
        assert found.bca == pytest.approx(tuple(expected), abs=0.06)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_fisher_covers_nine_normal_points(rho: float) -> None:
    """Within two points of the nominal 95 % (simulated coverages of all intervals: docs/statistics.md)."""
    x, y = pairs(20_000, rho=rho)
    r = pearson(x, y, np.ones((1, 9)))[0]
    ends = np.array([fisher_interval(float(value), 9) for value in r])
    assert np.mean((ends[:, 0] <= rho) & (rho <= ends[:, 1])) == pytest.approx(0.95, abs=0.02)


def test_percentile_interval_by_hand() -> None:
    drawn = np.stack([np.arange(1001.0), np.full(1001, np.nan)], axis=1)
    low, high = resampling.percentile_interval(drawn)
    assert (low[0], high[0]) == pytest.approx((25, 975)) and np.isnan(low[1]) and np.isnan(high[1])


def test_no_interval_from_resamples_without_variation() -> None:
    x, y = pairs(1)
    y[0] = [0, 0, 0, 0, 0, 0, 0, 0, 1.0]  # a third of the resamples lack the last, all but it are one value
    (found,) = correlate(x, y, "mixtures")
    # Without the last mixture there is no r: it alone carries the number, and no interval says how sure it is.
    assert found.bca is found.estimate.ends is found.influence is None and math.isnan(found.without[8])


# ---------------------------------------------------------------------------------------------- together


def test_everything_that_is_said_of_a_correlation() -> None:
    x, y = pairs(3)
    found = correlate(x, y, "mixtures", BLOCKS)
    for i, association in enumerate(found):
        estimate = association.estimate
        assert estimate.value == pytest.approx(stats.pearsonr(x[i], y[i]).statistic)
        assert association.spearman == pytest.approx(stats.spearmanr(x[i], y[i]).statistic)
        assert association.kendall == pytest.approx(stats.kendalltau(x[i], y[i]).statistic)
        assert (estimate.n, estimate.points, estimate.arrangements) == (9, "mixtures", math.factorial(9))
        assert association.arrangements_within == 216 and association.p_within is not None
        for left_out in range(9):
            kept = np.arange(9) != left_out
            expected = stats.pearsonr(x[i][kept], y[i][kept]).statistic
            assert association.without[left_out] == pytest.approx(expected)
        changes = [abs(r - estimate.value) for r in association.without]
        assert association.influence == (pytest.approx(max(changes)), changes.index(max(changes)))


def test_what_was_not_measured_is_left_out_and_counted() -> None:
    x, y = pairs(4)
    x[0, 2] = y[1, 5] = y[1, 6] = np.nan
    x[2, 2:] = np.nan
    y[3] = 0.3
    found = correlate(x, y, "mixtures", BLOCKS)
    assert [a.estimate.n for a in found] == [8, 7, 2, 9] and [a.estimate.missing for a in found] == [1, 2, 7, 0]
    kept = np.isfinite(x[0])
    assert found[0].estimate.value == pytest.approx(stats.pearsonr(x[0][kept], y[0][kept]).statistic)
    assert found[0].arrangements_within == math.factorial(2) * 36
    assert found[2].estimate.reason == "only 2 mixtures" and found[3].estimate.reason == "no variation"
    assert found[2].bca is found[3].bca is found[3].influence is None
    assert [math.isnan(r) for r in found[1].without] == [place in (5, 6) for place in range(9)]


def test_one_mixture_that_carries_r_widens_the_interval() -> None:
    x, y = pairs(1, rho=0.0)
    x[0, 4] = y[0, 4] = 100.0
    (found,) = correlate(x, y, "mixtures")
    assert found.estimate.value is not None and found.estimate.value > 0.99
    assert found.influence is not None and found.influence[1] == 4
    # Fisher's would be [+0.99, +1.00].
    assert found.estimate.low is not None and found.estimate.low < 0.5
    assert found.estimate.interval == "jackknife of Fisher z over mixtures, where one of them carries much of r"
