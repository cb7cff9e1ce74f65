"""The loss in pieces against F.cross_entropy on whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from megatron_train.model.loss import linear_cross_entropy
from megatron_train.ranks.parallel import Ranks

SIZES = [
    pytest.param(40, 300, 8, 16, id="tiny"),
    pytest.param(4096, 100_864, 768, 1000, id="240m", marks=pytest.mark.gpu),
    pytest.param(4096, 100_864, 1680, None, id="1b, as many at once as by default", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("tokens", "vocab", "width", "chunk"), SIZES)
@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "gradient_tolerance"), [(torch.float32, 1e-5, 1e-4), (torch.bfloat16, 5e-3, 2e-2)]
)
def test_loss_and_gradients_equal_pytorchs(
    ranks: Ranks,
    tokens: int,
    vocab: int,
    width: int,
    chunk: int | None,
    dtype: torch.dtype,
    loss_tolerance: float,
    gradient_tolerance: float,
) -> None:
    """The reference computes in fp32 from the same inputs; bf16 logits and gradients keep 8 bits.

    `gradient_tolerance` is of the Frobenius norm.
    """
    numbers = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=numbers).to(ranks.device, dtype)
    weight = (torch.randn(vocab, width, generator=numbers) * 0.05).to(ranks.device, dtype)
    labels = torch.randint(vocab, (tokens,), generator=numbers).to(ranks.device)
    weights = torch.rand(tokens, generator=numbers).to(ranks.device) / tokens
    ours = [x.clone().requires_grad_() for x in (hidden, weight)]
    theirs = [x.float().requires_grad_() for x in (hidden, weight)]
    loss = linear_cross_entropy(*ours, labels, weights, ranks.tensor_group, chunk)
    loss.backward()
    expected = (F.cross_entropy(theirs[0] @ theirs[1].t(), labels, reduction="none") * weights).sum()
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=loss_tolerance)
    for name, mine, reference in zip(("hidden", "weight"), ours, theirs, strict=True):
        assert mine.grad is not None and reference.grad is not None and mine.grad.dtype == dtype
        error = (mine.grad.float() - reference.grad).norm() / reference.grad.norm()
        assert error < gradient_tolerance, (name, error.item())
