"""Whole runs: a checkpoint is written while training goes on, and resuming from it ends with the same bytes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from random_shards import VOCAB, make_shards

from configs.artifacts import sha256_file
from configs.load import load_mixture
from megatron_train import pretrain
from megatron_train.training.metrics import Metrics

STEPS, MILESTONE = 12, 4
TINY = [
    *("model.layers=2", "model.hidden=64", "model.heads=4", "model.head_dim=16", "model.ffn_hidden=128"),
    *(f"model.vocab={VOCAB}", "model.context_tokens=32", "batch.sequences=4", "batch.micro_sequences=2"),
    *("data.tokenizer=random", "budget.tokens=null", f"budget.steps={STEPS}", "optimizer.warmup_steps=2"),
    *("checkpoint_every_steps=4", f"checkpoint_tokens=[{MILESTONE * 4 * 32}]", "log_every_steps=4"),
    *("validation.sequences=2", "validation.every_steps=6"),
]
PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_shards(root, "random", list(load_mixture("V1P0").weights), documents=120)
    return root


def run(data: Path, runs: Path, precision: str) -> Path:
    options = ["--config", "mini_s.yaml", "--study", "gpu", "--data", str(data), "--runs", str(runs)]
    pretrain.main([*options, *TINY, f"precision={precision}"])
    return runs / "gpu" / "mini_s" / "V1P0" / "seed0" / "pt"


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on interruptions: the numbers of every step, and the bytes of every export."""
    clocks = ("time", "tokens_per_s", "memory_gib", "mfu_full", "mfu_causal")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    exports = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.glob("export/*/*.safetensors"))}
    return {"metrics": [{k: v for k, v in line.items() if k not in clocks} for line in lines], "exports": exports}


def steps_during_first_save(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Hold the first checkpoint back until training has gone on; returns a list that will say by how many steps.

    A checkpoint that the training thread writes itself is not held back, and says 0.
    """
    steps: list[int] = []
    during: list[int] = []
    save, add = dcp.save, Metrics.add

    def counted(self: Metrics, step: int, *arguments: Any) -> None:
        steps.append(step)
        add(self, step, *arguments)

    def held_back(*arguments: Any, **options: Any) -> Any:
        before, deadline = len(steps), time.monotonic() + 60
        aside = threading.current_thread() is not threading.main_thread()
        while aside and not during and len(steps) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        during.append(len(steps) - before)
        return save(*arguments, **options)

    monkeypatch.setattr(Metrics, "add", counted)
    monkeypatch.setattr(dcp, "save", held_back)
    return during


@pytest.mark.parametrize("precision", PRECISIONS)
def test_resume_from_a_checkpoint_ends_with_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """On a GPU the weights move on before the checkpoint is written; what it holds must be those of its step."""
    with monkeypatch.context() as patches:
        during = steps_during_first_save(patches)
        whole = run(data, tmp_path / "whole", precision)
    if torch.cuda.is_available():
        assert during[0] >= 1, "nothing was trained while the checkpoint was written"
    assert len(during) == STEPS // 4
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    copy = tmp_path / "again" / whole.relative_to(tmp_path / "whole")
    (copy / "DONE").unlink()
    for kind in ("checkpoints", "export"):
        assert sorted(p.name for p in (copy / kind).iterdir()) == [f"step-{step:07d}" for step in (MILESTONE, STEPS)]
        shutil.rmtree(copy / kind / f"step-{STEPS:07d}")
    assert outcome(run(data, tmp_path / "again", precision)) == outcome(whole)
