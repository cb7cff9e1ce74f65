"""Whole runs of megatron_train.pretrain on made-up shards: data, logging and checkpoints are in the time.

In: a config; its shape, batch and precision stay, its mixture too, of random words gone over again and again. Out:
tokens/s between log lines, what a checkpoint adds, and both together at the config's own interval of checkpoints.
Validation, which no step waits for between its intervals, is switched off.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from random_shards import make_shards

from configs.cost.model import flops_per_token
from configs.layout import StudyFolder
from configs.load import load_mixture, load_train
from megatron_train import pretrain
from megatron_train.kernels.device import peak_flops, utilisation

TOKENIZER = "throughput"
LOG_LINES = 8


def end_to_end(name: str, overrides: dict[str, Any], steps: int) -> dict[str, Any]:
    """Train `steps` steps (a multiple of LOG_LINES): the checkpoint falls into the middle."""
    every = load_train(name).checkpoint_every_steps
    changes = {
        "budget.tokens": None,
        "budget.steps": steps,
        "validation.sequences": 0,
        "data.tokenizer": TOKENIZER,
        "data.exhaustion": "repeat",
        "data.max_epochs": 1e9,
        "log_every_steps": steps // LOG_LINES,
        "checkpoint_every_steps": steps // 2,
    }
    config = load_train(name, overrides | changes)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_shards(root, TOKENIZER, list(load_mixture(config.data.mixture).weights))
        pretrain.run(config, StudyFolder(root / "runs", "throughput"), root)
        (metrics,) = root.glob("runs/**/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    speed = {line["step"]: line["tokens_per_s"] for line in lines if line.get("step", 0) % config.log_every_steps == 0}
    # The first interval warms up and compiles; all after the checkpoint may be slowed by a write in the background.
    before = [value for step, value in speed.items() if config.log_every_steps < step <= steps // 2]
    after = [value for step, value in speed.items() if step > steps // 2]
    steady = statistics.median(before)
    interval = config.log_every_steps * config.tokens_per_step
    checkpoint_s = max(0.0, sum(interval / value - interval / steady for value in after))
    together = steady
    if every:
        together = every * config.tokens_per_step / (every * config.tokens_per_step / steady + checkpoint_s)
    result = {
        "steps": steps,
        "tokens_per_step": config.tokens_per_step,
        "tokens_per_s_between_checkpoints": round(steady, 1),
        "checkpoint_s": round(checkpoint_s, 3),
        "tokens_per_s": round(together, 1),
        "checkpoint_every_steps": every,
    }
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if peak := peak_flops(device, config.precision):
        mfu = utilisation(together, flops_per_token(config.model), peak, 1)
        result |= {"mfu_full": round(mfu.full, 4), "mfu_causal": round(mfu.causal, 4)}
    return result
