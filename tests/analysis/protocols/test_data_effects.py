"""Code share and web source against NumPy and planted effects; what the designs of the studies confound."""

from __future__ import annotations

import numpy as np
import pytest
from panels import panel_of, random_cube
from scipy import stats

from analysis.panel.load import _design
from analysis.panel.panel import Design
from analysis.protocols.data_effects import (
    code_over_mixtures,
    code_over_shares,
    share_confounds,
    source_confounds,
    web_differences,
    web_means,
)
from analysis.stats.estimates import mean_over_benchmarks
from configs.load import load_study

PERCENT = np.tile([25.0, 35.0, 45.0], 3)
WEB = np.repeat([0, 1, 2], 3)


def test_both_readings_against_numpy() -> None:
    panel = panel_of(random_cube(0))
    accuracy = panel.matrix("240m", "PT")
    found, shares = code_over_mixtures(panel, accuracy.T), code_over_shares(panel, accuracy.T)
    assert len(found) == len(shares) == 20
    for b in range(20):
        over_mixtures, over_shares = found[b].estimate, shares[b].estimate
        assert over_mixtures.value == pytest.approx(stats.pearsonr(PERCENT, accuracy[:, b]).statistic)
        means = accuracy[:, b].reshape(3, 3).mean(axis=0)
        assert over_shares.value == pytest.approx(np.corrcoef([25, 35, 45], means)[0, 1])
        assert (over_mixtures.n, over_mixtures.points) == (9, "mixtures")
        assert found[b].arrangements_within == 216
        assert (over_shares.n, over_shares.points) == (3, "means by code share")
        assert over_shares.low is over_shares.high is None and over_shares.interval == ""
        assert over_shares.smallest_p == pytest.approx(1 / 3)


def test_averaging_over_web_sources_makes_a_weak_effect_look_strong() -> None:
    """A slope far below the differences between web sources: r is small over mixtures, nearly 1 over three means."""
    noise = np.random.default_rng(1).normal(size=9)
    scores = -0.001 * PERCENT + 0.1 * WEB + 0.0005 * noise
    panel = panel_of(random_cube(1))
    (found,), (shares,) = code_over_mixtures(panel, scores[None]), code_over_shares(panel, scores[None])
    assert abs(found.estimate.value or 1) < 0.2
    assert (shares.estimate.value or 0) < -0.99 and shares.estimate.p == pytest.approx(1 / 3)
    assert found.p_within is not None and found.p_within < 0.05  # within web sources it is seen


def test_a_share_without_one_of_its_mixtures_has_no_mean() -> None:
    scores = np.random.default_rng(2).normal(size=(2, 9))
    scores[1, 4] = np.nan
    panel = panel_of(random_cube(2))
    whole, part = (association.estimate for association in code_over_shares(panel, scores))
    assert whole.n == 3 and part.reason == "only 2 means by code share" and part.missing == 1
    assert [association.estimate.n for association in code_over_mixtures(panel, scores)] == [9, 8]
    unknown = panel_of(random_cube(2), design={})
    for over in (code_over_mixtures, code_over_shares):
        assert [association.estimate.value for association in over(unknown, scores)] == [None, None]
    assert web_means(unknown, scores[0]) == web_differences(unknown, scores[0]) == {}


def test_web_sources_by_hand() -> None:
    panel = panel_of(random_cube(3))
    scores = np.array([1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 0.0, np.nan, 1.0])
    means = web_means(panel, scores)
    assert [means[web].value for web in ("RefinedWeb", "FineWeb-Edu", "DCLM")] == [2.0, 4.0, 0.5]
    assert (means["DCLM"].n, means["DCLM"].missing) == (2, 1)
    found = web_differences(panel, scores)
    assert list(found) == [("FineWeb-Edu", "RefinedWeb"), ("DCLM", "RefinedWeb"), ("DCLM", "FineWeb-Edu")]
    edu = found["FineWeb-Edu", "RefinedWeb"]  # 1, 2, 3 at the three shares
    assert edu.value == pytest.approx(2) and edu.n == 3 and edu.p == pytest.approx(2 / 8)
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert (edu.low, edu.high) == pytest.approx((2 - half, 2 + half))
    dclm = found["DCLM", "RefinedWeb"]  # -1 and -2, one share is missing
    assert dclm.value == pytest.approx(-1.5) and dclm.n == 2 and dclm.missing == 1


def test_differences_are_at_equal_code_per_cent() -> None:
    """The code share matters much, the web source not at all; the mixtures stand in another order."""
    panel = panel_of(random_cube(4))
    order = np.random.default_rng(5).permutation(9)
    moved = panel_of(random_cube(4), mixtures=tuple(np.array(panel.mixtures)[order].tolist()))
    found = web_differences(moved, PERCENT[order])
    assert [difference.value for difference in found.values()] == pytest.approx([0.0] * 3)
    assert [d.n for d in found.values()] == [3] * 3


def test_mean_over_benchmarks() -> None:
    nan = np.nan
    values = np.array([[1.0, nan, 3.0], [2.0, nan, nan]])
    np.testing.assert_array_equal(mean_over_benchmarks(values), [2.0, nan])
    assert np.isnan(mean_over_benchmarks(np.full((2, 3), nan))).all()


@pytest.mark.parametrize(
    ("study", "shares", "sources"),
    [("paper", True, True), ("mini", True, True), ("deconfounded", True, False), ("shares", False, True)],
)
def test_what_each_study_confounds(study: str, shares: bool, sources: bool) -> None:
    mixtures = load_study(study).mixtures
    designs: dict[str, Design | None] = {m: _design(m, "") for m in mixtures}
    panel = panel_of(random_cube(0, mixtures=len(mixtures)), mixtures=mixtures, design=designs)
    assert bool(share_confounds(panel)) == shares and bool(source_confounds(panel)) == sources
    if study == "paper":
        assert "RefinedWeb: StarCoder; FineWeb-Edu: Stack-v2; DCLM: Stack-v2" in source_confounds(panel)[0]


def test_one_mixture_confounds_nothing_that_can_be_said() -> None:
    one = panel_of(random_cube(0, mixtures=1))
    assert share_confounds(one) == source_confounds(one) == ()
