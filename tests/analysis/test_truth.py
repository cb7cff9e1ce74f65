"""Score files made from known truth: the protocols find it, and mistakes that look like it are not taken for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated_study import Truth, paper_sizes, write_simulated

from analysis.panel.load import load_panel
from analysis.panel.panel import Panel
from analysis.protocols.decisions import decide
from analysis.protocols.matrices import matrix
from analysis.protocols.noise import corrected, draw
from configs.errors import ArtifactError
from configs.layout import StudyFolder

SIZES = {slug: max(60, n // 10) for slug, n in paper_sizes().items()}
LARGE = [b for b, n in enumerate(SIZES.values()) if n >= 180]
"""Benchmarks whose accuracies are near what the abilities make of them."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    runs = tmp_path_factory.mktemp("runs")
    return runs, write_simulated(runs, sizes=SIZES)


@pytest.fixture(scope="module")
def panel(study: tuple[Path, Truth]) -> Panel:
    return load_panel(StudyFolder(study[0], "simulated"))


def test_cross_stage_correlations_are_those_of_the_abilities(panel: Panel, study: tuple[Path, Truth]) -> None:
    """Raw or corrected they are near, and the interval for these mixtures holds them."""
    drawn = draw(panel)
    assert drawn is not None
    raw, mended, held = [], [], []
    for scale, truth in study[1].r.items():
        cross = matrix(panel, scale, "cross", "accuracy").values
        for b, result in enumerate(corrected(panel, scale, "accuracy")):
            sides = [drawn.values[scale, stage, "accuracy"][:, :, b] for stage in ("PT", "SFT")]
            u, v = (side - side.mean(axis=1, keepdims=True) for side in sides)
            each = (u * v).sum(axis=1) / np.sqrt((u**2).sum(axis=1) * (v**2).sum(axis=1))
            ends = drawn.interval(float(cross[b, b]), each)
            assert ends is not None
            if b in LARGE:  # with few examples r is drawn towards zero, and its interval with it
                held.append(ends[0] <= truth[b] <= ends[1])
            if result.value is not None:
                raw.append(abs(cross[b, b] - truth[b]))
                mended.append(abs(result.value - truth[b]))
    assert np.mean(held) > 0.85 and len(mended) > 20
    assert np.median(raw) < 0.15 and np.median(mended) < 0.15


@pytest.mark.parametrize("scale", ["240m", "1b"])
def test_the_matrix_between_stages_has_pretraining_in_its_rows(
    scale: str, panel: Panel, study: tuple[Path, Truth]
) -> None:
    """Figures 3 and 10: near the truth, far from its transpose."""
    sides = [study[1].ability[scale, stage][:, LARGE] for stage in ("PT", "SFT")]
    true = np.corrcoef(*sides, rowvar=False)[: len(LARGE), len(LARGE) :]
    found = matrix(panel, scale, "cross", "accuracy").values[np.ix_(LARGE, LARGE)]
    off = ~np.eye(len(LARGE), dtype=bool)
    assert np.abs(found - true)[off].mean() < 0.15 < 0.25 < np.abs(found.T - true)[off].mean()


def test_regret_is_paid_after_fine_tuning(panel: Panel, study: tuple[Path, Truth]) -> None:
    """A choice by the early score costs what the late abilities say it does."""
    late = study[1].ability["1b", "SFT"]
    costs: dict[str, list[float]] = {"said": [], "true": []}
    for b in LARGE:
        early_scores, late_scores = panel.matrix("240m", "PT")[:, b], panel.matrix("1b", "SFT")[:, b]
        decision = decide(early_scores, late_scores)
        (chosen,) = decision.chosen[:1]
        assert decision.regret[0] >= 0
        costs["true"].append(late[:, b].max() - late[chosen, b])
        costs["said"].append(decision.regret[0])
    assert np.corrcoef(costs["true"], costs["said"])[0, 1] > 0.8


def test_a_wrong_gold_is_refused(study: tuple[Path, Truth], tmp_path: Path) -> None:
    """Of one checkpoint the label of one example is another than for the rest."""
    shutil.copytree(study[0] / "simulated/scores", tmp_path / "simulated/scores")
    path = StudyFolder(tmp_path, "simulated").scores / "1b/V2P1/PT.parquet"
    table = pq.read_table(path)
    row = table.column("benchmark").to_pylist().index("boolq") + 7
    gold = table.column("gold").to_numpy().copy()
    gold[row] = 1 - gold[row]
    pq.write_table(table.set_column(table.column_names.index("gold"), "gold", pa.array(gold)), path)
    with pytest.raises(ArtifactError, match=r"true candidate of boolq .* validation/7 is \d here, \d in ") as error:
        load_panel(StudyFolder(tmp_path, "simulated"))
    assert str(path) in str(error.value)
