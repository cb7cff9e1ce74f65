"""megatron-core's data parallelism and distributed optimizer, run on CPUs, against torch.optim.AdamW and FlatAdamW.

The real Apex and TransformerEngine, and NCCL, are not run here: stand-ins take the place of Apex.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from megatron_cases import (
    CONFIG,
    SHAPE,
    feed,
    follows_reference,
    learn,
    make,
    make_model,
    on_ranks,
    rank_of_two_data,
    rank_of_two_tensor,
    rank_with_apex,
    round_trip,
    state,
    stays_after_divergence,
)

from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.ranks.parallel import Ranks

STAND_INS = Path(__file__).parents[1] / "nvidia_stand_ins"
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@DTYPES
@pytest.mark.parametrize(
    "changes",
    [{}, {"clip_norm": 0.0, "decay_embeddings": True}, {"decay_norms": True}],
    ids=["default", "no clipping, embedding decayed", "gains decayed"],
)
def test_follows_pytorchs_adamw(ranks: Ranks, dtype: torch.dtype, changes: dict[str, object]) -> None:
    follows_reference(ranks, dtype, CONFIG.model_copy(update=changes), bucket=2000)


@DTYPES
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_learns_as_with_flat_adamw(ranks: Ranks, dtype: torch.dtype, tied: bool) -> None:
    """Through the real model and loss: every gradient reaches its bucket, the tied matrix's from both its uses."""
    shape = SHAPE.model_copy(update={"tied_embeddings": tied})
    models = make_model(ranks, shape), make_model(ranks, shape)
    # With a tiny eps, a step hardly depends on a gradient's size: the rounding of the smallest ones is enlarged.
    config = CONFIG.model_copy(update={"eps": 1e-4})
    optimizers = make(models[0], ranks, dtype, config), FlatAdamW(models[1], config, ranks, dtype)
    assert {slot.name for slot in optimizers[0].slots} == {slot.name for slot in optimizers[1].slots}
    mine, theirs = (learn(o, m, ranks, steps=5) for o, m in zip(optimizers, models, strict=True))
    # In bf16, one fp32 rounding in a master may round a weight the other way (by 0.4 %), and the paths part a little.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=tolerance, atol=0)
    if dtype == torch.float32:
        expected = state(optimizers[1])
        for key, values in state(optimizers[0]).items():
            torch.testing.assert_close(values, expected[key], rtol=0, atol=1e-6)
    assert theirs[0][0] - theirs[-1][0] > 0.1, "the losses must move"


def test_bf16_weights_follow_fp32_masters(ranks: Ranks) -> None:
    """Masters begin as the unrounded weights, small steps add up in them, and micro-batches add up in fp32."""
    model = make_model(ranks)
    originals = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert any(not torch.equal(p, p.bfloat16().float()) for p in originals.values())
    optimizer = make(model, ranks, torch.bfloat16, CONFIG.model_copy(update={"clip_norm": 0.0, "weight_decay": 0.0}))
    masters = {slot.name: values for kind, slot, values in optimizer.tensors() if kind == "weight"}
    assert all(torch.equal(masters[name], original) for name, original in originals.items())
    count = sum(p.numel() for p in model.parameters())
    for _ in range(200):
        optimizer.zero_grad()
        for micro in (256.0, 1.0):  # 257 is not a bf16 number
            gradients = {name: torch.full(p.shape, micro) for name, p in model.named_parameters()}
            feed(optimizer, model, gradients, last=micro == 1.0)
        assert optimizer.step(1e-5).item() == pytest.approx(257 * count**0.5, rel=1e-5)
    # A constant gradient moves AdamW by lr a step; one such step away from 1.0 is lost in bf16 (resolution 2^-8).
    gain = state(optimizer)["weight", "decoder.final_layernorm.weight"]
    torch.testing.assert_close(gain, torch.full((24,), 1 - 200e-5), rtol=0, atol=2e-5)
    assert torch.equal(model.decoder.final_layernorm.weight.data, gain.bfloat16())


@DTYPES
def test_takes_and_gives_flat_adamws_state(ranks: Ranks, dtype: torch.dtype) -> None:
    round_trip(ranks, dtype)


@DTYPES
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_ends_all_change(ranks: Ranks, dtype: torch.dtype, value: float) -> None:
    stays_after_divergence(ranks, dtype, value)


@pytest.mark.slow
def test_two_data_parallel_ranks() -> None:
    on_ranks(2, rank_of_two_data, "torch")


@pytest.mark.slow
def test_two_tensor_parallel_ranks() -> None:
    on_ranks(2, rank_of_two_tensor)


@pytest.mark.slow
def test_two_data_parallel_ranks_with_apexs_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """megatron prefers Apex's FusedAdam, which counts steps elsewhere and wants no empty group."""
    monkeypatch.syspath_prepend(STAND_INS)
    on_ranks(2, rank_of_two_data, "apex")


@pytest.mark.slow
def test_apexs_fused_weight_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STAND_INS)
    on_ranks(1, rank_with_apex)
