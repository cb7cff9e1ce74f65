"""Cross-entropy of the next token, computed with its gradients in one pass over pieces of the sequence.

In: final hidden states, the output matrix (its rows split over tensor-parallel ranks), labels and a weight for each
token. Out: the weighted sum of losses. Why in pieces: fp32 logits of 4,096 tokens at 100,864 entries take 1.65 GB;
here only one piece's are alive, and nothing is recomputed, because the gradient of softmax is known in the forward
pass (d loss / d logit = probability - onehot). A small vocabulary is one piece.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.cost.model import CHUNK_LOGITS


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        weights: Tensor,
        group: dist.ProcessGroup,
        chunk: int,
        need: bool,
    ) -> Tensor:
        parallel = group.size() > 1
        rows = weight.shape[0]
        first = rows * group.rank()
        single = hidden.shape[0] <= chunk
        grad_hidden = torch.empty_like(hidden) if need else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need and not single else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], chunk):
            # The last piece's are let go before this one's take their place.
            logits = exp = grad_logits = None
            piece = slice(start, start + chunk)
            logits = (hidden[piece] @ weight.t()).float()  # [tokens, rows]
            peak = logits.amax(dim=1, keepdim=True)
            if parallel:
                dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
            logits -= peak  # else exp overflows
            # A label lies in one rank's rows; the others add 0 to the sum over ranks.
            mine = labels[piece] - first
            inside = (mine >= 0) & (mine < rows)
            mine = mine.clamp(0, rows - 1)[:, None]
            target = logits.gather(1, mine).squeeze(1) * inside
            exp = logits.exp_()
            normaliser = exp.sum(dim=1)
            if parallel:
                both = torch.stack((target, normaliser))
                dist.all_reduce(both, group=group)
                target, normaliser = both
            total += ((normaliser.log() - target) * weights[piece]).sum()
            if need:
                assert grad_hidden is not None
                exp *= (weights[piece] / normaliser)[:, None]
                exp.scatter_add_(1, mine, -(weights[piece] * inside)[:, None])
                grad_logits = exp.to(hidden.dtype)
                torch.mm(grad_logits, weight, out=grad_hidden[piece])
                if grad_weight is None:
                    grad_weight = grad_logits.t() @ hidden
                else:
                    grad_weight += grad_logits.t() @ hidden[piece]
        if need:
            assert grad_hidden is not None and grad_weight is not None
            if parallel:
                dist.all_reduce(grad_hidden, group=group)
            ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grad), grad_weight.mul_(grad), None, None, None, None, None


def default_chunk(rows: int) -> int:
    """Tokens whose logits, `rows` for each, are CHUNK_LOGITS."""
    return max(1, CHUNK_LOGITS // rows)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, group: dist.ProcessGroup, chunk: int | None = None
) -> Tensor:
    """Sum over tokens of weights x -log softmax(hidden weight')[label], fp32 scalar, alike on all ranks of `group`.

    hidden [tokens, hidden], weight [vocab / group size, hidden], labels int64 [tokens], weights float32 [tokens];
    `chunk` tokens at a time (default: as CHUNK_LOGITS allows). Call backward at most once.
    """
    chunk = chunk or default_chunk(weight.shape[0])
    return _LinearCrossEntropy.apply(hidden, weight, labels, weights, group, chunk, torch.is_grad_enabled())
