"""The numbers of a view against scipy, pandas and the tables of the same study; missing cells."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_views import MEMBERS, panel_of, transfer_view
from scipy import stats

from analysis.claims.view import contrast
from analysis.paper.numbers import CATEGORIES
from analysis.protocols import correlations as co
from analysis.protocols.matrices import METRICS
from analysis.stats.association import every_pair
from analysis.tables.paper import table7
from configs.load import BENCHMARKS, PAPER_MIXTURES


def test_every_pair_against_pandas_with_missing_cells() -> None:
    random = np.random.default_rng(3)
    table = random.random((9, 6))
    table[random.random((9, 6)) < 0.3] = np.nan
    table[:, 5] = 0.1
    expected = pd.DataFrame(table).corr(min_periods=3).to_numpy()
    found = every_pair(table.T, table.T)[0]
    varies = np.arange(5)
    assert found[np.ix_(varies, varies)] == pytest.approx(expected[np.ix_(varies, varies)], nan_ok=True)
    assert np.isnan(found[5]).all() and np.isnan(found[:, 5]).all()


def test_every_pair_of_tiny_and_of_few_values() -> None:
    """Joint probabilities may be as small as 1e-60; rounding around 0.3 is no spread."""
    x, y = np.random.default_rng(4).random((2, 9))
    assert _r(1e-60 * x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert np.isnan(_r(np.array([0.3, 0.1 + 0.2, 0.3]), y[:3]))
    assert np.isnan(_r(x[:2], y[:2])) and np.isfinite(_r(x[:3], y[:3]))


def _r(x: np.ndarray, y: np.ndarray) -> float:
    return float(every_pair(x[None], y[None])[0][0, 0])


def test_a_view_against_scipy() -> None:
    random = np.random.default_rng(5)
    view = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20)))
    (a_pt, a_sft), (c_pt, c_sft) = view.values[:, 1]

    def r(x: np.ndarray, y: np.ndarray) -> float:
        return float(stats.pearsonr(x, y).statistic)

    assert view.transfers("confidence")[1] == pytest.approx([r(c_pt[:, b], c_sft[:, b]) for b in range(20)])
    upper = list(itertools.combinations(range(20), 2))
    structure = r(
        np.array([r(c_pt[:, i], c_pt[:, j]) for i, j in upper]),
        np.array([r(c_sft[:, i], c_sft[:, j]) for i, j in upper]),
    )
    assert view.structure()[1] == pytest.approx(structure)
    nli = [BENCHMARKS.index(slug) for slug in MEMBERS["NLI"]]
    cross = np.mean([r(a_pt[:, i], a_sft[:, j]) for i, j in itertools.permutations(nli, 2)])
    assert view.coherence("accuracy", "cross", "NLI")[1] == pytest.approx(cross)
    aligned = [[r(a[m, nli], c[m, nli]) for m in range(9)] for a, c in ((a_pt, c_pt), (a_sft, c_sft))]
    assert view.alignment("SFT", "NLI")[1] == pytest.approx(np.mean(aligned[1]))
    assert view.lowest_alignment("PT", "NLI")[1] == pytest.approx(min(aligned[0]))
    assert view.persistence("NLI")[1] == pytest.approx(r(np.array(aligned[0]), np.array(aligned[1])))
    rte, others = nli[2], [nli[0], nli[1], nli[3]]
    assert view.partners("rte")[1] == pytest.approx(np.mean([r(a_pt[:, rte], a_pt[:, o]) for o in others]))


def test_a_view_equals_the_tables_of_the_same_study() -> None:
    """Also where a benchmark lacks all its cells of one scale and stage."""
    random = np.random.default_rng(6)
    view = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20)))
    view.values[:, 1, 0, :, BENCHMARKS.index("cb")] = np.nan
    panel = panel_of(view)
    for s, scale in enumerate(panel.scales):
        for metric in METRICS:
            assert view.mean_transfer(metric)[s] == pytest.approx(co.mean_cross_stage(panel, scale, metric).value)
            for protocol in co.PROTOCOLS:
                expected = co.coherence(panel, scale, "NLI", protocol, metric, "ordered").value
                assert view.coherence(metric, protocol, "NLI")[s] == pytest.approx(expected)
        for category in CATEGORIES:
            expected = co.alignment(panel, scale, "PT", category, "averaged").value
            assert view.alignment("PT", category)[s] == pytest.approx(expected)
        assert view.persistence("NLI")[s] == pytest.approx(co.persistence(panel, scale, "NLI").value)
    rows = iter(table7(panel).rows)
    for quantity, unit in (("accuracy", 100), ("alignment", 1)):
        for s in (0, 1):
            for category in CATEGORIES:
                assert unit * view.web_effect(quantity, category)[s] == pytest.approx(next(rows).estimate.value)


def test_a_missing_cell_takes_its_mixture_out_of_what_needs_it_and_nothing_else() -> None:
    random = np.random.default_rng(7)
    whole = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20)))
    holed = replace(whole, values=whole.values.copy())
    holed.values[0, 0, 0, 4, BENCHMARKS.index("sciq")] = np.nan
    without = whole.without(PAPER_MIXTURES[4])
    assert holed.transfer("accuracy", "sciq")[0] == pytest.approx(without.transfer("accuracy", "sciq")[0])
    assert holed.alignment("PT", "Science")[0] == pytest.approx(without.alignment("PT", "Science")[0])
    assert holed.web_effect("accuracy", "Science")[0] == pytest.approx(without.web_effect("accuracy", "Science")[0])
    assert holed.transfer("accuracy", "arc_easy") == pytest.approx(whole.transfer("accuracy", "arc_easy"))
    assert holed.alignment("PT", "NLI") == pytest.approx(whole.alignment("PT", "NLI"))


def test_contrasts_stay_balanced_when_a_mixture_is_missing() -> None:
    """Groups differ by hundreds, the treatment by one; without a partner a mixture says nothing."""
    groups = np.array([25, 25, 35, 35, 45, 45])
    treated = np.array([False, True] * 3)
    values = np.array([0.0, 1.0, 100.0, 101.0, 200.0, 201.0])
    assert contrast(values, treated, ~treated, groups) == pytest.approx(1.0)
    assert contrast(values[1:], treated[1:], ~treated[1:], groups[1:]) == pytest.approx(1.0)
    values[3] = np.nan
    assert contrast(values, treated, ~treated, groups) == pytest.approx(1.0)
    assert np.isnan(contrast(values, treated, np.zeros(6, dtype=bool), groups))


def test_two_benchmarks_have_a_mean_accuracy_but_no_alignment_and_one_has_neither() -> None:
    random = np.random.default_rng(8)
    two = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20))).without("mnli").without("cb")
    accuracy = two.values[0, 0, 0][:, [two.benchmarks.index("qnli"), two.benchmarks.index("rte")]].mean(axis=1)
    assert two.web_effect("accuracy", "NLI")[0] == pytest.approx(accuracy[3:6].mean() - accuracy[:3].mean())
    assert np.isnan(two.alignment("PT", "NLI")).all() and np.isfinite(two.mean_transfer("accuracy", "NLI")).all()
    one = two.without("rte")
    assert np.isnan(one.web_effect("accuracy", "NLI")).all() and np.isnan(one.mean_transfer("accuracy", "NLI")).all()
