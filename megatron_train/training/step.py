"""One optimizer step, as training, the benchmarks and the tests on a GPU take it.

In: a model, its optimizer and the micro-batches of one batch. Out: the loss before the update; the weights are moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from configs.schema import TrainConfig
from megatron_train.data import MicroBatch
from megatron_train.kernels.kernels import Kernels
from megatron_train.model.loss import linear_cross_entropy
from megatron_train.model.model import LanguageModel
from megatron_train.optimizer.flat_adamw import FlatAdamW, Optimizer
from megatron_train.ranks import place
from megatron_train.ranks.parallel import Ranks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_optimizer(model: LanguageModel, config: TrainConfig, ranks: Ranks, kernels: Kernels) -> Optimizer:
    """megatron-core's on GPUs; where that does not run, its equal."""
    dtype = DTYPES[config.precision]
    if ranks.device.type == "cuda":
        from megatron_train.optimizer.megatron_adamw import MegatronAdamW

        return MegatronAdamW(model, config.optimizer, ranks, dtype, compiled=kernels.compiled)
    return FlatAdamW(model, config.optimizer, ranks, dtype)


def micro_loss(model: LanguageModel, batch: MicroBatch, ranks: Ranks, chunk: int | None = None) -> Tensor:
    """Weighted sum of the micro-batch's losses, fp32 scalar; chunk: tokens whose logits are held at once."""
    hidden = model.hidden(batch.tokens, batch.segments)  # [positions, sequences, hidden]
    labels, weights = batch.labels.t().reshape(-1), batch.weights.t().reshape(-1)
    return linear_cross_entropy(hidden.flatten(0, 1), model.output_weight, labels, weights, ranks.tensor_group, chunk)


def train_step(
    model: LanguageModel,
    optimizer: Optimizer,
    micro_batches: Sequence[MicroBatch],
    lr: float,
    ranks: Ranks,
    chunk: int | None = None,
    *,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """Forward, backward, clipping, AdamW.

    The loss summed over the micro-batches of this rank, before the update, and the norm of the gradient: fp32 scalars
    on the device. `step` is its number, for the watchdog.
    """
    optimizer.zero_grad()
    loss = torch.zeros((), device=ranks.device)
    for micro in micro_batches:
        place.at(step, "forward and backward")
        part = micro_loss(model, micro.to(ranks.device), ranks, chunk)
        optimizer.backward(part, last=micro is micro_batches[-1])
        loss += part.detach()
    place.at(step, "update")
    return loss, optimizer.step(lr)
