"""Held-out loss: on text that all mixtures share, and as a signal beside the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.panel.held_out import held_out
from analysis.panel.load import load_panel
from analysis.tables.decisions import HELD_OUT, signal_table
from configs.errors import ArtifactError
from configs.layout import StudyFolder


def write(runs: Path, mixture: str, passes: list[dict[str, float]], seed: int = 0, scale: str = "mini_s") -> Path:
    path = runs / "demo" / scale / mixture / f"seed{seed}" / "pt" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"step": 1, "tokens": 10, "loss": 9.0}]
    lines += [{"step": 10 * i, "tokens": 100 * i, "validation": losses} for i, losses in enumerate(passes, 1)]  # type: ignore[dict-item]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 99, "validation": {"wiki')
    return path


def test_the_last_pass_over_the_sources_that_all_have(tmp_path: Path) -> None:
    write(tmp_path, "A", [{"wiki": 9.0, "books": 9.0, "web_a": 9.0}, {"wiki": 2.0, "books": 3.0, "web_a": 1.0}])
    path = write(tmp_path, "B", [{"wiki": 4.0, "books": 5.0, "web_b": 0.5}])
    write(tmp_path, "B", [{"wiki": 6.0, "books": 7.0, "web_b": 0.5}], seed=3)
    found = held_out(StudyFolder(tmp_path, "demo"), "mini_s", ["A", "B", "C"], [0, 3])
    assert found is not None and found.sources == ("books", "wiki")
    np.testing.assert_array_equal(found.loss, [[2.5, 4.5, np.nan], [np.nan, 6.5, np.nan]])
    assert held_out(StudyFolder(tmp_path, "demo"), "mini_m", ["A", "B"], [0]) is None
    path.write_text('{"validation"\n{"step": 1}\n')
    with pytest.raises(ArtifactError, match="line 1"):
        held_out(StudyFolder(tmp_path, "demo"), "mini_s", ["A", "B"], [0])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_not_taken_for_a_missing_one(loss: float, tmp_path: Path) -> None:
    """Also in the last line, which may be cut short."""
    path = write(tmp_path, "A", [{"wiki": 9.0}, {"wiki": loss}])
    with pytest.raises(ArtifactError, match=f"{path}, line 3: it holds (NaN|Infinity)"):
        held_out(StudyFolder(tmp_path, "demo"), "mini_s", ["A"], [0])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ArtifactError, match=f"{path}, line 3: it holds (NaN|Infinity)"):
        held_out(StudyFolder(tmp_path, "demo"), "mini_s", ["A"], [0])


def test_mixtures_without_a_source_in_common_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, "A", [{"web_a": 1.0}])
    write(tmp_path, "B", [{"web_b": 2.0}])
    assert held_out(StudyFolder(tmp_path, "demo"), "mini_s", ["A", "B"], [0]) is None


def test_low_loss_is_a_good_sign(demo: Path, tmp_path: Path) -> None:
    """A loss that falls as SFT accuracy rises ranks every pair of a benchmark rightly, less its ties."""
    shutil.copytree(demo / "demo", tmp_path / "demo")
    panel = load_panel(StudyFolder(demo, "demo"))
    assert HELD_OUT not in {row.keys[2] for row in signal_table(panel).rows}
    mean = np.round(panel.matrix("mini_s", "SFT").mean(axis=1), 12)
    for mixture, accuracy in zip(panel.mixtures, mean, strict=True):
        write(tmp_path, mixture, [{"wiki": 9 - float(accuracy)}])
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    table = signal_table(panel)
    rows = {row.keys: row.estimate.value for row in table.rows if row.keys[2] == HELD_OUT}
    assert set(rows) == {("mini_s PT", late, HELD_OUT) for late in ("mini_s SFT", "mini_m PT", "mini_m SFT")}
    late = np.round(panel.matrix("mini_s", "SFT"), 12)
    signs = np.sign(mean[:, None] - mean)
    by_hand = [(1 + signs * np.sign(late[:, b, None] - late[:, b]))[np.triu_indices(9, 1)] / 2 for b in range(20)]
    assert rows["mini_s PT", "mini_s SFT", HELD_OUT] == pytest.approx(np.mean(by_hand))
    assert "wiki, which every mixture contains" in str(table.caveats[0])
