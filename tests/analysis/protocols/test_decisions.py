"""Decisions against brute force, scipy's Kendall and cases worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import panel_of, random_cube
from scipy import stats

from analysis.panel.panel import Panel
from analysis.paper.numbers import category_of
from analysis.protocols.decisions import decide, decide_on_average, pair_agreement, subsets, top_regret
from analysis.rendering.table import RowVerdict
from analysis.report.verdict import choices
from analysis.stats import resampling as rs
from analysis.tables.decisions import REGRET_INTERVALS, REGRETS, decision_table
from configs.load import BENCHMARKS

LEVELS = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(lambda v: np.array(v) / 4)


def test_by_hand() -> None:
    """Pairs: 01 alike, 02 alike, 12 turned round; the choice, mixture 1, is 0.1 behind the best."""
    found = decide(np.array([0.1, 0.5, 0.4]), np.array([0.2, 0.6, 0.7]))
    assert found.accuracy.value == pytest.approx(2 / 3) and found.accuracy.n == 3
    assert found.chosen == (1,) and found.best == (2,) and found.regret == pytest.approx((0.1, 0.0, 0.0))


@settings(max_examples=80, deadline=None)
@given(LEVELS, LEVELS)
def test_accuracy_is_kendall_without_its_correction_for_ties(early: np.ndarray, late: np.ndarray) -> None:
    hits = [
        0.5 if a == 0 or b == 0 else float((a > 0) == (b > 0))
        for i, j in itertools.combinations(range(6), 2)
        for a, b in [(early[i] - early[j], late[i] - late[j])]
    ]
    found = decide(early, late).accuracy
    assert found.value == pytest.approx(np.mean(hits))
    if len(set(early)) == len(set(late)) == 6:
        assert found.value == pytest.approx((1 + stats.kendalltau(early, late).statistic) / 2)


@settings(max_examples=20, deadline=None)
@given(LEVELS, LEVELS)
def test_p_against_every_order(early: np.ndarray, late: np.ndarray) -> None:
    observed = decide(early, late).accuracy
    null = []
    for order in itertools.permutations(range(6)):
        agreement = pair_agreement(early, late[list(order)])
        null.append(abs(agreement.sum() / 30 - 0.5))
    assert observed.value is not None
    assert observed.p == pytest.approx(np.mean([size >= abs(observed.value - 0.5) - 1e-10 for size in null]))


@settings(max_examples=80, deadline=None)
@given(LEVELS, LEVELS, st.integers(1, 6))
def test_regret_is_the_mean_over_all_ways_to_break_ties(early: np.ndarray, late: np.ndarray, k: int) -> None:
    paid = []
    for order in itertools.permutations(range(6)):
        first = sorted(order, key=lambda i: -early[i])[:k]  # stable: ties stay in the order drawn
        paid.append(max(late) - max(late[i] for i in first))
    assert top_regret(early, late, k) == pytest.approx(np.mean(paid), abs=1e-12)


def test_the_wrong_stage_is_noticed() -> None:
    """Regret is paid in late scores: turned round, it is another number."""
    early, late = np.array([0.30, 0.31, 0.32]), np.array([0.5, 0.7, 0.4])
    assert top_regret(early, late, 1) == pytest.approx(0.3)
    assert top_regret(late, early, 1) == pytest.approx(0.01)


def test_interval_is_a_bootstrap_over_mixtures() -> None:
    random = np.random.default_rng(0)
    early = random.normal(size=9)
    late = early + random.normal(size=9)
    found = decide(early, late).accuracy
    drawn = []
    for _ in range(4000):
        index = random.integers(0, 9, 9)
        pairs = [(i, j) for i, j in itertools.combinations(index, 2) if i != j]
        hits = [(early[i] > early[j]) == (late[i] > late[j]) for i, j in pairs]
        drawn.append(np.mean(hits))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)


def test_what_was_not_measured_is_counted() -> None:
    early, late = np.array([0.1, math.nan, 0.3, 0.2]), np.array([0.1, 0.9, 0.2, 0.3])
    found = decide(early, late)
    assert found.accuracy.n == 3 and found.accuracy.missing == 1 and found.chosen == (2,) and found.best == (3,)
    assert decide(early, np.full(4, math.nan)).accuracy.reason == "only 0 mixtures"


def test_the_mean_over_benchmarks_keeps_mixtures_together() -> None:
    random = np.random.default_rng(4)
    early, late = random.normal(size=(2, 7, 3))
    early[2, 1] = math.nan
    found = decide_on_average(early, late)
    each = [decide(early[:, b], late[:, b]).accuracy.value for b in (0, 2)]
    assert found.value == pytest.approx(np.mean(each)) and found.missing == 1 and found.n == 7
    null = [
        np.mean([pair_agreement(early[:, b], late[list(order), b]).sum() / 42 for b in (0, 2)])
        for order in itertools.permutations(range(7))
    ]
    expected = np.mean(np.abs(np.array(null) - 0.5) >= abs(np.mean(each) - 0.5) - 1e-10)
    assert found.p == pytest.approx(expected, abs=0.02)
    assert decide_on_average(early[:, 1:2], late[:, 1:2]).reason == "no benchmark measured on all mixtures"


def test_what_was_scored_in_one_stage_only_decides_nothing() -> None:
    """The mean is over the benchmarks of both: here the third one would turn the early order round."""
    early, late = np.random.default_rng(7).random((2, 6, 3)) / 100
    early[:, 2] = np.arange(6.0)
    late[:, 2] = math.nan
    slugs = ("hellaswag", "piqa", "sciq")
    panel = panel_of({("240m", "PT", "accuracy"): early, ("240m", "SFT", "accuracy"): late}, slugs)
    rows = {row.keys[2]: row for row in decision_table(panel).rows}
    expected = decide(early[:, :2].mean(axis=1), late[:, :2].mean(axis=1))
    assert rows["mean of 2 benchmarks"].estimate == expected.accuracy
    assert rows["mean of Commonsense"].estimate == expected.accuracy
    assert rows["mean of Science (0 of 1 benchmarks)"].estimate.reason == "only 0 mixtures"
    assert rows["SciQ"].estimate.value is None and "mean of 3 benchmarks" not in rows
    assert choices(panel, decision_table(panel))[0].first == (panel.mixtures[expected.chosen[0]],)


def test_constant_scores_decide_nothing() -> None:
    found = decide(np.full(5, 0.25), np.arange(5.0))
    assert found.accuracy.value == 0.5 and found.accuracy.p == 1.0 and len(found.chosen) == 5
    assert found.regret[0] == pytest.approx(2.0)  # the mean over all choices


def test_the_benchmark_that_carries_the_decision_is_found_on_mixtures_that_did_not_choose_it() -> None:
    random = np.random.default_rng(1)
    quality = np.linspace(0, 1, 9)
    noise = random.normal(size=(9, 6))
    early = noise.copy()
    early[:, 3] = 100 * quality
    late = quality[:, None] + 0.01 * random.normal(size=(9, 6))
    found = subsets(early, late)
    assert [subset.size for subset in found] == [1, 2, 3, 4, 5, 6]
    assert found[0].benchmarks == (3,) and found[0].accuracy == 1.0 and found[0].chosen_in == (9,)
    assert sorted(found[-1].benchmarks) == list(range(6))


def test_a_choice_among_noise_is_not_credited_with_what_it_fitted() -> None:
    """Chosen on all mixtures, the best of twenty noises looks good; on the left-out one it is a coin."""
    random = np.random.default_rng(2)
    inside, outside = [], []
    for _ in range(20):
        early, late = random.normal(size=(2, 9, 20))
        first = subsets(early, late)[0]
        outside.append(first.accuracy)
        inside.append(decide(early[:, first.benchmarks[0]], late.mean(axis=1)).accuracy.value)
    assert np.mean(inside) > 0.68 and abs(np.mean(outside) - 0.5) < 0.1


def test_a_hundred_and_fifty_six_mixtures_with_ties() -> None:
    """More than fit into small integers: p stays a share of the draws."""
    random = np.random.default_rng(2)
    early = np.round(random.random(156), 2)
    unrelated, same = decide(early, random.random(156)).accuracy, decide(early, early).accuracy
    assert unrelated.p is not None and unrelated.p > 0.01 and same.p == pytest.approx(1 / (rs.DRAWS + 1))


# ---------------------------------------------------------------------------------------------- nothing to decide


def panel_at_chance(chance: dict[str, float], late_alike: tuple[str, ...] = ()) -> Panel:
    """Ten standard errors above a chance of 0.25, but for some benchmarks; late scores of some are all alike."""
    cube = random_cube(3)
    names = list(BENCHMARKS)
    for slug in late_alike:
        cube["240m", "SFT", "accuracy"][:, names.index(slug)] = 0.6
    panel = panel_of(cube)
    levels = np.array([chance.get(slug, 0.25) for slug in names])
    shape = panel.values["240m", "PT", "accuracy", "sum"].shape
    values = {("240m", stage, "chance", ""): np.broadcast_to(levels, shape) for stage in ("PT", "SFT")}
    stderrs = {("240m", stage, "accuracy", "sum"): np.full(shape, 0.02) for stage in ("PT", "SFT")}
    return dataclasses.replace(panel, values=panel.values | values, stderrs=stderrs)


def test_a_score_at_chance_or_constant_has_no_price() -> None:
    """All of NLI is at chance or constant; of Science one benchmark is not."""
    science = [slug for slug in BENCHMARKS if category_of()[slug] == "Science"]
    chance = dict.fromkeys(("mnli", "qnli", "rte", *science[1:]), 0.9)
    table = decision_table(panel_at_chance(chance, late_alike=("cb",)))
    rows = {row.keys[2]: row for row in table.rows}
    for name in ("mean of NLI", "MNLI", "QNLI", "RTE", "CB"):
        said = table.values(rows[name])
        early = "" if name in ("mean of NLI", "CB") else "240m PT, "
        assert rows[name].no_claim == f"all at chance or constant ({early}240m SFT)"
        assert rows[name].verdict is RowVerdict.NO_CLAIM and said["first early"] and said["best late"]
        assert not any(said[column] for column in (*REGRETS, *REGRET_INTERVALS))
    for name in ("mean of 20 benchmarks", "mean of Science", "mean of Semantic", "PIQA"):
        assert not rows[name].no_claim and table.values(rows[name])[REGRETS[0]] is not None
    assert any("there is no decision to price" in note for note in table.notes)


def test_a_price_needs_no_chance_that_is_not_known() -> None:
    table = decision_table(panel_of(random_cube(3)))
    assert not any(row.no_claim for row in table.rows) and not any("to price" in note for note in table.notes)
    assert all(table.values(row)[REGRETS[0]] is not None for row in table.rows)
