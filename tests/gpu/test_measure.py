"""The script for the day a GPU is there: rehearsed at tiny sizes; what it says without packages, and out of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import measure
from measure import PROJECT, STEPS, Step, run

SCRIPT = PROJECT / "tests" / "gpu" / "measure.py"


@pytest.mark.slow
def test_every_step_runs_at_tiny_sizes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.json" for name in STEPS)
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in STEPS}
    assert {record["ended"] for record in found.values()} == {"done"}
    assert any("1 passed" in line for line in found["tests"]["last_lines"])
    for scale in ("240m", "1b"):
        assert found["attention"]["measured"]["configs"][scale]["kernels"]["cpu"]["forward_backward_ms"] > 0
        first, second = found["scoring"]["measured"]["configs"][scale]["rounds"]
        # Other weights, the same questions: another number would mean that something was scored twice or skipped.
        assert first["least_tokens"] == second["least_tokens"] > 0 and second["tokens_per_s"] > 0
    for name, config in (("training_240m", "mini_s"), ("training_1b", "mini_m")):
        assert found[name]["measured"]["configs"][config]["ours_over_best_other"]["ours"] > 0


def test_the_limits_sum_to_five_minutes_and_the_files_to_eight_at_most() -> None:
    assert sum(step.limit_s for step in STEPS.values()) <= 300 and len(STEPS) <= 8


def test_it_needs_nothing_and_names_the_wheels(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-E", str(SCRIPT)]  # no site-packages: as on a bare machine
    done = subprocess.run([*command, "--wheels"], capture_output=True, text=True, check=True)
    names = [line.partition("==")[0] for line in done.stdout.splitlines()]
    assert names == list(measure.WHEELS.values())
    assert set(done.stdout.splitlines()) <= {
        line.partition(" ;")[0] for line in (PROJECT / "constraints.txt").read_text().splitlines()
    }
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "not installed: megatron-core, pydantic" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_step_out_of_time_keeps_what_it_had_and_ends_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = (
        "import pathlib, subprocess, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text('{\"half\": 1}')\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(child.pid))\n"
        "print('halfway')\n"
        "time.sleep(60)\n"
    )
    step = Step(5, ["-c", program, "{file}"], [])
    assert not run("slow", step, tmp_path, tiny=False)
    record = json.loads((tmp_path / "slow.json").read_text())
    assert (record["ended"], record["measured"], record["last_lines"]) == ("out of time", {"half": 1}, ["halfway"])
    for _ in range(50):  # what was killed takes a moment to be gone
        if not _runs(Path("/proc") / child.read_text() / "stat"):
            return
        time.sleep(0.1)
    pytest.fail("its child still runs")


def _runs(stat: Path) -> bool:
    try:
        return stat.read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_step_that_fails_is_told_from_one_that_is_done(tmp_path: Path) -> None:
    assert not run("bad", Step(30, ["-c", "raise SystemExit(3)"], []), tmp_path, tiny=False)
    assert json.loads((tmp_path / "bad.json").read_text())["ended"] == "failed (exit code 3)"
    assert run("good", Step(30, ["-c", "print(1)"], []), tmp_path, tiny=False)
    assert json.loads((tmp_path / "good.json").read_text())["ended"] == "done"
