"""Checkpoints: written in the background while weights move on, unwritable disks, stops at any step."""

from __future__ import annotations

import errno
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_runs import TINY, TINY_SFT, read_metrics

from configs.artifacts import read_json
from configs.errors import ArtifactError, ResourceError
from configs.schema import ModelShape, Optimizer
from megatron_train import pretrain, sft
from megatron_train.checkpoints import checkpoint
from megatron_train.checkpoints.checkpoint import Checkpoints
from megatron_train.model.model import build_model
from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.ranks.parallel import Ranks


def new_optimizer(shape: ModelShape, ranks: Ranks, seed: int) -> FlatAdamW:
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=seed)
    optimizer = FlatAdamW(model, Optimizer(lr=1e-2), ranks, torch.float32)
    draw = torch.Generator().manual_seed(seed)
    optimizer.exp_avg.normal_(generator=draw)
    optimizer.exp_avg_sq.uniform_(generator=draw)
    return optimizer


def values(optimizer: FlatAdamW) -> dict[str, torch.Tensor]:
    return {f"{kind}/{slot.name}": tensor.clone() for kind, slot, tensor in optimizer.tensors()}


def test_a_background_write_keeps_the_step_it_was_asked_for(
    shape: ModelShape, ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system waits until the weights have moved on; the files still hold the weights of then."""
    moved_on, save = threading.Event(), dcp.save

    def slow_save(*args: Any, **kwargs: Any) -> Any:
        assert moved_on.wait(60) and threading.current_thread() is not threading.main_thread()
        return save(*args, **kwargs)

    monkeypatch.setattr(dcp, "save", slow_save)
    optimizer = new_optimizer(shape, ranks, seed=1)
    expected = values(optimizer)
    with Checkpoints(tmp_path, optimizer, ranks, "inputs", keep=(), newest=2) as checkpoints:
        checkpoints.background = True
        checkpoints.save(10, 1000)
        for flat in (optimizer.master, optimizer.exp_avg, optimizer.exp_avg_sq):
            flat.add_(1.0)
        assert not checkpoint.complete(tmp_path), "the training waited for the files"
        moved_on.set()
    other = new_optimizer(shape, ranks, seed=2)
    manifest = Checkpoints(tmp_path, other, ranks, "inputs", keep=(), newest=2).load_newest(
        checkpoint.complete(tmp_path)
    )
    assert (manifest["step"], manifest["tokens"]) == (10, 1000)
    found = values(other)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_of_a_newer_pytorch_is_refused_with_its_version(
    shape: ModelShape, ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older release stumbles over a newer one's `.metadata`, here at the number of values in a tuple."""
    optimizer = new_optimizer(shape, ranks, seed=1)
    with monkeypatch.context() as newer, Checkpoints(tmp_path, optimizer, ranks, "inputs", (), 2) as checkpoints:
        newer.setattr(torch, "__version__", "99.1")
        checkpoints.save(10, 1000)
    found = checkpoint.complete(tmp_path)
    assert Checkpoints(tmp_path, optimizer, ranks, "inputs", (), 2).load_newest(found)["torch"] == "99.1"

    def stumble(_: object) -> None:
        raise ValueError("too many values to unpack")

    monkeypatch.setattr(checkpoint._Unpickler, "load", stumble, raising=False)
    with pytest.raises(ArtifactError, match=rf"PyTorch 99\.1 wrote it, this is {re.escape(torch.__version__)}"):
        Checkpoints(tmp_path, optimizer, ranks, "inputs", (), 2).load_newest(found)
    assert checkpoint.complete(tmp_path) == found


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_named_and_earlier_checkpoints_stay(
    shape: ModelShape, ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    optimizer = new_optimizer(shape, ranks, seed=1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path, optimizer, ranks, "inputs", keep=(), newest=2)
    checkpoints.background = background
    checkpoints.save(10, 1000)
    checkpoints.wait()
    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    message = r"step 20 cannot be written by rank 0: .*No space left"
    with pytest.raises(ResourceError, match=message) as failed, checkpoints:
        checkpoints.save(20, 2000)
    assert "earlier checkpoints are whole" in str(failed.value)
    assert [step for step, _ in checkpoint.complete(tmp_path)] == [10]
    assert checkpoints.load_newest(checkpoint.complete(tmp_path))["step"] == 10


class Stopped(BaseException):
    """Stands for a kill between two steps."""


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stage -> what a run leaves that nobody interrupts; pretraining's folder besides."""
    root = tmp_path_factory.mktemp("undisturbed")
    parent = _run_pt(data, root)
    return {"parent": parent, "pt": _what_it_leaves(parent), "sft": _what_it_leaves(_run_sft(data, root, parent))}


def _run_pt(data: Path, runs: Path) -> Path:
    # Books and arXiv are gone over more than three times in 30 steps.
    options = [*TINY, "data.exhaustion=repeat", "data.max_epochs=20", "checkpoint_every_steps=3", "budget.steps=30"]
    pretrain.main(["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs), *options])
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


def _run_sft(data: Path, runs: Path, parent: Path) -> Path:
    # 21 examples, 4 a step: an epoch ends within a step, every fifth or sixth.
    options = [*TINY_SFT, "checkpoint_every_steps=2", "budget.steps=18"]
    roots = ["--data", str(data), "--runs", str(runs), "--study", "t", "--parent", str(parent)]
    sft.main(["--config", "mini_s_sft.yaml", *roots, *options])
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "sft-mini"


def _what_it_leaves(run: Path) -> tuple[Any, Any]:
    return read_metrics(run), read_json(run / "DONE")


@pytest.mark.parametrize("stage", ["pt", "sft"])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(stops=st.lists(st.integers(1, 17), min_size=1, max_size=3))
def test_stops_at_any_steps_change_nothing(
    undisturbed: dict[str, Any], data: Path, tmp_path_factory: pytest.TempPathFactory, stage: str, stops: list[int]
) -> None:
    """Each stop is so many steps after the last start; the curve and the last export's bytes are those of one run."""
    runs, step = tmp_path_factory.mktemp("stopped"), FlatAdamW.step

    def go_on() -> Path:
        return _run_pt(data, runs) if stage == "pt" else _run_sft(data, runs, undisturbed["parent"])

    for stop in stops:
        left = stop

        def stopping(self: FlatAdamW, lr: float) -> torch.Tensor:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            return step(self, lr)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FlatAdamW, "step", stopping)
            try:
                go_on()
            except Stopped:
                continue
            break
    assert _what_it_leaves(go_on()) == undisturbed[stage]
