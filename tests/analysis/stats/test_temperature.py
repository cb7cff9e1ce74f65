"""Temperatures: found where they are known, never from the examples they are judged on, shared where data are few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from analysis.stats import calibration as ca
from analysis.stats import temperature as te


def answers(seed: int, examples: int, truth: float, candidates: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities relative to the largest, and gold drawn from their softmax at a temperature."""
    random = np.random.default_rng(seed)
    logprob = -random.gamma(2.0, 2.0, (examples, candidates))
    logprob[random.random(examples) < 0.2, -1] = -np.inf
    probability = softmax(logprob / truth, axis=1)
    gold = (probability.cumsum(axis=1) < random.random((examples, 1))).sum(axis=1)
    return (logprob - logprob.max(axis=1, keepdims=True)).astype(np.float32), gold


def negative_log_likelihood(logprob: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return np.asarray(-log_softmax(logprob, axis=1)[np.arange(len(gold)), gold])


def expected_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE of one cell."""
    cell = np.zeros(len(right), int)
    return float(ca.reliability_diagram(confidence, right, cell, 1, ca.width_bins(confidence)).expected_error[0])


def curves_of(cells: list[tuple[np.ndarray, np.ndarray]]) -> tuple[te.Curves, list[np.ndarray]]:
    """Folds go round."""
    curves, folds = te.Curves.empty(), []
    for number, (relative, gold) in enumerate(cells):
        fold = np.arange(len(gold)) % te.FOLDS
        curves.add(np.full(len(gold), number), fold, relative, gold)
        folds.append(fold)
    return curves, folds


def test_likelihoods_are_those_of_scaled_softmaxes() -> None:
    relative, gold = answers(0, 50, 1.0)
    found = te.Likelihood(relative, gold)
    met = []
    for i, loss in found.along_grid():
        expected = negative_log_likelihood(relative.astype(float) / math.exp(te.LOG_GRID[i]), gold)
        assert np.allclose(loss, expected[found.order], rtol=1e-4, atol=1e-5)
        met.append(i)
    assert sorted(met) == list(range(len(te.LOG_GRID)))


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5, 12.0])
def test_the_temperature_that_made_the_answers_is_found(truth: float) -> None:
    relative, gold = answers(1, 20_000, truth)
    curves, _ = curves_of([(relative, gold)])
    by_fold, whole = te.temperatures(curves, np.array([0]))
    assert whole[0] == pytest.approx(truth, rel=0.06) and np.allclose(by_fold, truth, rtol=0.08)

    def loss(log_temperature: float) -> float:
        return float(negative_log_likelihood(relative / math.exp(log_temperature), gold).mean())

    best = minimize_scalar(loss, bounds=(-2, 5), method="bounded", options={"xatol": 1e-6})
    assert math.log(whole[0]) == pytest.approx(best.x, abs=0.02)  # one cell: its own is the common one
    scaled = softmax(relative / by_fold[0, np.arange(len(gold)) % te.FOLDS][:, None], axis=1)
    errors = [expected_error(p.max(axis=1), p.argmax(axis=1) == gold) for p in (softmax(relative, axis=1), scaled)]
    assert errors[1] < 0.02 and (truth == 1.0 or errors[1] < errors[0] / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, te.FOLDS - 1), st.integers(0, 1000))
def test_a_fold_has_no_say_in_its_own_temperature(fold: int, seed: int) -> None:
    cells = [answers(seed + i, 60, 2.0) for i in range(3)]
    curves, folds = curves_of(cells)
    other = [
        (relative, np.where(mine == fold, (gold + 1) % 2, gold))
        for (relative, gold), mine in zip(cells, folds, strict=True)
    ]
    changed, _ = curves_of(other)
    checkpoint = np.zeros(3, int)
    first, second = te.temperatures(curves, checkpoint)[0], te.temperatures(changed, checkpoint)[0]
    assert np.array_equal(first[:, fold], second[:, fold])
    assert not np.array_equal(np.delete(first, fold, 1), np.delete(second, fold, 1))


def test_small_benchmarks_lean_on_the_others_and_large_ones_do_not() -> None:
    """Twenty benchmarks of 40 examples with one true temperature; and two large ones with different ones."""
    small = [answers(i, 40, 3.0) for i in range(20)]
    curves, _ = curves_of(small)
    together, _ = te.temperatures(curves, np.zeros(20, int))
    alone, _ = te.temperatures(curves, np.arange(20))
    assert np.abs(np.log(together / 3)).mean() < np.abs(np.log(alone / 3)).mean() / 2
    large = [answers(50, 8000, 1.0), answers(51, 8000, 6.0)]
    whole = te.temperatures(curves_of(large)[0], np.zeros(2, int))[1]
    assert whole == pytest.approx([1.0, 6.0], rel=0.1)


def test_the_common_temperature_is_that_of_all_cells_alike_on_the_other_folds() -> None:
    cells = [answers(60, 300, 1.0), answers(61, 3000, 6.0), answers(62, 300, 2.0)]
    curves, folds = curves_of(cells)
    found = te.common_temperatures(curves, np.array([0, 0, 1]))
    assert np.array_equal(found[0], found[1]) and found[2].mean() == pytest.approx(2.0, rel=0.2)
    for fold in range(te.FOLDS):

        def loss(log_temperature: float, without: int = fold) -> float:
            kept = [
                (relative[f != without], gold[f != without]) for (relative, gold), f in zip(cells, folds, strict=True)
            ]
            scale = math.exp(log_temperature)
            return float(sum(negative_log_likelihood(x / scale, gold).mean() for x, gold in kept[:2]))

        best = minimize_scalar(loss, bounds=(-2, 5), method="bounded", options={"xatol": 1e-6})
        assert math.log(found[0, fold]) == pytest.approx(best.x, abs=0.03)


@given(st.floats(-1, 4), st.floats(-1, 4), st.integers(0, 10_000), st.sampled_from(te.PRIORS))
def test_shrinking_goes_from_the_common_to_the_own(own: float, common: float, n: int, examples: float) -> None:
    found = float(te.shrunk(np.array([own]), np.array([float(n)]), np.array([common]), examples)[0])
    assert min(own, common) - 1e-9 <= found <= max(own, common) + 1e-9
    if n == 0 or math.isinf(examples):
        assert found == common
    elif examples == 0:
        assert found == pytest.approx(own)


def test_between_grid_points_a_parabola_is_close() -> None:
    relative, gold = answers(3, 400, 2.0)
    means = {i: loss.astype(float).mean() for i, loss in te.Likelihood(relative, gold).along_grid()}
    curve = np.array([[means[i] for i in range(len(te.LOG_GRID))]])
    for log_temperature in np.random.default_rng(0).uniform(-1.5, 4.5, 40):
        exact = negative_log_likelihood(relative / math.exp(log_temperature), gold).mean()
        assert te._at(curve, np.array([log_temperature]))[0] == pytest.approx(exact, rel=2e-3)


def test_answers_that_are_all_right_or_all_wrong_end_at_the_grid() -> None:
    relative = np.array([[0.0, -1.0]] * 20, np.float32)
    for gold, edge in ((0, te.LOG_GRID[0]), (1, te.LOG_GRID[-1])):
        curves, _ = curves_of([(relative, np.full(20, gold))])
        assert math.log(te.temperatures(curves, np.array([0]))[1][0]) == pytest.approx(edge, abs=0.2)


def test_cells_may_come_in_parts() -> None:
    relative, gold = answers(4, 100, 2.0)
    whole, folds = curves_of([(relative, gold)])
    parts = te.Curves.empty()
    for some in (slice(60, 100), slice(0, 60)):
        parts.add(np.zeros(len(gold[some]), int), folds[0][some], relative[some], gold[some])
    assert np.allclose(parts.total, whole.total) and np.array_equal(parts.count, whole.count)


def test_folds_are_of_the_example_alone_and_about_equal() -> None:
    found = np.bincount([te.fold_of(f"validation/{i}") for i in range(5000)], minlength=te.FOLDS)
    assert found.min() > 800 and te.fold_of("validation/7") == te.fold_of("validation/7")


def test_a_temperature_at_the_edge_of_the_search_is_told() -> None:
    """Answers that are always right want no temperature at all, and always wrong ones an endless one."""
    random = np.random.default_rng(6)
    relative = np.sort(-random.gamma(2.0, 1.0, (60, 4)).astype(np.float32), axis=1)[:, ::-1]
    relative = np.ascontiguousarray(relative - relative[:, :1])
    right, wrong = np.zeros(60, int), np.full(60, 3)
    cells = [(relative, right), (relative, wrong), answers(7, 400, 2.0)]
    found = [te.temperatures(curves_of([cell])[0], np.zeros(1, int))[1][0] for cell in cells]
    assert te.at_edge(np.array([*found, np.nan])).tolist() == [True, True, False, False]
    assert found[0] < 1.1 * te.EDGES[0] and found[1] > te.EDGES[1] / 1.1
    log = np.log(te.EDGES)
    assert te.at_edge(np.exp(np.array([log[0] + 0.1, log[1] - 0.1]))).tolist() == [False, False]
