"""Ways to run the entry scripts on tiny models, as a user would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
TOKENIZER = "tiny"

# Options that turn configs/mini_s.yaml into a run of seconds.
TINY = [
    *("model.layers=2", "model.hidden=24", "model.heads=4", "model.head_dim=8", "model.ffn_hidden=64"),
    *("model.vocab=320", "model.context_tokens=32", "data.tokenizer=tiny", "data.mixture=V1P0"),
    *("batch.sequences=4", "batch.micro_sequences=2", "budget.tokens=null", "budget.steps=30"),
    # A gentle rate: with a large one, differences of rounding grow tenfold in a few steps.
    *("model.init_std=0.02", "optimizer.lr=5e-3", "optimizer.warmup_steps=5", "optimizer.clip_norm=1.0"),
    *("validation.sequences=3", "checkpoint_every_steps=10", "log_every_steps=10"),
]
TINY_SFT = [o for o in TINY if not o.startswith(("data.mixture", "budget", "validation"))] + ["budget.steps=8"]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "RANK"} | {"OMP_NUM_THREADS": "1"}


def command(script: str, *arguments: str, processes: int = 1) -> list[str]:
    """`python script` or `torchrun --nproc-per-node processes script`."""
    path = str(PROJECT / "megatron_train" / script)
    if processes == 1:
        return [sys.executable, path, *arguments]
    options = ["--nproc-per-node", str(processes), "--master-port", str(free_port())]
    return [sys.executable, "-m", "torch.distributed.run", *options, path, *arguments]


def node_command(script: str, *arguments: str, nodes: int, port: int) -> list[str]:
    """torchrun of one process, as on each of several machines that meet at a port of the first."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    options = ["--nnodes", str(nodes), "--nproc-per-node", "1", *meeting]
    path = str(PROJECT / "megatron_train" / script)
    return [sys.executable, "-m", "torch.distributed.run", *options, path, *arguments]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def launch(script: str, *arguments: str, processes: int = 1, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run an entry script as a user would, in the project's folder."""
    done = subprocess.run(
        command(script, *arguments, processes=processes),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the machine says (no utilisation is measured on a CPU)."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "tokens_per_s", "memory_gib")} for line in lines]
