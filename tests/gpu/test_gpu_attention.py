"""Attention at head_dim 256: kernels that hold no scores, and their numbers against PyTorch's plain arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.load import load_train, parse_overrides
from megatron_train.kernels.attention_probe import BACKENDS, Problem, choose_attention
from megatron_train.model.attention import AttentionChoice, attend, use
from megatron_train.ranks.parallel import Ranks

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(positions: int, batch: int, heads: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, [positions, batch, heads, head_dim] each."""
    numbers = torch.Generator().manual_seed(0)
    size = (positions, batch, heads, head_dim)
    return [torch.randn(size, generator=numbers).to(DEVICE, dtype) for _ in range(4)]


def forward_backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """Output and the gradients of all three, from the project's module."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves, None)
    out.backward(grad.flatten(2))
    return [out.detach().view_as(q), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def plain(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """The same in fp32 by PyTorch's backend that writes out softmax(QK')V."""
    leaves = [x.detach().float().requires_grad_() for x in (q, k, v)]
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(*(x.permute(1, 2, 0, 3) for x in leaves), is_causal=True)
    out.permute(2, 0, 1, 3).backward(grad.float())
    return [out.detach().permute(2, 0, 1, 3), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize(
    ("positions", "heads", "head_dim", "dtype", "tolerance"),
    [
        pytest.param(48, 2, 16, torch.float32, 1e-5, id="tiny"),
        pytest.param(512, 8, 256, torch.bfloat16, 2e-2, id="head_dim 256", marks=pytest.mark.gpu),
    ],
)
def test_numbers_are_those_of_plain_arithmetic(
    positions: int, heads: int, head_dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    """`tolerance` is of the Frobenius norm; bf16 keeps 8 bits (0.4 %) of every number that goes in and out."""
    inputs = draw(positions, 2, heads, head_dim, dtype)
    for name, ours, expected in zip(("out", "dq", "dk", "dv"), forward_backward(*inputs), plain(*inputs), strict=True):
        error = (ours.float() - expected).norm() / expected.norm()
        assert error < tolerance, (name, error.item())


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [4, 8])
def test_no_scores_are_held_at_the_real_shape(batch: int) -> None:
    """Scores of 8 heads, 4,096 x 4,096, would take 0.27 GB a sequence in bf16, sixteen times the queries."""
    inputs = draw(4096, batch, 8, 256, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = forward_backward(*inputs)
    assert all(torch.isfinite(result).all() for result in results)
    scores = batch * 8 * 4096 * 4096 * 2
    assert torch.cuda.max_memory_allocated() - before < scores


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["240m.yaml", "1b.yaml"])
def test_the_probe_finds_a_fast_kernel(ranks: Ranks, name: str) -> None:
    """At the real shape, head_dim 256; and the numbers are those of that kernel, for no other is left switched on."""
    choice = choose_attention(load_train(name), ranks)
    print(choice.describe())
    assert choice.backend in BACKENDS and choice.milliseconds[choice.backend] > 0
    use(choice)
    try:
        test_numbers_are_those_of_plain_arithmetic(512, 8, 256, torch.bfloat16, 2e-2)
    finally:
        use(AttentionChoice("cpu"))


@pytest.mark.gpu
def test_packed_rows_with_what_the_probe_chose(ranks: Ranks) -> None:
    options = ["model.context_tokens=512", "batch.micro_sequences=4", "batch.sequences=4"]
    choice = choose_attention(load_train("1b_sft.yaml", parse_overrides(options)), ranks)
    print(choice.describe())
    use(choice)
    try:
        problem = Problem(512, 1, 8, 256, torch.bfloat16, ranks.device, (100, 300, 112))
        inputs = problem.inputs()
        out, expected = attend(*inputs, problem.segments()).double(), problem.reference(*inputs)
        assert (out - expected).abs().max() < 2e-2 * expected.abs().max()
    finally:
        use(AttentionChoice("cpu"))
