"""Whole runs in this process: what they leave, how they resume after kill -9, and when they refuse."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from train_runs import TINY, TINY_SFT, TOKENIZER, launch, read_metrics

from configs.artifacts import read_json, sha256_file, sha256_files
from configs.layout import shards_dir
from megatron_train import pretrain, sft
from megatron_train.checkpoints import checkpoint
from megatron_train.checkpoints.checkpoint import Checkpoints
from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.training import metrics
from megatron_train.training import step as train_step


def run_pretrain(data: Path, runs: Path, *overrides: str) -> Path:
    pretrain.main(
        ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs), *TINY, *overrides]
    )
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


def run_sft(data: Path, runs: Path, parent: Path, *overrides: str) -> Path:
    options = ["--config", "mini_s_sft.yaml", "--data", str(data), "--runs", str(runs), "--parent", str(parent)]
    sft.main([*options, *TINY_SFT, *overrides])
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "sft-mini"


def snapshot(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: metrics but for the clock, DONE, and the bytes of every export."""
    exports = {str(p.relative_to(run)): sha256_file(p) for p in sorted(run.glob("export/*/*"))}
    return {"metrics": read_metrics(run), "done": read_json(run / "DONE"), "exports": exports}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted pretraining run with a milestone at step 15."""
    return run_pretrain(data, tmp_path_factory.mktemp("runs"), "checkpoint_tokens=[1920]")


def test_a_run_leaves_what_it_promises(whole: Path, data: Path) -> None:
    steps = [line for line in read_metrics(whole) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert [line["tokens"] for line in steps] == [128 * s for s in range(1, 31)]
    assert steps[0]["loss"] == pytest.approx(5.77, abs=0.05)  # ln 320
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    validation = [line for line in read_metrics(whole) if "validation" in line]
    assert [line["step"] for line in validation] == [30]
    assert set(validation[0]["validation"]) == {
        "refinedweb",
        "starcoder",
        "wikipedia",
        "arxiv",
        "stackexchange",
        "books",
    }

    for source, bits in validation[0]["bits_per_byte"].items():
        held_out = read_json(shards_dir(data, TOKENIZER, source) / "manifest.json")["validation"]
        nats_of_all = validation[0]["validation"][source] * held_out["tokens"]
        assert bits * held_out["utf8_bytes"] * math.log(2) == pytest.approx(nats_of_all)

    # The milestone and the last step are kept, with moments; the resume points (10, 20) are not.
    assert [step for step, _ in checkpoint.complete(whole / "checkpoints")] == [15, 30]
    done = read_json(whole / "DONE")
    assert (done["step"], done["tokens"]) == (30, 30 * 128)
    assert done["export"] == {
        str(step): sha256_files(list((whole / "export" / f"step-{step:07d}").glob("*.safetensors")))
        for step in (15, 30)
    }
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["hidden"] == 24
    record = read_json(whole / "provenance.json")
    assert record["inputs"] == done["inputs"] and record["packages"]["megatron-core"] == version("megatron-core")
    assert len(record["manifests"]) == 1 + 6  # of the tokenizer and the sources
    assert all(sha256_file(data / name) == sha for name, sha in record["manifests"].items())
    for step in (15, 30):
        export = whole / "export" / f"step-{step:07d}"
        facts = read_json(export / "export.json")
        assert facts["tokens"] == step * 128
        assert facts["tokenizer_sha256"] == sha256_file(export / "tokenizer.json")


def _main_that_dies(data: Path, runs: Path, owner: str, name: str, call: int) -> None:
    """Run, and die by SIGKILL when `owner.name` is called for the `call`-th time."""
    target: Any = functools.reduce(getattr, owner.split(".")[1:], importlib.import_module("megatron_train"))
    original: Callable[..., Any] = getattr(target, name)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(target, name, dying)
    run_pretrain(data, runs, "checkpoint_tokens=[1920]")


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        pytest.param("megatron_train.optimizer.flat_adamw.FlatAdamW", "step", (7, 17), id="within a step, twice"),
        pytest.param("megatron_train.checkpoints.checkpoint", "write_json", (2,), id="with a checkpoint half-written"),
        pytest.param(
            "megatron_train.checkpoints.checkpoint.Checkpoints",
            "save",
            (2,),
            id="between a milestone's export and its checkpoint",
        ),
        pytest.param("megatron_train.training.loop", "_validate", (1,), id="before the last validation"),
        pytest.param(
            "megatron_train.checkpoints.checkpoint", "prune", (4,), id="after the last checkpoint, before DONE"
        ),
    ],
)
def test_resume_after_kill_ends_with_the_same_bytes(
    whole: Path, data: Path, tmp_path: Path, owner: str, name: str, calls: tuple[int, ...]
) -> None:
    run = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    # A server that has imported torch and megatron, but never used them, forks in no time (as study.py does).
    workers = multiprocessing.get_context("forkserver")
    workers.set_forkserver_preload(["megatron_train.training.loop"])
    for call in calls:
        child = workers.Process(target=_main_that_dies, args=(data, tmp_path, owner, name, call))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        assert not (run / "DONE").exists()
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write('{"step": 99, "lo')  # a line cut by the kill
    run_pretrain(data, tmp_path, "checkpoint_tokens=[1920]")
    assert snapshot(run) == snapshot(whole)
    assert not list((run / "checkpoints").glob(".*"))


def test_done_is_skipped_and_other_inputs_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_pretrain(data, tmp_path, "budget.steps=6")
    first = snapshot(run)
    times = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    capsys.readouterr()
    # Settings that change nothing but the show do not make a new run.
    run_pretrain(data, tmp_path, "budget.steps=6", "log_every_steps=1", "batch.micro_sequences=4")
    assert "done already, skipped" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == times
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path, "budget.steps=6", "optimizer.lr=1e-4")
    assert "made from other inputs" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == times
    run_pretrain(data, tmp_path, "budget.steps=6", "optimizer.lr=1e-4", "--resume", "never")
    second = snapshot(run)
    assert second["done"]["inputs"] != first["done"]["inputs"] and second["exports"] != first["exports"]
    assert len(second["metrics"]) == len(first["metrics"])


def test_verify_compares_the_last_export_with_transformers(
    whole: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = run_pretrain(data, whole.parents[4], "checkpoint_tokens=[1920]", "--verify")
    assert again == whole
    out = capfd.readouterr().out
    assert "done already, skipped" in out and "same likeliest token at 100.000% of positions" in out
    other = run_pretrain(data, tmp_path, "budget.steps=6")
    weights = next((other / "export" / "step-0000006").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 64
    weights.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        run_pretrain(data, tmp_path, "budget.steps=6", "--verify")
    assert stop.value.code == 2 and "sha256 differs" in capfd.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = train_step.micro_loss
    count = 0

    def poisoned(*args: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return original(*args) * (float("nan") if count == 2 * 14 else 1.0)  # step 14; two micro-batches a step

    monkeypatch.setattr(train_step, "micro_loss", poisoned)
    with pytest.raises(SystemExit) as stop:
        run_pretrain(data, tmp_path)
    assert stop.value.code == 3
    assert "step 14: loss nan" in capsys.readouterr().err
    run = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    record = read_json(run / "diverged-step-0000014.json")
    assert (record["step"], len(record["sequences"])) == (14, 4)
    part = record["sequences"][0]["documents"][0]
    assert (part["unit"], set(part)) == ("part-00000.parquet", {"unit", "row", "start", "stop", "length"})
    assert [line["step"] for line in read_metrics(run)] == list(range(1, 14))
    assert not (run / "DONE").exists() and not (run / "export").exists()
    assert [step for step, _ in checkpoint.complete(run / "checkpoints")] == [10]


def test_no_step_after_a_gradient_that_is_not_finite_changes_a_weight(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is only looked at every ten steps; the weights must be those of step 13 all the same."""
    kept: list[torch.Tensor] = []
    poison, step = train_step.micro_loss, FlatAdamW.step

    def poisoned(*args: Any) -> torch.Tensor:
        return poison(*args) * (float("inf") if len(kept) == 13 else 1.0)

    def stepped(self: FlatAdamW, lr: float) -> torch.Tensor:
        norm = step(self, lr)
        kept.append(torch.cat([self.master, self.exp_avg, self.exp_avg_sq]))
        return norm

    monkeypatch.setattr(train_step, "micro_loss", poisoned)
    monkeypatch.setattr(FlatAdamW, "step", stepped)
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path)
    assert len(kept) == 20 and not torch.equal(kept[11], kept[12])
    assert all(torch.equal(later, kept[12]) for later in kept[13:])


def test_a_spike_is_recorded_with_its_documents(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "SPIKE_AFTER", 10)
    monkeypatch.setattr(metrics, "SPIKE_SIGMAS", 3.0)
    original, count = train_step.micro_loss, 0

    def high(*args: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return original(*args) * (3.0 if count in (2 * 24 - 1, 2 * 24) else 1.0)

    monkeypatch.setattr(train_step, "micro_loss", high)
    run = run_pretrain(data, tmp_path)
    (spike,) = [line for line in read_metrics(run) if "spike" in line]
    assert spike["step"] == 24 and spike["spike"]["loss"] > 2 * spike["spike"]["mean"]
    assert [sequence["source"] for sequence in spike["spike"]["sequences"]].count("refinedweb") >= 1
    assert "spike       step 24" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_and_the_same_command_goes_on(
    whole: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    step, before = FlatAdamW.step, signal.getsignal(number)
    for steps_done, saved in ((7, 7), (10, 17)):
        count = itertools.count(1)

        def signalled(self: FlatAdamW, lr: float, count: Iterator[int] = count, last: int = steps_done) -> torch.Tensor:
            if next(count) == last:
                os.kill(os.getpid(), number)
            return step(self, lr)

        monkeypatch.setattr(FlatAdamW, "step", signalled)
        with pytest.raises(SystemExit) as stop:
            run_pretrain(data, tmp_path, "checkpoint_tokens=[1920]")
        assert stop.value.code == 75
        assert f"{signal.Signals(number).name} came; saved after step {saved} of 30" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    monkeypatch.setattr(FlatAdamW, "step", step)
    assert snapshot(run_pretrain(data, tmp_path, "checkpoint_tokens=[1920]")) == snapshot(whole)


def test_a_damaged_checkpoint_is_skipped_and_made_again(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoints.save

    def stop_after_20(self: Checkpoints, step: int, tokens: int) -> None:
        save(self, step, tokens)
        if step == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop_after_20)
    with pytest.raises(SystemExit, match="130"):
        run_pretrain(data, tmp_path, "checkpoint_tokens=[1920]", "keep_checkpoints=3")
    monkeypatch.setattr(Checkpoints, "save", save)
    run = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    assert [step for step, _ in checkpoint.complete(run / "checkpoints")] == [10, 15, 20]
    for name in ("step-0000020", "step-0000015"):
        file = next((run / "checkpoints" / name).glob("*.distcp"))
        os.truncate(file, file.stat().st_size // 2)
    capsys.readouterr()
    assert snapshot(run_pretrain(data, tmp_path, "checkpoint_tokens=[1920]")) == snapshot(whole)
    out = capsys.readouterr().out
    assert "skipping the checkpoint of step 20" in out and "skipping the checkpoint of step 15" in out
    assert "resuming after step 10" in out and "truncated" in out


def test_fine_tuning_starts_from_its_parent(whole: Path, data: Path, tmp_path: Path) -> None:
    run = run_sft(data, tmp_path, whole)
    record = read_json(run / "provenance.json")
    parent = read_json(whole / "DONE")["export"]["30"]
    assert record["parent"]["sha256"] == parent
    first = read_metrics(run)[0]["loss"]
    # With a rate of zero the export is its parent's, bit for bit, and the first loss is the same.
    frozen = run_sft(data, tmp_path / "frozen", whole, "optimizer.lr=1e-30", "optimizer.weight_decay=0")
    assert read_json(frozen / "DONE")["export"]["8"] == parent
    assert read_metrics(frozen)[0]["loss"] == first
    # The same start from the export instead of the run.
    again = run_sft(data, tmp_path / "again", whole / "export" / "step-0000030")
    assert snapshot(again) == snapshot(run)
    assert read_metrics(run)[-1]["loss"] < first - 0.5
    # Another parent (here an earlier milestone) is another run.
    other = run_sft(data, tmp_path, whole / "export" / "step-0000015", "--resume", "never")
    assert other == run and read_json(run / "provenance.json")["parent"]["sha256"] != parent


def test_fine_tuning_epochs(whole: Path, data: Path, tmp_path: Path) -> None:
    run = run_sft(data, tmp_path, whole, "budget.steps=null", "budget.epochs=0.5")
    assert read_json(run / "DONE")["step"] == 3  # ceil(0.5 x 21 examples / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["precision=bf16"], "a CUDA device for precision: bf16 (on a CPU, small models train with precision=fp32)"),
        (["data.tokenizer=none"], "token shards of refinedweb:"),
        (["model.vocab=300"], "model.vocab (300) is smaller than the tokenizer (320 entries)"),
        (["checkpoint_tokens=[100]"], "checkpoint_tokens: 100 is outside the run"),
        (["parallel.tensor=2"], "parallel.tensor is 2, but 1 process(es) run"),
        (["batch.sequences=x"], "batch.sequences"),
        (["data.mixture=V9"], "V9.yaml: no such config file"),
    ],
)
def test_refusals(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    if options == ["precision=bf16"] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit) as stop:
        run_pretrain(data, tmp_path, *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_an_unfinished_parent_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_sft(data, tmp_path, tmp_path)
    assert "neither an export nor a finished pretraining run" in capsys.readouterr().err


def test_an_altered_checkpoint_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_pretrain(data, tmp_path, "budget.steps=6")
    (run / "DONE").unlink()
    file = next((run / "checkpoints").glob("*/*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path, "budget.steps=6")
    error = capsys.readouterr().err
    assert file.name in error and "sha256 differs" in error
    assert file.read_bytes() == content


def test_paper_scale_without_data_prints_the_plan_and_what_is_missing(tmp_path: Path) -> None:
    done = launch("pretrain.py", "--config", "configs/1b.yaml", "--data", str(tmp_path), expect=2)
    assert "1,147.5M with the embedding" in done.stdout
    assert "token shards of refinedweb" in done.stderr and "Traceback" not in done.stderr
    if not torch.cuda.is_available():
        assert "a CUDA device" in done.stderr


def test_plan_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain.main(["--config", "1b.yaml", "--data", str(tmp_path), "--runs", str(tmp_path), "--dry-run", "--gpus", "8"])
    out = capsys.readouterr().out
    assert "978.0M outside it" in out and "h on 8" in out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["pretrain.py", "sft.py"])
def test_help_is_quick_and_has_examples(script: str) -> None:
    import time

    started = time.perf_counter()
    assert "examples:" in launch(script, "--help").stdout
    assert time.perf_counter() - started < 5  # < 1 s on an idle machine; the imports of torch alone would take 3


def test_metrics_are_json_lines(whole: Path) -> None:
    for line in (whole / "metrics.jsonl").read_text().splitlines():
        assert {"step", "tokens"} < set(json.loads(line))
