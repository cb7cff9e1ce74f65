"""Standard errors from resampled examples, against examples resampled one draw after another and studies drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from analysis.stats import calibration as ca
from analysis.stats import example_bootstrap as eb


def study(seed: int, cells: int = 3, examples: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, right), [cells, examples]; too sure by a fifth."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.25, 1.0, (cells, examples))
    return confidence, random.random((cells, examples)) < 0.8 * confidence


def expected_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE of one cell."""
    cell = np.zeros(len(right), int)
    return float(ca.reliability_diagram(confidence, right, cell, 1, ca.width_bins(confidence)).expected_error[0])


def test_calibration_errors_are_those_of_the_same_draws_one_by_one() -> None:
    confidence, right = study(0)
    bin_ = ca.width_bins(confidence)
    drawn = eb.counts(400, seed=1)
    assert drawn.shape == (eb.DRAWS, 400) and (drawn.sum(axis=1) == 400).all()
    found = eb.calibration_errors(drawn, right - confidence, bin_, ca.BINS)
    for number in range(3):
        errors = []
        for row in drawn.astype(int):
            mine = np.repeat(np.arange(400), row)
            errors.append(expected_error(confidence[number, mine], right[number, mine]))
        assert found[number] == pytest.approx(np.std(errors, ddof=1), rel=1e-4)


def test_draws_follow_from_the_seed() -> None:
    assert np.array_equal(eb.counts(50, 3), eb.counts(50, 3)) and not np.array_equal(eb.counts(50, 3), eb.counts(50, 4))


def test_the_error_is_about_the_spread_over_studies() -> None:
    """Far from calibration, where the error is no longer bent by its lower bound of 0."""
    errors = [expected_error(confidence[0], right[0]) for confidence, right in map(study, range(300))]
    confidence, right = study(300, cells=40)
    found = eb.calibration_errors(eb.counts(400, 0), right - confidence, ca.width_bins(confidence), ca.BINS)
    assert found.mean() == pytest.approx(np.std(errors), rel=0.15)


def test_f1_against_scikit_learn_and_its_spread() -> None:
    random = np.random.default_rng(2)

    def drawn() -> np.ndarray:
        gold = random.choice(3, 250, p=[0.5, 0.4, 0.1])
        chosen = np.where(random.random(250) < 0.6, gold, random.choice(3, 250))
        matrix = confusion_matrix(gold, chosen, labels=range(4))  # the fourth is never true and never chosen
        assert eb.macro_f1(matrix) == pytest.approx(f1_score(gold, chosen, average="macro"))
        return matrix

    many = np.array([drawn() for _ in range(300)])
    found = eb.f1_errors(many[:40])
    assert found.mean() == pytest.approx(eb.macro_f1(many).std(), rel=0.15)
    assert np.isnan(eb.f1_errors(np.array([[[1, 0], [0, 0]]]))).all()  # a single example
