"""Matrices against pandas and NumPy, Mantel's test against every permutation, similarity against loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panels import panel_of, random_cube
from scipy import stats

from analysis.panel.panel import Panel
from analysis.protocols import correlations as co
from analysis.protocols.matrices import (
    METRICS,
    SIDES,
    Matrix,
    mantel,
    matrix,
    resampled_similarity,
    similarity,
    unrelated_similarity,
)
from analysis.stats import resampling as rs
from analysis.stats.association import every_pair

HALVES = arrays(np.float64, (9, 4), elements=st.integers(-6, 6).map(lambda v: v / 2))


# ---------------------------------------------------------------------------------------------- matrices


def matrices(panel: Panel) -> list[Matrix]:
    """Every metric, scale and protocol."""
    return [matrix(panel, *key, metric) for metric in METRICS for key in itertools.product(panel.scales, SIDES)]


def reference(pt: np.ndarray, sft: np.ndarray) -> np.ndarray:
    """Rows PT, columns SFT, as pandas leaves out what is missing; pt, sft: [mixtures, benchmarks]."""
    both = pd.DataFrame(np.hstack([pt, sft])).corr(min_periods=3).to_numpy()
    return both[: pt.shape[1], pt.shape[1] :]


def test_all_three_protocols_against_numpy() -> None:
    cube = random_cube(0, scales=("240m", "1b"))
    panel = panel_of(cube)
    found = matrices(panel)
    assert len(found) == 2 * 2 * 3 and all((m.n == 9).all() and m.values.shape == (20, 20) for m in found)
    for m in found:
        pt, sft = (cube[m.scale, stage, m.metric] for stage in ("PT", "SFT"))
        whole = np.corrcoef(pt.T, sft.T)
        block = {"PT": whole[:20, :20], "SFT": whole[20:, 20:], "cross": whole[:20, 20:]}[m.protocol]
        np.testing.assert_allclose(m.values, block, atol=1e-12)
        assert m.benchmarks == panel.benchmarks


def test_rows_are_pt_and_columns_sft() -> None:
    """Planted: PT of each benchmark is SFT of the next. Neither the transpose nor its mean with the matrix will do."""
    cube = random_cube(1, benchmarks=5)
    cube["240m", "SFT", "accuracy"] = np.roll(cube["240m", "PT", "accuracy"], 1, axis=1)
    found = matrix(panel_of(cube), "240m", "cross", "accuracy").values
    planted = (np.arange(5), np.roll(np.arange(5), -1))
    assert found[planted] == pytest.approx(1)
    for wrong in (found.T, (found + found.T) / 2):
        assert wrong[planted].max() < 0.95
        assert not np.allclose(wrong, reference(cube["240m", "PT", "accuracy"], cube["240m", "SFT", "accuracy"]))


def test_the_diagonal_is_table_5_and_the_blocks_are_coherence() -> None:
    panel = panel_of(random_cube(2))
    for metric in ("accuracy", "confidence"):
        values = {p: matrix(panel, "240m", p, metric).values for p in ("PT", "SFT", "cross")}
        table5 = [association.estimate.value for association in co.cross_stage(panel, "240m", metric)]
        assert np.diag(values["cross"]) == pytest.approx(table5)
        science = panel.members("Science")
        for protocol, part in values.items():
            block = part[np.ix_(science, science)]
            expected = co.coherence(panel, "240m", "Science", protocol, metric, "ordered").value
            assert (block.sum() - np.trace(block)) / 12 == pytest.approx(expected)


@settings(max_examples=80, deadline=None)
@given(HALVES, HALVES, arrays(np.bool_, (2, 9, 4), elements=st.sampled_from([True, True, True, False])))
def test_missing_cells_and_constant_columns_against_pandas(pt: np.ndarray, sft: np.ndarray, kept: np.ndarray) -> None:
    pt, sft = np.where(kept[0], pt, np.nan), np.where(kept[1], sft, np.nan)
    values, n = every_pair(pt.T, sft.T)
    np.testing.assert_array_equal(n, kept[0].T.astype(int) @ kept[1].astype(int))
    np.testing.assert_allclose(values, reference(pt, sft), atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(HALVES, st.floats(0.01, 100), st.floats(-100, 100), st.permutations(range(9)), st.permutations(range(4)))
def test_symmetric_and_blind_to_units_origin_and_order(
    scores: np.ndarray, size: float, shift: float, mixtures: list[int], benchmarks: list[int]
) -> None:
    cube = {("240m", stage, "accuracy"): scores for stage in ("PT", "SFT")}
    values = matrix(panel_of(cube), "240m", "PT", "accuracy").values
    np.testing.assert_allclose(values, values.T, atol=1e-12)
    varies = np.ptp(scores, axis=0) > 0
    assert np.diag(values)[varies] == pytest.approx(1) and np.isnan(values[~varies]).all()
    moved = {key: (size * part + shift)[np.ix_(mixtures, benchmarks)] for key, part in cube.items()}
    found = matrix(panel_of(moved), "240m", "PT", "accuracy").values
    np.testing.assert_allclose(found, values[np.ix_(benchmarks, benchmarks)], atol=1e-6)


def test_too_few_mixtures_have_no_correlation() -> None:
    panel = panel_of(random_cube(3, mixtures=1))
    assert all(np.isnan(m.values).all() and (m.n == 1).all() for m in matrices(panel))
    assert similarity(panel, "240m", "accuracy").reason == "fewer than 3 mixtures or 3 benchmarks"
    assert unrelated_similarity(panel, "240m", "accuracy").value is None
    two = panel_of(random_cube(3, mixtures=2))
    assert all(np.isnan(m.values).all() for m in matrices(two))


# ---------------------------------------------------------------------------------------------- Mantel's test


def symmetric(random: np.random.Generator, size: int) -> np.ndarray:
    square = random.normal(size=(size, size))
    return square + square.T


def one_by_one(a: np.ndarray, b: np.ndarray, orders: list[tuple[int, ...]]) -> list[float]:
    upper = np.triu_indices(len(a), 1)
    return [float(stats.pearsonr(a[upper], b[np.ix_(o, o)][upper]).statistic) for o in orders]


@pytest.mark.parametrize("size", [4, 5])
def test_mantel_against_every_permutation(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(5):
        a, b = symmetric(random, size), symmetric(random, size)
        null = np.abs(one_by_one(a, b, list(itertools.permutations(range(size)))))
        r, p, smallest = mantel(a, b)
        assert r == pytest.approx(one_by_one(a, b, [tuple(range(size))])[0])
        assert p == pytest.approx(np.mean(null >= abs(r) - 1e-10))
        assert smallest == pytest.approx(np.mean(null >= null.max() - 1e-10))


def test_mantel_of_many_labels_is_drawn_and_counts_the_observed() -> None:
    random = np.random.default_rng(6)
    a = symmetric(random, 10)
    b = a + 3 * symmetric(random, 10)
    upper = np.triu_indices(10, 1)
    orders = rs.all_orders(10).index
    null = [abs(np.corrcoef(a[upper], b[np.ix_(o, o)][upper])[0, 1]) for o in orders]
    r, p, smallest = mantel(a, b)
    assert r == pytest.approx(np.corrcoef(a[upper], b[upper])[0, 1]) and smallest == 1 / (rs.DRAWS + 1)
    assert p == pytest.approx((1 + np.sum(np.array(null) >= abs(r) - 1e-10)) / (1 + rs.DRAWS))
    assert mantel(a, b) == (r, p, smallest)


def test_mantel_p_is_uniform_where_the_labels_mean_nothing() -> None:
    random = np.random.default_rng(7)
    p = np.array([mantel(symmetric(random, 6), symmetric(random, 6))[1] for _ in range(1000)])
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 1000))


# ---------------------------------------------------------------------------------------------- similarity


def triangle(scores: np.ndarray) -> np.ndarray:
    """Correlations of the pairs, by NumPy; scores: [mixtures, benchmarks]."""
    return np.corrcoef(scores.T)[np.triu_indices(scores.shape[1], 1)]


def test_similarity_against_numpy_and_loops_over_resamples() -> None:
    cube = random_cube(8, benchmarks=10, rho=0.9)
    pt, sft = (cube["240m", stage, "confidence"] for stage in ("PT", "SFT"))
    found = similarity(panel_of(cube), "240m", "confidence")
    assert found.value == pytest.approx(np.corrcoef(triangle(pt), triangle(sft))[0, 1])
    assert (found.n, found.points, found.missing) == (9, "mixtures, 45 pairs of 10 benchmarks", 0)
    assert found.p == mantel(np.corrcoef(pt.T), np.corrcoef(sft.T))[1]
    counts = rs.bootstrap_counts(9)
    drawn = []
    for row in counts.astype(int)[:400]:
        index = np.repeat(np.arange(9), row)  # the same mixtures in both stages
        drawn.append(np.corrcoef(triangle(pt[index]), triangle(sft[index]))[0, 1])
    np.testing.assert_allclose(resampled_similarity(pt.T, sft.T, counts[:400]), drawn, atol=1e-9)
    whole = resampled_similarity(pt.T, sft.T, counts)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(whole, [0.025, 0.975])))


def test_a_common_structure_is_found_and_the_wrong_labels_are_noticed() -> None:
    random = np.random.default_rng(9)
    loads = random.normal(size=(3, 20))
    cube = random_cube(9)
    for stage in ("PT", "SFT"):  # other mixtures' luck in each stage, the same loadings
        cube["240m", stage, "accuracy"] = random.normal(size=(9, 3)) @ loads + 0.3 * random.normal(size=(9, 20))
    found = similarity(panel_of(cube), "240m", "accuracy")
    assert found.value is not None and found.p is not None and found.value > 0.3 and found.p < 0.05
    cube["240m", "SFT", "accuracy"] = cube["240m", "SFT", "accuracy"][:, random.permutation(20)]
    turned = similarity(panel_of(cube), "240m", "accuracy")
    assert turned.value is not None and abs(turned.value) < 0.3


def test_chance_relations_come_back_in_sft() -> None:
    """Unrelated benchmarks with cross-stage r: their matrices are alike by about the mean of r_i r_j all the same."""
    cube = random_cube(10, rho=0.9)
    panel = panel_of(cube)
    chance, found = unrelated_similarity(panel, "240m", "accuracy"), similarity(panel, "240m", "accuracy")
    r = np.array([a.estimate.value for a in co.cross_stage(panel, "240m", "accuracy")], float)
    expected = (r.sum() ** 2 - (r**2).sum()) / (20 * 19)
    assert chance.value == pytest.approx(expected, abs=0.05)
    assert found.p is not None and found.p < 0.01  # Mantel's test takes it for structure


def test_unrelated_against_a_loop() -> None:
    cube = random_cube(11, mixtures=6, benchmarks=4)
    pt, sft = (cube["240m", stage, "accuracy"] for stage in ("PT", "SFT"))
    found = unrelated_similarity(panel_of(cube), "240m", "accuracy")
    null = []
    for draw in rs.independent_orders(6, 4)[:2000]:
        sides = [np.stack([side[order, b] for b, order in enumerate(draw)], axis=1) for side in (pt, sft)]
        null.append(np.corrcoef(*map(triangle, sides))[0, 1])
    assert found.value == pytest.approx(np.mean(null), abs=0.05)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(null, [0.025, 0.975])), abs=0.08)
    observed = np.corrcoef(triangle(pt), triangle(sft))[0, 1]
    expected = np.mean(np.abs(np.array(null) - np.mean(null)) >= abs(observed - np.mean(null)))
    assert found.p == pytest.approx(expected, abs=0.05)


def test_one_test_holds_its_level_where_the_other_does_not() -> None:
    mantels, own = [], []
    for seed in range(40):
        panel = panel_of(random_cube(100 + seed, benchmarks=8, rho=0.9))
        mantels.append(similarity(panel, "240m", "accuracy").p or 1.0)
        own.append(unrelated_similarity(panel, "240m", "accuracy").p or 1.0)
    assert np.mean(np.array(mantels) < 0.05) > 0.5
    assert np.mean(np.array(own) < 0.05) < 0.2  # binomial, 40 tries at 5 %: eight or more are one in 1,400


def test_what_was_not_measured_is_left_out_and_counted() -> None:
    cube = random_cube(12, benchmarks=6)
    pt, sft = (cube["240m", stage, "accuracy"] for stage in ("PT", "SFT"))
    pt[:, 2] = 0.25  # no variation
    sft[4] = np.nan  # a mixture without SFT
    found = similarity(panel_of(cube), "240m", "accuracy")
    rows, columns = [0, 1, 2, 3, 5, 6, 7, 8], [0, 1, 3, 4, 5]
    parts = (triangle(side[np.ix_(rows, columns)]) for side in (pt, sft))
    assert found.value == pytest.approx(np.corrcoef(*parts)[0, 1]) and found.n == 8 and found.missing == 2
    assert matrix(panel_of(cube), "240m", "cross", "accuracy").n.tolist() == [[8] * 6] * 6
