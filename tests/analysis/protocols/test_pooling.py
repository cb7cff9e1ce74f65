"""Partial pooling against a published meta-analysis, hand-made cases and loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import panel_of, random_cube

from analysis.panel.panel import Panel
from analysis.protocols import correlations as co
from analysis.protocols.pooling import category_means, dersimonian_laird, partial_pooling
from analysis.stats import resampling as rs
from analysis.stats.estimates import fisher_z

# Cases and others of 13 trials of the BCG vaccine, vaccinated and not (Colditz et al. 1994, JAMA 271, 698-702).
BCG = """4 119 11 128  6 300 29 274  3 228 11 209  62 13536 248 12619  33 5036 47 5761  180 1361 372 1079
8 2537 10 619  505 87886 499 87892  29 7470 45 7232  17 1699 65 1600  186 50448 141 27197  5 2493 3 2338
27 16886 29 17825"""


# ---------------------------------------------------------------------------------------------- DerSimonian, Laird


def test_the_bcg_trials() -> None:
    """Log risk ratios; metafor's `rma(yi, vi, method="DL")` gives Q = 152.2330, tau^2 = 0.3088, mean -0.7141."""
    a, b, c, d = np.array(BCG.split(), float).reshape(13, 4).T
    y, v = np.log(a / (a + b)) - np.log(c / (c + d)), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    tau2 = dersimonian_laird(y, v)
    assert tau2 == pytest.approx(0.3088, abs=5e-5)
    assert np.average(y, weights=1 / (v + tau2)) == pytest.approx(-0.7141, abs=5e-5)
    assert np.sum((y - np.average(y, weights=1 / v)) ** 2 / v) == pytest.approx(152.2330, abs=5e-5)


def test_by_hand() -> None:
    # w = 1, 1: mean 1, Q = 2, C = 2 - 2/2 = 1, tau2 = (2 - 1) / 1
    assert dersimonian_laird(np.array([0.0, 2.0]), np.ones(2)) == pytest.approx(1.0)
    # w = 1, 1/2: mean 1, Q = 1 + 2 = 3, C = 3/2 - (5/4) / (3/2) = 2/3, tau2 = (3 - 1) / (2/3)
    assert dersimonian_laird(np.array([0.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(3.0)
    assert dersimonian_laird(np.array([0.4, 0.5]), np.ones(2)) == 0
    assert dersimonian_laird(np.array([0.4]), np.ones(1)) == 0
    with_gap = dersimonian_laird(np.array([[0.0, np.nan, 2.0], [1.0, np.nan, np.nan]]), np.ones((2, 3)))
    assert with_gap.tolist() == pytest.approx([1.0, 0.0])


def test_equal_variances_leave_the_sample_variance_less_theirs() -> None:
    y = np.random.default_rng(0).normal(size=(50, 7))
    expected = np.maximum(0, y.var(axis=1, ddof=1) - 0.4)
    np.testing.assert_allclose(dersimonian_laird(y, np.full(7, 0.4)), expected, atol=1e-12)


def test_the_spread_that_was_planted_is_found_on_average() -> None:
    random = np.random.default_rng(1)
    v = random.uniform(0.05, 0.4, (4000, 20))
    y = random.normal(0, 0.5, v.shape) + np.sqrt(v) * random.normal(size=v.shape)
    assert np.mean(dersimonian_laird(y, v)) == pytest.approx(0.25, abs=0.01)


# ---------------------------------------------------------------------------------------------- two levels


def one_by_one(z: np.ndarray, variance: float, members: list[list[int]]) -> tuple[list[float], float, float]:
    """Category means, grand mean, tau2 for one vector z, by the general formulas with sums over categories."""
    q = c = freedom = 0.0
    for some in members:
        w = 1 / variance
        q += w * sum((z[b] - np.mean(z[some])) ** 2 for b in some)
        c += len(some) * w - w
        freedom += len(some) - 1
    tau2 = max(0.0, (q - freedom) / c)
    own = np.array([np.mean(z[some]) for some in members])
    error = np.array([(tau2 + variance) / len(some) for some in members])
    w = 1 / error
    mean = (w * own).sum() / w.sum()
    omega2 = max(0.0, ((w * (own - mean) ** 2).sum() - (len(own) - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    grand = float(np.average(own, weights=1 / (omega2 + error)))
    return [grand + omega2 / (omega2 + e) * (m - grand) for m, e in zip(own, error, strict=True)], grand, tau2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=9, max_size=9), st.floats(0.02, 1))
def test_two_levels_against_loops(values: list[float], variance: float) -> None:
    z, members = np.array(values), [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    groups = np.array([np.isin(np.arange(9), some) for some in members], float)
    found = partial_pooling(z[None], variance, groups)
    means, grand, tau2 = one_by_one(z, variance, members)
    np.testing.assert_allclose(found.means[0], [*means, grand], atol=1e-8)
    assert found.spread[0] == pytest.approx(math.sqrt(tau2), abs=1e-7)
    for own, pooled in zip([z[some].mean() for some in members], found.means[0, :3], strict=True):
        assert min(own, grand) - 1e-9 <= pooled <= max(own, grand) + 1e-9


def test_what_is_alike_is_pooled_and_what_differs_is_not() -> None:
    groups = np.repeat(np.eye(4), 5, axis=1)
    alike = np.tile([0.3, 0.5, 0.7, 0.5, 0.5], 4)[None]
    found = partial_pooling(alike, 1 / 6, groups)
    assert found.weight.tolist() == [[0.0] * 4] and found.means == pytest.approx(np.full((1, 5), 0.5))
    apart = (np.repeat([-2.0, 0.0, 1.0, 3.0], 5) + 0.01 * np.tile([-1, 0, 1, 0, 0], 4))[None]
    found = partial_pooling(apart, 1 / 6, groups)
    assert (found.weight > 0.98).all() and found.means[0, :4] == pytest.approx([-2, 0, 1, 3], abs=0.06)


def test_pooling_is_nearer_the_truth_than_the_categories_alone() -> None:
    random = np.random.default_rng(2)
    groups = np.repeat(np.eye(4), [7, 4, 4, 5], axis=1)
    truth = random.normal(0.6, 0.15, (3000, 4))
    z = truth @ groups + random.normal(0, 0.3, (3000, 20)) + random.normal(0, math.sqrt(1 / 6), (3000, 20))
    own = z @ groups.T / groups.sum(axis=1)
    error = [np.mean((part - truth) ** 2) for part in (partial_pooling(z, 1 / 6, groups).means[:, :4], own)]
    assert error[0] < 0.8 * error[1]


# ---------------------------------------------------------------------------------------------- of a panel


@pytest.fixture(scope="module")
def panel() -> Panel:
    return panel_of(random_cube(3, rho=0.7))


def test_plain_means_are_those_of_table_5(panel: Panel) -> None:
    for metric in ("accuracy", "confidence"):
        found = category_means(panel, "240m", metric)
        mean = co.mean_cross_stage(panel, "240m", metric)
        assert list(found) == ["Commonsense", "Science", "NLI", "Semantic", "all"]
        every = found["all"].plain
        assert every.value == pytest.approx(mean.value) and every.p == mean.p and every.smallest_p == mean.smallest_p
        assert (every.low, every.high) == pytest.approx((mean.low, mean.high))
        r = np.array([a.estimate.value for a in co.cross_stage(panel, "240m", metric)], float)
        assert found["Science"].plain.value == pytest.approx(r[panel.members("Science")].mean())
        assert found["Science"].plain.points == "mixtures, mean of 4 benchmarks"
        members = [panel.members(category) for category in list(found)[:4]]
        means, grand, tau2 = one_by_one(np.arctanh(r), 1 / 6, members)
        assert [found[c].shrunken.value for c in found] == pytest.approx([*np.tanh(means), math.tanh(grand)])
        assert found["NLI"].spread == pytest.approx(math.sqrt(tau2)) and found["all"].weight is None


def test_intervals_and_p_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = rs.bootstrap_counts(6)[:600]
    monkeypatch.setattr(rs, "bootstrap_counts", lambda points: counts)
    cube = random_cube(4, mixtures=6)
    panel = panel_of(cube)
    found = category_means(panel, "240m", "accuracy")
    pt, sft = (cube["240m", stage, "accuracy"] for stage in ("PT", "SFT"))
    members = [panel.members(c) for c in list(found)[:4]]

    def pooled(x: np.ndarray, y: np.ndarray) -> list[float]:
        z = fisher_z(np.array([np.corrcoef(x[:, b], y[:, b])[0, 1] for b in range(20)]))
        means, grand, _ = one_by_one(z, 1 / 3, members)
        return [*means, grand]

    drawn = []
    for row in counts.astype(int):
        index = np.repeat(np.arange(6), row)
        drawn.append(pooled(pt[index], sft[index]) if len(set(index)) > 1 else [np.nan] * 5)
    left_out = [pooled(np.delete(pt, i, axis=0), np.delete(sft, i, axis=0)) for i in range(6)]
    ends = np.tanh(rs.bca_interval(np.array(pooled(pt, sft)), np.array(drawn), np.array(left_out)))
    for g, name in enumerate(found):
        assert (found[name].shrunken.low, found[name].shrunken.high) == pytest.approx(tuple(ends[:, g]), abs=1e-6)
    orders = list(itertools.permutations(range(6)))
    null = np.abs([pooled(pt, sft[list(order)]) for order in orders])
    for g, name in enumerate(found):
        expected = np.mean(null[:, g] >= null[0, g] - 1e-9)
        assert found[name].shrunken.p == pytest.approx(expected, abs=0.03)


def test_little_data_says_why(panel: Panel) -> None:
    found = category_means(panel_of(random_cube(5, mixtures=3)), "240m", "accuracy")
    assert found["all"].plain.reason == "only 3 mixtures" and found["NLI"].shrunken.value is None
    cube = random_cube(6)
    cube["240m", "PT", "accuracy"][:, panel.members("NLI")] = np.nan
    cube["240m", "PT", "accuracy"][:, 0] = 0.5
    found = category_means(panel_of(cube), "240m", "accuracy")
    assert found["NLI"].plain.value is found["NLI"].shrunken.value is None and found["NLI"].plain.missing == 4
    assert found["Commonsense"].plain.points == "mixtures, mean of 6 benchmarks"
    assert found["all"].shrunken.value is not None and found["all"].shrunken.missing == 5


def test_a_perfect_correlation_stays_finite() -> None:
    cube = random_cube(7)
    cube["240m", "SFT", "accuracy"] = 2 * cube["240m", "PT", "accuracy"]
    found = category_means(panel_of(cube), "240m", "accuracy")
    assert found["all"].plain.value == pytest.approx(1) and found["all"].shrunken.value == pytest.approx(1, abs=1e-5)
