"""Slurm without Slurm: scripts that bash reads, jobs that wait for the right ones, a study done by them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_study import write_study

import study as driver
from configs.artifacts import sha256_file
from configs.errors import ConfigError, Preempted, ResourceError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import load_study
from configs.runtime import signals
from configs.workflow.records.leases import read_failure
from configs.workflow.records.records import State
from configs.workflow.records.study_file import save_study
from configs.workflow.units import Unit, study_units
from configs.workflow.workers.slurm import Cluster, arrays, emit

SBATCH = f"""#!{sys.executable}
# Slurm on one machine, one job after another: each element of an array at once, or never if its dependencies say so.
import os, re, subprocess, sys
from pathlib import Path

script = Path(sys.argv[-1])
ended = {{tuple(line.split()[:2]): line.split()[2] for line in Path("ended").read_text().splitlines()}}
number = str(101 + len({{job for job, _ in ended}}))
kind, ids = re.findall(r"--dependency=([a-z]+):(\\S+)", " ".join(sys.argv))[0] if len(sys.argv) > 3 else ("", "")
directives = re.findall("#SBATCH (.*)", script.read_text())
(last,) = (d.removeprefix("--array=1-") for d in directives if d.startswith("--array"))
for element in map(str, range(1, int(last) + 1)):
    before = {{how for (job, at), how in ended.items() if job in ids.split(":")
              and (at == element or kind != "aftercorr")}}
    if "pending" in before:
        end = "pending"
    elif kind == "afterany" or before <= {{"done"}}:
        environment = os.environ | {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": element}}
        with open(f"{{script}}.out", "a") as out:
            code = subprocess.run(["bash", script], env=environment, stdout=out, stderr=out).returncode
        end = "failed" if code else "done"
    else:
        end = "cancelled" if "--kill-on-invalid-dep=yes" in directives else "pending"
    with open("ended", "a") as stream:
        print(number, element, end, script.stem, file=stream)
print(number)
"""
SRUN = """#!/bin/bash
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$*" >> "$JOBS/requeued"
"""


def stand_ins(folder: Path, jobs: Path, srun: str = SRUN) -> dict[str, str]:
    """An environment in which Slurm's commands are those above; jobs: folder of the scripts, theirs too."""
    tools = folder / "bin"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", srun), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (jobs / "ended").touch()
    return os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "JOBS": str(jobs)}


def ended(jobs: Path) -> dict[str, str]:
    """How each element ended, by its units."""
    lines = [line.split() for line in (jobs / "ended").read_text().splitlines()]
    return {(jobs / f"{name}.units").read_text().splitlines()[int(at) - 1]: how for _, at, how, name in lines}


def paper(folder: Path, cluster: Cluster, gpus: int = 8) -> dict[str, str]:
    """The scripts of the paper's study, by name; gpus: of a training."""
    places = {"runs": Path("/shared/runs"), "data": Path("/shared/my data"), "python": Path("/env/bin/python")}
    study = load_study("paper", {f"scales.{scale}.gpus": gpus for scale in ("240m", "1b")})
    emit(folder, "paper", study_units(study, Path("/shared/runs")), places, cluster)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_scripts_of_the_papers_study(tmp_path: Path) -> None:
    made = paper(tmp_path, Cluster(options=("--partition=a100",)))
    for name in made:
        if not name.endswith(".units"):
            subprocess.run(["bash", "-n", str(tmp_path / name)], check=True)
    pretraining = made["train-1b-pt.sbatch"]
    for directive in (
        "--array=1-9",
        "--gpus-per-node=8",
        "--partition=a100",
        "--signal=USR1@120",
        "--requeue",
        "--kill-on-invalid-dep=yes",
    ):
        assert f"#SBATCH {directive}\n" in pretraining
    assert "--nproc-per-node 8 --shutdown-timeout 110 --standalone study.py unit paper" in pretraining
    assert "--data '/shared/my data'" in pretraining
    assert "torch.distributed" not in made["score-1b-pt.sbatch"] and "--gpus-per-node=1" in made["score-1b-pt.sbatch"]
    assert "gpus" not in made["tokenize.sbatch"]
    assert made["train-1b-sft-equal.units"].splitlines()[4] == "finetune/1b/V2P1/seed0/equal"
    submit = made["submit.sh"]
    order = re.findall(r"^(\w+)=\$\(sbatch --parsable(.*?) [\w-]+\.sbatch\)", submit, re.MULTILINE)
    after = {name: dependency.removeprefix(" --dependency=") for name, dependency in order}
    assert after["tokenize"] == "" and after["train_1b_pt"] == "afterok:$tokenize"
    assert after["train_1b_sft_equal"] == after["score_1b_pt"] == "aftercorr:$train_1b_pt"
    assert after["score_1b_sft_equal"] == "aftercorr:$train_1b_sft_equal"
    assert after["analyse"].count("$score") == 8 and after["analyse"].startswith("afterany:")
    known: set[str] = set()
    for name, dependency in order:
        assert set(re.findall(r"\$(\w+)", dependency)) <= known  # nothing waits for what is submitted later
        known.add(name)


def test_every_unit_is_in_one_element_and_an_element_finds_what_it_needs_in_the_one_it_waits_for() -> None:
    for study in ("paper", "mini"):
        units = study_units(load_study(study), Path("runs"))
        made = {array.name: array for array in arrays(units)}
        everywhere = [name for array in made.values() for line in array.lines for name in line]
        assert sorted(everywhere) == sorted(unit.name for unit in units if unit.kind != "analyse")
        inputs = {unit.name: unit.inputs for unit in units}
        for array in made.values():
            if array.after and len(made[array.after].lines) == len(array.lines):
                for line, before in zip(array.lines, made[array.after].lines, strict=True):
                    assert {name for unit in line for name in inputs[unit]} - {"tokenize"} <= set(before)


def test_a_training_of_several_machines_meets_at_the_first(tmp_path: Path) -> None:
    script = paper(tmp_path, Cluster(gpus_per_node=4))["train-240m-pt.sbatch"]
    assert "#SBATCH --nodes=2\n" in script and "#SBATCH --gpus-per-node=4\n" in script
    assert "--nnodes 2 --nproc-per-node 4" in script and '--rdzv-endpoint "$head:29500"' in script
    subprocess.run(["bash", "-n", str(tmp_path / "train-240m-pt.sbatch")], check=True)


@pytest.mark.parametrize(
    ("gpus", "per_node", "nodes", "here"), [(12, 8, 2, 6), (6, 4, 2, 3), (8, 8, 1, 8), (7, 4, 7, 1), (16, 8, 2, 8)]
)
def test_a_training_has_as_many_processes_as_gpus(
    tmp_path: Path, gpus: int, per_node: int, nodes: int, here: int
) -> None:
    script = paper(tmp_path, Cluster(gpus_per_node=per_node), gpus)["train-1b-pt.sbatch"]
    assert f"#SBATCH --nodes={nodes}\n" in script and f"#SBATCH --gpus-per-node={here}\n" in script
    assert f" --nproc-per-node {here} " in script and f"--nnodes {nodes} " in script and nodes * here == gpus


def test_nodes_without_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 GPUs are asked for, 0 are on each machine"):
        paper(tmp_path, Cluster(gpus_per_node=0))


def test_what_needs_a_failed_element_is_cancelled_and_the_rest_is_done(tmp_path: Path) -> None:
    failing, python = "pretrain/tiny/V1P0/seed0", tmp_path / "python"
    python.write_text(f'#!/bin/bash\n[ "$4" != {failing} ]\n')  # study.py unit tiny <unit>
    python.chmod(0o755)
    places = {"runs": tmp_path / "runs", "data": tmp_path / "data", "python": python}
    units = study_units(load_study(write_study(tmp_path)), places["runs"])
    submit = emit(tmp_path, "tiny", units, places, Cluster())
    subprocess.run(["bash", str(submit)], env=stand_ins(tmp_path, tmp_path), check=True, capture_output=True)
    found = ended(tmp_path)
    assert found.pop(failing) == "failed" and found.pop("analyse") == "done"  # it would say what is missing
    assert found == {name: "cancelled" if "V1P0" in name else "done" for name in found} and len(found) == 8


def study_command(study: Path, root: Path, *more: str) -> list[str]:
    place = ["--runs", str(root / "runs"), "--data", str(root / "data")]
    return [sys.executable, str(PROJECT_ROOT / "study.py"), "run", str(study), *place, *more]


def files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for name in names for p in sorted(folder.glob(name))}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_done_by_its_jobs_has_the_same_bytes_as_one_done_by_the_driver(tmp_path: Path) -> None:
    study = write_study(tmp_path, steps=12)
    driven, queued, jobs = tmp_path / "driven", tmp_path / "queued", tmp_path / "jobs"
    subprocess.run(study_command(study, driven, "--workers", "2"), check=True, capture_output=True)

    said = subprocess.run(study_command(study, queued, "--emit-slurm", str(jobs)), capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.split() == ["bash", str(jobs / "submit.sh")], said.stderr
    done = subprocess.run(said.stdout.split(), env=stand_ins(tmp_path, jobs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs = "\n".join(path.read_text()[-1500:] for path in jobs.glob("*.out"))
    assert set(ended(jobs).values()) == {"done"}, logs
    kept = ["scores/**/*.parquet", "metrics.parquet", "**/DONE"]
    assert files(queued / "runs/tiny", kept) == files(driven / "runs/tiny", kept)
    again = subprocess.run(study_command(study, queued), capture_output=True, text=True)
    assert "nothing was missing" in again.stdout, again.stderr


def test_a_job_whose_unit_was_stopped_is_queued_again_and_one_that_failed_is_not(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    units = study_units(load_study(write_study(tmp_path)), runs)
    places = {"runs": runs, "data": tmp_path / "data", "python": Path("/bin/false")}
    emit(tmp_path, "tiny", units, places, Cluster())
    variables = stand_ins(tmp_path, tmp_path) | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    script = ["bash", str(tmp_path / "train-tiny-pt.sbatch")]
    assert subprocess.run(script, env=variables, check=False).returncode == 1
    assert not (tmp_path / "requeued").exists()
    stopped = runs / "tiny/units/pretrain/tiny/V2P2/seed0.stopped"
    stopped.parent.mkdir(parents=True)
    stopped.touch()
    assert subprocess.run(script, env=variables, check=False).returncode == 0
    assert (tmp_path / "requeued").read_text() == "requeue 7_2\n"


NOTICE = """#!/bin/bash
"$@" & unit=$!
until [ -e "$LOG" ]; do sleep 0.02; done
kill -USR1 $unit; wait $unit
"""


def test_a_job_that_tokenizes_is_queued_again_at_the_notice_and_goes_on(tmp_path: Path) -> None:
    path, runs = write_study(tmp_path), tmp_path / "runs"
    study = load_study(path)
    save_study(study, tmp_path / "data/microworld", runs)
    places = {"runs": runs, "data": tmp_path / "data", "python": Path(sys.executable)}
    emit(tmp_path, "tiny", study_units(study, runs), places, Cluster())
    log = runs / "tiny/units/tokenize.log"
    variables = stand_ins(tmp_path, tmp_path, NOTICE) | {"LOG": str(log)}
    variables |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    job = ["bash", str(tmp_path / "tokenize.sbatch")]
    first = subprocess.run(job, env=variables, capture_output=True, text=True)
    assert "stopped: SIGUSR1 came; what is finished is kept" in first.stderr and "Traceback" not in first.stderr
    assert first.returncode == 0 and (tmp_path / "requeued").read_text() == "requeue 7_1\n"
    assert not (runs / "tiny/units/tokenize.json").exists() and not log.with_suffix(".failed").exists()
    (tmp_path / "bin/srun").write_text(SRUN)
    subprocess.run(job, env=variables, check=True)
    assert (runs / "tiny/units/tokenize.json").is_file() and not log.with_suffix(".stopped").exists()


@pytest.mark.parametrize("name", ["score/tiny/V1P0/seed0/pt/last", "analyse", "finetune/tiny/V1P0/seed0/tiny"])
@pytest.mark.parametrize("way", ["at work", "a worker of it first"])
def test_every_kind_of_unit_ends_at_the_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    def do(work: driver.Work, unit: Unit) -> str:
        assert unit.name == name
        os.kill(os.getpid(), signal.SIGUSR1)
        with contextlib.suppress(Exception):  # as somebody's library might
            int("x")
        raise AssertionError("it went on")

    def broken(work: driver.Work, unit: Unit) -> str:
        try:
            do(work, unit)
        except BaseException:  # a pool that has lost its processes
            raise ResourceError("a worker process died") from None
        return ""

    save_study(load_study(write_study(tmp_path)), None, tmp_path / "runs")
    monkeypatch.setattr(driver, "states", lambda _, units: {u.name: State("done") for u in units})
    monkeypatch.setattr(driver.Work, "__call__", do if way == "at work" else broken)
    handlers = [signal.getsignal(number) for number in signals.AWAITED]
    with pytest.raises(Preempted, match="SIGUSR1 came"):
        driver.do_unit(StudyFolder(tmp_path / "runs", "tiny"), name, tmp_path / "data", again=False)
    units = tmp_path / "runs/tiny/units"
    assert "SIGUSR1 came" in (units / f"{name}.stopped").read_text()
    assert read_failure(tmp_path / "runs/tiny", name) is None and signals.received() is None
    assert [signal.getsignal(number) for number in signals.AWAITED] == handlers
