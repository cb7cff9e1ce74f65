"""Category means of r against loops, hand-made cases and Table 5; categories know nothing of each other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from panels import panel_of, random_cube
from scipy import stats

from analysis.panel.panel import Panel
from analysis.protocols import correlations as co
from analysis.protocols.category_means import LeftOut, category_means
from analysis.protocols.usable import AT_CHANCE, TOO_NOISY
from analysis.stats.estimates import CONSTANT
from analysis.stats.resampling import jackknife_interval
from analysis.tables.protocols import category_means_table

ACCURACY = [("240m", stage, "accuracy") for stage in ("PT", "SFT")]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return panel_of(random_cube(3, rho=0.7))


def with_chance(panel: Panel, chance: np.ndarray, error: float = 0.01) -> Panel:
    """chance: [benchmarks]; error: standard error of every accuracy."""
    values, stderrs = dict(panel.values), dict(panel.stderrs)
    for scale, stage, metric in ACCURACY:
        shape = panel.values[scale, stage, metric, "sum"].shape
        values[scale, stage, "chance", ""] = np.broadcast_to(chance, shape)
        stderrs[scale, stage, metric, "sum"] = np.full(shape, error)
    return replace(panel, values=values, stderrs=stderrs)


def with_seeds(panel: Panel, noise: np.ndarray) -> Panel:
    """Two more seeds, of run noise with these standard deviations [benchmarks]."""
    random = np.random.default_rng(0)
    values = {
        key: np.concatenate([cube, cube + noise * random.normal(size=(2, *cube.shape[1:]))])
        for key, cube in panel.values.items()
    }
    return replace(panel, seeds=(0, 1, 2), values=values)


def test_means_are_those_of_table_5(panel: Panel) -> None:
    for metric in ("accuracy", "confidence"):
        found = category_means(panel, "240m", metric)
        mean = co.mean_cross_stage(panel, "240m", metric)
        assert list(found) == ["Commonsense", "Science", "NLI", "Semantic", "all"]
        every = found["all"].every.estimate
        assert every.value == pytest.approx(mean.value) and every.p == mean.p and every.smallest_p == mean.smallest_p
        r = np.array([a.estimate.value for a in co.cross_stage(panel, "240m", metric)], float)
        science = found["Science"].every
        assert science.estimate.value == pytest.approx(r[panel.members("Science")].mean())
        assert science.averaged == tuple(panel.members("Science"))
        assert science.estimate.points == "mixtures, mean of 4 benchmarks"


def test_intervals_and_p_against_loops() -> None:
    cube = random_cube(4, mixtures=6)
    panel = panel_of(cube)
    pt, sft = (cube[key] for key in ACCURACY)
    found = category_means(panel, "240m", "accuracy")
    for category in ("Science", "Semantic"):
        columns, estimate = panel.members(category), found[category].every.estimate

        def mean(rows: list[int], late: list[int], columns: list[int] = columns) -> float:
            return float(np.mean([np.corrcoef(pt[rows, b], sft[late, b])[0, 1] for b in columns]))

        whole = list(range(6))
        z = math.atanh(mean(whole, whole))
        pseudo = []
        for i in whole:
            rest = [m for m in whole if m != i]
            pseudo.append(6 * z - 5 * math.atanh(mean(rest, rest)))
        ends = stats.t.interval(0.95, 5, np.mean(pseudo), stats.sem(pseudo))
        assert estimate.ends == pytest.approx(tuple(np.tanh(ends)))
        null = [abs(mean(whole, list(order))) for order in itertools.permutations(whole)]
        assert estimate.p == pytest.approx(np.mean(np.array(null) >= abs(mean(whole, whole)) - 1e-9))


def test_a_category_without_correlation_is_not_lent_one() -> None:
    """Value, interval and p of a category are the same whatever the others do."""
    weak, strong = random_cube(11, rho=0.0), random_cube(11, rho=0.0)
    others = [b for b in range(20) if b not in panel_of(weak).members("NLI")]
    for key in ACCURACY:
        strong[key][:, others] = strong["240m", "PT", "accuracy"][:, others] + 0.001 * weak[key][:, others]
    alone, beside = (category_means(panel_of(cube), "240m", "accuracy") for cube in (weak, strong))
    mine, again = (found["NLI"].every.estimate for found in (alone, beside))
    assert again.value == pytest.approx(mine.value) and again.ends == pytest.approx(mine.ends)
    assert again.p == mine.p and (mine.p or 0) > 0.05
    assert (beside["Science"].every.estimate.value or 0) > 0.9


def test_what_cannot_tell_mixtures_apart_does_not_enter(panel: Panel) -> None:
    nli, science = panel.members("NLI"), panel.members("Science")
    chance = np.full(20, 0.25)
    chance[nli] = 0.9
    noise = np.full(20, 0.001)
    noise[science[0]] = 1.0
    constant = {key: cube.copy() for key, cube in panel.values.items()}
    constant["240m", "SFT", "accuracy", "sum"][:, :, science[1]] = 0.6
    found = category_means(with_chance(with_seeds(replace(panel, values=constant), noise), chance), "240m", "accuracy")
    assert found["NLI"].usable.estimate.value is None
    assert found["NLI"].usable.estimate.reason == "no usable benchmark"
    assert found["NLI"].left_out.reasons == {AT_CHANCE: 4} and found["NLI"].every.averaged == tuple(nli)
    assert found["Science"].usable.averaged == tuple(science[2:])
    assert found["Science"].left_out.reasons == {TOO_NOISY: 1, CONSTANT: 1}
    assert str(found["Science"].left_out) == f"1 {TOO_NOISY}, 1 {CONSTANT}"
    r = [co.cross_stage(panel, "240m", "accuracy")[b].estimate.value for b in science[2:]]
    assert found["Science"].usable.estimate.value == pytest.approx(np.mean(np.array(r, float)))
    # Chance says nothing about confidence, whose noise is another.
    found = category_means(with_chance(panel, chance), "240m", "confidence")
    assert found["NLI"].usable.averaged == tuple(nli)


def test_without_noise_nothing_is_left_out_and_that_is_said(panel: Panel) -> None:
    table = category_means_table(panel)
    for metric, scale, name in (("accuracy", "240m", "NLI"), ("confidence", "240m", "all")):
        rows = {row.keys[3]: row for row in table.rows if row.keys[:3] == (scale, metric, name)}
        assert rows["mean of r"].estimate == rows["usable benchmarks"].estimate
        count = 4 if name == "NLI" else 20
        assert table.texts(rows["usable benchmarks"]) == [f"noise of {count} not measured"]
    assert any("where noise is not measured a benchmark stays" in note for note in table.notes)
    assert str(LeftOut(category_means(panel, "240m", "accuracy")["all"].left_out.reasons, 0)) == "none"


def test_the_papers_mean_is_over_the_same_benchmarks(panel: Panel) -> None:
    chance = np.full(20, 0.25)
    chance[panel.members("Science")[1:]] = 0.9
    table = category_means_table(with_chance(panel, chance))
    rows = {row.keys[3]: row for row in table.rows if row.keys[:3] == ("240m", "accuracy", "Science")}
    of = [panel.paper_number("240m", "5", "accuracy", "{}", panel.benchmarks[b]) for b in panel.members("Science")]
    assert rows["mean of r"].paper == pytest.approx(np.mean(np.array(of, float)))
    assert rows["usable benchmarks"].paper == of[0]


def test_little_data_says_why(panel: Panel) -> None:
    found = category_means(panel_of(random_cube(5, mixtures=3)), "240m", "accuracy")
    assert found["all"].every.estimate.reason == "only 3 mixtures" and found["NLI"].usable.estimate.value is None
    cube = random_cube(6)
    cube["240m", "PT", "accuracy"][:, panel.members("NLI")] = np.nan
    cube["240m", "PT", "accuracy"][:, 0] = 0.5
    found = category_means(panel_of(cube), "240m", "accuracy")
    nli = found["NLI"].every.estimate
    assert nli.value is None and nli.missing == 4 and nli.reason == "no benchmark measured on all mixtures"
    assert found["Commonsense"].every.estimate.points == "mixtures, mean of 6 benchmarks"
    assert found["all"].every.estimate.value is not None and found["all"].every.estimate.missing == 5


def test_a_perfect_correlation_stays_finite() -> None:
    cube = random_cube(7)
    cube["240m", "SFT", "accuracy"] = 2 * cube["240m", "PT", "accuracy"]
    estimate = category_means(panel_of(cube), "240m", "accuracy")["all"].every.estimate
    assert estimate.value == pytest.approx(1) and estimate.ends == pytest.approx((1, 1), abs=1e-5)


def test_the_jackknife_interval_holds_the_true_mean() -> None:
    """Means of eight correlations over nine mixtures whose effects have a common factor."""
    random = np.random.default_rng(8)
    for r in (0.0, 0.9):
        common, own = random.normal(size=(2, 2000, 1, 9)), random.normal(size=(2, 2000, 8, 9))
        x, other = math.sqrt(0.5) * common + math.sqrt(0.5) * own
        y = r * x + math.sqrt(1 - r**2) * other
        samples = [x, y], *([np.delete(x, i, axis=2), np.delete(y, i, axis=2)] for i in range(9))
        value, *without = (np.mean(each_r(*sides), axis=1) for sides in samples)
        low, high = jackknife_interval(value, np.array(without))
        assert np.mean((low <= r) & (r <= high)) == pytest.approx(0.95, abs=0.02)


def each_r(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson along the last axis."""
    x, y = (side - side.mean(axis=-1, keepdims=True) for side in (x, y))
    return np.asarray((x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1)))
