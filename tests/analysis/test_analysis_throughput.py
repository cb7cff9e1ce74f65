"""The benchmark program of the analysis runs, on a hundredth of its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.artifacts import read_json
from configs.layout import PROJECT_ROOT


@pytest.mark.slow
def test_score_files_become_numbers_and_the_loop_is_slower(tmp_path: Path) -> None:
    out, work = tmp_path / "analysis.json", tmp_path / "new" / "work"
    command = [sys.executable, "tests/perf/analysis_throughput.py", "--quick", "--work", str(work)]
    done = subprocess.run(
        [*command, "--output", str(out)], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times as fast as a scipy loop" in done.stdout
    assert work.is_dir() and not [*work.iterdir()]  # made, and left empty
    found = read_json(out)
    steps = found["study"]
    assert f"{steps['rows']:,} rows" in done.stdout
    # 36 checkpoints and, of each benchmark, a hundredth of its examples, but never fewer than 20.
    assert steps["rows"] >= 36 * 20 * 20 and steps["bytes"] > 0
    for name in ("metrics", "everything"):
        assert steps[name]["wall_s"] > 0 < steps[name]["cpu_s"] and steps[name]["peak_bytes"] > 50e6
    assert found["correlations"]["ratio"] > 1
    assert str(tmp_path) not in out.read_text()
