"""A study on a Ray cluster of two machines, one of which dies while it trains and another while it scores.

The machines are raylets of this one, with one GPU each by their word; without any, trainings of two GPUs are two
processes that compute on CPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest
import yaml
from ray_head import head_node, kill_node, second_node, submitted
from tiny_study import write_study

from configs.artifacts import read_json
from configs.load import load_study
from configs.workflow.records.leases import current_lease
from configs.workflow.status.progress import last_step
from configs.workflow.units import Unit, study_units

QUICK_TO_NOTICE = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "2000"}
ONE_GPU = ["--num-gpus=1"]
STEPS = 120


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_machines_die_while_it_trains_and_while_it_scores(tmp_path: Path) -> None:
    path = write_study(tmp_path, steps=STEPS)
    study = yaml.safe_load(path.read_text())
    study["scales"]["tiny"]["gpus"] = 2
    study |= {"mixtures": ["V1P0"], "overrides": {"data.exhaustion": "repeat", "data.max_epochs": 30}}
    study["scoring"]["sample"] = 2000
    path.write_text(yaml.safe_dump(study))
    units = {unit.name: unit for unit in study_units(load_study(path), tmp_path / "runs")}
    pretraining, folder = units["pretrain/tiny/V1P0/seed0"], tmp_path / "runs" / "tiny"
    place = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    script = ["--working-dir", ".", "--", "python", "study.py", "run", str(path), *place]
    with (
        ThreadPoolExecutor(1) as submitting,
        head_node(tmp_path, tmp_path, QUICK_TO_NOTICE, cpus=1, options=ONE_GPU) as head,
    ):
        with second_node(head, tmp_path, options=ONE_GPU) as second:
            job = submitting.submit(submitted, script, head, 900)
            wait_for(job, lambda: steps_done(pretraining) >= 20)
            kill_node(second)
            died_at = steps_done(pretraining)
            assert died_at < STEPS, "the training had ended before its machine was killed"
        with second_node(head, tmp_path, options=ONE_GPU) as third:
            wait_for(job, lambda: scoring_on(third.pid, folder, units))
            kill_node(third)
        done = job.result()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "report" / "index.html").is_file()
    for name, unit in units.items():
        assert (folder / "units" / f"{name}.json").is_file()
        if unit.kind in ("pretrain", "finetune"):
            assert unit.folder is not None and steps_done(unit) == (unit.run.steps if unit.run else 0)
            assert read_json(unit.folder.path / "provenance.json")["processes"] == 2
    said = done.stdout
    assert "pretrain/tiny/V1P0/seed0 retried" in said and "score/tiny/V1P0" in said and said.count(" retried: ") >= 2
    log = (folder / "units" / f"{pretraining.name}.log").read_text()
    assert "resuming after step" in log


def steps_done(unit: Unit) -> int:
    assert unit.folder is not None
    return int(last_step(unit.folder).get("step", 0))


def scoring_on(node: int, folder: Path, units: dict[str, Unit]) -> bool:
    """Whether a process of that machine is at work on a score."""
    try:
        here = {process.pid for process in psutil.Process(node).children(recursive=True)}
    except psutil.NoSuchProcess:
        return False
    claims = [current_lease(folder, name) for name in units if name.startswith("score/")]
    return any(claimed.pid in here for claimed in claims if claimed is not None)


def wait_for(job: Future[CompletedProcess[str]], when: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 400
    while not when():
        if job.done():
            pytest.fail(f"the study ended first\n{job.result().stdout[-3000:]}{job.result().stderr[-3000:]}")
        assert time.monotonic() < deadline
        time.sleep(0.02)
