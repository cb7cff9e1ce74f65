"""Checkpoints on the way: which are seen, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from panels import panel_of
from scipy import stats

from analysis.panel.load import load_panel
from analysis.panel.panel import Milestone
from analysis.protocols.correlations import mean_correlation
from analysis.protocols.decisions import decide_on_average
from analysis.tables.early import early_table
from configs.layout import StudyFolder


def test_every_checkpoint_on_the_way_against_the_end(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    slugs = ("piqa", "arc_easy", "sciq")
    study_maker(tmp_path, benchmarks=slugs, n=40, milestone=True)
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    assert [(m.scale, m.tokens) for m in panel.milestones] == [
        *(("mini_m", tokens) for tokens in (100_000, 200_000)),
        *(("mini_s", tokens) for tokens in (50_000, 100_000)),
    ]
    assert np.array_equal(panel.milestones[-1].accuracy, panel.matrix("mini_s", "PT"))
    table = early_table(panel)
    assert [row.keys for row in table.rows] == [
        ("mini_s", "50,000"),
        ("mini_s", "100,000"),
        ("mini_m", "100,000"),
        ("mini_m", "200,000"),
    ]
    assert [table.texts(row)[0] for row in table.rows] == ["50", "100", "50", "100"]
    early, late = panel.milestones[-2].accuracy, panel.matrix("mini_s", "SFT")
    hits = []
    for b in range(3):
        for i in range(9):
            for j in range(i):
                product = (early[i, b] - early[j, b]) * (late[i, b] - late[j, b])
                hits.append(0.5 if abs(product) < 1e-12 else float(product > 0))
    assert table.rows[0].estimate.value == pytest.approx(np.mean(hits))
    r = np.mean([stats.pearsonr(early[:, b], late[:, b]).statistic for b in range(3)])
    assert table.texts(table.rows[0])[2].startswith(f"{r:+.2f}".replace("-", "−"))
    assert table.texts(table.rows[1])[3].startswith("+1.00") and table.texts(table.rows[0])[1] == ""


def test_one_checkpoint_says_nothing_of_early(demo: Path) -> None:
    assert early_table(load_panel(StudyFolder(demo, "demo"))).rows == ()


def test_benchmarks_that_end_all_alike_decide_nothing() -> None:
    """As many half hits as there are of them would draw the mean to a half; r beside it leaves them out as well."""
    random = np.random.default_rng(0)
    early, late = random.random((2, 9, 4))
    late[:, 1] = 0.45
    found, whole = decide_on_average(early, late), decide_on_average(early[:, [0, 2, 3]], late[:, [0, 2, 3]])
    assert found == replace(whole, missing=1) and found.points == "mixtures, mean of 3 benchmarks"
    assert mean_correlation(early, late).points == found.points
    early[:, 2] = 0.5  # an early score that says nothing is half right
    assert decide_on_average(early, late).points == found.points
    assert mean_correlation(early, late).points == "mixtures, mean of 2 benchmarks"
    assert decide_on_average(early[:, :2], np.ones((9, 2))).reason == "no variation"
    two = panel_of({("240m", "PT", "accuracy"): early, ("240m", "SFT", "accuracy"): late})
    two = replace(two, milestones=tuple(Milestone("240m", tokens, early) for tokens in (1, 2)))
    table = early_table(two)
    assert table.rows[0].estimate.points == found.points
    assert table.texts(table.rows[0])[2].endswith(" (mixtures, mean of 2 benchmarks)")
