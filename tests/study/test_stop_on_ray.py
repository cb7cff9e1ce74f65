"""`ray job stop` of a study: a training that is at work saves first, however it was started.

GPUs are there by the cluster's word alone; without any, trainings of two GPUs are two processes that compute on CPUs.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from ray_head import head_node, second_node, submitted
from tiny_study import write_study

from configs.load import load_study
from configs.workflow.status.progress import last_step
from configs.workflow.units import study_units

STEPS = 1500
"""`ray job stop` takes seconds to start."""
TIME_TO_SAVE = {"RAY_JOB_STOP_WAIT_TIME_S": "90"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("gpus", "machines", "options"),
    [(None, 1, []), (2, 1, ["--num-gpus=2"]), (2, 2, ["--num-gpus=1"])],
    ids=["warm process", "torchrun", "torchrun on two machines"],
)
def test_a_stopped_job_saves(tmp_path: Path, gpus: int | None, machines: int, options: list[str]) -> None:
    path = write_study(tmp_path, steps=STEPS)
    study = yaml.safe_load(path.read_text())
    study |= {"mixtures": ["V1P0"], "overrides": {"data.exhaustion": "repeat", "data.max_epochs": 200}}
    study["scales"]["tiny"] |= {"gpus": gpus} if gpus else {}
    path.write_text(yaml.safe_dump(study))
    (training,) = (unit for unit in study_units(load_study(path), tmp_path / "runs") if unit.kind == "pretrain")
    assert training.folder is not None
    place = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    script = ["--working-dir", ".", "--", "python", "study.py", "run", str(path), *place]
    with (
        ThreadPoolExecutor(1) as submitting,
        head_node(tmp_path, tmp_path, TIME_TO_SAVE, cpus=2, options=options) as head,
        second_node(head, tmp_path, options=options) if machines > 1 else contextlib.nullcontext(),
    ):
        job = submitting.submit(submitted, ["--submission-id", "first", *script], head, 600)
        deadline = time.monotonic() + 400
        while last_step(training.folder).get("step", 0) < 15:
            assert not job.done(), job.result().stdout[-3000:] + job.result().stderr[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        stop = ["ray", "job", "stop", "first", "--address", head.jobs]
        subprocess.run(stop, env=head.environment, capture_output=True, check=True, timeout=120)
        said = job.result().stdout
        assert "SIGTERM: trainings save where they are" in said and "the same command goes on" in said, said
        log = (tmp_path / "runs/tiny/units" / f"{training.name}.log").read_text()
        (saved,) = (step for step in range(STEPS) if f" came; saved after step {step} of {STEPS}" in log)
        assert (training.folder.checkpoints / f"step-{saved:07}").is_dir()
        if gpus is None:
            done = submitted(script, head, timeout_s=600)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            log = (tmp_path / "runs/tiny/units" / f"{training.name}.log").read_text()
            assert f"resuming after step {saved}" in log
