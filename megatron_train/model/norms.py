"""RMSNorm from whichever library is there, as megatron's layer specs name it.

In: whether blocks are compiled. Out: the norm's builder and the name of its kernel. NVIDIA's fused norms serve a model
that is not compiled; in a compiled block the compiler fuses PyTorch's norm with what stands around it, which a foreign
kernel would cut in two. NEITHER APEX NOR TRANSFORMERENGINE HAS BEEN RUN HERE: tests exercise the call sites with a
stand-in of the same interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from megatron_train.model.mcore import WrappedTorchNorm, transformer_engine_norm


class ApexNorm:
    """Builds Apex's FusedRMSNorm from what megatron passes to a norm."""

    def __new__(cls, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> torch.nn.Module:  # type: ignore[misc]
        from apex.normalization import FusedRMSNorm

        norm: torch.nn.Module = FusedRMSNorm(hidden_size, eps=eps)
        return norm


@dataclass(frozen=True)
class NormKernel:
    name: str
    builder: Any
    """What a layer spec names: called with config, hidden_size and eps, it makes the module."""


def has_apex() -> bool:
    """Is NVIDIA's Apex importable, with its CUDA extensions built? The package `apex` on PyPI is something else."""
    return find_spec("apex") is not None and find_spec("fused_layer_norm_cuda") is not None


def has_transformer_engine() -> bool:
    return find_spec("transformer_engine") is not None and find_spec("transformer_engine_torch") is not None


def choose_norm(device: torch.device, *, compiled: bool) -> NormKernel:
    """TransformerEngine's, else Apex's, else PyTorch's; PyTorch's on a CPU and in compiled blocks."""
    if device.type == "cuda" and not compiled:
        if has_transformer_engine():
            return NormKernel("TransformerEngine RMSNorm", transformer_engine_norm())
        if has_apex():
            return NormKernel("Apex FusedRMSNorm", ApexNorm)
    return NormKernel("PyTorch RMSNorm", WrappedTorchNorm)
