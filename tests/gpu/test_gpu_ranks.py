"""Two GPUs: tensor and data parallelism over NCCL against one, through torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_shards import make_shards
from test_gpu_runs import TINY

from configs.layout import PROJECT_ROOT
from configs.load import load_mixture
from megatron_train.training.metrics import keep_until

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"),
]


def losses(data: Path, runs: Path, *overrides: str, processes: int) -> list[float]:
    script = str(PROJECT_ROOT / "megatron_train" / "pretrain.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), script]
    options = ["--config", "mini_s.yaml", "--study", "gpu", "--data", str(data), "--runs", str(runs)]
    subprocess.run([*launch, *options, *TINY, "precision=bf16", *overrides], check=True, env=dict(os.environ))
    return keep_until(runs / "gpu" / "mini_s" / "V1P0" / "seed0" / "pt" / "metrics.jsonl", 10**9)


def test_two_gpus_train_like_one(tmp_path: Path) -> None:
    """bf16 keeps 8 bits; the paths part a little in twelve steps."""
    make_shards(tmp_path, "random", list(load_mixture("V1P0").weights), documents=120)
    one = losses(tmp_path, tmp_path / "one", processes=1)
    for name, overrides in {"tensor": ["parallel.tensor=2"], "data": []}.items():
        assert losses(tmp_path, tmp_path / name, *overrides, processes=2) == pytest.approx(one, rel=1e-2), name
