"""Differences between scales against NumPy and brute force: the jackknife, exchanges, and what is left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panels import Cube, panel_of, random_cube

from analysis.protocols import correlations as co
from analysis.protocols.complete_cases import complete_block
from analysis.protocols.scale import every_swap, scale_differences
from analysis.stats import resampling as rs

SCALES = ("240m", "1b")


def sides(cube: Cube, b: int) -> list[np.ndarray]:
    """PT and SFT at the small, then at the large scale; of one benchmark [mixtures]."""
    return [cube[scale, stage, "accuracy"][:, b] for scale in SCALES for stage in ("PT", "SFT")]


def r(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def test_differences_are_those_of_table_5_and_of_its_means() -> None:
    panel = panel_of(random_cube(0, scales=SCALES))
    small, large = ([a.estimate.value for a in co.cross_stage(panel, scale, "confidence")] for scale in SCALES)
    change = np.array(large, float) - np.array(small, float)
    groups = [*([b] for b in range(20)), panel.members("Science"), range(20)]
    found = scale_differences(panel, *SCALES, "confidence", groups)
    assert [d.estimate.value for d in found[:20]] == pytest.approx(change)
    assert [d.small for d in found[:20]] == pytest.approx(small) and found[3].large == pytest.approx(large[3])
    assert found[20].estimate.value == pytest.approx(change[panel.members("Science")].mean())
    assert found[21].estimate.value == pytest.approx(change.mean())
    assert found[0].estimate.points == "mixtures" and found[20].estimate.points == "mixtures, mean of 4 benchmarks"
    assert all(d.estimate.n == 9 and d.estimate.missing == 0 for d in found)
    backwards = scale_differences(panel, *SCALES[::-1], "confidence", groups)
    assert [d.estimate.value for d in backwards] == pytest.approx([-(d.estimate.value or 0) for d in found])
    assert [d.estimate.p for d in backwards] == pytest.approx([d.estimate.p for d in found])


def test_interval_leaves_out_the_same_mixtures_at_both_scales() -> None:
    cube = random_cube(1, benchmarks=2, scales=SCALES)
    found = scale_differences(panel_of(cube), *SCALES, "accuracy", [[0], [0, 1]])
    each = []
    for left_out in (None, *range(9)):
        index = [m for m in range(9) if m != left_out]
        parts = [[side[index] for side in sides(cube, b)] for b in (0, 1)]
        each.append([r(*part[2:]) - r(*part[:2]) for part in parts])
    single, both = np.array(each)[:, 0], np.array(each).mean(axis=1)
    for difference, values in zip(found, (single, both), strict=True):
        pseudo = 9 * values[0] - 8 * values[1:]
        expected = scipy.stats.t.interval(0.95, 8, pseudo.mean(), scipy.stats.sem(pseudo))
        assert difference.estimate.ends == pytest.approx(np.clip(expected, -2.0, 2.0))


def test_dependent_scales_have_a_shorter_interval_than_independent_ones() -> None:
    """At 1B the same numbers with little noise: r hardly differs, whatever the mixtures drawn."""
    cube = random_cube(2, benchmarks=1, scales=SCALES, rho=0.3)
    random = np.random.default_rng(3)
    alone = scale_differences(panel_of(cube), *SCALES, "accuracy", [[0]])[0].estimate
    for stage in ("PT", "SFT"):
        small = cube["240m", stage, "accuracy"]
        cube["1b", stage, "accuracy"] = 2 * small + 0.002 * random.normal(size=small.shape)
    (found,) = (d.estimate for d in scale_differences(panel_of(cube), *SCALES, "accuracy", [[0]]))
    assert None not in (alone.low, alone.high, found.low, found.high)
    assert found.high - found.low < 0.2 * (alone.high - alone.low)  # type: ignore[operator]


@pytest.mark.parametrize("mixtures", [5, 6])
def test_p_against_every_exchange(mixtures: int) -> None:
    cube = random_cube(mixtures, mixtures=mixtures, benchmarks=3, scales=SCALES)
    found = scale_differences(panel_of(cube), *SCALES, "accuracy", [[0], [1], [2], [0, 1, 2]])
    null = []
    for swapped in itertools.product((False, True), repeat=mixtures):
        row = []
        for b in range(3):
            x, y, u, v = ((side - side.mean()) / side.std() for side in sides(cube, b))
            first = r(np.where(swapped, u, x), np.where(swapped, v, y))
            row.append(r(np.where(swapped, x, u), np.where(swapped, y, v)) - first)
        null.append([*row, np.mean(row)])
    sizes = np.abs(null)
    for g, difference in enumerate(found):
        assert difference.estimate.p == pytest.approx(np.mean(sizes[:, g] >= sizes[0, g] - 1e-9))
        assert difference.estimate.smallest_p == pytest.approx(np.mean(sizes[:, g] >= sizes[:, g].max() - 1e-9))
        assert difference.estimate.arrangements == 2**mixtures


def test_p_keeps_its_level_and_finds_what_is_there() -> None:
    """400 benchmarks, each a study of its own; their scales share mixtures, which makes them dependent."""
    random = np.random.default_rng(4)
    common = random.normal(size=(2, 9, 400))
    cube = {}
    for scale in SCALES:
        pt = 0.7 * common[0] + 0.7 * random.normal(size=(9, 400))
        cube[scale, "PT", "accuracy"] = pt
        cube[scale, "SFT", "accuracy"] = 0.6 * pt + 0.6 * common[1] + 0.5 * random.normal(size=(9, 400))
    every = [[b] for b in range(400)]
    panel = panel_of(cube, tuple(map(str, range(400))))
    p = np.array([d.estimate.p for d in scale_differences(panel, *SCALES, "accuracy", every)], float)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.25 * level + 0.02)
    for scale, noise in zip(SCALES, (10.0, 0.05), strict=True):
        pt = cube[scale, "PT", "accuracy"]
        cube[scale, "SFT", "accuracy"] = pt + noise * random.normal(size=pt.shape)
    panel = panel_of(cube, tuple(map(str, range(400))))
    found = scale_differences(panel, *SCALES, "accuracy", [*every, range(400)])
    assert np.mean([(d.estimate.p or 0) < 0.05 for d in found[:-1]]) > 0.5
    whole = found[-1].estimate
    assert whole.value is not None and whole.value > 0.8 and whole.low is not None and whole.low > 0.5
    assert whole.p == whole.smallest_p


def test_units_and_levels_of_the_scales_do_not_matter() -> None:
    cube = random_cube(5, benchmarks=2, scales=SCALES)
    first = scale_differences(panel_of(cube), *SCALES, "accuracy", [[0], [1]])
    units, levels = {"240m": 1.0, "1b": 7.0}, {"PT": 3.0, "SFT": 0.0}
    moved = {key: units[key[0]] * part + levels[key[1]] for key, part in cube.items()}
    second = scale_differences(panel_of(moved), *SCALES, "accuracy", [[0], [1]])
    for a, b in zip(first, second, strict=True):
        found = [(d.estimate.value, d.estimate.low, d.estimate.high, d.estimate.p) for d in (a, b)]
        assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_many_mixtures_are_exchanged_at_random() -> None:
    swaps, words = every_swap(18)
    assert swaps.shape == (rs.DRAWS, 18) and set(np.unique(swaps)) == {0, 1} and words == "10,000 draws"
    names = tuple(f"V{v}P{p}" for v in (1, 2, 3) for p in range(6))
    cube = random_cube(6, mixtures=18, benchmarks=1, scales=SCALES)
    (found,) = scale_differences(panel_of(cube, mixtures=names), *SCALES, "accuracy", [[0]])
    assert found.estimate.smallest_p == 1 / (rs.DRAWS + 1) and found.estimate.n == 18


def test_what_was_not_measured_is_left_out_and_counted() -> None:
    cube = random_cube(7, benchmarks=4, scales=SCALES)
    cube["1b", "SFT", "accuracy"][2] = np.nan  # a mixture
    cube["240m", "PT", "accuracy"][:, 1] = 0.5  # no variation
    cube["240m", "PT", "accuracy"][:, 3] = np.nan  # a benchmark
    single, constant, absent, mean = scale_differences(
        panel_of(cube), *SCALES, "accuracy", [[0], [1], [3], [0, 1, 2, 3]]
    )
    kept = np.arange(9) != 2
    x, y, u, v = (side[kept] for side in sides(cube, 0))
    assert single.estimate.value == pytest.approx(r(u, v) - r(x, y))
    assert (single.estimate.n, single.estimate.missing) == (8, 1)
    assert constant.estimate.value is absent.estimate.value is None and constant.small is None
    assert mean.estimate.points == "mixtures, mean of 2 benchmarks" and mean.estimate.missing == 3
    one = panel_of(random_cube(8, mixtures=1, scales=SCALES))
    assert scale_differences(one, *SCALES, "accuracy", [[0]])[0].estimate.reason == "only 1 mixtures"
    nothing = panel_of({key: np.full((9, 4), np.nan) for key in cube})
    assert scale_differences(nothing, *SCALES, "accuracy", [[0]])[0].estimate.value is None
    flat = panel_of({key: np.full((9, 4), 0.5) for key in cube})
    assert scale_differences(flat, *SCALES, "accuracy", [[0], [1, 2]])[1].estimate.value is None


@settings(max_examples=200, deadline=None)
@given(arrays(np.bool_, (5, 6), elements=st.sampled_from([True, True, True, False])))
def test_complete_is_complete(measured: np.ndarray) -> None:
    rows, columns = complete_block(measured)
    assert measured[np.ix_(rows, columns)].all()
    whole_rows, whole_columns = measured.all(axis=1).sum() * 6, measured.all(axis=0).sum() * 5
    assert rows.sum() * columns.sum() >= max(whole_rows, whole_columns)


def test_complete_keeps_the_larger_part() -> None:
    measured = np.ones((20, 9), bool)
    measured[3, 4] = False
    rows, columns = complete_block(measured)  # one benchmark of twenty rather than one mixture of nine
    assert not rows[3] and rows.sum() == 19 and columns.all()
    measured = np.ones((20, 9), bool)
    measured[:15, 4] = False
    rows, columns = complete_block(measured)
    assert rows.all() and not columns[4] and columns.sum() == 8
