"""Estimates against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from scipy import stats

from analysis.stats import estimates as st
from analysis.stats.association import correlate_one

NUMBERS = hs.floats(-1e3, 1e3).map(lambda v: round(v, 3))


def pearson(x: np.ndarray, y: np.ndarray, points: str) -> st.Estimate:
    return correlate_one(x, y, points).estimate


def test_pearson_against_scipy_pearsonr() -> None:
    rng = np.random.default_rng(1)
    for n in (4, 5, 9, 18, 40):
        x, y = rng.random(n), rng.random(n)
        found, reference = pearson(x, y, "mixtures"), stats.pearsonr(x, y)
        assert found.value == pytest.approx(reference.statistic, abs=1e-12) and found.n == n
        interval = reference.confidence_interval(0.95)  # scipy's is Fisher's too
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


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
    """Of 40 pairs there are 10^12 flips; SciPy's permutation test draws them too."""
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
