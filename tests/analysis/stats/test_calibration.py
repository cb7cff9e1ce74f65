"""Calibration against scikit-learn, plain loops and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from analysis.stats import calibration as ca

CELLS = 4


def answers(
    seed: int = 0, examples: int = 900, candidates: int = 4, temperature: float = 1.0
) -> tuple[np.ndarray, ...]:
    """Log-probabilities, and gold drawn from their softmax at a temperature; cells of unequal size."""
    random = np.random.default_rng(seed)
    logprob = -random.gamma(2.0, 2.0, (examples, candidates))
    lacking = random.random(examples) < 0.2
    logprob[lacking, -1] = -np.inf
    probability = softmax(logprob / temperature, axis=1)
    gold = (probability.cumsum(axis=1) < random.random((examples, 1))).sum(axis=1)
    return logprob, gold, random.integers(0, CELLS, examples) ** 2 // CELLS


def loop(confidence: np.ndarray, right: np.ndarray, edges: list[np.ndarray]) -> float:
    """ECE, one bin after another; edges: the examples of each bin."""
    gaps = [len(mine) * abs(confidence[mine].mean() - right[mine].mean()) for mine in edges if len(mine)]
    return sum(gaps) / len(confidence)


def test_ece_of_either_kind_against_a_loop() -> None:
    logprob, gold, cell = answers()
    probability = softmax(logprob, axis=1)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == gold
    bins = ca.width_bins(confidence, 10), ca.mass_bins(ca.ascending(confidence, cell), cell, 10)
    wide, full = (ca.reliability_diagram(confidence, right, cell, CELLS, bin_, 10) for bin_ in bins)
    for number in range(CELLS):
        c, r = confidence[cell == number], right[cell == number]
        if not len(c):
            continue
        width = [np.flatnonzero((c > low / 10) & (c <= (low + 1) / 10)) for low in range(10)]
        assert wide.expected_error[number] == pytest.approx(loop(c, r, width))
        order = np.argsort(c, kind="stable")
        mass = [order[[i for i in range(len(c)) if i * 10 // len(c) == b]] for b in range(10)]
        assert full.expected_error[number] == pytest.approx(loop(c, r, mass))
        assert full.count[number].max() - full.count[number].min() <= 1


def test_by_hand() -> None:
    """Two bins: 0.9 sure and right twice of four, 0.6 sure and right once of two."""
    confidence = np.array([0.9] * 4 + [0.6] * 2)
    right = np.array([True, True, False, False, True, False])
    found = ca.reliability_diagram(confidence, right, np.zeros(6, int), 1, ca.width_bins(confidence, 10), 10)
    assert found.expected_error == pytest.approx([(4 * 0.4 + 2 * 0.1) / 6])
    parts = ca.brier_parts(found)
    assert parts.calibration == pytest.approx([(4 * 0.16 + 2 * 0.01) / 6])
    assert parts.resolution == pytest.approx([0.0]) and parts.uncertainty == pytest.approx([0.25])


def test_the_parts_of_the_brier_score_add_up() -> None:
    random = np.random.default_rng(3)
    confidence = random.choice([0.3, 0.55, 0.8, 0.95], 500)
    right = random.random(500) < confidence**2
    bin_ = ca.width_bins(confidence)
    parts = ca.brier_parts(ca.reliability_diagram(confidence, right, np.zeros(500, int), 1, bin_))
    whole = parts.calibration - parts.resolution + parts.uncertainty
    assert whole == pytest.approx([brier_score_loss(right, confidence)])


def test_scores_against_scikit_learn() -> None:
    logprob, gold, cell = answers(seed=1)
    whole = np.isfinite(logprob).all(axis=1)
    logprob, gold, cell = logprob[whole], gold[whole], cell[whole]
    probability = softmax(logprob, axis=1)
    found, loss = ca.softmax_and_nll(logprob, gold)
    np.testing.assert_allclose(found, probability)
    assert loss.mean() == pytest.approx(log_loss(gold, probability))
    assert ca.softmax_and_nll(np.array([[0.0, -1e4]]), np.array([1]))[1] == pytest.approx([1e4])
    expected = ((probability - np.eye(4)[gold]) ** 2).sum(axis=1)
    np.testing.assert_allclose(ca.brier(probability, gold), expected)
    confidence, right = np.round(probability.max(axis=1), 2), probability.argmax(axis=1) == gold
    found, stderr = ca.auroc(confidence, right, cell, CELLS, ca.ascending(confidence, cell))
    for number in range(CELLS):
        mine = cell == number
        if not mine.any():
            assert math.isnan(found[number]) and math.isnan(stderr[number])
        else:
            assert found[number] == pytest.approx(roc_auc_score(right[mine], confidence[mine]))
            assert stderr[number] == pytest.approx(delong(right[mine], confidence[mine]))


def delong(right: np.ndarray, confidence: np.ndarray) -> float:
    """Every pair of a right and a wrong answer compared, as the paper writes it."""
    wins = np.array([[(x > y) + (x == y) / 2 for y in confidence[~right]] for x in confidence[right]])
    return math.sqrt(wins.mean(axis=1).var(ddof=1) / right.sum() + wins.mean(axis=0).var(ddof=1) / (~right).sum())


def test_auroc_needs_both_kinds_of_answers() -> None:
    sure, right = np.array([0.4, 0.5, 0.6, 0.1, 0.9]), np.array([True, True, False, True, False])
    cell = np.array([0, 0, 1, 3, 3])
    area, stderr = ca.auroc(sure, right, cell, 4, ca.ascending(sure, cell))
    assert np.isnan(area[:3]).all() and area[3] == 0  # the wrong answer is surer
    assert np.isnan(stderr).all()  # one answer of a kind says nothing of its spread


def test_order_of_cells_that_lie_anywhere() -> None:
    random = np.random.default_rng(5)
    confidence, cell = np.round(random.random(300), 1), random.choice([0, 2, 3], 300)
    assert ca.ascending(confidence, cell).tolist() == np.lexsort((confidence, cell)).tolist()
