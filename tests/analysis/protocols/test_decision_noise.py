"""Intervals of decisions for the same mixtures: against the model drawn from at random, and known truth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_noise import SLUG, study_of

from analysis.panel.panel import Panel
from analysis.protocols.decision_noise import WIDEST, same_mixtures, true_scores
from analysis.protocols.decisions import TOP, ranked_alike, top_regret
from analysis.protocols.noise import SeedNoise, draw
from analysis.report.verdict import choices
from analysis.tables.decisions import REGRET_INTERVALS, REGRETS, SAME_MIXTURES, decision_table


def one_by_one(early: np.ndarray, late: np.ndarray) -> tuple[float, ...]:
    """Decision accuracy and regrets, by counting pairs and trying every way to break ties."""
    m = len(early)
    hits = []
    for i, j in itertools.combinations(range(m), 2):
        a, b = np.round(early[i] - early[j], 9), np.round(late[i] - late[j], 9)
        hits.append(0.5 if a == 0 or b == 0 else float((a > 0) == (b > 0)))
    orders = [sorted(order, key=lambda i: -np.round(early[i], 9)) for order in itertools.permutations(range(m))]
    return (np.mean(hits), *(late.max() - np.mean([late[order[:k]].max() for order in orders]) for k in TOP))


def cells(panel: Panel) -> dict[str, Any]:
    """Of the row about the benchmark."""
    table = decision_table(panel)
    (row,) = (row for row in table.rows if row.keys[2] == panel.displays[SLUG])
    return table.values(row)


def test_draws_are_decided_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    early, late = random.integers(0, 4, (2, 40, 4)) / 4  # ties everywhere
    found = np.array([ranked_alike(early, late), *(top_regret(early, late, k) for k in TOP)])
    assert pytest.approx(np.array([one_by_one(a, b) for a, b in zip(early, late, strict=True)]), abs=1e-12) == found.T


def weighted_ends(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return values[order][np.searchsorted(total, [0.025 * total[-1], 0.975 * total[-1]])]


@pytest.mark.parametrize("mixtures", [3, 4])
def test_intervals_by_drawing_from_the_prior(mixtures: int) -> None:
    """Every prior r and spread is tried at random and weighted by scipy's density of what was seen, all scores in one
    vector with means that may be anything; the truth given those is that vector's conditional normal."""
    random = np.random.default_rng(3)
    seen = random.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], mixtures).T
    noise = np.array([[0.10, 0.04], [0.04, 0.20]])
    r, spreads = random.uniform(-1, 1, 6000), random.uniform(0, WIDEST, (6000, 2)) * seen.std(axis=1, ddof=1)
    everywhere = 1e4 * np.ones((mixtures, mixtures))
    truths, weights = np.empty((6000, 2, mixtures)), np.empty(6000)
    for i, (a, b) in enumerate(spreads):
        true = np.kron([[a * a, r[i] * a * b], [r[i] * a * b, b * b]], np.eye(mixtures)) + np.kron(
            np.eye(2), everywhere
        )
        both = true + np.kron(noise, np.eye(mixtures))
        weights[i] = np.exp(stats.multivariate_normal(cov=both).logpdf(seen.ravel()) + 30)
        gain = true @ np.linalg.inv(both)
        rest = true - gain @ true
        truths[i] = random.multivariate_normal(gain @ seen.ravel(), (rest + rest.T) / 2, tol=1e-5).reshape(2, mixtures)
    errors = random.multivariate_normal([0, 0], noise, (20_000, mixtures))
    found = same_mixtures(*seen, *(np.moveaxis(errors, 2, 0) + seen[:, None]))
    assert found is not None
    accuracies = ranked_alike(truths[:, 0], truths[:, 1])
    assert np.average(accuracies, weights=weights) == pytest.approx(
        ranked_alike(*true_scores(seen, noise)).mean(), abs=0.02
    )
    assert found.accuracy == pytest.approx(weighted_ends(accuracies, weights), abs=1e-9)  # one of few shares of pairs
    for k, pair in zip(TOP, found.regret, strict=False):
        costs = top_regret(np.broadcast_to(seen[0], (6000, mixtures)), truths[:, 1], k)
        assert pair == pytest.approx(weighted_ends(costs, weights), abs=0.08)


@pytest.mark.parametrize("freedom", [(2, 2), (5, 5), (2, 8), (3, 0)])
def test_few_seeds_leave_the_noise_open(freedom: tuple[int, int]) -> None:
    """As above with the noise of the seeds drawn too, by scipy's inverse Wishart or inverse chi-square."""
    random = np.random.default_rng(11)
    seen = random.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 5).T
    examples, same = np.array([[0.05, 0.02], [0.02, 0.05]]), freedom[0] == freedom[1]
    found = np.array([[0.10, 0.06], [0.06, 0.15]]) if same else np.diag([0.10, 0.15 * (freedom[1] > 0)])
    draws = 200_000
    r, spreads = random.uniform(-1, 1, draws), random.uniform(0, WIDEST, (2, draws)) * seen.std(axis=1, ddof=1)[:, None]
    true = np.array([[spreads[0] ** 2, r * spreads.prod(axis=0)], [r * spreads.prod(axis=0), spreads[1] ** 2]])
    if same:
        noise = stats.invwishart(freedom[0] + 1, freedom[0] * found).rvs(draws, random).transpose(1, 2, 0)
    else:
        factors = [f / random.chisquare(f, draws) if f else np.ones(draws) for f in freedom]
        noise = found[:, :, None] * np.eye(2)[:, :, None] * np.array(factors)
    weights = np.sqrt(np.prod([noise[i, i] / found[i, i] for i in range(2) if found[i, i]], axis=0))
    true, both = (np.moveaxis(part, 2, 0) for part in (true, true + noise + examples[:, :, None]))
    steps = np.linalg.svd(np.eye(5) - 1 / 5)[0][:, :4]  # four contrasts, each a pair of its own
    away = seen @ steps
    weights *= np.exp(sum(-np.log(np.linalg.det(both)) / 2 - inverse_form(both, pair) / 2 for pair in away.T))
    some = random.choice(draws, 4000, p=weights / weights.sum())
    gain = true[some] @ np.linalg.inv(both[some])
    rest = np.linalg.cholesky(true[some] - gain @ true[some] + 1e-9 * np.eye(2))
    truth = (gain @ away + rest @ random.normal(size=(4000, 2, 4))) @ steps.T
    seeds = SeedNoise(found, freedom, same)
    mine = true_scores(seen, examples + found, seeds)
    accuracies, expected = ranked_alike(*mine), ranked_alike(truth[:, 0], truth[:, 1])
    assert accuracies.mean() == pytest.approx(expected.mean(), abs=0.02)
    for tail in (0.1, 0.5, 0.9):
        costs = [
            np.quantile(top_regret(np.broadcast_to(seen[0], late.shape), late, 1), tail)
            for late in (mine[1], truth[:, 1])
        ]
        assert costs[0] == pytest.approx(costs[1], abs=0.1), tail


def inverse_form(matrices: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """v' M^-1 v for each matrix [n, 2, 2]."""
    return np.asarray(np.linalg.inv(matrices) @ vector @ vector)


def test_the_noise_of_few_seeds_widens_a_cost_as_much_as_they_are_few() -> None:
    random = np.random.default_rng(12)
    seen = random.normal(size=(2, 9))
    seen[1] += seen[0]
    found = np.diag([0.1, 0.1])
    drawn = seen[:, None] + np.sqrt(0.1) * random.normal(size=(2, 2000, 9))
    ends = [same_mixtures(*seen, *drawn, SeedNoise(found, (f, f), True)) for f in (2, 6, 200)]
    known = same_mixtures(*seen, *drawn)
    widths = [one.regret[0][1] - one.regret[0][0] for one in (*ends, known) if one]
    assert widths[0] > 1.2 * widths[2] and widths[0] > widths[1] > widths[2]
    assert widths[2] == pytest.approx(widths[3], rel=0.05)


def test_early_and_late_see_the_same_examples_and_seeds() -> None:
    """The late score is the early one: their true order is one, whatever is drawn. Drawn apart, it would not be."""
    random = np.random.default_rng(1)
    for table in (random.normal(size=(5, 30)), random.normal(size=(3, 5, 30))):
        said = cells(study_of(table, table))
        low, high = said[SAME_MIXTURES]
        assert f"[{low:.2f}, {high:.2f}]" == "[1.00, 1.00]"
        assert {round(100 * said[name][0], 1) for name in REGRET_INTERVALS} == {0.0}


def test_seeds_widen_it_and_one_seed_is_said_not_to_be_measured() -> None:
    random = np.random.default_rng(2)
    pt, sft = random.normal(0, 1.0, (2, 3, 6, 1)) + random.normal(0, 0.1, (2, 3, 6, 200))
    one, three = study_of(pt[0], sft[0]), study_of(pt, sft)
    widths = [np.diff(cells(panel)[REGRET_INTERVALS[0]])[0] for panel in (one, three)]
    assert widths[1] > 3 * widths[0]
    assert str(decision_table(one).caveats[0]).endswith("no mixture has two seeds: their noise is not measured")
    assert tuple(map(str, decision_table(three).caveats)) == (
        "interval, same mixtures: other examples and seeds for these very mixtures",
    )


def test_the_seeds_part_of_the_noise_is_that_of_the_draws() -> None:
    """The noise is that of a mean over benchmarks, early and late, within a scale and between two."""
    random = np.random.default_rng(13)
    pt, sft = random.normal(0, 1.0, (2, 3, 6, 1)) + np.zeros((2, 3, 6, 50))  # all noise is the run's
    panel = study_of(pt, sft)
    drawn = draw(panel)
    assert drawn
    seeds = drawn.seed_noise(("240m", "PT"), ("240m", "SFT"), [panel.benchmarks.index(SLUG)])
    assert seeds and seeds.freedom == (12, 12) and seeds.same_runs
    runs = np.stack([pt[:, :, 0], sft[:, :, 0]])
    within = runs - runs.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(seeds.covariance, np.einsum("asm,bsm->ab", within, within) / 12, rtol=1e-6)


def test_the_table_counts_on_few_seeds() -> None:
    """Two seeds of every mixture, six degrees of freedom: wider than if they told the noise exactly."""
    random = np.random.default_rng(14)
    pt, sft = random.normal(0, 1.0, (2, 2, 6, 1)) + random.normal(0, 2.0, (2, 1, 6, 1)) + np.zeros((2, 2, 6, 50))
    panel = study_of(pt, sft)
    drawn, column = draw(panel), panel.benchmarks.index(SLUG)
    assert drawn
    seen = [panel.matrix("240m", stage)[:, column] for stage in ("PT", "SFT")]
    around = [drawn.values["240m", stage, "accuracy"][:, :, column] for stage in ("PT", "SFT")]
    open_, known = (
        same_mixtures(seen[0], seen[1], around[0], around[1], seeds)
        for seeds in (drawn.seed_noise(("240m", "PT"), ("240m", "SFT"), [column]), None)
    )
    assert open_ and known and np.diff(open_.regret[0]) > np.diff(known.regret[0])
    assert cells(panel)[REGRET_INTERVALS[0]] == open_.regret[0]


def test_the_verdict_has_the_interval_of_the_cost() -> None:
    panel = study_of(*np.random.default_rng(4).random((2, 5, 40)))
    table = decision_table(panel)
    said = table.values(table.rows[0])
    choice = choices(panel, table)[0]
    assert choice.regret == said[REGRETS[0]] and choice.regret_interval == said[REGRET_INTERVALS[0]] is not None


def test_without_draws_there_is_no_interval() -> None:
    random = np.random.default_rng(5)
    early, late = random.random((2, 5))
    some = random.random((2, 100, 5))
    assert same_mixtures(early, late, *some) is not None
    some[0, :, 2] = np.nan
    assert same_mixtures(early, late, *some) is None
    early[2] = np.nan
    assert same_mixtures(early, late, *some) is not None  # the same four mixtures
    assert same_mixtures(early[:2], late[:2], *some[:, :, :2]) is None


@pytest.mark.parametrize("reliability", [0.6, 0.9])
@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_the_truth_is_inside(reliability: float, r: float) -> None:
    """Nine mixtures whose scores carry noise; the truth is what they would score on endlessly many examples."""
    random = np.random.default_rng(6)
    noise, held = np.sqrt(1 / reliability - 1), []
    for _ in range(150):
        truth = random.multivariate_normal([0, 0], [[1, r], [r, 1]], 9).T
        seen = truth + random.normal(0, noise, (2, 9))
        found = same_mixtures(*seen, *(seen[:, None] + random.normal(0, noise, (2, 300, 9))))
        assert found is not None
        ends = zip(
            (found.accuracy, found.regret[0]), (ranked_alike(*truth), top_regret(seen[0], truth[1], 1)), strict=True
        )
        held.append([low - 1e-12 <= true <= high + 1e-12 for (low, high), true in ends])
    assert (np.mean(held, axis=0) > 0.9).all()
