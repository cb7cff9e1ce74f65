"""One run folder, two commands: one process works in it, and nobody goes on from what other inputs made."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from train_runs import TINY, TINY_SFT, launch, read_metrics

from configs.artifacts import read_json, sha256_file, write_json
from configs.errors import ArtifactError, ResourceError
from configs.layout import StudyFolder
from configs.runtime.locks import run_lock
from configs.schema import ModelShape, Optimizer
from megatron_train import pretrain, sft
from megatron_train.checkpoints.checkpoint import Checkpoints, complete
from megatron_train.model.model import build_model
from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.ranks.parallel import Ranks

MILESTONE = "checkpoint_tokens=[1920]"  # step 15
OTHER = "optimizer.lr=1e-3"
OTHER_IN_WORDS = "optimizer.lr: 0.005 -> 0.001"


def run_pretrain(data: Path, runs: Path, *options: str) -> Path:
    where = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs)]
    pretrain.main([*where, *TINY, MILESTONE, "log_every_steps=1", *options])
    return run_folder(runs)


def run_folder(runs: Path) -> Path:
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


def refused(data: Path, runs: Path, *options: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_pretrain(data, runs, *options)


@pytest.fixture(autouse=True)
def nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.runtime.locks.RUN_WAIT_S", 0.0)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def result(run: Path) -> dict[str, Any]:
    """What a run comes to, without what depends on the clock."""
    exports = {str(p.relative_to(run)): sha256_file(p) for p in sorted(run.glob("export/*/*"))}
    return {"metrics": read_metrics(run), "done": read_json(run / "DONE"), "exports": exports}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_pretrain(data, tmp_path_factory.mktemp("whole"))


def _main_that_waits(data: Path, runs: Path, at_step: int, leave_a_child: bool) -> None:
    """Run; before the update of `at_step`, write <runs>/waits and wait until <runs>/go is there."""
    step, calls = FlatAdamW.step, 0

    def waiting(self: FlatAdamW, lr: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == at_step:
            child = os.fork() if leave_a_child else 0
            if leave_a_child and child == 0:  # as a worker that outlives its parent
                time.sleep(120)
                os._exit(0)
            (runs / "waits").write_text(str(child))
            while not (runs / "go").is_file():
                time.sleep(0.02)
        return step(self, lr)

    FlatAdamW.step = waiting  # type: ignore[method-assign]
    run_pretrain(data, runs)


@contextlib.contextmanager
def another_training(data: Path, runs: Path, at_step: int, leave_a_child: bool = False) -> Iterator[BaseProcess]:
    """A process that trains in the folder and waits within a step."""
    workers = multiprocessing.get_context("forkserver")
    workers.set_forkserver_preload(["megatron_train.training.loop"])
    process = workers.Process(target=_main_that_waits, args=(data, runs, at_step, leave_a_child))
    process.start()
    try:
        while not ((runs / "waits").is_file() and (runs / "waits").read_text()):
            assert process.is_alive()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()


def test_of_two_commands_in_one_folder_the_second_is_refused(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path)
    with another_training(data, tmp_path, at_step=12) as first:
        before = content(run)
        for options in ([], [OTHER], [OTHER, "--resume", "never"], ["--resume", "10"]):
            refused(data, tmp_path, *options)
            said = capsys.readouterr().err
            assert f"another process is at work on mini_s/V1P0/seed0/pt: {first.pid} on {socket.gethostname()}" in said
            assert "next:  wait for it, or end it" in said
        assert content(run) == before
        (tmp_path / "go").touch()
        first.join(60)
        assert first.exitcode == 0
    assert result(run) == result(whole)
    run_pretrain(data, tmp_path)
    assert "done already, skipped" in capsys.readouterr().out


def test_a_killed_run_goes_on_at_once_though_a_child_of_it_lives(whole: Path, data: Path, tmp_path: Path) -> None:
    with another_training(data, tmp_path, at_step=12, leave_a_child=True) as first:
        first.kill()
        first.join()
    child = int((tmp_path / "waits").read_text())
    try:
        began = time.monotonic()
        with run_lock(StudyFolder(tmp_path, "t").run("mini_s", "V1P0", 0, "pt")):
            assert time.monotonic() - began < 1
        assert result(run_pretrain(data, tmp_path)) == result(whole)
        os.kill(child, 0)  # raises where the child has ended, which would prove nothing
    finally:
        os.kill(child, signal.SIGKILL)


def stop_in_step(number: int, data: Path, runs: Path) -> None:
    step, calls = FlatAdamW.step, []

    def stopping(self: FlatAdamW, lr: float) -> torch.Tensor:
        calls.append(lr)
        if len(calls) == number:
            raise KeyboardInterrupt
        return step(self, lr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlatAdamW, "step", stopping)
        with pytest.raises(SystemExit, match="130"):
            run_pretrain(data, runs)


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with one that was stopped in step 17: checkpoints of steps 10 and 15."""
    runs = tmp_path_factory.mktemp("stopped")
    stop_in_step(17, data, runs)
    assert [at for at, _ in complete(run_folder(runs) / "checkpoints")] == [10, 15]
    return runs


@pytest.mark.parametrize("left", ["all", "checkpoints", "export", "DONE"])
def test_auto_leaves_what_other_inputs_made(
    whole: Path, stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    """A checkpoint, an export or DONE is enough, and the message tells what differs."""
    shutil.copytree(whole.parents[4] if left == "DONE" else stopped, tmp_path, dirs_exist_ok=True)
    run = run_folder(tmp_path)
    if left != "all":
        for name in {"checkpoints", "export"} - {left}:
            shutil.rmtree(run / name)
    before = content(run)
    refused(data, tmp_path, OTHER)
    said = capsys.readouterr().err
    assert content(run) == before
    assert "was made from other inputs" in said and str(run) in said
    assert OTHER_IN_WORDS in said and "seed" not in said.partition("made from")[2].replace(str(run), "")
    assert "--study NAME" in said and "--resume never" in said
    (run / "config.yaml").write_text("stage: [")  # then nobody can tell
    refused(data, tmp_path, OTHER)
    assert "(another config, other data or another parent)" in capsys.readouterr().err


def test_a_folder_that_two_runs_wrote_into_is_refused_to_both(
    stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What two runs without a lock left: checkpoints of one beside the record and the lines of the other."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    other = run_pretrain(data, tmp_path / "other", OTHER, "budget.steps=30")
    run = run_folder(tmp_path)
    for name in ("config.yaml", "provenance.json", "metrics.jsonl"):
        shutil.copyfile(other / name, run / name)
    before = content(run)
    for options, culprit in (([], "provenance.json"), ([OTHER], "checkpoints/step-0000010/manifest.json")):
        for more in ([], ["--resume", "15"]):
            refused(data, tmp_path, *options, *more)
            assert f"{culprit} was made from other inputs" in capsys.readouterr().err
    assert content(run) == before


def test_without_a_checkpoint_it_starts_again_and_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = run_pretrain(data, tmp_path / "wanted", OTHER)
    stop_in_step(7, data, tmp_path)
    assert [line["step"] for line in read_metrics(run_folder(tmp_path))] == [1, 2, 3, 4, 5, 6]
    capsys.readouterr()
    assert result(run_pretrain(data, tmp_path, OTHER)) == result(wanted)
    assert "removing what a run of other inputs left before its first checkpoint" in capsys.readouterr().out


def test_another_parent_is_named(whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "mini_s_sft.yaml", "--data", str(data), "--runs", str(tmp_path), *TINY_SFT]
    sft.main([*options, "--parent", str(whole)])
    run = tmp_path / "t/mini_s/V1P0/seed0/sft-mini"
    before = content(run)
    earlier = whole / "export/step-0000015"
    with pytest.raises(SystemExit, match="2"):
        sft.main([*options, "--parent", str(earlier)])
    said, sha256 = capsys.readouterr().err, read_json(earlier / "export.json")["checkpoint"]
    assert f"parent.export: {whole}/export/step-0000030 -> {earlier}" in said
    assert f"-> {sha256[:12]}..." in said and content(run) == before


def test_a_checkpoint_of_other_inputs_is_never_loaded(shape: ModelShape, ranks: Ranks, tmp_path: Path) -> None:
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=0)
    optimizer = FlatAdamW(model, Optimizer(lr=1e-2), ranks, torch.float32)
    for inputs, step in (("ours", 10), ("theirs", 20)):
        Checkpoints(tmp_path, optimizer, ranks, inputs, keep=(), newest=2).save(step, 100 * step)
    with pytest.raises(ArtifactError, match="step-0000020: this checkpoint was made from other inputs"):
        Checkpoints(tmp_path, optimizer, ranks, "ours", keep=(), newest=2).load_newest(complete(tmp_path))


def test_damage_is_not_taken_for_other_inputs(whole: Path, stopped: Path, data: Path, tmp_path: Path) -> None:
    """A manifest that cannot be read says nothing of inputs: the checkpoint is skipped, as a damaged one is."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    run = run_folder(tmp_path)
    (run / "checkpoints/step-0000015/manifest.json").write_text("{")
    (run / "provenance.json").write_text("{")
    assert result(run_pretrain(data, tmp_path)) == result(whole)


def test_a_record_of_another_version_has_no_say_in_the_differences(
    stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    record = run_folder(tmp_path) / "provenance.json"
    write_json(record, read_json(record) | {"data": "of another shape"})
    refused(data, tmp_path, OTHER)
    assert OTHER_IN_WORDS in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("options", [["parallel.tensor=2"], []], ids=["tensor", "data"])
def test_all_ranks_learn_of_a_refusal(whole: Path, data: Path, tmp_path: Path, options: list[str]) -> None:
    """Two ranks, once for a folder that is taken, once for one of other inputs: one message, and no rank waits."""
    run = StudyFolder(tmp_path, "t").run("mini_s", "V1P0", 0, "pt")
    message = f"another process is at work on {run.name}: {os.getpid()} on "
    if not options:
        shutil.copytree(whole.parents[4], tmp_path, dirs_exist_ok=True)
        options, message = [OTHER], OTHER_IN_WORDS
    before = content(run.path)
    where = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(tmp_path)]
    with run_lock(run) if OTHER not in options else contextlib.nullcontext():
        began = time.monotonic()
        done = launch("pretrain.py", *where, *TINY, MILESTONE, *options, processes=2, expect=1)
        assert time.monotonic() - began < 60
    assert done.stderr.count(message) == 1 and "exitcode  : 2" in done.stderr
    assert "loop.py" not in done.stderr, "a traceback of ours, beside torchrun's own"
    assert content(run.path) == before


def test_a_run_by_hand_and_a_study_exclude_each_other(data: Path, tmp_path: Path) -> None:
    """What a study calls for a unit is refused in the folder of a run by hand."""
    from configs.load import load_train, parse_overrides

    config = load_train("mini_s.yaml", parse_overrides(TINY))
    run = StudyFolder(tmp_path, "t").run("mini_s", "V1P0", 0, "pt")
    with run_lock(run), pytest.raises(ResourceError, match=f"at work on {run.name}: {os.getpid()} on "):
        pretrain.run(config, StudyFolder(tmp_path, "t"), data)
    assert not run.path.exists()
