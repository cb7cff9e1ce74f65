"""Estimates against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as hs
from scipy import stats

from analysis.stats import association
from analysis.stats import estimates as st
from analysis.stats.association import correlate_one
from analysis.stats.resampling import jackknife_interval

NUMBERS = hs.floats(-1e3, 1e3).map(lambda v: round(v, 3))


def pearson(x: np.ndarray, y: np.ndarray, points: str) -> st.Estimate:
    return correlate_one(x, y, points).estimate


def test_pearson_against_scipy_pearsonr() -> None:
    rng = np.random.default_rng(1)
    for n in (9, 18, 40):
        x, y = rng.random(n), rng.random(n)
        found, reference = pearson(x, y, "mixtures"), stats.pearsonr(x, y)
        assert found.value == pytest.approx(reference.statistic, abs=1e-12) and found.n == n
        interval = reference.confidence_interval(0.95)  # scipy's is Fisher's too
        assert found.interval == "Fisher z over mixtures"  # no point carries r
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_jackknife_interval_by_hand() -> None:
    """Pseudo-values of z, and scipy's t interval of their mean."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 9))
    r = stats.pearsonr(x, y).statistic
    left_out = np.array([stats.pearsonr(np.delete(x, i), np.delete(y, i)).statistic for i in range(9)])
    pseudo = 9 * np.arctanh(r) - 8 * np.arctanh(left_out)
    expected = stats.t.interval(0.95, 8, pseudo.mean(), stats.sem(pseudo))
    assert np.arctanh(jackknife_interval(r, left_out)) == pytest.approx(expected)


def test_leverage_decides_the_method() -> None:
    r, near, far = 0.6, np.full(9, 0.6), np.full(9, 0.6)
    step = st.LEVERAGE / math.sqrt(6)
    near[0], far[0] = np.tanh(np.arctanh(r) - 0.99 * step), np.tanh(np.arctanh(r) - 1.01 * step)
    assert st.correlation_interval(r, near, "mixtures") == (st.fisher_interval(r, 9), "Fisher z over mixtures")
    ends, method = st.correlation_interval(r, far, "mixtures")
    assert ends == pytest.approx(jackknife_interval(r, far)) and method.startswith("jackknife")
    far[0] = np.nan
    assert st.correlation_interval(r, far, "mixtures") == ((None, None), "")
    assert st.correlation_interval(r, near[:3], "mixtures") == ((None, None), "")


@pytest.mark.parametrize("shared", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_jackknife_covers_the_mean_of_many_r(rho: float, shared: float) -> None:
    """Nine mixtures, 20 benchmarks, with and without a shared factor: 94 to 97.5 % (docs/statistics.md)."""
    rng = np.random.default_rng(3)
    held = []
    for _ in range(1_500):
        x, e = (math.sqrt(shared) * rng.normal(size=9) + math.sqrt(1 - shared) * rng.normal(size=(20, 9)) for _ in "xe")
        y = rho * x + math.sqrt(1 - rho**2) * e
        means = association.pearson(x, y, np.vstack([np.ones(9), 1 - np.eye(9)])).mean(axis=1)
        low, high = jackknife_interval(means[0], means[1:])
        held.append(low <= rho <= high)
    assert 0.93 < np.mean(held) < 0.985  # 1,500 studies: a standard error of 0.006


def test_ties_reduce_arrangements_and_raise_the_smallest_p() -> None:
    x = np.array([0.0, 0.0, 1.0, 1.0])
    found = pearson(x, x, "mixtures")
    # 4! / (2! 2!) = 6 sequences; r = 1 in one and -1 in another of the six
    assert found.arrangements == 6 and found.p == pytest.approx(2 / 6) and found.smallest_p == pytest.approx(2 / 6)


def test_interval_at_nine_points_as_published() -> None:
    # docs/contradictions.md: r = 0.59 at n = 9 has the interval [-0.12, 0.90]
    assert st.fisher_interval(0.59, 9) == pytest.approx((-0.12, 0.90), abs=0.005)
    assert st.fisher_interval(0.70, 9) == pytest.approx((0.07, 0.93), abs=0.005)
    assert st.fisher_interval(0.5, 3) == (None, None)


def test_undefined_stays_missing() -> None:
    constant = pearson(np.full(9, 0.1), np.arange(9.0), "mixtures")
    assert constant.value is None and constant.p is None and constant.reason == "no variation" and constant.n == 9
    x = np.array([1, 2, np.nan, 4, 5.0])
    found = pearson(x, np.array([2, 1, 5, np.nan, 3.0]), "mixtures")
    assert found.n == 3 and found.missing == 2 and found.low is None
    assert pearson(x[:3], x[:3], "mixtures").value is None


def test_constant_up_to_rounding_has_no_correlation() -> None:
    dusty = np.array([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2])
    assert pearson(dusty, np.arange(4.0), "mixtures").value is None
    assert pearson(np.array([1e-20, 2e-20, 4e-20, 3e-20]), np.arange(4.0), "mixtures").value == pytest.approx(0.8)


@settings(deadline=None, max_examples=50)
@given(hs.lists(NUMBERS, min_size=3, max_size=6, unique=True), hs.randoms(), hs.floats(0.1, 10), hs.floats(-5, 5))
def test_invariances(x: list[float], random: object, scale: float, shift: float) -> None:
    y = list(x)
    random.shuffle(y)  # type: ignore[attr-defined]
    a, b = np.array(x), np.array(y)
    first = pearson(a, b, "mixtures")
    assert first.value is not None and -1 <= first.value <= 1 and first.p is not None and 0 < first.p <= 1
    assert pearson(b, a, "mixtures").value == pytest.approx(first.value, abs=1e-9)
    assert pearson(a * scale + shift, b, "mixtures").value == pytest.approx(first.value, abs=1e-6)
    assert first.p >= (first.smallest_p or 0)


def test_benjamini_hochberg_by_hand() -> None:
    # sorted .01 .02 .03 .5, m = 4: .04 .04 .04 .5; the missing one is not counted
    assert st.benjamini_hochberg([0.03, None, 0.01, 0.5, 0.02]) == pytest.approx([0.04, None, 0.04, 0.5, 0.04])
    assert st.benjamini_hochberg([]) == [] and st.benjamini_hochberg([None]) == [None]


@given(hs.lists(hs.floats(1e-6, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_against_scipy(p: list[float]) -> None:
    assert st.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p).tolist(), abs=1e-12)


def test_paired_difference_by_hand() -> None:
    found = st.paired_difference(np.array([1.0, 2.0, np.nan, 3.0]), "shares")
    half = stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)
    assert found.value == 2 and (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.p == 2 / 8 and found.arrangements == 8 and found.smallest_p == 2 / 8 and found.missing == 1
    assert st.paired_difference(np.array([np.nan]), "shares").value is None


def test_signs_of_many_pairs_are_flipped_at_random() -> None:
    """Forty pairs have 10^12 flips; SciPy's permutation test draws them too."""
    values = np.random.default_rng(3).normal(0.35, 1, 40)
    found = st.paired_difference(values, "benchmarks")
    drawn = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    assert found.p == pytest.approx(drawn.pvalue, abs=0.01) and 0.005 < drawn.pvalue < 0.2
    assert found.arrangements == 2**40 and found.smallest_p == 1 / 10_001 and "10,000 draws" in found.null


def test_mean_estimate_against_scipy() -> None:
    values = np.array([0.2, 0.5, 0.9])
    found, reference = st.mean_estimate(values, "mixtures"), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))
    assert found.p is None


@pytest.mark.parametrize(("r", "percent"), [(0.0, 84.0), (0.5, 84.3), (0.9, 85.0)])
def test_an_interval_is_no_forecast_of_another_study(r: float, percent: float) -> None:
    """It holds the true r of nine mixtures 95 times in 100, and the r of nine others less often."""
    random = np.random.default_rng(0)
    x, e = random.normal(size=(2, 2, 4000, 9))
    first, second = stats.pearsonr(x, r * x + math.sqrt(1 - r * r) * e, axis=2).statistic
    ends = [st.fisher_interval(float(one), 9) for one in first]
    inside = [low <= other <= high for (low, high), other in zip(ends, second, strict=True) if low and high]
    assert 100 * np.mean(inside) == pytest.approx(percent, abs=1.5)
    assert np.mean([low <= r <= high for low, high in ends if low and high]) == pytest.approx(0.95, abs=0.01)


def test_benjamini_bogomolov_by_hand() -> None:
    """Two of three families are discovered, so that inside each the limit is .05 * 2 / 3."""
    families = [[0.0001, 0.03, 0.9], [0.02, None, 0.001], [0.3, 0.2, 0.6], [None, None, None]]
    q = st.benjamini_bogomolov(families)
    for family, values in zip(families[:3], q[:3], strict=True):
        inside = stats.false_discovery_control([p for p in family if p is not None])
        expected = np.minimum(inside * 3 / 2, 1.0)
        assert [value for value in values if value is not None] == pytest.approx(expected.tolist())
    assert q[1][1] is None and q[3] == [None, None, None]


def test_benjamini_bogomolov_lends_nothing_to_a_family_without_effect() -> None:
    """One Benjamini-Hochberg over all tests would discover a p of .02 because another family is full of effects."""
    sure, null = [0.0001] * 20, [0.02] + [0.5] * 19
    assert st.benjamini_hochberg([*sure, *null])[20] == pytest.approx(0.02 * 40 / 21)  # below .05
    assert st.benjamini_bogomolov([sure, null])[1][0] == pytest.approx(0.02 * 20 * 2)
    assert st.benjamini_bogomolov([null])[0][0] == st.benjamini_hochberg(null)[0]


@given(hs.lists(hs.lists(hs.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_benjamini_bogomolov_against_scipy(families: list[list[float]]) -> None:
    inside = [stats.false_discovery_control(family) for family in families]
    simes = stats.false_discovery_control([min(q) for q in inside])
    assume(np.abs(simes - st.FALSE_DISCOVERIES).min() > 1e-9)  # rounding decides there
    discovered = sum(simes <= st.FALSE_DISCOVERIES)
    for q, found in zip(inside, st.benjamini_bogomolov(families), strict=True):
        assert found == pytest.approx(np.minimum(q * len(families) / max(discovered, 1), 1.0).tolist(), abs=1e-12)
