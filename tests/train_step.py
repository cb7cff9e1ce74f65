"""Optimizer steps of this project on random tokens: what the benchmark times and what the GPU tests check."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from configs.schema import TrainConfig
from megatron_train.data import MicroBatch
from megatron_train.kernels.kernels import choose_kernels
from megatron_train.model.model import build_model
from megatron_train.ranks.parallel import Ranks
from megatron_train.training.step import make_optimizer, train_step


def random_micro_batches(config: TrainConfig, count: int, device: torch.device) -> list[MicroBatch]:
    """The same tokens whatever the device; the weights of all micro-batches sum to 1."""
    draw = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        size = (config.batch.micro_sequences, config.model.context_tokens + 1)
        ids = torch.randint(config.model.vocab, size, generator=draw)
        weights = torch.full((size[0], size[1] - 1), 1.0 / (count * size[0] * (size[1] - 1)))
        batches.append(MicroBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights).to(device))
    return batches


class Training:
    """A model and its optimizer, as a run of `config` starts them."""

    def __init__(self, config: TrainConfig, ranks: Ranks, *, compiled: bool = False) -> None:
        """`compiled` in place of the config's choice."""
        config = config.model_copy(update={"compile": compiled})
        self.config, self.ranks = config, ranks
        with TemporaryDirectory() as folder:
            self.kernels = choose_kernels(config, ranks, Path(folder) / "kernels.json")
        self.model = build_model(
            config.model,
            tensor_parallel=1,
            device=ranks.device,
            seed=config.seed,
            norm=self.kernels.norm.builder,
            compiled=self.kernels.compiled,
        )
        self.optimizer = make_optimizer(self.model, config, ranks, self.kernels)
        self.kernels.compile(self.model)

    def step(self, batch: list[MicroBatch], lr: float) -> Tensor:
        """Forward, backward, clipping, AdamW; returns the mean loss of a token before the update (fp32 scalar)."""
        return train_step(self.model, self.optimizer, batch, lr, self.ranks, self.kernels.loss_chunk_tokens)[0]
