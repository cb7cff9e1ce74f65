"""A whole pretraining run against the same run written independently: transformers' Llama, AdamW and a plain loop.

Nothing of megatron_train takes part in the reference but the initial weights, exported, and the order of the data,
whose tokens are read through the blend.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from train_runs import TINY, read_metrics
from transformers import LlamaForCausalLM

from configs.layout import tokenizer_dir
from configs.load import load_train, parse_overrides
from megatron_train import pretrain
from megatron_train.checkpoints.export import export
from megatron_train.model.model import build_model
from megatron_train.ranks import parallel
from mixtures.blend.blend import open_blend, open_shards

STEPS = 30


def test_the_loss_curve_is_that_of_an_independent_loop(data: Path, tmp_path: Path) -> None:
    overrides = [*TINY, "optimizer.weight_decay=0.1", "validation.sequences=0"]
    pretrain.main(["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(tmp_path), *overrides])
    measured = read_metrics(tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt")

    config = load_train("mini_s.yaml", parse_overrides(overrides))
    ranks = parallel.initialise(1, 1)
    model = build_model(config.model, tensor_parallel=1, device=ranks.device, seed=config.seed)
    export(tmp_path / "start", model, config.model, ranks, tokenizer_dir(data, "tiny"), {"step": 0, "tokens": 0})
    parallel.shut_down()

    llama = LlamaForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32, attn_implementation="eager")
    o = config.optimizer
    plain = [p for name, p in llama.named_parameters() if p.dim() == 1 or "embed" in name]
    matrices = [p for name, p in llama.named_parameters() if p.dim() > 1 and "embed" not in name]
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": o.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        betas=(o.beta1, o.beta2),
        eps=o.eps,
        foreach=False,
        fused=False,
    )
    blend = open_blend(config, open_shards(config, data), data)
    for step in range(1, STEPS + 1):
        first = (step - 1) * config.batch.sequences
        ids = torch.stack([torch.from_numpy(blend[first + i]) for i in range(config.batch.sequences)])
        logits = llama(ids[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(llama.parameters(), o.clip_norm)
        warm = min(1.0, step / o.warmup_steps)
        progress = max(0.0, (step - o.warmup_steps) / (STEPS - o.warmup_steps))
        cosine = o.end_lr_ratio + (1 - o.end_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in adam.param_groups:
            group["lr"] = o.lr * (warm if step <= o.warmup_steps else cosine)
        adam.step()
        line = measured[step - 1]
        assert line["step"] == step
        assert line["loss"] == pytest.approx(loss.item(), abs=1e-4), step
        assert line["grad_norm"] == pytest.approx(norm.item(), rel=2e-3), step
        assert line["lr"] == pytest.approx(adam.param_groups[0]["lr"], rel=1e-9)
    assert measured[0]["loss"] - measured[STEPS - 1]["loss"] > 1
