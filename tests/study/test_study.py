"""The whole path at a tiny size: it ends with a report, and kill -9 in any stage changes nothing of the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow.parquet as pq
import pytest
from ray_head import head_node, submitted
from tiny_study import BENCHMARKS, write_study

from configs.artifacts import read_json, sha256_file
from configs.cost.plan import plan_study
from configs.errors import ResourceError
from configs.layout import PROJECT_ROOT
from configs.load import load_study
from configs.workflow.disk import SPARE_BYTES, check_disk
from configs.workflow.records.leases import study_lock
from configs.workflow.status.progress import last_step, share_done
from configs.workflow.units import study_units
from mixtures.sources.identity import source_bytes


def command(study: Path, root: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, str(PROJECT_ROOT / "study.py"), "run", str(study)),
        *("--data", str(root / "data"), "--runs", str(root / "runs"), "--workers", "2", *more),
    ]


def run(study: Path, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    root.mkdir(exist_ok=True)
    return subprocess.run(command(study, root, *more), cwd=root, capture_output=True, text=True, timeout=500)


def killed(study: Path, root: Path, when: Callable[[], bool]) -> None:
    """Start the study and kill -9 its process as soon as `when` is true."""
    process = subprocess.Popen(command(study, root), cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not when():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def scores(root: Path) -> dict[str, str]:
    folder = root / "runs" / "tiny" / "scores"
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*.parquet"))}


def test_last_step_ignores_a_half_written_line_and_validation(tmp_path: Path) -> None:
    (unit,) = [u for u in study_units(load_study("mini"), tmp_path) if u.name == "pretrain/mini_s/V1P0/seed0"]
    assert unit.folder is not None and last_step(unit.folder) == {} and share_done(unit) == 0.0
    unit.folder.path.mkdir(parents=True)
    unit.folder.metrics.write_text('{"step": 3, "loss": 2.0}\n{"step": 3, "validation": {}}\n{"step": 4, "lo')
    assert last_step(unit.folder)["step"] == 3 and share_done(unit) == pytest.approx(3 / 585)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "no such config file"),
        (["run", "mini", "mixtures=[V9P9]", "extra_seeds={}"], "no such config file"),
        (["run", "mini", "scoring.sampel=3"], "did you mean sample?"),
        (["run", "real_small"], "none are named"),
        (["run", "real_small", "--documents", "/nowhere"], "data folder is missing"),
        (["status", "mini"], "no such study"),
        (["status", "mini", "--colour"], "unrecognized arguments: --colour"),
        (["run", "mini", "--workers", "1", "scoring.sampel=3"], "did you mean sample?"),
        (["unit", "mini", "pretrain/x"], "no such study"),
        (["plan", "paper", "--gpus", "4"], "works on 8 GPUs, 4 are given"),
        (["run", "mini", "--documents", "/nowhere"], "real_small"),
        (["run", "paper", "--documents", "/nowhere"], "data.kind=local --documents /nowhere"),
        (["run", "mini", "--workers", "-1"], "'-1' is not a whole number of at least 1"),
        (["run", "mini", "--hours", "2"], "--hours is of no use without --emit-slurm"),
        (["run", "mini", "--gpus-per-node", "8"], "--gpus-per-node is of no use without --emit-slurm"),
        (["run", "mini", "--slurm=--partition=a"], "--slurm is of no use without --emit-slurm"),
        (["run", "mini", "--emit-slurm", "jobs", "--workers", "2"], "--workers is of no use with --emit-slurm"),
        (["run", "mini", "--emit-slurm", "jobs", "--stale", "redo"], "study.py unit mini UNIT --again"),
        (["run", "mini", "--runs", "/etc/passwd"], "/etc/passwd"),
        (["status", "mini", "--runs", "/etc/passwd/x"], "/etc/passwd/x"),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    environment = os.environ | {"MAGIC_RUNS": str(tmp_path / "runs"), "MAGIC_DATA": str(tmp_path / "data")}
    result = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "study.py"), *arguments], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import study as module

    monkeypatch.setattr("configs.workflow.disk.SPARE_BYTES", 1e18)
    with pytest.raises(ResourceError, match="GB are free"):
        module.run(load_study("mini"), None, tmp_path / "data", tmp_path / "runs", 1)
    assert not list(tmp_path.iterdir())


def test_token_shards_count_where_they_go_and_what_is_there_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write_study(tmp_path), {"data.megabytes_per_source": 200})
    shards = 8 * 200e6 / 4 * 2  # V1P0 and V2P2 have eight sources, and 4 bytes of text make a token of two bytes
    runs, data = tmp_path / "runs", tmp_path / "data"

    def free(count: float) -> None:
        monkeypatch.setattr("configs.workflow.disk.shutil.disk_usage", lambda path: SimpleNamespace(free=count))
        check_disk(study, lambda source: source_bytes(source, data / "microworld"), data, runs)

    free(shards + SPARE_BYTES + plan_study(study).disk_bytes)
    with pytest.raises(ResourceError, match=r"needs about 1\.3 GB here, 1\.3 GB are free[^!]*--data or --runs"):
        free(shards + SPARE_BYTES)
    there = data / "tokens/tiny/books/part-00000.bin"
    there.parent.mkdir(parents=True)
    with there.open("wb") as stream:
        stream.truncate(int(plan_study(study).disk_bytes) + 1)  # as much, of one of the sources, is there
    free(shards + SPARE_BYTES)
    there.unlink()

    monkeypatch.setattr("configs.workflow.disk._disk", lambda path: int(path.is_relative_to(data)))
    free(shards + SPARE_BYTES)
    with pytest.raises(ResourceError, match=r"1\.3 GB here, 1\.2 GB are free\n[^!]*folder with --data$"):
        free(shards + SPARE_BYTES - 1e8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_path_ends_with_a_report_and_kills_change_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    broken.mkdir()
    result = run(study, whole)
    assert result.returncode == 0, result.stdout + result.stderr
    page = whole / "runs" / "tiny" / "report" / "index.html"
    assert f"report: {page}" in result.stdout and page.is_file()
    wanted = scores(whole)
    assert len(wanted) == 2 * 2 + 2  # two mixtures: a milestone and the last step, and the last step of SFT

    runs, data = broken / "runs" / "tiny", broken / "data"
    killed(study, broken, lambda: any((data / "microworld").glob("*")) or any(data.glob(".*.tmp/*")))
    killed(study, broken, lambda: any((data / "tokens").glob("*/*/manifest.json")))
    killed(study, broken, lambda: any(runs.glob("tiny/*/seed0/pt/metrics.jsonl")))
    killed(study, broken, lambda: any(runs.glob("tiny/*/seed0/sft-tiny/metrics.jsonl")))
    killed(study, broken, lambda: any((runs / "scores").rglob("*.parquet")))
    killed(study, broken, lambda: (runs / "metrics.parquet").exists())
    result = run(study, broken)
    assert result.returncode == 0, result.stdout + result.stderr
    assert scores(broken) == wanted
    assert sha256_file(runs / "metrics.parquet") == sha256_file(whole / "runs" / "tiny" / "metrics.parquet")

    table = pq.read_table(runs / "scores" / "tiny" / "V1P0" / "seed0" / "pt")
    assert set(table["benchmark"].to_pylist()) == set(BENCHMARKS)

    again = run(study, broken)  # nothing is done a second time
    assert again.returncode == 0 and scores(broken) == wanted
    assert "nothing was missing" in again.stdout
    assert re.search(r"^score +6/6$", status(broken), re.MULTILINE)
    for report in (broken, whole):
        shutil.rmtree(report / "runs/tiny/report")
    assert run(study, broken).returncode == run(study, whole).returncode == 0


def status(root: Path) -> str:
    place = ["--runs", str(root / "runs")]
    command = [sys.executable, str(PROJECT_ROOT / "study.py"), "status", "tiny", *place]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_changed_is_refused_redone_or_kept_and_a_second_driver_is_turned_away(tmp_path: Path) -> None:
    study = write_study(tmp_path, steps=12)
    assert run(study, tmp_path).returncode == 0
    first, folder = scores(tmp_path), tmp_path / "runs" / "tiny"
    stamp = (folder / "tiny/V1P0/seed0/pt/DONE").stat().st_mtime_ns

    saved = (folder / "study.yaml").read_bytes()
    changed = run(study, tmp_path, "overrides={optimizer.lr: 0.02}")
    assert changed.returncode == 2 and "10 finished units no longer match" in changed.stderr
    assert "pretrain/tiny/V1P0/seed0: optimizer.lr 0.01 -> 0.02" in changed.stderr and "--stale redo" in changed.stderr
    assert scores(tmp_path) == first
    late = run(study, tmp_path, "tokenizer.sample_megabytes=0.03")  # known only once the shards are there
    assert late.returncode == 2 and "tokenize was made again, and came out otherwise" in late.stderr
    assert (folder / "study.yaml").read_bytes() == saved and run(study, tmp_path).returncode == 0
    assert scores(tmp_path) == first and "stale" not in status(tmp_path)

    kept = run(study, tmp_path, "overrides={optimizer.lr: 0.02}", "--stale", "keep")
    assert kept.returncode == 0 and scores(tmp_path) == first
    record = read_json(folder / "units/pretrain/tiny/V1P0/seed0.json")
    assert record["kept"] == ["optimizer.lr 0.01 -> 0.02"] and record["identity"]["optimizer"]["lr"] == 0.02
    assert (folder / "tiny/V1P0/seed0/pt/DONE").stat().st_mtime_ns == stamp

    shared = folder / "study.yaml"
    shared.write_text(shared.read_text().replace("0.02", "0.05"))
    place = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    single = [sys.executable, str(PROJECT_ROOT / "study.py"), "unit", "tiny", "pretrain/tiny/V1P0/seed0", *place]
    refused = subprocess.run(single, capture_output=True, text=True)
    assert refused.returncode == 2 and "is stale: optimizer.lr 0.02 -> 0.05" in refused.stderr
    subprocess.run([*single, "--again"], capture_output=True, check=True)
    assert read_json(folder / "units/pretrain/tiny/V1P0/seed0.json")["kept"] == []
    weights = folder / "tiny/V1P0/seed0/pt/export/step-0000010/model.safetensors"
    made = sha256_file(weights)
    shutil.rmtree(weights.parent)
    subprocess.run(single, capture_output=True, check=True)  # done, but what it made has gone
    assert sha256_file(weights) == made
    assert not (folder / "scores/tiny/V1P0/seed0/pt").exists()  # of the checkpoints that were

    redone = run(study, tmp_path, "overrides={optimizer.lr: 0.03}", "--stale", "redo")
    assert redone.returncode == 0, redone.stderr
    assert "2 pretrain" in redone.stdout and "6 score" in redone.stdout and scores(tmp_path) != first
    assert "stale" not in status(tmp_path)

    with study_lock(folder):
        second = run(study, tmp_path, "overrides={optimizer.lr: 0.03}")
    assert second.returncode == 2 and "another process is at work on this study" in second.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_asked_to_end_it_saves_and_goes_on_from_there(tmp_path: Path) -> None:
    study, long = write_study(tmp_path, steps=400), "overrides={data.exhaustion: repeat, data.max_epochs: 30}"
    run_folder = tmp_path / "runs/tiny/tiny/V1P0/seed0/pt"
    process = subprocess.Popen(
        command(study, tmp_path, long),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    metrics = run_folder / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 15:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C; SIGTERM is among the faults of tests/faults
    progress, said = process.communicate(timeout=120)
    assert b"SIGINT: trainings save where they are" in progress
    assert process.returncode == 75 and b"the same command goes on" in said and b"Traceback" not in said
    saved = max(path.name for path in (run_folder / "checkpoints").glob("step-*"))
    assert saved > "step-0000010"  # a milestone
    result = run(study, tmp_path, long)
    assert result.returncode == 0, result.stderr
    log = (tmp_path / "runs/tiny/units/pretrain/tiny/V1P0/seed0.log").read_text()
    assert f"step {int(saved.removeprefix('step-'))}" in log


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_unit_that_fails_leaves_the_rest_done_and_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, steps=12)
    assert run(study, tmp_path).returncode == 0
    folder = tmp_path / "runs" / "tiny"
    for name in ("analyse", "score/tiny/V1P0/seed0/pt/last"):
        (folder / f"units/{name}.json").unlink()
    (broken,) = (folder / "tiny/V1P0/seed0/pt/export").glob("step-*12/model*.safetensors")
    whole, at_ns = broken.read_bytes(), broken.stat().st_mtime_ns
    broken.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(broken, ns=(at_ns, at_ns))  # the disk's own doing: nobody wrote to it
    (folder / "scores/tiny/V1P0/seed0/pt/step-0000012.parquet").unlink()
    failed = run(study, tmp_path)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert "score/tiny/V1P0/seed0/pt/last failed; units not begun, which need it: 1" in failed.stderr
    assert "ArtifactError" in (folder / "units/score/tiny/V1P0/seed0/pt/last.log").read_text()  # and its traceback
    assert str(broken.parent) in failed.stderr and "units/score/tiny/V1P0/seed0/pt/last.log" in failed.stderr
    assert "delete the export and rerun its training" in failed.stderr
    shutil.rmtree(broken.parent)
    assert run(study, tmp_path).returncode == 0 and "missing" not in status(tmp_path)
    assert broken.read_bytes() == whole

    # What a real study leaves behind: every number has its whole origin, and the room it takes may go.
    place = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    program = [sys.executable, str(PROJECT_ROOT / "study.py")]
    asked = [*program, "why", "tiny", "table5", "rte", "--json", *place[:2]]
    facts = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    assert len(facts["scores"]["files"]) == len(facts["runs"]) == 4 and facts["doubts"] == []
    for origin in facts["runs"].values():
        assert "study.py run " in origin["command"] and origin["git_commit"] and origin["hardware"]
        assert all(sha256_file(tmp_path / "data" / name) == sha for name, sha in origin["manifests"].items())
    assert None not in facts["units"].values()
    subprocess.run([*program, "publish", "tiny", "--out", str(tmp_path / "tiny.zip"), *place], check=True)
    subprocess.run([*program, "clean", "tiny", "--exports", "--yes", *place], check=True)
    assert not list(folder.rglob("*.safetensors")) and not list(folder.rglob("*.distcp"))
    again = run(study, tmp_path)
    assert again.returncode == 0 and "nothing was missing" in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_submitted_to_a_ray_cluster_whose_driver_is_killed_and_without_one_the_same_bytes(tmp_path: Path) -> None:
    study = write_study(tmp_path, steps=12)
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(study, here).returncode == 0
    metrics = there / "runs/tiny/tiny/V1P0/seed0/pt/metrics.jsonl"
    place = ["--data", str(there / "data"), "--runs", str(there / "runs")]
    script = ["--working-dir", ".", "--", "python", "study.py", "run", str(study), *place]
    with ThreadPoolExecutor(1) as submitting, head_node(tmp_path, tmp_path, {}) as head:
        first = submitting.submit(submitted, script, head, 600)
        while not metrics.is_file():
            assert not first.done(), first.result().stdout[-3000:] + first.result().stderr[-3000:]
            time.sleep(0.02)
        called = ["study.py", "run", str(study)]
        (driver,) = (p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[1:4] == called)
        driver.kill()
        assert first.result().returncode != 0
        done = submitted(script, head, timeout_s=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1 tokenize" not in done.stdout  # what was done stays done
    assert scores(here) == scores(there)
    metrics_of = [sha256_file(root / "runs/tiny/metrics.parquet") for root in (here, there)]
    assert metrics_of[0] == metrics_of[1]
