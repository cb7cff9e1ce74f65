"""How many tokens' logits the loss holds at once, found by trying.

In: the run's config and a device. Out: a number of tokens. Large pieces keep a GPU busy and save additions to the
weight's gradient, but take memory that activations need; what is best depends on both, so it is measured before the
model takes its place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch

from configs.cost.model import memory
from configs.schema import TrainConfig
from megatron_train.kernels.device import median_ms
from megatron_train.model.loss import default_chunk, linear_cross_entropy
from megatron_train.ranks.parallel import Ranks

SMALLEST = 1024
BYTES_A_LOGIT = 8
"""In bf16, then in fp32, then its gradient in bf16."""
NEAR = 1.01
"""A larger piece must be more than one per cent faster than a smaller one."""


def choose_chunk(config: TrainConfig, ranks: Ranks) -> tuple[int, dict[int, float]]:
    """Tokens of a piece, and the milliseconds of a micro-batch's loss by size of the piece where they were measured."""
    rows = config.model.vocab // config.parallel.tensor
    if config.loss_chunk_tokens:
        return config.loss_chunk_tokens, {}
    if ranks.device.type != "cuda":
        return default_chunk(rows), {}
    sizes = candidates(config, ranks.smallest(_spare_bytes(config, ranks)))
    times = _measure(config, ranks, sizes)
    torch.cuda.empty_cache()
    return pick({size: ranks.largest(time) for size, time in times.items()}), times


def candidates(config: TrainConfig, spare_bytes: float) -> list[int]:
    """Pieces from 1,024 tokens, doubling, to the whole micro-batch, as far as their logits fit; at least the first."""
    tokens = config.batch.micro_sequences * config.model.context_tokens
    rows = config.model.vocab // config.parallel.tensor
    sizes = [min(SMALLEST, tokens)]
    while sizes[-1] < tokens:
        sizes.append(min(2 * sizes[-1], tokens))
    return [size for size in sizes if size * rows * BYTES_A_LOGIT <= spare_bytes] or sizes[:1]


def pick(times: Mapping[int, float]) -> int:
    """The smallest size whose time is near the best."""
    return min(size for size, time in times.items() if time <= NEAR * min(times.values()))


def _spare_bytes(config: TrainConfig, ranks: Ranks) -> float:
    """Memory that is left for logits when the model, its optimizer and its activations have theirs."""
    free, _ = torch.cuda.mem_get_info(ranks.device)
    planned = memory(config)
    return 0.9 * free - (planned.total_estimate - planned.loss_estimate)


def _measure(config: TrainConfig, ranks: Ranks, sizes: list[int]) -> dict[int, float]:
    model, device = config.model, ranks.device
    tokens = config.batch.micro_sequences * model.context_tokens
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    hidden = torch.randn(tokens, model.hidden, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(model.vocab // config.parallel.tensor, model.hidden, device=device, dtype=dtype)
    weight.mul_(model.init_std).requires_grad_()
    labels = torch.randint(0, model.vocab, (tokens,), device=device)
    shares = torch.full((tokens,), 1.0 / tokens, device=device)

    def loss(chunk: int) -> None:
        linear_cross_entropy(hidden, weight, labels, shares, ranks.tensor_group, chunk).backward()
        hidden.grad = weight.grad = None

    return {size: median_ms(functools.partial(loss, size)) for size in sizes}
