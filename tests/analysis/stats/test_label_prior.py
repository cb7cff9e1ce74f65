"""Label priors: means of other examples only, and what they do for a model that answers one thing to everything."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.label_prior import LabelPriors
from analysis.stats.temperature import FOLDS


def answers(seed: int, rows: int, bias: float, candidates: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log-probabilities less the largest, gold, fold) of a model that favours the first candidate by `bias` nats."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, candidates, rows)
    logprob = random.normal(0, 1, (rows, candidates))
    logprob[np.arange(rows), gold] += 1.5
    logprob[:, 0] += bias
    return logprob - logprob.max(axis=1, keepdims=True), gold, np.arange(rows) % FOLDS


def test_priors_are_means_over_the_other_folds_row_by_row() -> None:
    cells = [answers(seed, 23, 2.0, candidates) for seed, candidates in ((0, 2), (1, 3))]
    priors = LabelPriors.empty()
    for cell, (relative, _, fold) in enumerate(cells):
        for some in (slice(10, 23), slice(0, 10)):  # cells may come in parts
            priors.add(np.full(len(fold[some]), cell), fold[some], relative[some])
    found = priors.without_own_fold()
    assert found.shape == (2, FOLDS, 3)
    for cell, (relative, _, fold) in enumerate(cells):
        for f in range(FOLDS):
            expected = np.mean([row for row, its in zip(relative, fold, strict=True) if its != f], axis=0)
            assert found[cell, f, : relative.shape[1]] == pytest.approx(expected)
    assert (found[0, :, 2] == 0).all()  # the first cell has no third candidate


def test_a_fold_has_no_say_in_its_own_prior() -> None:
    relative, _, fold = answers(2, 40, 1.0)
    other = np.where((fold == 3)[:, None], -relative - 5, relative)
    both = []
    for rows in (relative, other):
        priors = LabelPriors.empty()
        priors.add(np.zeros(40, int), fold, rows)
        both.append(priors.without_own_fold()[0])
    assert np.array_equal(both[0][3], both[1][3]) and not np.allclose(
        np.delete(both[0], 3, 0), np.delete(both[1], 3, 0)
    )


def test_examples_of_one_fold_alone_give_it_no_prior() -> None:
    priors = LabelPriors.empty()
    priors.add(np.zeros(3, int), np.full(3, 2), np.zeros((3, 2)))
    found = priors.without_own_fold()[0]
    assert np.isnan(found[2]).all() and (np.delete(found, 2, 0) == 0).all()


def test_a_constant_predictor_answers_again() -> None:
    """Eight nats of bias: every answer is the first candidate. Without the prior most answers are right."""
    relative, gold, fold = answers(3, 4000, 8.0)
    assert (relative.argmax(axis=1) == 0).mean() > 0.999
    priors = LabelPriors.empty()
    priors.add(np.zeros(len(gold), int), fold, relative)
    corrected = relative - priors.without_own_fold()[0, fold]
    unbiased, same_gold, _ = answers(3, 4000, 0.0)
    assert np.array_equal(gold, same_gold)
    right = (corrected.argmax(axis=1) == gold).mean()
    assert right == pytest.approx((unbiased.argmax(axis=1) == gold).mean(), abs=0.01) and right > 0.8
