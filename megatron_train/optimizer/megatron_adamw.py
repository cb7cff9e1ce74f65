"""AdamW with megatron-core's own data parallelism: the optimizer on GPUs.

In: a model whose parameters carry megatron's tensor-parallel attributes. Out: an `Optimizer`
(megatron_train.optimizer.flat_adamw) that ends with the same weights as FlatAdamW, up to rounding. Why beside it:
megatron's DistributedDataParallel keeps gradients in fp32 buckets and sends each while the backward pass still runs,
and its DistributedOptimizer gives every data-parallel rank one part of the masters and moments (12 bytes a parameter).
The update is TransformerEngine's FusedAdam where that is installed, else Apex's, else PyTorch's fused AdamW. The first
two, and every collective over NCCL, have not been run: tests drive this code on CPUs through
tests/megatron_train/megatron_on_cpu.py, with a stand-in for Apex.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.schema import Optimizer as OptimizerConfig
from megatron_train.model.mcore import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    DistributedOptimizer,
    MegatronOptimizerConfig,
    ParamKey,
    ParamWithNamePredicate,
    fuse_weight_gradients,
    get_megatron_optimizer,
)
from megatron_train.model.model import LanguageModel
from megatron_train.optimizer.flat_adamw import KINDS, decays
from megatron_train.ranks.parallel import Ranks


@dataclass(frozen=True)
class ShardedSlot:
    """One parameter of the model, and the part of its masters and moments that this data-parallel rank keeps."""

    name: str
    parameter: nn.Parameter
    part: slice
    """A slice of the flattened parameter; empty where other ranks keep all of it."""
    values: dict[str, Tensor]
    """Kind -> fp32 values of the part, which AdamW works on; no entry where the part is empty."""


class MegatronAdamW:
    """See the module's docstring.

    `model` arrives with fp32 weights and leaves with weights of `dtype`. Blocks that are `compiled` leave the weight
    gradients to the compiler; in others, Apex's kernel adds them to the buckets where it is installed.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: OptimizerConfig,
        ranks: Ranks,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
    ) -> None:
        self.config, self.ranks = config, ranks
        self.diverged = False
        """True from the first gradient norm on that is not finite."""
        originals = {name: parameter.detach() for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        self.parallel = _data_parallel(model)
        self.fuses_gradients = not compiled and fuse_weight_gradients(model)
        self.sharded = _sharded_optimizer(self.parallel, config, mixed=dtype != torch.float32)
        self.adam = self.sharded.optimizer
        for group in self.adam.param_groups:
            group["fused"] = True  # for PyTorch's; the other two know no other way
            for part in group["params"]:
                # The moments exist before the first step, so that a checkpoint can be loaded into them.
                self.adam.state[part] = {"exp_avg": torch.zeros_like(part), "exp_avg_sq": torch.zeros_like(part)}
        self.slots = [self._slot(name, parameter) for name, parameter in model.named_parameters()]
        # A rank may keep nothing of a group, and Apex's FusedAdam wants no empty one.
        self.adam.param_groups = [group for group in self.adam.param_groups if group["params"]]
        for slot in self.slots:  # megatron made masters from weights already rounded to `dtype`
            self.restore("weight", slot, originals.pop(slot.name))
        self.restored(0)

    def _slot(self, name: str, parameter: nn.Parameter) -> ShardedSlot:
        if parameter not in self.sharded.model_param_gbuf_map:
            return ShardedSlot(name, parameter, slice(0, 0), {})
        where = self.sharded._get_model_param_range_map(parameter)["param"]
        group, place = self.sharded.model_param_group_index_map[parameter]
        master = self.adam.param_groups[group]["params"][place]
        return ShardedSlot(name, parameter, slice(where.start, where.end), {"weight": master} | self.adam.state[master])

    def describe(self) -> str:
        """What computes the update, for the start-up summary."""
        by = ", weight gradients added up by Apex" if self.fuses_gradients else ""
        return f"megatron's distributed optimizer with {type(self.adam).__module__}.{type(self.adam).__name__}{by}"

    def zero_grad(self) -> None:
        self.parallel.zero_grad_buffer()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        with nullcontext() if last else self.parallel.no_sync():
            loss.backward()

    @torch.no_grad()
    def step(self, lr: float) -> Tensor:
        """Do what `Optimizer.step` says; it waits once for the device, to see the norm before anything is changed."""
        self.parallel.finish_grad_sync()
        self.sharded.prepare_grads()
        norm = self._norm()
        self.diverged = self.diverged or not bool(norm.isfinite())
        if self.diverged:
            return norm
        if self.config.clip_norm:
            parts = self.sharded.get_parameters()
            torch.nn.utils.clip_grads_with_norm_(parts, self.config.clip_norm, norm)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.sharded.step_with_ready_grads()
        return norm

    def _norm(self) -> Tensor:
        """Norm of the whole model's gradients. Without Apex, megatron's waits for the device at every parameter."""
        square = torch.zeros((), dtype=torch.float32, device=self.ranks.device)
        parts = self.sharded.get_parameters()
        # Norm gains are alike on the tensor-parallel ranks: each adds its share, so that no rank's NaN is overlooked.
        for is_split, share in ((True, 1.0), (False, 1.0 / self.ranks.tensor_size)):
            mine = [part.grad for part in parts if getattr(part, "tensor_model_parallel", False) == is_split]
            if mine:
                square += share * torch.nn.utils.get_total_norm(mine).square()
        torch.distributed.all_reduce(square, group=self.sharded.get_grad_stats_parallel_group())
        return square.sqrt()

    @torch.no_grad()
    def tensors(self) -> Iterator[tuple[str, ShardedSlot, Tensor]]:
        for kind in KINDS:
            for slot in self.slots:
                whole = torch.zeros(slot.parameter.shape, dtype=torch.float32, device=self.ranks.device)
                if slot.values:
                    whole.view(-1)[slot.part] = slot.values[kind]
                # Bits of one rank and zeros of the others: a sum of integers keeps every bit, also of -0.0.
                self.ranks.sum_over_data(whole.view(torch.int32))
                yield kind, slot, whole

    @torch.no_grad()
    def restore(self, kind: str, slot: ShardedSlot, values: Tensor) -> None:
        if slot.values:
            slot.values[kind].copy_(values.reshape(-1)[slot.part])
        if kind == "weight":
            slot.parameter.copy_(values)

    def restored(self, steps: int) -> None:
        """`restore` has published the weights already; what is left is the count, which the bias correction needs."""
        for group in self.adam.param_groups:
            group["step"] = steps  # where TransformerEngine and Apex count
            for part in group["params"]:
                self.adam.state[part]["step"] = torch.tensor(float(steps), device=self.ranks.device)  # PyTorch


def _data_parallel(model: LanguageModel) -> DistributedDataParallel:
    """Buckets of fp32 gradients, each summed over data-parallel ranks (and split) once the backward pass fills it."""
    # A micro-batch's loss is weighted by its share of the step's tokens already: gradients are summed, not averaged.
    config = copy.copy(model.config)
    config.calculate_per_token_loss = True
    how = DistributedDataParallelConfig(
        use_distributed_optimizer=True, overlap_grad_reduce=True, grad_reduce_in_fp32=True, average_in_collective=False
    )
    return DistributedDataParallel(config, how, model)


@torch.no_grad()
def _sharded_optimizer(parallel: DistributedDataParallel, config: OptimizerConfig, mixed: bool) -> DistributedOptimizer:
    """megatron's optimizer over `parallel`'s buckets. Clipping and the learning rate are ours."""
    plain = ParamKey(
        with_name_predicate=ParamWithNamePredicate("plain", lambda parameter, name: not decays(name, parameter, config))
    )
    how = MegatronOptimizerConfig(
        lr=config.lr,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.eps,
        bf16=mixed,
        use_distributed_optimizer=True,
    )
    # Gloo groups would serve megatron's checkpoints, which are not used here.
    chained = get_megatron_optimizer(how, [parallel], {plain: {"weight_decay": 0.0}}, use_gloo_process_groups=False)
    (optimizer,) = chained.chained_optimizers
    # A model in fp32 has views of its weights as masters. Where the weights change in place, PyTorch from 2.15 on gives
    # such a view no gradient; it must share the memory only.
    for group, masters in zip(optimizer.optimizer.param_groups, optimizer.shard_fp32_groups, strict=True):
        for place, view in enumerate(masters):
            masters[place] = group["params"][place] = view.detach()
            vars(masters[place]).update(vars(view))  # megatron's marks, such as tensor_model_parallel
    return optimizer
