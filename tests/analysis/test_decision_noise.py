"""Intervals of decisions for the same mixtures: against examples resampled one draw after another, and known truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_noise import SLUG, study_of

from analysis.decision_noise import same_mixtures
from analysis.decision_tables import REGRET_INTERVALS, REGRETS, SAME_MIXTURES, decision_table
from analysis.decisions import TOP, decide, ranked_alike, top_regret
from analysis.panel import Panel
from analysis.verdict import choices


def one_by_one(early: np.ndarray, late: np.ndarray) -> tuple[float, ...]:
    """Decision accuracy and regrets, by counting pairs and trying every way to break ties."""
    m = len(early)
    hits = []
    for i, j in itertools.combinations(range(m), 2):
        a, b = np.round(early[i] - early[j], 9), np.round(late[i] - late[j], 9)
        hits.append(0.5 if a == 0 or b == 0 else float((a > 0) == (b > 0)))
    orders = [sorted(order, key=lambda i: -np.round(early[i], 9)) for order in itertools.permutations(range(m))]
    return (np.mean(hits), *(late.max() - np.mean([late[order[:k]].max() for order in orders]) for k in TOP))


def cells(panel: Panel) -> dict[str, str]:
    """Of the row about the benchmark."""
    table = decision_table(panel)
    (row,) = (row for row in table.rows if row.keys[2] == panel.displays[SLUG])
    return dict(zip(table.extra, row.extra, strict=True))


def ends(words: str) -> list[float]:
    return [float(part) for part in words.strip("[]").split(", ")]


def test_draws_are_decided_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    early, late = random.integers(0, 4, (2, 40, 4)) / 4  # ties everywhere
    found = np.array([ranked_alike(early, late), *(top_regret(early, late, k) for k in TOP)])
    assert pytest.approx(np.array([one_by_one(a, b) for a, b in zip(early, late, strict=True)]), abs=1e-12) == found.T


def test_intervals_of_a_small_study_by_brute_force() -> None:
    """Four mixtures that answer sixteen examples rightly or wrongly; PT and SFT answer the same ones."""
    random = np.random.default_rng(3)
    pt = (random.random((4, 16)) < np.array([0.3, 0.4, 0.6, 0.7])[:, None]).astype(float)
    sft = np.where(random.random((4, 16)) < 0.6, pt, random.random((4, 16)) < 0.7)
    seen = one_by_one(pt.mean(axis=1), sft.mean(axis=1))
    drawn = []
    for _ in range(1500):
        examples = random.integers(0, 16, 16)
        drawn.append(one_by_one(pt[:, examples].mean(axis=1), sft[:, examples].mean(axis=1)))
    low, high = (np.array(seen) + sign * 1.96 * np.std(drawn, axis=0) for sign in (-1, 1))
    expected = np.stack([np.maximum(low, 0), np.minimum(high, [1, np.inf, np.inf, np.inf])], axis=1)
    said = cells(study_of(pt, sft))
    assert ends(said[SAME_MIXTURES]) == pytest.approx(expected[0], abs=0.03)
    for name, pair in zip(REGRET_INTERVALS, expected[1:], strict=True):
        assert ends(said[name]) == pytest.approx(100 * pair, abs=1.5)
    assert expected[1, 1] > 0.05  # a choice that other examples would make otherwise


def test_early_and_late_see_the_same_examples_and_seeds() -> None:
    """The late score is the early one: whatever is drawn, the choice is right. Drawn apart, it would not be."""
    random = np.random.default_rng(1)
    for table in (random.normal(size=(5, 30)), random.normal(size=(3, 5, 30))):
        said = cells(study_of(table, table))
        assert said[SAME_MIXTURES] == "[1.00, 1.00]" and {said[name] for name in REGRET_INTERVALS} == {"[0.0, 0.0]"}


def test_seeds_widen_it_and_one_seed_is_said_not_to_be_measured() -> None:
    random = np.random.default_rng(2)
    pt, sft = random.normal(0, 1.0, (2, 3, 6, 1)) + random.normal(0, 0.1, (2, 3, 6, 200))
    one, three = study_of(pt[0], sft[0]), study_of(pt, sft)
    widths = [np.diff(ends(cells(panel)[REGRET_INTERVALS[0]]))[0] for panel in (one, three)]
    assert widths[1] > 3 * widths[0]
    assert decision_table(one).caveats[0].endswith("no mixture has two seeds: their noise is not measured")
    assert decision_table(three).caveats == (
        "interval, same mixtures: other examples and seeds for these very mixtures",
    )


def test_the_verdict_has_the_interval_of_the_cost() -> None:
    panel = study_of(*np.random.default_rng(4).random((2, 5, 40)))
    table = decision_table(panel)
    said = dict(zip(table.extra, table.rows[0].extra, strict=True))
    choice = choices(panel, table)[0]
    assert choice.regret == said[REGRETS[0]] and choice.regret_interval == said[REGRET_INTERVALS[0]] != ""


def test_without_draws_there_is_no_interval() -> None:
    random = np.random.default_rng(5)
    early, late = random.random((2, 5))
    some = random.random((2, 100, 5))
    assert same_mixtures(decide(early, late), *some) is not None
    some[0, :, 2] = np.nan
    assert same_mixtures(decide(early, late), *some) is None
    early[2] = np.nan
    assert same_mixtures(decide(early, late), *some) is not None  # the same four mixtures
    assert same_mixtures(decide(early[:2], late[:2]), *some[:, :, :2]) is None


@pytest.mark.parametrize("reliability", [0.6, 0.9])
def test_the_regret_of_the_truth_is_inside(reliability: float) -> None:
    """Nine mixtures whose scores carry noise; the truth is what they would score on endlessly many examples."""
    random = np.random.default_rng(6)
    noise, held = np.sqrt(1 / reliability - 1), []
    for _ in range(300):
        truth = random.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 9).T
        seen = truth + random.normal(0, noise, (2, 9))
        drawn = seen[:, None] + random.normal(0, noise, (2, 300, 9))
        found = same_mixtures(decide(*seen), *drawn)
        assert found is not None
        low, high = found.regret[0]
        held.append(low - 1e-12 <= top_regret(*truth, 1) <= high)
    assert 0.89 < np.mean(held) < 0.99
