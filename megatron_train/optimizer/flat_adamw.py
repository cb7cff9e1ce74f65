"""AdamW over one flat fp32 buffer, and the learning-rate schedule.

In: a model whose parameters carry megatron's tensor-parallel attributes. Out: an `Optimizer`: gradients of
micro-batches added up and summed over the data-parallel ranks, clipped by their global norm, fp32 master weights
updated. Why flat: gradients travel in one collective, and a step is a handful of kernels however many parameters there
are. With bf16 the model's weights are bf16 copies of the masters, and gradients of micro-batches add up in fp32. On
GPUs, megatron_train.optimizer.megatron_adamw does the same with megatron-core's parts, split over the data-parallel
ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from configs.schema import Optimizer as OptimizerConfig
from megatron_train.ranks.parallel import Ranks

ALIGNMENT = 64
"""Elements; keeps every weight at a 16-byte boundary in bf16, which fast matrix kernels ask for."""
KINDS = ("weight", "exp_avg", "exp_avg_sq")
"""What a checkpoint holds of each parameter: the fp32 master weight and AdamW's two moments."""


class Slot(Protocol):
    """One parameter of the model, by its name there."""

    @property
    def name(self) -> str: ...
    @property
    def parameter(self) -> nn.Parameter: ...


class Optimizer(Protocol):
    """What the loop and the checkpoints need of an optimizer."""

    @property
    def slots(self) -> Sequence[Slot]:
        """One for each parameter of the model."""
        ...

    def describe(self) -> str:
        """What computes the update, for the start-up summary."""
        ...

    def zero_grad(self) -> None: ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a micro-batch's gradients to the step's; with the `last` one, they may start to travel between ranks."""
        ...

    def step(self, lr: float) -> Tensor:
        """Sum gradients over data-parallel ranks, clip, update; returns the norm before clipping (fp32 scalar).

        The norm is of the whole model, the same on every rank. From the first one on that is not finite, no step
        changes a weight or a moment on any rank.
        """
        ...

    def tensors(self) -> Iterator[tuple[str, Slot, Tensor]]:
        """(kind of KINDS, parameter, fp32 values in its shape): all that a checkpoint holds of this tensor rank's part.

        Data-parallel ranks go through it together.
        """
        ...

    def restore(self, kind: str, slot: Any, values: Tensor) -> None:
        """Put back what `tensors` gave out with this slot."""
        ...

    def restored(self, steps: int) -> None:
        """All is put back: AdamW has seen `steps` steps, and the model computes with the restored weights."""
        ...


def decays(name: str, parameter: Tensor, config: OptimizerConfig) -> bool:
    """Does weight decay apply? Always to matrices; to the embedding and norm gains where the config says so."""
    if parameter.dim() == 1:
        return config.decay_norms
    return config.decay_embeddings or "embedding" not in name


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Rate of optimizer step 1..steps: linear warm-up from zero, then cosine to `end_lr_ratio` at the last step."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    end = config.lr * config.end_lr_ratio
    return end + (config.lr - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class FlatSlot:
    """Where one parameter lives in the flat buffers."""

    name: str
    parameter: nn.Parameter
    start: int

    @property
    def stop(self) -> int:
        """The place where the next slot starts."""
        return self.start + -(-self.parameter.numel() // ALIGNMENT) * ALIGNMENT

    def view(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.start + self.parameter.numel()].view(self.parameter.shape)


class FlatAdamW:
    """Matrices first (split over tensor-parallel ranks), then the norm gains (alike on all of them)."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, ranks: Ranks, dtype: torch.dtype) -> None:
        self.config, self.ranks = config, ranks
        self.slots: list[FlatSlot] = []
        parameters = sorted(
            model.named_parameters(), key=lambda named: (named[1].dim() == 1, not decays(named[0], named[1], config))
        )
        for name, parameter in parameters:
            is_split = getattr(parameter, "tensor_model_parallel", False)
            assert is_split == (parameter.dim() > 1), "every matrix is split over tensor-parallel ranks, no gain is"
            self.slots.append(FlatSlot(name, parameter, self.slots[-1].stop if self.slots else 0))
        self.boundary = next(slot.start for slot in self.slots if slot.parameter.dim() == 1)
        self.master = torch.zeros(self.slots[-1].stop, dtype=torch.float32, device=ranks.device)
        self.grad = torch.zeros_like(self.master)
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(self.master), torch.zeros_like(self.master)
        # In fp32 the model's weights and gradients ARE the flat buffers; in bf16 they are second ones.
        mixed = dtype != torch.float32
        self.weights = torch.zeros_like(self.master, dtype=dtype) if mixed else self.master
        self.micro_grad = torch.zeros_like(self.weights) if mixed else self.grad
        for slot in self.slots:
            slot.view(self.master).copy_(slot.parameter.data)
            slot.parameter.data = slot.view(self.weights)
            slot.parameter.grad = slot.view(self.micro_grad)
        self._publish()
        self.adam = torch.optim.AdamW(
            self._groups(), lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
        )
        self._set_steps(0)
        self.diverged = torch.zeros((), dtype=torch.float32, device=ranks.device)
        """1 from the first gradient norm on that is not finite."""
        self.adam.found_inf = self.diverged  # type: ignore[attr-defined]  # read by the fused step, on the device

    def _groups(self) -> list[dict[str, object]]:
        """AdamW's parameter groups: stretches of the flat buffer that are decayed alike."""
        groups: list[dict[str, object]] = []
        for decayed, run in itertools.groupby(self.slots, lambda slot: decays(slot.name, slot.parameter, self.config)):
            slots = list(run)
            stretch = slice(slots[0].start, slots[-1].stop)
            values = nn.Parameter(self.master[stretch])
            values.grad = self.grad[stretch]
            decay = self.config.weight_decay if decayed else 0.0
            groups.append({"params": [values], "weight_decay": decay, "stretch": stretch})
        return groups

    def _set_steps(self, steps: int) -> None:
        # The moments exist before the first step, so that a checkpoint can be loaded into them.
        for group in self.adam.param_groups:
            self.adam.state[group["params"][0]] = {
                "step": torch.tensor(float(steps), device=self.ranks.device),
                "exp_avg": self.exp_avg[group["stretch"]],
                "exp_avg_sq": self.exp_avg_sq[group["stretch"]],
            }

    def _publish(self) -> None:
        """Master weights -> the weights the model computes with."""
        if self.weights is not self.master:
            self.weights.copy_(self.master)

    def describe(self) -> str:
        return "PyTorch's fused AdamW over one flat buffer"

    def zero_grad(self) -> None:
        self.grad.zero_()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()
        if self.micro_grad is not self.grad:
            self.grad += self.micro_grad
            self.micro_grad.zero_()

    def step(self, lr: float) -> Tensor:
        self.ranks.sum_over_data(self.grad)
        split, whole = (torch.linalg.vector_norm(x) for x in (self.grad[: self.boundary], self.grad[self.boundary :]))
        # Gains are alike on all tensor-parallel ranks; each adds its share, so that a fault on one rank reaches all.
        norm = self.ranks.sum_over_tensor(split.square() + whole.square() / self.ranks.tensor_size).sqrt()
        torch.maximum(self.diverged, (~norm.isfinite()).float(), out=self.diverged)
        if self.config.clip_norm:
            self.grad *= (self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self._publish()
        return norm

    def _flat(self, kind: str) -> Tensor:
        return {"weight": self.master, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}[kind]

    def tensors(self) -> Iterator[tuple[str, FlatSlot, Tensor]]:
        for kind in KINDS:
            for slot in self.slots:
                yield kind, slot, slot.view(self._flat(kind))

    def restore(self, kind: str, slot: FlatSlot, values: Tensor) -> None:
        slot.view(self._flat(kind)).copy_(values)

    def restored(self, steps: int) -> None:
        self._set_steps(steps)
        self._publish()
