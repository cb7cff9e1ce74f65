"""What of a study is scored, and what is missing, by name; the score files are hand-made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_study import write_finished

from analysis.panel.collect import INCOMPLETE, collect
from configs.errors import ConfigError
from configs.layout import PROJECT_ROOT, StudyFolder

MIXTURES = ["V1P0", "V2P2", "V3P1"]


def test_missing_cells_by_name_and_the_rest_is_measured(tmp_path: Path) -> None:
    made = write_finished(tmp_path, mixtures=MIXTURES)
    whole = collect(StudyFolder(made.runs, "tiny"))
    assert whole.complete and (whole.planned, whole.scored, whole.missing) == (27, 27, ())

    scores = made.folder / "scores/tiny"
    for path in scores.glob("*/seed0/pt/step-0000010.parquet"):
        path.unlink()
    (scores / "V2P2/seed0/sft-tiny/step-0000010.parquet").unlink()
    (made.folder / "tiny/V2P2/seed0/sft-tiny/DONE").unlink()  # nobody knows its last step
    rows = scores / "V3P1/seed0/pt/step-0000012.parquet"
    pq.write_table(pq.read_table(rows, filters=[("benchmark", "!=", "rte")]), rows)
    found = collect(StudyFolder(made.runs, "tiny"), tmp_path / "out/copy.parquet")
    assert (found.planned, found.scored) == (27, 27 - 9 - 3 - 1)
    assert found.missing == (
        ("tiny PT step 10, all 3 checkpoints", "all 3"),
        ("tiny SFT V2P2 seed 0", "all 3"),
        ("tiny PT V3P1 seed 0", "RTE"),
    )
    frame = pq.read_table(tmp_path / "out/copy.parquet").to_pandas()
    accuracy = frame[(frame["metric"] == "accuracy") & (frame["normalisation"] == "sum")]
    assert len(accuracy) == found.scored and accuracy["value"].notna().all()  # missing: no row, never a zero


def test_metrics_are_written_as_parquet_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"as Parquet, not mini\.csv"):
        collect(StudyFolder(tmp_path, "mini"), tmp_path / "mini.csv")


def test_scores_without_a_plan_are_held_against_each_other(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    folder = study_maker(tmp_path, scales=("mini_s",), mixtures=("V1P0", "V1P1"), benchmarks=("rte", "cb"), n=4)
    assert collect(StudyFolder(tmp_path, "demo")).complete
    (folder / "scores/mini_s/V1P1/seed0/sft-mini/step-0000100.parquet").unlink()
    found = collect(StudyFolder(tmp_path, "demo"))
    assert (found.planned, found.scored, found.missing) == (8, 6, (("mini_s SFT V1P1 seed 0", "all 2"),))


@pytest.mark.parametrize("whole", [True, False])
def test_the_command_says_where_and_its_code_whether_all_is_there(whole: bool, tmp_path: Path) -> None:
    made = write_finished(tmp_path)
    if not whole:
        (made.folder / "scores/tiny/V1P0/seed0/pt/step-0000012.parquet").unlink()
    command = [sys.executable, str(PROJECT_ROOT / "study.py"), "collect"]
    done = subprocess.run([*command, str(made.folder)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{made.folder}/metrics.parquet\n{18 if whole else 15} of 18 planned cells")
    assert done.returncode == (0 if whole else INCOMPLETE), done.stderr
    assert whole or "missing 3:\n  tiny PT V1P0 seed 0: all 3" in done.stdout
    nowhere = subprocess.run([*command, "tiny", "--runs", str(tmp_path)], capture_output=True, text=True)
    assert nowhere.returncode == 2 and "no such study" in nowhere.stderr
