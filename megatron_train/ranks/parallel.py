"""Who this process is among all, and the process groups between them.

In: torchrun's environment (or none: one process) and the tensor-parallel size. Out: `Ranks`. NCCL on GPUs, gloo on
CPUs. Neighbouring ranks share one copy of the model (tensor parallelism), the others split the batch (data
parallelism).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import MagicError, ResourceError
from megatron_train.ranks import place

GROUP_TIMEOUT_MIN = 30

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place: `tensor` of `tensor_size`, `data` of `data_size`, and its device."""

    rank: int
    world: int
    tensor: int
    tensor_size: int
    data: int
    data_size: int
    device: torch.device
    tensor_group: dist.ProcessGroup
    data_group: dist.ProcessGroup
    store: dist.Store | None = None
    """The ranks found each other through it; None for a single process."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_over_data(self, value: Tensor) -> Tensor:
        """Sum in place over the data-parallel ranks."""
        if self.data_size > 1:
            dist.all_reduce(value, group=self.data_group)
        return value

    def sum_over_tensor(self, value: Tensor) -> Tensor:
        """Sum in place over the tensor-parallel ranks."""
        if self.tensor_size > 1:
            dist.all_reduce(value, group=self.tensor_group)
        return value

    def largest(self, mine: float) -> float:
        """The largest of all ranks' numbers; all ranks ask."""
        if self.world == 1:
            return mine
        value = torch.tensor(mine, dtype=torch.float64, device=self.device)
        with place.waiting():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
            return float(value.item())

    def smallest(self, mine: float) -> float:
        """The smallest of all ranks' numbers; all ranks ask."""
        return -self.largest(-mine)

    def any(self, mine: bool) -> bool:
        """Does it hold on some rank? All ranks must ask."""
        return self.largest(float(mine)) > 0

    def from_main(self, do: Callable[[], T]) -> T:
        """Call `do` on the main rank; all ranks return what it returned.

        A user's error is raised on all ranks, so that none of them waits for a main rank that has ended.
        """
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = do()
            except (MagicError, OSError) as error:
                answer[1] = error
        if self.world > 1:
            with place.waiting():
                dist.broadcast_object_list(answer, src=0, device=self.device)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    def barrier(self) -> None:
        if self.world > 1:
            with place.waiting():
                dist.barrier()


def world_size() -> int:
    """Processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def initialise(tensor_parallel: int, data_batch: int, hang_timeout_s: float = 0.0) -> Ranks:
    """Join the process groups. `data_batch` (sequences of one step) must divide over the data-parallel ranks.

    The groups' own time limit is 30 minutes, or more where the watchdog's (`hang_timeout_s`) would not come first.

    Raises ResourceError where the number of processes does not fit.
    """
    from megatron_train.model.mcore import parallel_state

    world = world_size()
    if world % tensor_parallel:
        raise ResourceError(
            f"parallel.tensor is {tensor_parallel}, but {world} process(es) run",
            hint=f"torchrun --nproc-per-node {tensor_parallel} megatron_train/pretrain.py ...",
        )
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise ResourceError(f"rank {local} has no GPU of its own; {torch.cuda.device_count()} are visible")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    minutes = max(GROUP_TIMEOUT_MIN, math.ceil(2 * hang_timeout_s / 60))
    store = _join("nccl" if cuda else "gloo", world, timedelta(minutes=minutes))
    if not parallel_state.model_parallel_is_initialized():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=tensor_parallel, distributed_timeout_minutes=minutes
        )
    ranks = Ranks(
        rank=dist.get_rank(),
        world=world,
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        tensor_size=tensor_parallel,
        data=parallel_state.get_data_parallel_rank(),
        data_size=world // tensor_parallel,
        device=device,
        tensor_group=parallel_state.get_tensor_model_parallel_group(),
        data_group=parallel_state.get_data_parallel_group(),
        store=store,
    )
    if data_batch % ranks.data_size:
        raise ResourceError(
            f"batch.sequences ({data_batch}) does not divide over {ranks.data_size} data-parallel ranks",
            hint=f"set batch.sequences to a multiple of {ranks.data_size}",
        )
    return ranks


_joined = 0


def _join(backend: str, world: int, timeout: timedelta) -> dist.Store | None:
    """Join the default group; returns the store through which several ranks found each other, None for one alone."""
    global _joined
    if dist.is_initialized():
        return None
    if world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return None
    store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    # Several runs may follow each other in the processes of one torchrun: each has its own keys in the store.
    _joined += 1
    keys = dist.PrefixStore(f"group {_joined}", store)
    dist.init_process_group(backend, store=keys, rank=rank, world_size=world, timeout=timeout)
    return store


def shut_down() -> None:
    """Leave the groups, so that another run can start in the same process."""
    from megatron_train.model.mcore import parallel_state

    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
