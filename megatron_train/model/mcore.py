"""Everything this project takes from megatron-core, and the one adapter that lets it run without a GPU.

Other modules import megatron's names from here only, so that a change of its API is felt in one file. It runs with
megatron-core 0.16.1, the last for Python 3.11, and with 0.19. Both have every name that is imported here, with the same
meaning; they differ in what they say while they work (see the end of the imports).
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

TRACKERS = ("torch.utils.tensorboard", "wandb")


def _identity(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return function if function is not None else _identity


@contextmanager
def _import_adapter() -> Iterator[None]:
    """While megatron is imported: no warnings about absent kernels or CUDA; without a GPU, no torch.compile.

    megatron decorates its fused kernels with torch.compile. On a CPU we never call them, and the first use of the
    decorator imports all of TorchInductor (5 s). Its timers, which we do not use, import TensorBoard's writer and W&B
    (seconds) where they are installed.
    """
    compile_ = torch.compile
    finds_cuda = logging.getLogger("torch.utils.cpp_extension")  # complains where a CUDA build finds no GPU
    hidden = [name for name in TRACKERS if name not in sys.modules]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: "not installed"
        if not torch.cuda.is_available():
            torch.compile = _identity  # type: ignore[assignment]
            finds_cuda.disabled = True
        try:
            yield
        finally:
            torch.compile = compile_
            finds_cuda.disabled = False
            for name in hidden:
                del sys.modules[name]


with _import_adapter():
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.models.gpt.gpt_model import GPTModel
    from megatron.core.optimizer import get_megatron_optimizer
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
    from megatron.core.optimizer.optimizer_config import OptimizerConfig as MegatronOptimizerConfig
    from megatron.core.optimizer.optimizer_config import ParamKey, ParamWithNamePredicate
    from megatron.core.tensor_parallel import ColumnParallelLinear
    from megatron.core.tensor_parallel import RowParallelLinear as _RowParallelLinear
    from megatron.core.tensor_parallel.layers import _grad_accum_fusion_available
    from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
    from megatron.core.transformer.enums import AttnMaskType
    from megatron.core.transformer.mlp import MLP, MLPSubmodules
    from megatron.core.transformer.spec_utils import ModuleSpec
    from megatron.core.transformer.torch_norm import WrappedTorchNorm
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
    from megatron.core.transformer.transformer_config import TransformerConfig
    from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules


class RowParallelLinear(_RowParallelLinear):
    """megatron's, which forgets to pass its group on: it then warns in every call, and torch.compile cannot trace that.

    A layer would be cut into more than ten graphs.
    """

    def _forward_impl(self, *arguments: Any, **options: Any) -> Tensor:
        return super()._forward_impl(*arguments, **(options | {"tp_group": self.tp_group}))


# What megatron says of its own code, and of the names by which it calls PyTorch: the user can do nothing about it.
warnings.filterwarnings("ignore", r"`torch.distributed.(reduce_scatter|all_gather_into)_tensor`", FutureWarning)
warnings.filterwarnings("ignore", module=r"megatron\.core\.")
logging.getLogger("megatron").setLevel(logging.ERROR)


def fuse_weight_gradients(model: torch.nn.Module) -> bool:
    """Let Apex's kernel add the gradients of the layers' matrices straight to megatron's fp32 buckets.

    Only after DistributedDataParallel has made the buckets, and not in compiled blocks, which the kernel would cut at
    every matrix. Returns whether it is installed (Apex's extension fused_weight_gradient_mlp_cuda); where it is not,
    nothing changes. The real one has not been run, only a stand-in.
    """
    if _grad_accum_fusion_available:
        for module in model.modules():
            if isinstance(module, ColumnParallelLinear | RowParallelLinear):
                module.gradient_accumulation_fusion = True
    return bool(_grad_accum_fusion_available)


def transformer_engine_norm() -> Any:
    """megatron's builder of TransformerEngine's norms; only where TransformerEngine is installed."""
    from megatron.core.extensions.transformer_engine import TENorm

    return TENorm
