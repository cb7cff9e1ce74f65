"""Answers on a CPU what megatron-core asks of CUDA, so that tests run its own data parallelism over gloo.

megatron asks three things while the optimizer is made: which GPU is current, a few scalars on "cuda", and what type a
parameter has, where a CPU tensor is refused. With fused weight gradients it asks the first one in the backward pass
too. From 0.19 on it also takes the current stream before it sends a bucket, for CUDA graphs only, which are not used.
Nothing else is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from megatron_train.optimizer.megatron_adamw import MegatronAdamW


class _Answers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        answer = func(*args, **kwargs)
        if func is torch.Tensor.type and len(args) == 1:
            return answer.replace("torch.", "torch.cuda.")
        return answer


class MegatronAdamWOnCpu(MegatronAdamW):
    """Sends its buckets without a CUDA stream."""

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        with _without_streams():
            super().backward(loss, last=last)

    def step(self, lr: float) -> torch.Tensor:
        with _without_streams():
            return super().step(lr)


def _without_streams() -> AbstractContextManager[object]:
    return mock.patch("torch.cuda.current_stream", return_value=None)


@contextmanager
def megatron_on_cpu() -> Iterator[None]:
    """For the time in which MegatronAdamW is made, or fused weight gradients are computed."""
    with mock.patch("torch.cuda.current_device", return_value="cpu"), _Answers():
        yield
