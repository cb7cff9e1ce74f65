"""The benchmark of the runner runs, and its numbers are of the study that it ran."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import write_study

from configs.artifacts import read_json
from configs.layout import PROJECT_ROOT


@pytest.mark.slow
def test_the_runner_is_measured(tmp_path: Path) -> None:
    study, out = write_study(tmp_path, steps=12), tmp_path / "out.json"
    script = [sys.executable, str(PROJECT_ROOT / "tests" / "perf" / "study_overhead.py"), "--rounds", "1"]
    options = ["--study", str(study), "--work", str(tmp_path / "work"), "--workers", "2", "--output", str(out)]
    subprocess.run([*script, *options], check=True, capture_output=True, text=True)
    found = read_json(out)
    assert found["units"] == 12 and found["status units"] == 1010
    assert found["longest chain_s"] <= found["simulated_s"] <= found["units_s"] <= 2 * found["wall_s"]
    assert found["overhead"] == pytest.approx(found["wall_s"] / found["simulated_s"] - 1, abs=0.01)
