"""The scoring benchmark program runs, and its contenders decide alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.artifacts import read_json
from configs.layout import PROJECT_ROOT


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_contenders_are_compared(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "score.json"
    command = [sys.executable, "tests/perf/score_throughput.py", "--quick", "--data-root", str(shared_data)]
    command += ["--work", str(tmp_path / "work"), "--workloads", "BoolQ", "nine checkpoints"]
    command += ["--kinds", "evaluate", "process"]
    done = subprocess.run(
        [*command, "--output", str(out)], capture_output=True, text=True, cwd=PROJECT_ROOT, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_json(out)
    assert str(tmp_path) not in out.read_text() and str(shared_data) not in out.read_text()
    boolq, nine = found["workloads"]["BoolQ"], found["workloads"]["nine checkpoints"]
    assert boolq["evaluate"]["goal"] == 6 and nine["evaluate"]["goal"] == 15 and nine["process"]["goal"] is None
    for workload, items in ((boolq, 30), (nine, 20 * 4)):
        for kind, number in (("evaluate", 5), ("process", 3)):
            rows = workload[kind]["contenders"]
            assert len(rows) == number and all(row["wall_s"][0] > 0 < row["cpu_s"][0] for row in rows.values())
            theirs = rows.pop("lm-eval")
            assert theirs["measured_once_and_multiplied_by"] == (2 if workload is nine else 1)
            for name, row in rows.items():
                assert (row["items"], row["decisions_differ"]) == (items, 0), name
                assert row["largest_difference_nats"] < 1e-4, name
                for clock, ratio in row["ratio"].items():
                    assert ratio == pytest.approx(theirs[clock][0] / row[clock][0], rel=0.1), (name, clock)
