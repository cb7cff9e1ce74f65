"""The flat AdamW against torch.optim.AdamW on separate parameters, and the learning-rate schedule."""

from __future__ import annotations

import pytest
import torch

from configs.schema import ModelShape, Optimizer
from megatron_train.model.model import build_model
from megatron_train.optimizer.flat_adamw import FlatAdamW, learning_rate
from megatron_train.ranks.parallel import Ranks


def test_learning_rate() -> None:
    config = Optimizer(lr=1.0, end_lr_ratio=0.1, warmup_steps=10, schedule="cosine")
    rates = {step: learning_rate(config, step, 110) for step in (1, 5, 10, 35, 60, 110)}
    # By hand: a tenth of the peak for each warm-up step; a quarter, half and the whole of the cosine after it.
    expected = {1: 0.1, 5: 0.5, 10: 1.0, 35: 0.1 + 0.9 * 0.8535533906, 60: 0.55, 110: 0.1}
    assert rates == pytest.approx(expected, rel=1e-9)
    constant = config.model_copy(update={"schedule": "constant"})
    assert [learning_rate(constant, step, 110) for step in (5, 10, 110)] == [0.5, 1.0, 1.0]
    assert learning_rate(config.model_copy(update={"warmup_steps": 0}), 1, 1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("clip", "options"),
    [(0.0, {}), (0.5, {}), (0.5, {"decay_embeddings": True}), (0.5, {"decay_norms": True})],
    ids=["no clipping", "clipping", "embedding decayed", "gains decayed"],
)
def test_flat_adamw_equals_pytorchs(shape: ModelShape, ranks: Ranks, clip: float, options: dict[str, bool]) -> None:
    config = Optimizer(lr=1e-2, weight_decay=0.1, clip_norm=clip, beta1=0.8, beta2=0.9, **options)
    ours = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    theirs = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    flat = FlatAdamW(ours, config, ranks, torch.float32)
    gains = [p for p in theirs.parameters() if p.dim() == 1]
    embedding = [p for p in theirs.parameters() if p.shape == (shape.vocab, shape.hidden)]
    matrices = [p for p in theirs.parameters() if p.dim() > 1 and p is not embedding[0]]
    assert (len(embedding), len(matrices), len(gains)) == (1, 4 * shape.layers, 2 * shape.layers + 1)
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": embedding, "weight_decay": 0.1 if options.get("decay_embeddings") else 0.0},
        {"params": gains, "weight_decay": 0.1 if options.get("decay_norms") else 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=config.eps)
    draw = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        flat.zero_grad()
        loss = torch.zeros(())
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = torch.randn(other.shape, generator=draw) * 0.1
            loss = loss + (mine * other.grad).sum()
        flat.backward(loss, last=True)
        norm = flat.step(1e-2 / step)
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip or 1e9)
        for group in reference.param_groups:
            group["lr"] = 1e-2 / step
        reference.step()
        torch.testing.assert_close(norm, expected, rtol=1e-5, atol=0)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.data, other.data, rtol=1e-5, atol=1e-6)


def test_bf16_weights_follow_fp32_masters(shape: ModelShape, ranks: Ranks) -> None:
    """Steps far below bf16's resolution add up in the masters, and gradients of micro-batches in fp32."""
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    flat = FlatAdamW(model, Optimizer(lr=1e-5, clip_norm=0), ranks, torch.bfloat16)
    gain = next(slot for slot in flat.slots if slot.name == "decoder.final_layernorm.weight")
    for _ in range(200):
        flat.zero_grad()
        for micro in (256.0, 1.0):  # 257 is not a bf16 number
            flat.backward(torch.stack([slot.parameter.sum() * micro for slot in flat.slots]).sum(), last=micro == 1)
        assert torch.all(gain.view(flat.grad) == 257)
        flat.step(1e-5)
    # A constant gradient moves AdamW by lr a step; one such step away from 1.0 is lost in bf16 (resolution 2^-8).
    torch.testing.assert_close(gain.view(flat.master), torch.full((24,), 1 - 200e-5), rtol=0, atol=2e-5)
    assert gain.parameter.dtype == torch.bfloat16
    assert torch.equal(gain.parameter.data, gain.view(flat.master).bfloat16())
